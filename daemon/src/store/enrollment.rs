//! Devices and enrollments: what each provisioning service shall hold, and what it was seen holding.

use super::audit::{self, AuditEntry};
use super::mark::{self, MarkSubject};
use super::{Store, StoreError, block, precedence};
use crate::enrollment::history::History;
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whom an enrollment is for (contract section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnrollmentKind {
    /// One device; its slots hold leaves.
    Individual,
    /// All devices under an authority; its slots hold that authority's certificates.
    Group,
}

impl EnrollmentKind {
    /// `individual` or `group`.
    pub fn name(self) -> &'static str {
        match self {
            EnrollmentKind::Individual => "individual",
            EnrollmentKind::Group => "group",
        }
    }
}

/// An enrollment that an operator adds.
#[derive(Clone, Debug)]
pub struct NewEnrollment {
    /// The provisioning service, by its name in the configuration.
    pub provisioning: String,
    /// Individual or group.
    pub kind: EnrollmentKind,
    /// Registration id or enrollment group id.
    pub name: String,
    /// The authority of a group.
    pub authority: Option<String>,
    /// A group that names CA certificates of the service, instead of holding certificates.
    pub by_reference: bool,
    /// What its slots hold from the start; an individual one takes the device's current leaf.
    pub slots: Slots,
}

/// An enrollment as it stands.
#[derive(Clone, Debug)]
pub struct EnrollmentRow {
    /// Row id.
    pub id: i64,
    /// The provisioning service.
    pub provisioning: String,
    /// Individual or group.
    pub kind: EnrollmentKind,
    /// Registration id or enrollment group id.
    pub name: String,
    /// The authority of a group.
    pub authority: Option<String>,
    /// A group that names CA certificates of the service, instead of holding certificates.
    pub by_reference: bool,
    /// What its slots shall hold.
    pub slots: Slots,
    /// `provisioningStatus` that it shall have.
    pub enabled: bool,
    /// It shall not exist any more; the row goes when the service confirms.
    pub removed: bool,
    /// What we sent, and what was seen in place.
    pub history: History,
    /// The record as the service last showed it.
    pub observed: Option<Value>,
    /// Unix seconds of that look.
    pub observed_at: Option<i64>,
    /// How somebody else has changed it, as `enrollment::plan::Drift`.
    pub drift: Option<Value>,
    /// A change is on its way, or parked.
    pub mark: Option<super::MarkRow>,
    /// The group whose device this individual enrollment was made for, to shut a leaf out.
    pub overlay_of: Option<String>,
}

/// A device as it stands.
#[derive(Clone, Debug)]
pub struct DeviceRow {
    /// Its registration id, in the one spelling.
    pub registration_id: String,
    /// The profile of its current leaf.
    pub profile: String,
    /// SHA-256 of its current leaf.
    pub certificate: Thumbprint,
    /// Serial number of its current leaf, upper hex.
    pub serial: String,
    /// Unix seconds: its current leaf's end.
    pub not_after: i64,
    /// Unix seconds: its first leaf.
    pub created_at: i64,
}

const SELECT: &str = "SELECT e.id, e.provisioning, e.kind, e.name, e.authority, e.slots, \
     e.status = 'enabled', e.removed, e.history, e.observed, e.observed_at, e.drift, \
     m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error, m.parked, e.overlay_of, \
     e.by_reference FROM enrollment e LEFT JOIN mark m ON m.enrollment = e.id";
const SELECT_DEVICE: &str = "SELECT d.registration_id, d.profile, c.sha256, i.serial, i.not_after, \
     d.created_at FROM device d JOIN certificate c ON c.intent = d.certificate \
     JOIN intent i ON i.id = d.certificate";

