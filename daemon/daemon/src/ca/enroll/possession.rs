//! Proof of possession: one verification certificate for each code that a service asked for.
//!
//! The reconciler learns the code and sends the certificate; it is signed here, by the issuance
//! cycle, and recorded like every other signature. A code is answered once (the store's unique
//! index), and the number of codes is bounded (`enrollment::ca_certificate`), so a service that
//! fails cannot have us sign for ever. Proofs are signed side by side, each with its own pauses: a
//! token that hangs delays the proof of its own authority only.

use super::Enrollments;
use crate::ca::alarm::{Alarm, AlarmCode, unreadable};
use crate::ca::authorize::Caller;
use crate::ca::hierarchy::Generation;
use crate::ca::issuer::pace::Source;
use crate::ca::signing_request::{LeafHolder, Signer, SigningRequest};
use crate::ca::{Advice, Code, Error, lock};
use crate::enrollment::ca_certificate::VerificationCode;
use crate::ids::CaCertificateId;
use crate::store::{AuditEntry, CaCertificateRow, OnIssued, Purpose};
use crate::unix_seconds::UnixSeconds;
use crate::x509::name::{DistinguishedName, NameRefusal, Subject};
use crate::x509::profile::Profile;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The pause before a proof is tried again whose token or key is unavailable: nothing was recorded.
const TOKEN_PAUSE_SECONDS: i64 = 5;
/// The longest pause after failures.
const FAILURE_PAUSE_SECONDS_MAX: i64 = 300;
/// How long before its authority the certificate of a proof ends, in seconds: the clock moves
/// between the decision and the signature.
const END_MARGIN_SECONDS: i64 = 60;

/// The proofs that could not be signed, by the row id of the CA certificate.
#[derive(Default)]
pub(in crate::ca) struct UnsignedProofs(Mutex<BTreeMap<CaCertificateId, Failure>>);

#[derive(Clone)]
struct Failure {
    reason: String,
    attempts: u32,
    retry_at: UnixSeconds,
}

impl UnsignedProofs {
    /// Returns why the proof of this CA certificate is not signed yet.
    pub(in crate::ca) fn reason(&self, ca_certificate: CaCertificateId) -> Option<String> {
        let failures = lock(&self.0);
        failures.get(&ca_certificate).map(|it| it.reason.clone())
    }

    fn keep_only(&self, open: &[(CaCertificateRow, VerificationCode)]) {
        lock(&self.0).retain(|id, _| open.iter().any(|(row, _)| row.id == *id));
    }

    fn is_due(&self, ca_certificate: CaCertificateId, now: UnixSeconds) -> bool {
        let failures = lock(&self.0);
        let failure = failures.get(&ca_certificate);
        failure.is_none_or(|it| it.retry_at <= now)
    }

    fn next_due(&self) -> Option<UnixSeconds> {
        lock(&self.0).values().map(|it| it.retry_at).min()
    }

    /// Records a failure. Returns true if its reason is another one than before.
    fn failed(&self, ca_certificate: CaCertificateId, error: &Error, now: UnixSeconds) -> bool {
        let mut failures = lock(&self.0);
        let before = failures.get(&ca_certificate);
        let failure = Failure::after(before, error, now);
        let is_new = before.is_none_or(|it| it.reason != failure.reason);
        failures.insert(ca_certificate, failure);
        is_new
    }

    fn signed(&self, ca_certificate: CaCertificateId) {
        lock(&self.0).remove(&ca_certificate);
    }
}

impl Failure {
    fn after(before: Option<&Self>, error: &Error, now: UnixSeconds) -> Self {
        let attempts = before.map_or(0, |it| it.attempts);
        // The pace says when, not why: the reason stays that of the signature that failed.
        if let Some(before) = before
            && let Advice::Later { seconds } = error.advice
            && error.code == Code::SigningPaused
        {
            return Self {
                retry_at: now + i64::from(seconds),
                ..before.clone()
            };
        }
        let doubled = TOKEN_PAUSE_SECONDS.saturating_mul(1 << attempts.min(8));
        let pause = doubled.min(FAILURE_PAUSE_SECONDS_MAX);
        let costs_nothing = is_token_absent(error.code);
        Self {
            reason: error.message.clone(),
            attempts: if costs_nothing { 0 } else { attempts + 1 },
            retry_at: now
                + if costs_nothing {
                    TOKEN_PAUSE_SECONDS
                } else {
                    pause
                },
        }
    }
}

