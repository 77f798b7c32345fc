//! Plans the upload of a CA certificate to the provisioning service and its proof of possession.
//!
//! The proof has four steps: upload, request a code, have the CA's key sign a certificate whose
//! common name is that code, send it. [`PossessionProof`] records the progress, so that a restart
//! repeats nothing; [`next_step`] compares it with the service and returns the next step.
//!
//! Nothing is signed here, and the service cannot request signatures without limit: every code
//! costs one of [`PROOF_ATTEMPTS_MAX`] attempts. Only a verified certificate and an operator's
//! [`PossessionProof::restart`] grant new attempts. A service that loses a verified certificate
//! again and again gets one proof for each scan that finds it lost.

use super::ca_drift::{CaCertificateDrift, drift};
use super::desired::SlotCertificate;
use super::etag::Etag;
use super::plan::DriftPolicy;
use super::thumbprint::Sha1Thumbprint;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Codes that are answered with a signature before an operator must act.
pub const PROOF_ATTEMPTS_MAX: u8 = 3;

/// A shorter code could be the name of another certificate that the key signs.
const CODE_LENGTH_MIN: usize = 16;

/// A code becomes a common name, so it must fit.
const CODE_LENGTH_MAX: usize = 64;

/// The persisted progress of a proof of possession.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PossessionProof {
    stage: Stage,
    /// Codes received so far.
    attempts: u8,
    /// The reason why the last proof was refused.
    last_refusal: Option<String>,
}

/// A step of the proof, with the data that exists then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case", deny_unknown_fields)]
pub enum Stage {
    /// The certificate is not known to be at the service.
    Wanted,
    /// The certificate is at the service, unverified.
    Uploaded,
    /// The service expects a signature over this code.
    CodeKnown {
        /// The common name of the verification certificate.
        code: VerificationCode,
    },
    /// The verification certificate is signed and not yet accepted.
    Proven {
        code: VerificationCode,
        verification_certificate: SlotCertificate,
    },
    /// The service reports the certificate as verified.
    Verified,
}

impl Default for PossessionProof {
    fn default() -> Self {
        Self {
            stage: Stage::Wanted,
            attempts: 0,
            last_refusal: None,
        }
    }
}

impl PossessionProof {
    /// Returns the progress.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Returns the reason why the service refused the last proof.
    pub fn last_refusal(&self) -> Option<&str> {
        self.last_refusal.as_deref()
    }

    /// Records that the service accepted the certificate. An upload makes earlier codes invalid.
    pub fn uploaded(self) -> PossessionProof {
        self.at(Stage::Uploaded)
    }

    /// Records a code from the service. It replaces an older code and costs one attempt.
    pub fn code_received(self, code: VerificationCode) -> Result<PossessionProof, ProofRefusal> {
        if self.attempts >= PROOF_ATTEMPTS_MAX {
            return Err(ProofRefusal::Exhausted);
        }
        let attempts = self.attempts + 1;
        let proof = PossessionProof { attempts, ..self };
        Ok(proof.at(Stage::CodeKnown { code }))
    }

    /// Records that the CA's key signed `code`.
    pub fn proven(
        self,
        code: &VerificationCode,
        verification_certificate: SlotCertificate,
    ) -> Result<PossessionProof, ProofRefusal> {
        match &self.stage {
            Stage::CodeKnown { code: known } if known == code => {
                let code = known.clone();
                Ok(self.at(Stage::Proven {
                    code,
                    verification_certificate,
                }))
            }
            _ => Err(ProofRefusal::OtherCode),
        }
    }

    /// Records that the service refused the verification certificate.
    pub fn refused(self, reason: String) -> Result<PossessionProof, ProofRefusal> {
        match self.stage {
            Stage::Proven { .. } => Ok(PossessionProof {
                stage: Stage::Uploaded,
                last_refusal: Some(reason),
                ..self
            }),
            _ => Err(ProofRefusal::NothingSent),
        }
    }

    /// Records that the service reports the certificate as verified, by this proof or another. If
    /// the certificate is lost later, a new proof has all attempts.
    pub fn verified(self) -> PossessionProof {
        PossessionProof::default().at(Stage::Verified)
    }

    /// Grants new attempts, by an operator's decision.
    pub fn restart(self) -> PossessionProof {
        PossessionProof {
            last_refusal: self.last_refusal,
            ..PossessionProof::default()
        }
    }

    fn at(self, stage: Stage) -> PossessionProof {
        PossessionProof { stage, ..self }
    }
}

/// The reason why a step does not fit the progress of the proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {
    /// The attempts are used up.
    #[error(
        "{PROOF_ATTEMPTS_MAX} codes were received without success: an operator must restart the \
         proof"
    )]
    Exhausted,
    /// Another code is open, or none.
    #[error("the verification certificate answers a code that is not open")]
    OtherCode,
    /// The service refused a proof that was never sent.
    #[error("no verification certificate was sent that could have been refused")]
    NothingSent,
}

/// The CA certificate as observed at the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCaCertificate {
    /// The only digest that the service shows.
    pub thumbprint: Sha1Thumbprint,
    /// Whether the service accepts devices below the certificate.
    pub is_verified: bool,
    /// The version, which changes with every step of the proof.
    pub etag: Etag,
}

