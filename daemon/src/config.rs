//! The configuration: one TOML file, read in two stages.
//!
//! [`Said`] is what the file says; unknown keys are refused. [`Configuration`] is what it means:
//! checked as a whole, every path and name resolved, contradictions refused with the reason. Each
//! module owns its own table; this file composes them, and checks what only the whole can show.

pub mod changes;
mod listen;
mod policy;

pub use listen::HttpsListener;

use crate::api::tls::ListenerName;
use crate::ca::authority_policy::{AuthorityPolicy, ServiceLimits};
use crate::ca::clock::ClockPolicy;
use crate::ca::crl::CrlSchedule;
use crate::ca::failover::FailoverPolicy;
use crate::ca::profile::{IssuanceProfile, Role};
use crate::ca::roll::RollPolicy;
use crate::ca::station::{StationPolicy, StationRule};
use crate::enrollment::plan::DriftPolicy;
use crate::files;
use crate::provisioning::configuration::{Provisioning, ProvisioningConfiguration};
use crate::socket_path;
use crate::token::configuration::{TokenConfiguration, TokenSettings, worker_socket};
use crate::token::credential::label;
use crate::toml_error::where_and_why;
use crate::x509::profile::{SubjectAlternativeNames, human_seconds};
use listen::Listen;
use policy::Policy;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The longest name of an authority: it stands in addresses.
const AUTHORITY_NAME_BYTES_MAX: usize = 64;

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    state_dir: PathBuf,
    runtime_dir: Option<PathBuf>,
    token_state_dir: Option<PathBuf>,
    listen: Listen,
    #[serde(default)]
    token: Vec<TokenConfiguration>,
    #[serde(default)]
    authority: Vec<Authority>,
    #[serde(default)]
    profile: Vec<IssuanceProfile>,
    #[serde(default)]
    station: Vec<StationRule>,
    #[serde(default)]
    provisioning: Vec<ProvisioningConfiguration>,
    #[serde(default)]
    policy: Policy,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authority {
    name: String,
    token: String,
    /// Tokens that hold the same key, to sign while the first is out.
    #[serde(default)]
    also_on: Vec<String>,
    /// The authority that signs while no token with the key is there.
    standby: Option<String>,
    /// How long a generation signs leaves; its certificate is valid for longer.
    #[serde(deserialize_with = "human_seconds::optional", default)]
    signing_window: Option<u64>,
}

