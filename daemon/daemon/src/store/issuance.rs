//! Records intents and certificates: steps 7 and 10 of the issuance cycle (docs/issuance-cycle.md).

use super::audit::{self, AuditEntry};
use super::certificate::{Signature, by_intent};
use super::certified_key::{self, KeyRefusal};
use super::client;
use super::constraint::Constraint;
use super::digest::sha256;
use super::engine::dialect::without_statement_journal;
use super::engine::{Tx, params};
use super::intent::{Idempotency, Intent, IntentError, PriorRequest, Purpose, Recorded};
use super::{
    Store, StoreError, cross_certificate, generation, grant, leaf, new_enrollment, possession,
    readings, responder,
};
use crate::der_bytes::Der;
use crate::enrollment::role::Role;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{CaCertificateId, GenerationId, IntentId};
use std::sync::atomic::Ordering;

/// Effects to record with a certificate.
#[derive(Clone, Debug)]
pub enum OnIssued {
    Alone,
    /// The leaf becomes the device's current one, and its individual enrollments take it into a
    /// slot.
    Device {
        registration_id: String,
        /// The profile it was issued by.
        profile: String,
    },
    /// The same, and the device gets an individual enrollment at this provisioning service.
    EnrolledDevice {
        registration_id: String,
        /// The profile it was issued by.
        profile: String,
        provisioning: String,
    },
    /// The generation has its certificate: it serves or is staged.
    Authority {
        /// The generation's row id.
        generation: GenerationId,
    },
    /// The responder of this generation has its next certificate.
    Responder {
        /// The generation's row id.
        generation: GenerationId,
    },
    /// It certifies the key of this generation of a root.
    Cross {
        /// The generation's row id.
        generation: GenerationId,
    },
    /// The possession of this CA certificate can be proven to the provisioning service.
    Possession {
        /// The CA certificate's row id.
        ca_certificate: CaCertificateId,
    },
}

/// Effects of a recorded certificate.
#[derive(Clone, Debug, Default)]
pub struct IssuedEffects {
    /// Provisioning services whose enrollment took the leaf into a slot.
    pub provisioning: Vec<String>,
}

impl Store {
    /// Returns what became of the request with this idempotency key. Asks the writer, so that
    /// an operation that is queued is seen.
    pub async fn prior_request(
        &self,
        caller: &str,
        idempotency_key: &str,
    ) -> Result<Option<PriorRequest>, StoreError> {
        let caller = caller.to_owned();
        let key = idempotency_key.to_owned();
        let found = self.writer.run(move |tx| prior_request(tx, &caller, &key));
        found.await
    }

    /// Returns what became of the request with this idempotency key, as far as it is committed.
    pub fn answered_request(
        &self,
        caller: &str,
        idempotency_key: &str,
    ) -> Result<Option<PriorRequest>, StoreError> {
        self.read(|tx| prior_request(tx, caller, idempotency_key))
    }

    /// Step 7: records durably what is going to be signed, unless the request is a repeat. A
    /// token signs nothing but the returned value.
    pub async fn record_intent(&self, intent: Intent) -> Result<Recorded, IntentError> {
        let tbs = intent.tbs.clone();
        let requester = intent.requester;
        let grant = intent.grant.clone();
        let revocations = self.revocations_counter();
        let recorded = self.writer.run(move |tx| {
            // Step 1 has judged the caller outside of this transaction, maybe seconds ago.
            if let Some(requester) = &intent.requester
                && client::is_excluded(tx, requester, revocations.load(Ordering::Acquire))?
            {
                return Ok(Err(IntentError::RequesterRevoked));
            }
            match insert_intent(tx, &intent) {
                // SQLite may have rolled back by itself, and then the rest of the group with it.
                Err(IntentError::Store(error)) => Err(error),
                // A refused request has written nothing, so the group need not be rolled back.
                outcome => Ok(outcome),
            }
        });
        Ok(Recorded::of_intent(recorded.await??, tbs, requester, grant))
    }

    /// Step 10: records the certificate, its effects and the audit entry in one transaction. Fails
    /// with [`StoreError::RequesterRevoked`] if the caller's client certificate was revoked after
    /// the caller was authorized, and with [`StoreError::GrantEnded`] if its grant has ended since.
    pub async fn record_certificate(
        &self,
        recorded: &Recorded,
        der: Der,
        on_issued: OnIssued,
        entry: AuditEntry,
    ) -> Result<IssuedEffects, StoreError> {
        let intent = recorded.id();
        let requester = recorded.requester();
        let grant = recorded.grant();
        let signature = Signature::of(&der, recorded.tbs())?;
        let revocations = self.revocations_counter();
        let effects = self.writer.run(move |tx| {
            // Once more: the token may have signed for a minute since step 7.
            if let Some(requester) = &requester
                && client::is_excluded(tx, requester, revocations.load(Ordering::Acquire))?
            {
                return Err(StoreError::RequesterRevoked);
            }
            if let Some(grant) = &grant {
                grant::still_admits(tx, grant, intent)?;
            }
            // Refused by a trigger, `certificate_has_an_open_intent`, if an exclusion has abandoned
            // the intent since step 7.
            signature.record(tx, intent, entry.at)?;
            let presented = requester.map(|it| Thumbprint::from_bytes(it.sha256));
            let issued = (intent, &signature.sha256, presented);
            let effects = apply_effects(tx, issued, &on_issued, &entry)?;
            audit::append(tx, &entry)?;
            Ok(effects)
        });
        effects.await
    }
}

