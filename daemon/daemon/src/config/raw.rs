//! Reads the tables of the configuration file as they are written, and gives each its name.

use super::approval::Approval;
use super::audit::Audit;
use super::listen::Listen;
use super::ocsp::Ocsp;
use super::policy::Policy;
use super::{Configuration, ConfigurationError};
use crate::ca::IssuerSettings;
use crate::ca::authority_policy::{AuthorityPolicy, ServiceLimits};
use crate::ca::backup::BackupSettings;
use crate::ca::birth::{BirthPolicy, BirthTable};
use crate::ca::est::EstSettings;
use crate::ca::issuer::failover::FailoverPolicy;
use crate::ca::issuer::subordinate::profile::SubordinateProfile;
use crate::ca::profile::IssuanceProfile;
use crate::ca::roll::RolloverSettings;
use crate::ca::station::{StationPolicy, StationRule};
use crate::provisioning::configuration::{Provisioning, ProvisioningConfiguration};
use crate::token::configuration::{TokenConfiguration, TokenSettings};
use crate::x509::crl_partition::is_count;
use crate::x509::profile::human_seconds;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file, before it is checked as a whole.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// The folder of the database, the listener's certificate and backups.
    state_dir: PathBuf,
    /// The folder of the sockets; without it, `state_dir`.
    runtime_dir: Option<PathBuf>,
    /// The folder of the workers' state; without it, `state_dir`.
    token_state_dir: Option<PathBuf>,
    listen: Listen,
    #[serde(default)]
    token: Vec<TokenConfiguration>,
    #[serde(default)]
    authority: Vec<Authority>,
    #[serde(default)]
    profile: Vec<IssuanceProfile>,
    #[serde(default)]
    subordinate_profile: Vec<SubordinateProfile>,
    #[serde(default)]
    station: Vec<StationRule>,
    #[serde(default)]
    birth: Vec<BirthTable>,
    #[serde(default)]
    provisioning: Vec<ProvisioningConfiguration>,
    #[serde(default)]
    ocsp: Ocsp,
    #[serde(default)]
    approval: Option<Approval>,
    #[serde(default)]
    audit: Audit,
    #[serde(default)]
    policy: Policy,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Authority {
    /// Its name in the ceremony file, in commands and in addresses.
    name: String,
    /// The token with its key.
    token: String,
    /// Tokens that hold the same key, and sign while the first one is unavailable.
    #[serde(default)]
    also_on: Vec<String>,
    /// The authority that signs while no token with the key is available.
    standby: Option<String>,
    /// How long a generation signs leaves; its certificate is valid for longer.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(deserialize_with = "human_seconds::optional", default)]
    signing_window: Option<u64>,
    /// Into how many partitions the revocation lists of its next generations are split.
    crl_partitions: Option<u16>,
    /// Changes are signed as delta lists, and complete lists on schedule alone.
    #[serde(default)]
    delta_crls: bool,
}

