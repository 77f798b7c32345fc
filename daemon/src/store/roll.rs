//! Rolls: the persisted replacement of a certificate, step by step.
//!
//! The slots of the enrollments are the truth about what is where; a roll says why, since when and
//! at whose request. Each step changes both in one transaction, and only if the slots are still
//! those on which the step was decided.

use super::audit::{self, AuditEntry};
use super::enrollment::{by_id, from_json, save_slots};
use super::hub_task::{self, HubCause, NewHubTask};
use super::mark::{self, MarkSubject};
use super::stored_name::Stored;
use super::{Store, StoreError, leaf, precedence};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use rusqlite::{Connection, Row, params};
use serde_json::Value;

/// Whose certificate is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollSubject {
    /// The leaf of an individual enrollment.
    Enrollment {
        /// Row id.
        id: i64,
        /// The provisioning service.
        provisioning: String,
        /// The registration id.
        name: String,
    },
    /// An authority's certificate.
    Authority {
        /// Its name.
        name: String,
        /// Row id of the generation that is replaced.
        old_generation: i64,
        /// Row id of the one that replaces it, once it is planned.
        new_generation: Option<i64>,
    },
}

impl RollSubject {
    /// Registration id, or the authority's name.
    pub fn name(&self) -> &str {
        match self {
            RollSubject::Enrollment { name, .. } | RollSubject::Authority { name, .. } => name,
        }
    }
}

/// A roll as it stands.
#[derive(Clone, Debug)]
pub struct RollRow {
    /// Row id.
    pub id: i64,
    /// Whose certificate.
    pub subject: RollSubject,
    /// Why.
    pub reason: RollReason,
    /// How far.
    pub state: RollState,
    /// What is replaced.
    pub old_certificate: Thumbprint,
    /// End of what is replaced, Unix seconds.
    pub old_not_after: i64,
    /// What replaces it.
    pub new_certificate: Option<Thumbprint>,
    /// Options and evidence, in the form of the subject's kind.
    pub detail: Value,
    /// The roll that brought this one about.
    pub parent: Option<i64>,
    /// At whose request.
    pub started_by: String,
    /// Unix seconds.
    pub started_at: i64,
    /// Unix seconds of the last step.
    pub changed_at: i64,
}

/// An individual enrollment whose one leaf comes to its end.
#[derive(Clone, Debug)]
pub struct EndingLeaf {
    /// Row id of the enrollment.
    pub enrollment: i64,
    /// The registration id.
    pub name: String,
    /// The leaf's end, Unix seconds.
    pub not_after: i64,
}

/// A roll that begins.
#[derive(Clone, Debug)]
pub(super) struct NewRoll<'a> {
    pub subject: NewSubject<'a>,
    pub reason: RollReason,
    pub state: RollState,
    pub old_certificate: Thumbprint,
    pub new_certificate: Option<Thumbprint>,
    pub detail: &'a Value,
    pub parent: Option<i64>,
}

/// Whose certificate a new roll replaces.
#[derive(Clone, Copy, Debug)]
pub(super) enum NewSubject<'a> {
    /// Row id of an individual enrollment.
    Enrollment(i64),
    /// An authority, and the row id of the generation that is replaced.
    Authority(&'a str, i64),
}

/// One step of a leaf's roll: from the slots it was decided on, to the next.
#[derive(Clone, Debug)]
pub struct RollStep {
    /// The roll.
    pub roll: i64,
    /// Its enrollment.
    pub enrollment: i64,
    /// The state it was decided on; another one on record refuses the step.
    pub from_state: RollState,
    /// The slots as they were read; anything else on record refuses the step.
    pub from: Slots,
    /// The slots as they shall be.
    pub to: Slots,
    /// The roll's next state.
    pub state: RollState,
}

const SELECT: &str = "SELECT r.id, r.enrollment, e.provisioning, e.name, r.authority, \
     r.old_generation, r.new_generation, r.reason, r.state, r.old_certificate, i.not_after, \
     r.new_certificate, r.detail, r.parent, r.started_by, r.started_at, r.changed_at \
     FROM roll r LEFT JOIN enrollment e ON e.id = r.enrollment \
     JOIN certificate c ON c.sha256 = r.old_certificate JOIN intent i ON i.id = c.intent";

