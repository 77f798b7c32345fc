//! Blocks on record: what an operator excludes, since when and why, until the block is lifted.
//!
//! A block records what each restriction has changed, so that lifting it reverts that and nothing
//! else ([`super::exclusion`]).

use super::audit::AuditEntry;
use super::constraint::Constraint;
use super::engine::{Parameters, Row, Tx, params};
use super::enrollment::{self, EnrollmentKind, EnrollmentRow};
use super::exclusion::Excluded;
use super::json::{from_json, to_json};
use super::{Store, StoreError, UnixSeconds, individual};
use crate::enrollment::slots::Slots;
use crate::ids::{BlockId, EnrollmentId, GenerationNumber};
use serde::{Deserialize, Serialize};

pub use crate::enrollment::block_kind::BlockKind;

/// A block on record.
#[derive(Clone, Debug)]
pub struct BlockRow {
    pub id: BlockId,
    /// The kind of its subject.
    pub kind: BlockKind,
    /// Registration id, group id or authority.
    pub name: String,
    pub generation: Option<GenerationNumber>,
    /// The enrollments whose changes it reverts, also those that are deleted, each once. The
    /// individual enrollments that it disables are not among them.
    pub restricted: Vec<RestrictedEnrollment>,
    pub reason: String,
    pub blocked_by: String,
    /// When it was set.
    pub blocked_at: UnixSeconds,
    /// The operator who lifted it; `None` while it is in force.
    pub lifted_by: Option<String>,
    /// Unix seconds; `None` while it is in force.
    pub lifted_at: Option<UnixSeconds>,
    /// The last device that it has put on hold, while more follow; once it is lifted, some value
    /// until all certificates are off hold.
    pub reached: Option<String>,
}

/// An enrollment that a block restricts, as it was named then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestrictedEnrollment {
    /// The row id of the enrollment, while it exists.
    pub id: EnrollmentId,
    pub provisioning: String,
    pub kind: EnrollmentKind,
    /// Registration id or enrollment group id.
    pub name: String,
    /// The authority of a group.
    pub authority: Option<String>,
}

impl RestrictedEnrollment {
    /// Returns true if `row` is this enrollment: the row id of a deleted one is used again.
    pub fn is(&self, row: &EnrollmentRow) -> bool {
        row.provisioning == self.provisioning && row.kind == self.kind && row.name == self.name
    }
}

/// The step that reverts a restriction, in the form on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Undo {
    /// `leaving` is whether the group was being removed when the block came.
    Enable {
        id: EnrollmentId,
        leaving: bool,
    },
    Slots {
        id: EnrollmentId,
        from: Slots,
        to: Slots,
    },
    Remove(EnrollmentId),
    /// `leaving` is whether the enrollment was being removed when the block came. `added` is
    /// whether the block has added it, so that a group admits the device without it.
    Device {
        id: EnrollmentId,
        leaving: bool,
        added: bool,
    },
}

impl Undo {
    pub(super) fn enrollment(&self) -> EnrollmentId {
        match self {
            Undo::Remove(id) => *id,
            Undo::Enable { id, .. } | Undo::Device { id, .. } | Undo::Slots { id, .. } => *id,
        }
    }
}

pub(super) const OF_DEVICES_BETWEEN: &str =
    "WHERE lifted_at IS NULL AND kind = 'device' AND name > ?1 AND name <= ?2";
pub(super) const OF_MANY_DEVICES: &str =
    "WHERE lifted_at IS NULL AND kind IN ('group', 'generation')";

pub(super) const SELECT: &str = "SELECT id, kind, name, generation, reason, blocked_by, \
     blocked_at, lifted_at, lifted_by, reached, restricted FROM block";

