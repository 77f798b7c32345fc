//! Reports which CA certificates provisioning services hold verified, as observed there.
//!
//! A service refuses every device that needs a CA certificate which it does not hold verified. So
//! each difference from what is desired is an alarm until it is repaired.

use super::alarm::{Alarm, AlarmCode, unreadable};
use super::{CertificateAuthority, Error, Issuer};
use crate::enrollment::ca_drift::CaCertificateDrift;
use crate::ids::GenerationNumber;
use crate::store::{CaCertificateRow, DriftedEnrollments};
use crate::unix_seconds::UnixSeconds;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

/// A CA certificate at a provisioning service.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CaCertificateStatus {
    pub provisioning: String,
    pub name: String,
    pub authority: String,
    /// The generation of the authority.
    pub generation: Option<GenerationNumber>,
    /// `verified`, `pending`, `parked`, `drifted` or `being removed`.
    pub state: &'static str,
    /// Whether the service was last observed to hold it verified.
    pub verified: bool,
    /// RFC 3339: when it was last observed.
    pub observed_at: Option<String>,
    /// The same in Unix seconds.
    #[serde(skip)]
    pub observed_seconds: Option<UnixSeconds>,
    /// How another program has changed it.
    pub drift: Option<CaCertificateDrift>,
    /// The reason for which it is not verified or not deleted yet, or how it was changed.
    pub reason: Option<String>,
}

impl CertificateAuthority {
    /// Returns every CA certificate at every service, in the order in which they were wanted.
    pub fn ca_certificates(&self) -> Result<Vec<CaCertificateStatus>, Error> {
        let rows = self.store.ca_certificates()?;
        let shown = rows.into_iter().map(|row| self.ca_certificate_status(row));
        Ok(shown.collect())
    }

    fn ca_certificate_status(&self, row: CaCertificateRow) -> CaCertificateStatus {
        let hierarchy = self.hierarchy();
        let generation = hierarchy.generation(row.generation);
        CaCertificateStatus {
            authority: generation.map_or_else(String::new, |it| it.authority.clone()),
            generation: generation.map(|it| it.number),
            state: state(&row),
            verified: row.is_verified(),
            observed_at: row.observed_at.map(|it| it.to_string()),
            observed_seconds: row.observed_at,
            reason: self.issuer.verification_waits_for(&row),
            drift: row.drift,
            provisioning: row.provisioning,
            name: row.name,
        }
    }

    /// Returns the alarms for enrollments and CA certificates that another program has changed, and
    /// for enrollments that are not on record.
    pub(super) fn drift_alarms(&self) -> Vec<Alarm> {
        let alarms = self.enrollment_alarms().and_then(|mut alarms| {
            alarms.extend(self.ca_certificate_alarms()?);
            alarms.extend(self.unknown_alarms()?);
            Ok(alarms)
        });
        alarms.unwrap_or_else(|error| vec![unreadable("drift cannot be read", &error)])
    }

    fn enrollment_alarms(&self) -> Result<Vec<Alarm>, Error> {
        let drifted = self.store.drifted_enrollments()?;
        let alarms = drifted.into_iter().map(|it| {
            let service = &it.provisioning;
            let DriftedEnrollments { count, first, .. } = &it;
            let text = if it.restored {
                format!(
                    "{count} enrollments at {service} differ since a restore, such as {first}, and \
                     may exclude what the record admits: repeat what was excluded after the \
                     backup; `hallmark push retry {first}` writes the record over the rest, one by \
                     its name"
                )
            } else {
                format!(
                    "{count} enrollments at {service} were changed outside Hallmark, such as \
                     {first}: `hallmark enrollment show {first}` has the difference; change it \
                     back there, or set [policy] drift = \"repair\""
                )
            };
            let parameters = json!({ "provisioning": service, "enrollments": count,
                "first": first, "restored": it.restored });
            Alarm::new(AlarmCode::EnrollmentsDrifted, parameters, text)
        });
        Ok(alarms.collect())
    }

    fn unknown_alarms(&self) -> Result<Vec<Alarm>, Error> {
        let unknown = self.store.unknown_by_service()?;
        let alarm = |(service, count, first): (String, i64, String)| {
            let text = format!(
                "{count} enrollments at {service} are not on record and may admit what is \
                 excluded, such as {first}: `hallmark enrollment list --unknown` lists them; adopt \
                 or remove each, or compromise or block its device by its name"
            );
            let parameters =
                json!({ "provisioning": service, "enrollments": count, "first": first });
            Alarm::new(AlarmCode::EnrollmentsUnknown, parameters, text)
        };
        Ok(unknown.into_iter().map(alarm).collect())
    }

    fn ca_certificate_alarms(&self) -> Result<Vec<Alarm>, Error> {
        let rows = self.store.ca_certificates()?;
        let drifted = rows.iter().filter_map(|row| {
            let drift = row.drift.as_ref()?;
            Some(self.ca_certificate_alarm(row, drift))
        });
        Ok(drifted.collect())
    }

    fn ca_certificate_alarm(&self, row: &CaCertificateRow, drift: &CaCertificateDrift) -> Alarm {
        let name = &row.name;
        let service = &row.provisioning;
        let hierarchy = self.hierarchy();
        let authority = hierarchy.generation(row.generation);
        let authority = authority.map_or("", |it| it.authority.as_str());
        let effect = match drift {
            CaCertificateDrift::Returned => {
                format!("{service} may admit devices below {authority} by it: delete it there")
            }
            _ => format!(
                "{service} refuses devices that need it, below authority {authority}: `hallmark \
                 push retry {name}` verifies it again"
            ),
        };
        let text = format!(
            "CA certificate {name} at {service}: {drift}; {effect}, or set [policy] drift = \
             \"repair\""
        );
        let parameters = json!({
            "provisioning": service, "ca_certificate": name, "authority": authority,
            "drift": drift,
        });
        Alarm::new(AlarmCode::CaCertificateDrifted, parameters, text)
    }
}

impl Issuer {
    /// Returns what keeps a CA certificate from being verified, or deleted, at its service.
    pub(super) fn verification_waits_for(&self, row: &CaCertificateRow) -> Option<String> {
        let unsigned = self.unsigned_proofs().reason(row.id);
        let unsigned = unsigned.map(|it| format!("the proof of possession is not signed: {it}"));
        let failed = || row.mark.as_ref()?.last_error.clone();
        let drift = || row.drift.as_ref().map(ToString::to_string);
        unsigned.or_else(failed).or_else(drift)
    }
}

fn state(row: &CaCertificateRow) -> &'static str {
    match &row.mark {
        Some(mark) if mark.parked => "parked",
        None if row.drift.is_some() => "drifted",
        // It has a mark since the scan that has found it.
        _ if row.drift == Some(CaCertificateDrift::Returned) => "drifted",
        _ if row.removed => "being removed",
        Some(_) => "pending",
        None => "verified",
    }
}
