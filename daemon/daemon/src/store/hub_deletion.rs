//! Records the ends of deletions at hubs, and counts devices and not tasks.
//!
//! One hub may be configured for several services, and one device may have a task of several rolls.
//! An identity in a hub that is not configured cannot be deleted from here: its task ends, is
//! listed by name, and is queued again when that hub is configured.

use super::engine::dialect::values_of_1;
use super::engine::{Tx, params};
use super::hub_progress::HubProgress;
use super::hub_task::{self, HubCause, NewHubTask};
use super::{Store, StoreError, UnixSeconds};

/// How many identities of one hub, or devices without a place, are listed by name.
const NAMES_MAX: u32 = 5;

/// The end of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The hubs have no identity of the device any more.
    Gone,
    /// The hub knows the device by a good leaf; that identity stays.
    Kept,
    /// The registration record names a hub that is not configured.
    Elsewhere {
        /// The hub's host name.
        hub: String,
        /// The device's id there.
        device_id: String,
    },
    /// No configured hub has an identity of the device, and nothing names the hub and the id that
    /// it may have.
    Unknown,
}

impl Deletion {
    /// Returns the name on record, and hub and device of an identity elsewhere.
    pub(super) fn columns(&self) -> (&'static str, Option<&str>, Option<&str>) {
        match self {
            Deletion::Gone => ("gone", None, None),
            Deletion::Kept => ("kept", None, None),
            Deletion::Elsewhere { hub, device_id } => ("elsewhere", Some(hub), Some(device_id)),
            Deletion::Unknown => ("unknown", None, None),
        }
    }
}

/// Identities in one hub that is not configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The hub's host name.
    pub hub: String,
    pub count: i64,
    /// The first of them, by their ids in that hub.
    pub device_ids: Vec<String>,
}

/// Devices whose identities may be where nothing names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithoutPlace {
    pub count: i64,
    /// The first of them.
    pub devices: Vec<String>,
}

/// The progress of the deletions for one or more causes at one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubDeletions {
    /// Devices, each once, without those that are only elsewhere or without a place.
    pub progress: HubProgress,
    /// Devices whose identity stays, because it carries a good leaf.
    pub kept: i64,
    /// Identities in hubs that are not configured.
    pub elsewhere: Vec<Elsewhere>,
    pub without_place: WithoutPlace,
    /// The reason of the last failure of an open task.
    pub last_error: Option<String>,
}

/// An open deletion for a compromised device at a service that has no roll of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingIdentity {
    pub provisioning: String,
    pub device: String,
    pub since: UnixSeconds,
    pub last_error: Option<String>,
}

impl Store {
    /// Returns the open deletions for compromised devices at services without a roll, oldest first,
    /// at most `limit`.
    pub fn pending_identities(&self, limit: u32) -> Result<Vec<PendingIdentity>, StoreError> {
        let sql = "SELECT provisioning, device, queued_at, last_error FROM hub_task
             WHERE cause = 'device' AND action = 'delete' AND done_at IS NULL
             ORDER BY id LIMIT ?1";
        self.read(|tx| {
            tx.query_all(sql, params![limit], |row| {
                Ok(PendingIdentity {
                    provisioning: row.get(0)?,
                    device: row.get(1)?,
                    since: row.get(2)?,
                    last_error: row.get(3)?,
                })
            })
        })
    }

    /// Returns the progress of the deletions for `causes`, which are all rolls or all blocks, at
    /// one service.
    pub fn hub_deletions(
        &self,
        causes: &[HubCause],
        provisioning: &str,
    ) -> Result<HubDeletions, StoreError> {
        let Some((kind, _)) = causes.first().map(|it| it.columns()) else {
            return Ok(HubDeletions::default());
        };
        let ids: Vec<i64> = causes.iter().map(|it| it.columns().1).collect();
        let ids = serde_json::json!(ids).to_string();
        let chosen = Chosen {
            ids: &ids,
            kind,
            provisioning,
            device: None,
        };
        self.read(|tx| chosen.deletions(tx))
    }

    /// Returns the progress of the deletion at one service for the compromise of a device that no
    /// enrollment admits there.
    pub fn hub_deletions_of_device(
        &self,
        device: &str,
        provisioning: &str,
    ) -> Result<HubDeletions, StoreError> {
        let (kind, id) = HubCause::Device.columns();
        let chosen = Chosen {
            ids: &serde_json::json!([id]).to_string(),
            kind,
            provisioning,
            device: Some(device),
        };
        self.read(|tx| chosen.deletions(tx))
    }

    /// Queues the deletions of `cause` again whose devices are not on record: they may have
    /// registered before the service followed.
    pub fn repeat_unknown_deletions(
        &self,
        cause: HubCause,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        let (kind, id) = cause.columns();
        self.write(move |tx| {
            let sql = "SELECT t.provisioning, t.device, t.enrollment FROM hub_task t
                 WHERE t.cause = ?1 AND t.cause_id = ?2 AND t.action = 'delete' AND NOT EXISTS (
                     SELECT 1 FROM device d WHERE d.registration_id = t.device)";
            let tasks = tx.query_all(sql, params![kind, id], |row| {
                let service: String = row.get(0)?;
                let device: String = row.get(1)?;
                Ok(NewHubTask::deletion(&service, &device, row.get(2)?))
            })?;
            hub_task::queue(tx, cause, &tasks, at).map(drop)
        })
    }