fn insert_intent(tx: &Tx<'_>, intent: &Intent) -> Result<IntentId, IntentError> {
    // One thread writes: of two requests with one key the second sees the row of the first, even
    // before that is committed.
    let idempotency = intent.idempotency.as_ref();
    if let Some(Idempotency { key, .. }) = idempotency
        && let Some(prior) = prior_request(tx, &intent.caller, key)?
    {
        return Err(IntentError::Repeated(prior));
    }
    if matches!(intent.purpose, Purpose::Leaf | Purpose::Subordinate) {
        let issuer = readings::issuer(tx, intent.issuer)?;
        // A canary is signed by a staged generation, and is no device on record.
        if intent.is_device && !issuer.serves {
            return Err(IntentError::IssuerReplaced);
        }
        // A trigger refuses a revoked issuer, and this the leaves below a revoked generation.
        if issuer.is_revoked {
            return Err(IntentError::IssuerRevoked);
        }
    }
    if intent.purpose == Purpose::Cross && cross_certificate::is_excluded(tx, &intent.public_key)? {
        return Err(IntentError::IssuerRevoked);
    }
    if let Some(reason) = key_refusal(tx, intent)? {
        return Err(IntentError::Key(reason));
    }
    if intent.is_device {
        leaf::check(tx, intent)?;
    }
    if let Some(grant) = &intent.grant {
        grant::admit(tx, grant, &intent.subject)?;
    }
    let inserted = tx.insert_apart(
        concat!(
            "INSERT ",
            without_statement_journal!(),
            " INTO intent (serial, issuer, purpose, profile, subject, key_sha256, tbs,
                 not_before, not_after, caller, idempotency_key, request_sha256, recorded_at, role)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             RETURNING id"
        ),
        params![
            intent.serial,
            intent.issuer,
            intent.purpose.name(),
            intent.profile,
            intent.subject,
            sha256(&intent.public_key),
            intent.tbs,
            intent.not_before,
            intent.not_after,
            intent.caller,
            idempotency.map(|idempotency| &idempotency.key),
            idempotency.map(|idempotency| &idempotency.request_sha256),
            intent.at,
            intent.role.map(Role::name),
        ],
    );
    let id = inserted.map_err(|error| refusal_of(error, &intent.subject))?;
    if let Some(grant) = &intent.grant {
        grant::record_use(tx, grant, id)?;
    }
    Ok(id)
}

/// Step 7: returns why the intent's key gets no certificate.
fn key_refusal(tx: &Tx<'_>, intent: &Intent) -> Result<Option<KeyRefusal>, StoreError> {
    let key = &intent.public_key;
    match intent.purpose {
        Purpose::Leaf => certified_key::of_leaf(tx, key, &intent.subject, intent.shared_key),
        Purpose::Subordinate => certified_key::of_subordinate(tx, key, &intent.subject),
        Purpose::Authority | Purpose::Cross => certified_key::of_authority(tx, key),
        // It is for an authority's own key.
        Purpose::Possession => Ok(None),
    }
}

fn refusal_of(error: StoreError, subject: &str) -> IntentError {
    match error {
        StoreError::Violates(Constraint::IntentSerial) => IntentError::SerialExists,
        StoreError::Violates(Constraint::IntentUnderWay | Constraint::IntentPossession) => {
            IntentError::UnderWay(subject.to_owned())
        }
        StoreError::Violates(Constraint::IntentIssuerRevoked) => IntentError::IssuerRevoked,
        other => other.into(),
    }
}

fn apply_effects(
    tx: &Tx<'_>,
    (intent, sha256, presented): (IntentId, &[u8; 32], Option<Thumbprint>),
    on_issued: &OnIssued,
    entry: &AuditEntry,
) -> Result<IssuedEffects, StoreError> {
    match on_issued {
        OnIssued::Alone => Ok(IssuedEffects::default()),
        OnIssued::Device {
            registration_id,
            profile,
        } => {
            leaf::record(tx, registration_id, profile, intent, entry)?;
            let provisioning = leaf::place(tx, registration_id, sha256, presented, entry)?;
            Ok(IssuedEffects { provisioning })
        }
        OnIssued::EnrolledDevice {
            registration_id,
            profile,
            provisioning: service,
        } => {
            leaf::record(tx, registration_id, profile, intent, entry)?;
            let mut provisioning = leaf::place(tx, registration_id, sha256, presented, entry)?;
            if new_enrollment::enroll(tx, service, registration_id, entry)? {
                provisioning.push(service.clone());
            }
            Ok(IssuedEffects { provisioning })
        }
        OnIssued::Authority { generation } => {
            generation::certify(tx, *generation, intent)?;
            Ok(IssuedEffects::default())
        }
        OnIssued::Responder { generation } => {
            responder::certify(tx, *generation, intent)?;
            Ok(IssuedEffects::default())
        }
        OnIssued::Cross { generation } => {
            cross_certificate::record(tx, intent, *generation)?;
            Ok(IssuedEffects::default())
        }
        OnIssued::Possession { ca_certificate } => {
            possession::prove(tx, *ca_certificate, entry.at)?;
            Ok(IssuedEffects::default())
        }
    }
}

/// The intent of the request `?2` of caller `?1`.
pub(super) const BY_REQUEST: &str =
    "SELECT id FROM intent WHERE caller = ?1 AND idempotency_key = ?2";

fn prior_request(
    tx: &Tx<'_>,
    caller: &str,
    idempotency_key: &str,
) -> Result<Option<PriorRequest>, StoreError> {
    let found: Option<IntentId> =
        tx.query_optional(BY_REQUEST, params![caller, idempotency_key], |row| {
            row.get(0)
        })?;
    let Some(intent) = found else {
        return Ok(None);
    };
    Ok(Some(match by_intent(tx, intent)? {
        Some(row) => PriorRequest::Issued(Box::new(row)),
        None => PriorRequest::UnderWay,
    }))
}
