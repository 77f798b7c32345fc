//! Devices and enrollments: what each provisioning service shall hold, and what it was seen holding.

use super::audit::{self, AuditEntry};
use super::issuance::IntentRefusal;
use super::mark::{self, MarkSubject};
use super::{Store, StoreError, roll};
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
     m.id, m.version, m.cause, m.since, m.due_at, m.attempts, m.last_error, m.parked \
     FROM enrollment e LEFT JOIN mark m ON m.enrollment = e.id";
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
                     (provisioning, kind, name, authority, slots, status, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'enabled', ?6)
                 ON CONFLICT (provisioning, kind, name) DO NOTHING",
                params![
                    new.provisioning,
                    new.kind.name(),
                    new.name,
                    new.authority,
                    to_json(&slots)?,
                    entry.at
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

    /// Wants an enrollment gone: the row follows when the service has confirmed.
    pub fn remove_enrollment(&self, id: i64, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |connection| {
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

    /// One enrollment.
    pub fn enrollment(&self, id: i64) -> Result<EnrollmentRow, StoreError> {
        self.read(|connection| by_id(connection, id))
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

/// Step 7, for a device: the spelling is the known one, and its slots can take one more leaf.
pub(super) fn admit_leaf(
    connection: &Connection,
    registration_id: &str,
) -> Result<(), IntentRefusal> {
    let known: Option<String> = connection
        .prepare_cached("SELECT registration_id FROM device WHERE registration_id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([registration_id], |row| row.get(0))
                .optional()
        })
        .map_err(StoreError::from)?;
    if let Some(known) = known.filter(|known| known != registration_id) {
        return Err(IntentRefusal::Spelling { known });
    }
    for enrollment in individual(connection, registration_id)? {
        match enrollment.slots {
            Slots::Empty | Slots::Serving { .. } => {}
            Slots::Staged { .. } => {
                let service = &enrollment.provisioning;
                let waits_for = format!("it waits for {service} to hold both certificates");
                return Err(IntentRefusal::RollUnderWay { waits_for });
            }
            Slots::Draining { .. } => {
                let waits_for = "it waits for the old certificate to expire".to_owned();
                return Err(IntentRefusal::RollUnderWay { waits_for });
            }
        }
    }
    Ok(())
}

/// Step 10, for a device: this leaf is its current one.
pub(super) fn record_leaf(
    connection: &Connection,
    registration_id: &str,
    profile: &str,
    certificate: i64,
    at: i64,
) -> Result<(), StoreError> {
    let added = connection
        .prepare_cached(
            "INSERT INTO device (registration_id, profile, certificate, created_at)
             VALUES (?1, ?2, ?3, ?4) ON CONFLICT (registration_id) DO NOTHING",
        )?
        .execute(params![registration_id, profile, certificate, at])?;
    if added == 0 {
        connection
            .prepare_cached(
                "UPDATE device SET profile = ?2, certificate = ?3 WHERE registration_id = ?1",
            )?
            .execute(params![registration_id, profile, certificate])?;
    }
    Ok(())
}

/// Step 10, for an individually enrolled device: the leaf takes a slot, the enrollment is dirty.
/// Returns which services that concerns.
pub(super) fn place_leaf(
    connection: &Connection,
    registration_id: &str,
    sha256: &[u8; 32],
    entry: &AuditEntry,
) -> Result<Vec<String>, StoreError> {
    let leaf = Thumbprint::from_bytes(*sha256);
    let mut concerned = Vec::new();
    for enrollment in individual(connection, registration_id)? {
        let before = enrollment.slots.clone();
        let placed = match &before {
            Slots::Empty => enrollment.slots.serve(leaf),
            _ => enrollment.slots.stage(leaf),
        };
        let slots = placed.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
        if let Slots::Serving { certificate, .. } = before {
            roll::stage(connection, enrollment.id, certificate, leaf, entry)?;
        }
        save_slots(connection, enrollment.id, &slots)?;
        mark::raise(
            connection,
            MarkSubject::Enrollment(enrollment.id),
            "leaf issued",
            entry.at,
        )?;
        concerned.push(enrollment.provisioning);
    }
    Ok(concerned)
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
    let select = format!("{SELECT} WHERE e.id = ?1");
    let mut statement = connection.prepare_cached(&select)?;
    let mut rows = statement.query([id])?;
    let row = rows
        .next()?
        .ok_or_else(|| StoreError::Missing(format!("enrollment {id}")))?;
    from_row(row)
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

fn named(connection: &Connection, name: &str) -> Result<Vec<EnrollmentRow>, StoreError> {
    enrollment_rows(connection, "WHERE e.name = ?1 ORDER BY e.id", [name])
}

/// A device's individual enrollments that shall exist, one per provisioning service at most.
fn individual(
    connection: &Connection,
    registration_id: &str,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let mut enrollments = named(connection, registration_id)?;
    enrollments.retain(|row| row.kind == EnrollmentKind::Individual && !row.removed);
    Ok(enrollments)
}

fn initial_slots(connection: &Connection, new: &NewEnrollment) -> Result<Slots, StoreError> {
    if new.kind == EnrollmentKind::Group {
        return Ok(new.slots.clone());
    }
    let leaf: Option<[u8; 32]> = connection
        .query_row(
            "SELECT c.sha256 FROM device d JOIN certificate c ON c.intent = d.certificate
             WHERE d.registration_id = ?1",
            [&new.name],
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
    let kind = match row.get::<_, String>(2)?.as_str() {
        "individual" => EnrollmentKind::Individual,
        _ => EnrollmentKind::Group,
    };
    let id = row.get(0)?;
    let [observed, drift] = [row.get(9)?, row.get(11)?];
    Ok(EnrollmentRow {
        id,
        provisioning: row.get(1)?,
        kind,
        name: row.get(3)?,
        authority: row.get(4)?,
        slots: from_json(&row.get::<_, String>(5)?)?,
        enabled: row.get(6)?,
        removed: row.get(7)?,
        history: from_json(&row.get::<_, String>(8)?)?,
        observed: optional_json(observed)?,
        observed_at: row.get(10)?,
        drift: optional_json(drift)?,
        mark: mark::from_columns(row, 12, MarkSubject::Enrollment(id))?,
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
