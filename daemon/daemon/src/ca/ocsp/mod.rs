//! Answers OCSP requests (RFC 6960) for the certificates of an authority.
//!
//! Each generation has a responder ([`responder`]): a key on the same token and a short certificate
//! by the generation. Answers say what is on record. They are signed when they are asked for and
//! kept in memory ([`answers`]). Strangers ask, so the signatures in a second are bounded, and
//! nothing is written for an answer.

mod answers;
mod responder;

use super::alarm::Alarm;
use super::crl::CrlPublisher;
use super::hierarchy::{Generation, Hierarchy};
use super::{Advice, Code, Error, Issuer, lock};
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::GenerationState;
use crate::unix_seconds::UnixSeconds;
use crate::x509::lint;
use crate::x509::ocsp::{
    AnswerContent, CertificateId, CertificateStatus, ErrorStatus, SignedAnswer, SingleAnswer,
    StatusRequest, answer,
};
use crate::x509::serial::SerialNumber;
pub use answers::KeptAnswer;
use answers::{Answers, Rate};
use responder::{Responder, Responders};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// How long an answer for an unknown serial number holds, in seconds: it may be issued at any
/// moment.
const UNKNOWN_SECONDS: i64 = 300;

/// The settings of `[ocsp]`.
#[derive(Clone, Debug, Default)]
pub struct OcspPolicy {
    /// The authorities whose certificates are answered for.
    pub authorities: BTreeSet<String>,
    /// From an answer until the one that must follow it, in seconds.
    pub validity_seconds: i64,
    /// The validity of a responder's certificate, in seconds.
    pub certificate_seconds: u64,
    /// Most signatures for answers in a second.
    pub signatures_per_second: usize,
}

/// Answers requests, and keeps the responders.
pub struct Ocsp {
    issuer: Arc<Issuer>,
    crls: Arc<CrlPublisher>,
    shared: Arc<OcspState>,
}

/// The responders and answers, which survive a reload.
#[derive(Default)]
pub(super) struct OcspState {
    responders: Responders,
    answers: Mutex<Answers>,
    rate: Mutex<Rate>,
}

/// A responder, for people.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OcspStatus {
    pub authority: String,
    pub generation: GenerationNumber,
    /// RFC 3339: the end of its certificate; `None` while it has none.
    pub certificate_not_after: Option<String>,
    /// The same in Unix seconds.
    #[serde(skip)]
    pub not_after_seconds: Option<UnixSeconds>,
    /// Why it has no newer certificate.
    pub problem: Option<String>,
}

impl Ocsp {
    pub(super) fn new(
        issuer: Arc<Issuer>,
        crls: Arc<CrlPublisher>,
        shared: Arc<OcspState>,
    ) -> Self {
        Self {
            issuer,
            crls,
            shared,
        }
    }

    /// Returns true if certificates of this authority are answered for.
    pub fn answers_for(&self, authority: &str) -> bool {
        self.policy().authorities.contains(authority)
    }

    /// Makes keys and certificates of responders whose time has come. Returns when the next one
    /// comes, in Unix seconds.
    pub fn update(&self) -> Result<Option<UnixSeconds>, Error> {
        let generations = self.generations();
        self.shared
            .responders
            .update(&self.issuer, &generations, self.policy())
    }

    /// Returns the answer to a request without a nonce, if it is kept and nothing was revoked since
    /// it was signed. Reads memory alone.
    pub fn kept(&self, authority: &str, request: &StatusRequest) -> Option<Arc<KeptAnswer>> {
        if request.nonce.is_some() {
            return None;
        }
        let kept = lock(&self.shared.answers).find(&request.certificates)?;
        let hierarchy = self.issuer.hierarchy();
        let issuer = hierarchy.generation(kept.issuer);
        let is_current = issuer.is_some_and(|it| it.authority == authority)
            && kept.is_fresh(self.issuer.now())
            && kept.is_read_at(self.issuer.store().revocations());
        is_current.then_some(kept)
    }

