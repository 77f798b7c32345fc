//! Blocks: whom an operator keeps out, since when and why, until the block is lifted.
//!
//! A block and what it brings about (status and slots of enrollments, certificates on hold, work at
//! the hub) are one transaction, and so is its end. What a block has changed is written down in it,
//! so that lifting it puts back that and nothing else.

use super::audit::{self, AuditEntry};
use super::breach::{self, Door, breached_until, delete_task};
use super::enrollment::{self, EnrollmentRow, by_id, from_json, save_slots, set_status, to_json};
use super::hub_task::{self, HubCause};
use super::mark::{self, MarkSubject};
use super::revocation::{self, Revocation, Revoked};
use super::{Store, StoreError, issuance, precedence, roll};
use crate::enrollment::roll::RollReason;
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::x509::revocation::RevocationReason;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// Who is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    /// One device.
    Device,
    /// All devices of an enrollment group.
    Group,
    /// All devices below a generation of an authority.
    Generation,
}

impl BlockKind {
    /// The name on record.
    pub fn name(self) -> &'static str {
        match self {
            BlockKind::Device => "device",
            BlockKind::Group => "group",
            BlockKind::Generation => "generation",
        }
    }
}

/// A block as it stands.
#[derive(Clone, Debug)]
pub struct BlockRow {
    /// Row id.
    pub id: i64,
    /// Who is kept out.
    pub kind: BlockKind,
    /// Registration id, group id or authority.
    pub name: String,
    /// The generation's number.
    pub generation: Option<i64>,
    /// The enrollments that keep them out.
    pub enrollments: Vec<i64>,
    /// Why, in the operator's words.
    pub reason: String,
    /// By whom.
    pub blocked_by: String,
    /// Unix seconds.
    pub blocked_at: i64,
    /// Unix seconds; `None` while it stands.
    pub lifted_at: Option<i64>,
}

/// A block to begin.
#[derive(Clone, Debug)]
pub struct NewBlock {
    /// Who is kept out.
    pub kind: BlockKind,
    /// Registration id in the spelling on record, group id, or authority.
    pub name: String,
    /// The generation's number.
    pub generation: Option<i64>,
    /// Why, in the operator's words.
    pub reason: String,
    /// What goes on hold.
    pub holds: Vec<Revocation>,
    /// The devices whose identities go, and the service whose hub has them.
    pub devices: Vec<(String, String)>,
    /// How the services keep them out.
    pub bars: Vec<Bar>,
}

/// How one service keeps somebody out.
#[derive(Clone, Debug)]
pub enum Bar {
    /// The device's own enrollment is disabled; made if need be.
    Device(Door),
    /// The enrollment is disabled.
    Disable(i64),
    /// These certificates leave the group's slots.
    ShutOut(i64, Vec<Thumbprint>),
    /// A disabled group of its own holds the certificate, once `after` has let go of it.
    Own {
        /// The provisioning service.
        provisioning: String,
        /// The new group's id.
        name: String,
        /// The authority.
        authority: String,
        /// The certificate.
        certificate: Thumbprint,
        /// The enrollment that must be settled first.
        after: Option<i64>,
    },
}

/// What lifting a block puts back.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Undo {
    Enable(i64),
    Slots { id: i64, from: Slots, to: Slots },
    Remove(i64),
    Device(i64),
}

impl Undo {
    fn enrollment(&self) -> i64 {
        match self {
            Undo::Enable(id) | Undo::Remove(id) | Undo::Device(id) | Undo::Slots { id, .. } => *id,
        }
    }
}

const SELECT: &str = "SELECT id, kind, name, generation, undo, reason, blocked_by, blocked_at, \
     lifted_at FROM block";

