//! Counts certificates that end soon: status, metrics and alarms for each role and profile.
//!
//! Counts current certificates alone: of a device its newest leaf, of every other name the newest
//! certificate by a profile that is neither expired nor revoked. So a renewed certificate is not
//! reported. Devices are counted in an index, as many as end soon; the numbers are cached for a
//! moment, so that frequent requests cost little.

use super::alarm::{Alarm, AlarmCode, unreadable};
use super::profile::{IssuanceProfile, Role};
use super::subordinate_expiry::EndingSubordinate;
use super::{CertificateAuthority, Error, lock};
use crate::store::{Ending, WINDOWS};
use crate::unix_seconds::UnixSeconds;
use crate::x509::profile::End;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The alarm of a profile that is no longer configured.
const ALARM_SECONDS_UNCONFIGURED: i64 = 30 * 86_400;
/// The numbers are kept for at least so long …
const KEPT: Duration = Duration::from_secs(5);
/// … and for so many times the time that it took to count.
const KEPT_TIMES: u32 = 100;

/// Ends in Unix seconds with the common names, by role and profile.
type Ends = BTreeMap<(Role, String), Vec<(UnixSeconds, String)>>;

/// The current certificates of one role and profile that end soon.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExpiryStatus {
    /// The role on record.
    pub role: Role,
    /// The profile on record.
    pub profile: String,
    /// How long before its end a certificate is an alarm, in seconds; `None` for never.
    pub alarm_within_seconds: Option<i64>,
    /// How many end within that time.
    pub alarming: i64,
    /// How many end within a day, a week and 30 days.
    pub within_1d: i64,
    pub within_7d: i64,
    pub within_30d: i64,
    /// RFC 3339 of the nearest end.
    pub next: Option<String>,
    /// The same in Unix seconds.
    pub next_seconds: Option<UnixSeconds>,
    /// The common name of that certificate.
    pub next_subject: Option<String>,
}

/// The counts, and their time.
pub(super) struct Counted {
    now: UnixSeconds,
    good_until: Instant,
    statuses: Arc<Vec<ExpiryStatus>>,
    subordinates: Arc<Vec<EndingSubordinate>>,
}

impl CertificateAuthority {
    /// The certificates that end soon, by role and profile.
    pub fn expiry(&self) -> Result<Arc<Vec<ExpiryStatus>>, Error> {
        self.counted(|it| it.statuses.clone())
    }

    /// The certificates of authorities elsewhere that end soon.
    pub(super) fn ending_subordinates(&self) -> Result<Arc<Vec<EndingSubordinate>>, Error> {
        self.counted(|it| it.subordinates.clone())
    }

    fn counted<T>(&self, take: impl Fn(&Counted) -> T) -> Result<T, Error> {
        let now = self.now();
        let mut kept = lock(&self.expiry);
        if let Some(counted) = kept.as_ref().filter(|it| it.is_good(now)) {
            return Ok(take(counted));
        }
        let begun = Instant::now();
        let statuses = Arc::new(self.count_expiry(now)?);
        let subordinates = Arc::new(self.find_ending_subordinates(now)?);
        let counted = Counted {
            now,
            good_until: Instant::now() + KEPT.max(begun.elapsed() * KEPT_TIMES),
            statuses,
            subordinates,
        };
        Ok(take(kept.insert(counted)))
    }

    /// Which certificates were not renewed in time. The text of an alarm holds no number: it stays
    /// the same alarm while devices come and go.
    pub(super) fn expiry_alarms(&self) -> Vec<Alarm> {
        let statuses = match self.expiry() {
            Ok(statuses) => statuses,
            Err(error) => return vec![unreadable("what ends soon cannot be counted", &error)],
        };
        let alarming = statuses.iter().filter(|it| it.alarming > 0);
        alarming
            .map(|it| {
                let within = it.alarm_within_seconds.unwrap_or_default();
                let text = format!(
                    "certificates of role {} by profile {:?} end within {} and were not renewed: \
                     renew or revoke them; `hallmark status --verbose` names the next one",
                    it.role,
                    it.profile,
                    in_words(within)
                );
                let parameters = json!({
                    "role": it.role, "profile": it.profile, "within_seconds": within,
                });
                Alarm::new(AlarmCode::CertificatesExpiring, parameters, text)
            })
            .collect()
    }

    fn count_expiry(&self, now: UnixSeconds) -> Result<Vec<ExpiryStatus>, Error> {
        let mut statuses = Vec::new();
        for name in self.device_profiles()? {
            let alarm = self.alarm_seconds(Role::Device, &name);
            let ending = self.store.ending_devices(&name, now, alarm.unwrap_or(0))?;
            statuses.push(ExpiryStatus::of(Role::Device, name, alarm, ending));
        }
        for ((role, profile), ends) in self.ends_of_others(now)? {
            let alarm = self.alarm_seconds(role, &profile);
            let ending = Ending::of(&ends, now, alarm.unwrap_or(0));
            statuses.push(ExpiryStatus::of(role, profile, alarm, ending));
        }
        Ok(statuses)
    }

