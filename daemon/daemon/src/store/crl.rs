//! Records revocation lists: drafts the next one, and keeps the newest signed one.
//!
//! A list is recorded before it is signed, under a number that is never used again. Complete and
//! delta lists, and those of all partitions of a generation, take their numbers from one sequence
//! (RFC 5280, section 5.2.3). Older lists are deleted once a newer one of the same kind is signed:
//! the audit journal keeps their digests.

use super::audit::{self, AuditEntry};
use super::digest::sha256;
use super::engine::dialect::last_byte;
use super::engine::{Row, Tx, params};
use super::{Recorded, Store, StoreError, UnixSeconds};
use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;
use crate::ids::{CrlId, GenerationId};
use crate::x509::crl::{Entry, names_delta};
use crate::x509::crl_partition::partition_name;
use crate::x509::serial::SerialNumber;
use serde_json::json;

/// The certificates that a list covers: all of a generation, or those of a partition of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrlPart {
    pub generation: GenerationId,
    /// How many partitions the generation has; 1 if its list is whole.
    pub count: u16,
    /// Which one, counted from 1.
    pub part: u16,
}

impl CrlPart {
    /// Returns the name of the partition, such as `3of8`; `None` if the list is whole.
    pub fn partition(self) -> Option<String> {
        (self.count > 1).then(|| partition_name(self.part, self.count))
    }
}

impl From<GenerationId> for CrlPart {
    fn from(generation: GenerationId) -> Self {
        Self {
            generation,
            count: 1,
            part: 1,
        }
    }
}

/// The contents of the next revocation list of a part.
#[derive(Clone, Debug)]
pub struct CrlDraft {
    /// The number that it takes.
    pub number: CrlNumber,
    /// All revoked certificates and abandoned serial numbers, oldest first; of a delta list, those
    /// that its base lacks.
    pub entries: Vec<Entry>,
    /// Of a delta list: those that its base or an earlier delta list has, and whose hold has ended.
    pub released: Vec<Entry>,
    /// Of a delta list: the number of its base.
    pub base: Option<CrlNumber>,
    /// The value of `generation.revocations`; later changes are not in `entries`.
    pub revocations: i64,
}

/// A revocation list to record before it is signed.
#[derive(Clone, Debug)]
pub struct NewCrl {
    /// The generation whose key signs.
    pub generation: GenerationId,
    /// Which partition of it, counted from 1.
    pub part: u16,
    /// Of a delta list: the number of its base.
    pub base: Option<CrlNumber>,
    /// Greater than all earlier numbers.
    pub number: CrlNumber,
    /// The bytes to be signed, complete.
    pub tbs: Der,
    /// When it was made.
    pub this_update: UnixSeconds,
    /// When the next one is due.
    pub next_update: UnixSeconds,
    /// The value in the draft.
    pub revocations: i64,
    /// How many entries the list has.
    pub entries: usize,
}

/// A revocation list on record, ready for the token.
#[derive(Debug)]
pub struct RecordedCrl(Recorded<CrlId>);

impl RecordedCrl {
    /// Returns what the token signs.
    pub fn to_sign(&self) -> &Recorded<CrlId> {
        &self.0
    }
}

/// A signed revocation list.
#[derive(Clone, Debug)]
pub struct CrlRow {
    /// The generation that signed it.
    pub generation: GenerationId,
    /// Which partition of it, counted from 1.
    pub part: u16,
    /// Of a delta list: the number of its base.
    pub base: Option<CrlNumber>,
    pub number: CrlNumber,
    pub der: Der,
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
    /// When it was made.
    pub this_update: UnixSeconds,
    /// When the next one is due.
    pub next_update: UnixSeconds,
    /// The value of `generation.revocations` when the entries were read.
    pub revocations: i64,
    /// How many entries it has.
    pub entries: i64,
    /// It was restored from a backup, and no newer list is signed.
    pub withheld: bool,
    /// Whether it names the address of a delta list.
    pub names_delta: bool,
}

/// A part of a generation's list, and `generation.revocations` when it last had to change.
type CrlCount = ((GenerationId, u16), i64);

/// Numbers of lists for each second of the clock: more than a token can sign.
const NUMBERS_EACH_SECOND: i64 = 1_000;

/// A restore withholds each list until a newer one of its partition is signed.
const SELECT: &str = "SELECT generation, number, der, this_update, next_update, revocations,
     entries, (SELECT g.crl_withheld = 1
                      AND (p.part IS NULL OR crl.revocations < p.revocations)
               FROM generation g LEFT JOIN crl_partition p ON p.generation = g.id
                   AND p.part = crl.part
               WHERE g.id = crl.generation), part, base
     FROM crl WHERE der IS NOT NULL";

