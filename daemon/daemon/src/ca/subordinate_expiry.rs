//! Finds certificates of authorities elsewhere that end soon and were not renewed.
//!
//! Everything below such an authority is refused from its end on, and its holder may not watch it:
//! the authority that signed it does. Counted with the other ends (`ca::expiry`), and kept as long.

use super::alarm::{Alarm, AlarmCode, unreadable};
use super::{CertificateAuthority, Code, Error};
use crate::store::CertificateRow;
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use serde_json::json;

/// How long before its end a certificate is an alarm at most, in seconds, unless its profile says
/// otherwise: the request of another daemon or a partner takes weeks.
const ALARM_SECONDS_MAX: i64 = 90 * 86_400;

/// So much of a certificate's life is left at the alarm at most.
const ALARM_PART: i64 = 6;

/// The newest certificate of an authority elsewhere, which ends soon.
#[derive(Clone, Debug)]
pub(super) struct EndingSubordinate {
    subject: String,
    serial: String,
    profile: String,
    authority: String,
    not_after: UnixSeconds,
}

impl CertificateAuthority {
    /// One alarm for each authority elsewhere. Its text has a date and no number of days: it stays
    /// the same alarm.
    pub(super) fn subordinate_alarms(&self) -> Vec<Alarm> {
        let ending = match self.ending_subordinates() {
            Ok(ending) => ending,
            Err(error) => {
                let what = "what ends soon of authorities elsewhere cannot be read";
                return vec![unreadable(what, &error)];
            }
        };
        ending.iter().map(EndingSubordinate::alarm).collect()
    }

    /// Returns the newest certificates of authorities elsewhere that are within the time of an
    /// alarm, those that end first first.
    pub(super) fn find_ending_subordinates(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<EndingSubordinate>, Error> {
        let mut rows = self.store.subordinates(now)?;
        rows.retain(|it| it.revoked_at.is_none());
        let mut ending = Vec::new();
        for row in &rows {
            if row.not_after - now > self.subordinate_alarm_seconds(row) {
                continue;
            }
            let certificate = read(row)?;
            let mut is_renewed = false;
            for other in rows.iter().filter(|it| it.not_after > row.not_after) {
                is_renewed = is_renewed || read(other)?.has_subject_of(&certificate);
            }
            if is_renewed {
                continue;
            }
            let hierarchy = self.hierarchy();
            let issuer = hierarchy.generation(row.issuer);
            ending.push(EndingSubordinate {
                subject: row.subject.clone(),
                serial: hex::encode_upper(&row.serial),
                profile: row.profile.clone(),
                authority: issuer.map_or_else(String::new, |it| it.authority.clone()),
                not_after: row.not_after,
            });
        }
        ending.sort_by_key(|it| it.not_after);
        Ok(ending)
    }

    /// How long before its end the certificate is an alarm, in seconds.
    fn subordinate_alarm_seconds(&self, row: &CertificateRow) -> i64 {
        match self.issuer.subordinate_expiry_alarm(&row.profile) {
            // Never.
            Some(0) => -1,
            Some(seconds) => i64::try_from(seconds).unwrap_or(i64::MAX),
            None => {
                let life = row.not_after.seconds_since(row.not_before);
                ALARM_SECONDS_MAX.min(life / ALARM_PART)
            }
        }
    }
}

impl EndingSubordinate {
    fn alarm(&self) -> Alarm {
        let Self {
            subject,
            serial,
            profile,
            authority,
            not_after,
        } = self;
        let text = format!(
            "the certificate of {subject:?} by {authority} (serial {serial}) ends at {not_after}, \
             and was not renewed: from then on all below it is refused; sign its holder's next \
             request"
        );
        let parameters = json!({
            "subject": subject,
            "serial": serial,
            "profile": profile,
            "authority": authority,
            "not_after": not_after.to_string(),
        });
        Alarm::new(AlarmCode::SubordinateEnds, parameters, text)
    }
}

fn read(row: &CertificateRow) -> Result<Certificate, Error> {
    Certificate::parse(&row.der)
        .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))
}