/// The configuration, checked.
#[derive(Debug)]
pub struct Configuration {
    /// The file it came from, absolute: workers are started with it.
    pub file: PathBuf,
    /// The file's text, for workers that are started when it says something else already.
    pub text: String,
    /// What that says, for comparing with what it says later.
    pub said: toml::Table,
    /// Where the database and the TLS identity lie.
    pub state_dir: PathBuf,
    /// Where the sockets are: the admin socket, and those of the workers.
    pub runtime_dir: PathBuf,
    /// Where workers keep park files, their TPMs' anchors and their locks.
    pub token_state_dir: PathBuf,
    /// The HTTPS listener.
    pub https: Option<HttpsListener>,
    /// The profile of EST requests whose address names none.
    pub est_profile: Option<String>,
    /// Whether the answers to EST requests are base64 in lines (RFC 8951 3.1 leaves it open).
    pub est_line_breaks: bool,
    /// Where what is published is served over plain HTTP; port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// Where relying parties reach that, `http://host`: issued certificates point there.
    pub public_http: Option<String>,
    /// The admin socket.
    pub admin: PathBuf,
    /// Users who may use the admin socket, besides root and the daemon's own.
    pub admin_users: Vec<u32>,
    /// How many unidentified connections one address may have at each listener.
    pub connections_per_address: usize,
    /// Tokens by name.
    pub tokens: BTreeMap<String, TokenSettings>,
    /// The token of each authority.
    pub authorities: BTreeMap<String, String>,
    /// Who signs while a token is out.
    pub failover: FailoverPolicy,
    /// Profiles by name.
    pub profiles: BTreeMap<String, IssuanceProfile>,
    /// What stations may ask for.
    pub stations: StationPolicy,
    /// Provisioning services by name.
    pub provisioning: BTreeMap<String, Provisioning>,
    /// What to do about drift.
    pub drift: DriftPolicy,
    /// How often each provisioning service is compared with what is on record.
    pub scan_interval: Duration,
    /// How long changes may wait for a provisioning service before that is an alarm, in seconds.
    pub push_age_alarm_seconds: i64,
    /// When authorities are rolled, and what that needs.
    pub authority_policy: AuthorityPolicy,
    /// How leaves are rolled.
    pub rolling: RollPolicy,
    /// When revocation lists are signed anew.
    pub crl_schedule: CrlSchedule,
    /// When the machine's clock is believed.
    pub clock: ClockPolicy,
    /// How many backups are kept.
    pub backups_kept: usize,
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
    /// Why an authority whose key is on `token` is not served as this says; nothing where it is.
    pub fn misplaced(&self, authority: &str, token: &str) -> Option<String> {
        match self.authorities.get(authority) {
            None => Some("it exists, and the configuration has no such [[authority]]".into()),
            Some(said) if said != token => Some(format!(
                "its key is on token {token:?}, and the configuration says {said:?}"
            )),
            Some(_) => None,
        }
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

    /// The same of a text that is not in its place yet.
    pub(crate) fn parse(
        text: &str,
        file: PathBuf,
        credentials_directory: Option<&Path>,
    ) -> Result<Self, ConfigurationError> {
        let malformed = |error: toml::de::Error| ConfigurationError::Malformed {
            path: file.clone(),
            reason: where_and_why(text, &error),
        };
        let said: Said = toml::from_str(text).map_err(malformed)?;
        let raw: toml::Table = toml::from_str(text).map_err(malformed)?;
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
        .collect::<Result<BTreeMap<_, _>, crate::provisioning::configuration::ConfigurationError>>()
        .map_err(|error| ConfigurationError::Contradiction(error.to_string()))?;
        let authorities = by_name("authority", said.authority, |it| it.name.clone())?;
        let profiles = by_name("profile", said.profile, |profile| profile.name.clone())?;
        let stations = by_name("station", said.station, |rule| {
            rule.name.to_ascii_lowercase()
        })?;
        let stations = StationPolicy::new(stations.into_values().collect(), &profiles);
        let runtime_dir = said.runtime_dir.unwrap_or_else(|| said.state_dir.clone());
        let configuration = Self {
            authority_policy: AuthorityPolicy {
                signing_windows: signing_windows(&authorities),
                limits: limits(&provisioning),
                ..said.policy.authorities()
            },
            failover: failover(&authorities, said.policy.failover_after),
            https: said.listen.https_listener()?,
            est_profile: said.listen.est_profile()?,
            est_line_breaks: said.listen.est_line_breaks.unwrap_or(true),
            public_http: said.listen.public_http()?,
            http: said.listen.http,
            admin_users: said.listen.admin_users()?,
            connections_per_address: said.listen.connections_per_address()?,
            admin: said
                .listen
                .admin
                .unwrap_or_else(|| runtime_dir.join("admin.sock")),
            runtime_dir,
            token_state_dir: said
                .token_state_dir
                .unwrap_or_else(|| said.state_dir.clone()),
            state_dir: said.state_dir,
            tokens,
            authorities: authorities
                .into_iter()
                .map(|(name, it)| (name, it.token))
                .collect(),
            profiles,
            stations,
            provisioning,
            drift: said.policy.drift,
            scan_interval: Duration::from_secs(said.policy.scan_interval.max(1)),
            rolling: said.policy.rolling()?,
            crl_schedule: said.policy.crl_schedule()?,
            clock: said.policy.clock(),
            backups_kept: usize::from(said.policy.backups_kept.get()),
            push_age_alarm_seconds: i64::try_from(said.policy.push_age_alarm).unwrap_or(i64::MAX),
            text: text.to_owned(),
            said: raw,
            file,
        };
        configuration.check()?;
        Ok(configuration)
    }

    /// Authorities whose certificates each provisioning service verifies.
    pub fn verified(&self) -> BTreeMap<String, BTreeSet<String>> {
        let services = self.provisioning.iter();
        services
            .map(|(name, service)| (name.clone(), service.verified.clone()))
            .collect()
    }

    /// The services with a hub, and how many operations a minute it allows.
    pub fn hubs(&self) -> BTreeMap<String, u32> {
        self.provisioning
            .iter()
            .filter_map(|(name, it)| Some((name.clone(), it.hub_operations_per_minute()?)))
            .collect()
    }

    /// What the HTTPS listener shall be called, if there is one.
    pub fn listener_name(&self) -> Option<ListenerName> {
        self.https.as_ref().map(|https| ListenerName {
            profile: https.profile.clone(),
            names: https.names.clone(),
            folder: self.state_dir.join("tls"),
        })
    }

    /// What is taken when the daemon starts and then stays, by its name in the file: folders are locked,
    /// and listeners bound or handed over.
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

    /// Where the worker of the token `name` listens.
    pub fn worker_socket(&self, name: &str) -> PathBuf {
        worker_socket(&self.runtime_dir, name)
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
            self.check_authority_name(authority)?;
        }
        self.check_failover()?;
        for profile in self.profiles.values() {
            if !self.authorities.contains_key(&profile.authority) {
                return contradiction(format!(
                    "profile {:?} is issued by authority {:?}, and there is no such [[authority]]",
                    profile.name, profile.authority
                ));
            }
            if let Err(problem) = profile.check() {
                return contradiction(format!("profile {:?}: {problem}", profile.name));
            }
        }
        if let Err(problem) = self.stations.check(&self.profiles) {
            return contradiction(problem);
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
        self.check_est_profile()?;
        self.check_sockets()?;
        self.check_https()
    }

    fn check_sockets(&self) -> Result<(), ConfigurationError> {
        let refused =
            |it: socket_path::SocketPathInvalid| ConfigurationError::Contradiction(it.to_string());
        let admin = "[listen] admin, or runtime_dir (by default state_dir)";
        socket_path::check(&self.admin, admin).map_err(refused)?;
        for name in self.tokens.keys() {
            let setting = "runtime_dir (by default state_dir), or the token's name";
            socket_path::check(&self.worker_socket(name), setting).map_err(refused)?;
        }
        Ok(())
    }

    fn check_failover(&self) -> Result<(), ConfigurationError> {
        let contradiction = |message: String| Err(ConfigurationError::Contradiction(message));
        for (authority, tokens) in &self.failover.also_on {
            let own = self.authorities.get(authority);
            for token in tokens {
                let known = self.tokens.get(token);
                let keeps_keys = known.is_some_and(|it| it.interface.family().is_some());
                if !keeps_keys || Some(token) == own {
                    return contradiction(format!(
                        "authority {authority:?} is also on token {token:?}; name another [[token]] \
                         that holds the same key; a TPM cannot"
                    ));
                }
            }
        }
        for (authority, standby) in &self.failover.standby {
            if !self.authorities.contains_key(standby) || standby == authority {
                return contradiction(format!(
                    "authority {authority:?} has the standby {standby:?}; name another [[authority]]"
                ));
            }
        }
        Ok(())
    }

    /// What an authority publishes is called after it, and each generation after it and its number.
    fn check_authority_name(&self, name: &str) -> Result<(), ConfigurationError> {
        let number = |rest: &str| rest.strip_prefix('-')?.parse::<u32>().ok();
        let namesake = self
            .authorities
            .keys()
            .find(|other| name.strip_prefix(other.as_str()).and_then(number).is_some());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = (1..=AUTHORITY_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
        let problem = match (fits, namesake) {
            (false, _) => "give 1 to 64 letters, digits and - _ .".to_owned(),
            (_, Some(other)) => format!("that would also be a generation of {other:?}; rename one"),
            _ => return Ok(()),
        };
        Err(ConfigurationError::Contradiction(format!(
            "authority {name:?} cannot be called so: {problem}"
        )))
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

    fn check_est_profile(&self) -> Result<(), ConfigurationError> {
        match &self.est_profile {
            Some(name) if !self.profiles.contains_key(name) => {
                Err(ConfigurationError::Contradiction(format!(
                    "[listen] est_profile is {name:?}, and there is no such [[profile]]"
                )))
            }
            _ => Ok(()),
        }
    }

    fn check_https(&self) -> Result<(), ConfigurationError> {
        let Some(https) = &self.https else {
            return Ok(());
        };
        match self.profiles.get(&https.profile) {
            Some(profile) if profile.role != Role::Server => {
                Err(ConfigurationError::Contradiction(format!(
                    "[listen] profile {:?} must have role \"server\"",
                    https.profile
                )))
            }
            Some(profile)
                if profile.certificate.subject_alternative_names
                    == SubjectAlternativeNames::None =>
            {
                Err(ConfigurationError::Contradiction(format!(
                    "[listen] profile {:?} must have subject_alternative_names = \"dns_and_ip\": \
                     clients look for the listener's names there, and nowhere else",
                    https.profile
                )))
            }
            Some(_) => Ok(()),
            None => Err(ConfigurationError::Contradiction(format!(
                "[listen] names profile {:?}, and there is no such [[profile]]",
                https.profile
            ))),
        }
    }
}

fn signing_windows(authorities: &BTreeMap<String, Authority>) -> BTreeMap<String, i64> {
    let windows = authorities.iter().filter_map(|(name, it)| {
        let window = i64::try_from(it.signing_window?).unwrap_or(i64::MAX);
        Some((name.clone(), window))
    });
    windows.collect()
}

fn failover(authorities: &BTreeMap<String, Authority>, after: u64) -> FailoverPolicy {
    let (mut also_on, mut standby) = (BTreeMap::new(), BTreeMap::new());
    for (name, authority) in authorities {
        if !authority.also_on.is_empty() {
            also_on.insert(name.clone(), authority.also_on.clone());
        }
        if let Some(other) = &authority.standby {
            standby.insert(name.clone(), other.clone());
        }
    }
    FailoverPolicy {
        after: Duration::from_secs(after),
        also_on,
        standby,
    }
}

fn limits(provisioning: &BTreeMap<String, Provisioning>) -> BTreeMap<String, ServiceLimits> {
    let limits = provisioning.iter().map(|(name, it)| {
        let (ca_certificates, groups) = it.limits;
        let limits = ServiceLimits {
            ca_certificates,
            groups,
        };
        (name.clone(), limits)
    });
    limits.collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = include_str!("../../docs/hallmark.toml");

    fn parse(text: &str) -> Result<Configuration, String> {
        let credentials = Some(Path::new("/run/credentials/hallmarkd.service"));
        let file = PathBuf::from("/etc/hallmark.toml");
        Configuration::parse(text, file, credentials).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_that_ships_is_a_configuration() {
        let configuration = parse(EXAMPLE).unwrap();
        assert_eq!(configuration.profiles["device"].role, Role::Device);
        assert_eq!(
            configuration.verified()["dps"],
            BTreeSet::from(["root".to_owned()])
        );
        assert_eq!(configuration.drift, DriftPolicy::Report);
        assert_eq!(configuration.admin, Path::new("/run/hallmark/admin.sock"));
    }

    #[test]
    fn the_gateway_that_ships_is_a_configuration() {
        let configuration = parse(include_str!("../../docs/gateway.toml")).unwrap();
        assert!(configuration.clock.must_be_synchronised);
        let tokens: Vec<_> = configuration.tokens.values().collect();
        assert!(matches!(&tokens[..], [tpm] if tpm.interface.family().is_none()));
    }

    #[test]
    fn everything_lies_in_one_folder_unless_it_is_said_otherwise() {
        let mut text = EXAMPLE.to_owned();
        for key in ["runtime_dir", "token_state_dir"] {
            text = text.replace(&format!("\n{key} ="), &format!("\n# {key} ="));
        }
        let configuration = parse(&text).unwrap();
        let state = Path::new("/var/lib/hallmark");
        assert_eq!(configuration.admin, state.join("admin.sock"));
        assert_eq!(
            configuration.worker_socket("factory"),
            state.join("token-factory.sock")
        );
        assert_eq!(configuration.token_state_dir, state);
    }

    #[test]
    fn contradictions_are_refused_with_the_reason() {
        for (from, to, reason) in [
            ("state_dir", "state_directory", "unknown field"),
            (
                "token = \"factory\"\n[[authority]]\nname = \"plant\"",
                "token = \"lab\"\n[[authority]]\nname = \"plant\"",
                "there is no such [[token]]",
            ),
            (
                "authority = \"line-1\"",
                "authority = \"line-9\"",
                "there is no such [[authority]]",
            ),
            (
                "verified = [\"root\"]",
                "verified = [\"rot\"]",
                "there is no such [[authority]]",
            ),
            (
                "profile = \"server\"",
                "profile = \"station\"",
                "must have role \"server\"",
            ),
            (
                "profile = \"server\"",
                "profile = \"nobody\"",
                "there is no such [[profile]]",
            ),
            (
                "est_profile = \"device\"",
                "est_profile = \"devise\"",
                "est_profile is \"devise\"",
            ),
            ("https = \"0.0.0.0:8443\"", "", "est_profile needs `https`"),
            (
                "names = [\"hallmark.line-1.example\", \"192.0.2.10\"]",
                "names = []",
                "needs `names`",
            ),
            (
                "name = \"plant\"",
                "name = \"root\"",
                "two [[authority]] are named \"root\"",
            ),
            ("validity = \"90d\"", "validity = \"soon\"", "no duration"),
            (
                "name = \"plant\"",
                "name = \"root-2\"",
                "also be a generation of \"root\"",
            ),
            (
                "name = \"plant\"",
                "name = \"the plant\"",
                "cannot be called so",
            ),
            (
                "subject_alternative_names = \"dns_and_ip\"",
                "",
                "clients look for",
            ),
            (
                "crl_interval = \"1d\"",
                "crl_interval = \"7d\"",
                "shorter than crl_validity",
            ),
            (
                "public_http = \"http://",
                "public_http = \"https://",
                "plain http://",
            ),
            (
                "key_usage = [\"digital_signature\"]",
                "key_usage = [\"key_cert_sign\"]",
                "a leaf",
            ),
            (
                "profiles = [\"device\"]",
                "profiles = [\"operator\"]",
                "for the role \"operator\"",
            ),
            (
                "\n[[station]]\n",
                "\n[[station]]\nname = \"LINE-1-*\"\nprofiles = [\"device\"]\nids = [\"*\"]\n\
                 [[station]]\n",
                "two [[station]] are named",
            ),
            ("ids = [\"press-*\"", "ids = [\"press/*\"", "no name has"),
        ] {
            let error = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(reason), "{from} → {to}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_file_holds_it_is_refused_and_not_a_panic(
            at in 0..EXAMPLE.len(), noise in "\\PC{0,12}",
        ) {
            if let (Some(before), Some(after)) = (EXAMPLE.get(..at), EXAMPLE.get(at..)) {
                let _ = parse(&format!("{before}{noise}{after}"));
            }
        }
    }
}
