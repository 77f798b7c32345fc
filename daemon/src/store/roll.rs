//! Rolls: the persisted replacement of a certificate, step by step.
//!
//! The slots of the enrollment are the truth about what is where; a roll says why, since when and
//! at whose request. Each step changes both in one transaction, and only if the slots are still
//! those on which the step was decided.

use super::audit::{self, AuditEntry};
use super::enrollment::{EnrollmentRow, by_id, save_slots};
use super::mark::{self, MarkSubject};
use super::{Store, StoreError};
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// Why a certificate is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RollReason {
    /// It comes to its end: old and new are both valid meanwhile.
    Expiry,
    /// It is in wrong hands: shut out first.
    Compromise,
}

/// How far a roll is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RollState {
    /// Waits for a request with a new key.
    Requested,
    /// The new certificate is issued; waits for the service to hold both.
    Staged,
    /// The service holds both; waits for the old one to be retired.
    Draining,
    /// Only the new one is left.
    Done,
    /// Given up; the old one serves on.
    Aborted,
}

impl RollState {
    /// The name on record.
    pub fn name(self) -> &'static str {
        match self {
            RollState::Requested => "requested",
            RollState::Staged => "staged",
            RollState::Draining => "draining",
            RollState::Done => "done",
            RollState::Aborted => "aborted",
        }
    }
}

/// A roll as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct RollRow {
    /// Row id.
    pub id: i64,
    /// Row id of the enrollment.
    pub enrollment: i64,
    /// The provisioning service.
    pub provisioning: String,
    /// The enrollment's name: the registration id.
    pub name: String,
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
    /// At whose request.
    pub started_by: String,
    /// Unix seconds.
    pub started_at: i64,
    /// Unix seconds of the last step.
    pub changed_at: i64,
}

/// One step of a roll: from the slots it was decided on, to the next.
#[derive(Clone, Debug)]
pub struct RollStep {
    /// The roll.
    pub roll: i64,
    /// Its enrollment.
    pub enrollment: i64,
    /// The slots as they were read; anything else on record refuses the step.
    pub from: Slots,
    /// The slots as they shall be.
    pub to: Slots,
    /// The roll's next state.
    pub state: RollState,
}

const SELECT: &str = "SELECT r.id, r.enrollment, e.provisioning, e.name, r.reason, r.state, \
     r.old_certificate, i.not_after, r.new_certificate, r.started_by, r.started_at, r.changed_at \
     FROM roll r JOIN enrollment e ON e.id = r.enrollment \
     JOIN certificate c ON c.sha256 = r.old_certificate JOIN intent i ON i.id = c.intent";

