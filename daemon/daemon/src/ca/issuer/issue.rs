//! Issues certificates: the issuance cycle, with the step numbers of `docs/issuance-cycle.md`.
//!
//! It must never have a token sign what the store has not on record, and never return a certificate
//! that is not on record. [`Issuer::issue_certificate`] and `issue_leaf` are the steps
//! for leaves; ceremonies, rollovers, cross-certificates, subordinate certificates, OCSP
//! responders, proofs of possession and canaries enter at step 6, `certify`.
//!
//! The cycle is a future because a good one waits three times (store, token, store), each time for
//! a group that shares one commit or one system call; a waiting future costs no thread. It uses no
//! executor. `api::refusals` runs each request to its end in a task of its own: a client that
//! disconnects cancels nothing.

use super::Issuer;
use super::pace::Source;
use super::repeat::idempotency;
use crate::ca::authorize::{Authorized, Caller, Issue};
use crate::ca::hierarchy::{ChainLink, Generation};
use crate::ca::profile::{IssuanceProfile, Role, refuse_shape};
use crate::ca::roll::canary;
use crate::ca::signed::Signed;
use crate::ca::signing_request::{LeafHolder, Signer, SigningRequest};
use crate::ca::{Code, ConfiguredToken, Error, crash_point};
use crate::enrollment::id::RegistrationId;
use crate::ids::GenerationId;
use crate::measured::{Stage, StageClock};
use crate::request_task;
use crate::store::{
    Grant, Idempotency, IntentError, Moves, OnIssued, Purpose, Recorded, StoreError,
};
use crate::token::{CallFailure, KeyReference};
use crate::x509::certificate::Certificate;
use crate::x509::csr::Csr;
use crate::x509::key::PublicKey;
use crate::x509::requested_names::RequestedNames;
use crate::x509::serial::{RANDOM_OCTETS, SerialNumber};
use crate::x509::template::Values;
use std::sync::Arc;

/// A request for a leaf.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    pub profile: String,
    /// The registration id; for other roles, the common name.
    pub registration_id: String,
    /// PKCS #10, as PEM or DER; beside a generated key it may be empty, and gives names alone.
    pub csr: Vec<u8>,
    /// The public key of a pair that the daemon has made for this request.
    pub generated: Option<PublicKey>,
    /// The caller's name for this request.
    pub idempotency_key: Option<String>,
    /// An operator allows that a registered device gets another profile.
    pub moves: bool,
}

/// An issued certificate, with the chain that its holder must present.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its common name: the registration id.
    pub subject: String,
    pub profile: String,
    pub certificate: Certificate,
    /// From its issuer up to and including the one whose certificate the provisioning service
    /// verified.
    pub chain: Vec<Arc<ChainLink>>,
    /// The provisioning services that have not taken the certificate yet.
    pub pending: Vec<String>,
    /// The names in the request that the profile does not certify, as text.
    pub dropped_names: Vec<String>,
    /// It is the answer to an earlier request.
    pub is_repeat: bool,
}

impl Issued {
    /// Returns the certificate followed by its chain: what its holder presents.
    pub fn to_pem(&self) -> String {
        let chain = self.chain.iter().map(|link| link.pem.as_str());
        self.certificate.to_pem() + &chain.collect::<String>()
    }
}

/// Why there is no certificate although its intent is on record.
pub(in crate::ca) struct Unsigned {
    pub(in crate::ca) error: Error,
    /// The token may have signed all the same.
    pub(super) may_be_done: bool,
}

impl Issuer {
    /// Issues one leaf. The caller audits a refusal ([`Self::issue_audited`] does).
    pub async fn issue_certificate(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
    ) -> Result<Issued, Error> {
        // 1. Done by the edge: `permission` is the proof that the caller may ask.
        crash_point("cycle-1");

        // 2. The request is within its limits. Its size was bounded before it was read.
        let idempotency = idempotency(request)?;
        crash_point("cycle-2");

        // Read before the cycle: an issuer that was refused counts as cut over only if the store
        // has another one than this.
        let issuer = self.serving_for(&request.profile);
        let idempotency = idempotency.as_ref();
        let mut issued = self.issue_leaf(permission, request, idempotency).await;
        if issued.is_err() {
            // The rest reads the store.
            request_task::elsewhere().await;
        }
        if let Err(error) = &issued
            && self.has_new_issuer(error, issuer, &request.profile)?
        {
            // The only repetition: a cut-over was committed after step 5 read the hierarchy.
            self.reload_hierarchy()?;
            issued = self.issue_leaf(permission, request, idempotency).await;
        }
        match issued {
            // A repeated request gets its first answer, even if it would be refused now.
            Err(refused) => {
                self.answer_again(permission.caller(), request, idempotency, refused)
                    .await
            }
            issued => issued,
        }
        .and_then(|issued| request.refuse_lost_key(issued))
    }

