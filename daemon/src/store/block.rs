//! Blocks: whom an operator keeps out, since when and why, until the block is lifted.
//!
//! A block and what shuts out (status and slots of enrollments, the issuing that is refused from then
//! on) are one transaction, and so is its end. What it does to each of many devices follows in chunks
//! ([`super::hold`]). What a block has changed is written down in it, so that lifting it puts back
//! that and nothing else.

use super::audit::{self, AuditEntry};
use super::compromise::{self, compromised_until};
use super::constraint::Constraint;
use super::door;
use super::engine::{Parameters, Row, Tx, params};
use super::enrollment::{self, EnrollmentRow, by_id, save_slots, set_status};
use super::json::{from_json, to_json};
use super::mark::{self, MarkSubject};
use super::revocation::{Revocation, Revoked};
use super::{Store, StoreError, abandon, hold, precedence, roll};
use crate::enrollment::roll::RollReason;
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
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
    /// When it was set.
    pub blocked_at: i64,
    /// Who lifted it; `None` while it stands.
    pub lifted_by: Option<String>,
    /// Unix seconds; `None` while it stands.
    pub lifted_at: Option<i64>,
    /// The last device that it has put on hold, while there are more to come; once lifted, some
    /// value until all is given back.
    pub reached: Option<String>,
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
    /// What goes on hold at once.
    pub holds: Vec<Revocation>,
    /// The devices whose identities go at once, each with a service whose hub may have it.
    pub devices: Vec<(String, String)>,
    /// Whether there are devices below, which follow in chunks ([`Store::hold_devices`]).
    pub fleet: bool,
    /// The newest group when `bars` were put together, if they are of groups: a newer one refuses.
    pub newest_group: Option<i64>,
    /// How the services keep them out.
    pub bars: Vec<Bar>,
}

/// How one service keeps somebody out.
#[derive(Clone, Debug)]
pub enum Bar {
    /// The device's own enrollments are disabled, at each of these services that lets it in; made if
    /// need be.
    Device(Vec<String>),
    /// The enrollment is disabled.
    Disable(i64),
    /// These certificates leave the group's slots.
    ShutOut(i64, Vec<Thumbprint>),
    /// A disabled group of its own holds the certificate.
    Own(BlockingGroup),
}

/// A disabled group that holds one certificate, once `after` has let go of it: the service takes a
/// certificate in one enrollment only, and finds this one before any group of an authority above.
#[derive(Clone, Debug)]
pub struct BlockingGroup {
    /// The provisioning service.
    pub provisioning: String,
    /// The authority.
    pub authority: String,
    /// The generation's number; the group is called after both.
    pub number: i64,
    /// The generation's certificate.
    pub certificate: Thumbprint,
    /// The enrollment that must be settled first.
    pub after: Option<i64>,
}

impl BlockingGroup {
    /// Adds it, if it is not there, and has it written before anything else.
    pub(super) fn add(&self, tx: &Tx<'_>, why: &'static str, at: i64) -> Result<i64, StoreError> {
        let slots = Slots::Serving {
            slot: SlotName::Primary,
            certificate: self.certificate,
        };
        let name = format!("{}-blocked-{}", self.authority, self.number);
        let (service, authority) = (&self.provisioning, &self.authority);
        let id =
            enrollment::add_disabled_group(tx, service, &name, authority, &slots, self.after, at)?;
        mark::raise_urgent(tx, id, why, at)?;
        Ok(id)
    }
}

/// What lifting a block puts back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Undo {
    Enable(i64),
    Slots {
        id: i64,
        from: Slots,
        to: Slots,
    },
    Remove(i64),
    /// `leaving` is whether it was on its way out when the block came.
    Device {
        id: i64,
        leaving: bool,
    },
}

impl Undo {
    pub(super) fn enrollment(&self) -> i64 {
        match self {
            Undo::Enable(id) | Undo::Remove(id) => *id,
            Undo::Device { id, .. } | Undo::Slots { id, .. } => *id,
        }
    }
}

const SELECT: &str = "SELECT id, kind, name, generation, undo, reason, blocked_by, blocked_at, \
     lifted_at, lifted_by, reached FROM block";

