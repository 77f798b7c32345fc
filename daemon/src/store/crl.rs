//! Revocation lists: what stands on the next one, and the ones that were recorded and signed.
//!
//! A list is recorded before it is signed, under a number that is never used again. Old ones are
//! dropped once a newer one is signed: the audit journal keeps their digests.

use super::audit::{self, AuditEntry};
use super::issuance::sha256;
use super::stored_name::Stored;
use super::{Recorded, Store, StoreError};
use crate::x509::crl::Entry;
use crate::x509::serial::SerialNumber;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

/// What the next revocation list of a generation is made from.
#[derive(Clone, Debug)]
pub struct CrlDraft {
    /// The number that it takes.
    pub number: i64,
    /// All that is revoked or abandoned, oldest first.
    pub entries: Vec<Entry>,
    /// How far `generation.revocations` had counted; what came later is not in `entries`.
    pub revocations: i64,
}

/// A revocation list that is about to be signed.
#[derive(Clone, Debug)]
pub struct NewCrl {
    /// The generation whose key signs.
    pub generation: i64,
    /// Greater than all before.
    pub number: i64,
    /// The bytes to be signed, complete.
    pub tbs: Vec<u8>,
    /// Unix seconds.
    pub this_update: i64,
    /// Unix seconds.
    pub next_update: i64,
    /// From the draft.
    pub revocations: i64,
    /// How many entries the bytes have.
    pub entries: usize,
}

/// A revocation list on record, ready for the token.
#[derive(Debug)]
pub struct RecordedCrl(Recorded);

impl RecordedCrl {
    /// What the token signs.
    pub fn to_sign(&self) -> &Recorded {
        &self.0
    }
}

/// A signed revocation list.
#[derive(Clone, Debug)]
pub struct CrlRow {
    /// The generation that signed it.
    pub generation: i64,
    /// Its number.
    pub number: i64,
    /// DER.
    pub der: Vec<u8>,
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
    /// Unix seconds.
    pub this_update: i64,
    /// Unix seconds.
    pub next_update: i64,
    /// How far `generation.revocations` had counted.
    pub revocations: i64,
    /// How many entries it has.
    pub entries: i64,
    /// It was restored from a backup, and no newer one is signed.
    pub withheld: bool,
}

const SELECT: &str = "SELECT generation, number, der, this_update, next_update, revocations, \
     entries, (SELECT crl_withheld FROM generation g WHERE g.id = crl.generation)
     FROM crl WHERE der IS NOT NULL";

/// What `generation` has to list: revoked certificates, and serial numbers that its token may have
/// signed. Both stay until they were on a list that came after their end (RFC 5280 3.3): `?2` is
/// when the last one was made.
const ENTRIES: &str = "SELECT i.serial, c.revoked_at, c.revocation_reason, i.id
     FROM certificate c JOIN intent i ON i.id = c.intent
     WHERE c.revoked_at IS NOT NULL AND i.issuer = ?1
       AND (i.not_after >= ?2 OR c.revoked_at >= ?2)
     UNION ALL
     SELECT serial, abandoned_at, 0, id FROM intent
     WHERE state = 'abandoned' AND issuer = ?1
       AND (not_after >= ?2 OR abandoned_at >= ?2)
     ORDER BY 2, 4";

