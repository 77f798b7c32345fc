//! Reads the configuration, one TOML file, in two stages.
//!
//! [`Raw`] is the file as it is written; unknown keys are refused. [`Configuration`] is what the
//! file means: every path and name resolved, contradictions refused with the reason. Each module
//! owns its own table; this file composes the tables, and `check` compares them with each other.

mod approval;
mod audit;
mod check;
mod listen;
mod ocsp;
mod policy;
mod raw;
#[cfg(test)]
mod tests;

pub use listen::{HttpsListener, UNIDENTIFIED_CONNECTIONS_MAX};

use crate::ca::IssuerSettings;
use crate::ca::approval::ApprovalPolicy;
use crate::ca::backup::BackupSettings;
use crate::ca::crl::CrlSchedule;
use crate::ca::est::EstSettings;
use crate::ca::roll::RolloverSettings;
use crate::ca::services::Services;
use crate::enrollment::plan::DriftPolicy;
use crate::files;
use crate::provisioning::configuration::Provisioning;
use crate::token::configuration::TokenSettings;
use crate::token::token_file::worker_socket;
use crate::toml_error::where_and_why;
use raw::Raw;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The configuration, checked.
#[derive(Debug)]
pub struct Configuration {
    /// The absolute path of the file: workers are started with it.
    pub file: PathBuf,
    /// The file's text, for workers that are started after the file has changed.
    pub text: String,
    /// The file's tables, for comparing them with those of a later file.
    pub raw: toml::Table,
    /// Holds the database and the TLS identity.
    pub state_dir: PathBuf,
    /// Holds the admin socket and those of the workers.
    pub runtime_dir: PathBuf,
    /// Holds the workers' park files, TPM identities and locks.
    pub token_state_dir: PathBuf,
    pub https: Option<HttpsListener>,
    /// The settings of EST.
    pub est: EstSettings,
    /// Serves CRLs and CA certificates over plain HTTP; port 0 takes a free one.
    pub http: Option<SocketAddr>,
    pub admin: PathBuf,
    /// Users who may use the admin socket, besides root and the daemon's own.
    pub admin_users: Vec<u32>,
    /// How many unidentified connections one address may have at each listener.
    pub connections_per_address: usize,
    pub tokens: BTreeMap<String, TokenSettings>,
    /// The settings of the issuer.
    pub issuer: IssuerSettings,
    /// Provisioning services by name.
    pub provisioning: BTreeMap<String, Provisioning>,
    /// Whether drift is repaired or reported.
    pub drift: DriftPolicy,
    /// How often each provisioning service is compared with what is on record.
    pub scan_interval: Duration,
    /// How long changes may wait for a provisioning service before that is an alarm, in seconds.
    pub push_age_alarm_seconds: i64,
    /// When leaves and authorities are rolled, and which approvals that needs.
    pub rollovers: RolloverSettings,
    /// When CRLs are signed.
    pub crl_schedule: CrlSchedule,
    /// How long the records of a revocation are kept after the end of its certificate, in seconds.
    pub revocations_kept_seconds: i64,
    /// The actions that need the approval of a second person.
    pub approvals: ApprovalPolicy,
    /// How backups are made.
    pub backups: BackupSettings,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("the configuration {path:?} cannot be read: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    /// The file is not TOML, or has other keys than documented.
    #[error("the configuration {path:?} is not understood: {reason}")]
    Malformed { path: PathBuf, reason: String },
    /// The file contradicts itself.
    #[error("the configuration contradicts itself: {0}")]
    Contradiction(String),
}

impl Configuration {
    /// Returns why an authority whose key is on `token` is not served by this configuration.
    pub fn misplaced(&self, authority: &str, token: &str) -> Option<String> {
        self.issuer.misplaced(authority, token)
    }

    /// Reads and checks `path`. `credentials_directory` is `$CREDENTIALS_DIRECTORY`.
    pub fn read(
        path: &Path,
        credentials_directory: Option<&Path>,
    ) -> Result<Self, ConfigurationError> {
        let unreadable = |reason: String| ConfigurationError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        let text = files::read_text(path, FILE_BYTES_MAX);
        let text = text.map_err(|error| unreadable(error.to_string()))?;
        let file = path
            .canonicalize()
            .map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&text, file, credentials_directory)
    }

    /// Reads and checks `text`, which is to be the content of `file`.
    pub(crate) fn parse(
        text: &str,
        file: PathBuf,
        credentials_directory: Option<&Path>,
    ) -> Result<Self, ConfigurationError> {
        let malformed = |error: toml::de::Error| ConfigurationError::Malformed {
            path: file.clone(),
            reason: where_and_why(text, &error),
        };
        let raw: Raw = toml::from_str(text).map_err(malformed)?;
        let table: toml::Table = toml::from_str(text).map_err(malformed)?;
        let configuration = raw.resolve(text, table, file.clone(), credentials_directory)?;
        configuration.check()?;
        Ok(configuration)
    }

    /// Returns the provisioning services as the certificate authority knows them.
    pub fn services(&self) -> Services {
        let mut services = Services {
            scan_seconds: i64::try_from(self.scan_interval.as_secs()).unwrap_or(i64::MAX),
            ..Services::default()
        };
        for (name, service) in &self.provisioning {
            services.names.push(name.clone());
            services
                .verified
                .insert(name.clone(), service.verified.clone());
            services
                .rates
                .insert(name.clone(), service.operations_per_minute);
            if let Some(rate) = service.hub_operations_per_minute() {
                services.hubs.insert(name.clone(), rate);
            }
        }
        services
    }

    /// Returns the settings that only a restart changes, by their names in the file: folders are
    /// locked at the start, and listeners bound or handed over.
    pub fn taken_at_start(&self) -> [(&'static str, String); 7] {
        let address = |it: Option<SocketAddr>| it.map_or("none".into(), |it| it.to_string());
        let path = |it: &Path| it.display().to_string();
        [
            ("state_dir", path(&self.state_dir)),
            ("runtime_dir", path(&self.runtime_dir)),
            ("token_state_dir", path(&self.token_state_dir)),
            (
                "[listen] https",
                address(self.https.as_ref().map(|it| it.address)),
            ),
            ("[listen] http", address(self.http)),
            ("[listen] admin", path(&self.admin)),
            (
                "[listen] connections_per_address",
                self.connections_per_address.to_string(),
            ),
        ]
    }

    /// Returns the socket of the worker of the token `name`.
    pub fn worker_socket(&self, name: &str) -> PathBuf {
        worker_socket(&self.runtime_dir, name)
    }
}