/// Returns true if nothing was recorded, and no token had to sign.
fn is_token_absent(code: Code) -> bool {
    matches!(code, Code::TokenUnavailable | Code::TokenParked)
}

impl Enrollments {
    /// Wants the certificates of verified authorities at each provisioning service: that of the
    /// generation that serves, and of the one that will; what is revoked is wanted nowhere.
    pub fn want_verified(&self) -> Result<(), Error> {
        let hierarchy = self.issuer.hierarchy();
        for (provisioning, authorities) in &self.services.verified {
            let serving = authorities.iter().filter_map(|it| hierarchy.serving(it));
            let staged = authorities.iter().filter_map(|it| hierarchy.staged(it));
            let good = serving
                .chain(staged)
                .filter(|it| hierarchy.revoked_above(it.id).is_none());
            for generation in good {
                self.want_at(provisioning, generation)?;
            }
        }
        Ok(())
    }

    fn want_at(&self, provisioning: &str, generation: &Generation) -> Result<(), Error> {
        let name = generation.name();
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: Caller::Daemon.to_string(),
            action: "ca_certificate.wanted",
            subject: name.clone(),
            detail: json!({ "provisioning": provisioning }),
        };
        let provisioning = provisioning.to_owned();
        if self
            .store
            .want_ca_certificate(provisioning, name, generation.id, entry)?
        {
            self.issuer.wake();
        }
        Ok(())
    }

    /// Signs a verification certificate for every waiting code. Returns when a proof that failed is
    /// due again, in Unix seconds.
    pub fn prove_possession(&self) -> Result<Option<UnixSeconds>, Error> {
        let open = self.store.codes_to_sign()?;
        let proofs = self.issuer.unsigned_proofs();
        proofs.keep_only(&open);
        let now = self.issuer.now();
        let due = open.iter().filter(|(row, _)| proofs.is_due(row.id, now));
        std::thread::scope(|scope| {
            for (row, code) in due {
                scope.spawn(move || self.prove(row, code));
            }
        });
        Ok(proofs.next_due())
    }

    /// Signs one code, or records why it cannot be signed.
    fn prove(&self, row: &CaCertificateRow, code: &VerificationCode) {
        let proofs = self.issuer.unsigned_proofs();
        match self.sign_code(row, code) {
            Ok(()) => {
                proofs.signed(row.id);
                self.issuer.wake();
            }
            Err(error) => {
                if proofs.failed(row.id, &error, self.issuer.now()) {
                    let service = &row.provisioning;
                    let certificate = &row.name;
                    tracing::warn!(service, certificate, code = error.code.name(), %error,
                        "proof of possession not signed, retrying");
                }
            }
        }
    }

    /// Returns the alarms for proofs that cannot be signed.
    pub(in crate::ca) fn possession_alarms(&self) -> Vec<Alarm> {
        let open = match self.store.codes_to_sign() {
            Ok(open) => open,
            Err(error) => {
                let what = "the proofs of possession cannot be read";
                return vec![unreadable(what, &error)];
            }
        };
        let alarms = open.iter().filter_map(|(row, _)| {
            let reason = self.issuer.unsigned_proofs().reason(row.id)?;
            let name = &row.name;
            let service = &row.provisioning;
            let text = format!(
                "CA certificate {name} cannot be verified at {service}, because the proof of \
                 possession is not signed: {reason}"
            );
            let parameters =
                json!({ "provisioning": service, "ca_certificate": name, "reason": reason });
            Some(Alarm::new(AlarmCode::PossessionNotProven, parameters, text))
        });
        alarms.collect()
    }

    fn sign_code(&self, row: &CaCertificateRow, code: &VerificationCode) -> Result<(), Error> {
        let hierarchy = self.issuer.hierarchy();
        let generation = hierarchy.generation(row.generation).cloned();
        drop(hierarchy);
        let generation = generation.ok_or_else(|| {
            Error::stop(
                Code::HierarchyBroken,
                format!("CA certificate {} has no key", row.name),
            )
        })?;
        pollster::block_on(self.issuer.certify(SigningRequest {
            source: Source::Possession(row.id),
            signer: Signer::from(generation.as_ref()),
            purpose: Purpose::Possession,
            profile_name: "possession",
            profile: &proof_profile(&generation, self.issuer.now())?,
            subject: proof_subject(&generation, code)?,
            public_key: &generation.public_key,
            caller: Caller::Daemon.to_string(),
            holder: LeafHolder::none(),
            on_issued: OnIssued::Possession {
                ca_certificate: row.id,
            },
        }))?;
        Ok(())
    }
}