impl Store {
    /// Blocks, newest first, at most `limit`; only those that stand if `open`.
    pub fn blocks(&self, open: bool, limit: u32) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|connection| {
            let select =
                format!("{SELECT} WHERE NOT ?1 OR lifted_at IS NULL ORDER BY id DESC LIMIT ?2");
            let mut statement = connection.prepare_cached(&select)?;
            let mut rows = statement.query(params![open, limit])?;
            let mut blocks = Vec::new();
            while let Some(row) = rows.next()? {
                blocks.push(from_row(row)?);
            }
            Ok(blocks)
        })
    }

    /// How many blocks stand.
    pub fn standing_block_count(&self) -> Result<i64, StoreError> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM block WHERE lifted_at IS NULL";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
    }

    /// The blocks that stand and have changed this enrollment, newest first.
    pub fn blocks_of_enrollment(&self, enrollment: i64) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|connection| {
            let select = format!(
                "{SELECT} WHERE lifted_at IS NULL AND EXISTS (
                     SELECT 1 FROM json_each(block.undo) u, json_each(u.value) changed
                     WHERE changed.value = ?1 OR changed.value ->> '$.id' = ?1)
                 ORDER BY id DESC"
            );
            let mut statement = connection.prepare_cached(&select)?;
            let mut rows = statement.query([enrollment])?;
            let mut blocks = Vec::new();
            while let Some(row) = rows.next()? {
                blocks.push(from_row(row)?);
            }
            Ok(blocks)
        })
    }

    /// One block.
    pub fn block(&self, id: i64) -> Result<BlockRow, StoreError> {
        self.read(|connection| block_by_id(connection, id))
    }

    /// The block that stands of this subject.
    pub fn standing_block(
        &self,
        kind: BlockKind,
        name: &str,
        generation: Option<i64>,
    ) -> Result<Option<BlockRow>, StoreError> {
        self.read(|connection| {
            let id: Option<i64> = connection
                .prepare_cached(
                    "SELECT id FROM block WHERE kind = ?1 AND name = ?2 AND generation IS ?3
                       AND lifted_at IS NULL",
                )?
                .query_row(params![kind.name(), name, generation], |row| row.get(0))
                .optional()?;
            id.map(|id| block_by_id(connection, id)).transpose()
        })
    }

    /// Keeps somebody out. Refused if a block of the same subject stands.
    pub fn start_block(
        &self,
        new: NewBlock,
        entry: AuditEntry,
    ) -> Result<(BlockRow, Revoked), StoreError> {
        self.write(move |connection| start(connection, &new, &entry))
    }

    /// Lifts a block: holds are lifted, and what it changed is put back. A device goes back to its
    /// group, unless a leaf of it that is breached would come back with it.
    pub fn lift_block(
        &self,
        id: i64,
        holds: Vec<Revocation>,
        entry: AuditEntry,
    ) -> Result<Revoked, StoreError> {
        self.write(move |connection| lift(connection, id, &holds, &entry))
    }
}

/// Whether a block of this device stands.
pub(super) fn is_blocked(connection: &Connection, device: &str) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM block WHERE kind = 'device' AND name = ?1
                              AND lifted_at IS NULL)",
        )?
        .query_row([device], |row| row.get(0))?)
}

fn start(
    connection: &Connection,
    new: &NewBlock,
    entry: &AuditEntry,
) -> Result<(BlockRow, Revoked), StoreError> {
    precedence::block(connection, new)?;
    connection
        .execute(
            "INSERT INTO block (kind, name, generation, reason, blocked_by, blocked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                new.kind.name(),
                new.name,
                new.generation,
                new.reason,
                entry.actor,
                entry.at
            ],
        )
        .map_err(|error| match StoreError::from(error) {
            StoreError::Conflict(_) => {
                StoreError::Conflict(format!("{} is blocked already", new.name))
            }
            other => other,
        })?;
    let id = connection.last_insert_rowid();
    if new.kind == BlockKind::Device {
        let reason = "its device was blocked";
        issuance::abandon_leaves(connection, &new.name, reason, entry.at)?;
    }
    let mut undo = Vec::new();
    for bar in &new.bars {
        undo.extend(put_up(connection, new, bar, entry)?);
    }
    connection.execute(
        "UPDATE block SET undo = ?2 WHERE id = ?1",
        params![id, to_json(&undo)?],
    )?;
    let mut revoked = Revoked::default();
    for hold in &new.holds {
        let done = revocation::revoke(connection, hold, RevocationReason::CertificateHold)?;
        revoked.changed.extend(done.changed);
        revoked.unchanged.extend(done.unchanged);
    }
    queue_deletions(connection, id, new, &undo, entry.at)?;
    audit::append(connection, entry)?;
    Ok((block_by_id(connection, id)?, revoked))
}

/// Each identity goes once an enrollment at its service that keeps the device out is settled.
fn queue_deletions(
    connection: &Connection,
    block: i64,
    new: &NewBlock,
    undo: &[Undo],
    at: i64,
) -> Result<(), StoreError> {
    let mut barred = Vec::new();
    for it in undo {
        let row = by_id(connection, it.enrollment())?;
        barred.push((row.provisioning, row.id));
    }
    for (provisioning, device) in &new.devices {
        // The last one: a group of its own comes after the slots have let go.
        let after = barred.iter().rev().find(|(at, _)| at == provisioning);
        if let Some((_, enrollment)) = after {
            let task = delete_task(provisioning, device, *enrollment);
            hub_task::queue(connection, HubCause::Block(block), &[task], at)?;
        }
    }
    Ok(())
}

fn put_up(
    connection: &Connection,
    new: &NewBlock,
    bar: &Bar,
    entry: &AuditEntry,
) -> Result<Option<Undo>, StoreError> {
    let disable = |row: &EnrollmentRow| -> Result<(), StoreError> {
        set_status(connection, row.id, false)?;
        mark::raise_urgent(connection, row.id, "blocked", entry.at)
    };
    Ok(match bar {
        Bar::Device(door) => {
            let row = breach::inside(connection, &new.name, door, entry.at)?;
            disable(&row)?;
            Some(Undo::Device(row.id))
        }
        Bar::Disable(id) => {
            let row = by_id(connection, *id)?;
            disable(&row)?;
            // One that is disabled already is let in by whoever has disabled it, but not before this
            // block is lifted. A group that keeps a certificate out is never enabled.
            row.overlay_of.is_none().then_some(Undo::Enable(row.id))
        }
        Bar::ShutOut(id, certificates) => {
            let row = by_id(connection, *id)?;
            let left = row.slots.clone().shut_out(certificates, None);
            let left = left.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
            save_slots(connection, row.id, &left.slots)?;
            mark::raise_urgent(connection, row.id, "generation blocked", entry.at)?;
            Some(Undo::Slots {
                id: row.id,
                from: row.slots,
                to: left.slots,
            })
        }
        Bar::Own {
            provisioning,
            name,
            authority,
            certificate,
            after,
        } => {
            let slots = Slots::Empty
                .serve(*certificate)
                .map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
            let id = enrollment::add_disabled_group(
                connection,
                provisioning,
                name,
                authority,
                &slots,
                *after,
                entry.at,
            )?;
            mark::raise_urgent(connection, id, "generation blocked", entry.at)?;
            Some(Undo::Remove(id))
        }
    })
}

