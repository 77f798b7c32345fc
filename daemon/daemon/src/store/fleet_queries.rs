//! Counts and lists the devices that depend on a generation.
//!
//! Every count is answered from indexes, so that a fleet of 10,000 devices is counted in
//! milliseconds.

use super::engine::dialect::{greatest, values_of_1};
use super::engine::{Parameters, Row, Tx, params};
use super::{Store, StoreError, UnixSeconds, subordinate};
use crate::ids::GenerationId;
use schemars::JsonSchema;
use serde::Serialize;

/// A device below a generation, in the order in which it needs a new leaf.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceBelow {
    pub registration_id: String,
    /// The end of its leaf.
    pub not_after: UnixSeconds,
}

/// The progress of an authority's roll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DrainReport {
    /// Leaves under the old certificate that have neither expired nor been revoked.
    pub leaves_under_the_old: u64,
    /// Devices whose current leaf is under the old certificate.
    pub devices_on_the_old: u64,
    /// Devices that have a leaf under the new certificate.
    pub devices_on_the_new: u64,
    /// Of these, devices observed in a hub with the new leaf.
    pub devices_seen_on_the_new: u64,
    /// Devices still on the old certificate without a new leaf or a change in the hub for the time
    /// that the policy sets.
    pub devices_silent: u64,
    /// Leaves under the old certificate that end before it is retired.
    pub expiring_before_retirement: u64,
    /// Certificates of authorities elsewhere under the old certificate that have neither expired
    /// nor been revoked. The devices below them are not on record.
    pub subordinates_under_the_old: u64,
}

/// Devices after `?3` with a leaf by one of these generations that has not expired.
const LIVING: &str = concat!(
    "FROM device d WHERE d.registration_id > ?3 AND EXISTS (
         SELECT 1 FROM intent i JOIN certificate ic ON ic.intent = i.id
         WHERE i.subject = d.registration_id AND i.purpose = 'leaf'
           AND i.not_after >= ?2 AND i.issuer IN ",
    values_of_1!(),
    ")"
);
pub(super) const CURRENT: &str = concat!(
    "FROM device d JOIN intent i ON i.id = d.certificate
     JOIN certificate c ON c.intent = d.certificate WHERE i.issuer IN ",
    values_of_1!()
);
pub(super) const LEAVES: &str = concat!(
    "FROM intent i JOIN certificate c ON c.intent = i.id
     WHERE i.purpose = 'leaf' AND i.not_after >= ?2
       AND c.revoked_at IS NULL AND i.issuer IN ",
    values_of_1!()
);

/// A device `d` that was observed in a hub on its current leaf, whose intent is `n`.
pub(super) const PROVEN: &str = "FROM device d JOIN intent n ON n.id = d.certificate \
     JOIN certificate nc ON nc.intent = n.id \
     JOIN hub_observation p ON p.device = d.registration_id AND p.certificate = nc.sha256 \
     WHERE TRUE";

/// The last sign of the device `d`: its current leaf `c` was issued, or it registered.
const LAST_SEEN: &str = concat!(
    greatest!(),
    "(c.issued_at, coalesce((SELECT max(p.since) FROM hub_observation p
         WHERE p.device = d.registration_id), 0))"
);

impl Store {
    /// Counts the devices whose current leaf is by one of these generations and good.
    pub fn devices_under(
        &self,
        generations: &[GenerationId],
        now: UnixSeconds,
    ) -> Result<u64, StoreError> {
        self.read(|tx| on_good_leaves(tx, generations, now))
    }