impl ObservedCaCertificate {
    /// Returns true if the service holds exactly this certificate, verified or not.
    pub fn is(&self, certificate: &SlotCertificate) -> bool {
        self.thumbprint == Sha1Thumbprint::of(certificate.der())
    }
}

/// The next step of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Record that the certificate is verified, if that is not recorded.
    Done,
    /// PUT the certificate, then [`PossessionProof::uploaded`].
    Upload {
        /// The version of another certificate under the name, which is replaced.
        replaces: Option<Etag>,
    },
    /// Request a code with `If-Match`, then [`PossessionProof::code_received`].
    RequestCode { etag: Etag },
    /// Have the CA's key sign a certificate for this code, then [`PossessionProof::proven`].
    /// This is the application's work, never the reconciler's.
    Sign { code: VerificationCode },
    /// Send the proof with `If-Match`, then [`PossessionProof::verified`] or
    /// [`PossessionProof::refused`].
    Verify {
        etag: Etag,
        verification_certificate: SlotCertificate,
    },
    /// No request: another program changed what was verified, and policy leaves the change.
    Drift(CaCertificateDrift),
    /// An operator must act.
    Park(ParkReason),
}

/// The reason why a CA certificate waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParkReason {
    /// Another certificate has the name. Overwriting it would exclude the devices below it.
    #[error(
        "the service holds another certificate (SHA-1 {found}) under this name: \
         delete it there, or choose another name"
    )]
    OtherCertificate { found: Sha1Thumbprint },
    /// The attempts are used up.
    #[error("{attempts} proofs of possession have failed; the last reason was: {last}")]
    Exhausted {
        /// The number of codes.
        attempts: u8,
        /// The reason of the service.
        last: String,
    },
}

/// Returns the next step towards a verified `certificate`. The observed state takes precedence over
/// the recorded state, and an equal certificate is adopted even if it was uploaded by other means.
///
/// Another certificate under the name is replaced only if ours was verified under this name before,
/// and policy repairs drift.
pub fn next_step(
    certificate: &SlotCertificate,
    proof: &PossessionProof,
    observed: Option<&ObservedCaCertificate>,
    policy: DriftPolicy,
) -> Step {
    let drift = drift(certificate, proof, observed);
    if let Some(drift) = &drift
        && policy == DriftPolicy::Report
    {
        return Step::Drift(drift.clone());
    }
    let Some(observed) = observed else {
        return match proof.exhausted() {
            Some(reason) => Step::Park(reason),
            None => Step::Upload { replaces: None },
        };
    };
    if !observed.is(certificate) {
        let found = observed.thumbprint;
        return match drift {
            Some(_) => Step::Upload {
                replaces: Some(observed.etag.clone()),
            },
            None => Step::Park(ParkReason::OtherCertificate { found }),
        };
    }
    if observed.is_verified {
        return Step::Done;
    }
    proof.next_step_unverified(&observed.etag)
}

impl PossessionProof {
    fn next_step_unverified(&self, etag: &Etag) -> Step {
        let etag = etag.clone();
        match &self.stage {
            Stage::CodeKnown { code } => Step::Sign { code: code.clone() },
            Stage::Proven {
                verification_certificate,
                ..
            } => Step::Verify {
                etag,
                verification_certificate: verification_certificate.clone(),
            },
            Stage::Wanted | Stage::Uploaded | Stage::Verified => match self.exhausted() {
                Some(reason) => Step::Park(reason),
                None => Step::RequestCode { etag },
            },
        }
    }

    fn exhausted(&self) -> Option<ParkReason> {
        let last = self.last_refusal.as_deref();
        (self.attempts >= PROOF_ATTEMPTS_MAX).then(|| ParkReason::Exhausted {
            attempts: self.attempts,
            last: last
                .unwrap_or("the service lost the certificate")
                .to_owned(),
        })
    }
}

/// A verification code: the common name of the certificate that the CA's key must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerificationCode(String);

impl VerificationCode {
    /// Accepts letters and digits only: the service chooses text that our key signs, and must not
    /// be able to choose its structure.
    pub fn parse(given: &str) -> Result<Self, VerificationCodeInvalid> {
        let length = given.len();
        let fits = (CODE_LENGTH_MIN..=CODE_LENGTH_MAX).contains(&length);
        if fits && given.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            Ok(Self(given.to_owned()))
        } else {
            Err(VerificationCodeInvalid { length })
        }
    }

    /// Returns the code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VerificationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VerificationCode {
    type Error = VerificationCodeInvalid;

    fn try_from(given: String) -> Result<Self, VerificationCodeInvalid> {
        Self::parse(&given)
    }
}

impl From<VerificationCode> for String {
    fn from(code: VerificationCode) -> String {
        code.0
    }
}

/// The reason why a code is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the service gave a verification code of {length} bytes that is not \
     {CODE_LENGTH_MIN} to {CODE_LENGTH_MAX} letters and digits"
)]
pub struct VerificationCodeInvalid {
    length: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> SlotCertificate {
        SlotCertificate::new(b"root".to_vec())
    }

