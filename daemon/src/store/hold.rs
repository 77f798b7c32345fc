//! What a block does to each device: its leaves go on hold, its hub identity goes; and back.
//!
//! A block shuts out in the transaction in which it begins ([`super::block`]). What follows for ten
//! thousand devices is done in chunks, each a transaction of its own, so that nobody waits long for
//! the writer. `block.reached` says how far that is: a crash costs the chunk that was under way.
//!
//! Each certificate that a block holds has a row. It comes off hold with the last block that holds
//! it; one that somebody put on hold by other means has no row, and no block lifts that.

use super::block::{Undo, block_by_id};
use super::compromise::delete_task;
use super::engine::{Tx, params};
use super::enrollment::find;
use super::hub_task::{self, HubCause};
use super::json::from_json;
use super::revocation::{self, Revocation, RevocationTarget, Revoked, RevokedCertificate, is_held};
use super::{Store, StoreError};
use crate::x509::revocation::RevocationReason;

/// How many certificates come off hold in one transaction, and how many tasks go with them.
const RELEASED_MAX: u32 = 50;

/// A device that a block of more than one keeps out.
#[derive(Clone, Debug)]
pub struct BlockedDevice {
    /// Its registration id.
    pub registration_id: String,
    /// Its leaves, if they go on hold.
    pub hold: Option<Revocation>,
    /// The services whose hubs have to delete its identity.
    pub services: Vec<String>,
}

/// The next devices that a block keeps out.
#[derive(Clone, Debug)]
pub struct HoldChunk {
    /// The block.
    pub block: i64,
    /// How far it was when the chunk was put together.
    pub from: String,
    /// The devices.
    pub devices: Vec<BlockedDevice>,
    /// How far it is then; `None` if these are the last.
    pub reached: Option<String>,
}

impl Store {
    /// Puts the next devices of a block on hold. Returns whether it did: not if the block was
    /// lifted or somebody else went on with it.
    pub fn hold_devices(&self, chunk: HoldChunk, at: i64) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let block = block_by_id(tx, chunk.block)?;
            if block.lifted_at.is_some() || block.reached.as_ref() != Some(&chunk.from) {
                return Ok(false);
            }
            let mut identities = Vec::new();
            for device in &chunk.devices {
                if let Some(revocation) = &device.hold {
                    hold(tx, block.id, revocation)?;
                }
                let services = device.services.iter();
                identities.extend(services.map(|it| (it.clone(), device.registration_id.clone())));
            }
            queue_deletions(tx, block.id, &identities, at)?;
            set_reached(tx, block.id, chunk.reached.as_deref())?;
            Ok(true)
        })
    }

    /// Takes the next certificates of a lifted block off hold, and its open tasks off the queue.
    pub fn release_holds(&self, block: i64, at: i64) -> Result<Revoked, StoreError> {
        self.write(move |tx| release(tx, block, at))
    }

    /// How many certificates a block holds.
    pub fn held_count(&self, block: i64) -> Result<u64, StoreError> {
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

/// Puts certificates on hold for a block, within the caller's transaction.
pub(super) fn hold(
    tx: &Tx<'_>,
    block: i64,
    revocation: &Revocation,
) -> Result<Revoked, StoreError> {
    let done = revocation::revoke(tx, revocation, RevocationReason::CertificateHold)?;
    for certificate in &done.changed {
        insert(tx, block, certificate.intent)?;
    }
    for certificate in done.unchanged.iter().filter(|it| is_on_hold(it)) {
        if is_held(tx, certificate.intent)? {
            insert(tx, block, certificate.intent)?;
        }
    }
    Ok(done)
}

/// The next chunk of what a lifted block gives back, within the caller's transaction.
pub(super) fn release(tx: &Tx<'_>, block: i64, at: i64) -> Result<Revoked, StoreError> {
    let row = block_by_id(tx, block)?;
    let Some(actor) = row.lifted_by else {
        return Err(StoreError::Conflict(format!("block {block} stands")));
    };
    let held: Vec<i64> = tx.query_all(
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

/// Each identity goes once an enrollment at its service that keeps the device out is settled.
/// `devices` are pairs of service and device.
pub(super) fn queue_deletions(
    tx: &Tx<'_>,
    block: i64,
    devices: &[(String, String)],
    at: i64,
) -> Result<(), StoreError> {
    let barred = barred(tx, block)?;
    for (provisioning, device) in devices {
        // The last one: a group of its own comes after the slots have let go.
        let after = barred.iter().rev().find(|(at, _)| at == provisioning);
        if let Some((_, enrollment)) = after {
            let task = delete_task(provisioning, device, *enrollment);
            hub_task::queue(tx, HubCause::Block(block), &[task], at)?;
        }
    }
    Ok(())
}

/// The enrollments by which a block keeps out, each with its service.
fn barred(tx: &Tx<'_>, block: i64) -> Result<Vec<(String, i64)>, StoreError> {
    let undo: String = tx.query_one(
        "SELECT undo FROM block WHERE id = ?1",
        params![block],
        |row| row.get(0),
    )?;
    let mut barred = Vec::new();
    for it in from_json::<Vec<Undo>>(&undo)? {
        // One that is gone lets nobody in.
        if let Some(row) = find(tx, it.enrollment())? {
            barred.push((row.provisioning, row.id));
        }
    }
    Ok(barred)
}

fn insert(tx: &Tx<'_>, block: i64, certificate: i64) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO block_hold (block, certificate) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![block, certificate],
    )?;
    Ok(())
}

fn set_reached(tx: &Tx<'_>, block: i64, reached: Option<&str>) -> Result<(), StoreError> {
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
