//! Keeps a responder for each generation: a key on the generation's token, and a certificate by the
//! generation that is renewed at half of its validity (RFC 6960 4.2.2.2).

use super::OcspPolicy;
use crate::ca::alarm::{Alarm, AlarmCode};
use crate::ca::authorize::Caller;
use crate::ca::failures::{Failures, SHORT_PAUSE_SECONDS};
use crate::ca::hierarchy::Generation;
use crate::ca::issuer::generation::new_key_id;
use crate::ca::issuer::pace::Source;
use crate::ca::roll::successor::makes;
use crate::ca::signing_request::{LeafHolder, Signer, SigningRequest};
use crate::ca::{Code, Error, Issuer, lock};
use crate::ids::GenerationId;
use crate::store::{OnIssued, PlannedResponder, Purpose, ResponderRow};
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::{KeyReference, KeySpecification};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::issuer::Distribution;
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::name::DistinguishedName;
use crate::x509::ocsp::{CertificateStatus, key_label};
use crate::x509::profile::{Preset, Profile};
use arc_swap::ArcSwap;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// A generation that ends sooner gets no responder's certificate any more, in seconds.
const VALIDITY_SECONDS_MIN: i64 = 60;
/// The name in place of a profile's in intents and lists.
const PROFILE: &str = "ocsp-responder";
/// Longest part of a generation's name in a common name, which has 64 characters.
const NAME_CHARACTERS: usize = 48;

/// A responder that can sign.
pub(super) struct Responder {
    pub(super) token: String,
    pub(super) key: KeyReference,
    pub(super) public_key: PublicKey,
    pub(super) certificate: Certificate,
}

/// The responders by their generation, and why some have no next certificate.
#[derive(Default)]
pub(super) struct Responders {
    present: ArcSwap<BTreeMap<GenerationId, Arc<Responder>>>,
    failures: Failures<GenerationId>,
    /// One thread at a time makes keys and certificates.
    updating: Mutex<()>,
}

impl Responders {
    /// Returns the responder of a generation, if its certificate is valid.
    pub(super) fn of(&self, generation: GenerationId, now: UnixSeconds) -> Option<Arc<Responder>> {
        let found = self.present.load().get(&generation).cloned();
        found.filter(|it| now < it.certificate.not_after())
    }

    pub(super) fn end_of(&self, generation: GenerationId) -> Option<UnixSeconds> {
        let present = self.present.load();
        present
            .get(&generation)
            .map(|it| it.certificate.not_after())
    }

    pub(super) fn problem_of(&self, generation: GenerationId) -> Option<String> {
        self.failures.reason(generation)
    }

    pub(super) fn alarm_of(&self, generation: &Generation, now: UnixSeconds) -> Option<Alarm> {
        let reason = self.problem_of(generation.id)?;
        let name = generation.name();
        let not_after = self.end_of(generation.id);
        let certificate = match not_after {
            None => "has no certificate, and gives no answers".to_owned(),
            Some(end) if end <= now => format!("has a certificate that ended at {end}"),
            Some(end) => format!("has a certificate that ends at {end}"),
        };
        let text = format!(
            "the OCSP responder of {name} {certificate}, and a new one cannot be made: {reason}"
        );
        let parameters = json!({
            "authority": generation.authority,
            "generation": generation.number,
            "not_after": not_after.map(|it| it.to_string()),
            "reason": reason,
        });
        let code = AlarmCode::OcspResponderNotRenewed;
        Some(Alarm::new(code, parameters, text))
    }

    /// Makes what is due. Returns when the next one is due, in Unix seconds.
    pub(super) fn update(
        &self,
        issuer: &Issuer,
        generations: &[Arc<Generation>],
        policy: &OcspPolicy,
    ) -> Result<Option<UnixSeconds>, Error> {
        let _alone = lock(&self.updating);
        if generations.is_empty() {
            self.present.store(Arc::default());
            self.failures.keep_only(|_| false);
            return Ok(None);
        }
        let rows = issuer.store().responders()?;
        let mut present = BTreeMap::new();
        let mut next = None::<UnixSeconds>;
        for generation in generations {
            let row = rows.iter().find(|it| it.generation == generation.id);
            let making = Making {
                issuer,
                generation,
                policy,
            };
            let (responder, due) = self.update_one(&making, row.cloned());
            next = Some(next.map_or(due, |it| it.min(due)));
            present.extend(responder.map(|it| (generation.id, it)));
        }
        let known: BTreeSet<_> = generations.iter().map(|it| it.id).collect();
        self.failures.keep_only(|id| known.contains(&id));
        self.present.store(Arc::new(present));
        Ok(next)
    }

