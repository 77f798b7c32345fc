//! Reads `[policy]`: what the daemon does without an operator, and when it needs one.

use super::ConfigurationError;
use crate::ca::authority_policy::{ApprovalStep, AuthorityPolicy};
use crate::ca::crl::CrlSchedule;
use crate::ca::issuer::clock::ClockPolicy;
use crate::ca::roll::{DeviceNotification, NotifyBy, RollPolicy};
use crate::encryption::Recipients;
use crate::enrollment::plan::DriftPolicy;
use crate::unix_seconds::UnixSeconds;
use crate::x509::profile::human_seconds;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// The longest validity of a CRL.
const CRL_VALIDITY_SECONDS_MAX: u64 = 365 * 86_400;

/// The table as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// Whether a change by another program is reported or repaired.
    #[serde(default)]
    pub(super) drift: DriftPolicy,
    /// How often each provisioning service is compared with the database.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "scan_interval_default")]
    pub(super) scan_interval: u64,
    /// How long changes may wait for a provisioning service before the wait is an alarm.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "push_age_alarm_default")]
    pub(super) push_age_alarm: u64,
    /// How long before its expiry the leaf of an individually enrolled device is rolled; 0 leaves
    /// renewal to devices, stations and operators.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default)]
    renew_before: u64,
    /// The time over which the rollovers of a fleet are spread.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "renew_jitter_default")]
    renew_jitter: u64,
    /// Whether devices are notified when their rollover starts.
    #[serde(default)]
    tell_devices: TellDevices,
    /// The direct method that notifies them.
    #[serde(default)]
    tell_method: TellMethod,
    /// How often a device that was offline is called again, by `method`.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "tell_interval_default")]
    tell_interval: u64,
    /// How long such calls are repeated.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "tell_for_default")]
    tell_for: u64,
    /// How often devices in a rollover are observed in the hub.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "proof_interval_default")]
    proof_interval: u64,
    /// Whether an old certificate may be retired before it expires, once all its devices were
    /// observed on the new certificate.
    #[serde(default)]
    retire_proven: bool,
    /// Whether the daemon starts rollovers of authorities, or raises an alarm.
    #[serde(default)]
    roll_authorities: RollAuthorities,
    /// How long before the end of an authority's signing window it does so.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "roll_notice_default")]
    roll_notice: u64,
    /// The steps of an authority's rollover that wait for `hallmark roll approve`.
    #[serde(default)]
    approve: BTreeSet<ApprovalStep>,
    /// How long a device may be unobserved before it counts as silent.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "silent_after_default")]
    silent_after: u64,
    /// How long a token may be unavailable before a standby signs.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "failover_after_default")]
    pub(super) failover_after: u64,
    /// The validity of a CRL. A token that is unavailable for longer makes verifiers refuse
    /// everything.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "crl_validity_default")]
    crl_validity: u64,
    /// How often a CRL is signed if nothing is revoked.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "crl_interval_default")]
    crl_interval: u64,
    /// The validity of a delta CRL.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "delta_crl_validity_default")]
    delta_crl_validity: u64,
    /// How often a delta CRL is signed if nothing is revoked.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "delta_crl_interval_default")]
    delta_crl_interval: u64,
    /// When the machine's clock is believed.
    #[serde(default)]
    clock: ClockTrust,
    /// How far the clock may be ahead of the newest date on record; 0 is no limit.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "clock_jump_max_default")]
    clock_jump_max: u64,
    /// A file that is touched at each synchronisation of the clock.
    #[serde(default = "clock_synchronised_file_default")]
    clock_synchronised_file: PathBuf,
    /// How long the records of a revocation are kept after the end of its certificate.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "revocations_kept_default")]
    pub(super) revocations_kept: u64,
    /// How many backups are kept; a new one replaces the oldest.
    #[serde(default = "backups_kept_default")]
    pub(super) backups_kept: NonZeroU16,
    /// Recipients of `age` (`age1…`) that backups are encrypted to; without any they are plain.
    #[schemars(with = "Vec<String>")]
    #[serde(default)]
    pub(super) backup_recipients: Recipients,
}

/// When the machine's clock is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ClockTrust {
    /// If it agrees with the dates on record.
    #[default]
    Plausible,
    /// If it was also synchronised since the machine was switched on.
    Synchronised,
}

/// The reaction to a signing window that nears its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RollAuthorities {
    #[default]
    Alarm,
    Start,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TellDevices {
    #[default]
    No,
    /// One call for each device.
    Method,
    /// One job of the hub for many devices.
    Job,
}