    /// Queues deletions again whose hub was not configured, and is among `hubs` now. Returns their
    /// number.
    pub fn resume_hub_deletions(
        &self,
        provisioning: &str,
        hubs: &[String],
        at: UnixSeconds,
    ) -> Result<usize, StoreError> {
        let hubs = serde_json::json!(hubs).to_string();
        let provisioning = provisioning.to_owned();
        self.write(move |tx| {
            let sql = concat!(
                "UPDATE hub_task SET done_at = NULL, answer = NULL, outcome = NULL, hub = NULL,
                     hub_device = NULL, round = round + 1, attempts = 0, last_error = NULL,
                     due_at = ?3
                 WHERE hub IN ",
                values_of_1!(),
                " AND provisioning = ?2 AND NOT (cause = 'block' AND EXISTS (
                     SELECT 1 FROM block b WHERE b.id = cause_id AND b.lifted_at IS NOT NULL))"
            );
            tx.execute(sql, params![hubs, provisioning, at])
        })
    }
}

/// The deletions of some causes at one service, of one device or of all.
struct Chosen<'a> {
    /// A JSON list of causes.
    ids: &'a str,
    kind: &'static str,
    provisioning: &'a str,
    device: Option<&'a str>,
}

const TASKS: &str = concat!(
    "FROM hub_task WHERE action = 'delete' AND cause_id IN ",
    values_of_1!(),
    " AND cause = ?2 AND provisioning = ?3 AND (?4 IS NULL OR device = ?4)"
);

impl Chosen<'_> {
    fn deletions(&self, tx: &Tx<'_>) -> Result<HubDeletions, StoreError> {
        let mut deletions = self.counts(tx)?;
        deletions.elsewhere = self.elsewhere(tx)?;
        deletions.without_place = self.without_place(tx)?;
        Ok(deletions)
    }

    fn counts(&self, tx: &Tx<'_>) -> Result<HubDeletions, StoreError> {
        let sql = format!(
            "SELECT count(DISTINCT device) FILTER (
                        WHERE coalesce(outcome, '') NOT IN ('elsewhere', 'unknown')),
                    count(DISTINCT device) FILTER (WHERE done_at IS NULL),
                    count(DISTINCT device) FILTER (WHERE done_at IS NULL AND attempts > 0),
                    count(DISTINCT device) FILTER (WHERE outcome = 'kept'),
                    max(CASE WHEN done_at IS NULL THEN last_error END)
             {TASKS}"
        );
        let parameters = params![self.ids, self.kind, self.provisioning, self.device];
        tx.query_one(&sql, parameters, |row| {
            let total: i64 = row.get(0)?;
            let open: i64 = row.get(1)?;
            Ok(HubDeletions {
                progress: HubProgress {
                    total,
                    done: total - open,
                    failing: row.get(2)?,
                    ..HubProgress::default()
                },
                kept: row.get(3)?,
                elsewhere: Vec::new(),
                without_place: WithoutPlace::default(),
                last_error: row.get(4)?,
            })
        })
    }

    fn without_place(&self, tx: &Tx<'_>) -> Result<WithoutPlace, StoreError> {
        let Self {
            ids,
            kind,
            provisioning: service,
            device,
        } = *self;
        let count = format!("SELECT count(DISTINCT device) {TASKS} AND outcome = 'unknown'");
        let parameters = params![ids, kind, service, device];
        let count = tx.query_one(&count, parameters, |row| row.get(0))?;
        let names = format!(
            "SELECT DISTINCT device {TASKS} AND outcome = 'unknown' ORDER BY device LIMIT ?5"
        );
        let parameters = params![ids, kind, service, device, NAMES_MAX];
        Ok(WithoutPlace {
            count,
            devices: tx.query_all(&names, parameters, |row| row.get(0))?,
        })
    }

    fn elsewhere(&self, tx: &Tx<'_>) -> Result<Vec<Elsewhere>, StoreError> {
        let hubs = format!(
            "SELECT hub, count(DISTINCT hub_device) {TASKS} AND hub IS NOT NULL
             GROUP BY hub ORDER BY hub"
        );
        let names =
            format!("SELECT DISTINCT hub_device {TASKS} AND hub = ?5 ORDER BY hub_device LIMIT ?6");
        let Self {
            ids,
            kind,
            provisioning: service,
            device,
        } = *self;
        let counted: Vec<(String, i64)> =
            tx.query_all(&hubs, params![ids, kind, service, device], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let named = counted.into_iter().map(|(hub, count)| {
            let parameters = params![ids, kind, service, device, hub, NAMES_MAX];
            Ok(Elsewhere {
                device_ids: tx.query_all(&names, parameters, |row| row.get(0))?,
                hub,
                count,
            })
        });
        named.collect()
    }
}