/// Whether the last octet of a serial number is that of partition `?4` of `?3`: the rule of
/// `x509::crl_partition::part_of`, and of the triggers that count changes.
macro_rules! is_in_part {
    ($serial:literal) => {
        concat!("(?3 = 1 OR ", last_byte!($serial), " % ?3 + 1 = ?4) ")
    };
}

/// The entries of a generation's list: revoked certificates, abandoned serial numbers, and serial
/// numbers that were revoked before the authority was adopted. They stay until they were on a list
/// that was made after their end (RFC 5280, section 3.3). `?2` is the date of the last complete
/// list, and `?3` how many partitions there are, of which `?4` is this one.
pub(super) const ENTRIES: &str = concat!(
    "SELECT i.serial, c.revoked_at, c.revocation_reason, i.id
     FROM certificate c JOIN intent i ON i.id = c.intent
     WHERE c.revoked_at IS NOT NULL AND i.issuer = ?1 AND i.issued_elsewhere = 0
       AND (i.not_after >= ?2 OR c.revoked_at >= ?2) AND ",
    is_in_part!("i.serial"),
    "UNION ALL
     SELECT serial, abandoned_at, 0, id FROM intent
     WHERE ended = 'abandoned' AND issuer = ?1
       AND (not_after >= ?2 OR abandoned_at >= ?2) AND ",
    is_in_part!("serial"),
    "UNION ALL
     SELECT serial, revoked_at, revocation_reason, 0 FROM former_certificate
     WHERE revoked_at IS NOT NULL AND generation = ?1
       AND (not_after IS NULL OR not_after >= ?2 OR revoked_at >= ?2) AND ",
    is_in_part!("serial"),
    "ORDER BY 2, 4"
);

impl Store {
    /// Returns what the next complete revocation list of a part is made from. Its number is one
    /// more than the last, and never less than [`NUMBERS_EACH_SECOND`] times `now`: a database
    /// that was restored from a backup does not know the last numbers and must use none of them
    /// again (RFC 5280, section 5.2.3). The first number after a restore is that of the next
    /// second, since lists may have been signed in this one.
    pub fn draft_crl(
        &self,
        of: impl Into<CrlPart>,
        now: UnixSeconds,
    ) -> Result<CrlDraft, StoreError> {
        let CrlPart {
            generation,
            count,
            part,
        } = of.into();
        self.read(|tx| {
            // Read first: a change counted after this makes another list necessary.
            let (revocations, before_us, restored): (_, CrlNumber, i64) = tx.query_one(
                "SELECT revocations, crl_number, crl_withheld FROM generation WHERE id = ?1",
                params![generation],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
            let least = (now.get() + restored).saturating_mul(NUMBERS_EACH_SECOND);
            let (newest, last_update): (Option<CrlNumber>, UnixSeconds) = tx.query_one(
                "SELECT max(number), coalesce(max(this_update) FILTER (
                     WHERE der IS NOT NULL AND base IS NULL AND part = ?2), 0)
                 FROM crl WHERE generation = ?1",
                params![generation, part],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            Ok(CrlDraft {
                number: newest
                    .unwrap_or(before_us)
                    .max(before_us)
                    .next()
                    .max(CrlNumber::new(least)),
                entries: tx.query_all(
                    ENTRIES,
                    params![generation, last_update, count, part],
                    entry_from_row,
                )?,
                released: Vec::new(),
                base: None,
                revocations,
            })
        })
    }