    /// The configured profiles, and those with registered devices.
    fn device_profiles(&self) -> Result<BTreeSet<String>, Error> {
        let of_devices = self
            .issuer
            .profiles()
            .values()
            .filter(|it| it.role == Role::Device);
        let mut names: BTreeSet<_> = of_devices.map(|it| it.name.clone()).collect();
        names.extend(self.store.registered_profiles()?);
        Ok(names)
    }

    /// The ends of all current certificates that are no device's, with their names.
    fn ends_of_others(&self, now: UnixSeconds) -> Result<Ends, Error> {
        let others = self
            .issuer
            .profiles()
            .values()
            .filter(|it| it.role != Role::Device);
        let mut ends: Ends = others
            .map(|it| ((it.role, it.name.clone()), Vec::new()))
            .collect();
        for leaf in self.store.current_leaves_of_others(now)? {
            let of_profile = ends.entry((leaf.role, leaf.profile)).or_default();
            of_profile.push((leaf.not_after, leaf.subject));
        }
        Ok(ends)
    }

    fn alarm_seconds(&self, role: Role, profile: &str) -> Option<i64> {
        match self
            .issuer
            .profiles()
            .get(profile)
            .filter(|it| it.role == role)
        {
            Some(profile) => profile.expiry_alarm_seconds(),
            None => Some(ALARM_SECONDS_UNCONFIGURED),
        }
    }
}

fn in_words(seconds: i64) -> String {
    let days = seconds / 86_400;
    if days > 0 {
        return format!("{days} days");
    }
    format!("{} minutes", seconds / 60)
}

impl Counted {
    /// A clock that was moved counts as time that passed.
    fn is_good(&self, now: UnixSeconds) -> bool {
        let kept = i64::try_from(KEPT.as_secs()).unwrap_or(i64::MAX);
        let longest = kept.saturating_mul(i64::from(KEPT_TIMES));
        Instant::now() < self.good_until && (self.now..self.now + longest).contains(&now)
    }
}

impl ExpiryStatus {
    fn of(role: Role, profile: String, alarm: Option<i64>, ending: Ending) -> Self {
        let [within_1d, within_7d, within_30d] = ending.within;
        Self {
            role,
            profile,
            alarm_within_seconds: alarm,
            alarming: ending.alarming,
            within_1d,
            within_7d,
            within_30d,
            next: ending.next.as_ref().map(|it| it.0.to_string()),
            next_seconds: ending.next.as_ref().map(|it| it.0),
            next_subject: ending.next.map(|it| it.1),
        }
    }

    /// The counts by the names of their windows.
    pub fn counts(&self) -> [(&'static str, i64); 4] {
        [
            ("1d", self.within_1d),
            ("7d", self.within_7d),
            ("30d", self.within_30d),
            ("alarm", self.alarming),
        ]
    }
}

/// The life of a certificate with a fixed end, for the times before its end that have a default.
const FIXED_END_SECONDS: u64 = 180 * 86_400;

/// The windows are those of the names above.
const _: () =
    assert!(WINDOWS[0] == 86_400 && WINDOWS[1] == 7 * 86_400 && WINDOWS[2] == 30 * 86_400);

impl IssuanceProfile {
    /// How long before its end the holder may renew by itself; `None` for never. A station may in
    /// the last third of its certificate's life.
    pub(super) fn self_renewal_seconds(&self) -> Option<i64> {
        let third = self.usual_seconds().map(|it| it / 3);
        let default = third.filter(|_| self.role == Role::Station);
        seconds(self.self_renewal.or(default))
    }

    /// How long before its end a certificate that was not renewed is an alarm; `None` for never. By
    /// default a sixth of its life, and never where that is a matter of hours.
    pub(super) fn expiry_alarm_seconds(&self) -> Option<i64> {
        let validity = self.usual_seconds();
        let default = validity.filter(|it| *it >= 86_400).map(|it| it / 6);
        seconds(self.expiry_alarm.or(default))
    }

    /// The life of its certificates, by which times before their end are reckoned; `None` for those
    /// without an end. Before a fixed end it is unknown, and counted as half a year.
    fn usual_seconds(&self) -> Option<u64> {
        match self.certificate.end {
            End::AfterValidity | End::WholeDays => Some(self.certificate.validity_seconds),
            End::At(_) => Some(FIXED_END_SECONDS),
            End::Never => None,
        }
    }
}

fn seconds(said: Option<u64>) -> Option<i64> {
    let said = said.filter(|it| *it > 0)?;
    Some(i64::try_from(said).unwrap_or(i64::MAX))
}