    async fn issue_leaf(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
        idempotency: Option<&Idempotency>,
    ) -> Result<Issued, Error> {
        let mut clock = StageClock::begin();
        // 3. The CSR: its own signature, key policy, canonical DER.
        let csr = request
            .read_csr()
            .map_err(|r| Error::invalid(r.code(), r.to_string()))?;
        crash_point("cycle-3");

        // 4. Profile and name, and whether the caller may have a leaf with both. The common name is
        //    the daemon's to set.
        let profile = self.profile(&request.profile)?;
        let name = common_name(profile, &request.registration_id)?;
        let renews_itself = permission.renews_itself(profile, &name);
        let moves = if renews_itself {
            Moves::Never
        } else {
            permission.covers(&self.settings.stations, profile, &name, request.moves)?
        };
        agrees_with(&csr, &name)?;
        let values = self.values(permission.caller(), profile, &name, csr.names());
        let renews = match permission.caller() {
            caller if renews_itself => Some(self.check_renewal(caller, profile, &csr, &values)?),
            caller => self.check_granted(caller, profile, &csr, &values)?,
        };
        let subject_alternative_names = csr
            .names()
            .certified_by(&profile.certificate, &values)
            .map_err(|r| Error::invalid(r.code(), r.to_string()))?;
        let subject = profile.certificate.subject.fill(&values);
        let subject = subject.map_err(|it| Error::invalid(it.code(), it.to_string()))?;
        crash_point("cycle-4");

        // 5. The signing generation, or that of the standby while no token with its key is ready.
        let generation = self.signing_generation(&profile.authority).await?;
        self.signs_leaves(&generation)?;
        clock.ends(Stage::Request);
        crash_point("cycle-5");

        let caller = permission.caller();
        self.certify(SigningRequest {
            source: match caller {
                Caller::Daemon => Source::Listener,
                _ => Source::Caller,
            },
            signer: Signer::from(generation.as_ref()),
            purpose: Purpose::Leaf,
            profile_name: &profile.name,
            profile: &profile.certificate,
            subject: subject.into(),
            public_key: csr.public_key(),
            caller: caller.to_string(),
            holder: LeafHolder {
                subject_alternative_names: &subject_alternative_names,
                name_constraints: None,
                common_name: Some(&name),
                requested_names: Some(csr.names()),
                dropped_extensions: &[],
                generated_key: request.generated.is_some(),
                shared_key: profile.shared_keys,
                role: Some(profile.role),
                requester: caller.requester(),
                idempotency: idempotency.cloned(),
                moves,
                renews,
                grant: caller.grant().cloned(),
                certified: None,
            },
            on_issued: match (profile.role, caller.grant().and_then(Grant::enroll)) {
                (Role::Device, None) => OnIssued::Device {
                    registration_id: name.clone(),
                    profile: profile.name.clone(),
                },
                (Role::Device, Some(provisioning)) => OnIssued::EnrolledDevice {
                    registration_id: name.clone(),
                    profile: profile.name.clone(),
                    provisioning: provisioning.to_owned(),
                },
                _ => OnIssued::Alone,
            },
        })
        .await
    }

