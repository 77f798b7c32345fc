//! The issuance cycle: the one dangerous path, numbered as in `docs/architecture.md`.
//!
//! It waits three times, for the store, the token and the store again, and each time for a group
//! that shares one commit or one system call; so it is a future, which costs no thread while it
//! waits. It knows no executor. It must be run to its end, outside any HTTP handler: a client that
//! hangs up cancels nothing. Every step that can fail leaves either nothing, or an intent that is
//! abandoned, or withdrawn if it was sent to no worker. Nothing here retries: a repeat is the
//! caller's, with its idempotency key.

use super::authorize::{Authorized, Caller, Issue};
use super::hierarchy::{ChainLink, Generation};
use super::pace::Source;
use super::profile::{IssuanceProfile, Role, refuse_shape};
use super::{CertificateAuthority, Code, ConfiguredToken, Error, canary, crash_point, lock};
use crate::enrollment::id::RegistrationId;
use crate::store::{
    AuditEntry, Idempotency, Intent, IntentRefusal, Moves, OnIssued, PriorRequest, Purpose,
    Recorded, Requester, StoreError,
};
use crate::token::{CallFailure, KeyReference};
use crate::x509::certificate::{self, Certificate};
use crate::x509::csr::Csr;
use crate::x509::issuer::{Distribution, Issuer};
use crate::x509::key::PublicKey;
use crate::x509::lint::{self, Expectation, ExpectedIssuer, IssuerReading};
use crate::x509::name::DistinguishedName;
use crate::x509::profile::Profile;
use crate::x509::san::SubjectAlternativeName;
use crate::x509::serial::{RANDOM_OCTETS, SerialNumber};
use crate::x509::tbs;
use aws_lc_rs::digest;
use serde_json::json;
use std::sync::Arc;

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// A request for a leaf.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// The profile's name.
    pub profile: String,
    /// The registration id; for other roles, the common name.
    pub registration_id: String,
    /// PKCS #10, as PEM or DER.
    pub csr: Vec<u8>,
    /// The caller's name for this request.
    pub idempotency_key: Option<String>,
    /// An operator's word that a registered device may get another profile.
    pub moves: bool,
}

/// An issued certificate, with the chain that its holder must present.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its common name: the registration id.
    pub subject: String,
    /// The profile's name.
    pub profile: String,
    /// The certificate.
    pub certificate: Certificate,
    /// From its issuer up to and including the one whose certificate the provisioning service
    /// verified.
    pub chain: Vec<Arc<ChainLink>>,
    /// The provisioning services that still have to learn of it.
    pub pending: Vec<String>,
}

impl Issued {
    /// The certificate, followed by its chain: what its holder presents.
    pub fn to_pem(&self) -> String {
        let chain = self.chain.iter().map(|link| link.pem.as_str());
        self.certificate.to_pem() + &chain.collect::<String>()
    }
}

/// What steps 6 to 10 need to know: one certificate, and what follows from it.
pub(super) struct Order<'a> {
    pub source: Source,
    pub signer: Signer<'a>,
    pub purpose: Purpose,
    pub profile_name: &'a str,
    pub profile: &'a Profile,
    pub subject: DistinguishedName,
    pub subject_alternative_names: &'a [SubjectAlternativeName],
    pub public_key: &'a PublicKey,
    /// Other holders may have the same key.
    pub shared_key: bool,
    /// What the holder of a leaf will be to this daemon.
    pub role: Option<Role>,
    pub caller: String,
    pub requester: Option<Requester>,
    pub idempotency: Option<Idempotency>,
    /// For a device: from which other profiles it may be moved to this one.
    pub moves: Moves,
    /// The serial number of the certificate that its holder renews, where it is no device.
    pub renews: Option<String>,
    pub on_issued: OnIssued,
}

/// An intent whose end could not be recorded when it came.
pub(super) struct Unsettled {
    pub(super) intent: i64,
    pub(super) reason: String,
    /// The token may have signed it.
    pub(super) may_be_done: bool,
}

/// Why there is no certificate although its intent is on record.
struct Unsigned {
    error: Error,
    /// The token may have signed all the same.
    may_be_done: bool,
}

