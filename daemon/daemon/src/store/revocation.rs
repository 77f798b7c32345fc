//! Revokes certificates and lifts holds.
//!
//! A revoked certificate keeps its first date. Its reason is final, except `certificateHold`, which
//! may be lifted or made final. Triggers enforce that, count each change for the revocation lists
//! of the issuing generation, and forbid a revoked generation to sign.

use super::audit::{self, AuditEntry};
use super::engine::{Parameter, Parameters, Row, Tx, params};
use super::{Store, StoreError, UnixSeconds, certified_key, operator_hold, revocation_event};
use crate::ids::{GenerationId, IntentId};
use crate::x509::revocation::RevocationReason;
use serde_json::json;

/// The certificates to change.
#[derive(Clone, Debug)]
pub enum RevocationTarget {
    /// The certificate of this intent.
    Certificate {
        /// The intent's row id.
        intent: IntentId,
    },
    /// The only certificate with this serial number; refused if several issuers have given it.
    Serial(Vec<u8>),
    /// The certificate with this SHA-256.
    Sha256([u8; 32]),
    /// All leaves of this device that have not expired, and its newest in any case. A station with
    /// the same common name keeps its certificates.
    Leaves {
        /// The registration id in any spelling.
        subject: String,
    },
    /// The generation's own certificate, and those of its key by other generations.
    Generation {
        /// The generation's row id.
        generation: GenerationId,
    },
}

/// A change of revocations, with its audit fields.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The certificates to change.
    pub target: RevocationTarget,
    pub at: UnixSeconds,
    /// The actor in the audit journal.
    pub actor: String,
    /// The cause in the audit journal.
    pub cause: String,
}

/// A certificate after a revocation or a lifted hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// The intent's row id.
    pub intent: IntentId,
    pub serial: Vec<u8>,
    pub issuer: GenerationId,
    pub subject: String,
    /// When and why it was revoked; `None` while it is good.
    pub revoked: Option<(UnixSeconds, RevocationReason)>,
}

/// The certificates that a revocation or a lifted hold has changed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    pub changed: Vec<RevokedCertificate>,
    /// Certificates that were so already, or whose reason is final.
    pub unchanged: Vec<RevokedCertificate>,
}

impl Store {
    /// Revokes the target's certificates for an operator. A certificate that is revoked already
    /// keeps its date; a hold may get a final reason. Writes one audit entry for each change.
    pub fn revoke(
        &self,
        revocation: Revocation,
        reason: RevocationReason,
    ) -> Result<Revoked, StoreError> {
        self.write(move |tx| match reason {
            RevocationReason::CertificateHold => operator_hold::hold(tx, &revocation),
            _ => revoke(tx, &revocation, reason),
        })
    }

    /// Lifts an operator's `certificateHold` from the target's certificates. Other reasons are
    /// final, and a certificate that a block holds stays on hold.
    pub fn unrevoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.write(move |tx| operator_hold::release(tx, &revocation))
    }
}

/// Revokes within the caller's transaction, so that a roll or block and its revocations are one.
pub(super) fn revoke(
    tx: &Tx<'_>,
    revocation: &Revocation,
    reason: RevocationReason,
) -> Result<Revoked, StoreError> {
    let revoked = change(tx, revocation, "certificate.revoked", |certificate| {
        Ok(match certificate.revoked {
            None => Some(Some((revocation.at, reason))),
            Some((since, hold)) if !hold.is_final() && reason.is_final() => {
                Some(Some((since, reason)))
            }
            Some(_) => None,
        })
    })?;
    if reason.is_of_the_key() {
        // A certificate that was revoked before for another reason has the same key.
        for certificate in revoked.changed.iter().chain(&revoked.unchanged) {
            certified_key::record_compromised(tx, certificate.intent, revocation.at)?;
        }
    }
    Ok(revoked)
}

/// Lifts holds that nothing has any more, within the caller's transaction.
pub(super) fn unrevoke(tx: &Tx<'_>, revocation: &Revocation) -> Result<Revoked, StoreError> {
    let lifted = |certificate: &RevokedCertificate| {
        let is_hold = certificate.revoked.is_some_and(|(_, it)| !it.is_final());
        let free = is_hold && !is_held(tx, certificate.intent)?;
        Ok(free.then_some(None))
    };
    change(tx, revocation, "certificate.unrevoked", lifted)
}

/// Returns true if an operator or a block holds this certificate.
pub(super) fn is_held(tx: &Tx<'_>, certificate: IntentId) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM block_hold WHERE certificate = ?1)
             OR EXISTS (SELECT 1 FROM operator_hold WHERE certificate = ?1)",
        params![certificate],
        |row| row.get(0),
    )
}