    /// Returns the responder as it is now, and when it is due again.
    fn update_one(
        &self,
        making: &Making<'_>,
        row: Option<ResponderRow>,
    ) -> (Option<Arc<Responder>>, UnixSeconds) {
        let now = making.issuer.now();
        let id = making.generation.id;
        let before = match row.as_ref().map(|it| making.read(it)).transpose() {
            Ok(before) => before.flatten().map(Arc::new),
            Err(error) => {
                let last = self.present.load().get(&id).cloned();
                return (last, self.failed(making.generation, now, &error));
            }
        };
        if let Some(responder) = before.as_ref()
            && let renewal = renewal_of(&responder.certificate)
            && now < renewal
        {
            self.failures.ended(id);
            return (before, renewal);
        }
        if let Some(retry_at) = self.failures.pause(id, now) {
            return (before, retry_at);
        }
        match making.make(row) {
            Ok(Some(responder)) => {
                self.failures.ended(id);
                let renewal = renewal_of(&responder.certificate);
                let responder = Some(Arc::new(responder));
                (responder, renewal.max(now + SHORT_PAUSE_SECONDS))
            }
            // The generation ends too soon: its last certificate serves to its end.
            Ok(None) => (before, making.generation.certificate.not_after()),
            Err(error) => (before, self.failed(making.generation, now, &error)),
        }
    }

    /// Counts a failure, and returns when the next attempt is due.
    fn failed(&self, generation: &Generation, now: UnixSeconds, error: &Error) -> UnixSeconds {
        let counted = self.failures.failed(generation.id, error, now);
        if counted.is_new {
            let generation = generation.name();
            tracing::warn!(generation, code = error.code.name(), %error,
                "certificate of the OCSP responder not made, retrying");
        }
        counted.retry_at
    }
}

/// When a certificate is renewed.
fn renewal_of(certificate: &Certificate) -> UnixSeconds {
    let validity = certificate.not_after() - certificate.not_before();
    certificate.not_before() + validity / 2
}

/// The work for one generation.
struct Making<'a> {
    issuer: &'a Issuer,
    generation: &'a Generation,
    policy: &'a OcspPolicy,
}