impl From<CallFailure> for Unsigned {
    fn from(failure: CallFailure) -> Self {
        Self {
            may_be_done: failure.may_be_done(),
            error: failure.into(),
        }
    }
}

impl From<Error> for Unsigned {
    fn from(error: Error) -> Self {
        Self {
            error,
            may_be_done: true,
        }
    }
}

/// Who signs: a serving generation, or a root that is about to sign itself.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub generation: i64,
    pub authority: &'a str,
    /// That of the authority; another one may hold the same key (`failover`).
    pub token: &'a str,
    pub key: &'a KeyReference,
    pub issuer: &'a Issuer,
    /// `None` for a root that is about to sign itself.
    pub certificate: Option<&'a IssuerReading>,
    /// Where relying parties find the issuer's revocation list and certificate.
    pub distribution: Option<&'a Distribution>,
}

impl<'a> From<&'a Generation> for Signer<'a> {
    fn from(generation: &'a Generation) -> Self {
        Self {
            generation: generation.id,
            authority: &generation.authority,
            token: &generation.token,
            key: &generation.key,
            issuer: &generation.issuer,
            certificate: Some(&generation.reading),
            distribution: Some(&generation.distribution),
        }
    }
}

impl CertificateAuthority {
    /// Issues one leaf. A refusal is written into the audit journal; nothing else remains of it.
    ///
    /// The permission is step 1.
    pub async fn issue(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
    ) -> Result<Issued, Error> {
        let outcome = self.issue_unaudited(permission, request).await;
        if let Err(error) = &outcome
            && error.is_refusal()
        {
            let subject = &request.registration_id;
            self.record_refusal(permission.caller(), subject, &request.profile, error)
                .await;
        }
        outcome
    }

    /// The same, but leaves it to the caller to write down a refusal.
    pub async fn issue_unaudited(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
    ) -> Result<Issued, Error> {
        crash_point("cycle-1");
        self.issue_once(permission, request).await
    }

    async fn issue_once(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
    ) -> Result<Issued, Error> {
        // 2. The request is within its limits. (Its size was bounded before it was read.)
        let idempotency = idempotency(request)?;
        crash_point("cycle-2");

        // 3. The same key and the same request: the same answer. Another request: a conflict. The
        //    store looks at step 7, in the transaction that would record a new one; for what is
        //    refused before it comes there, we look here.
        let caller = permission.caller().to_string();
        crash_point("cycle-3");
        let serving = self.serving_for(&request.profile);
        let issued = self
            .issue_leaf(permission, request, &caller, idempotency.clone())
            .await;
        let issued = match issued {
            Err(error) if self.is_replaced(serving, &error, &request.profile)? => {
                self.reload_hierarchy()?;
                self.issue_leaf(permission, request, &caller, idempotency.clone())
                    .await
            }
            issued => issued,
        };
        match issued {
            // Also while no token can sign: an answer that was given once needs none.
            Err(refused) => {
                let again = self.answer_again(&caller, idempotency.as_ref()).await;
                match again {
                    Ok(again) => again.ok_or(refused),
                    Err(_) if !refused.is_refusal() => Err(refused),
                    Err(error) => Err(error),
                }
            }
            issued => issued,
        }
    }

    /// Returns the serving generation of the profile's authority.
    pub(crate) fn serving_for(&self, profile: &str) -> Option<i64> {
        let authority = &self.profile(profile).ok()?.authority;
        Some(self.hierarchy().serving(authority)?.id)
    }

    /// Whether it was refused because of its issuer, and another one serves than `before`: the store may
    /// have known of a cut-over that we had not read yet.
    fn is_replaced(
        &self,
        before: Option<i64>,
        refused: &Error,
        profile: &str,
    ) -> Result<bool, Error> {
        if refused.code != Code::IssuerReplaced && refused.code != Code::IssuerRevoked {
            return Ok(false);
        }
        let authority = &self.profile(profile)?.authority;
        Ok(self.store.serving_generation(authority)? != before)
    }

