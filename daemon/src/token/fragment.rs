//! Fragments: what the daemon knows of a family of PKCS#11 modules, as data.
//!
//! One TOML file per family in `pkcs11-config/`, compiled in, so that a name in the configuration
//! is enough. A quirk belongs here when it is about the family, never about one site. There is no
//! field for the `pReserved` string of `C_Initialize`, which NSS wants: passing it takes `unsafe`.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Every fragment that ships: name in the configuration, and its text.
const SHIPPED: &[(&str, &str)] = &[(
    "softhsm2",
    include_str!("../../../pkcs11-config/softhsm2.toml"),
)];

/// One family of modules.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    /// The family's name, for people.
    pub family: String,
    /// Where the module may be; the first that exists is taken.
    pub modules: Vec<PathBuf>,
    /// Environment variables without which the module does not find its token.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Sessions that sign, one thread each.
    #[serde(default = "sessions_default")]
    pub sessions: usize,
    /// Whether keys can be used only after `C_Login`.
    #[serde(default = "login_default")]
    pub login: bool,
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

fn login_default() -> bool {
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
            modules: vec![module.to_owned()],
            environment: Vec::new(),
            sessions: sessions_default(),
            login: login_default(),
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
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pkcs11-config");
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
            assert!(
                !fragment.modules.is_empty() && fragment.sessions > 0,
                "{name}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_told_which_there_are() {
        let error = Fragment::shipped("softhsm").expect_err("no such fragment");
        assert!(error.to_string().contains("softhsm2"), "{error}");
    }
}