    /// Returns the devices with a leaf by one of these generations that has not expired, current or
    /// not, in the order of their registration ids: those after `after`, at most `limit`.
    pub fn devices_with_leaves_by(
        &self,
        generations: &[GenerationId],
        now: UnixSeconds,
        after: &str,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            let sql =
                format!("SELECT d.registration_id {LIVING} ORDER BY d.registration_id LIMIT ?4");
            let parameters = params![list(generations), now, after, limit];
            tx.query_all(&sql, parameters, |row| row.get(0))
        })
    }

    /// Counts the devices that [`devices_with_leaves_by`](Self::devices_with_leaves_by) lists.
    pub fn count_with_leaves_by(
        &self,
        generations: &[GenerationId],
        now: UnixSeconds,
        after: &str,
    ) -> Result<u64, StoreError> {
        self.read(|tx| {
            let sql = format!("SELECT count(*) {LIVING}");
            count(tx, &sql, params![list(generations), now, after])
        })
    }

    /// Counts the devices that may still need one of these generations: devices with a good leaf by
    /// it, current or not, that were not observed in a hub on a current leaf by another generation.
    pub fn devices_needing(
        &self,
        generations: &[GenerationId],
        now: UnixSeconds,
    ) -> Result<u64, StoreError> {
        let generations = list(generations);
        self.read(|tx| {
            let sql = format!(
                "SELECT count(DISTINCT i.subject) {LEAVES}
                 AND EXISTS (SELECT 1 FROM device d WHERE d.registration_id = i.subject)
                 AND NOT EXISTS (SELECT 1 {PROVEN} AND d.registration_id = i.subject
                   AND n.issuer NOT IN {})",
                values_of_1!()
            );
            count(tx, &sql, params![generations, now])
        })
    }

    /// Returns the devices whose current leaf is by one of these generations, in the order in which
    /// they need a new one: the most recently active first, and among equals those whose leaf ends
    /// first.
    pub fn devices_to_reissue(
        &self,
        generations: &[GenerationId],
        now: UnixSeconds,
        limit: u32,
    ) -> Result<Vec<DeviceBelow>, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "SELECT d.registration_id, i.not_after {CURRENT} AND i.not_after >= ?2
                 ORDER BY {LAST_SEEN} DESC, i.not_after, d.registration_id LIMIT ?3"
            );
            let generations = list(generations);
            tx.query_all(&sql, params![generations, now, limit], device)
        })
    }

    /// Returns the devices that ever had a leaf by one of these generations, the most recently
    /// active first. With `strangers`, also the devices that a hub knows by a certificate which is
    /// not on record as theirs.
    pub fn devices_to_clear(
        &self,
        generations: &[GenerationId],
        strangers: bool,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(|tx| devices_to_clear(tx, generations, strangers, limit))
    }

    /// Returns the progress of a roll from the generations `old` to `new`, which retires the old
    /// ones at `retirement`.
    pub fn drain_report(
        &self,
        old: &[GenerationId],
        new: &[GenerationId],
        now: UnixSeconds,
        retirement: UnixSeconds,
        silent_since: UnixSeconds,
    ) -> Result<DrainReport, StoreError> {
        let old = list(old);
        let new = list(new);
        self.read(|tx| {
            let current = format!("SELECT count(*) {CURRENT} AND i.not_after >= ?2");
            let leaves = format!("SELECT count(*) {LEAVES}");
            let expiring = format!("SELECT count(*) {LEAVES} AND i.not_after < ?3");
            let seen = format!(
                "SELECT count(DISTINCT d.registration_id) {PROVEN}
                 AND n.issuer IN {}",
                values_of_1!()
            );
            let silent = format!(
                "{current} AND c.issued_at < ?3 AND NOT EXISTS (
                 SELECT 1 FROM hub_observation p
                 WHERE p.device = d.registration_id AND p.since >= ?3)"
            );
            Ok(DrainReport {
                devices_seen_on_the_new: count(tx, &seen, params![new])?,
                devices_silent: count(tx, &silent, params![old, now, silent_since])?,
                leaves_under_the_old: count(tx, &leaves, params![old, now])?,
                devices_on_the_old: count(tx, &current, params![old, now])?,
                devices_on_the_new: count(tx, &current, params![new, now])?,
                expiring_before_retirement: count(tx, &expiring, params![old, now, retirement])?,
                subordinates_under_the_old: count(tx, subordinate::VALID, params![old, now])?,
            })
        })
    }
}

/// Does [`Store::devices_to_clear`] within the caller's transaction.
pub(super) fn devices_to_clear(
    tx: &Tx<'_>,
    generations: &[GenerationId],
    strangers: bool,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    let sql = format!(
        "SELECT d.registration_id FROM device d
         JOIN certificate c ON c.intent = d.certificate
         WHERE EXISTS (
             SELECT 1 FROM intent i JOIN certificate ic ON ic.intent = i.id
             WHERE i.subject = d.registration_id AND i.purpose = 'leaf' AND i.issuer IN {})
           OR ?2 AND EXISTS (
             SELECT 1 FROM hub_observation p WHERE p.device = d.registration_id
               AND p.certificate IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM certificate its JOIN intent i ON i.id = its.intent
                 WHERE its.sha256 = p.certificate AND i.subject = d.registration_id))
         ORDER BY {LAST_SEEN} DESC, d.registration_id LIMIT ?3",
        values_of_1!()
    );
    tx.query_all(&sql, params![list(generations), strangers, limit], |row| {
        row.get(0)
    })
}

/// Counts the devices whose current leaf is by one of these generations and good.
pub(super) fn on_good_leaves(
    tx: &Tx<'_>,
    generations: &[GenerationId],
    now: UnixSeconds,
) -> Result<u64, StoreError> {
    let condition = "AND i.not_after >= ?2 AND c.revoked_at IS NULL";
    let sql = format!("SELECT count(*) {CURRENT} {condition}");
    count(tx, &sql, params![list(generations), now])
}

/// Counts the leaves by one of these generations that are good.
pub(super) fn good_leaves(
    tx: &Tx<'_>,
    generations: &[GenerationId],
    now: UnixSeconds,
) -> Result<u64, StoreError> {
    let sql = format!("SELECT count(*) {LEAVES}");
    count(tx, &sql, params![list(generations), now])
}

pub(super) fn list(generations: &[GenerationId]) -> String {
    serde_json::json!(generations).to_string()
}

pub(super) fn count(tx: &Tx<'_>, sql: &str, parameters: Parameters<'_>) -> Result<u64, StoreError> {
    let counted: i64 = tx.query_one(sql, parameters, |row| row.get(0))?;
    Ok(counted.unsigned_abs())
}

fn device(row: &Row<'_>) -> Result<DeviceBelow, StoreError> {
    Ok(DeviceBelow {
        registration_id: row.get(0)?,
        not_after: row.get(1)?,
    })
}