fn lift(
    connection: &Connection,
    id: i64,
    holds: &[Revocation],
    entry: &AuditEntry,
) -> Result<Revoked, StoreError> {
    let undo: Option<String> = connection
        .prepare_cached("SELECT undo FROM block WHERE id = ?1 AND lifted_at IS NULL")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    let undo = undo.ok_or_else(|| StoreError::Missing(format!("block {id} that stands")))?;
    connection.execute(
        "UPDATE block SET lifted_at = ?2 WHERE id = ?1",
        params![id, entry.at],
    )?;
    connection.execute(
        "DELETE FROM hub_task WHERE cause = 'block' AND cause_id = ?1 AND done_at IS NULL",
        [id],
    )?;
    let mut revoked = Revoked::default();
    for hold in holds {
        let done = revocation::unrevoke(connection, hold)?;
        revoked.changed.extend(done.changed);
        revoked.unchanged.extend(done.unchanged);
    }
    // Backwards: what came after the other goes before it.
    let mut first = None;
    for undo in from_json::<Vec<Undo>>(&undo)?.into_iter().rev() {
        take_down(connection, &undo, first, entry.at)?;
        if let Undo::Remove(own) = undo {
            first = Some(own);
        }
    }
    audit::append(connection, entry)?;
    Ok(revoked)
}

fn take_down(
    connection: &Connection,
    undo: &Undo,
    first: Option<i64>,
    at: i64,
) -> Result<(), StoreError> {
    let Some(row) = enrollment::find(connection, undo.enrollment())? else {
        return Ok(());
    };
    match undo {
        // A breach since then, or another block, keeps it disabled.
        Undo::Enable(id)
            if precedence::is_kept_out(connection, *id)?
                || precedence::any_void(connection, &row.slots.held())? =>
        {
            return Ok(());
        }
        Undo::Enable(id) => set_status(connection, *id, true)?,
        Undo::Remove(_) if precedence::any_void(connection, &row.slots.held())? => return Ok(()),
        Undo::Slots { from, .. } if precedence::any_void(connection, &from.held())? => {
            return Ok(());
        }
        Undo::Remove(id) => {
            // It came after what it took the certificate from; now that one comes after it.
            enrollment::set_after(connection, *id, None)?;
            enrollment::set_removed(connection, *id)?;
        }
        Undo::Slots { id, from, to } if row.slots == *to => {
            save_slots(connection, *id, from)?;
            // The service takes a certificate in one enrollment only.
            enrollment::set_after(connection, *id, first)?;
        }
        Undo::Slots { .. } => return Ok(()),
        Undo::Device(id) => {
            let_back(connection, &row)?;
            if row.overlay_of.is_some() && breached_until(connection, &row.name, at)?.is_none() {
                enrollment::set_removed(connection, *id)?;
            }
        }
    }
    mark::raise(
        connection,
        MarkSubject::Enrollment(row.id),
        "block lifted",
        at,
    )
}

/// Enables a device's enrollment, unless a compromise still waits for a new leaf.
fn let_back(connection: &Connection, row: &EnrollmentRow) -> Result<(), StoreError> {
    let breached = roll::open_roll(connection, row.id)?.is_some_and(|open| {
        open.reason == RollReason::Compromise && open.new_certificate.is_none()
    });
    set_status(connection, row.id, !breached)
}

fn block_by_id(connection: &Connection, id: i64) -> Result<BlockRow, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    let mut rows = statement.query([id])?;
    match rows.next()? {
        Some(row) => from_row(row),
        None => Err(StoreError::Missing(format!("block {id}"))),
    }
}

fn from_row(row: &Row<'_>) -> Result<BlockRow, StoreError> {
    let kind = match row.get::<_, String>(1)?.as_str() {
        "group" => BlockKind::Group,
        "generation" => BlockKind::Generation,
        _ => BlockKind::Device,
    };
    let undo: Vec<Undo> = from_json(&row.get::<_, String>(4)?)?;
    Ok(BlockRow {
        id: row.get(0)?,
        kind,
        name: row.get(2)?,
        generation: row.get(3)?,
        enrollments: undo.iter().map(Undo::enrollment).collect(),
        reason: row.get(5)?,
        blocked_by: row.get(6)?,
        blocked_at: row.get(7)?,
        lifted_at: row.get(8)?,
    })
}
