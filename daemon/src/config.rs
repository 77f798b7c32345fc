//! The configuration: one TOML file, read in two stages.
//!
//! [`Said`] is what the file says; unknown keys are refused. [`Configuration`] is what it means:
//! checked as a whole, every path and name resolved, contradictions refused with the reason. Each
//! module owns its own table; this file composes them, and checks what only the whole can show.

use crate::ca::profile::{IssuanceProfile, Role};
use crate::enrollment::plan::DriftPolicy;
use crate::provisioning::configuration::{Provisioning, ProvisioningConfiguration};
use crate::token::configuration::{TokenConfiguration, TokenSettings};
use crate::token::credential::label;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    state_dir: PathBuf,
    listen: Listen,
    #[serde(default)]
    token: Vec<TokenConfiguration>,
    #[serde(default)]
    authority: Vec<Authority>,
    #[serde(default)]
    profile: Vec<IssuanceProfile>,
    #[serde(default)]
    provisioning: Vec<ProvisioningConfiguration>,
    #[serde(default)]
    policy: Policy,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    https: Option<SocketAddr>,
    /// DNS names and IP addresses of the HTTPS listener; the first is its common name.
    #[serde(default)]
    names: Vec<String>,
    /// The profile of the HTTPS listener's certificate.
    profile: Option<String>,
    admin: Option<PathBuf>,
    #[serde(default)]
    admin_users: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authority {
    name: String,
    token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(default)]
    drift: DriftPolicy,
}

/// The configuration, checked.
#[derive(Debug)]
pub struct Configuration {
    /// The file it came from, absolute: workers are started with it.
    pub file: PathBuf,
    /// Where the database, the TLS identity and the park files lie.
    pub state_dir: PathBuf,
    /// The HTTPS listener.
    pub https: Option<HttpsListener>,
    /// The admin socket.
    pub admin: PathBuf,
    /// Users who may use the admin socket, besides root and the daemon's own.
    pub admin_users: Vec<u32>,
    /// Tokens by name.
    pub tokens: BTreeMap<String, TokenSettings>,
    /// The token of each authority.
    pub authorities: BTreeMap<String, String>,
    /// Profiles by name.
    pub profiles: BTreeMap<String, IssuanceProfile>,
    /// Provisioning services by name.
    pub provisioning: BTreeMap<String, Provisioning>,
    /// What to do about drift.
    pub drift: DriftPolicy,
}

