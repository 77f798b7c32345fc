//! Blocks and unblocks a device, a group or a generation of an authority, at every place at once.
//!
//! One command reaches the revocation lists, the provisioning services and their hubs, and its
//! receipt has the answer of each. Lifting the block reverts its changes. [`sweep`] handles the
//! devices one by one.

mod sweep;

use super::authorize::{Authorized, Operate};
use super::hierarchy::Generation;
use super::receipt::{Place, PlaceState, Receipt, service_place};
use super::{CertificateAuthority, Code, Error, crash_point, rfc3339};
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::{
    AuditEntry, Bar, BlockKind, BlockRow, BlockingGroup, EnrollmentRow, HubCause, NewBlock,
    RevocationTarget,
};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The subject of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// A device, by its registration id.
    Device(String),
    /// An enrollment group.
    Group(String),
    /// A generation of an authority.
    Generation(String, i64),
}

impl Blocked {
    fn key(&self) -> (BlockKind, &str, Option<i64>) {
        match self {
            Blocked::Device(id) => (BlockKind::Device, id, None),
            Blocked::Group(id) => (BlockKind::Group, id, None),
            Blocked::Generation(name, number) => (BlockKind::Generation, name, Some(*number)),
        }
    }
}

/// A block that stands, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The blocked subject.
    pub kind: BlockKind,
    /// Registration id, group id or authority.
    pub name: String,
    /// The generation's number.
    pub generation: Option<i64>,
    /// Why, in the operator's words.
    pub reason: String,
    /// The operator.
    pub by: String,
    /// RFC 3339.
    pub since: String,
}

impl From<BlockRow> for Standing {
    fn from(row: BlockRow) -> Self {
        Self {
            kind: row.kind,
            name: row.name,
            generation: row.generation,
            reason: row.reason,
            by: row.blocked_by,
            since: rfc3339(row.blocked_at),
        }
    }
}

impl CertificateAuthority {
    /// Excludes the subject until [`unblock`](Self::unblock).
    pub fn block(
        &self,
        permission: &Authorized<Operate>,
        blocked: &Blocked,
        reason: &str,
    ) -> Result<BlockRow, Error> {
        let cause = format!("block: {reason}");
        let newest_group = self.store.newest_group()?;
        let mut new = match blocked {
            Blocked::Device(id) => self.device_block(permission, id, &cause)?,
            Blocked::Group(id) => self.group_block(id)?,
            Blocked::Generation(authority, number) => {
                self.generation_block(permission, authority, *number, &cause)?
            }
        };
        new.reason = reason.to_owned();
        new.devices
            .retain(|(service, _)| self.hubs.contains_key(service));
        new.newest_group = Some(newest_group);
        let entry = self.block_entry(permission, "block.started", blocked, reason);
        let (row, revoked) = self.store.start_block(new, entry)?;
        crash_point("roll-block-recorded");
        self.wake();
        self.follow_revocation(&revoked)?;
        Ok(row)
    }

    /// Lifts a block. A device of a group goes back to its group, unless the group would accept a
    /// compromised leaf of it. Returns the block that was lifted.
    pub fn unblock(
        &self,
        permission: &Authorized<Operate>,
        blocked: &Blocked,
        reason: &str,
    ) -> Result<BlockRow, Error> {
        let block = self.standing(blocked)?;
        let entry = self.block_entry(permission, "block.lifted", blocked, reason);
        let revoked = self.store.lift_block(block.id, entry)?;
        crash_point("roll-block-lifted");
        self.wake();
        self.follow_revocation(&revoked)?;
        Ok(self.store.block(block.id)?)
    }

    /// The block that stands of this subject.
    pub fn standing(&self, blocked: &Blocked) -> Result<BlockRow, Error> {
        let (kind, name, generation) = blocked.key();
        let standing = self.store.standing_block(kind, name, generation)?;
        standing.ok_or_else(|| {
            let message = format!("{name} is not blocked; `hallmark status` has the newest blocks");
            Error::missing(Code::BlockUnknown, message)
        })
    }