    /// Records a revocation list durably before it is signed. A token signs nothing but the
    /// returned value.
    pub fn record_crl(&self, crl: NewCrl, entry: AuditEntry) -> Result<RecordedCrl, StoreError> {
        let tbs = crl.tbs.clone();
        let id = self.write(move |tx| {
            let id = tx.insert(
                "INSERT INTO crl (generation, number, tbs, this_update, next_update,
                     revocations, entries, part, base)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
                params![
                    crl.generation,
                    crl.number,
                    crl.tbs,
                    crl.this_update,
                    crl.next_update,
                    crl.revocations,
                    i64::try_from(crl.entries).unwrap_or(i64::MAX),
                    crl.part,
                    crl.base,
                ],
            )?;
            // A list that was not signed will not be signed: its number is used up.
            drop_older(tx, id, "der IS NULL")?;
            append(tx, &entry, &crl.tbs)?;
            Ok(id)
        })?;
        Ok(RecordedCrl(Recorded::new(id, tbs)))
    }

    /// Makes a signed revocation list the current one of its generation.
    pub fn record_signed_crl(
        &self,
        recorded: &RecordedCrl,
        der: Der,
        entry: AuditEntry,
    ) -> Result<CrlRow, StoreError> {
        let id = recorded.0.id();
        self.write(move |tx| {
            tx.execute("UPDATE crl SET der = ?2 WHERE id = ?1", params![id, der])?;
            drop_older(
                tx,
                id,
                "crl.part = (SELECT part FROM crl WHERE id = ?1)
                 AND (crl.base IS NULL) = (SELECT base IS NULL FROM crl WHERE id = ?1)",
            )?;
            // Its number is greater than that of the restored list, so it may be served. Of
            // partitions, the last one ends what a restore has begun.
            tx.execute(
                "UPDATE generation SET crl_withheld = 0
                 WHERE id = (SELECT generation FROM crl WHERE id = ?1 AND base IS NULL)
                   AND crl_withheld = 1 AND NOT EXISTS (
                     SELECT 1 FROM crl_partition p WHERE p.generation = generation.id
                       AND NOT EXISTS (SELECT 1 FROM crl c WHERE c.generation = p.generation
                           AND c.part = p.part AND c.base IS NULL AND c.der IS NOT NULL
                           AND c.revocations >= p.revocations))",
                params![id],
            )?;
            append(tx, &entry, &der)?;
            tx.query_optional(&format!("{SELECT} AND id = ?1"), params![id], from_row)?
                .ok_or_else(|| StoreError::Missing(format!("revocation list {id}")))
        })
    }

    /// Returns the newest lists of each part: the complete one, and the delta list.
    pub fn current_crls(&self) -> Result<Vec<CrlRow>, StoreError> {
        self.read(|tx| {
            let newest = "number = (SELECT max(number) FROM crl newer
                           WHERE newer.generation = crl.generation AND newer.part = crl.part
                             AND (newer.base IS NULL) = (crl.base IS NULL)
                             AND newer.der IS NOT NULL)";
            tx.query_all(&format!("{SELECT} AND {newest}"), params![], from_row)
        })
    }

    /// Returns how often the list of each generation had to change when a part of it last did, by
    /// row id and part.
    pub fn revocation_counts(&self) -> Result<Vec<CrlCount>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "SELECT g.id, coalesce(p.part, 1), coalesce(p.revocations, g.revocations)
                 FROM generation g LEFT JOIN crl_partition p ON p.generation = g.id",
                params![],
                |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)),
            )
        })
    }
}

/// Deletes older lists of the same generation that match the condition `which`.
fn drop_older(tx: &Tx<'_>, id: CrlId, which: &str) -> Result<(), StoreError> {
    let delete = format!(
        "DELETE FROM crl WHERE {which}
         AND (generation, number) IN (
             SELECT older.generation, older.number FROM crl newer
             JOIN crl older ON older.generation = newer.generation AND older.number < newer.number
             WHERE newer.id = ?1)"
    );
    tx.execute(&delete, params![id])?;
    Ok(())
}

/// Counts a change of a generation's list that no trigger counts, because it is not of one
/// certificate: all of its partitions are signed again.
pub(super) fn count_change(tx: &Tx<'_>, generation: GenerationId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE generation SET revocations = revocations + 1 WHERE id = ?1",
        params![generation],
    )?;
    tx.execute(
        "UPDATE crl_partition
         SET revocations = (SELECT g.revocations FROM generation g WHERE g.id = ?1)
         WHERE generation = ?1",
        params![generation],
    )?;
    Ok(())
}

fn append(tx: &Tx<'_>, entry: &AuditEntry, bytes: &[u8]) -> Result<(), StoreError> {
    let mut entry = entry.clone();
    entry.detail["sha256"] = json!(hex::encode(sha256(bytes)));
    audit::append(tx, &entry)
}

fn entry_from_row(row: &Row<'_>) -> Result<Entry, StoreError> {
    let octets: Vec<u8> = row.get(0)?;
    Ok(Entry {
        serial: SerialNumber::from_magnitude(&octets)
            .map_err(|refusal| StoreError::Unreadable(refusal.to_string()))?,
        revoked_at: row.get(1)?,
        reason: row.get(2)?,
    })
}

fn from_row(row: &Row<'_>) -> Result<CrlRow, StoreError> {
    let der: Der = row.get(2)?;
    Ok(CrlRow {
        generation: row.get(0)?,
        number: row.get(1)?,
        sha256: sha256(&der),
        names_delta: names_delta(&der),
        der,
        this_update: row.get(3)?,
        next_update: row.get(4)?,
        revocations: row.get(5)?,
        entries: row.get(6)?,
        withheld: row.get(7)?,
        part: row.get(8)?,
        base: row.get(9)?,
    })
}
