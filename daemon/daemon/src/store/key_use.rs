//! Counts the signatures that have no other record: test signatures, those of credentials' keys,
//! and OCSP answers.
//!
//! The workers count, and their counts are added up here, so that every signature of a token is
//! explained.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::{Store, StoreError, UnixSeconds};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The kind of a signature without another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyUse {
    /// Test messages, which prove that the key can sign.
    Proof,
    /// Assertions and codes for the cloud.
    Credential,
    /// OCSP answers.
    Answer,
}

impl KeyUse {
    fn name(self) -> &'static str {
        match self {
            KeyUse::Proof => "proof",
            KeyUse::Credential => "credential",
            KeyUse::Answer => "answer",
        }
    }
}

/// How often a worker has had a key sign since the worker started.
#[derive(Clone, Debug)]
pub struct KeyCount {
    /// Hex SHA-256 of the key's SubjectPublicKeyInfo; the label of a shared secret.
    pub key: String,
    pub label: String,
    /// The kind of signature.
    pub kind: KeyUse,
    pub made: u64,
}

impl Store {
    /// Adds what the worker `worker` of `token` has counted since its last report, with one audit
    /// entry. Writes nothing if no count has changed.
    pub fn record_key_counts(
        &self,
        token: String,
        worker: [u8; 8],
        counts: Vec<KeyCount>,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut new: BTreeMap<KeyUse, Vec<Value>> = BTreeMap::new();
            for count in &counts {
                let counted = add(tx, &token, worker, count)?;
                new.entry(count.kind).or_default().extend(counted);
            }
            let mut detail = json!({ "worker": hex::encode(worker) });
            for (kind, counts) in new.into_iter().filter(|(_, counts)| !counts.is_empty()) {
                let part = match kind {
                    KeyUse::Proof => "proofs",
                    KeyUse::Credential => "credentials",
                    KeyUse::Answer => "answers",
                };
                detail[part] = Value::Array(counts);
            }
            if detail.as_object().is_some_and(|parts| parts.len() == 1) {
                return Ok(());
            }
            let entry = AuditEntry {
                at,
                actor: "hallmarkd".into(),
                action: "key.used",
                subject: token.clone(),
                detail,
            };
            audit::append(tx, &entry)
        })
    }

    /// Returns how many test signatures each key of `token` has made, by the hex SHA-256 of its
    /// SubjectPublicKeyInfo.
    pub fn key_proofs(&self, token: &str) -> Result<BTreeMap<String, i64>, StoreError> {
        self.read(|tx| {
            let totals = tx.query_all(
                "SELECT key, total FROM key_use WHERE token = ?1 AND kind = 'proof'",
                params![token],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            Ok(totals.into_iter().collect())
        })
    }
}

/// Adds one count. Returns its part of the audit entry; `None` if the count has not changed.
fn add(
    tx: &Tx<'_>,
    token: &str,
    worker: [u8; 8],
    count: &KeyCount,
) -> Result<Option<Value>, StoreError> {
    let kind = count.kind.name();
    let made = i64::try_from(count.made).unwrap_or(i64::MAX);
    let before: Option<([u8; 8], i64, i64)> = tx.query_optional(
        "SELECT worker, counted, total FROM key_use
         WHERE token = ?1 AND key = ?2 AND kind = ?3",
        params![token, count.key, kind],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let (counted, total) = match before {
        // A worker that forgot the key counts it from zero.
        Some((known, counted, total)) if known == worker && counted <= made => (counted, total),
        Some((_, _, total)) => (0, total),
        None => (0, 0),
    };
    let new = made - counted;
    if new == 0 {
        return Ok(None);
    }
    let total = total.saturating_add(new);
    tx.execute(
        "INSERT INTO key_use (token, key, kind, worker, counted, total)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (token, key, kind) DO UPDATE
         SET worker = excluded.worker, counted = excluded.counted, total = excluded.total",
        params![token, count.key, kind, worker, made, total],
    )?;
    Ok(Some(json!({
        "key": count.key, "label": count.label, "new": new, "total": total,
    })))
}
