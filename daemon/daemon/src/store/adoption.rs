//! Adopts generations whose key and certificate are older than this store.
//!
//! The certificate gets an intent of the purpose `adopted`, so that its bytes and its serial number
//! are in the same place as all others. No worker was asked to sign it. Adoption is one
//! transaction: a crash leaves all of it or nothing.

use super::audit::{self, AuditEntry};
use super::certificate::Signature;
use super::digest::sha256;
use super::engine::{Tx, params};
use super::generation::{
    PlannedGeneration, certify, insert_with_label, newest, record_chain, with_key,
};
use super::{Constraint, Store, StoreError, UnixSeconds, certified_key};
use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;
use crate::error_code::Code;
use crate::ids::{GenerationId, GenerationNumber, IntentId};
use crate::x509::certificate::Certificate;

/// A generation to adopt.
#[derive(Clone, Debug)]
pub struct AdoptedGeneration {
    /// Authority, parent, token and key.
    pub plan: PlannedGeneration,
    /// `CKA_LABEL` of the key.
    pub key_label: String,
    pub spki: Der,
    pub certificate: MadeElsewhere,
    /// The chain of a certificate whose issuer is elsewhere: PEM, the issuer's first.
    pub above: Option<String>,
    /// The number of the last revocation list that was published; 0 if there was none.
    pub crl_number: CrlNumber,
}

/// A certificate that was signed elsewhere.
#[derive(Clone, Debug)]
pub struct MadeElsewhere {
    pub der: Der,
    /// The signed bytes within it.
    pub tbs: Der,
    pub serial: Vec<u8>,
    pub public_key: Der,
    /// The common name, or the whole subject where it has none.
    pub subject: String,
    /// When its validity begins.
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
}

/// The issuer of a certificate that was signed elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) enum CertificateIssuer {
    /// A generation on record.
    Generation(GenerationId),
    /// An issuer without a generation here, or a root before it came here.
    Elsewhere { certified: GenerationId },
}

impl From<&Certificate> for MadeElsewhere {
    fn from(certificate: &Certificate) -> Self {
        Self {
            der: certificate.der().clone(),
            tbs: certificate.tbs_bytes().into(),
            serial: certificate.serial().as_bytes().to_vec(),
            public_key: certificate.spki_der().clone(),
            subject: certificate
                .common_name()
                .unwrap_or_else(|| certificate.subject()),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        }
    }
}

impl Store {
    /// Records the first generation of an authority with its certificate. It serves at once.
    pub fn adopt_generation(
        &self,
        adopted: AdoptedGeneration,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let authority = &adopted.plan.authority;
            if newest(tx, authority)?.is_some() {
                let message = format!(
                    "authority {authority} has a key already, or one is planned; adopt under \
                     another name"
                );
                return Err(StoreError::Conflict(message));
            }
            if let Some(reason) = certified_key::of_authority(tx, &adopted.spki)? {
                return Err(StoreError::Invalid {
                    code: reason.code(),
                    message: format!("authority {authority} is not adopted: {reason}"),
                });
            }
            refuse_known_key(tx, authority, &adopted.spki)?;
            let mut plan = adopted.plan.clone();
            if is_taken(tx, &plan)? {
                // The public key finds it, too.
                plan.key_id.clear();
            }
            let row = insert_with_label(tx, GenerationNumber::FIRST, &plan, &adopted.key_label)?;
            tx.execute(
                "UPDATE generation SET spki = ?2, crl_number = ?3 WHERE id = ?1",
                params![row.id, adopted.spki, adopted.crl_number],
            )?;
            let issuer = match adopted.plan.parent {
                Some(parent) => CertificateIssuer::Generation(parent),
                None => CertificateIssuer::Elsewhere { certified: row.id },
            };
            let imported = imported(tx, authority, &adopted)?;
            let intent = match imported {
                Some(intent) => intent,
                None => record_certificate(tx, &adopted.certificate, issuer, &entry)?,
            };
            if let Some(above) = &adopted.above {
                record_chain(tx, row.id, above)?;
            }
            certify(tx, row.id, intent)?;
            audit::append(tx, &entry)
        })
    }
}