/// Returns the subject of a proof: the code as common name. Where name constraints above do not
/// permit that alone, the attributes of the authority's own subject stand before it; the service
/// compares the common name.
fn proof_subject(generation: &Generation, code: &VerificationCode) -> Result<Subject, Error> {
    let refused = |error: NameRefusal| Error::stop(Code::VerificationCode, error.to_string());
    let alone = DistinguishedName::from_common_name(code.as_str()).map_err(refused)?;
    let issuer = &generation.issuer;
    if issuer.objection_to(&alone.to_der(), &[], true).is_none() {
        return Ok(alone.into());
    }
    match DistinguishedName::from_der(generation.certificate.subject_der()) {
        Ok(own) => {
            let subject = own.attributes().with_common_name(code.as_str());
            Ok(subject.map_err(refused)?.into())
        }
        Err(_) => Ok(alone.into()),
    }
}

/// Returns the profile of a proof: valid for a day, or until shortly before its authority ends.
fn proof_profile(generation: &Generation, now: UnixSeconds) -> Result<Profile, Error> {
    let profile = Profile::verification();
    let not_after = generation.certificate.not_after();
    let left = not_after
        .seconds_since(now)
        .saturating_sub(END_MARGIN_SECONDS);
    let left = u64::try_from(left).ok().filter(|left| *left > 0);
    let Some(left) = left else {
        let name = &generation.authority;
        let message = format!(
            "the certificate of {} ends at {}, too soon for a proof of possession: roll authority \
             {name} (`hallmark roll start --authority {name} --reason expiry`)",
            generation.name(),
            not_after
        );
        return Err(Error::invalid(Code::OutlivesIssuer, message));
    };
    Ok(Profile {
        validity_seconds: profile.validity_seconds.min(left),
        ..profile
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CaCertificateId = CaCertificateId::new(1);
    const OTHER: CaCertificateId = CaCertificateId::new(2);

    fn at(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn failure(code: Code, message: &str) -> Error {
        Error::later(30, code, message)
    }

    #[test]
    fn each_proof_has_its_own_pauses_and_its_own_reason() {
        let proofs = UnsignedProofs::default();
        assert!(proofs.failed(ID, &failure(Code::TokenDeadline, "slow"), at(1_000)));
        assert!(!proofs.is_due(ID, at(1_004)));
        assert!(proofs.is_due(OTHER, at(1_000)));
        assert!(!proofs.failed(ID, &failure(Code::TokenDeadline, "slow"), at(1_005)));
        assert_eq!(proofs.next_due(), Some(at(1_015)));
        assert_eq!(proofs.reason(ID).as_deref(), Some("slow"));
        assert_eq!(proofs.reason(OTHER), None);
    }

    #[test]
    fn a_pause_keeps_the_reason_of_the_signature_that_failed() {
        let proofs = UnsignedProofs::default();
        proofs.failed(ID, &failure(Code::SignatureWrong, "wrong"), at(1_000));
        let paused = Error::later(40, Code::SigningPaused, "paused");
        assert!(!proofs.failed(ID, &paused, at(1_005)));
        assert_eq!(proofs.reason(ID).as_deref(), Some("wrong"));
        assert_eq!(proofs.next_due(), Some(at(1_045)));
    }

    #[test]
    fn a_token_that_is_unavailable_costs_no_longer_pauses() {
        let proofs = UnsignedProofs::default();
        for second in 0..20 {
            proofs.failed(ID, &failure(Code::TokenUnavailable, "absent"), at(second));
        }
        assert_eq!(proofs.next_due(), Some(at(19 + TOKEN_PAUSE_SECONDS)));
        proofs.signed(ID);
        assert!(proofs.is_due(ID, at(19)));
    }
}
