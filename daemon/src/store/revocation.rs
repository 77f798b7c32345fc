//! Revocation: which certificates are no longer good, since when and why.
//!
//! A revoked certificate keeps its first date. Its reason is final, except `certificateHold`, which
//! may be lifted or made final. Triggers hold that down, count each change for the revocation lists
//! of the generation that signed it, and keep a revoked generation from signing.

use super::audit::{self, AuditEntry};
use super::engine::{Parameter, Parameters, Row, Tx, params};
use super::{Store, StoreError, certified_key};
use crate::x509::revocation::RevocationReason;
use serde_json::json;

/// Which certificates.
#[derive(Clone, Debug)]
pub enum RevocationTarget {
    /// The one that this intent became.
    Certificate {
        /// The intent's row id.
        intent: i64,
    },
    /// The one with this serial number.
    Serial(Vec<u8>),
    /// The one with this SHA-256, as enrollments and rolls name it.
    Sha256([u8; 32]),
    /// All leaves of this device that have not expired. A station may have the same common name,
    /// and keeps its certificates.
    Leaves {
        /// The registration id, in any case.
        subject: String,
    },
    /// The generation's own certificate.
    Generation {
        /// The generation's row id.
        generation: i64,
    },
}

/// A change of certificates' revocation: who changes which, when, and in whose words.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// Which certificates.
    pub target: RevocationTarget,
    /// Unix seconds.
    pub at: i64,
    /// Who caused it, for the audit journal.
    pub actor: String,
    /// Why, in words, for the audit journal.
    pub cause: String,
}

/// A certificate whose revocation was asked for or lifted, as it stands afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// The intent's row id.
    pub intent: i64,
    /// The serial number's octets.
    pub serial: Vec<u8>,
    /// The generation that signed it.
    pub issuer: i64,
    /// Its common name.
    pub subject: String,
    /// Since when and why it is revoked; `None` while it is good.
    pub revoked: Option<(i64, RevocationReason)>,
}

/// What a revocation, or the lifting of one, found and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// These changed.
    pub changed: Vec<RevokedCertificate>,
    /// These were so already, or cannot be changed: their reason is final.
    pub unchanged: Vec<RevokedCertificate>,
}

impl Store {
    /// Revokes the target's certificates. Those that are revoked already keep their date; a hold
    /// takes a final reason, and never the other way round. One audit entry for each change.
    pub fn revoke(
        &self,
        revocation: Revocation,
        reason: RevocationReason,
    ) -> Result<Revoked, StoreError> {
        self.write(move |tx| revoke(tx, &revocation, reason))
    }

    /// Lifts `certificateHold` from the target's certificates; other reasons are final, and what a
    /// block holds stays on hold.
    pub fn unrevoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.write(move |tx| unrevoke(tx, &revocation))
    }
}

/// Within the caller's transaction, so that a roll or block and its revocations are one.
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
        // Those that were revoked before, for another reason, have the key as well.
        for certificate in revoked.changed.iter().chain(&revoked.unchanged) {
            certified_key::record_compromised(tx, certificate.intent, revocation.at)?;
        }
    }
    Ok(revoked)
}

/// The same for [`Store::unrevoke`].
pub(super) fn unrevoke(tx: &Tx<'_>, revocation: &Revocation) -> Result<Revoked, StoreError> {
    let lifted = |certificate: &RevokedCertificate| {
        let is_hold = certificate.revoked.is_some_and(|(_, it)| !it.is_final());
        let free = is_hold && !is_held(tx, certificate.intent)?;
        Ok(free.then_some(None))
    };
    change(tx, revocation, "certificate.unrevoked", lifted)
}

/// Whether some block holds this certificate.
pub(super) fn is_held(tx: &Tx<'_>, certificate: i64) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM block_hold WHERE certificate = ?1)",
        params![certificate],
        |row| row.get(0),
    )
}

type RevokedSince = Option<(i64, RevocationReason)>;

/// `decide` gives the new state of a certificate, or `None` to leave it.
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

/// The target's certificates. One that was named and does not exist is an error; a device without
/// leaves is none.
fn certificates(
    tx: &Tx<'_>,
    revocation: &Revocation,
) -> Result<Vec<RevokedCertificate>, StoreError> {
    let named = |what: &str, value: &dyn Parameter, missing: String| {
        let found = select(tx, what, &[value])?;
        match found.is_empty() {
            true => Err(StoreError::Missing(missing)),
            false => Ok(found),
        }
    };
    match &revocation.target {
        RevocationTarget::Certificate { intent } => {
            named("i.id = ?1", intent, format!("certificate {intent}"))
        }
        RevocationTarget::Serial(serial) => {
            let missing = format!("certificate with serial {}", hex::encode_upper(serial));
            named("i.serial = ?1", serial, missing)
        }
        RevocationTarget::Sha256(sha256) => {
            let missing = format!("certificate with SHA-256 {}", hex::encode_upper(sha256));
            named("c.sha256 = ?1", sha256, missing)
        }
        RevocationTarget::Generation { generation } => named(
            "i.id = (SELECT certificate FROM generation WHERE id = ?1)",
            generation,
            format!("generation {generation} with a certificate"),
        ),
        RevocationTarget::Leaves { subject } => select(
            tx,
            "i.subject = ?1 AND i.role = 'device' AND i.not_after >= ?2",
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
    let revoked = match row.get::<Option<i64>>(4)? {
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
