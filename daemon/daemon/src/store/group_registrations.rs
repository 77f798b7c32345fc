//! Finds, after a restore, the hub identities of devices that are not on record, by the
//! registrations of their groups.
//!
//! An exclusion of a group or a generation queues every group of its services. When a service
//! excludes what it must, each of these groups is asked for its registrations, and the identity of
//! each device that the exclusion has not found by the record is deleted, unless it is by a good
//! leaf on record: a device that is on record may have registered with a leaf that is not. A device
//! that is admitted all the same registers again.

use super::engine::dialect::values_of_1;
use super::engine::{Tx, params};
use super::hub_task::{self, BLOCK_FOLLOWED, HubAction, HubCause, NewHubTask};
use super::{Store, StoreError, UnixSeconds, restore};

/// A group whose registrations are to be listed.
#[derive(Clone, Debug)]
pub struct GroupToList {
    /// The row id.
    pub id: i64,
    /// The group id.
    pub name: String,
    cause: HubCause,
    provisioning: String,
}

/// How many groups of some exclusions were asked at one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupsListed {
    pub total: i64,
    pub listed: i64,
}

impl Store {
    /// Queues every group of these services for an exclusion that they follow already.
    pub fn queue_group_registrations(
        &self,
        cause: HubCause,
        services: Vec<String>,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            for service in &services {
                queue(tx, cause, service, at)?;
            }
            Ok(())
        })
    }

    /// Returns the next group of a service that is due.
    pub fn group_to_list(
        &self,
        provisioning: &str,
        now: UnixSeconds,
    ) -> Result<Option<GroupToList>, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "SELECT t.id, t.name, t.cause, t.cause_id, t.provisioning
                 FROM group_registrations t
                 WHERE t.provisioning = ?1 AND t.due_at <= ?2 AND t.listed_at IS NULL
                   AND {BLOCK_FOLLOWED}
                 ORDER BY t.due_at, t.id LIMIT 1"
            );
            tx.query_optional(&sql, params![provisioning, now], |row| {
                let id: i64 = row.get(3)?;
                let cause = HubCause::of(row.get(2)?, id);
                Ok(GroupToList {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    cause,
                    provisioning: row.get(4)?,
                })
            })
        })
    }

    /// Returns when the next group of a service is due.
    pub fn next_group_to_list(
        &self,
        provisioning: &str,
    ) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "SELECT min(t.due_at) FROM group_registrations t
                 WHERE t.provisioning = ?1 AND t.listed_at IS NULL
                   AND {BLOCK_FOLLOWED}"
            );
            tx.query_one(&sql, params![provisioning], |row| row.get(0))
        })
    }

    /// Puts a group off that could not be listed.
    pub fn postpone_group(&self, group: i64, due_at: UnixSeconds) -> Result<(), StoreError> {
        self.write(move |tx| {
            let sql = "UPDATE group_registrations SET due_at = ?2 WHERE id = ?1";
            tx.execute(sql, params![group, due_at]).map(drop)
        })
    }

    /// Queues the deletion of the identities of those of these devices for which the exclusion has
    /// no task yet.
    pub fn queue_unknown_identities(
        &self,
        group: &GroupToList,
        devices: Vec<String>,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        let group = group.clone();
        self.write(move |tx| {
            let queued = "SELECT EXISTS (
                 SELECT 1 FROM hub_task WHERE cause = ?1 AND cause_id = ?2 AND provisioning = ?3
                   AND device = ?4 AND action = 'delete')";
            let (kind, id) = group.cause.columns();
            for device in &devices {
                let of_cause = params![kind, id, group.provisioning, device];
                if tx.query_one(queued, of_cause, |row| row.get(0))? {
                    continue;
                }
                let task = NewHubTask {
                    provisioning: group.provisioning.clone(),
                    device: device.clone(),
                    action: HubAction::Delete,
                    enrollment: None,
                };
                hub_task::queue(tx, group.cause, &[task], at)?;
            }
            Ok(())
        })
    }

    /// Records that all registrations of a group were listed.
    pub fn record_listed(&self, group: i64, at: UnixSeconds) -> Result<(), StoreError> {
        self.write(move |tx| {
            let sql = "UPDATE group_registrations SET listed_at = ?2 WHERE id = ?1";
            tx.execute(sql, params![group, at]).map(drop)
        })
    }

    /// Returns how many groups of a service were asked for these causes, all rolls or all blocks.
    pub fn groups_listed(
        &self,
        causes: &[HubCause],
        provisioning: &str,
    ) -> Result<GroupsListed, StoreError> {
        let Some((kind, _)) = causes.first().map(|it| it.columns()) else {
            return Ok(GroupsListed::default());
        };
        let ids: Vec<i64> = causes.iter().map(|it| it.columns().1).collect();
        let ids = serde_json::json!(ids).to_string();
        let sql = concat!(
            "SELECT count(*), count(listed_at) FROM group_registrations
             WHERE cause_id IN ",
            values_of_1!(),
            " AND cause = ?2 AND provisioning = ?3"
        );
        self.read(|tx| {
            tx.query_one(sql, params![ids, kind, provisioning], |row| {
                Ok(GroupsListed {
                    total: row.get(0)?,
                    listed: row.get(1)?,
                })
            })
        })
    }
}

/// Queues every group of a service, if a backup was restored.
pub(super) fn queue(
    tx: &Tx<'_>,
    cause: HubCause,
    provisioning: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    if restore::lost_period(tx)?.is_none() {
        return Ok(());
    }
    let (kind, id) = cause.columns();
    tx.execute(
        "INSERT INTO group_registrations
             (cause, cause_id, provisioning, name, due_at)
         SELECT ?1, ?2, provisioning, name, ?4 FROM enrollment
         WHERE provisioning = ?3 AND kind = 'group' AND overlay_of IS NULL
         ON CONFLICT (cause, cause_id, provisioning, name) DO UPDATE SET
             listed_at = NULL, due_at = excluded.due_at",
        params![kind, id, provisioning, at],
    )?;
    Ok(())
}