/// The HTTPS listener.
#[derive(Clone, Debug)]
pub struct HttpsListener {
    /// Where it listens; port 0 takes a free one, and the log says which.
    pub address: SocketAddr,
    /// Its names.
    pub names: Vec<String>,
    /// The profile of its certificate.
    pub profile: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("the configuration {path:?} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not as the documentation has it.
    #[error("the configuration {path:?} is not understood: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The file contradicts itself.
    #[error("the configuration contradicts itself: {0}")]
    Contradiction(String),
}

impl Configuration {
    /// Reads and checks `path`. `credentials_directory` is `$CREDENTIALS_DIRECTORY`.
    pub fn read(
        path: &Path,
        credentials_directory: Option<&Path>,
    ) -> Result<Self, ConfigurationError> {
        let unreadable = |reason: String| ConfigurationError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(unreadable(format!(
                "it has more than {FILE_BYTES_MAX} bytes"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let file = path
            .canonicalize()
            .map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&text, file, credentials_directory)
    }

    fn parse(
        text: &str,
        file: PathBuf,
        credentials_directory: Option<&Path>,
    ) -> Result<Self, ConfigurationError> {
        let said: Said = toml::from_str(text).map_err(|error| ConfigurationError::Malformed {
            path: file.clone(),
            reason: error.to_string(),
        })?;
        let tokens = by_name("token", said.token, |token| token.name.clone())?
            .into_iter()
            .map(|(name, token)| Ok((name, token.resolve(credentials_directory)?)))
            .collect::<Result<_, crate::token::configuration::TokenConfigurationError>>()
            .map_err(|error| ConfigurationError::Contradiction(error.to_string()))?;
        let provisioning = by_name("provisioning", said.provisioning, |service| {
            service.name.clone()
        })?
        .into_iter()
        .map(|(name, service)| Ok((name, service.check(credentials_directory)?)))
        .collect::<Result<_, crate::provisioning::configuration::ConfigurationError>>()
        .map_err(|error| ConfigurationError::Contradiction(error.to_string()))?;
        let authorities = by_name("authority", said.authority, |it| it.name.clone())?;
        let configuration = Self {
            https: said.listen.https_listener()?,
            admin: said
                .listen
                .admin
                .unwrap_or_else(|| said.state_dir.join("admin.sock")),
            admin_users: said.listen.admin_users,
            state_dir: said.state_dir,
            tokens,
            authorities: authorities
                .into_iter()
                .map(|(name, it)| (name, it.token))
                .collect(),
            profiles: by_name("profile", said.profile, |profile| profile.name.clone())?,
            provisioning,
            drift: said.policy.drift,
            file,
        };
        configuration.check()?;
        Ok(configuration)
    }

    /// Authorities whose certificates some provisioning service verifies.
    pub fn verified(&self) -> BTreeSet<String> {
        self.provisioning
            .values()
            .flat_map(|service| service.verified.clone())
            .collect()
    }

    /// Where the worker of the token `name` listens.
    pub fn worker_socket(&self, name: &str) -> PathBuf {
        let folder = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        folder
            .unwrap_or_else(|| self.state_dir.clone())
            .join(format!("token-{name}.sock"))
    }

    fn check(&self) -> Result<(), ConfigurationError> {
        let contradiction = |message: String| Err(ConfigurationError::Contradiction(message));
        for (authority, token) in &self.authorities {
            if !self.tokens.contains_key(token) {
                return contradiction(format!(
                    "authority {authority:?} keeps its key on token {token:?}, and there is no \
                     such [[token]]"
                ));
            }
        }
        for profile in self.profiles.values() {
            if !self.authorities.contains_key(&profile.authority) {
                return contradiction(format!(
                    "profile {:?} is issued by authority {:?}, and there is no such [[authority]]",
                    profile.name, profile.authority
                ));
            }
            if let Err(problem) = profile.certificate.check() {
                return contradiction(format!("profile {:?}: {problem}", profile.name));
            }
        }
        for (name, service) in &self.provisioning {
            let unknown = |it: &&String| !self.authorities.contains_key(*it);
            if let Some(authority) = service.verified.iter().find(unknown) {
                return contradiction(format!(
                    "provisioning {name:?} shall verify authority {authority:?}, and there is no \
                     such [[authority]]"
                ));
            }
            self.check_credential_keys(name, service)?;
        }
        self.check_https()
    }

    fn check_credential_keys(
        &self,
        name: &str,
        service: &Provisioning,
    ) -> Result<(), ConfigurationError> {
        for (token, key) in service.token_keys() {
            let problem = match (self.tokens.contains_key(token), label(key)) {
                (false, _) => format!("token {token:?}, and there is no such [[token]]"),
                (_, None) => format!("key {key:?}; give 1 to 64 letters, digits and - _ ."),
                _ => continue,
            };
            return Err(ConfigurationError::Contradiction(format!(
                "a credential of provisioning {name:?} names {problem}"
            )));
        }
        Ok(())
    }

    fn check_https(&self) -> Result<(), ConfigurationError> {
        let Some(https) = &self.https else {
            return Ok(());
        };
        match self.profiles.get(&https.profile) {
            Some(profile) if profile.role == Role::Server => Ok(()),
            Some(_) => Err(ConfigurationError::Contradiction(format!(
                "[listen] profile {:?} must have role \"server\"",
                https.profile
            ))),
            None => Err(ConfigurationError::Contradiction(format!(
                "[listen] names profile {:?}, and there is no such [[profile]]",
                https.profile
            ))),
        }
    }
}

impl Listen {
    fn https_listener(&self) -> Result<Option<HttpsListener>, ConfigurationError> {
        let Some(address) = self.https else {
            return Ok(None);
        };
        match (&self.profile, self.names.is_empty()) {
            (Some(profile), false) => Ok(Some(HttpsListener {
                address,
                names: self.names.clone(),
                profile: profile.clone(),
            })),
            _ => Err(ConfigurationError::Contradiction(
                "[listen] https needs `names` (what clients call this machine) and `profile` (one \
                 with role \"server\")"
                    .into(),
            )),
        }
    }
}

fn by_name<T>(
    table: &str,
    items: Vec<T>,
    name: impl Fn(&T) -> String,
) -> Result<BTreeMap<String, T>, ConfigurationError> {
    let mut map = BTreeMap::new();
    for item in items {
        let name = name(&item);
        if map.insert(name.clone(), item).is_some() {
            let message = format!("two [[{table}]] are named {name:?}");
            return Err(ConfigurationError::Contradiction(message));
        }
    }
    Ok(map)
}