impl Store {
    /// Returns blocks, newest first, at most `limit`; only those in force if `open`, and only those
    /// older than `after`.
    pub fn blocks(
        &self,
        open: bool,
        after: Option<BlockId>,
        limit: u32,
    ) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE id < coalesce(?2, 9223372036854775807)
                   AND (NOT ?1 OR lifted_at IS NULL) ORDER BY id DESC LIMIT ?3"
            );
            block_rows(tx, &select, params![open, after, limit])
        })
    }

    /// Returns the blocks in force of devices after registration id `after`, up to `last`.
    pub fn device_blocks_between(
        &self,
        after: &str,
        last: &str,
    ) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT} {OF_DEVICES_BETWEEN}");
            block_rows(tx, &select, params![after, last])
        })
    }

    /// Returns the blocks in force of groups and generations.
    pub fn blocks_of_many_devices(&self) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT} {OF_MANY_DEVICES}");
            block_rows(tx, &select, params![])
        })
    }

    /// Returns how many blocks are in force.
    pub fn active_block_count(&self) -> Result<i64, StoreError> {
        self.read(|tx| {
            let sql = "SELECT count(*) FROM block WHERE lifted_at IS NULL";
            tx.query_one(sql, params![], |row| row.get(0))
        })
    }

    /// Returns the blocks in force that restrict this enrollment, newest first.
    pub fn blocks_of_enrollment(
        &self,
        enrollment: EnrollmentId,
    ) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE lifted_at IS NULL AND (EXISTS (
                     SELECT 1 FROM json_each(block.undo) u, json_each(u.value) changed
                     WHERE changed.value = ?1 OR changed.value ->> '$.id' = ?1)
                   OR {})
                 ORDER BY id DESC",
                individual::IS_BLOCKED
            );
            block_rows(tx, &select, params![enrollment])
        })
    }

    /// Returns one block.
    pub fn block(&self, id: BlockId) -> Result<BlockRow, StoreError> {
        self.read(|tx| by_id(tx, id))
    }

    /// Returns the block of this subject that is in force.
    pub fn active_block(
        &self,
        kind: BlockKind,
        name: &str,
        generation: Option<GenerationNumber>,
    ) -> Result<Option<BlockRow>, StoreError> {
        self.read(|tx| {
            let id = active(tx, kind, name, generation)?;
            id.map(|id| by_id(tx, id)).transpose()
        })
    }

    /// Returns the blocks in force that a service or a hub has not confirmed, oldest first, at most
    /// `limit`.
    pub fn pending_blocks(&self, limit: u32) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE lifted_at IS NULL AND (reached IS NOT NULL
                     OR EXISTS (SELECT 1 FROM json_each(block.restricted) it
                                JOIN mark m ON m.enrollment = it.value ->> '$.id')
                     OR EXISTS (SELECT 1 FROM hub_task t WHERE t.cause = 'block'
                                  AND t.cause_id = block.id AND t.done_at IS NULL))
                 ORDER BY id LIMIT ?1"
            );
            block_rows(tx, &select, params![limit])
        })
    }

    /// Returns blocks with work left to do, those in force first.
    pub fn unfinished_blocks(&self) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select =
                format!("{SELECT} WHERE reached IS NOT NULL ORDER BY lifted_at IS NOT NULL, id");
            block_rows(tx, &select, params![])
        })
    }
}

pub(super) fn active(
    tx: &Tx<'_>,
    kind: BlockKind,
    name: &str,
    generation: Option<GenerationNumber>,
) -> Result<Option<BlockId>, StoreError> {
    tx.query_optional(
        "SELECT id FROM block WHERE kind = ?1 AND name = ?2 AND generation IS ?3
               AND lifted_at IS NULL",
        params![kind.name(), name, generation],
        |row| row.get(0),
    )
}

/// Returns the block in force of a group of this authority at a service.
pub(super) fn of_group_with(
    tx: &Tx<'_>,
    provisioning: &str,
    authority: &str,
) -> Result<Option<BlockId>, StoreError> {
    tx.query_optional(
        "SELECT b.id FROM block b JOIN enrollment e ON e.kind = 'group' AND e.name = b.name
         WHERE b.kind = 'group' AND b.lifted_at IS NULL
           AND e.provisioning = ?1 AND e.authority = ?2 LIMIT 1",
        params![provisioning, authority],
        |row| row.get(0),
    )
}