    async fn issue_leaf(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
        caller: &str,
        idempotency: Option<Idempotency>,
    ) -> Result<Issued, Error> {
        // 4. The CSR: proof of possession, key policy, canonical DER.
        let csr = Csr::parse(&request.csr).map_err(|r| Error::mend(r.code(), r.to_string()))?;
        crash_point("cycle-4");

        // 5. Profile, name and signing generation. The common name is ours to set.
        let profile = self.profile(&request.profile)?;
        let name = common_name(profile, &request.registration_id)?;
        let renews_itself = permission.renews_itself(profile, &name);
        let moves = if renews_itself {
            Moves::Never
        } else {
            permission.covers(&self.stations, profile, &name, request.moves)?
        };
        agrees_with(&csr, &name)?;
        let renews = renews_itself
            .then(|| self.check_renewal(permission.caller(), profile, &request.csr, &csr))
            .transpose()?;
        let generation = self.signing_generation(&profile.authority).await?;
        self.signs_leaves(&generation)?;
        crash_point("cycle-5");

        let on_issued = match profile.role {
            Role::Device => OnIssued::Device {
                registration_id: name.clone(),
                profile: profile.name.clone(),
            },
            _ => OnIssued::Alone,
        };
        let order = Order {
            source: match permission.caller() {
                Caller::Daemon => Source::Listener,
                _ => Source::Caller,
            },
            signer: Signer::from(generation.as_ref()),
            purpose: Purpose::Leaf,
            profile_name: &profile.name,
            profile: &profile.certificate,
            subject: profile
                .certificate
                .subject
                .with_common_name(&name)
                .map_err(|error| Error::mend(Code::NameInvalid, error.to_string()))?,
            subject_alternative_names: csr.subject_alternative_names(),
            public_key: csr.public_key(),
            shared_key: profile.shared_keys,
            role: Some(profile.role),
            caller: caller.to_owned(),
            requester: permission.caller().requester(),
            idempotency,
            moves,
            renews,
            on_issued,
        };
        self.certify(order).await
    }