impl Store {
    /// Adds an enrollment, marked dirty if it holds anything; its row id comes back.
    ///
    /// An individual enrollment of a known device begins with that device's current leaf.
    pub fn add_enrollment(
        &self,
        new: NewEnrollment,
        entry: AuditEntry,
    ) -> Result<EnrollmentRow, StoreError> {
        self.write(move |connection| {
            let slots = initial_slots(connection, &new)?;
            let added = connection.execute(
                "INSERT INTO enrollment
                     (provisioning, kind, name, authority, slots, status, created_at, by_reference)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'enabled', ?6, ?7)
                 ON CONFLICT (provisioning, kind, name) DO NOTHING",
                params![
                    new.provisioning,
                    new.kind.name(),
                    new.name,
                    new.authority,
                    to_json(&slots)?,
                    entry.at,
                    new.by_reference
                ],
            )?;
            if added == 0 {
                let kind = new.kind.name();
                return Err(StoreError::Conflict(format!(
                    "{} has the {kind} enrollment {:?} already",
                    new.provisioning, new.name
                )));
            }
            let id = connection.last_insert_rowid();
            if slots != Slots::Empty {
                mark::raise(
                    connection,
                    MarkSubject::Enrollment(id),
                    "enrollment added",
                    entry.at,
                )?;
            }
            audit::append(connection, &entry)?;
            by_id(connection, id)
        })
    }

    /// Wants an enrollment gone: the row follows when the service has confirmed. Refused if it is not
    /// any more as it was `judged`: a block or a compromise may have come in between, which it keeps out.
    pub fn remove_enrollment(
        &self,
        judged: &EnrollmentRow,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let (id, slots, enabled) = (judged.id, judged.slots.clone(), judged.enabled);
        self.write(move |connection| {
            let row = by_id(connection, id)?;
            if row.slots != slots || row.enabled != enabled {
                let message = format!(
                    "enrollment {} has changed meanwhile; say it again",
                    row.name
                );
                return Err(StoreError::Conflict(message));
            }
            connection.execute("UPDATE enrollment SET removed = 1 WHERE id = ?1", [id])?;
            mark::raise(
                connection,
                MarkSubject::Enrollment(id),
                "enrollment removed",
                entry.at,
            )?;
            audit::append(connection, &entry)
        })
    }

    /// Remembers what is about to be sent: an answer that is lost cannot make our change look like
    /// somebody else's.
    pub fn record_attempt(&self, id: i64, history: &History) -> Result<(), StoreError> {
        let history = to_json(history)?;
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE enrollment SET history = ?2 WHERE id = ?1")?
                .execute(params![id, history])?;
            Ok(())
        })
    }

    /// All enrollments, at most `limit`, after row id `after`.
    pub fn enrollments(&self, after: i64, limit: u32) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|connection| {
            enrollment_rows(
                connection,
                "WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
                params![after, limit],
            )
        })
    }

    /// The enrollments with this registration or group id, at whatever service.
    pub fn enrollments_named(&self, name: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|connection| named(connection, name))
    }

    /// Every group that shall exist.
    pub fn groups(&self) -> Result<Vec<EnrollmentRow>, StoreError> {
        self.read(|connection| {
            let condition = "WHERE e.kind = 'group' AND e.removed = 0 ORDER BY e.id";
            enrollment_rows(connection, condition, [])
        })
    }

    /// One enrollment.
    pub fn enrollment(&self, id: i64) -> Result<EnrollmentRow, StoreError> {
        self.read(|connection| by_id(connection, id))
    }

    /// One enrollment, or `None` once it is gone.
    pub fn find_enrollment(&self, id: i64) -> Result<Option<EnrollmentRow>, StoreError> {
        self.read(|connection| find(connection, id))
    }

    /// All devices, at most `limit`, after registration id `after`.
    pub fn devices(&self, after: &str, limit: u32) -> Result<Vec<DeviceRow>, StoreError> {
        self.read(|connection| {
            let select = format!(
                "{SELECT_DEVICE} WHERE d.registration_id > ?1 ORDER BY d.registration_id LIMIT ?2"
            );
            let mut statement = connection.prepare_cached(&select)?;
            let rows = statement.query_map(params![after, limit], device_from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One device.
    pub fn device(&self, registration_id: &str) -> Result<Option<DeviceRow>, StoreError> {
        self.read(|connection| {
            let select = format!("{SELECT_DEVICE} WHERE d.registration_id = ?1");
            let mut statement = connection.prepare_cached(&select)?;
            Ok(statement
                .query_row([registration_id], device_from_row)
                .optional()?)
        })
    }
}

/// An individual enrollment for a device of a group, with its current leaf; it takes precedence
/// over the group. Disabled until somebody says otherwise.
pub(super) fn add_overlay(
    connection: &Connection,
    provisioning: &str,
    registration_id: &str,
    group: Option<&str>,
    at: i64,
) -> Result<EnrollmentRow, StoreError> {
    let slots = current_leaf(connection, registration_id)?;
    if slots == Slots::Empty {
        let message = format!("leaf of {registration_id}, so there is nothing to shut out");
        return Err(StoreError::Missing(message));
    }
    connection
        .prepare_cached(
            "INSERT INTO enrollment (provisioning, kind, name, slots, status, created_at, overlay_of)
             VALUES (?1, 'individual', ?2, ?3, 'disabled', ?4, ?5)",
        )?
        .execute(params![provisioning, registration_id, to_json(&slots)?, at, group])?;
    by_id(connection, connection.last_insert_rowid())
}

/// A group that lets nobody in and holds one certificate, once `after` is settled.
pub(super) fn add_disabled_group(
    connection: &Connection,
    provisioning: &str,
    name: &str,
    authority: &str,
    slots: &Slots,
    after: Option<i64>,
    at: i64,
) -> Result<i64, StoreError> {
    let id = connection
        .prepare_cached(
            "INSERT INTO enrollment
                 (provisioning, kind, name, authority, slots, status, created_at, after,
                  overlay_of)
             VALUES (?1, 'group', ?2, ?3, ?4, 'disabled', ?5, ?6, ?3)
             ON CONFLICT (provisioning, kind, name) DO UPDATE SET slots = excluded.slots,
                 status = 'disabled', removed = 0, after = excluded.after
             RETURNING id",
        )?
        .query_row(
            params![provisioning, name, authority, to_json(slots)?, at, after],
            |row| row.get(0),
        )?;
    Ok(id)
}

/// `provisioningStatus` that the enrollment shall have.
pub(super) fn set_status(
    connection: &Connection,
    id: i64,
    enabled: bool,
) -> Result<(), StoreError> {
    let status = if enabled { "enabled" } else { "disabled" };
    connection
        .prepare_cached("UPDATE enrollment SET status = ?2 WHERE id = ?1")?
        .execute(params![id, status])?;
    Ok(())
}

/// The enrollment shall not exist any more.
pub(super) fn set_removed(connection: &Connection, id: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE enrollment SET removed = 1 WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// The enrollment is not looked at while `after` has a mark.
pub(super) fn set_after(
    connection: &Connection,
    id: i64,
    after: Option<i64>,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE enrollment SET after = ?2 WHERE id = ?1")?
        .execute(params![id, after])?;
    Ok(())
}

/// Replaces the slots, whatever they held: callers have read them in the same transaction.
pub(super) fn save_slots(
    connection: &Connection,
    id: i64,
    slots: &Slots,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE enrollment SET slots = ?2 WHERE id = ?1")?
        .execute(params![id, to_json(slots)?])?;
    Ok(())
}

pub(super) fn by_id(connection: &Connection, id: i64) -> Result<EnrollmentRow, StoreError> {
    find(connection, id)?.ok_or_else(|| StoreError::Missing(format!("enrollment {id}")))
}

pub(super) fn find(connection: &Connection, id: i64) -> Result<Option<EnrollmentRow>, StoreError> {
    Ok(enrollment_rows(connection, "WHERE e.id = ?1", [id])?.pop())
}

/// The rows that `condition` selects; `e` is the enrollment, `m` its mark.
pub(super) fn enrollment_rows(
    connection: &Connection,
    condition: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {condition}"))?;
    let mut rows = statement.query(parameters)?;
    let mut enrollments = Vec::new();
    while let Some(row) = rows.next()? {
        enrollments.push(from_row(row)?);
    }
    Ok(enrollments)
}

pub(super) fn named(connection: &Connection, name: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
    enrollment_rows(connection, "WHERE e.name = ?1 ORDER BY e.id", [name])
}

/// A device's individual enrollments that shall exist, one per provisioning service at most.
pub(super) fn individual(
    connection: &Connection,
    registration_id: &str,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let mut enrollments = named(connection, registration_id)?;
    enrollments.retain(|row| row.kind == EnrollmentKind::Individual && !row.removed);
    Ok(enrollments)
}

fn initial_slots(connection: &Connection, new: &NewEnrollment) -> Result<Slots, StoreError> {
    match new.kind {
        EnrollmentKind::Group => {
            precedence::new_group(connection, &new.slots.held())?;
            Ok(new.slots.clone())
        }
        EnrollmentKind::Individual => {
            refuse_who_is_shut_out(connection, &new.name)?;
            current_leaf(connection, &new.name)
        }
    }
}

/// A new enrollment is a new door: not for a device that is blocked, nor for a leaf that is revoked.
fn refuse_who_is_shut_out(connection: &Connection, device: &str) -> Result<(), StoreError> {
    if block::is_blocked(connection, device)? {
        return Err(StoreError::Conflict(format!(
            "{device} is blocked; lift the block first with `hallmark device unblock {device}`"
        )));
    }
    let current: Option<(i64, bool)> = connection
        .query_row(
            "SELECT i.issuer, c.revoked_at IS NOT NULL
             FROM device d JOIN certificate c ON c.intent = d.certificate
             JOIN intent i ON i.id = d.certificate WHERE d.registration_id = ?1",
            [device],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((issuer, revoked)) = current else {
        return Ok(());
    };
    if let Some(group) = precedence::blocked_group(connection, device, issuer)? {
        return Err(StoreError::Conflict(format!(
            "{device} belongs to the group {group}, which is blocked; lift the block first with \
             `hallmark enrollment unblock --group {group}`"
        )));
    }
    match revoked {
        false => Ok(()),
        true => Err(StoreError::Conflict(format!(
            "the current leaf of {device} is revoked, and this enrollment would let it in; issue a \
             new leaf first"
        ))),
    }
}

/// Slots that serve a device's current leaf; empty ones until it has one.
fn current_leaf(connection: &Connection, registration_id: &str) -> Result<Slots, StoreError> {
    let leaf: Option<[u8; 32]> = connection
        .query_row(
            "SELECT c.sha256 FROM device d JOIN certificate c ON c.intent = d.certificate
             WHERE d.registration_id = ?1",
            [registration_id],
            |row| row.get(0),
        )
        .optional()?;
    match leaf {
        Some(leaf) => Slots::Empty
            .serve(Thumbprint::from_bytes(leaf))
            .map_err(|refusal| StoreError::Conflict(refusal.to_string())),
        None => Ok(Slots::Empty),
    }
}

fn from_row(row: &Row<'_>) -> Result<EnrollmentRow, StoreError> {
    let id = row.get(0)?;
    let [observed, drift] = [row.get(9)?, row.get(11)?];
    Ok(EnrollmentRow {
        id,
        provisioning: row.get(1)?,
        kind: row.get(2)?,
        name: row.get(3)?,
        authority: row.get(4)?,
        by_reference: row.get("by_reference")?,
        slots: from_json(&row.get::<_, String>(5)?)?,
        enabled: row.get(6)?,
        removed: row.get(7)?,
        history: from_json(&row.get::<_, String>(8)?)?,
        observed: optional_json(observed)?,
        observed_at: row.get(10)?,
        drift: optional_json(drift)?,
        mark: mark::from_columns(row, 12, MarkSubject::Enrollment(id))?,
        overlay_of: row.get(20)?,
    })
}

fn device_from_row(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    Ok(DeviceRow {
        registration_id: row.get(0)?,
        profile: row.get(1)?,
        certificate: Thumbprint::from_bytes(row.get::<_, [u8; 32]>(2)?),
        serial: hex::encode_upper(row.get::<_, Vec<u8>>(3)?),
        not_after: row.get(4)?,
        created_at: row.get(5)?,
    })
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

fn optional_json<T: for<'de> Deserialize<'de>>(
    text: Option<String>,
) -> Result<Option<T>, StoreError> {
    text.as_deref().map(from_json).transpose()
}

pub(super) fn from_json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable(format!("{error}: {text}")))
}