impl Store {
    /// Blocks, newest first, at most `limit`; only those that stand if `open`, and those that come
    /// `after` this one, which are older.
    pub fn blocks(
        &self,
        open: bool,
        after: Option<i64>,
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

    /// How many blocks stand.
    pub fn standing_block_count(&self) -> Result<i64, StoreError> {
        self.read(|tx| {
            let sql = "SELECT count(*) FROM block WHERE lifted_at IS NULL";
            tx.query_one(sql, params![], |row| row.get(0))
        })
    }

    /// The blocks that stand and have changed this enrollment, newest first.
    pub fn blocks_of_enrollment(&self, enrollment: i64) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} WHERE lifted_at IS NULL AND EXISTS (
                     SELECT 1 FROM json_each(block.undo) u, json_each(u.value) changed
                     WHERE changed.value = ?1 OR changed.value ->> '$.id' = ?1)
                 ORDER BY id DESC"
            );
            block_rows(tx, &select, params![enrollment])
        })
    }

    /// One block.
    pub fn block(&self, id: i64) -> Result<BlockRow, StoreError> {
        self.read(|tx| block_by_id(tx, id))
    }

    /// The block that stands of this subject.
    pub fn standing_block(
        &self,
        kind: BlockKind,
        name: &str,
        generation: Option<i64>,
    ) -> Result<Option<BlockRow>, StoreError> {
        self.read(|tx| {
            let id: Option<i64> = tx.query_optional(
                "SELECT id FROM block WHERE kind = ?1 AND name = ?2 AND generation IS ?3
                 AND lifted_at IS NULL",
                params![kind.name(), name, generation],
                |row| row.get(0),
            )?;
            id.map(|id| block_by_id(tx, id)).transpose()
        })
    }

    /// Keeps somebody out. Refused if a block of the same subject stands.
    pub fn start_block(
        &self,
        new: NewBlock,
        entry: AuditEntry,
    ) -> Result<(BlockRow, Revoked), StoreError> {
        self.write(move |tx| start(tx, &new, &entry))
    }

    /// Lifts a block: what it changed is put back, and the first chunk of what it holds comes off
    /// hold; the others follow ([`Store::release_holds`]). A device goes back to its group, unless a
    /// leaf of it that is compromised would come back with it.
    pub fn lift_block(&self, id: i64, entry: AuditEntry) -> Result<Revoked, StoreError> {
        self.write(move |tx| lift(tx, id, &entry))
    }

    /// Blocks with work left to do, those that stand first.
    pub fn unfinished_blocks(&self) -> Result<Vec<BlockRow>, StoreError> {
        self.read(|tx| {
            let select =
                format!("{SELECT} WHERE reached IS NOT NULL ORDER BY lifted_at IS NOT NULL, id");
            block_rows(tx, &select, params![])
        })
    }
}

/// Whether a block of this device stands.
pub(super) fn is_blocked(tx: &Tx<'_>, device: &str) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM block WHERE kind = 'device' AND name = ?1
         AND lifted_at IS NULL)",
        params![device],
        |row| row.get(0),
    )
}

fn start(
    tx: &Tx<'_>,
    new: &NewBlock,
    entry: &AuditEntry,
) -> Result<(BlockRow, Revoked), StoreError> {
    precedence::block(tx, new)?;
    let id = insert(tx, new, entry)?;
    abandon_open(tx, new, entry.at)?;
    let mut undo = Vec::new();
    for bar in &new.bars {
        undo.extend(put_up(tx, new, bar, entry)?);
    }
    tx.execute(
        "UPDATE block SET undo = ?2 WHERE id = ?1",
        params![id, to_json(&undo)?],
    )?;
    let mut revoked = Revoked::default();
    for it in &new.holds {
        let done = hold::hold(tx, id, it)?;
        revoked.changed.extend(done.changed);
        revoked.unchanged.extend(done.unchanged);
    }
    hold::queue_deletions(tx, id, &new.devices, entry.at)?;
    audit::append(tx, entry)?;
    Ok((block_by_id(tx, id)?, revoked))
}

fn insert(tx: &Tx<'_>, new: &NewBlock, entry: &AuditEntry) -> Result<i64, StoreError> {
    let inserted = tx.insert(
        "INSERT INTO block (kind, name, generation, reason, reached, blocked_by, blocked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
        params![
            new.kind.name(),
            new.name,
            new.generation,
            new.reason,
            new.fleet.then_some(""),
            entry.actor,
            entry.at
        ],
    );
    inserted.map_err(|error| match error {
        StoreError::Violates(Constraint::BlockStanding) => {
            StoreError::Conflict(format!("{} is blocked already", new.name))
        }
        other => other,
    })
}

/// What is being signed at this moment for whom the block keeps out gets no certificate.
fn abandon_open(tx: &Tx<'_>, new: &NewBlock, at: i64) -> Result<(), StoreError> {
    match new.kind {
        BlockKind::Device => abandon::abandon_leaves(tx, &new.name, "its device was blocked", at),
        BlockKind::Group => {
            for open in abandon::open_leaves(tx)? {
                if precedence::blocked_group(tx, &open.subject, open.issuer)?.is_some() {
                    abandon::abandon(tx, open.intent, "its group was blocked", at)?;
                }
            }
            Ok(())
        }
        // Its certificate is on hold, and a revoked generation signs nothing.
        BlockKind::Generation => Ok(()),
    }
}

