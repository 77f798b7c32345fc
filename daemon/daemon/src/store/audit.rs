//! Appends to the audit journal, in which each entry's hash covers all entries before it.
//!
//! `journal::seal` computes the hashes. A changed, missing or reordered entry breaks every hash
//! after it. A truncated journal does not, and the database's owner can seal it again: signed
//! checkpoints (`checkpoint`) show both.

use super::engine::{Row, Tx, params};
use super::readings::{self, EndOfJournal};
use super::{Store, StoreError, UnixSeconds};
use crate::journal::seal;
use schemars::JsonSchema;
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

/// The most entries that one page of the journal carries.
const PAGE_MAX: u32 = 1_000;

/// An entry to append.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    pub at: UnixSeconds,
    /// The actor: `station line-1`, `local root`, `hallmarkd`.
    pub actor: String,
    /// The action, as `noun.verb`: `certificate.issued`.
    pub action: &'static str,
    /// The subject of the action.
    pub subject: String,
    /// The rest, as a JSON object. Never a secret.
    pub detail: serde_json::Value,
}

/// An entry on record.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AuditRecord {
    /// 1, 2, 3 … without gaps.
    pub sequence: i64,
    pub at: UnixSeconds,
    pub actor: String,
    pub action: String,
    /// The subject of the action.
    pub subject: String,
    pub detail: serde_json::Value,
    /// Hex SHA-256 over this entry and all before it.
    pub hash: String,
}

/// Which entries of the journal are asked for. An absent member excludes none.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// The registration id of a device: entries about it or with its name, and its own requests.
    pub device: Option<String>,
    /// The name of an authority: entries about it, its generations and lists, or with its name.
    pub authority: Option<String>,
    /// The actor, with or without its role: `station line-1`, or `line-1`.
    pub caller: Option<String>,
    /// The earliest time.
    pub since: Option<UnixSeconds>,
}

/// The conditions of [`AuditFilter`], with its members as parameters 3 to 6. They have no index,
/// because that would cost every certificate an insert: the journal is read from one end.
const FILTER: &str = "
    (?3 IS NULL OR subject = ?3 COLLATE NOCASE OR actor = 'device ' || ?3 COLLATE NOCASE
     OR instr(detail, json_quote(?3)) > 0 OR detail ->> 'holder' = 'device ' || ?3)
    AND (?4 IS NULL OR subject = ?4 OR instr(detail, json_quote(?4)) > 0
         OR (action LIKE 'crl.%' AND rtrim(subject, '0123456789') = ?4 || '-'))
    AND (?5 IS NULL OR ?5 IN (actor, substr(actor, instr(actor, ' ') + 1), detail ->> 'holder',
                              substr(detail ->> 'holder', instr(detail ->> 'holder', ' ') + 1)))
    AND (?6 IS NULL OR at >= ?6)";

/// The result of checking the whole journal.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AuditVerdict {
    /// How many entries are good.
    pub entries: i64,
    /// Hex hash of the last good entry.
    pub last_hash: String,
    /// The first sequence number at which the chain is broken.
    pub broken_at: Option<i64>,
}