/// Returns whether a block of this device is in force.
pub(super) fn is_blocked(tx: &Tx<'_>, device: &str) -> Result<bool, StoreError> {
    Ok(active(tx, BlockKind::Device, device, None)?.is_some())
}

/// Records a block that is in force from now on.
pub(super) fn insert(
    tx: &Tx<'_>,
    subject: &Excluded,
    reason: &str,
    entry: &AuditEntry,
) -> Result<BlockId, StoreError> {
    let (kind, name, generation) = subject.key();
    let devices_follow = kind != BlockKind::Device;
    let inserted = tx.insert(
        "INSERT INTO block (kind, name, generation, reason, reached, blocked_by, blocked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
        params![
            kind.name(),
            name,
            generation,
            reason,
            devices_follow.then_some(""),
            entry.actor,
            entry.at
        ],
    );
    inserted.map_err(|error| match error {
        StoreError::Violates(Constraint::BlockStanding) => {
            StoreError::Conflict(format!("{name} is blocked already"))
        }
        other => other,
    })
}

/// Records what lifting a block reverts, and the names of the enrollments for its receipt.
pub(super) fn save_undo<'a>(
    tx: &Tx<'_>,
    id: BlockId,
    undo: impl Iterator<Item = &'a Undo>,
) -> Result<(), StoreError> {
    let undo: Vec<&Undo> = undo.collect();
    let mut restricted = by_id(tx, id)?.restricted;
    for row in undo.iter().map(|it| enrollment::find(tx, it.enrollment())) {
        let Some(row) = row? else { continue };
        if !restricted.iter().any(|it| it.id == row.id) {
            restricted.push(RestrictedEnrollment {
                id: row.id,
                provisioning: row.provisioning,
                kind: row.kind,
                name: row.name,
                authority: row.authority,
            });
        }
    }
    tx.execute(
        "UPDATE block SET undo = ?2, restricted = ?3 WHERE id = ?1",
        params![id, to_json(&undo)?, to_json(&restricted)?],
    )?;
    Ok(())
}

/// Leaves it to another block to revert a restriction, because that block needs it too.
pub(super) fn hand_over(tx: &Tx<'_>, other: BlockId, restriction: &Undo) -> Result<(), StoreError> {
    let undo = undo(tx, other)?;
    save_undo(tx, other, undo.iter().chain([restriction]))
}

/// Records that a block is lifted. Returns what that reverts.
pub(super) fn lift(tx: &Tx<'_>, id: BlockId, entry: &AuditEntry) -> Result<Vec<Undo>, StoreError> {
    let lifted = tx.execute(
        "UPDATE block SET lifted_at = ?2, lifted_by = ?3, reached = ''
         WHERE id = ?1 AND lifted_at IS NULL",
        params![id, entry.at, entry.actor],
    )?;
    match lifted {
        0 => Err(StoreError::Missing(format!("block {id} in force"))),
        _ => undo(tx, id),
    }
}

fn undo(tx: &Tx<'_>, id: BlockId) -> Result<Vec<Undo>, StoreError> {
    let sql = "SELECT undo FROM block WHERE id = ?1";
    from_json(&tx.query_one(sql, params![id], |row| row.get::<String>(0))?)
}

pub(super) fn by_id(tx: &Tx<'_>, id: BlockId) -> Result<BlockRow, StoreError> {
    let found = block_rows(tx, &format!("{SELECT} WHERE id = ?1"), params![id])?.pop();
    found.ok_or_else(|| StoreError::Missing(format!("block {id}")))
}

fn block_rows(
    tx: &Tx<'_>,
    select: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<BlockRow>, StoreError> {
    tx.query_all(select, parameters, from_row)
}

fn from_row(row: &Row<'_>) -> Result<BlockRow, StoreError> {
    Ok(BlockRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        name: row.get(2)?,
        generation: row.get(3)?,
        reason: row.get(4)?,
        blocked_by: row.get(5)?,
        blocked_at: row.get(6)?,
        lifted_at: row.get(7)?,
        lifted_by: row.get(8)?,
        reached: row.get(9)?,
        restricted: from_json(&row.get::<String>(10)?)?,
    })
}
