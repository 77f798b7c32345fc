//! A CA certificate at the service: uploaded, and proven to be ours.
//!
//! Proof of possession is a dance: upload, ask for a code, have the CA's key sign a certificate
//! whose common name is that code, send it back. [`PossessionProof`] remembers how far it came, so that a
//! restart repeats nothing; [`next_step`] looks at what the service holds and says what to do.
//!
//! Nothing is signed here, and the service cannot make us sign at will: every code costs one of
//! [`PROOF_ATTEMPTS_MAX`] attempts, and only an operator's [`PossessionProof::restart`] gives new ones.

use super::desired::SlotCertificate;
use super::etag::Etag;
use super::thumbprint::Sha1Thumbprint;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How many codes are answered with a signature before an operator must look.
pub const PROOF_ATTEMPTS_MAX: u8 = 3;

/// Shorter codes could be the name of something else that our key signs.
const CODE_LENGTH_MIN: usize = 16;

/// A code becomes a common name.
const CODE_LENGTH_MAX: usize = 64;

/// How far the proof has come. Persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PossessionProof {
    stage: Stage,
    /// Codes received so far.
    attempts: u8,
    /// Why the last proof was refused.
    last_refusal: Option<String>,
}

/// The steps of the dance; each holds what exists then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case", deny_unknown_fields)]
pub enum Stage {
    /// Not known to be at the service.
    Wanted,
    /// At the service, unverified.
    Uploaded,
    /// The service wants to see this code signed.
    CodeKnown {
        /// The common name of the verification certificate.
        code: VerificationCode,
    },
    /// Signed, and to be sent.
    Proven {
        /// What was signed.
        code: VerificationCode,
        /// The verification certificate.
        verification_certificate: SlotCertificate,
    },
    /// The service calls it verified.
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
    /// How far it came.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Why the service refused the last proof.
    pub fn last_refusal(&self) -> Option<&str> {
        self.last_refusal.as_deref()
    }

    /// The service took the certificate. Codes given before are void: an upload starts anew.
    pub fn uploaded(self) -> PossessionProof {
        self.at(Stage::Uploaded)
    }

    /// The service gave a code. It replaces an older one, and costs an attempt.
    pub fn code_received(self, code: VerificationCode) -> Result<PossessionProof, ProofRefusal> {
        if self.attempts >= PROOF_ATTEMPTS_MAX {
            return Err(ProofRefusal::Exhausted);
        }
        let attempts = self.attempts + 1;
        let proof = PossessionProof { attempts, ..self };
        Ok(proof.at(Stage::CodeKnown { code }))
    }

    /// The CA's key signed `code`.
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

    /// The service refused the verification certificate, for this reason.
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

    /// The service was seen to hold it verified, by whatever way.
    pub fn verified(self) -> PossessionProof {
        self.at(Stage::Verified)
    }

    /// An operator has looked, and grants new attempts.
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

/// A step of the proof that does not fit where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {
    /// Too many codes.
    #[error(
        "{PROOF_ATTEMPTS_MAX} codes were received without success: an operator must restart the proof"
    )]
    Exhausted,
    /// Another code is open by now, or none.
    #[error("the verification certificate answers a code that is not open")]
    OtherCode,
    /// A refusal without a proof.
    #[error("no verification certificate was sent that could have been refused")]
    NothingSent,
}

/// The CA certificate as the service holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedCaCertificate {
    /// The service shows no other digest.
    pub thumbprint: Sha1Thumbprint,
    /// Devices below it are let in.
    pub is_verified: bool,
    /// Changes with every step of the dance.
    pub etag: Etag,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Verified at the service: record it, if the proof does not say so yet.
    Done,
    /// PUT the certificate, then [`PossessionProof::uploaded`].
    Upload,
    /// Ask for a code with `If-Match`, then [`PossessionProof::code_received`].
    RequestCode {
        /// The version that was observed.
        etag: Etag,
    },
    /// Have the CA's key sign a certificate for this code, then [`PossessionProof::proven`].
    /// This is the application's work, never the reconciler's.
    Sign {
        /// Its common name.
        code: VerificationCode,
    },
    /// Send the proof with `If-Match`, then [`PossessionProof::verified`] or [`PossessionProof::refused`].
    Verify {
        /// The version that was observed.
        etag: Etag,
        /// The proof.
        verification_certificate: SlotCertificate,
    },
    /// An operator must look.
    Park(ParkReason),
}