type RevokedSince = Option<(UnixSeconds, RevocationReason)>;

/// Changes the target's certificates. `decide` returns the new state, or `None` for no change.
fn change(
    tx: &Tx<'_>,
    revocation: &Revocation,
    action: &'static str,
    decide: impl Fn(&RevokedCertificate) -> Result<Option<RevokedSince>, StoreError>,
) -> Result<Revoked, StoreError> {
    let mut done = Revoked::default();
    for certificate in certificates(tx, revocation)? {
        let Some(next) = decide(&certificate)? else {
            done.unchanged.push(certificate);
            continue;
        };
        tx.execute(
            "UPDATE certificate SET revoked_at = ?2, revocation_reason = ?3 WHERE intent = ?1",
            params![
                certificate.intent,
                next.map(|(since, _)| since),
                next.map(|(_, reason)| reason.code()),
            ],
        )?;
        let event = next.map(|(_, reason)| reason);
        revocation_event::record(tx, certificate.intent, revocation, event)?;
        let (_, reason) = next.or(certificate.revoked).unzip();
        audit::append(
            tx,
            &AuditEntry {
                at: revocation.at,
                actor: revocation.actor.clone(),
                action,
                subject: certificate.subject.clone(),
                detail: json!({
                    "serial": hex::encode_upper(&certificate.serial),
                    "reason": reason.map(RevocationReason::name),
                    "cause": revocation.cause,
                }),
            },
        )?;
        done.changed.push(RevokedCertificate {
            revoked: next,
            ..certificate
        });
    }
    Ok(done)
}

/// Returns the target's certificates. A named certificate that does not exist is an error; a device
/// without leaves is not.
pub(super) fn certificates(
    tx: &Tx<'_>,
    revocation: &Revocation,
) -> Result<Vec<RevokedCertificate>, StoreError> {
    let named = |what: &str, value: &dyn Parameter, missing: String| {
        let found = select(tx, what, &[value])?;
        if found.is_empty() {
            return Err(StoreError::Missing(missing));
        }
        Ok(found)
    };
    match &revocation.target {
        RevocationTarget::Certificate { intent } => {
            named("i.id = ?1", intent, format!("certificate {intent}"))
        }
        RevocationTarget::Serial(serial) => {
            let missing = format!("certificate with serial {}", hex::encode_upper(serial));
            let found = named("i.serial = ?1", serial, missing)?;
            if found.len() > 1 {
                return Err(StoreError::Conflict(format!(
                    "several issuers have given the serial number {}: name the certificate by its \
                     SHA-256",
                    hex::encode_upper(serial)
                )));
            }
            Ok(found)
        }
        RevocationTarget::Sha256(sha256) => {
            let missing = format!("certificate with SHA-256 {}", hex::encode_upper(sha256));
            named("c.sha256 = ?1", sha256, missing)
        }
        // Its key has further certificates, by other generations of the root.
        RevocationTarget::Generation { generation } => named(
            "i.id IN (SELECT certificate FROM generation WHERE id = ?1
                      UNION ALL SELECT certificate FROM cross_certificate WHERE subject = ?1)",
            generation,
            format!("generation {generation} with a certificate"),
        ),
        // The newest leaf may renew itself after its end.
        RevocationTarget::Leaves { subject } => select(
            tx,
            "i.subject = ?1 AND i.role = 'device' AND (i.not_after >= ?2 OR i.id = (
                 SELECT d.certificate FROM device d WHERE d.registration_id = ?1))",
            &[subject, &revocation.at],
        ),
    }
}

fn select(
    tx: &Tx<'_>,
    which: &str,
    values: Parameters<'_>,
) -> Result<Vec<RevokedCertificate>, StoreError> {
    let sql = format!(
        "SELECT i.id, i.serial, i.issuer, i.subject, c.revoked_at, c.revocation_reason
         FROM intent i JOIN certificate c ON c.intent = i.id WHERE {which} ORDER BY i.id"
    );
    tx.query_all(&sql, values, from_row)
}

fn from_row(row: &Row<'_>) -> Result<RevokedCertificate, StoreError> {
    // A date without a reason is unreadable, never good.
    let revoked = match row.get::<Option<UnixSeconds>>(4)? {
        Some(since) => Some((since, row.get(5)?)),
        None => None,
    };
    Ok(RevokedCertificate {
        intent: row.get(0)?,
        serial: row.get(1)?,
        issuer: row.get(2)?,
        subject: row.get(3)?,
        revoked,
    })
}