    /// Steps 6 to 10: the only code that has a token sign a certificate, of whatever kind.
    pub(in crate::ca) async fn certify(
        &self,
        request: SigningRequest<'_>,
    ) -> Result<Issued, Error> {
        let mut clock = StageClock::begin();
        // 6. The clock is believed, and the token can sign with exactly this key now; else nothing
        //    would be signed of what is recorded. Then the bytes to be signed, with a random serial
        //    number, linted by code that the builder does not share.
        refuse_shape(request.purpose, request.profile)?;
        let now = self.signing_time()?;
        // Without a journal that verifies, and checkpoints of it, there are no certificates.
        self.journal_permits()?;
        let token = self.ready_token(&request.signer).await?;
        let serial = SerialNumber::from_random(now, random::<RANDOM_OCTETS>()?);
        let linted = request.build_and_lint(&serial, now)?;
        // Last, because it counts a signature: what was refused before asks for none.
        self.may_have_signed(request.source)?;
        clock.ends(Stage::Build);
        crash_point("cycle-6");

        // 7. Recorded, durable, unless the request repeats one on record. A token accepts only the
        //    value that comes back.
        let intent = request.intent(&serial, &linted, now);
        let recorded = match (
            self.store.record_intent(intent).await,
            &request.holder.idempotency,
        ) {
            (Err(IntentError::Repeated(prior)), Some(it)) => {
                return self.repeat(prior, it, request.holder.requested_names);
            }
            (recorded, _) => recorded?,
        };
        clock.ends(Stage::Intent);
        crash_point("cycle-7");

        // 8. and 9. Signed within a deadline; the recorded bytes; verified.
        let signer = &request.signer;
        let public_key = signer.issuer.public_key();
        let signed = sign_and_verify::<Certificate>(token, signer.key, public_key, &recorded).await;
        self.note_signature(request.source, signed.is_ok());
        let certificate = match signed {
            Ok(certificate) => certificate,
            Err(unsigned) => return Err(self.end_intent(&recorded, unsigned).await),
        };

        let mut clock = StageClock::begin();
        // 10. Certificate, audit entry, device, slots and dirty mark: one transaction.
        let dropped_names = request.dropped_names(&certificate);
        let entry = request.audit_entry(&serial, &certificate, &dropped_names, now);
        let on_issued = request.on_issued;
        let effects = self
            .store
            .record_certificate(&recorded, certificate.der().clone(), on_issued, entry)
            .await;
        let effects = match effects {
            Ok(effects) => effects,
            Err(error) => {
                // A signature without record is of no use and counts as failed for the pace.
                self.note_signature(request.source, false);
                return Err(self.end_intent(&recorded, record_failure(error)).await);
            }
        };
        clock.ends(Stage::Record);
        crash_point("cycle-10");

        if !effects.provisioning.is_empty() {
            self.wake();
        }
        tracing::info!(
            subject = request.subject.label(),
            profile = request.profile_name,
            serial = %certificate.serial(),
            caller = request.caller,
            not_after = %certificate.not_after(),
            "certificate issued"
        );
        Ok(Issued {
            subject: request.subject.label().to_owned(),
            profile: request.profile_name.to_owned(),
            chain: self.chain_of(request.signer.generation),
            certificate,
            pending: effects.provisioning,
            dropped_names,
            is_repeat: false,
        })
    }

    /// Returns what a certificate for this request is filled with.
    pub(in crate::ca) fn values<'a>(
        &self,
        caller: &'a Caller,
        profile: &'a IssuanceProfile,
        name: &'a str,
        csr: &'a RequestedNames,
    ) -> Values<'a> {
        Values {
            id: name,
            line: &profile.authority,
            station: caller.station(),
            now: self.now(),
            csr: Some(csr),
        }
    }

    /// Returns the serving generation of the profile's authority.
    pub(crate) fn serving_for(&self, profile: &str) -> Option<GenerationId> {
        let authority = &self.profile(profile).ok()?.authority;
        Some(self.hierarchy().serving(authority)?.id)
    }

    /// Returns whether a request was refused because of its issuer, and another generation than
    /// `before` serves now: the store knew of a cut-over that the hierarchy had not read yet.
    fn has_new_issuer(
        &self,
        refused: &Error,
        before: Option<GenerationId>,
        profile: &str,
    ) -> Result<bool, Error> {
        if refused.code != Code::IssuerReplaced && refused.code != Code::IssuerRevoked {
            return Ok(false);
        }
        let authority = &self.profile(profile)?.authority;
        Ok(self.store.serving_generation(authority)? != before)
    }

    /// Fails when the configured signing window of the generation's authority has ended. Without a
    /// configured window, a leaf that would outlive its issuer is refused at step 6.
    fn signs_leaves(&self, generation: &Generation) -> Result<(), Error> {
        let name = &generation.authority;
        let Some(window) = self.settings.signing_windows.get(name) else {
            return Ok(());
        };
        let end = generation.certified_at.saturating_add(*window);
        if self.now() < end {
            return Ok(());
        }
        let message = format!(
            "authority {name} has signed leaves until {}; roll it (`hallmark roll start \
             --authority {name} --reason expiry`)",
            end
        );
        Err(Error::later(60, Code::SigningWindowClosed, message))
    }

    pub(super) fn chain_of(&self, generation: GenerationId) -> Vec<Arc<ChainLink>> {
        let hierarchy = self.hierarchy();
        let chain = hierarchy.chain(generation, &self.settings.verified);
        chain.into_iter().cloned().collect()
    }
}