impl TellDevices {
    fn by(self) -> Option<NotifyBy> {
        match self {
            TellDevices::No => None,
            TellDevices::Method => Some(NotifyBy::Method),
            TellDevices::Job => Some(NotifyBy::Job),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TellMethod {
    /// The name of the direct method.
    name: String,
    /// Its payload.
    #[serde(default)]
    payload: serde_json::Value,
}

impl Default for TellMethod {
    fn default() -> Self {
        Self {
            name: "reregister".into(),
            payload: serde_json::Value::Null,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            drift: DriftPolicy::default(),
            scan_interval: scan_interval_default(),
            push_age_alarm: push_age_alarm_default(),
            renew_before: 0,
            renew_jitter: renew_jitter_default(),
            tell_devices: TellDevices::default(),
            tell_method: TellMethod::default(),
            tell_interval: tell_interval_default(),
            tell_for: tell_for_default(),
            proof_interval: proof_interval_default(),
            retire_proven: false,
            roll_authorities: RollAuthorities::default(),
            roll_notice: roll_notice_default(),
            approve: BTreeSet::new(),
            silent_after: silent_after_default(),
            failover_after: failover_after_default(),
            crl_validity: crl_validity_default(),
            crl_interval: crl_interval_default(),
            delta_crl_validity: delta_crl_validity_default(),
            delta_crl_interval: delta_crl_interval_default(),
            clock: ClockTrust::default(),
            clock_jump_max: clock_jump_max_default(),
            clock_synchronised_file: clock_synchronised_file_default(),
            revocations_kept: revocations_kept_default(),
            backups_kept: backups_kept_default(),
            backup_recipients: Recipients::default(),
        }
    }
}

impl Policy {
    pub(super) fn rolling(&self) -> Result<RollPolicy, ConfigurationError> {
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        if self.renew_before > 0 && self.renew_jitter >= self.renew_before {
            return Err(ConfigurationError::Contradiction(
                "[policy] renew_jitter must be shorter than renew_before, or leaves would expire \
                 before their rollover starts"
                    .into(),
            ));
        }
        let TellMethod { name, payload } = &self.tell_method;
        Ok(RollPolicy {
            renew_before_seconds: (self.renew_before > 0).then(|| seconds(self.renew_before)),
            renew_jitter_seconds: seconds(self.renew_jitter),
            notification: self.tell_devices.by().map(|by| DeviceNotification {
                by,
                method: name.clone(),
                payload: payload.clone(),
                interval_seconds: seconds(self.tell_interval.max(1)),
                for_seconds: seconds(self.tell_for),
            }),
            proof_interval_seconds: seconds(self.proof_interval.max(1)),
            retire_proven: self.retire_proven,
        })
    }

    /// Returns the policy without the settings of `[[authority]]` and `[[provisioning]]`.
    pub(super) fn authorities(&self) -> AuthorityPolicy {
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        AuthorityPolicy {
            start: self.roll_authorities == RollAuthorities::Start,
            notice_seconds: seconds(self.roll_notice),
            approve: self.approve.clone(),
            silent_seconds: seconds(self.silent_after),
            ..AuthorityPolicy::default()
        }
    }

    pub(super) fn clock(&self) -> ClockPolicy {
        ClockPolicy {
            jump_seconds_max: i64::try_from(self.clock_jump_max).unwrap_or(i64::MAX),
            synchronised_file: self.clock_synchronised_file.clone(),
            must_be_synchronised: self.clock == ClockTrust::Synchronised,
            built_at: built_at().unwrap_or_default(),
        }
    }

    /// Returns the schedule of all lists. The authorities `with_deltas` have delta lists, too.
    pub(super) fn crl_schedule(
        &self,
        with_deltas: BTreeSet<String>,
    ) -> Result<CrlSchedule, ConfigurationError> {
        let validity = self.crl_validity;
        let interval = self.crl_interval;
        if interval == 0 || interval >= validity || validity > CRL_VALIDITY_SECONDS_MAX {
            return Err(ConfigurationError::Contradiction(
                "[policy] crl_interval must be shorter than crl_validity, so that there is a new \
                 revocation list before the old one ends, and crl_validity at most 365d"
                    .into(),
            ));
        }
        let delta_validity = self.delta_crl_validity;
        let delta_interval = self.delta_crl_interval;
        let has_deltas = !with_deltas.is_empty();
        let fits = delta_interval > 0
            && delta_interval < delta_validity
            && delta_interval < interval
            && delta_validity <= validity;
        if has_deltas && !fits {
            return Err(ConfigurationError::Contradiction(
                "[policy] delta_crl_interval must be shorter than delta_crl_validity and than \
                 crl_interval, and delta_crl_validity not longer than crl_validity: a delta list \
                 is for the time between two complete ones"
                    .into(),
            ));
        }
        Ok(CrlSchedule {
            with_deltas,
            delta_validity_seconds: delta_validity.cast_signed(),
            delta_interval_seconds: delta_interval.cast_signed(),
            validity_seconds: validity.cast_signed(),
            interval_seconds: interval.cast_signed(),
        })
    }
}

/// Returns the date of this program's file: packages keep the time of the build.
fn built_at() -> Option<UnixSeconds> {
    let program = std::env::current_exe().and_then(|path| path.metadata());
    let since = program.ok()?.modified().ok()?.duration_since(UNIX_EPOCH);
    let seconds = i64::try_from(since.ok()?.as_secs());
    seconds.ok().map(UnixSeconds::new)
}

/// A gateway may be stored for months; a broken clock errs by decades.
fn clock_jump_max_default() -> u64 {
    365 * 86_400
}

/// The file of systemd-timesyncd.
fn clock_synchronised_file_default() -> PathBuf {
    "/run/systemd/timesync/synchronized".into()
}

/// Longer than a recovery takes, a new worker included.
fn failover_after_default() -> u64 {
    60
}

fn roll_notice_default() -> u64 {
    30 * 86_400
}

fn silent_after_default() -> u64 {
    7 * 86_400
}

fn renew_jitter_default() -> u64 {
    86_400
}

fn tell_interval_default() -> u64 {
    3_600
}

fn tell_for_default() -> u64 {
    86_400
}

fn proof_interval_default() -> u64 {
    300
}

fn crl_validity_default() -> u64 {
    7 * 86_400
}

fn crl_interval_default() -> u64 {
    86_400
}

fn delta_crl_validity_default() -> u64 {
    86_400
}

fn delta_crl_interval_default() -> u64 {
    3_600
}

/// A year, as long as questions come.
fn revocations_kept_default() -> u64 {
    365 * 86_400
}

/// Two weeks of daily backups.
fn backups_kept_default() -> NonZeroU16 {
    const { NonZeroU16::new(14).unwrap() }
}

fn push_age_alarm_default() -> u64 {
    3_600
}

/// A quarter of an hour: a scan of 100,000 devices costs 1,000 operations.
fn scan_interval_default() -> u64 {
    900
}
