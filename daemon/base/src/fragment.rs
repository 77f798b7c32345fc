//! Fragments: what the daemon knows of a family of PKCS#11 modules, as data.
//!
//! One TOML file per family in `pkcs11-config/`, compiled in, so that a name in the configuration
//! is enough. A quirk belongs here when it is about the family, never about one site. What a family
//! of the file does not say is as the specification has it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most sessions that one token may be given. A network HSM shares some 1,000 among its clients.
pub const SESSIONS_MAX: usize = 64;

/// Longest name of a token; it is part of a socket's path, and those end at 108 bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 32;

macro_rules! shipped {
    ($($name:literal),+) => {
        &[$(($name, include_str!(concat!("../../../pkcs11-config/", $name, ".toml")))),+]
    };
}

/// Every fragment that ships: name in the configuration, and its text.
const SHIPPED: &[(&str, &str)] = shipped![
    "aws-cloudhsm",
    "entrust-nshield",
    "nitrokey-hsm2",
    "nss",
    "opencryptoki",
    "p11-kit",
    "softhsm2",
    "thales-luna",
    "tpm2-pkcs11",
    "yubihsm2"
];

/// What a worker may touch: a drop-in for its unit that ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sandbox {
    /// Files in its own folder.
    Softhsm,
    /// A TPM's device.
    Tpm,
    /// USB devices.
    UsbHsm,
    /// The network.
    NetworkHsm,
    /// The smart card daemon's socket.
    Pcscd,
}

impl Sandbox {
    /// The drop-in's name, without its ending.
    pub fn name(self) -> &'static str {
        match self {
            Sandbox::Softhsm => "softhsm",
            Sandbox::Tpm => "tpm",
            Sandbox::UsbHsm => "usb-hsm",
            Sandbox::NetworkHsm => "network-hsm",
            Sandbox::Pcscd => "pcscd",
        }
    }
}

/// One family of modules.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    /// The family's name, for people.
    pub family: String,
    /// What the fragment was tried on; empty if only the vendor's documents were read.
    #[serde(default)]
    pub tried: String,
    /// Those documents.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Where the module may be; the first that exists is taken.
    pub modules: Vec<PathBuf>,
    /// Environment variables without which the module does not find its token.
    #[serde(default)]
    pub environment: Vec<String>,
    /// What `C_Initialize` wants in `pReserved`; `${NAME}` is a variable of `environment`.
    pub initialize_argument: Option<String>,
    /// Sessions that sign, one thread each.
    #[serde(default = "sessions_default")]
    pub sessions: usize,
    /// The most of them that the family bears.
    #[serde(default = "sessions_max_default")]
    pub sessions_max: usize,
    /// Whether keys can be used only after `C_Login`.
    #[serde(default = "yes")]
    pub login: bool,
    /// What a worker may touch; unsaid where that depends on what stands behind the module.
    pub sandbox: Option<Sandbox>,
    /// What a PIN looks like, where it is more than some characters.
    #[serde(default)]
    pub pin_form: String,
    /// Whether `CKA_LOCAL` of a key that was made on the token is true.
    #[serde(default = "yes")]
    pub tells_local: bool,
    /// Whether a key's purpose is limited by attributes besides `CKA_SIGN` when it is made
    /// (`CKA_DERIVE`, `CKA_DECRYPT`, `CKA_UNWRAP`): some modules refuse such a template.
    #[serde(default = "yes")]
    pub takes_purposes: bool,
    /// Mechanisms that the module lists and that fail all the same, as `CKM_…` names.
    #[serde(default)]
    pub avoid_mechanisms: Vec<String>,
    /// What else an operator should know.
    #[serde(default)]
    pub notes: String,
}

/// Enough for two cores, few enough for every token.
fn sessions_default() -> usize {
    2
}

fn sessions_max_default() -> usize {
    SESSIONS_MAX
}

fn yes() -> bool {
    true
}

/// Why there is no fragment.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    /// No family of that name ships.
    #[error("there is no fragment {0:?}; there are: {known}", known = names().join(", "))]
    Unknown(String),
    /// The text is not a fragment.
    #[error("fragment {name:?} cannot be read")]
    Malformed {
        /// Its name.
        name: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be part of what `C_Initialize` gets.
    #[error("the value of {0} in `environment` must not hold quotes, '$' or NUL")]
    Environment(String),
}

