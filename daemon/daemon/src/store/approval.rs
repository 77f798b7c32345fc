//! Stores what waits for the approval of a second person, and the approval.
//!
//! A row proves nothing: `ca::approval` builds the document again from what is asked, and verifies
//! the signature over it. Whether an approval was used is read from the audit journal, too, so a
//! changed row lets nothing happen twice.

use super::audit::{self, AuditEntry};
use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds};
use crate::error_code::Code;
use crate::ids::ApprovalId;

/// So many requests may wait at once.
const WAITING_MAX: i64 = 100;
/// How long a request is kept after its end, in seconds; the journal keeps it for ever.
const KEPT_SECONDS: i64 = 30 * 86_400;

/// A request for an approval.
#[derive(Clone, Debug)]
pub struct NewApproval {
    pub action: &'static str,
    pub asked_by: String,
    pub asked_at: UnixSeconds,
    pub expires_at: UnixSeconds,
    /// Makes the document one of its own, in hex.
    pub nonce: String,
    /// SHA-256 of what is asked for, without time and nonce: the repeat is the same request.
    pub content_sha256: [u8; 32],
    /// The text over which the approver signs.
    pub document: String,
    /// SHA-256 of the signed bytes.
    pub sha256: [u8; 32],
}

/// The signature of an approver.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The approver's role and name.
    pub by: String,
    /// SHA-256 of the approver's certificate.
    pub certificate: [u8; 32],
    pub signature: Vec<u8>,
}

/// A request on record, and what became of it.
#[derive(Clone, Debug)]
pub struct ApprovalRow {
    pub id: ApprovalId,
    pub action: String,
    pub asked_by: String,
    pub asked_at: UnixSeconds,
    pub expires_at: UnixSeconds,
    pub nonce: String,
    pub document: String,
    /// SHA-256 of the signed bytes.
    pub sha256: [u8; 32],
    pub signed: Option<Signed>,
    pub signed_at: Option<UnixSeconds>,
    pub rejected_by: Option<String>,
    pub used_at: Option<UnixSeconds>,
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalState {
    Rejected,
    Used,
    Expired,
    Approved,
    Waiting,
}

impl ApprovalRow {
    /// Returns the state at `now`.
    pub fn state(&self, now: UnixSeconds) -> ApprovalState {
        match self {
            it if it.rejected_by.is_some() => ApprovalState::Rejected,
            it if it.used_at.is_some() => ApprovalState::Used,
            it if it.expires_at < now => ApprovalState::Expired,
            it if it.signed.is_some() => ApprovalState::Approved,
            _ => ApprovalState::Waiting,
        }
    }
}

impl ApprovalState {
    /// Returns the name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Approved => "approved",
            Self::Waiting => "waiting",
        }
    }
}

const SELECT: &str = "SELECT id, action, asked_by, asked_at, expires_at, nonce, document, sha256, \
     approved_by, certificate, signature, approved_at, rejected_by, used_at FROM approval";

/// Answered from the index `audit_approval`.
pub(super) const IS_USED: &str = "SELECT EXISTS (
     SELECT 1 FROM audit WHERE action = 'approval.used' AND detail ->> 'sha256' = ?1)";

