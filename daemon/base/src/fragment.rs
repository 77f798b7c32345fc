//! Describes the families of PKCS#11 modules as data, in fragments.
//!
//! `pkcs11-config/` has one TOML file for each family, compiled in, so that a name in the
//! configuration is enough. A fragment describes a family and never one site. A property that a
//! fragment does not set is as in the specification.

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

/// Every fragment of the package: its name in the configuration, and its text.
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

/// The access of a worker, by a drop-in of the package for its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sandbox {
    /// Files in its own folder.
    Softhsm,
    Tpm,
    UsbHsm,
    NetworkHsm,
    /// The smart card daemon's socket.
    Pcscd,
}

impl Sandbox {
    /// Returns the name of the drop-in without its extension.
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

/// The kind of file that must be at the path in an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    File,
    Folder,
    /// An address of p11-kit, `unix:path=PATH`, or one of another kind, which is not checked.
    Address,
}

/// One family of modules.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    /// The family's name for operators.
    pub family: String,
    /// The modules that the fragment was tested with; empty if it is only from documents.
    #[serde(default)]
    pub tried: String,
    #[serde(default)]
    pub sources: Vec<String>,
    /// Paths of the module; the first that exists is used.
    pub modules: Vec<PathBuf>,
    /// Environment variables without which the module does not find its token.
    #[serde(default)]
    pub environment: Vec<String>,
    /// The argument `pReserved` of `C_Initialize`; `${NAME}` is a variable of `environment`.
    pub initialize_argument: Option<String>,
    /// The variables of `environment` that name a path, and what must be there.
    #[serde(default)]
    pub paths: BTreeMap<String, PathKind>,
    /// Sockets of other programs without which the module finds no token.
    #[serde(default)]
    pub sockets: Vec<PathBuf>,
    /// Default number of signing sessions, one thread each.
    #[serde(default = "sessions_default")]
    pub sessions: usize,
    /// Most sessions that the family supports.
    #[serde(default = "sessions_max_default")]
    pub sessions_max: usize,
    /// True if keys can be used only after `C_Login`.
    #[serde(default = "yes")]
    pub login: bool,
    /// The access of a worker; `None` if it depends on the token behind the module.
    pub sandbox: Option<Sandbox>,
    /// The form of a PIN, if it has one.
    #[serde(default)]
    pub pin_form: String,
    /// True if `CKA_LOCAL` is true of a key that was made on the token.
    #[serde(default = "yes")]
    pub tells_local: bool,
    /// True if the template of a new key may also set `CKA_DERIVE`, `CKA_DECRYPT` and `CKA_UNWRAP`
    /// to false: some modules refuse such a template.
    #[serde(default = "yes")]
    pub takes_purposes: bool,
    /// True if the module fails when another session is at work while keys are made or deleted.
    #[serde(default)]
    pub changes_alone: bool,
    /// Mechanisms that the module lists although they fail, as `CKM_…` names.
    #[serde(default)]
    pub avoid_mechanisms: Vec<String>,
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

/// The reason why there is no fragment.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    /// The package has no family of this name.
    #[error("there is no fragment {0:?}; there are: {known}", known = names().join(", "))]
    Unknown(String),
    /// The text is not a valid fragment.
    #[error("fragment {name:?} cannot be read")]
    Malformed {
        /// The name of the fragment.
        name: String,
        /// The error of the parser.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be part of the argument of `C_Initialize`.
    #[error("the value of {0} in `environment` must not hold quotes, '$' or NUL")]
    Environment(String),
}

impl Fragment {
    /// Returns the fragment `name` of the package.
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

    /// Returns the assumptions about a module of an unknown family.
    pub fn unknown_family(module: &Path) -> Self {
        Fragment {
            family: "unknown".to_owned(),
            tried: String::new(),
            sources: Vec::new(),
            modules: vec![module.to_owned()],
            environment: Vec::new(),
            initialize_argument: None,
            paths: BTreeMap::new(),
            sockets: Vec::new(),
            sessions: sessions_default(),
            sessions_max: sessions_max_default(),
            login: true,
            sandbox: None,
            pin_form: String::new(),
            tells_local: true,
            takes_purposes: true,
            changes_alone: false,
            avoid_mechanisms: Vec::new(),
            notes: String::new(),
        }
    }

    /// Returns the module's file: the first of [`modules`](Fragment::modules) that exists.
    pub fn module(&self) -> Option<&Path> {
        self.modules
            .iter()
            .map(PathBuf::as_path)
            .find(|path| path.is_file())
    }

    /// Returns [`initialize_argument`](Fragment::initialize_argument) with values of `environment`.
    ///
    /// An error names the variable: a quote or a NUL in its value would change the meaning of the
    /// argument.
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

/// Returns the names of the fragments of the package.
pub fn names() -> Vec<&'static str> {
    SHIPPED.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fragment_that_ships_is_compiled_in_and_parses() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = top.join("pkcs11-config");
        let sandboxes = top.join("systemd/sandboxes");
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
                let drop_in = sandboxes.join(format!("{}.conf", sandbox.name()));
                assert!(drop_in.is_file(), "{name}");
            }
            let mut with_path = fragment.paths.keys();
            assert!(
                with_path.all(|it| fragment.environment.contains(it)),
                "{name}"
            );
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
    fn the_error_about_an_unknown_name_lists_the_known_names() {
        let error = Fragment::shipped("softhsm").expect_err("no such fragment");
        assert!(error.to_string().contains("softhsm2"), "{error}");
    }
}