    fn observed(certificate: &SlotCertificate, is_verified: bool) -> ObservedCaCertificate {
        ObservedCaCertificate {
            thumbprint: Sha1Thumbprint::of(certificate.der()),
            is_verified,
            etag: Etag::quoted("AAAA=").unwrap(),
        }
    }

    fn code(last: char) -> VerificationCode {
        VerificationCode::parse(&format!("0123456789ABCDEF{last}")).unwrap()
    }

    /// Makes one attempt that the service refuses.
    fn refused_once(proof: PossessionProof) -> PossessionProof {
        let proof = proof.uploaded().code_received(code('A')).unwrap();
        let proof = proof.proven(&code('A'), certificate()).unwrap();
        proof.refused("Proof-Of-Possession failed".into()).unwrap()
    }

    #[test]
    fn the_dance_goes_step_by_step() {
        let certificate = certificate();
        let proof = PossessionProof::default();
        let unverified = observed(&certificate, false);
        let next = |proof: &PossessionProof| {
            next_step(&certificate, proof, Some(&unverified), DriftPolicy::Report)
        };
        let first = next_step(&certificate, &proof, None, DriftPolicy::Report);
        assert_eq!(first, Step::Upload { replaces: None });
        let proof = proof.uploaded();
        assert!(matches!(next(&proof), Step::RequestCode { .. }));
        let proof = proof.code_received(code('A')).unwrap();
        assert_eq!(next(&proof), Step::Sign { code: code('A') });
        let proof = proof.proven(&code('A'), certificate.clone()).unwrap();
        assert!(matches!(next(&proof), Step::Verify { .. }));
        let verified = observed(&certificate, true);
        let last = next_step(&certificate, &proof, Some(&verified), DriftPolicy::Report);
        assert_eq!(last, Step::Done);
    }

    #[test]
    fn a_verified_certificate_is_adopted_without_any_signature() {
        let verified = observed(&certificate(), true);
        let proof = PossessionProof::default();
        let step = next_step(&certificate(), &proof, Some(&verified), DriftPolicy::Report);
        assert_eq!(step, Step::Done);
    }

    #[test]
    fn another_certificate_under_the_name_is_left_alone() {
        let other = observed(&SlotCertificate::new(b"other".to_vec()), true);
        let proof = PossessionProof::default();
        for policy in [DriftPolicy::Report, DriftPolicy::Repair] {
            let step = next_step(&certificate(), &proof, Some(&other), policy);
            let named = matches!(step, Step::Park(ParkReason::OtherCertificate { .. }));
            assert!(named, "{step:?}");
        }
    }

    #[test]
    fn attempts_are_bounded_until_an_operator_restarts() {
        let mut proof = PossessionProof::default();
        for _ in 0..PROOF_ATTEMPTS_MAX {
            proof = refused_once(proof);
        }
        let unverified = observed(&certificate(), false);
        for observed in [None, Some(&unverified)] {
            let step = next_step(&certificate(), &proof, observed, DriftPolicy::Repair);
            assert!(
                matches!(step, Step::Park(ParkReason::Exhausted { .. })),
                "{step:?}"
            );
        }
        assert_eq!(
            proof.clone().code_received(code('B')),
            Err(ProofRefusal::Exhausted)
        );
        let proof = proof.restart();
        let seen = Some(&unverified);
        let step = next_step(&certificate(), &proof, seen, DriftPolicy::Report);
        assert!(matches!(step, Step::RequestCode { .. }));
    }

    #[test]
    fn a_certificate_that_was_verified_has_all_attempts_again() {
        let proof = refused_once(refused_once(PossessionProof::default())).verified();
        let lost = next_step(&certificate(), &proof, None, DriftPolicy::Repair);
        assert_eq!(lost, Step::Upload { replaces: None });
        let again = refused_once(refused_once(proof));
        let step = next_step(&certificate(), &again, None, DriftPolicy::Repair);
        assert_eq!(step, Step::Upload { replaces: None });
    }

    #[test]
    fn a_late_signature_for_an_old_code_is_refused() {
        let proof = PossessionProof::default()
            .uploaded()
            .code_received(code('A'))
            .unwrap();
        let proof = proof.code_received(code('B')).unwrap();
        let refusal = proof.proven(&code('A'), certificate()).unwrap_err();
        assert_eq!(refusal, ProofRefusal::OtherCode);
    }

    #[test]
    fn only_letters_and_digits_are_signed() {
        for given in ["", "SHORT", "0123456789ABCDEF,CN=x", &"A".repeat(65)] {
            assert!(VerificationCode::parse(given).is_err(), "{given:?}");
        }
    }

    #[test]
    fn the_stored_form_round_trips() {
        let proof = refused_once(PossessionProof::default());
        let stored = serde_json::to_string(&proof).unwrap();
        assert_eq!(
            serde_json::from_str::<PossessionProof>(&stored).unwrap(),
            proof
        );
        assert!(serde_json::from_str::<PossessionProof>(r#"{"stage":{"stage":"odd"}}"#).is_err());
    }
}
