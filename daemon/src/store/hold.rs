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
use super::enrollment::{find, from_json};
use super::hub_task::{self, HubCause};
use super::revocation::{self, Revocation, RevocationTarget, Revoked, RevokedCertificate};
use super::{Store, StoreError};
use crate::x509::revocation::RevocationReason;
use rusqlite::{Connection, params};

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
    /// Puts the next devices of a block on hold. Returns whether it did: not if the block was lifted
    /// or somebody else went on with it.
    pub fn hold_devices(&self, chunk: HoldChunk, at: i64) -> Result<bool, StoreError> {
        self.write(move |connection| {
            let block = block_by_id(connection, chunk.block)?;
            if block.lifted_at.is_some() || block.reached.as_ref() != Some(&chunk.from) {
                return Ok(false);
            }
            let mut identities = Vec::new();
            for device in &chunk.devices {
                if let Some(revocation) = &device.hold {
                    hold(connection, block.id, revocation)?;
                }
                let services = device.services.iter();
                identities.extend(services.map(|it| (it.clone(), device.registration_id.clone())));
            }
            queue_deletions(connection, block.id, &identities, at)?;
            set_reached(connection, block.id, chunk.reached.as_deref())?;
            Ok(true)
        })
    }

    /// Takes the next certificates of a lifted block off hold, and its open tasks off the queue.
    pub fn release_holds(&self, block: i64, at: i64) -> Result<Revoked, StoreError> {
        self.write(move |connection| release(connection, block, at))
    }

    /// How many certificates a block holds.
    pub fn held_count(&self, block: i64) -> Result<u64, StoreError> {
        self.read(|connection| {
            let count: i64 = connection
                .prepare_cached("SELECT count(*) FROM block_hold WHERE block = ?1")?
                .query_row([block], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }
}

/// Puts certificates on hold for a block, within the caller's transaction.
pub(super) fn hold(
    connection: &Connection,
    block: i64,
    revocation: &Revocation,
) -> Result<Revoked, StoreError> {
    let done = revocation::revoke(connection, revocation, RevocationReason::CertificateHold)?;
    for certificate in &done.changed {
        insert(connection, block, certificate.intent)?;
    }
    for certificate in done.unchanged.iter().filter(|it| is_on_hold(it)) {
        if is_held(connection, certificate.intent)? {
            insert(connection, block, certificate.intent)?;
        }
    }
    Ok(done)
}

/// Whether some block holds this certificate.
pub(super) fn is_held(connection: &Connection, certificate: i64) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM block_hold WHERE certificate = ?1)")?
        .query_row([certificate], |row| row.get(0))?)
}

/// The next chunk of what a lifted block gives back, within the caller's transaction.
pub(super) fn release(connection: &Connection, block: i64, at: i64) -> Result<Revoked, StoreError> {
    let row = block_by_id(connection, block)?;
    let Some(actor) = row.lifted_by else {
        return Err(StoreError::Conflict(format!("block {block} stands")));
    };
    let held: Vec<i64> = connection
        .prepare_cached("SELECT certificate FROM block_hold WHERE block = ?1 LIMIT ?2")?
        .query_map(params![block, RELEASED_MAX], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut released = Revoked::default();
    for intent in &held {
        connection
            .prepare_cached("DELETE FROM block_hold WHERE block = ?1 AND certificate = ?2")?
            .execute([block, *intent])?;
        let revocation = Revocation {
            target: RevocationTarget::Certificate { intent: *intent },
            at,
            actor: actor.clone(),
            cause: "block lifted".into(),
        };
        let done = revocation::unrevoke(connection, &revocation)?;
        released.changed.extend(done.changed);
        released.unchanged.extend(done.unchanged);
    }
    let tasks = connection
        .prepare_cached(
            "DELETE FROM hub_task WHERE id IN (
                 SELECT id FROM hub_task
                 WHERE cause = 'block' AND cause_id = ?1 AND done_at IS NULL LIMIT ?2)",
        )?
        .execute(params![block, RELEASED_MAX])?;
    if held.len().max(tasks) < RELEASED_MAX as usize {
        set_reached(connection, block, None)?;
    }
    Ok(released)
}

/// Each identity goes once an enrollment at its service that keeps the device out is settled.
/// `devices` are pairs of service and device.
pub(super) fn queue_deletions(
    connection: &Connection,
    block: i64,
    devices: &[(String, String)],
    at: i64,
) -> Result<(), StoreError> {
    let barred = barred(connection, block)?;
    for (provisioning, device) in devices {
        // The last one: a group of its own comes after the slots have let go.
        let after = barred.iter().rev().find(|(at, _)| at == provisioning);
        if let Some((_, enrollment)) = after {
            let task = delete_task(provisioning, device, *enrollment);
            hub_task::queue(connection, HubCause::Block(block), &[task], at)?;
        }
    }
    Ok(())
}

/// The enrollments by which a block keeps out, each with its service.
fn barred(connection: &Connection, block: i64) -> Result<Vec<(String, i64)>, StoreError> {
    let undo: String = connection
        .prepare_cached("SELECT undo FROM block WHERE id = ?1")?
        .query_row([block], |row| row.get(0))?;
    let mut barred = Vec::new();
    for it in from_json::<Vec<Undo>>(&undo)? {
        // One that is gone lets nobody in.
        if let Some(row) = find(connection, it.enrollment())? {
            barred.push((row.provisioning, row.id));
        }
    }
    Ok(barred)
}

fn insert(connection: &Connection, block: i64, certificate: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO block_hold (block, certificate) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute([block, certificate])?;
    Ok(())
}

fn set_reached(
    connection: &Connection,
    block: i64,
    reached: Option<&str>,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE block SET reached = ?2 WHERE id = ?1")?
        .execute(params![block, reached])?;
    Ok(())
}

fn is_on_hold(certificate: &RevokedCertificate) -> bool {
    certificate
        .revoked
        .is_some_and(|(_, reason)| !reason.is_final())
}
