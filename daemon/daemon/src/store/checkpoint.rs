//! Records the signed checkpoints of the audit journal and the keys that sign them, and reads the
//! journal as it is hashed.

use super::engine::{Row, Tx, params};
use super::{AuditEntry, Store, StoreError, UnixSeconds, audit};
use crate::der_bytes::Der;
use crate::journal::checkpoints::SignedCheckpoint;
use crate::journal::{Entry, Place};
use crate::x509::key::KeyType;

/// A key that signs checkpoints.
#[derive(Clone, Debug)]
pub struct AuditKeyRow {
    /// 1, 2, 3 …
    pub number: i64,
    /// The token that holds it.
    pub token: String,
    pub key_type: KeyType,
    /// `CKA_ID`: random, so that a repeated attempt finds exactly its own key.
    pub key_id: Vec<u8>,
    /// `None` until the key exists.
    pub spki: Option<Der>,
    /// The encrypted key, for a token that stores its keys outside.
    pub key_wrapped: Option<Vec<u8>>,
}

const KEYS: &str = "SELECT number, token, key_type, key_id, spki, key_wrapped FROM audit_key \
                    ORDER BY number";

impl Store {
    /// Returns every key of the journal, the oldest first.
    pub fn audit_keys(&self) -> Result<Vec<AuditKeyRow>, StoreError> {
        self.read(|tx| tx.query_all(KEYS, params![], key_of))
    }

    /// Records the plan of a key that does not exist yet. A plan without a key is replaced.
    pub fn plan_audit_key(&self, key: AuditKeyRow) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO audit_key (number, token, key_type, key_id) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (number) DO UPDATE
                 SET token = excluded.token, key_type = excluded.key_type,
                     key_id = excluded.key_id
                 WHERE spki IS NULL",
                params![key.number, key.token, key.key_type.name(), key.key_id],
            )?;
            Ok(())
        })
    }

    /// Records a key that its token has made, with an entry of the journal.
    pub fn record_audit_key(
        &self,
        number: i64,
        spki: Der,
        wrapped: Option<Vec<u8>>,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE audit_key SET spki = ?2, key_wrapped = ?3
                 WHERE number = ?1 AND spki IS NULL",
                params![number, spki, wrapped],
            )?;
            match changed {
                1 => audit::append(tx, &entry),
                _ => Err(StoreError::Conflict(format!(
                    "the audit journal's key {number} is on record already"
                ))),
            }
        })
    }

    /// Records a checkpoint that a token has signed.
    pub fn record_checkpoint(&self, signed: SignedCheckpoint) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO checkpoint (number, message, key, signature) VALUES (?1, ?2, ?3, ?4)",
                params![signed.number, signed.message, signed.key, signed.signature],
            )?;
            Ok(())
        })
    }

    /// Returns up to `limit` checkpoints with greater numbers, the oldest first.
    pub fn checkpoints_after(
        &self,
        number: i64,
        limit: u32,
    ) -> Result<Vec<SignedCheckpoint>, StoreError> {
        self.read(|tx| {
            let sql = "SELECT number, message, key, signature FROM checkpoint
                       WHERE number > ?1 ORDER BY number LIMIT ?2";
            tx.query_all(sql, params![number, limit], checkpoint_of)
        })
    }

    /// Returns the newest checkpoint.
    pub fn last_checkpoint(&self) -> Result<Option<SignedCheckpoint>, StoreError> {
        self.read(|tx| {
            let sql = "SELECT number, message, key, signature FROM checkpoint
                       ORDER BY number DESC LIMIT 1";
            tx.query_optional(sql, params![], checkpoint_of)
        })
    }

    /// Returns up to `limit` entries from number `first` on, as they are hashed.
    pub fn journal_from(&self, first: i64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(|tx| {
            let sql = "SELECT sequence, at, actor, action, subject, detail, hash FROM audit
                       WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            tx.query_all(sql, params![first, limit], |row| {
                Ok(Entry {
                    sequence: row.get(0)?,
                    at: row.get(1)?,
                    fields: [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?],
                    hash: row.get(6)?,
                })
            })
        })
    }

    /// Returns the last entry's place; `None` while the journal is empty.
    pub fn journal_end(&self) -> Result<Option<Place>, StoreError> {
        self.read(|tx| {
            let sql = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
            tx.query_optional(sql, params![], |row| {
                Ok(Place {
                    sequence: row.get(0)?,
                    hash: row.get(1)?,
                })
            })
        })
    }

    /// Returns the time of an entry.
    pub fn journal_time(&self, sequence: i64) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| {
            let sql = "SELECT at FROM audit WHERE sequence = ?1";
            tx.query_optional(sql, params![sequence], |row| row.get(0))
        })
    }

    /// Returns the tables, indexes and triggers of the database.
    pub fn schema(&self) -> Result<Schema, StoreError> {
        self.read(schema_of)
    }
}

fn key_of(row: &Row<'_>) -> Result<AuditKeyRow, StoreError> {
    let key_type: String = row.get(2)?;
    let key_type = KeyType::from_name(&key_type)
        .ok_or_else(|| StoreError::Unreadable(format!("unknown type of key {key_type:?}")))?;
    Ok(AuditKeyRow {
        number: row.get(0)?,
        token: row.get(1)?,
        key_type,
        key_id: row.get(3)?,
        spki: row.get(4)?,
        key_wrapped: row.get(5)?,
    })
}

fn checkpoint_of(row: &Row<'_>) -> Result<SignedCheckpoint, StoreError> {
    Ok(SignedCheckpoint {
        number: row.get(0)?,
        message: row.get(1)?,
        key: row.get(2)?,
        signature: row.get(3)?,
    })
}

/// The tables, indexes and triggers of a database: their SQL by kind and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema(std::collections::BTreeMap<(String, String), String>);

impl Schema {
    /// Returns what this program makes of an empty database.
    pub fn made_here() -> Result<Self, StoreError> {
        let mut connection = super::Connection::open_in_memory()?;
        super::migrations()
            .to_latest(&mut connection)
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
        schema_of(&Tx::new(&connection))
    }

    /// Returns SHA-256 over kind, name and SQL of each, each preceded by its length in octets
    /// (eight octets, big-endian).
    pub fn sha256(&self) -> [u8; 32] {
        let mut octets = Vec::new();
        for ((kind, name), sql) in &self.0 {
            for part in [kind, name, sql] {
                octets.extend((part.len() as u64).to_be_bytes());
                octets.extend(part.as_bytes());
            }
        }
        super::digest::sha256(&octets)
    }

    /// Returns what `found` has otherwise: at most `limit` sentences.
    pub fn differences(&self, found: &Self, limit: usize) -> Vec<String> {
        let absent = self.0.iter().filter_map(|(place, sql)| {
            let (kind, name) = place;
            match found.0.get(place) {
                None => Some(format!("{kind} {name} is missing")),
                Some(other) if other != sql => Some(format!("{kind} {name} was changed")),
                Some(_) => None,
            }
        });
        let added = found.0.keys().filter(|it| !self.0.contains_key(*it));
        let added = added.map(|(kind, name)| format!("{kind} {name} was added"));
        absent.chain(added).take(limit).collect()
    }
}

/// Reads the schema without what SQLite makes by itself (`sqlite_…`).
fn schema_of(tx: &Tx<'_>) -> Result<Schema, StoreError> {
    let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema
               WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let rows = tx.query_all(sql, params![], |row| {
        Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
    })?;
    Ok(Schema(rows.into_iter().collect()))
}