impl Store {
    /// What the next revocation list of `generation` is made from. Its number is one more than the
    /// last, and never less than `now`, the seconds since 1970: a database that was restored from a
    /// backup does not know the last ones, and uses none of them again (RFC 5280 5.2.3).
    pub fn draft_crl(&self, generation: i64, now: i64) -> Result<CrlDraft, StoreError> {
        self.read(|connection| {
            // First: what is counted meanwhile makes another list necessary, and is never missed.
            let (revocations, before_us): (_, i64) = connection
                .prepare_cached("SELECT revocations, crl_number FROM generation WHERE id = ?1")?
                .query_row([generation], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (newest, last_update): (i64, i64) = connection
                .prepare_cached(
                    "SELECT coalesce(max(number), 0),
                            coalesce(max(iif(der IS NULL, 0, this_update)), 0)
                     FROM crl WHERE generation = ?1",
                )?
                .query_row([generation], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut statement = connection.prepare_cached(ENTRIES)?;
            let entries = statement.query_map([generation, last_update], entry_from_row)?;
            Ok(CrlDraft {
                number: now.max(newest.max(before_us).saturating_add(1)),
                entries: entries.collect::<Result<_, _>>()?,
                revocations,
            })
        })
    }

    /// Records a revocation list durably before it is signed. The value that comes back is the only
    /// thing a token accepts.
    pub fn record_crl(&self, crl: NewCrl, entry: AuditEntry) -> Result<RecordedCrl, StoreError> {
        let tbs = crl.tbs.clone();
        let id = self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO crl (generation, number, tbs, this_update, next_update,
                         revocations, entries) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    crl.generation,
                    crl.number,
                    crl.tbs,
                    crl.this_update,
                    crl.next_update,
                    crl.revocations,
                    i64::try_from(crl.entries).unwrap_or(i64::MAX),
                ])?;
            let id = connection.last_insert_rowid();
            // One that was never signed is not signed any more: its number is used up.
            drop_older(connection, id, "der IS NULL")?;
            append(connection, &entry, &crl.tbs)?;
            Ok(id)
        })?;
        Ok(RecordedCrl(Recorded::new(id, tbs)))
    }

    /// Makes a signed revocation list the current one of its generation.
    pub fn record_signed_crl(
        &self,
        recorded: &RecordedCrl,
        der: &[u8],
        entry: AuditEntry,
    ) -> Result<CrlRow, StoreError> {
        let (id, der) = (recorded.0.id(), der.to_vec());
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE crl SET der = ?2 WHERE id = ?1")?
                .execute(params![id, der])?;
            drop_older(connection, id, "TRUE")?;
            // It has a greater number than the restored list, so it may be served.
            connection
                .prepare_cached(
                    "UPDATE generation SET crl_withheld = 0
                     WHERE id = (SELECT generation FROM crl WHERE id = ?1)",
                )?
                .execute([id])?;
            append(connection, &entry, &der)?;
            connection
                .prepare_cached(&format!("{SELECT} AND id = ?1"))?
                .query_row([id], from_row)
                .optional()?
                .ok_or_else(|| StoreError::Missing(format!("revocation list {id}")))
        })
    }

    /// The current revocation list of every generation that has one.
    pub fn current_crls(&self) -> Result<Vec<CrlRow>, StoreError> {
        self.read(|connection| {
            let newest = "number = (SELECT max(number) FROM crl newer
                           WHERE newer.generation = crl.generation AND newer.der IS NOT NULL)";
            let mut statement = connection.prepare_cached(&format!("{SELECT} AND {newest}"))?;
            let rows = statement.query_map([], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How often the revocation list of each generation had to change so far, by row id.
    pub fn revocation_counts(&self) -> Result<Vec<(i64, i64)>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT id, revocations FROM generation")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Drops the lists of the same generation that are older than this one, where `which` says so.
fn drop_older(connection: &Connection, id: i64, which: &str) -> Result<(), StoreError> {
    let delete = format!(
        "DELETE FROM crl WHERE {which}
         AND (generation, number) IN (
             SELECT older.generation, older.number FROM crl newer
             JOIN crl older ON older.generation = newer.generation AND older.number < newer.number
             WHERE newer.id = ?1)"
    );
    connection.prepare_cached(&delete)?.execute([id])?;
    Ok(())
}

fn append(connection: &Connection, entry: &AuditEntry, bytes: &[u8]) -> Result<(), StoreError> {
    let mut entry = entry.clone();
    entry.detail["sha256"] = json!(hex::encode(sha256(bytes)));
    audit::append(connection, &entry)
}

fn entry_from_row(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let unreadable = |message: String| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, message.into())
    };
    let octets: Vec<u8> = row.get(0)?;
    Ok(Entry {
        serial: SerialNumber::from_magnitude(&octets)
            .map_err(|refusal| unreadable(refusal.to_string()))?,
        revoked_at: row.get(1)?,
        reason: row.get::<_, Stored<_>>(2)?.0,
    })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<CrlRow> {
    let der: Vec<u8> = row.get(2)?;
    Ok(CrlRow {
        generation: row.get(0)?,
        number: row.get(1)?,
        sha256: sha256(&der),
        der,
        this_update: row.get(3)?,
        next_update: row.get(4)?,
        revocations: row.get(5)?,
        entries: row.get(6)?,
        withheld: row.get(7)?,
    })
}
