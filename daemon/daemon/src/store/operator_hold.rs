//! Holds of operators: who holds a certificate decides who can lift the hold.
//!
//! A certificate is on hold while an operator or a block holds it. The operator's hold is a row
//! here, that of a block a row of `block_hold`, and each is lifted by its own command alone. An
//! imported hold has no row until something else holds it, too: then it becomes one here, because
//! an operator of the adopted authority has set it.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::revocation::{self, Revocation, Revoked, RevokedCertificate};
use super::{Store, StoreError, UnixSeconds};
use crate::ids::{BlockId, IntentId};
use crate::x509::revocation::RevocationReason;
use serde_json::json;

/// The owner of an imported hold.
const IMPORT: &str = "import";

/// An operator's hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorHold {
    pub by: String,
    pub since: UnixSeconds,
    pub cause: String,
}

/// The owners of the hold of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldOwners {
    pub operator: Option<OperatorHold>,
    /// The blocks in force, or being lifted.
    pub blocks: Vec<BlockId>,
}

impl Store {
    /// Returns what holds the certificate with this SHA-256.
    pub fn hold_owners(&self, sha256: &[u8; 32]) -> Result<HoldOwners, StoreError> {
        self.read(|tx| {
            let sql = "SELECT intent FROM certificate WHERE sha256 = ?1";
            let found = tx.query_optional(sql, params![sha256], |row| row.get::<IntentId>(0))?;
            let Some(certificate) = found else {
                return Ok(HoldOwners::default());
            };
            Ok(HoldOwners {
                operator: of_operator(tx, certificate)?,
                blocks: tx.query_all(
                    "SELECT block FROM block_hold WHERE certificate = ?1 ORDER BY block",
                    params![certificate],
                    |row| row.get(0),
                )?,
            })
        })
    }
}

/// Holds the target's certificates for an operator, within the caller's transaction. A certificate
/// that is on hold already gets the operator as one more owner.
pub(super) fn hold(tx: &Tx<'_>, revocation: &Revocation) -> Result<Revoked, StoreError> {
    let done = revocation::revoke(tx, revocation, RevocationReason::CertificateHold)?;
    for certificate in &done.changed {
        insert(tx, certificate.intent, revocation)?;
    }
    for certificate in done.unchanged.iter().filter(|it| is_on_hold(it)) {
        if of_operator(tx, certificate.intent)?.is_none() {
            insert(tx, certificate.intent, revocation)?;
            note(tx, certificate, revocation, "certificate.held")?;
        }
    }
    Ok(done)
}

/// Lifts the operator's hold of the target's certificates, within the caller's transaction. A
/// certificate that a block holds stays on hold.
pub(super) fn release(tx: &Tx<'_>, revocation: &Revocation) -> Result<Revoked, StoreError> {
    for certificate in revocation::certificates(tx, revocation)? {
        let deleted = tx.execute(
            "DELETE FROM operator_hold WHERE certificate = ?1",
            params![certificate.intent],
        )?;
        if deleted > 0 && revocation::is_held(tx, certificate.intent)? {
            note(tx, &certificate, revocation, "certificate.released")?;
        }
    }
    revocation::unrevoke(tx, revocation)
}

/// Makes an imported hold that of an operator, before something else holds the certificate, too.
pub(super) fn keep_imported(
    tx: &Tx<'_>,
    certificate: IntentId,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    if revocation::is_held(tx, certificate)? {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO operator_hold (certificate, held_by, held_at, cause)
         VALUES (?1, ?2, ?3, '')",
        params![certificate, IMPORT, at],
    )?;
    Ok(())
}

fn insert(tx: &Tx<'_>, certificate: IntentId, revocation: &Revocation) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO operator_hold (certificate, held_by, held_at, cause)
         VALUES (?1, ?2, ?3, ?4)",
        params![
            certificate,
            revocation.actor,
            revocation.at,
            revocation.cause
        ],
    )?;
    Ok(())
}

/// Records in the journal that a hold has another owner, although the lists do not change.
fn note(
    tx: &Tx<'_>,
    certificate: &RevokedCertificate,
    revocation: &Revocation,
    action: &'static str,
) -> Result<(), StoreError> {
    let entry = AuditEntry {
        at: revocation.at,
        actor: revocation.actor.clone(),
        action,
        subject: certificate.subject.clone(),
        detail: json!({
            "serial": hex::encode_upper(&certificate.serial),
            "cause": revocation.cause,
        }),
    };
    audit::append(tx, &entry)
}

fn of_operator(tx: &Tx<'_>, certificate: IntentId) -> Result<Option<OperatorHold>, StoreError> {
    tx.query_optional(
        "SELECT held_by, held_at, cause FROM operator_hold WHERE certificate = ?1",
        params![certificate],
        |row| {
            Ok(OperatorHold {
                by: row.get(0)?,
                since: row.get(1)?,
                cause: row.get(2)?,
            })
        },
    )
}

fn is_on_hold(certificate: &RevokedCertificate) -> bool {
    certificate
        .revoked
        .is_some_and(|(_, reason)| !reason.is_final())
}