/// Steps 8 and 9, for everything that is signed: certificates, revocation lists, requests.
pub(in crate::ca) async fn sign_and_verify<T: Signed>(
    token: &ConfiguredToken,
    key: &KeyReference,
    public_key: &PublicKey,
    recorded: &Recorded<impl Copy>,
) -> Result<T, Unsigned> {
    let mut clock = StageClock::begin();
    // 8. The token signs, with a deadline.
    let algorithm = public_key.key_type().signature_algorithm();
    let signature = token
        .client
        .sign_recorded(key, algorithm, recorded, token.sign_deadline)
        .await?;
    clock.ends(Stage::Signature);
    crash_point(T::SIGNED);

    // 9. The signature is over the recorded bytes, and verifies with the public key on record.
    let verified = T::assemble(recorded.tbs(), algorithm, &signature).and_then(|signed| {
        if signed.tbs_bytes() != recorded.tbs() {
            return Err("the signed bytes are not the recorded ones".into());
        }
        signed.verify(public_key)?;
        Ok(signed)
    });
    let signed = verified.map_err(|reason| {
        token.client.doubt(key);
        let token = token.client.name();
        let message = format!("token {token}: {reason}; the {} is withheld", T::NAME);
        Error::stop(Code::SignatureWrong, message)
    })?;
    token.client.confirm(key);
    clock.ends(Stage::Verification);
    crash_point(T::VERIFIED);
    Ok(signed)
}

impl From<CallFailure> for Unsigned {
    fn from(failure: CallFailure) -> Self {
        Self {
            may_be_done: failure.may_be_done(),
            error: failure.into(),
        }
    }
}

/// The token has answered, so a signature may exist, and its serial number must be listed.
impl From<Error> for Unsigned {
    fn from(error: Error) -> Self {
        Self {
            error,
            may_be_done: true,
        }
    }
}

/// Step 10 failed. After a conflict the state changed while the token signed, and a repeated
/// request meets the new state.
fn record_failure(error: StoreError) -> Unsigned {
    match error {
        StoreError::Conflict(_) | StoreError::Violates(_) => {
            Error::later(1, Code::NotRecorded, error.to_string()).into()
        }
        other => Error::from(other).into(),
    }
}

/// Returns the common name: a registration id for a device, a plain name for all other roles.
fn common_name(profile: &IssuanceProfile, asked: &str) -> Result<String, Error> {
    canary::refuse_reserved(asked)?;
    RegistrationId::parse(asked)
        .map(|id| id.as_str().to_owned())
        .map_err(|error| match profile.role {
            Role::Device => Error::invalid(error.code(), error.to_string()),
            _ => Error::invalid(Code::NameInvalid, error.to_string()),
        })
}

/// A CSR names nothing, or exactly the requested name.
fn agrees_with(csr: &Csr, name: &str) -> Result<(), Error> {
    match csr.common_name() {
        Some(other) if other != name => Err(Error::invalid(
            Code::CsrOtherCommonName,
            format!(
                "the CSR names {other:?} and the request {name:?}; the common name is the \
                 registration id, so leave it out of the CSR or make them equal"
            ),
        )),
        _ => Ok(()),
    }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::stop(Code::RandomSource, "the system's random source failed"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