impl Store {
    /// Rolls, newest first, at most `limit`; only those under way if `open`, and those that come
    /// `after` this one, which are older.
    pub fn rolls(
        &self,
        open: bool,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<RollRow>, StoreError> {
        self.read(|connection| {
            let condition = "WHERE r.id < coalesce(?2, 9223372036854775807)
                   AND (NOT ?1 OR r.state NOT IN ('done', 'aborted'))
                 ORDER BY r.id DESC LIMIT ?3";
            roll_rows(connection, condition, params![open, after, limit])
        })
    }

    /// One roll.
    pub fn roll(&self, id: i64) -> Result<RollRow, StoreError> {
        self.read(|connection| roll_by_id(connection, id))
    }

    /// The rolls that a roll brought about, oldest first.
    pub fn child_rolls(&self, parent: i64) -> Result<Vec<RollRow>, StoreError> {
        self.read(|connection| roll_rows(connection, "WHERE r.parent = ?1 ORDER BY r.id", [parent]))
    }

    /// Every roll that may have a next step by itself at `now`, oldest first. Of a fleet of leaves
    /// most wait: for a request, or for the end of the old leaf. With `proven`, those that the hub
    /// has shown on their new leaf do not wait for that end.
    pub fn open_rolls(&self, now: i64, proven: bool) -> Result<Vec<RollRow>, StoreError> {
        self.read(|connection| {
            let condition =
                "WHERE r.state NOT IN ('done', 'aborted') AND (r.enrollment IS NULL OR (
                   r.state <> 'requested'
                   AND (r.state <> 'reissuing' OR r.new_certificate IS NOT NULL)
                   AND (r.state <> 'draining' OR i.not_after < ?1
                        OR ?2 AND EXISTS (SELECT 1 FROM proof p WHERE p.device = e.name
                                            AND p.provisioning = e.provisioning
                                            AND p.certificate = r.new_certificate))))
                 ORDER BY r.id";
            roll_rows(connection, condition, params![now, proven])
        })
    }

    /// When the first old leaf that is still in a slot ends, in Unix seconds.
    pub fn next_retirement(&self) -> Result<Option<i64>, StoreError> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT min(i.not_after) FROM roll r
                     JOIN certificate c ON c.sha256 = r.old_certificate
                     JOIN intent i ON i.id = c.intent
                     WHERE r.state NOT IN ('done', 'aborted') AND r.state = 'draining'
                       AND r.enrollment IS NOT NULL",
                )?
                .query_row([], |row| row.get(0))?)
        })
    }

    /// Starts an expiry roll that waits for a request with a new key; `tasks` tell the device.
    /// Refused unless the slots serve one certificate, no roll is under way and no
    /// block stands.
    pub fn request_roll(
        &self,
        enrollment: i64,
        detail: Value,
        tasks: Vec<NewHubTask>,
        entry: AuditEntry,
    ) -> Result<RollRow, StoreError> {
        self.write(move |connection| {
            let row = by_id(connection, enrollment)?;
            let certificate = precedence::leaf_roll(connection, &row)?;
            let new = NewRoll {
                subject: NewSubject::Enrollment(enrollment),
                reason: RollReason::Expiry,
                state: RollState::Requested,
                old_certificate: certificate,
                new_certificate: None,
                detail: &detail,
                parent: None,
            };
            let id = insert(connection, &new, &entry)?;
            hub_task::queue(connection, HubCause::Roll(id), &tasks, entry.at)?;
            audit::append(connection, &entry)?;
            roll_by_id(connection, id)
        })
    }

    /// Individual enrollments that serve one leaf, which ends before `until`, and have no roll
    /// under way; those that end first come first.
    pub fn ending_leaves(&self, until: i64) -> Result<Vec<EndingLeaf>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT e.id, e.name, i.not_after FROM enrollment e
                 JOIN certificate c ON c.sha256 = unhex(e.slots ->> 'certificate')
                 JOIN intent i ON i.id = c.intent
                 WHERE e.kind = 'individual' AND e.removed = 0 AND e.status = 'enabled'
                   AND i.not_after <= ?1
                   AND NOT EXISTS (SELECT 1 FROM roll r WHERE r.enrollment = e.id
                                   AND r.state NOT IN ('done', 'aborted'))
                 ORDER BY i.not_after",
            )?;
            let ending = statement.query_map([until], |row| {
                Ok(EndingLeaf {
                    enrollment: row.get(0)?,
                    name: row.get(1)?,
                    not_after: row.get(2)?,
                })
            })?;
            Ok(ending.collect::<Result<_, _>>()?)
        })
    }

    /// Makes one step of a leaf's roll, if state and slots are still those it was decided on; marks
    /// the enrollment dirty if the service has to change. Returns whether it was made.
    pub fn advance_roll(&self, step: RollStep, entry: AuditEntry) -> Result<bool, StoreError> {
        self.write(move |connection| {
            let moved = by_id(connection, step.enrollment)?.slots != step.from
                || roll_by_id(connection, step.roll)?.state != step.from_state;
            if moved {
                return Ok(false);
            }
            save_slots(connection, step.enrollment, &step.to)?;
            set_state(connection, step.roll, step.state, entry.at)?;
            if let Slots::Draining { retiring, .. } = &step.to {
                replaces(connection, step.roll, *retiring)?;
            }
            if step.from.wanted() != step.to.wanted() {
                let subject = MarkSubject::Enrollment(step.enrollment);
                mark::raise(connection, subject, "roll advanced", entry.at)?;
            }
            audit::append(connection, &entry)?;
            Ok(true)
        })
    }

    /// Gives an expiry roll of a leaf up before its cut-over: while it waits for a request nothing
    /// has changed yet; once staged, the next certificate leaves its slot.
    pub fn abort_leaf_roll(
        &self,
        roll: i64,
        overridden: Value,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            let row = roll_by_id(connection, roll)?;
            let refused = |reason: &str| Err(StoreError::Conflict(format!("roll {roll} {reason}")));
            let RollSubject::Enrollment { id, .. } = row.subject else {
                return refused("is an authority's");
            };
            match row.state {
                RollState::Requested => {}
                RollState::Staged => {
                    let slots = by_id(connection, id)?.slots.abort();
                    let slots = slots.map_err(|it| StoreError::Conflict(it.to_string()))?;
                    save_slots(connection, id, &slots)?;
                    if let (Some(next), Some(serving)) = (row.new_certificate, slots.serving()) {
                        leaf::give_up(connection, row.subject.name(), next, serving)?;
                    }
                    let subject = MarkSubject::Enrollment(id);
                    mark::raise(connection, subject, "roll aborted", entry.at)?;
                }
                state => return refused(&format!("is {}: too late to abort it", state.name())),
            }
            set_state(connection, roll, RollState::Aborted, entry.at)?;
            if !overridden.is_null() {
                let mut detail = row.detail;
                detail["overrides"] = Value::Array(vec![overridden.clone()]);
                connection.execute(
                    "UPDATE roll SET detail = ?2 WHERE id = ?1",
                    params![roll, detail.to_string()],
                )?;
            }
            audit::append(connection, &entry)
        })
    }
}