    /// Steps 6 to 10: the only code that has a token sign a certificate, of whatever kind.
    pub(super) async fn certify(&self, order: Order<'_>) -> Result<Issued, Error> {
        refuse_shape(order.purpose, order.profile)?;
        let now = self.signing_time()?;
        // Nothing is recorded for a signature that its token cannot make now.
        let token = self.ready_token(&order.signer).await?;

        // 6. The bytes to be signed, with a serial number of our own, and linted by code that the
        //    builder does not share.
        let serial = SerialNumber::from_random(now, random::<RANDOM_OCTETS>()?);
        let common_name = order.subject.common_name().to_owned();
        let request = tbs::Request {
            profile: order.profile,
            subject: &order.subject,
            public_key: order.public_key,
            subject_alternative_names: order.subject_alternative_names,
            serial: &serial,
            now,
        };
        let built = tbs::build(order.signer.issuer, &request)
            .map_err(|refusal| Error::mend(refusal.code(), refusal.to_string()))?;
        let expected = Expectation {
            issuer: match order.signer.certificate {
                Some(certificate) => ExpectedIssuer::Certificate(certificate),
                None => ExpectedIssuer::SelfSigned,
            },
            distribution: order.signer.distribution,
            profile: order.profile,
            common_name: &common_name,
            subject: &order.subject,
            public_key: order.public_key,
            subject_alternative_names: order.subject_alternative_names,
            serial: &serial,
            now,
        };
        let linted = lint::lint(built, &expected)
            .map_err(|findings| Error::stop(Code::LintFailed, findings.to_string()))?;
        crash_point("cycle-6");

        // 7. On record, durable. Only what comes back can be signed.
        self.may_have_signed(order.source)?;
        let (not_before, not_after) = linted.validity();
        let idempotency = order.idempotency.clone();
        let recorded = self.store.record_intent(Intent {
            serial: serial.as_bytes().to_vec(),
            issuer: order.signer.generation,
            purpose: order.purpose,
            profile: order.profile_name.to_owned(),
            subject: common_name.clone(),
            tbs: linted.bytes().to_vec(),
            not_before,
            not_after,
            role: order.role,
            caller: order.caller.clone(),
            requester: order.requester,
            idempotency: order.idempotency,
            public_key: order.public_key.spki_der().to_vec(),
            shared_key: order.shared_key,
            is_device: matches!(order.on_issued, OnIssued::Device { .. }),
            moves: order.moves,
            at: now,
        });
        let recorded = match (recorded.await, idempotency) {
            (Err(IntentRefusal::Repeated(prior)), Some(it)) => return self.repeat(prior, &it),
            (recorded, _) => recorded?,
        };
        crash_point("cycle-7");

        // 8. and 9. Signed within a deadline; verified; the same bytes.
        let signed = self.sign(order.signer, token, &recorded).await;
        self.note_signature(order.source, signed.is_ok());
        let certificate = match signed {
            Ok(certificate) => certificate,
            Err(unsigned) => {
                self.end_intent(&recorded, &unsigned.error.message, unsigned.may_be_done)
                    .await;
                return Err(unsigned.error);
            }
        };

        // 10. Certificate, audit entry, device, slots and dirty mark: one transaction.
        let entry = AuditEntry {
            at: now,
            actor: order.caller,
            action: "certificate.issued",
            subject: common_name.clone(),
            detail: json!({
                "serial": serial.to_string(),
                "profile": order.profile_name,
                "role": order.role,
                "sha256": hex::encode(certificate.sha256()),
                "renews": order.renews,
            }),
        };
        let settled = self
            .store
            .record_certificate(&recorded, certificate.der(), order.on_issued, entry)
            .await;
        let settled = match settled {
            Ok(settled) => settled,
            Err(error) => {
                self.note_signature(order.source, false);
                self.end_intent(&recorded, &error.to_string(), true).await;
                return Err(match error {
                    // The state moved while the token signed; the caller's repeat meets the new one.
                    StoreError::Conflict(_) | StoreError::Violates(_) => {
                        Error::later(1, Code::NotRecorded, error.to_string())
                    }
                    other => other.into(),
                });
            }
        };
        crash_point("cycle-10");

        if !settled.provisioning.is_empty() {
            self.wake();
        }
        Ok(Issued {
            subject: common_name,
            profile: order.profile_name.to_owned(),
            chain: self.chain_of(order.signer.generation),
            certificate,
            pending: settled.provisioning,
        })
    }

    async fn sign(
        &self,
        signer: Signer<'_>,
        token: &ConfiguredToken,
        recorded: &Recorded,
    ) -> Result<Certificate, Unsigned> {
        // 8. The token signs, with a deadline.
        let algorithm = signer.issuer.signature_algorithm();
        let signature = token
            .client
            .sign_recorded(signer.key, algorithm, recorded, token.sign_deadline)
            .await?;
        crash_point("cycle-8");

        // 9. The signature is the authority's, and over the recorded bytes.
        let withheld = |reason: String| {
            token.client.doubt(signer.key);
            let token = token.client.name();
            let message = format!("token {token}: {reason}; the certificate is withheld");
            Error::stop(Code::SignatureWrong, message)
        };
        let certificate = certificate::assemble(recorded.tbs(), algorithm, &signature)
            .map_err(|error| withheld(error.to_string()))?;
        if certificate.tbs_bytes() != recorded.tbs() {
            return Err(withheld("the signed bytes are not the recorded ones".into()).into());
        }
        certificate
            .verify_issued_by(signer.issuer.public_key())
            .map_err(|error| withheld(format!("the authority's key did not sign this: {error}")))?;
        token.client.confirm(signer.key);
        crash_point("cycle-9");
        Ok(certificate)
    }

    /// Ends an intent without a certificate: abandoned if the token may have signed it, so that its
    /// serial number is on the revocation list; withdrawn if it was sent to no worker.
    async fn end_intent(&self, recorded: &Recorded, reason: &str, may_be_done: bool) {
        let unsettled = Unsettled {
            intent: recorded.id(),
            reason: reason.to_owned(),
            may_be_done,
        };
        if let Err(error) = self.record_end(&unsettled).await {
            let intent = unsettled.intent;
            tracing::error!(intent, %error, "the end of an intent cannot be recorded yet");
            lock(&self.lasting.unsettled).push(unsettled);
        }
        // The list has to name it. Whatever failed is tried again in its own time.
        (self.wake_lists)();
    }

