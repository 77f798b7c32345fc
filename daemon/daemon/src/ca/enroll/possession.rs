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
use crate::ca::{Code, Error};
use crate::enrollment::ca_certificate::VerificationCode;
use crate::store::{AuditEntry, CaCertificateRow, OnIssued, Purpose};
use crate::unix_seconds::UnixSeconds;
use crate::x509::name::{DistinguishedName, NameRefusal, Subject};
use crate::x509::profile::Profile;
use serde_json::json;

/// How long before its authority the certificate of a proof ends, in seconds: the clock moves
/// between the decision and the signature.
const END_MARGIN_SECONDS: i64 = 60;

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
        proofs.keep_only(|id| open.iter().any(|(row, _)| row.id == id));
        let now = self.issuer.now();
        let due = open
            .iter()
            .filter(|(row, _)| proofs.pause(row.id, now).is_none());
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
                proofs.ended(row.id);
                self.issuer.wake();
            }
            Err(error) => {
                if proofs.failed(row.id, &error, self.issuer.now()).is_new {
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
