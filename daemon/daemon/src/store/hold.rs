//! Holds the leaves of excluded devices and deletes their hub identities, in chunks; and lifts the
//! holds.
//!
//! A block excludes in the transaction in which it begins ([`super::exclusion`]). The work for
//! ten thousand devices follows in chunks, each a transaction of its own, so that the writer is
//! free for others in between. `block.reached` is the last device done: a crash costs the chunk
//! under way.
//!
//! Each certificate that a block holds has a row, and so has each that an operator holds
//! ([`super::operator_hold`]). The hold is lifted with the last of them.

use super::block;
use super::engine::{Tx, params};
use super::enrollment::individual;
use super::hub_task::{self, HubCause, NewHubTask};
use super::repeated_deletion::services_with_hub;
use super::revocation::{self, Revocation, RevocationTarget, Revoked, RevokedCertificate};
use super::{Store, StoreError, UnixSeconds, operator_hold};
use crate::ids::{BlockId, IntentId};
use crate::x509::revocation::RevocationReason;

/// The most holds that are lifted, and tasks that are dropped, in one transaction.
const RELEASED_MAX: u32 = 50;

/// A device that the block of a group or generation excludes.
#[derive(Clone, Debug)]
pub struct BlockedDevice {
    pub registration_id: String,
    /// Its leaves, if they go on hold.
    pub hold: Option<Revocation>,
    /// The services that exclude it: their hubs have to delete its identity.
    pub services: Vec<String>,
}

/// The next devices that a block excludes.
#[derive(Clone, Debug)]
pub struct HoldChunk {
    pub block: BlockId,
    /// How far the block was when the chunk was made.
    pub from: String,
    pub devices: Vec<BlockedDevice>,
    /// How far the block is then; `None` if these are the last.
    pub reached: Option<String>,
}

impl Store {
    /// Puts the next devices of a block on hold. Returns whether it did: not if the block was
    /// lifted or another chunk came first.
    pub fn hold_devices(&self, chunk: HoldChunk, at: UnixSeconds) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let block = block::by_id(tx, chunk.block)?;
            if block.lifted_at.is_some() || block.reached.as_ref() != Some(&chunk.from) {
                return Ok(false);
            }
            // A hub that came after the chunk was made has set `reached` to where it began.
            let hubs = services_with_hub(tx)?;
            let mut identities = Vec::new();
            for device in &chunk.devices {
                if let Some(revocation) = &device.hold {
                    hold(tx, block.id, revocation)?;
                }
                let services = device.services.iter().filter(|it| hubs.contains(*it));
                identities.extend(services.map(|it| (it.clone(), device.registration_id.clone())));
            }
            queue_deletions(tx, block.id, &identities, at)?;
            set_reached(tx, block.id, chunk.reached.as_deref())?;
            Ok(true)
        })
    }

    /// Lifts the next holds of a lifted block, and drops its open tasks.
    pub fn release_holds(&self, block: BlockId, at: UnixSeconds) -> Result<Revoked, StoreError> {
        self.write(move |tx| release(tx, block, at))
    }

    /// Returns how many certificates a block holds.
    pub fn held_count(&self, block: BlockId) -> Result<u64, StoreError> {
        self.read(|tx| {
            let count: i64 = tx.query_one(
                "SELECT count(*) FROM block_hold WHERE block = ?1",
                params![block],
                |row| row.get(0),
            )?;
            Ok(count.unsigned_abs())
        })
    }
}

/// Holds certificates for a block, within the caller's transaction.
pub(super) fn hold(
    tx: &Tx<'_>,
    block: BlockId,
    revocation: &Revocation,
) -> Result<Revoked, StoreError> {
    let done = revocation::revoke(tx, revocation, RevocationReason::CertificateHold)?;
    for certificate in &done.changed {
        insert(tx, block, certificate.intent)?;
    }
    for certificate in done.unchanged.iter().filter(|it| is_on_hold(it)) {
        operator_hold::keep_imported(tx, certificate.intent, revocation.at)?;
        insert(tx, block, certificate.intent)?;
    }
    Ok(done)
}

/// Lifts the next chunk of a lifted block's holds, within the caller's transaction.
pub(super) fn release(tx: &Tx<'_>, block: BlockId, at: UnixSeconds) -> Result<Revoked, StoreError> {
    let row = block::by_id(tx, block)?;
    let Some(actor) = row.lifted_by else {
        return Err(StoreError::Conflict(format!("block {block} is in force")));
    };
    let held: Vec<IntentId> = tx.query_all(
        "SELECT certificate FROM block_hold WHERE block = ?1 LIMIT ?2",
        params![block, RELEASED_MAX],
        |row| row.get(0),
    )?;
    let mut released = Revoked::default();
    for intent in &held {
        tx.execute(
            "DELETE FROM block_hold WHERE block = ?1 AND certificate = ?2",
            params![block, *intent],
        )?;
        let revocation = Revocation {
            target: RevocationTarget::Certificate { intent: *intent },
            at,
            actor: actor.clone(),
            cause: "block lifted".into(),
        };
        let done = revocation::unrevoke(tx, &revocation)?;
        released.changed.extend(done.changed);
        released.unchanged.extend(done.unchanged);
    }
    let tasks = tx.execute(
        "DELETE FROM hub_task WHERE id IN (
                 SELECT id FROM hub_task
                 WHERE cause = 'block' AND cause_id = ?1 AND done_at IS NULL LIMIT ?2)",
        params![block, RELEASED_MAX],
    )?;
    if held.len().max(tasks) < RELEASED_MAX as usize {
        set_reached(tx, block, None)?;
    }
    Ok(released)
}

/// Queues the deletion of these identities, pairs of service and device. Each waits for the
/// enrollments at its service that the block restricts, and for that of the device, if it has one.
fn queue_deletions(
    tx: &Tx<'_>,
    block: BlockId,
    identities: &[(String, String)],
    at: UnixSeconds,
) -> Result<(), StoreError> {
    for (provisioning, device) in identities {
        let own = individual(tx, device)?;
        let own = own.iter().find(|it| it.provisioning == *provisioning);
        let task = NewHubTask::deletion(provisioning, device, own.map(|it| it.id));
        hub_task::queue(tx, HubCause::Block(block), &[task], at)?;
    }
    Ok(())
}

fn insert(tx: &Tx<'_>, block: BlockId, certificate: IntentId) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO block_hold (block, certificate) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![block, certificate],
    )?;
    Ok(())
}

fn set_reached(tx: &Tx<'_>, block: BlockId, reached: Option<&str>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE block SET reached = ?2 WHERE id = ?1",
        params![block, reached],
    )?;
    Ok(())
}

fn is_on_hold(certificate: &RevokedCertificate) -> bool {
    certificate
        .revoked
        .is_some_and(|(_, reason)| !reason.is_final())
}