fn put_up(
    tx: &Tx<'_>,
    new: &NewBlock,
    bar: &Bar,
    entry: &AuditEntry,
) -> Result<Vec<Undo>, StoreError> {
    let disable = |row: &EnrollmentRow| -> Result<(), StoreError> {
        set_status(tx, row.id, false)?;
        mark::raise_urgent(tx, row.id, "blocked", entry.at)
    };
    Ok(match bar {
        Bar::Device(services) => {
            let mut undo = Vec::new();
            for door in door::doors(tx, &new.name, services, entry.at)? {
                let before = door.individual.map(|id| by_id(tx, id)).transpose()?;
                let row = compromise::inside(tx, &new.name, &door, entry.at)?;
                disable(&row)?;
                undo.push(Undo::Device {
                    id: row.id,
                    leaving: before.is_some_and(|it| it.removed),
                });
            }
            undo
        }
        Bar::Disable(id) => {
            let row = by_id(tx, *id)?;
            disable(&row)?;
            // One that is disabled already is let in by whoever has disabled it, but not before this
            // block is lifted. A group that keeps a certificate out is never enabled.
            let group = row.overlay_of.is_none().then_some(Undo::Enable(row.id));
            group.into_iter().collect()
        }
        Bar::ShutOut(id, certificates) => {
            let row = by_id(tx, *id)?;
            let left = row.slots.clone().shut_out(certificates, None);
            let left = left.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
            save_slots(tx, row.id, &left.slots)?;
            mark::raise_urgent(tx, row.id, "generation blocked", entry.at)?;
            vec![Undo::Slots {
                id: row.id,
                from: row.slots,
                to: left.slots,
            }]
        }
        Bar::Own(group) => {
            let id = group.add(tx, "generation blocked", entry.at)?;
            vec![Undo::Remove(id)]
        }
    })
}

fn lift(tx: &Tx<'_>, id: i64, entry: &AuditEntry) -> Result<Revoked, StoreError> {
    let undo: Option<String> = tx.query_optional(
        "SELECT undo FROM block WHERE id = ?1 AND lifted_at IS NULL",
        params![id],
        |row| row.get(0),
    )?;
    let undo = undo.ok_or_else(|| StoreError::Missing(format!("block {id} that stands")))?;
    tx.execute(
        "UPDATE block SET lifted_at = ?2, lifted_by = ?3, reached = '' WHERE id = ?1",
        params![id, entry.at, entry.actor],
    )?;
    let revoked = hold::release(tx, id, entry.at)?;
    // Backwards: what came after the other goes before it.
    let mut first = None;
    for undo in from_json::<Vec<Undo>>(&undo)?.into_iter().rev() {
        take_down(tx, &undo, first, entry.at)?;
        if let Undo::Remove(own) = undo {
            first = Some(own);
        }
    }
    audit::append(tx, entry)?;
    Ok(revoked)
}

fn take_down(tx: &Tx<'_>, undo: &Undo, first: Option<i64>, at: i64) -> Result<(), StoreError> {
    let Some(row) = enrollment::find(tx, undo.enrollment())? else {
        return Ok(());
    };
    match undo {
        // A compromise since then, or another block, keeps it disabled.
        Undo::Enable(id)
            if precedence::is_kept_out(tx, *id)?
                || precedence::any_void(tx, &row.slots.held())? =>
        {
            return Ok(());
        }
        Undo::Enable(id) => set_status(tx, *id, true)?,
        Undo::Remove(_) if precedence::any_void(tx, &row.slots.held())? => return Ok(()),
        Undo::Slots { from, .. } if precedence::any_void(tx, &from.held())? => {
            return Ok(());
        }
        Undo::Remove(id) => {
            // It came after what it took the certificate from; now that one comes after it.
            enrollment::set_after(tx, *id, None)?;
            enrollment::set_removed(tx, *id)?;
        }
        Undo::Slots { id, from, to } if row.slots == *to => {
            save_slots(tx, *id, from)?;
            // The service takes a certificate in one enrollment only.
            enrollment::set_after(tx, *id, first)?;
        }
        Undo::Slots { .. } => return Ok(()),
        Undo::Device { id, leaving } => {
            let_back(tx, &row)?;
            let goes = *leaving || row.overlay_of.is_some();
            if goes && compromised_until(tx, &row.name, at)?.is_none() {
                enrollment::set_removed(tx, *id)?;
            }
        }
    }
    mark::raise(tx, MarkSubject::Enrollment(row.id), "block lifted", at)
}

/// Enables a device's enrollment, unless a compromise still waits for a new leaf.
fn let_back(tx: &Tx<'_>, row: &EnrollmentRow) -> Result<(), StoreError> {
    let compromised = roll::open_roll(tx, row.id)?.is_some_and(|open| {
        open.reason == RollReason::Compromise && open.new_certificate.is_none()
    });
    set_status(tx, row.id, !compromised)
}

pub(super) fn block_by_id(tx: &Tx<'_>, id: i64) -> Result<BlockRow, StoreError> {
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
    let undo: Vec<Undo> = from_json(&row.get::<String>(4)?)?;
    Ok(BlockRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        name: row.get(2)?,
        generation: row.get(3)?,
        enrollments: undo.iter().map(Undo::enrollment).collect(),
        reason: row.get(5)?,
        blocked_by: row.get(6)?,
        blocked_at: row.get(7)?,
        lifted_at: row.get(8)?,
        lifted_by: row.get(9)?,
        reached: row.get(10)?,
    })
}