/// Refuses a second certificate for the key of an authority. Both would have one revocation list,
/// and what is revoked under one of them would be good under the other.
fn refuse_known_key(tx: &Tx<'_>, authority: &str, spki: &[u8]) -> Result<(), StoreError> {
    let Some((holder, number)) = with_key(tx, spki)? else {
        return Ok(());
    };
    Err(StoreError::Invalid {
        code: Code::KeyInUse,
        message: format!(
            "authority {authority} is not adopted: its key is that of generation {number} of \
             authority {holder}. A second certificate for one key is not taken, also not a renewed \
             one: `hallmark roll start --authority {holder}` makes the next generation, with a key \
             of its own"
        ),
    })
}

/// Whether another key on this token has the same `CKA_ID`: tools that import keys often give 01.
fn is_taken(tx: &Tx<'_>, plan: &PlannedGeneration) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM generation
             WHERE token = ?1 AND key_id = ?2 AND key_id <> x'')",
        params![plan.token, plan.key_id],
        |row| row.get(0),
    )
}

/// Returns the certificate if it is on record since an import of what its issuer had issued before.
/// Fails if the issuer has revoked it.
fn imported(
    tx: &Tx<'_>,
    authority: &str,
    adopted: &AdoptedGeneration,
) -> Result<Option<IntentId>, StoreError> {
    let Some(parent) = adopted.plan.parent else {
        return Ok(None);
    };
    let certificate = &adopted.certificate;
    let recorded: Option<(IntentId, bool)> = tx.query_optional(
        "SELECT i.id, c.revoked_at IS NOT NULL
         FROM certificate c JOIN intent i ON i.id = c.intent
         WHERE c.sha256 = ?1 AND i.purpose = 'adopted' AND i.issuer = ?2",
        params![sha256(&certificate.der), parent],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let listed: Option<bool> = tx.query_optional(
        "DELETE FROM former_certificate WHERE generation = ?1 AND serial = ?2
         RETURNING revoked_at IS NOT NULL",
        params![parent, certificate.serial],
        |row| row.get(0),
    )?;
    if listed == Some(true) || recorded.is_some_and(|(_, is_revoked)| is_revoked) {
        return Err(StoreError::Invalid {
            code: Code::AdoptionRefused,
            message: format!("authority {authority} is not adopted: its issuer has revoked it"),
        });
    }
    Ok(recorded.map(|(intent, _)| intent))
}

/// Records a certificate that was signed elsewhere, and its intent.
pub(super) fn record_certificate(
    tx: &Tx<'_>,
    certificate: &MadeElsewhere,
    issuer: CertificateIssuer,
    entry: &AuditEntry,
) -> Result<IntentId, StoreError> {
    let (issuer, issued_elsewhere) = match issuer {
        CertificateIssuer::Generation(id) => (id, false),
        CertificateIssuer::Elsewhere { certified } => (certified, true),
    };
    let inserted = tx.insert(
        "INSERT INTO intent (serial, issuer, issued_elsewhere, purpose, profile, subject,
             key_sha256, tbs, not_before, not_after, caller, signed_elsewhere, recorded_at)
         VALUES (?1, ?2, ?3, 'adopted', 'authority', ?4, ?5, ?6, ?7, ?8, ?9, 1, ?10)
         RETURNING id",
        params![
            certificate.serial,
            issuer,
            issued_elsewhere,
            certificate.subject,
            sha256(&certificate.public_key),
            certificate.tbs,
            certificate.not_before,
            certificate.not_after,
            entry.actor,
            entry.at,
        ],
    );
    let intent = inserted.map_err(|error| match error {
        StoreError::Violates(Constraint::IntentSerial) => StoreError::Conflict(format!(
            "the issuer of {} has given its serial number {} to another certificate, too",
            certificate.subject,
            hex::encode_upper(&certificate.serial)
        )),
        other => other,
    })?;
    // Its own date of issue, because its roll is scheduled by that.
    let signature = Signature::of(&certificate.der, &certificate.tbs)?;
    signature.record(tx, intent, certificate.not_before)?;
    Ok(intent)
}