impl Raw {
    /// Resolves every path and name.
    pub(super) fn resolve(
        self,
        text: &str,
        raw: toml::Table,
        file: PathBuf,
        credentials_directory: Option<&Path>,
    ) -> Result<Configuration, ConfigurationError> {
        let tokens = tokens(self.token, credentials_directory)?;
        let provisioning = provisioning(self.provisioning, credentials_directory)?;
        let authorities = by_name("authority", self.authority, |it| it.name.clone())?;
        let profiles = by_name("profile", self.profile, |it| it.name.clone())?;
        // DPS and patterns ignore case.
        let stations = by_name("station", self.station, |it| it.name.to_ascii_lowercase())?;
        let stations = StationPolicy::new(stations.into_values().collect(), &profiles);
        let births = by_name("birth", self.birth, |it| it.name.to_ascii_lowercase())?;
        let births = BirthPolicy::new(births.into_values().collect());
        let births = births.map_err(ConfigurationError::Contradiction)?;
        let state_dir = self.state_dir;
        let runtime_dir = self.runtime_dir.unwrap_or_else(|| state_dir.clone());
        let token_state_dir = self.token_state_dir.unwrap_or_else(|| state_dir.clone());
        let listen = self.listen;
        let policy = self.policy;
        let windows = signing_windows(&authorities);
        let with_deltas = authorities.iter().filter(|(_, it)| it.delta_crls);
        let with_deltas = with_deltas.map(|(name, _)| name.clone()).collect();
        let issuer = IssuerSettings {
            signing_windows: windows.clone(),
            failover: failover(&authorities, policy.failover_after),
            crl_partitions: crl_partitions(&authorities)?,
            authorities: authorities
                .into_iter()
                .map(|(name, it)| (name, it.token))
                .collect(),
            profiles,
            subordinate_profiles: by_name("subordinate_profile", self.subordinate_profile, |it| {
                it.name.clone()
            })?,
            stations,
            births,
            verified: provisioning
                .values()
                .flat_map(|it| it.verified.iter().cloned())
                .collect(),
            public_http: listen.public_http()?,
            ocsp: self.ocsp.policy()?,
            clock: policy.clock(),
            audit: self.audit.policy()?,
        };
        Ok(Configuration {
            issuer,
            rollovers: RolloverSettings {
                leaves: policy.rolling()?,
                authorities: AuthorityPolicy {
                    signing_windows: windows,
                    limits: limits(&provisioning),
                    ..policy.authorities()
                },
            },
            https: listen.https_listener()?,
            est: EstSettings {
                profile: listen.est_profile()?,
                line_breaks: listen.est_line_breaks.unwrap_or(true),
            },
            http: listen.http,
            admin_users: listen.admin_users()?,
            connections_per_address: listen.connections_per_address()?,
            admin: listen
                .admin
                .unwrap_or_else(|| runtime_dir.join("admin.sock")),
            runtime_dir,
            token_state_dir,
            state_dir,
            tokens,
            provisioning,
            drift: policy.drift,
            scan_interval: Duration::from_secs(policy.scan_interval.max(1)),
            crl_schedule: policy.crl_schedule(with_deltas)?,
            revocations_kept_seconds: i64::try_from(policy.revocations_kept).unwrap_or(i64::MAX),
            approvals: self
                .approval
                .map(Approval::policy)
                .transpose()?
                .unwrap_or_default(),
            backups: BackupSettings {
                kept: usize::from(policy.backups_kept.get()),
                recipients: policy.backup_recipients.clone(),
            },
            push_age_alarm_seconds: i64::try_from(policy.push_age_alarm).unwrap_or(i64::MAX),
            text: text.to_owned(),
            raw,
            file,
        })
    }
}

fn tokens(
    tables: Vec<TokenConfiguration>,
    credentials_directory: Option<&Path>,
) -> Result<BTreeMap<String, TokenSettings>, ConfigurationError> {
    let tables = by_name("token", tables, |it| it.name.clone())?;
    let resolved = tables.into_iter().map(|(name, it)| {
        let settings = it.resolve(credentials_directory);
        settings
            .map(|it| (name, it))
            .map_err(|error| ConfigurationError::Contradiction(error.to_string()))
    });
    resolved.collect()
}

fn provisioning(
    tables: Vec<ProvisioningConfiguration>,
    credentials_directory: Option<&Path>,
) -> Result<BTreeMap<String, Provisioning>, ConfigurationError> {
    let tables = by_name("provisioning", tables, |it| it.name.clone())?;
    let resolved = tables.into_iter().map(|(name, it)| {
        let service = it.check(credentials_directory);
        service
            .map(|it| (name, it))
            .map_err(|error| ConfigurationError::Contradiction(error.to_string()))
    });
    resolved.collect()
}

fn signing_windows(authorities: &BTreeMap<String, Authority>) -> BTreeMap<String, i64> {
    let windows = authorities.iter().filter_map(|(name, it)| {
        let window = i64::try_from(it.signing_window?).unwrap_or(i64::MAX);
        Some((name.clone(), window))
    });
    windows.collect()
}

fn crl_partitions(
    authorities: &BTreeMap<String, Authority>,
) -> Result<BTreeMap<String, u16>, ConfigurationError> {
    let mut partitions = BTreeMap::new();
    for (name, authority) in authorities {
        match authority.crl_partitions {
            None | Some(1) => {}
            Some(count) if is_count(count) => {
                partitions.insert(name.clone(), count);
            }
            Some(count) => {
                return Err(ConfigurationError::Contradiction(format!(
                    "authority {name:?} has crl_partitions = {count}: give 1, 2, 4, 8, 16, 32, 64, \
                     128 or 256, so that all partitions have as many certificates"
                )));
            }
        }
    }
    Ok(partitions)
}

fn failover(authorities: &BTreeMap<String, Authority>, after: u64) -> FailoverPolicy {
    let mut also_on = BTreeMap::new();
    let mut standby = BTreeMap::new();
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

/// Gives each table its name; refuses two with one name.
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