/// Why a CA certificate waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParkReason {
    /// The name is taken; overwriting would shut out whoever relies on the other certificate.
    #[error(
        "the service holds another certificate (SHA-1 {found}) under this name: \
         delete it there, or choose another name"
    )]
    OtherCertificate {
        /// What stands there.
        found: Sha1Thumbprint,
    },
    /// Too many codes.
    #[error("{attempts} proofs of possession have failed; the last reason was: {last}")]
    Exhausted {
        /// How many.
        attempts: u8,
        /// What the service said.
        last: String,
    },
}

/// The next step towards `certificate` being verified. What was observed wins over what was
/// remembered; equal certificates are adopted, whoever uploaded them.
pub fn next_step(
    certificate: &SlotCertificate,
    proof: &PossessionProof,
    observed: Option<&ObservedCaCertificate>,
) -> Step {
    let Some(observed) = observed else {
        return match proof.exhausted() {
            Some(reason) => Step::Park(reason),
            None => Step::Upload,
        };
    };
    if observed.thumbprint != Sha1Thumbprint::of(certificate.der()) {
        let found = observed.thumbprint;
        return Step::Park(ParkReason::OtherCertificate { found });
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

/// What the service wants to see as the common name of a certificate signed by the CA's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerificationCode(String);

impl VerificationCode {
    /// Takes letters and digits only: the service chooses what our key signs, and must not be able
    /// to choose a structure.
    pub fn parse(given: &str) -> Result<Self, VerificationCodeInvalid> {
        let length = given.len();
        let fits = (CODE_LENGTH_MIN..=CODE_LENGTH_MAX).contains(&length);
        if fits && given.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            Ok(Self(given.to_owned()))
        } else {
            Err(VerificationCodeInvalid { length })
        }
    }

    /// The code.
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

/// A code that our key will not sign.
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

    /// One attempt, up to the service's refusal.
    fn refused_once(proof: PossessionProof) -> PossessionProof {
        let proof = proof.uploaded().code_received(code('A')).unwrap();
        let proof = proof.proven(&code('A'), certificate()).unwrap();
        proof.refused("Proof-Of-Possession failed".into()).unwrap()
    }

    #[test]
    fn the_dance_goes_step_by_step() {
        let (certificate, proof) = (certificate(), PossessionProof::default());
        let unverified = observed(&certificate, false);
        let next = |proof: &PossessionProof| next_step(&certificate, proof, Some(&unverified));
        assert_eq!(next_step(&certificate, &proof, None), Step::Upload);
        let proof = proof.uploaded();
        assert!(matches!(next(&proof), Step::RequestCode { .. }));
        let proof = proof.code_received(code('A')).unwrap();
        assert_eq!(next(&proof), Step::Sign { code: code('A') });
        let proof = proof.proven(&code('A'), certificate.clone()).unwrap();
        assert!(matches!(next(&proof), Step::Verify { .. }));
        let verified = observed(&certificate, true);
        assert_eq!(next_step(&certificate, &proof, Some(&verified)), Step::Done);
    }

    #[test]
    fn a_verified_certificate_is_adopted_without_any_signature() {
        let verified = observed(&certificate(), true);
        let step = next_step(&certificate(), &PossessionProof::default(), Some(&verified));
        assert_eq!(step, Step::Done);
    }

    #[test]
    fn another_certificate_under_the_name_is_left_alone() {
        let other = observed(&SlotCertificate::new(b"other".to_vec()), true);
        let step = next_step(&certificate(), &PossessionProof::default(), Some(&other));
        let named = matches!(step, Step::Park(ParkReason::OtherCertificate { .. }));
        assert!(named, "{step:?}");
    }

    #[test]
    fn attempts_are_bounded_until_an_operator_restarts() {
        let mut proof = PossessionProof::default();
        for _ in 0..PROOF_ATTEMPTS_MAX {
            proof = refused_once(proof);
        }
        let unverified = observed(&certificate(), false);
        for observed in [None, Some(&unverified)] {
            let step = next_step(&certificate(), &proof, observed);
            assert!(
                matches!(step, Step::Park(ParkReason::Exhausted { .. })),
                "{step:?}"
            );
        }
        assert_eq!(
            proof.clone().code_received(code('B')),
            Err(ProofRefusal::Exhausted)
        );
        let step = next_step(&certificate(), &proof.restart(), Some(&unverified));
        assert!(matches!(step, Step::RequestCode { .. }));
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