    /// The answers of all places to a block, or to its end.
    pub fn block_receipt(&self, id: i64) -> Result<Receipt, Error> {
        let block = self.store.block(id)?;
        let left = self.left_to_do(&block)?;
        let mut places = vec![match (block.kind, &left) {
            (BlockKind::Device, _) => self.crl_place(&block.name)?,
            (BlockKind::Group, Some(left)) => {
                Place::new("crl".into(), PlaceState::Pending, left.clone())
            }
            _ => self.listed_place(
                self.signers_of(&block)?.into_iter(),
                &self.held_in_words(&block),
            )?,
        }];
        if let Some(number) = block.generation.filter(|_| block.lifted_at.is_none()) {
            let generation = self.generation_named(&block.name, number)?;
            places.extend(self.elsewhere_place(generation.id));
        }
        let mut services = BTreeSet::new();
        for enrollment in &block.enrollments {
            // A missing enrollment was observed as missing.
            let Some(row) = self.store.find_enrollment(*enrollment)? else {
                continue;
            };
            places.push(service_place(&row));
            services.insert(row.provisioning);
        }
        for service in services.iter().filter(|_| block.lifted_at.is_none()) {
            let mut place = self.hub_place(HubCause::Block(id), service)?;
            if let Some(left) = left.as_ref().filter(|_| place.state == PlaceState::Done) {
                place = Place::new(place.place, PlaceState::Pending, left.clone());
            }
            places.push(place);
        }
        Ok(places.into())
    }

    /// The issuers whose revocation lists have a block: the generation's issuer, or those of a
    /// group's devices.
    fn signers_of(&self, block: &BlockRow) -> Result<BTreeSet<i64>, Error> {
        if let Some(number) = block.generation {
            let generation = self.generation_named(&block.name, number)?;
            return Ok([generation.parent.unwrap_or(generation.id)].into());
        }
        let authorities: BTreeSet<String> = self
            .groups_named(&block.name)?
            .into_iter()
            .filter_map(|group| group.authority)
            .collect();
        let hierarchy = self.hierarchy();
        let of_group = hierarchy.iter().filter(|generation| {
            let mut above = hierarchy.upwards(generation.id);
            above.any(|it| authorities.contains(&it.authority))
        });
        Ok(of_group.map(|generation| generation.id).collect())
    }

    fn held_in_words(&self, block: &BlockRow) -> String {
        let verb = match block.lifted_at {
            None => "on hold",
            Some(_) => "no longer on hold",
        };
        match block.kind {
            BlockKind::Generation => {
                let number = block.generation.unwrap_or_default();
                format!("generation {number} of {} is {verb}", block.name)
            }
            _ => format!("the leaves of the devices of {} are {verb}", block.name),
        }
    }

    fn device_block(
        &self,
        permission: &Authorized<Operate>,
        id: &str,
        cause: &str,
    ) -> Result<NewBlock, Error> {
        let device = self.known_device(id)?;
        let services = self.provisioning.iter();
        Ok(NewBlock {
            kind: BlockKind::Device,
            generation: None,
            reason: String::new(),
            holds: vec![self.revocation(permission, self.leaves_of_device(&device), cause)],
            devices: services.map(|it| (it.clone(), device.clone())).collect(),
            fleet: false,
            newest_group: None,
            bars: vec![Bar::Device(self.provisioning.clone())],
            name: device,
        })
    }

    fn group_block(&self, id: &str) -> Result<NewBlock, Error> {
        let groups = self.groups_named(id)?;
        Ok(NewBlock {
            kind: BlockKind::Group,
            name: id.to_owned(),
            generation: None,
            reason: String::new(),
            holds: Vec::new(),
            devices: Vec::new(),
            fleet: true,
            newest_group: None,
            bars: groups.iter().map(|row| Bar::Disable(row.id)).collect(),
        })
    }

    fn generation_block(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        number: i64,
        cause: &str,
    ) -> Result<NewBlock, Error> {
        let blocked = self.generation_named(authority, number)?;
        let below = self.hierarchy().subtree(blocked.id);
        let target = RevocationTarget::Generation {
            generation: blocked.id,
        };
        let mut new = NewBlock {
            kind: BlockKind::Generation,
            name: authority.to_owned(),
            generation: Some(number),
            reason: String::new(),
            holds: vec![self.revocation(permission, target, cause)],
            devices: Vec::new(),
            fleet: true,
            newest_group: None,
            bars: Vec::new(),
        };
        for service in &self.provisioning {
            let bars = self.bars_of_generation(service, &blocked, &below)?;
            new.bars.extend(bars);
        }
        Ok(new)
    }

