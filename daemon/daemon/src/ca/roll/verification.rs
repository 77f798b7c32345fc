//! Says why the CA certificates that a rollover waits for are not verified, or deleted, yet.

use super::super::Error;
use super::Rollovers;
use super::waits::Waits;
use crate::enrollment::authority_roll::{Evidence, Wait};
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::CaCertificateRow;
use serde_json::json;

impl Rollovers {
    /// Appends the reason of each CA certificate that `wait` is about, service by service.
    pub(super) fn and_ca_certificates(
        &self,
        mut waits: Waits,
        wait: &Wait,
        evidence: &Evidence,
    ) -> Result<Waits, Error> {
        let next = evidence.next;
        let is_waited_for = |row: &CaCertificateRow| {
            let certificate = Thumbprint::of(&row.certificate);
            match wait {
                Wait::Verification(_) => !row.removed && Some(certificate) == next,
                Wait::Deletion => row.removed && certificate == evidence.old,
                _ => false,
            }
        };
        let mut rows = self.store.ca_certificates()?;
        rows.retain(is_waited_for);
        let mut reasons = Vec::new();
        for row in rows {
            if let Some(reason) = self.issuer.verification_waits_for(&row) {
                let service = &row.provisioning;
                waits = waits.and(&format!("; {service}: {reason}"));
                reasons.push(json!({ "provisioning": service, "reason": reason }));
            }
        }
        if !reasons.is_empty() {
            waits.parameters["reasons"] = reasons.into();
        }
        Ok(waits)
    }
}