impl Fragment {
    /// The fragment `name` that ships with the daemon.
    pub fn shipped(name: &str) -> Result<Self, FragmentError> {
        let (_, text) = SHIPPED
            .iter()
            .find(|(shipped, _)| *shipped == name)
            .ok_or_else(|| FragmentError::Unknown(name.to_owned()))?;
        toml::from_str(text).map_err(|source| FragmentError::Malformed {
            name: name.to_owned(),
            source: Box::new(source),
        })
    }

    /// What is assumed of a module named by path, of whose family nothing is known.
    pub fn unknown_family(module: &Path) -> Self {
        Fragment {
            family: "unknown".to_owned(),
            tried: String::new(),
            sources: Vec::new(),
            modules: vec![module.to_owned()],
            environment: Vec::new(),
            initialize_argument: None,
            sessions: sessions_default(),
            sessions_max: sessions_max_default(),
            login: true,
            sandbox: None,
            pin_form: String::new(),
            tells_local: true,
            takes_purposes: true,
            avoid_mechanisms: Vec::new(),
            notes: String::new(),
        }
    }

    /// The module's file: the first of [`modules`](Fragment::modules) that exists.
    pub fn module(&self) -> Option<&Path> {
        self.modules
            .iter()
            .map(PathBuf::as_path)
            .find(|path| path.is_file())
    }

    /// [`initialize_argument`](Fragment::initialize_argument), filled in from `environment`.
    ///
    /// The refusal names the variable: a quote or a NUL in its value would say something else to
    /// the module than it says here.
    pub fn initialize_argument(
        &self,
        environment: &BTreeMap<String, String>,
    ) -> Result<Option<std::ffi::CString>, FragmentError> {
        let Some(pattern) = &self.initialize_argument else {
            return Ok(None);
        };
        let mut argument = pattern.clone();
        for name in &self.environment {
            let value = environment
                .get(name)
                .map(String::as_str)
                .unwrap_or_default();
            if value.contains(['\'', '"', '\0', '$']) {
                return Err(FragmentError::Environment(name.clone()));
            }
            argument = argument.replace(&format!("${{{name}}}"), value);
        }
        let argument = std::ffi::CString::new(argument);
        Ok(Some(
            argument.expect("no value has a NUL, nor a fragment that ships"),
        ))
    }
}

/// Names of the fragments that ship.
pub fn names() -> Vec<&'static str> {
    SHIPPED.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fragment_that_ships_is_compiled_in_and_parses() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (folder, families) = (
            top.join("pkcs11-config"),
            top.join("systemd/token-families"),
        );
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder ships")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .map(|path| {
                path.file_stem()
                    .expect("has a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        files.sort();
        assert_eq!(files, names());
        for name in names() {
            let fragment = Fragment::shipped(name).expect("parses");
            let sessions = 1..=fragment.sessions_max;
            assert!(!fragment.modules.is_empty(), "{name}");
            assert!(sessions.contains(&fragment.sessions), "{name}");
            assert!(
                !fragment.tried.is_empty() || !fragment.sources.is_empty(),
                "{name} neither was tried nor says where it is from"
            );
            let depends = ["opencryptoki", "p11-kit"].contains(&name);
            assert_eq!(fragment.sandbox.is_none(), depends, "{name}");
            if let Some(sandbox) = fragment.sandbox {
                let drop_in = families.join(format!("{}.conf", sandbox.name()));
                assert!(drop_in.is_file(), "{name}");
            }
            let argument = fragment.initialize_argument(&BTreeMap::new());
            let argument = argument.expect("nothing is filled in");
            let open = argument.is_some_and(|it| it.to_string_lossy().contains("${"));
            assert!(!open, "{name}: a variable that `environment` does not list");
        }
    }

    #[test]
    fn an_initialize_argument_is_filled_in_and_takes_no_quotes() {
        let fragment = Fragment::shipped("nss").expect("parses");
        let argument = |folder: &str| {
            let environment = [("NSS_CONFIGDIR".to_owned(), folder.to_owned())];
            fragment.initialize_argument(&environment.into())
        };
        let filled = argument("/var/lib/nss")
            .expect("plain")
            .expect("it has one");
        assert!(
            filled
                .to_string_lossy()
                .contains("configdir='sql:/var/lib/nss'")
        );
        assert!(argument("/tmp' flags='").is_err());
    }

    #[test]
    fn an_unknown_name_is_told_which_there_are() {
        let error = Fragment::shipped("softhsm").expect_err("no such fragment");
        assert!(error.to_string().contains("softhsm2"), "{error}");
    }
}