    /// Answers a request, or says why there is no answer.
    pub fn answer(
        &self,
        authority: &str,
        request: &StatusRequest,
    ) -> Result<Arc<KeptAnswer>, ErrorStatus> {
        let generation = self.issuer_of(authority, &request.certificates)?;
        let asked = self.answer_by(&generation, request);
        asked.map_err(|error| {
            let code = error.code.name();
            tracing::debug!(authority, code, %error, "no OCSP answer");
            match error.advice {
                Advice::Later { .. } => ErrorStatus::TryLater,
                _ => ErrorStatus::InternalError,
            }
        })
    }

    /// Returns the answer for a certificate of this generation, for TLS (RFC 6066 section 8).
    pub fn staple(
        &self,
        generation: GenerationId,
        serial: &SerialNumber,
    ) -> Option<Arc<KeptAnswer>> {
        let generations = self.generations();
        let generation = generations.iter().find(|it| it.id == generation)?;
        let certificate = CertificateId::new(&generation.issuer, serial).ok()?;
        let request = StatusRequest {
            certificates: vec![certificate],
            nonce: None,
        };
        let kept = self.kept(&generation.authority, &request);
        kept.or_else(|| self.answer(&generation.authority, &request).ok())
    }

    /// The responders, issuers first.
    pub fn statuses(&self) -> Vec<OcspStatus> {
        let generations = self.generations();
        let statuses = generations.iter().map(|it| {
            let not_after = self.shared.responders.end_of(it.id);
            OcspStatus {
                authority: it.authority.clone(),
                generation: it.number,
                certificate_not_after: not_after.map(|it| it.to_string()),
                not_after_seconds: not_after,
                problem: self.shared.responders.problem_of(it.id),
            }
        });
        statuses.collect()
    }