impl Store {
    /// Rolls, newest first, at most `limit`; only those under way if `open`.
    pub fn rolls(&self, open: bool, limit: u32) -> Result<Vec<RollRow>, StoreError> {
        self.read(|connection| {
            let select = format!(
                "{SELECT} WHERE NOT ?1 OR r.state NOT IN ('done', 'aborted')
                 ORDER BY r.id DESC LIMIT ?2"
            );
            let mut statement = connection.prepare_cached(&select)?;
            let rows = statement.query_map(params![open, limit], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One roll.
    pub fn roll(&self, id: i64) -> Result<RollRow, StoreError> {
        self.read(|connection| {
            let select = format!("{SELECT} WHERE r.id = ?1");
            let found = connection
                .prepare_cached(&select)?
                .query_row([id], from_row)
                .optional()?;
            found.ok_or_else(|| StoreError::Missing(format!("roll {id}")))
        })
    }

    /// Starts a roll that waits for a request with a new key. Refused unless the slots serve one
    /// certificate and no roll is under way.
    pub fn request_roll(
        &self,
        enrollment: i64,
        reason: RollReason,
        entry: AuditEntry,
    ) -> Result<RollRow, StoreError> {
        self.write(move |connection| {
            let row = by_id(connection, enrollment)?;
            let Slots::Serving { certificate, .. } = row.slots else {
                let message = format!(
                    "the slots of {} are {}; a roll starts from serving",
                    row.name,
                    row.slots.state()
                );
                return Err(StoreError::Conflict(message));
            };
            if open_roll(connection, enrollment)?.is_some() {
                let message = format!("a roll of {} is under way already", row.name);
                return Err(StoreError::Conflict(message));
            }
            insert(
                connection,
                enrollment,
                RollState::Requested,
                certificate,
                None,
                reason,
                &entry,
            )?;
            audit::append(connection, &entry)?;
            newest(connection, enrollment)
        })
    }

    /// The enrollments whose roll can have a next step: staged or draining.
    pub fn rolling_enrollments(&self) -> Result<Vec<(RollRow, EnrollmentRow)>, StoreError> {
        self.read(|connection| {
            let select = format!("{SELECT} WHERE r.state IN ('staged', 'draining') ORDER BY r.id");
            let mut statement = connection.prepare_cached(&select)?;
            let rolls: Vec<RollRow> = statement
                .query_map([], from_row)?
                .collect::<Result<_, _>>()?;
            rolls
                .into_iter()
                .map(|roll| Ok((by_id(connection, roll.enrollment)?, roll)))
                .map(|found: Result<_, StoreError>| found.map(|(row, roll)| (roll, row)))
                .collect()
        })
    }

    /// Makes one step, if the slots are still those it was decided on; marks the enrollment dirty
    /// if the service has to change. Returns whether it was made.
    pub fn advance_roll(&self, step: RollStep, entry: AuditEntry) -> Result<bool, StoreError> {
        self.write(move |connection| {
            if by_id(connection, step.enrollment)?.slots != step.from {
                return Ok(false);
            }
            save_slots(connection, step.enrollment, &step.to)?;
            connection
                .prepare_cached("UPDATE roll SET state = ?2, changed_at = ?3 WHERE id = ?1")?
                .execute(params![step.roll, step.state.name(), entry.at])?;
            if step.from.wanted() != step.to.wanted() {
                let subject = MarkSubject::Enrollment(step.enrollment);
                mark::raise(connection, subject, "roll advanced", entry.at)?;
            }
            audit::append(connection, &entry)?;
            Ok(true)
        })
    }

    /// Gives a roll up while it waits for a request: nothing has changed yet.
    pub fn abort_requested_roll(&self, roll: i64, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE roll SET state = 'aborted', changed_at = ?2
                 WHERE id = ?1 AND state = 'requested'",
                params![roll, entry.at],
            )?;
            if changed == 0 {
                let message = format!("roll {roll} is not waiting for a request");
                return Err(StoreError::Conflict(message));
            }
            audit::append(connection, &entry)
        })
    }
}

/// Step 10, for an individually enrolled device: the roll has its new certificate. A renewal that
/// nobody announced begins its roll here.
pub(super) fn stage(
    connection: &Connection,
    enrollment: i64,
    old: Thumbprint,
    new: Thumbprint,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let Some(roll) = open_roll(connection, enrollment)? else {
        let reason = RollReason::Expiry;
        return insert(
            connection,
            enrollment,
            RollState::Staged,
            old,
            Some(new),
            reason,
            entry,
        );
    };
    connection
        .prepare_cached(
            "UPDATE roll SET state = 'staged', old_certificate = ?2, new_certificate = ?3,
                 changed_at = ?4 WHERE id = ?1",
        )?
        .execute(params![roll, old.as_bytes(), new.as_bytes(), entry.at])?;
    Ok(())
}

fn insert(
    connection: &Connection,
    enrollment: i64,
    state: RollState,
    old: Thumbprint,
    new: Option<Thumbprint>,
    reason: RollReason,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let reason = match reason {
        RollReason::Expiry => "expiry",
        RollReason::Compromise => "compromise",
    };
    connection
        .prepare_cached(
            "INSERT INTO roll (reason, enrollment, state, old_certificate, new_certificate,
                 started_by, started_at, changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        )?
        .execute(params![
            reason,
            enrollment,
            state.name(),
            old.as_bytes(),
            new.as_ref().map(Thumbprint::as_bytes),
            entry.actor,
            entry.at
        ])?;
    Ok(())
}

fn open_roll(connection: &Connection, enrollment: i64) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT id FROM roll WHERE enrollment = ?1 AND state NOT IN ('done', 'aborted')",
        )?
        .query_row([enrollment], |row| row.get(0))
        .optional()?)
}

fn newest(connection: &Connection, enrollment: i64) -> Result<RollRow, StoreError> {
    let select = format!("{SELECT} WHERE r.enrollment = ?1 ORDER BY r.id DESC LIMIT 1");
    Ok(connection
        .prepare_cached(&select)?
        .query_row([enrollment], from_row)?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<RollRow> {
    let reason = match row.get::<_, String>(4)?.as_str() {
        "compromise" => RollReason::Compromise,
        _ => RollReason::Expiry,
    };
    let state = match row.get::<_, String>(5)?.as_str() {
        "requested" => RollState::Requested,
        "staged" => RollState::Staged,
        "draining" => RollState::Draining,
        "done" => RollState::Done,
        _ => RollState::Aborted,
    };
    Ok(RollRow {
        id: row.get(0)?,
        enrollment: row.get(1)?,
        provisioning: row.get(2)?,
        name: row.get(3)?,
        reason,
        state,
        old_certificate: Thumbprint::from_bytes(row.get(6)?),
        old_not_after: row.get(7)?,
        new_certificate: row
            .get::<_, Option<[u8; 32]>>(8)?
            .map(Thumbprint::from_bytes),
        started_by: row.get(9)?,
        started_at: row.get(10)?,
        changed_at: row.get(11)?,
    })
}