    async fn record_end(&self, unsettled: &Unsettled) -> Result<(), StoreError> {
        let (intent, reason) = (unsettled.intent, unsettled.reason.clone());
        if unsettled.may_be_done {
            self.store.abandon_intent(intent, reason, self.now()).await
        } else {
            self.store.withdraw_intent(intent, reason, self.now()).await
        }
    }

    /// Makes up for what could not be written down when it happened: on a full disk, say. Until
    /// then the intent is open, and its device gets nothing.
    pub fn end_left_over_intents(&self) -> Result<(), Error> {
        let mut unsettled = lock(&self.lasting.unsettled);
        while let Some(next) = unsettled.last() {
            pollster::block_on(self.record_end(next))?;
            unsettled.pop();
        }
        Ok(())
    }

    async fn answer_again(
        &self,
        caller: &str,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<Issued>, Error> {
        let Some(idempotency) = idempotency else {
            return Ok(None);
        };
        let prior = self.store.prior_request(caller, &idempotency.key).await?;
        prior
            .map(|prior| self.repeat(prior, idempotency))
            .transpose()
    }

    /// The answer to a request whose idempotency key was used before.
    fn repeat(&self, prior: PriorRequest, request: &Idempotency) -> Result<Issued, Error> {
        let PriorRequest::Issued(certificate) = prior else {
            return Err(Error::later(
                1,
                Code::RequestUnderWay,
                "a request with this idempotency key is being worked on; repeat it",
            ));
        };
        if certificate.request_sha256.as_deref() != Some(&request.request_sha256[..]) {
            return Err(Error::conflict(
                Code::IdempotencyKeyReused,
                "this idempotency key belongs to another request; take a new one",
            ));
        }
        if certificate.revoked_at.is_some() {
            return Err(Error::conflict(
                Code::CertificateRevoked,
                "this request was answered with a certificate that is revoked by now; take a new \
                 idempotency key",
            ));
        }
        let parsed = Certificate::parse(&certificate.der)
            .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))?;
        Ok(Issued {
            subject: certificate.subject,
            profile: certificate.profile,
            chain: self.chain_of(certificate.issuer),
            certificate: parsed,
            pending: Vec::new(),
        })
    }

    fn chain_of(&self, generation: i64) -> Vec<Arc<ChainLink>> {
        let hierarchy = self.hierarchy();
        let chain = hierarchy.chain(generation, &self.verified);
        chain.into_iter().cloned().collect()
    }
}

fn idempotency(request: &IssueRequest) -> Result<Option<Idempotency>, Error> {
    let Some(key) = &request.idempotency_key else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let message =
            format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes; send a UUID");
        return Err(Error::mend(Code::IdempotencyKeyInvalid, message));
    }
    let fields = [
        request.profile.as_bytes(),
        request.registration_id.as_bytes(),
        &request.csr,
    ];
    Ok(Some(Idempotency {
        key: key.clone(),
        request_sha256: request_digest(fields),
    }))
}

/// SHA-256 of what a request says, so that no two requests have the same.
pub(super) fn request_digest(fields: [&[u8]; 3]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    sha256
}

/// The common name: a registration id for a device, a plain name for everybody else.
fn common_name(profile: &IssuanceProfile, asked: &str) -> Result<String, Error> {
    canary::refuse_reserved(asked)?;
    RegistrationId::parse(asked)
        .map(|id| id.as_str().to_owned())
        .map_err(|error| match profile.role {
            Role::Device => Error::mend(error.code(), error.to_string()),
            _ => Error::mend(Code::NameInvalid, error.to_string()),
        })
}

/// A CSR may leave the name to us, or name exactly what is asked for.
fn agrees_with(csr: &Csr, name: &str) -> Result<(), Error> {
    match csr.common_name() {
        Some(other) if other != name => Err(Error::mend(
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
