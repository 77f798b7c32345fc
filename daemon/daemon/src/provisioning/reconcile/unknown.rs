//! Decides which enrollments without a record may hold certificates of this daemon.
//!
//! A provisioning service may be shared with other programs, whose enrollments are no concern here.
//! A certificate on record, or the name of a CA certificate of this daemon at the service, shows
//! that an enrollment is. After a restore the certificates that were
//! issued since the backup are not on record, so every enrollment that the service says was changed
//! since then may hold one.

use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::desired::Status;
use crate::enrollment::record::{ObservedSlot, Record};
use crate::enrollment::slots::SlotName;
use crate::store::{EnrollmentKind, FoundEnrollment, LostPeriod};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How much the clocks of this machine and of the service may differ, in seconds.
const CLOCKS_DIFFER_MAX: i64 = 3_600;

/// Returns whether an enrollment that is not on record may hold a certificate of this daemon.
pub(super) fn may_be_ours(
    ca: &CertificateAuthority,
    service: &str,
    record: &Record,
) -> Result<bool, Error> {
    let Some(member) = record.x509_member() else {
        return Ok(false);
    };
    for slot in SlotName::BOTH {
        if let ObservedSlot::Reference(name) = record.slot(member, slot)
            && ca.store().is_ca_certificate(service, &name)?
        {
            return Ok(true);
        }
    }
    let (primary, secondary) = record.thumbprints();
    for thumbprint in primary.into_iter().chain(secondary) {
        if ca
            .store()
            .certificate_by_sha256(thumbprint.as_bytes())?
            .is_some()
        {
            return Ok(true);
        }
    }
    let lost = ca.store().lost_period()?;
    Ok(lost.is_some_and(|lost| was_changed_since(record, lost)))
}

/// Returns whether the service changed the record after the backup. A record without a readable
/// date may have been changed.
pub(super) fn was_changed_since(record: &Record, lost: LostPeriod) -> bool {
    let changed = record.fields().get("lastUpdatedDateTimeUtc");
    let changed = changed.and_then(Value::as_str);
    let changed = changed.and_then(|it| OffsetDateTime::parse(it, &Rfc3339).ok());
    let earliest = lost.since.saturating_sub(CLOCKS_DIFFER_MAX).get();
    changed.is_none_or(|it| it.unix_timestamp() >= earliest)
}

/// Returns what is recorded of such an enrollment. A status that cannot be read may be enabled.
pub(super) fn found(
    service: &str,
    kind: EnrollmentKind,
    name: &str,
    record: &Record,
) -> FoundEnrollment {
    FoundEnrollment {
        provisioning: service.to_owned(),
        kind,
        name: name.to_owned(),
        enabled: record.status() != Some(Status::Disabled),
        record: Value::Object(record.fields().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unix_seconds::UnixSeconds;
    use serde_json::json;

    #[test]
    fn an_enrollment_is_old_only_by_a_date_that_can_be_read() {
        let lost = LostPeriod {
            since: UnixSeconds::new(1_800_000_000), // 2027-01-15T08:00:00Z
            until: UnixSeconds::new(1_800_090_000),
        };
        for (date, expected) in [
            (json!("2027-01-15T06:59:59.0000000Z"), false),
            (json!("2027-01-15T07:00:00.0000000Z"), true),
            (json!("2027-02-01T00:00:00.1234567Z"), true),
            (json!("yesterday"), true),
            (json!(null), true),
        ] {
            let fields = json!({ "etag": "\"e\"", "lastUpdatedDateTimeUtc": date });
            let record = Record::parse(fields).unwrap();
            assert_eq!(was_changed_since(&record, lost), expected, "{date}");
        }
    }
}