/// Step 10, for an individually enrolled device that is renewed: the roll has its new certificate.
/// A renewal that nobody announced begins its roll here.
pub(super) fn stage(
    connection: &Connection,
    enrollment: i64,
    old: Thumbprint,
    new: Thumbprint,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let Some(roll) = open_roll(connection, enrollment)? else {
        let begun = NewRoll {
            subject: NewSubject::Enrollment(enrollment),
            reason: RollReason::Expiry,
            state: RollState::Staged,
            old_certificate: old,
            new_certificate: Some(new),
            detail: &Value::Object(serde_json::Map::new()),
            parent: None,
        };
        return insert(connection, &begun, entry).map(drop);
    };
    connection
        .prepare_cached(
            "UPDATE roll SET state = CASE reason WHEN 'expiry' THEN 'staged' ELSE state END,
                 old_certificate = CASE reason WHEN 'expiry' THEN ?2 ELSE old_certificate END,
                 new_certificate = ?3, changed_at = ?4 WHERE id = ?1",
        )?
        .execute(params![roll.id, old.as_bytes(), new.as_bytes(), entry.at])?;
    Ok(())
}

/// Writes a new roll down; its row id comes back.
pub(super) fn insert(
    connection: &Connection,
    new: &NewRoll<'_>,
    entry: &AuditEntry,
) -> Result<i64, StoreError> {
    let (enrollment, authority, old_generation) = match new.subject {
        NewSubject::Enrollment(id) => (Some(id), None, None),
        NewSubject::Authority(name, generation) => (None, Some(name), Some(generation)),
    };
    connection
        .prepare_cached(
            "INSERT INTO roll (reason, enrollment, authority, old_generation, state,
                 old_certificate, new_certificate, detail, parent, started_by, started_at,
                 changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)",
        )?
        .execute(params![
            new.reason.name(),
            enrollment,
            authority,
            old_generation,
            new.state.name(),
            new.old_certificate.as_bytes(),
            new.new_certificate.as_ref().map(Thumbprint::as_bytes),
            new.detail.to_string(),
            new.parent,
            entry.actor,
            entry.at
        ])?;
    Ok(connection.last_insert_rowid())
}