impl Making<'_> {
    /// Reads a responder that is complete and not revoked. An unreadable database is an error: a
    /// revoked certificate costs the responder its key.
    fn read(&self, row: &ResponderRow) -> Result<Option<Responder>, Error> {
        let Some(responder) = self.complete(row) else {
            return Ok(None);
        };
        let is_revoked = self.is_revoked(&responder.certificate)?;
        Ok((!is_revoked).then_some(responder))
    }

    /// Its certificate must be by the generation and for the key on record: a row alone makes no
    /// responder.
    fn complete(&self, row: &ResponderRow) -> Option<Responder> {
        let key = KeyReference {
            spki: row.spki.clone()?,
            label: row.key_label.clone(),
            id: row.key_id.clone(),
            wrapped: row.key_wrapped.clone(),
        };
        let certificate = Certificate::parse(row.certificate.as_ref()?).ok()?;
        certificate
            .verify_issued_by(&self.generation.public_key)
            .ok()?;
        let public_key = certificate.public_key().ok()?;
        (*public_key.spki_der() == key.spki).then(|| Responder {
            token: row.token.clone(),
            key,
            public_key,
            certificate,
        })
    }

    fn is_revoked(&self, certificate: &Certificate) -> Result<bool, Error> {
        let store = self.issuer.store();
        let serial = certificate.serial().as_bytes();
        let status = store.certificate_status(self.generation.id, serial)?;
        Ok(status != CertificateStatus::Good)
    }

    /// Makes the next certificate, and the key before the first one. `None` if the generation ends
    /// too soon.
    fn make(&self, row: Option<ResponderRow>) -> Result<Option<Responder>, Error> {
        let now = self.issuer.signing_time()?;
        let left = self.generation.certificate.not_after() - now;
        if left < VALIDITY_SECONDS_MIN {
            return Ok(None);
        }
        let row = self.keyed(row)?;
        let spki = row.spki.as_ref().ok_or_else(|| without("key"))?;
        let public_key = PublicKey::from_spki_der(spki)
            .map_err(|error| Error::stop(Code::TokenKey, error.to_string()))?;
        let validity = self.policy.certificate_seconds.min(left.unsigned_abs());
        let certificate = self.certify(&public_key, validity)?;
        let row = ResponderRow {
            certificate: Some(certificate.der().clone()),
            ..row
        };
        let made = self.read(&row)?.ok_or_else(|| without("certificate"))?;
        let generation = self.generation.name();
        tracing::info!(generation, not_after = %made.certificate.not_after(),
            "certificate of the OCSP responder made");
        Ok(Some(made))
    }

    /// Returns the row with a key; a new one after its certificate was revoked.
    fn keyed(&self, row: Option<ResponderRow>) -> Result<ResponderRow, Error> {
        let store = self.issuer.store();
        let row = match row {
            Some(row) if row.spki.is_some() => {
                let last = row
                    .certificate
                    .as_ref()
                    .and_then(|it| Certificate::parse(it).ok());
                let is_revoked = last.map_or(Ok(false), |it| self.is_revoked(&it))?;
                if !is_revoked {
                    return Ok(row);
                }
                store.replace_responder_key(self.generation.id, new_key_id()?)?
            }
            _ => {
                let token = &self.generation.token;
                store.plan_responder(PlannedResponder {
                    generation: self.generation.id,
                    token: token.clone(),
                    key_type: self.key_type(token)?,
                    key_label: key_label(&self.generation.name()),
                    key_id: new_key_id()?,
                })?
            }
        };
        let source = Source::ResponderKey(self.generation.id);
        self.issuer.may_have_signed(source)?;
        let specification = KeySpecification {
            key_type: row.key_type,
            label: row.key_label.clone(),
            id: row.key_id.clone(),
        };
        let key = self.issuer.make_proven_key(&row.token, &specification);
        self.issuer.note_signature(source, key.is_ok());
        let key = key?;
        Ok(store.record_responder_key(self.generation.id, key.spki, key.wrapped)?)
    }

    /// P-256, which every verifier knows and whose signatures are short; where the token does not
    /// make it, the type of the authority's key.
    fn key_type(&self, token: &str) -> Result<KeyType, Error> {
        let description = self.issuer.token(token)?.client.describe(LOOKUP_DEADLINE)?;
        if makes(&description, KeyType::P256) {
            return Ok(KeyType::P256);
        }
        Ok(self.generation.public_key.key_type())
    }

    fn certify(&self, public_key: &PublicKey, validity: u64) -> Result<Certificate, Error> {
        let generation = self.generation;
        // Its revocation is not checked, so it names neither list nor responder.
        let distribution = Distribution::default();
        let issuer = generation.issuer.clone().with_distribution(distribution);
        let signer = Signer {
            issuer: &issuer,
            distribution: None,
            ..Signer::from(generation)
        };
        let profile = Profile {
            validity_seconds: validity,
            key_types: BTreeSet::from(KeyType::ALL),
            ..Preset::Ocsp.profile()
        };
        let issued = pollster::block_on(self.issuer.certify(SigningRequest {
            source: Source::Responder(generation.id),
            signer,
            purpose: Purpose::Leaf,
            profile_name: PROFILE,
            profile: &profile,
            subject: self.subject()?.into(),
            public_key,
            caller: Caller::Daemon.to_string(),
            holder: LeafHolder::none(),
            on_issued: OnIssued::Responder {
                generation: generation.id,
            },
        }))?;
        Ok(issued.certificate)
    }

    /// The attributes of the authority's own subject, which fit its name constraints, with a common
    /// name that no registration id can be: it has spaces.
    fn subject(&self) -> Result<DistinguishedName, Error> {
        let name: String = self
            .generation
            .name()
            .chars()
            .take(NAME_CHARACTERS)
            .collect();
        let common_name = format!("OCSP responder {name}");
        let own = DistinguishedName::from_der(self.generation.certificate.subject_der());
        let subject = match own {
            Ok(own) => own.attributes().with_common_name(&common_name),
            // An adopted authority may have a name that is written otherwise.
            Err(_) => DistinguishedName::from_common_name(&common_name),
        };
        subject.map_err(|error| Error::stop(Code::NameInvalid, error.to_string()))
    }
}

fn without(what: &str) -> Error {
    let message = format!("the OCSP responder has no {what} after all");
    Error::stop(Code::Internal, message)
}
