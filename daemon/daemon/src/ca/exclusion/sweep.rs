//! Applies a block to its devices, in chunks. It takes no input, and continues at its record.
//!
//! From the block on, DPS accepts no device and no leaf is issued below it. So no device is added,
//! and the sweep can go through them in the order of their ids. The application's loop drives it.

use super::Exclusions;
use crate::ca::{Error, crash_point};
use crate::ids::GenerationId;
use crate::store::{
    BlockKind, BlockRow, BlockedDevice, EnrollmentRow, HoldChunk, Revocation, RevocationTarget,
};
use crate::unix_seconds::UnixSeconds;
use std::collections::BTreeSet;

/// How many devices one transaction holds: a few tens of milliseconds of the one writer.
const DEVICES_PER_CHUNK: u32 = 50;
/// How many chunks are done before everything else has its turn.
const CHUNKS_PER_TURN: u32 = 40;
/// How long after a failure a block is gone on with, in seconds.
const RETRY_SECONDS: i64 = 5;

impl Exclusions {
    /// Goes on with every block that has devices left, or holds to give back. Returns when to try
    /// again what failed, in Unix seconds.
    pub fn advance_blocks(&self) -> Result<Option<UnixSeconds>, Error> {
        let mut chunks = 0;
        let mut retry = None;
        for mut block in self.store.unfinished_blocks()? {
            while block.reached.is_some() && chunks < CHUNKS_PER_TURN {
                chunks += 1;
                if let Err(error) = self.advance_block(&block) {
                    let block = block.id.get();
                    let code = error.code;
                    tracing::warn!(
                        block,
                        code = code.name(),
                        %error,
                        "block step failed, retrying",
                    );
                    retry = Some(self.issuer.now() + RETRY_SECONDS);
                    break;
                }
                block = self.store.block(block.id)?;
            }
        }
        if chunks > 0 && retry.is_none() {
            // The hubs have something to do, and so may the next turn.
            self.issuer.wake();
        }
        Ok(retry)
    }

    /// How far a block is that has devices left, in words.
    pub(super) fn left_to_do(&self, block: &BlockRow) -> Result<Option<String>, Error> {
        let Some(after) = &block.reached else {
            return Ok(None);
        };
        let held = self.store.held_count(block.id)?;
        if block.lifted_at.is_some() {
            return Ok(Some(format!("{held} holds are still to be lifted")));
        }
        let fleet = self.fleet_of(block)?;
        let left = self
            .store
            .count_with_leaves_by(&fleet.generations, self.issuer.now(), after)?;
        Ok(Some(match block.kind {
            BlockKind::Group => {
                format!("{held} certificates on hold; {left} devices are still to be gone through")
            }
            _ => format!("{left} devices are still to be gone through"),
        }))
    }

    fn advance_block(&self, block: &BlockRow) -> Result<(), Error> {
        let Some(from) = block.reached.clone() else {
            return Ok(());
        };
        crash_point("block-chunk");
        if block.lifted_at.is_some() {
            self.store.release_holds(block.id, self.issuer.now())?;
            return Ok(());
        }
        let fleet = self.fleet_of(block)?;
        let now = self.issuer.now();
        let generations = &fleet.generations;
        let limit = DEVICES_PER_CHUNK;
        let ids = self
            .store
            .devices_with_leaves_by(generations, now, &from, limit)?;
        let more = ids.len() == DEVICES_PER_CHUNK as usize;
        let reached = ids.last().filter(|_| more).cloned();
        let mut devices = Vec::with_capacity(ids.len());
        for id in ids {
            devices.extend(self.blocked_device(block, &fleet, id)?);
        }
        let chunk = HoldChunk {
            block: block.id,
            from,
            devices,
            reached,
        };
        let devices = chunk.devices.len();
        self.store.hold_devices(chunk, now)?;
        tracing::info!(block = %block.name, devices, "devices of a block excluded");
        Ok(())
    }

    /// The scope of a block of more than one device.
    pub(super) fn fleet_of(&self, block: &BlockRow) -> Result<Fleet, Error> {
        let hierarchy = self.issuer.hierarchy();
        if let Some(number) = block.generation {
            let blocked = self.generation_named(&block.name, number)?;
            let below = hierarchy.subtree(blocked.id);
            let services = self.services.names.iter();
            return Ok(Fleet {
                generations: below.iter().copied().collect(),
                services: services.map(|it| (it.clone(), below.clone())).collect(),
            });
        }
        let groups: Vec<EnrollmentRow> = self.groups_named(&block.name)?;
        let below = |group: EnrollmentRow| {
            let own = hierarchy
                .iter()
                .filter(|it| Some(&it.authority) == group.authority.as_ref());
            let below: BTreeSet<GenerationId> =
                own.flat_map(|it| hierarchy.subtree(it.id)).collect();
            (group.provisioning, below)
        };
        let services: Vec<_> = groups.into_iter().map(below).collect();
        let all = services.iter().flat_map(|(_, below)| below.iter().copied());
        let all: BTreeSet<GenerationId> = all.collect();
        Ok(Fleet {
            generations: all.into_iter().collect(),
            services,
        })
    }

    /// A device of a blocked group has a leaf below the group's authority, and no enrollment of its
    /// own at the group's service.
    fn blocked_device(
        &self,
        block: &BlockRow,
        fleet: &Fleet,
        id: String,
    ) -> Result<Option<BlockedDevice>, Error> {
        let is_group = block.kind == BlockKind::Group;
        let leaves = self.living_leaves(&id)?;
        let mut services = Vec::new();
        for (service, below) in &fleet.services {
            let has_leaf = leaves.iter().any(|leaf| below.contains(&leaf.issuer));
            if has_leaf && !(is_group && self.store.has_own_enrollment(service, &id)?) {
                services.push(service.clone());
            }
        }
        if services.is_empty() {
            return Ok(None);
        }
        Ok(Some(BlockedDevice {
            hold: is_group.then(|| self.hold_of(block, &id)),
            registration_id: id,
            services,
        }))
    }

    fn hold_of(&self, block: &BlockRow, device: &str) -> Revocation {
        let target: RevocationTarget = self.leaves_of_device(device);
        Revocation {
            target,
            at: self.issuer.now(),
            actor: block.blocked_by.clone(),
            cause: format!("block: {}", block.reason),
        }
    }
}

pub(super) struct Fleet {
    /// The issuers of their leaves.
    pub(super) generations: Vec<GenerationId>,
    /// The provisioning services that exclude them, each with the issuers of the excluded leaves.
    services: Vec<(String, BTreeSet<GenerationId>)>,
}
