//! Reads once what the operations of one transaction share, not for each certificate.
//!
//! A group has many requests for leaves by the same generation. Whether that serves, whether a
//! block is in force and where the journal ends is the same for all of them, until a statement of
//! the group changes it: [`Tx`] forgets these values before every statement that is not known to
//! leave them as they are. They end with the transaction, so no other process can make them wrong.

use super::engine::{Tx, params};
use super::{StoreError, client, generation};
use crate::ids::GenerationId;

/// The values that were read in this transaction.
#[derive(Default)]
pub(super) struct Readings {
    issuers: Vec<(GenerationId, IssuerReading)>,
    has_blocks: Option<bool>,
    has_individuals: Option<bool>,
    end_of_journal: Option<EndOfJournal>,
}

/// Whether a generation may issue leaves.
#[derive(Clone, Copy)]
pub(super) struct IssuerReading {
    pub(super) serves: bool,
    /// It or a generation above it is revoked.
    pub(super) is_revoked: bool,
}

/// Number and hash of the last entry of the audit journal.
#[derive(Clone, Copy, Default)]
pub(super) struct EndOfJournal {
    pub(super) sequence: i64,
    pub(super) hash: [u8; 32],
}

impl Readings {
    /// Forgets what a statement may change. Only `audit::append` writes the journal, and it notes
    /// its new end.
    pub(super) fn forget(&mut self) {
        self.issuers.clear();
        self.has_blocks = None;
        self.has_individuals = None;
    }
}

/// Returns whether `generation` may issue leaves.
pub(super) fn issuer(tx: &Tx<'_>, generation: GenerationId) -> Result<IssuerReading, StoreError> {
    let known = |readings: &Readings| {
        let known = readings.issuers.iter().find(|(id, _)| *id == generation);
        known.map(|(_, reading)| *reading)
    };
    if let Some(reading) = known(&tx.readings().borrow()) {
        return Ok(reading);
    }
    let reading = IssuerReading {
        serves: generation::serves(tx, generation)?,
        is_revoked: client::revoked_above(tx, generation)?.is_some(),
    };
    let mut readings = tx.readings().borrow_mut();
    readings.issuers.push((generation, reading));
    Ok(reading)
}

/// Returns whether any block is in force.
pub(super) fn has_blocks(tx: &Tx<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM block WHERE lifted_at IS NULL)";
    once(tx, |it| &mut it.has_blocks, sql)
}

/// Returns whether any enrollment is an individual one.
pub(super) fn has_individuals(tx: &Tx<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM enrollment WHERE kind = 'individual')";
    once(tx, |it| &mut it.has_individuals, sql)
}

fn once(
    tx: &Tx<'_>,
    field: fn(&mut Readings) -> &mut Option<bool>,
    sql: &str,
) -> Result<bool, StoreError> {
    if let Some(known) = *field(&mut tx.readings().borrow_mut()) {
        return Ok(known);
    }
    let read = tx.query_one(sql, params![], |row| row.get(0))?;
    *field(&mut tx.readings().borrow_mut()) = Some(read);
    Ok(read)
}

/// Returns the end of the audit journal.
pub(super) fn end_of_journal(tx: &Tx<'_>) -> Result<EndOfJournal, StoreError> {
    if let Some(known) = tx.readings().borrow().end_of_journal {
        return Ok(known);
    }
    let last = tx.query_optional(
        "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1",
        params![],
        |row| {
            Ok(EndOfJournal {
                sequence: row.get(0)?,
                hash: row.get(1)?,
            })
        },
    )?;
    Ok(last.unwrap_or_default())
}

/// Notes the end of the journal after an entry was appended.
pub(super) fn note_end_of_journal(tx: &Tx<'_>, end: EndOfJournal) {
    tx.readings().borrow_mut().end_of_journal = Some(end);
}