/// The state of a roll, within the caller's transaction.
pub(super) fn set_state(
    connection: &Connection,
    roll: i64,
    state: RollState,
    at: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE roll SET state = ?2, changed_at = ?3 WHERE id = ?1")?
        .execute(params![roll, state.name(), at])?;
    Ok(())
}

/// Whose end a roll waits for: after the compromise of one slot, not that of the compromised leaf but that
/// of the good one, which its successor has replaced.
fn replaces(connection: &Connection, roll: i64, retiring: Thumbprint) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE roll SET old_certificate = ?2 WHERE id = ?1")?
        .execute(params![roll, retiring.as_bytes()])?;
    Ok(())
}

/// The roll under way of an enrollment.
pub(super) fn open_roll(
    connection: &Connection,
    enrollment: i64,
) -> Result<Option<RollRow>, StoreError> {
    let condition = "WHERE r.enrollment = ?1 AND r.state NOT IN ('done', 'aborted')";
    Ok(roll_rows(connection, condition, [enrollment])?.pop())
}

pub(super) fn roll_by_id(connection: &Connection, id: i64) -> Result<RollRow, StoreError> {
    let found = roll_rows(connection, "WHERE r.id = ?1", [id])?.pop();
    found.ok_or_else(|| StoreError::Missing(format!("roll {id}")))
}

/// The rolls that `condition` selects; `r` is the roll, `e` its enrollment.
pub(super) fn roll_rows(
    connection: &Connection,
    condition: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<RollRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {condition}"))?;
    let mut rows = statement.query(parameters)?;
    let mut rolls = Vec::new();
    while let Some(row) = rows.next()? {
        rolls.push(from_row(row)?);
    }
    Ok(rolls)
}

fn from_row(row: &Row<'_>) -> Result<RollRow, StoreError> {
    let subject = match row.get::<_, Option<i64>>(1)? {
        Some(id) => RollSubject::Enrollment {
            id,
            provisioning: row.get(2)?,
            name: row.get(3)?,
        },
        None => RollSubject::Authority {
            name: row.get(4)?,
            old_generation: row.get(5)?,
            new_generation: row.get(6)?,
        },
    };
    Ok(RollRow {
        id: row.get(0)?,
        subject,
        reason: row.get::<_, Stored<_>>(7)?.0,
        state: row.get::<_, Stored<_>>(8)?.0,
        old_certificate: Thumbprint::from_bytes(row.get(9)?),
        old_not_after: row.get(10)?,
        new_certificate: row
            .get::<_, Option<[u8; 32]>>(11)?
            .map(Thumbprint::from_bytes),
        detail: from_json(&row.get::<_, String>(12)?)?,
        parent: row.get(13)?,
        started_by: row.get(14)?,
        started_at: row.get(15)?,
        changed_at: row.get(16)?,
    })
}
