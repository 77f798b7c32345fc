//! What tokens have signed that is on no other record: test signatures, and what credentials' keys
//! have signed. A worker counts, and the counts are added up here, so that every signature of a
//! token is explained.

use super::audit::{self, AuditEntry};
use super::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a key has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyUse {
    /// Test messages, which show that it signs.
    Proof,
    /// Assertions and codes for the cloud.
    Credential,
}

impl KeyUse {
    fn name(self) -> &'static str {
        match self {
            KeyUse::Proof => "proof",
            KeyUse::Credential => "credential",
        }
    }
}

/// How often a worker has had a key sign since the worker started.
#[derive(Clone, Debug)]
pub struct KeyCount {
    /// Hex SHA-256 of its SubjectPublicKeyInfo; the label of a shared secret.
    pub key: String,
    /// `CKA_LABEL`.
    pub label: String,
    /// What for.
    pub kind: KeyUse,
    /// How often.
    pub made: u64,
}

impl Store {
    /// Adds what the worker `worker` of `token` has counted since it was last heard, with one audit
    /// entry for all of it; nothing if there is nothing new.
    pub fn record_key_counts(
        &self,
        token: String,
        worker: [u8; 8],
        counts: Vec<KeyCount>,
        at: i64,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            let mut news: BTreeMap<KeyUse, Vec<Value>> = BTreeMap::new();
            for count in &counts {
                let told = add(connection, &token, worker, count)?;
                news.entry(count.kind).or_default().extend(told);
            }
            let mut detail = json!({ "worker": hex::encode(worker) });
            for (kind, told) in news.into_iter().filter(|(_, told)| !told.is_empty()) {
                let part = match kind {
                    KeyUse::Proof => "proofs",
                    KeyUse::Credential => "credentials",
                };
                detail[part] = Value::Array(told);
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
            audit::append(connection, &entry)
        })
    }

    /// How many test signatures each key of `token` has made so far, by the hex SHA-256 of its
    /// SubjectPublicKeyInfo.
    pub fn key_proofs(&self, token: &str) -> Result<BTreeMap<String, i64>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, total FROM key_use WHERE token = ?1 AND kind = 'proof'",
            )?;
            let rows = statement.query_map([token], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Adds one count; gives what is new of it, for the journal.
fn add(
    connection: &Connection,
    token: &str,
    worker: [u8; 8],
    count: &KeyCount,
) -> Result<Option<Value>, StoreError> {
    let kind = count.kind.name();
    let made = i64::try_from(count.made).unwrap_or(i64::MAX);
    let before: Option<([u8; 8], i64, i64)> = connection
        .prepare_cached(
            "SELECT worker, counted, total FROM key_use
             WHERE token = ?1 AND key = ?2 AND kind = ?3",
        )?
        .query_row(params![token, count.key, kind], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
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
    connection
        .prepare_cached(
            "INSERT INTO key_use (token, key, kind, worker, counted, total)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (token, key, kind) DO UPDATE
             SET worker = excluded.worker, counted = excluded.counted, total = excluded.total",
        )?
        .execute(params![token, count.key, kind, worker, made, total])?;
    Ok(Some(json!({
        "key": count.key, "label": count.label, "new": new, "total": total,
    })))
}
