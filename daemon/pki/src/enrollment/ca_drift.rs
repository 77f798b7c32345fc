//! Finds how the service differs from a CA certificate that was verified.
//!
//! A difference that Hallmark did not make is drift, as for enrollments: it is reported, and
//! repaired only if policy says so. The service refuses every device that needs a CA certificate
//! which is not verified, so each drift is an alarm.

use super::ca_certificate::{ObservedCaCertificate, PossessionProof, Stage};
use super::desired::SlotCertificate;
use super::thumbprint::Sha1Thumbprint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A change of a CA certificate by another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "cause", rename_all = "snake_case", deny_unknown_fields)]
pub enum CaCertificateDrift {
    /// The verified certificate is not at the service.
    Deleted,
    /// Another certificate has its name.
    Replaced { found: Sha1Thumbprint },
    /// The certificate is at the service, and not verified.
    Unverified,
    /// Hallmark has deleted the certificate, and it is at the service again.
    Returned,
}

impl fmt::Display for CaCertificateDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaCertificateDrift::Deleted => f.write_str("another program deleted it"),
            CaCertificateDrift::Replaced { found } => {
                write!(f, "another certificate (SHA-1 {found}) has its name")
            }
            CaCertificateDrift::Unverified => f.write_str("it is no longer verified"),
            CaCertificateDrift::Returned => f.write_str("it was deleted, and is there again"),
        }
    }
}

/// Returns how the observed state differs from a certificate that was verified before. Until a
/// certificate is verified, every difference belongs to its proof of possession.
pub fn drift(
    certificate: &SlotCertificate,
    proof: &PossessionProof,
    observed: Option<&ObservedCaCertificate>,
) -> Option<CaCertificateDrift> {
    if !matches!(proof.stage(), Stage::Verified) {
        return None;
    }
    let Some(observed) = observed else {
        return Some(CaCertificateDrift::Deleted);
    };
    if !observed.is(certificate) {
        let found = observed.thumbprint;
        return Some(CaCertificateDrift::Replaced { found });
    }
    (!observed.is_verified).then_some(CaCertificateDrift::Unverified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::ca_certificate::{Step, next_step};
    use crate::enrollment::etag::Etag;
    use crate::enrollment::plan::DriftPolicy;

    fn certificate() -> SlotCertificate {
        SlotCertificate::new(b"root".to_vec())
    }

    fn observed(der: &[u8], is_verified: bool) -> ObservedCaCertificate {
        ObservedCaCertificate {
            thumbprint: Sha1Thumbprint::of(der),
            is_verified,
            etag: Etag::quoted("AAAA=").unwrap(),
        }
    }

    #[test]
    fn each_change_of_a_verified_certificate_is_reported_or_repaired() {
        let etag = Etag::quoted("AAAA=").unwrap();
        let found = Sha1Thumbprint::of(b"other");
        let upload = |replaces| Step::Upload { replaces };
        let cases = [
            (None, CaCertificateDrift::Deleted, upload(None)),
            (
                Some(observed(b"other", true)),
                CaCertificateDrift::Replaced { found },
                upload(Some(etag.clone())),
            ),
            (
                Some(observed(b"root", false)),
                CaCertificateDrift::Unverified,
                Step::RequestCode { etag },
            ),
        ];
        let proof = PossessionProof::default().verified();
        for (seen, cause, repair) in cases {
            let step = |policy| next_step(&certificate(), &proof, seen.as_ref(), policy);
            assert_eq!(step(DriftPolicy::Report), Step::Drift(cause));
            assert_eq!(step(DriftPolicy::Repair), repair);
        }
    }

    #[test]
    fn a_verified_certificate_in_place_has_no_drift() {
        let proof = PossessionProof::default().verified();
        let seen = observed(b"root", true);
        assert_eq!(drift(&certificate(), &proof, Some(&seen)), None);
        assert_eq!(
            drift(&certificate(), &PossessionProof::default(), None),
            None
        );
    }

    #[test]
    fn the_stored_form_round_trips() {
        let found = Sha1Thumbprint::of(b"other");
        for it in [
            CaCertificateDrift::Deleted,
            CaCertificateDrift::Replaced { found },
            CaCertificateDrift::Returned,
        ] {
            let stored = serde_json::to_string(&it).unwrap();
            assert_eq!(
                serde_json::from_str::<CaCertificateDrift>(&stored).unwrap(),
                it
            );
        }
    }
}
