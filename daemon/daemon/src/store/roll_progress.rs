//! Counts what rollovers have done since a moment, and what is left before them at a service.

use super::engine::dialect::values_of_1;
use super::engine::params;
use super::fleet_queries::{CURRENT, PROVEN, count, list};
use super::hub_task::HubCause;
use super::{Store, StoreError, UnixSeconds};
use crate::ids::GenerationId;

impl Store {
    /// Counts the devices whose current leaf is by one of these generations, and was issued since.
    pub fn devices_renewed_since(
        &self,
        generations: &[GenerationId],
        since: UnixSeconds,
    ) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) {CURRENT} AND c.issued_at >= ?2");
        self.read(|tx| count(tx, &sql, params![list(generations), since]))
    }

    /// Counts the devices that were first observed in a hub since, on a current leaf by another
    /// generation than these.
    pub fn devices_proven_since(
        &self,
        old: &[GenerationId],
        since: UnixSeconds,
    ) -> Result<u64, StoreError> {
        let sql = format!(
            "SELECT count(DISTINCT d.registration_id) {PROVEN}
             AND n.issuer NOT IN {} AND p.since >= ?2",
            values_of_1!()
        );
        self.read(|tx| count(tx, &sql, params![list(old), since]))
    }

    /// Counts the tasks of `cause` that were done at hubs since.
    pub fn hub_tasks_done_since(
        &self,
        cause: HubCause,
        since: UnixSeconds,
    ) -> Result<u64, StoreError> {
        let (cause, id) = cause.columns();
        let sql = "SELECT count(*) FROM hub_task
                   WHERE cause = ?1 AND cause_id = ?2 AND done_at >= ?3";
        self.read(|tx| count(tx, sql, params![cause, id, since]))
    }

    /// Counts the changes that wait for a provisioning service. A parked one waits for an operator.
    pub fn waiting_marks(&self, provisioning: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM mark WHERE provisioning = ?1 AND parked = 0";
        self.read(|tx| count(tx, sql, params![provisioning]))
    }
}