impl Store {
    /// Appends one entry in a transaction of its own, for events that change nothing else.
    pub async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        let recorded = self.writer.run(move |tx| append(tx, &entry));
        recorded.await
    }

    /// Returns up to `limit` entries after `sequence`, oldest first.
    pub fn audit_after(
        &self,
        sequence: i64,
        limit: u32,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let which = format!("WHERE sequence > ?1 AND {FILTER} ORDER BY sequence LIMIT ?2");
        self.entries(&which, sequence, limit, filter)
    }

    /// Returns the last entries before `sequence`, up to `limit`, oldest first.
    pub fn audit_before(
        &self,
        sequence: i64,
        limit: u32,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let which = format!("WHERE sequence < ?1 AND {FILTER} ORDER BY sequence DESC LIMIT ?2");
        let mut entries = self.entries(&which, sequence, limit, filter)?;
        entries.reverse();
        Ok(entries)
    }

    fn entries(
        &self,
        which: &str,
        sequence: i64,
        limit: u32,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let sql =
            format!("SELECT sequence, at, actor, action, subject, detail, hash FROM audit {which}");
        let parameters = params![
            sequence,
            limit.min(PAGE_MAX),
            filter.device,
            filter.authority,
            filter.caller,
            filter.since
        ];
        self.read(|tx| {
            tx.query_all(&sql, parameters, |row| {
                Ok(AuditRecord {
                    sequence: row.get(0)?,
                    at: row.get(1)?,
                    actor: row.get(2)?,
                    action: row.get(3)?,
                    subject: row.get(4)?,
                    detail: detail_of(row, 5)?,
                    hash: hex::encode(row.get::<Vec<u8>>(6)?),
                })
            })
        })
    }

    /// Returns the detail of the newest entry with this action.
    pub fn newest_detail(&self, action: &str) -> Result<Option<serde_json::Value>, StoreError> {
        self.read(|tx| {
            let sql = "SELECT detail FROM audit WHERE action = ?1 ORDER BY sequence DESC LIMIT 1";
            tx.query_optional(sql, params![action], |row| detail_of(row, 0))
        })
    }

    /// Reads the whole journal and checks each hash.
    pub fn verify_audit(&self) -> Result<AuditVerdict, StoreError> {
        self.read(verify)
    }
}

pub(super) fn verify(tx: &Tx<'_>) -> Result<AuditVerdict, StoreError> {
    Ok(check_hashes(tx, || false)?.0)
}

/// The same until a moment. Returns also whether the last entry was read.
pub(super) fn verify_until(
    tx: &Tx<'_>,
    until: Instant,
) -> Result<(AuditVerdict, bool), StoreError> {
    check_hashes(tx, || Instant::now() >= until)
}

/// Checks each hash until `is_over`. Returns also whether it was never over.
fn check_hashes(
    tx: &Tx<'_>,
    is_over: impl Fn() -> bool,
) -> Result<(AuditVerdict, bool), StoreError> {
    let sql = "SELECT sequence, at, actor, action, subject, detail, hash FROM audit
               ORDER BY sequence";
    let mut entries = 0;
    let mut last = [0; 32];
    let mut broken_at = None;
    let mut complete = true;
    tx.for_each(sql, params![], |row| {
        let sequence: i64 = row.get(0)?;
        let expected = seal(
            &last,
            sequence,
            row.get(1)?,
            [
                &row.get::<String>(2)?,
                &row.get::<String>(3)?,
                &row.get::<String>(4)?,
                &row.get::<String>(5)?,
            ],
        );
        let found: Vec<u8> = row.get(6)?;
        if sequence != entries + 1 || found != expected {
            broken_at = Some(entries + 1);
            return Ok(ControlFlow::Break(()));
        }
        entries = sequence;
        last = expected;
        if is_over() {
            complete = false;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let verdict = AuditVerdict {
        entries,
        last_hash: hex::encode(last),
        broken_at,
    };
    Ok((verdict, complete))
}

/// Reads the detail of an entry, which is JSON.
fn detail_of(row: &Row<'_>, column: usize) -> Result<serde_json::Value, StoreError> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        StoreError::Unreadable(format!("the detail of an audit entry is not JSON: {error}"))
    })
}

/// Appends `entry` within the transaction of the change that it records.
pub(super) fn append(tx: &Tx<'_>, entry: &AuditEntry) -> Result<(), StoreError> {
    let last = readings::end_of_journal(tx)?;
    let sequence = last.sequence + 1;
    let detail = entry.detail.to_string();
    let hash = seal(
        &last.hash,
        sequence,
        entry.at,
        [&entry.actor, entry.action, &entry.subject, &detail],
    );
    tx.execute_apart(
        "INSERT INTO audit (sequence, at, actor, action, subject, detail, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            sequence,
            entry.at,
            entry.actor,
            entry.action,
            entry.subject,
            detail,
            hash
        ],
    )?;
    readings::note_end_of_journal(tx, EndOfJournal { sequence, hash });
    Ok(())
}