    /// The changes at a service by which it accepts no certificate below the generation: groups
    /// drop them, or are disabled where they hold nothing else. A disabled group of its own holds
    /// each dropped certificate, because a group of an authority above would accept it.
    fn bars_of_generation(
        &self,
        service: &str,
        blocked: &Arc<Generation>,
        below: &BTreeSet<i64>,
    ) -> Result<Vec<Bar>, Error> {
        let hierarchy = self.hierarchy();
        let below = below.iter().filter_map(|id| hierarchy.generation(*id));
        let below: BTreeSet<Thumbprint> = below.map(|it| it.thumbprint()).collect();
        let above = hierarchy.upwards(blocked.id);
        let above: BTreeSet<&String> = above.map(|it| &it.authority).collect();
        let own = blocked.thumbprint();
        let (mut bars, mut after, mut needed) = (Vec::new(), None, false);
        let mut barred = false;
        for group in self.store.groups()? {
            if group.provisioning != service {
                continue;
            }
            let held = group.slots.held();
            let mut out = held.clone();
            out.retain(|it| below.contains(it));
            if !held.is_empty() && out.len() == held.len() {
                bars.push(Bar::Disable(group.id));
                barred |= out.contains(&own);
            } else if !out.is_empty() {
                after = out.contains(&own).then_some(group.id).or(after);
                needed = true;
                bars.push(Bar::ShutOut(group.id, out));
            } else {
                let authority = group.authority.as_ref();
                needed |= authority.is_some_and(|it| above.contains(it));
            }
        }
        // A disabled group that holds the certificate is found before any group above.
        if needed && !barred {
            bars.push(Bar::Own(BlockingGroup {
                provisioning: service.to_owned(),
                authority: blocked.authority.clone(),
                number: blocked.number,
                certificate: own,
                after,
            }));
        }
        Ok(bars)
    }

    /// The disabled groups that a compromised generation needs at once: at services where a group
    /// drops it, or where a group of an authority above would accept it. A root needs none: its CA
    /// certificate is deleted.
    pub(super) fn blocking_groups(
        &self,
        compromised: &Arc<Generation>,
        below: &BTreeSet<i64>,
    ) -> Result<Vec<BlockingGroup>, Error> {
        if compromised.is_root() {
            return Ok(Vec::new());
        }
        let mut groups = Vec::new();
        for service in &self.provisioning {
            let bars = self.bars_of_generation(service, compromised, below)?;
            groups.extend(bars.into_iter().filter_map(|bar| match bar {
                Bar::Own(group) => Some(group),
                _ => None,
            }));
        }
        Ok(groups)
    }

    fn groups_named(&self, id: &str) -> Result<Vec<EnrollmentRow>, Error> {
        let mut groups = self.store.groups()?;
        groups.retain(|row| row.name.eq_ignore_ascii_case(id));
        match groups.is_empty() {
            false => Ok(groups),
            true => {
                let message =
                    format!("there is no group {id:?}; `hallmark enrollment list` has all");
                Err(Error::missing(Code::EnrollmentUnknown, message))
            }
        }
    }

    fn generation_named(&self, authority: &str, number: i64) -> Result<Arc<Generation>, Error> {
        let hierarchy = self.hierarchy();
        let found = hierarchy
            .iter()
            .find(|it| it.authority == authority && it.number == number);
        found.cloned().ok_or_else(|| {
            let message = format!(
                "authority {authority:?} has no generation {number}; `hallmark authority list` has \
                 all"
            );
            Error::missing(Code::AuthorityUnknown, message)
        })
    }

    fn block_entry(
        &self,
        permission: &Authorized<Operate>,
        action: &'static str,
        blocked: &Blocked,
        reason: &str,
    ) -> AuditEntry {
        let (kind, name, generation) = blocked.key();
        AuditEntry {
            at: self.now(),
            actor: permission.caller().to_string(),
            action,
            subject: name.to_owned(),
            detail: json!({ "kind": kind, "generation": generation, "reason": reason }),
        }
    }
}