    /// The alarms for responders without a next certificate.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let generations = self.generations();
        let alarms = generations.iter();
        alarms
            .filter_map(|it| self.shared.responders.alarm_of(it, self.issuer.now()))
            .collect()
    }

    fn policy(&self) -> &OcspPolicy {
        self.issuer.ocsp_policy()
    }

    /// The generations that are answered for: those that serve or have served, until they end or
    /// are revoked.
    fn generations(&self) -> Vec<Arc<Generation>> {
        let hierarchy = self.issuer.hierarchy();
        let now = self.issuer.now();
        let answered = hierarchy
            .iter()
            .filter(|it| self.answers_for(&it.authority) && is_answered_for(&hierarchy, it, now));
        answered.cloned().collect()
    }

    /// Returns the generation that has given all of these serial numbers: its responder answers for
    /// no other issuer (RFC 6960 4.2.2.2).
    fn issuer_of(
        &self,
        authority: &str,
        certificates: &[CertificateId],
    ) -> Result<Arc<Generation>, ErrorStatus> {
        let generations = self.generations();
        let mut named = generations.into_iter().filter(|it| {
            it.authority == authority && certificates.iter().all(|one| one.names(&it.issuer))
        });
        named.next().ok_or(ErrorStatus::Unauthorized)
    }

    fn answer_by(
        &self,
        generation: &Generation,
        request: &StatusRequest,
    ) -> Result<Arc<KeptAnswer>, Error> {
        if self.crls.is_withheld(generation) {
            let message = format!(
                "the record of {} was restored from a backup and may lack newer revocations; its \
                 token has to sign the next revocation list first",
                generation.name()
            );
            return Err(Error::later(5, Code::CrlWithheld, message));
        }
        // Read first: a change counted after this makes the status be read again.
        let revocations = self.issuer.store().revocations();
        let serials = request.certificates.iter().map(CertificateId::serial);
        let statuses = serials.map(|it| self.status(generation, it));
        let statuses = statuses.collect::<Result<Vec<_>, _>>()?;
        let now = self.issuer.now();
        let kept = lock(&self.shared.answers).find(&request.certificates);
        let kept = kept.filter(|it| it.says(&statuses, now));
        if let Some(kept) = &kept {
            kept.read_at(revocations);
            if request.nonce.is_none() && kept.is_fresh(now) {
                return Ok(Arc::clone(kept));
            }
        }
        match self.sign(generation, request, &statuses) {
            Ok(signed) => {
                signed.read_at(revocations);
                let signed = Arc::new(signed);
                if signed.is_for_all {
                    lock(&self.shared.answers).keep(&request.certificates[0], &signed, now);
                }
                Ok(signed)
            }
            // RFC 6960 4.4.1: a responder may leave the nonce out.
            Err(error) => kept.ok_or(error),
        }
    }

    fn status(
        &self,
        generation: &Generation,
        serial: &SerialNumber,
    ) -> Result<CertificateStatus, Error> {
        if serial.check().is_err() {
            return Ok(CertificateStatus::Unknown);
        }
        let store = self.issuer.store();
        Ok(store.certificate_status(generation.id, serial.as_bytes())?)
    }

    fn sign(
        &self,
        generation: &Generation,
        request: &StatusRequest,
        statuses: &[CertificateStatus],
    ) -> Result<KeptAnswer, Error> {
        let now = self.issuer.signing_time()?;
        let responder = self.shared.responders.of(generation.id, now);
        let responder = responder.ok_or_else(|| {
            let name = generation.name();
            let message = format!("the OCSP responder of {name} has no certificate yet");
            Error::later(5, Code::AuthorityAbsent, message)
        })?;
        let most = self.policy().signatures_per_second;
        if !lock(&self.shared.rate).admits(most) {
            let message = format!(
                "{most} OCSP answers were signed in the last second, as many as [ocsp] \
                 signatures_per_second allows"
            );
            return Err(Error::later(1, Code::SigningPaused, message));
        }
        let mut validity = self.policy().validity_seconds;
        if statuses.contains(&CertificateStatus::Unknown) {
            validity = validity.min(UNKNOWN_SECONDS);
        }
        let singles = request.certificates.iter().zip(statuses);
        let singles = singles.map(|(certificate, status)| SingleAnswer {
            certificate,
            status: *status,
        });
        let content = AnswerContent {
            singles: &singles.collect::<Vec<_>>(),
            this_update: now,
            next_update: (now + validity).min(responder.certificate.not_after()),
            nonce: request.nonce.as_ref(),
        };
        let signed = self.signed(&responder, &content)?;
        Ok(KeptAnswer::new(generation.id, &signed, &content))
    }

    fn signed(
        &self,
        responder: &Responder,
        content: &AnswerContent<'_>,
    ) -> Result<SignedAnswer, Error> {
        let key = &responder.public_key;
        let built = answer::build(key, content)
            .map_err(|refusal| Error::stop(refusal.code(), refusal.to_string()))?;
        let linted = lint::ocsp::lint(built, key, content)
            .map_err(|findings| Error::stop(Code::LintFailed, findings.to_string()))?;
        let token = self.issuer.token(&responder.token)?;
        let deadline = token.sign_deadline;
        pollster::block_on(token.client.ready_to_sign(&responder.key, deadline))?;
        let algorithm = key.key_type().signature_algorithm();
        let signature = token
            .client
            .sign_answer(&responder.key, algorithm, &linted, deadline)?;
        let signed = SignedAnswer::assemble(&linted, algorithm, &signature, &responder.certificate);
        let signed = signed.map_err(|reason| {
            token.client.doubt(&responder.key);
            let name = token.client.name();
            let message = format!("token {name}: {reason}; the OCSP answer is withheld");
            Error::stop(Code::SignatureWrong, message)
        })?;
        token.client.confirm(&responder.key);
        Ok(signed)
    }
}

fn is_answered_for(hierarchy: &Hierarchy, generation: &Generation, now: UnixSeconds) -> bool {
    let has_served = matches!(
        generation.state,
        GenerationState::Serving | GenerationState::Retired
    );
    has_served
        && now < generation.certificate.not_after()
        && hierarchy.revoked_above(generation.id).is_none()
}