impl Store {
    /// Records a request. If the same caller asks for the same, and that waits or is approved, the
    /// request on record is returned.
    pub fn request_approval(
        &self,
        new: NewApproval,
        mut entry: AuditEntry,
    ) -> Result<ApprovalRow, StoreError> {
        self.write(move |tx| {
            let same = format!(
                "{SELECT} WHERE asked_by = ?1 AND content_sha256 = ?2 AND expires_at >= ?3
                 AND rejected_by IS NULL AND used_at IS NULL ORDER BY id DESC LIMIT 1"
            );
            let values = params![new.asked_by, new.content_sha256, new.asked_at];
            if let Some(row) = tx.query_optional(&same, values, from_row)? {
                return Ok(row);
            }
            tx.execute(
                "DELETE FROM approval WHERE expires_at < ?1",
                params![new.asked_at - KEPT_SECONDS],
            )?;
            refuse_too_many(tx, new.asked_at)?;
            let id: ApprovalId = tx.insert(
                "INSERT INTO approval (action, asked_by, asked_at, expires_at, nonce,
                                       content_sha256, document, sha256)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
                params![
                    new.action,
                    new.asked_by,
                    new.asked_at,
                    new.expires_at,
                    new.nonce,
                    new.content_sha256,
                    new.document,
                    new.sha256
                ],
            )?;
            entry.subject = id.to_string();
            audit::append(tx, &entry)?;
            by_id(tx, id)
        })
    }

    /// Returns a request.
    pub fn approval(&self, id: ApprovalId) -> Result<ApprovalRow, StoreError> {
        self.read(|tx| by_id(tx, id))
    }

    /// Returns the requests before row id `before`, newest first, at most `limit`.
    pub fn approvals(
        &self,
        before: Option<ApprovalId>,
        limit: u32,
    ) -> Result<Vec<ApprovalRow>, StoreError> {
        self.read(|tx| {
            let page = format!("{SELECT} WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2");
            tx.query_all(&page, params![before, limit], from_row)
        })
    }

    /// Records an approver's signature, unless the request was decided before.
    pub fn approve(
        &self,
        id: ApprovalId,
        signed: Signed,
        entry: AuditEntry,
    ) -> Result<ApprovalRow, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE approval
                 SET approved_by = ?2, approved_at = ?3, certificate = ?4, signature = ?5
                 WHERE id = ?1 AND approved_by IS NULL AND rejected_by IS NULL
                   AND used_at IS NULL",
                params![
                    id,
                    signed.by,
                    entry.at,
                    signed.certificate,
                    signed.signature
                ],
            )?;
            decided(tx, id, changed, &entry)
        })
    }

    /// Rejects a request that was not used.
    pub fn reject_approval(
        &self,
        id: ApprovalId,
        entry: AuditEntry,
    ) -> Result<ApprovalRow, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE approval SET rejected_by = ?2
                 WHERE id = ?1 AND rejected_by IS NULL AND used_at IS NULL",
                params![id, entry.actor],
            )?;
            decided(tx, id, changed, &entry)
        })
    }

    /// Uses up an approval whose signed bytes have the digest `sha256`. `entry` is the use.
    pub fn use_approval(
        &self,
        id: ApprovalId,
        sha256: [u8; 32],
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let is_used = tx.query_one(IS_USED, params![hex::encode(sha256)], |row| row.get(0))?;
            let changed = tx.execute(
                "UPDATE approval SET used_at = ?2
                 WHERE id = ?1 AND used_at IS NULL AND rejected_by IS NULL",
                params![id, entry.at],
            )?;
            if is_used || changed != 1 {
                return Err(StoreError::Blocking {
                    code: Code::ApprovalUsed,
                    message: format!("approval {id} was used; ask for another one"),
                });
            }
            audit::append(tx, &entry)
        })
    }
}

fn refuse_too_many(tx: &Tx<'_>, now: UnixSeconds) -> Result<(), StoreError> {
    let waiting: i64 = tx.query_one(
        "SELECT count(*) FROM approval WHERE expires_at >= ?1 AND approved_by IS NULL
         AND rejected_by IS NULL",
        params![now],
        |row| row.get(0),
    )?;
    if waiting < WAITING_MAX {
        return Ok(());
    }
    Err(StoreError::Blocking {
        code: Code::ApprovalLimit,
        message: format!(
            "{waiting} requests wait for an approval, and no more may; reject those that are not \
             wanted (`hallmark approval list`)"
        ),
    })
}

/// Ends the transaction of a decision that has changed so many rows.
fn decided(
    tx: &Tx<'_>,
    id: ApprovalId,
    changed: usize,
    entry: &AuditEntry,
) -> Result<ApprovalRow, StoreError> {
    let row = by_id(tx, id)?;
    if changed != 1 {
        return Err(StoreError::Blocking {
            code: Code::ApprovalDecided,
            message: format!(
                "request {id} is {} already; look at `hallmark approval show {id}`",
                row.state(entry.at).name()
            ),
        });
    }
    audit::append(tx, entry)?;
    Ok(row)
}

fn by_id(tx: &Tx<'_>, id: ApprovalId) -> Result<ApprovalRow, StoreError> {
    let found = tx.query_optional(&format!("{SELECT} WHERE id = ?1"), params![id], from_row)?;
    found.ok_or_else(|| {
        StoreError::Missing(format!(
            "request {id} for an approval; `hallmark approval list` has all"
        ))
    })
}

fn from_row(row: &Row<'_>) -> Result<ApprovalRow, StoreError> {
    let by: Option<String> = row.get(8)?;
    let certificate: Option<[u8; 32]> = row.get(9)?;
    let signature: Option<Vec<u8>> = row.get(10)?;
    let signed = match (by, certificate, signature) {
        (Some(by), Some(certificate), Some(signature)) => Some(Signed {
            by,
            certificate,
            signature,
        }),
        _ => None,
    };
    Ok(ApprovalRow {
        id: row.get(0)?,
        action: row.get(1)?,
        asked_by: row.get(2)?,
        asked_at: row.get(3)?,
        expires_at: row.get(4)?,
        nonce: row.get(5)?,
        document: row.get(6)?,
        sha256: row.get(7)?,
        signed,
        signed_at: row.get(11)?,
        rejected_by: row.get(12)?,
        used_at: row.get(13)?,
    })
}
