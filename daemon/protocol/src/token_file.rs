//! Reads from the configuration file the part that a worker needs. `serve` checks the rest.

use crate::configuration::TokenConfiguration;
use crate::limits::SigningRules;
use hallmark_base::files;
use hallmark_base::toml_error::where_and_why;
use hallmark_pki::x509::profile::Profile;
use serde::Deserialize;
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The part of the configuration file that a worker reads. `serve` checks the rest.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenFile {
    state_dir: PathBuf,
    runtime_dir: Option<PathBuf>,
    token_state_dir: Option<PathBuf>,
    #[serde(default)]
    pub token: Vec<TokenConfiguration>,
    #[serde(default)]
    profile: Vec<ProfileTable>,
}

/// A `[[profile]]`, of which a worker needs the shape of the certificate.
#[derive(Clone, Debug, Deserialize)]
struct ProfileTable {
    certificate: Option<toml::Value>,
}

impl ProfileTable {
    /// Returns the shape; `None` if it is not valid: `serve` refuses it, and issues nothing by it.
    fn shape(&self) -> Option<Profile> {
        self.certificate.clone()?.try_into().ok()
    }
}

/// Returns the socket of a worker, for the worker and for `serve`.
pub fn worker_socket(runtime_dir: &Path, name: &str) -> PathBuf {
    runtime_dir.join(format!("token-{name}.sock"))
}

/// Why the configuration of a worker's token cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read {path:?}: {reason}")]
    Unreadable {
        path: PathBuf,
        /// The error of the operating system.
        reason: String,
    },
    /// The file is not valid TOML, or has unknown or missing fields.
    #[error("cannot use {path:?}: {reason}")]
    Malformed {
        path: PathBuf,
        /// The line and what is wrong in it.
        reason: String,
    },
    /// The file has no token of this name.
    #[error("there is no [[token]] named {0:?}")]
    NoSuchToken(String),
}

impl TokenFile {
    /// Reads the configuration file.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = files::read_text(path, FILE_BYTES_MAX);
        let text = text.map_err(|error| TokenFileError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        toml::from_str(&text).map_err(|error| TokenFileError::Malformed {
            path: path.to_owned(),
            reason: where_and_why(&text, &error),
        })
    }

    /// Returns the table of the token `name`.
    pub fn token(&self, name: &str) -> Result<TokenConfiguration, TokenFileError> {
        let token = self.token.iter().find(|token| token.name == name);
        token
            .cloned()
            .ok_or_else(|| TokenFileError::NoSuchToken(name.to_owned()))
    }

    /// Returns what the keys of the token `name` may sign.
    pub fn rules(&self, name: &str) -> Result<SigningRules, TokenFileError> {
        let limits = self.token(name)?.limits;
        let profiles: Vec<_> = self
            .profile
            .iter()
            .filter_map(ProfileTable::shape)
            .collect();
        Ok(SigningRules::new(limits, &profiles))
    }

    /// Returns the socket of the worker of `name`, unless `--socket` names another one.
    pub fn socket(&self, name: &str) -> PathBuf {
        worker_socket(self.runtime_dir.as_ref().unwrap_or(&self.state_dir), name)
    }

    /// Returns the folder of park files, of the files that identify TPMs, and of locks.
    pub fn state_directory(&self) -> &Path {
        self.token_state_dir.as_ref().unwrap_or(&self.state_dir)
    }
}
