//! Excludes devices, groups and generations, each in one transaction.
//!
//! Status and slots of enrollments, revocations, rolls, and intents that are abandoned change
//! together: from then on the store desires nothing that admits what is excluded. The enrollments
//! and the hierarchy are read in that transaction, so a plan misses nothing that was added a moment
//! before, and enrollments at services that are not configured now change too: they must not admit
//! anything when their service is configured again. The revocation of leaves and the work at hubs,
//! for each of many devices, follow in chunks ([`super::hold`]); [`super::readmission`] lifts a
//! block.

use super::access_path::{access_paths, ensure_individual};
use super::audit::{self, AuditEntry};
use super::block::{self, BlockKind, BlockRow, Undo};
use super::compromise;
use super::engine::Tx;
use super::enrollment::{self, EnrollmentKind, EnrollmentRow, by_id, save_slots, set_status};
use super::excluded_identity::{
    delete_identity, delete_unknown, delete_without_path, list_registrations,
};
use super::generation;
use super::hierarchy;
use super::hub_task::HubCause;
use super::known_group::{KnownGroup, known_groups};
use super::mark;
use super::revocation::{self, Revocation, RevocationTarget, Revoked};
use super::roll::RollRow;
use super::{Store, StoreError, UnixSeconds, abandon, conflicts, hold, individual, restore};
use crate::der_bytes::Der;
use crate::enrollment::exclusion::{
    self, End, Enrollments, Generation, Group, Individual, Restriction,
};
use crate::enrollment::roll::HubPolicy;
use crate::enrollment::slot_exclusion::Remaining;
use crate::enrollment::slots::{SlotName, Slots};
use crate::ids::{BlockId, EnrollmentId, GenerationNumber};
use crate::x509::revocation::RevocationReason;
use serde_json::Value;

/// The subject of an exclusion, its places and its end.
#[derive(Clone, Debug)]
pub struct Exclusion {
    /// The device, group or generation.
    pub subject: Excluded,
    /// The configured provisioning services.
    pub services: Vec<String>,
    /// The fate of the identity of an excluded device at the hubs on record.
    pub hub: HubPolicy,
    /// A block, or a compromise.
    pub cause: Cause,
    /// A certificate without a key, for a device without a leaf on record.
    pub placeholder: Option<Der>,
}

/// The subject of an exclusion.
#[derive(Clone, Debug)]
pub enum Excluded {
    /// A device, by its registration id as on record.
    Device(String),
    /// All devices of the groups with this id.
    Group(String),
    /// All devices below a generation: the authority, and its number.
    Generation(String, GenerationNumber),
}

impl Excluded {
    /// Returns kind, name and number as a block records them.
    pub fn key(&self) -> (BlockKind, &str, Option<GenerationNumber>) {
        match self {
            Excluded::Device(id) => (BlockKind::Device, id, None),
            Excluded::Group(id) => (BlockKind::Group, id, None),
            Excluded::Generation(name, number) => (BlockKind::Generation, name, Some(*number)),
        }
    }
}

/// Why something is excluded.
#[derive(Clone, Debug)]
pub enum Cause {
    /// An operator blocks it, for this reason, and can lift the block.
    Block(String),
    /// It is compromised, and a roll makes a successor.
    Compromise {
        /// Which slots of a device's enrollment; both for an authority.
        slots: Vec<SlotName>,
        /// The options of the roll.
        detail: Value,
    },
}

/// An exclusion on record.
#[derive(Clone, Debug, Default)]
pub struct RecordedExclusion {
    pub block: Option<BlockRow>,
    /// The rolls of a compromise: one for each service of a device; that of an authority first,
    /// then those of the authorities below.
    pub rolls: Vec<RollRow>,
    /// The certificates that are revoked or on hold.
    pub revoked: Revoked,
    /// The slots that were excluded: both, if the named one holds no leaf at some service.
    pub slots: Vec<SlotName>,
}

/// A restriction that was applied.
pub(super) struct Applied {
    /// The enrollment as it was before.
    pub(super) before: EnrollmentRow,
    /// The status and slots that it has now.
    pub(super) remaining: Remaining,
    /// The step that reverts the restriction. `None` where its enrollment says by itself whether it
    /// may be enabled again.
    pub(super) undo: Option<Undo>,
}

impl Exclusion {
    pub(super) fn slots(&self) -> &[SlotName] {
        match &self.cause {
            Cause::Block(_) => &SlotName::BOTH,
            Cause::Compromise { slots, .. } => slots,
        }
    }

    fn end(&self) -> End {
        match self.cause {
            Cause::Block(_) => End::Revert,
            Cause::Compromise { .. } => End::Successor,
        }
    }

    fn mark_cause(&self) -> &'static str {
        match (&self.subject, self.end()) {
            (Excluded::Generation(..), End::Revert) => "generation blocked",
            (_, End::Revert) => "blocked",
            (Excluded::Generation(..), End::Successor) => "authority compromised",
            (_, End::Successor) => "leaf compromised",
        }
    }
}

impl Store {
    /// Excludes a device, a group or a generation. A block is refused while one of the same subject
    /// is in force; a compromise ends every roll that is under way.
    pub fn exclude(
        &self,
        exclusion: Exclusion,
        entry: AuditEntry,
    ) -> Result<RecordedExclusion, StoreError> {
        self.write(move |tx| exclude(tx, &exclusion, &entry))
    }
}

fn exclude(
    tx: &Tx<'_>,
    asked: &Exclusion,
    entry: &AuditEntry,
) -> Result<RecordedExclusion, StoreError> {
    let hierarchy = hierarchy::all(tx)?;
    let new = &of_slots_with_leaves(tx, asked, entry.at)?;
    let generation = generation_of(new, &hierarchy)?;
    if let (Excluded::Device(device), Some(der)) = (&new.subject, &new.placeholder) {
        restore::add_placeholder(tx, device, der)?;
    }
    let plan = plan(tx, new, generation, &hierarchy, entry.at)?;
    let block = match &new.cause {
        Cause::Block(reason) => {
            conflicts::block(tx, &new.subject, &plan)?;
            Some(block::insert(tx, &new.subject, reason, entry)?)
        }
        Cause::Compromise { .. } => None,
    };
    abandon_open(tx, new, generation, &hierarchy, entry.at)?;
    let mut applied = Vec::new();
    for restriction in &plan {
        applied.push(apply(tx, restriction, new.mark_cause(), entry.at)?);
    }
    let mut rolls = Vec::new();
    if let Cause::Compromise { detail, .. } = &new.cause {
        rolls = match generation {
            Some(generation) => {
                compromise::end_leaf_rolls(tx, &applied, entry)?;
                let replaced = exclusion::to_replace(generation, &hierarchy);
                let rolls =
                    compromise::begin_authorities(tx, &replaced, &hierarchy, detail, entry)?;
                if let Some(first) = rolls.first() {
                    delete_unknown(tx, new, HubCause::Roll(first.id), &applied, entry.at)?;
                }
                rolls
            }
            None => {
                delete_without_path(tx, new, HubCause::Device, &applied, entry.at)?;
                compromise::begin_leaves(tx, new, &applied, detail, entry)?
            }
        };
    }
    let revoked = revoke(tx, new, block, generation, &applied, entry)?;
    if let Some(block) = block {
        block::save_undo(tx, block, applied.iter().filter_map(|it| it.undo.as_ref()))?;
        for it in &applied {
            delete_identity(tx, new, HubCause::Block(block), &it.before, entry.at)?;
        }
        delete_without_path(tx, new, HubCause::Block(block), &applied, entry.at)?;
        delete_unknown(tx, new, HubCause::Block(block), &applied, entry.at)?;
        list_registrations(tx, new, HubCause::Block(block), entry.at)?;
        audit::append(tx, entry)?;
    }
    Ok(RecordedExclusion {
        block: block.map(|id| block::by_id(tx, id)).transpose()?,
        rolls,
        revoked,
        slots: new.slots().into(),
    })
}

/// Returns the exclusion, of both slots if the named one does not tell the compromised leaf at
/// every service. A report that cannot be right excludes more, and never nothing.
fn of_slots_with_leaves(
    tx: &Tx<'_>,
    asked: &Exclusion,
    at: UnixSeconds,
) -> Result<Exclusion, StoreError> {
    let mut new = asked.clone();
    let (Excluded::Device(device), Cause::Compromise { slots, .. }) =
        (&asked.subject, &mut new.cause)
    else {
        return Ok(new);
    };
    if slots.len() < SlotName::BOTH.len() {
        let paths = access_paths(tx, device, &asked.services, at)?;
        if !compromise::have_leaves(tx, slots, &paths)? {
            *slots = SlotName::BOTH.into();
        }
    }
    Ok(new)
}

/// Returns what the exclusion would restrict now.
pub(super) fn restrictions(
    tx: &Tx<'_>,
    asked: &Exclusion,
    hierarchy: &[Generation],
    at: UnixSeconds,
) -> Result<Vec<Restriction>, StoreError> {
    let new = of_slots_with_leaves(tx, asked, at)?;
    let generation = generation_of(&new, hierarchy)?;
    plan(tx, &new, generation, hierarchy, at)
}

/// Returns the excluded generation; none of a device or a group.
fn generation_of<'a>(
    new: &Exclusion,
    hierarchy: &'a [Generation],
) -> Result<Option<&'a Generation>, StoreError> {
    let Excluded::Generation(authority, number) = &new.subject else {
        return Ok(None);
    };
    hierarchy::find(hierarchy, authority, *number).map(Some)
}

/// Plans the exclusion on what is on record now.
fn plan(
    tx: &Tx<'_>,
    new: &Exclusion,
    generation: Option<&Generation>,
    hierarchy: &[Generation],
    at: UnixSeconds,
) -> Result<Vec<Restriction>, StoreError> {
    if let Excluded::Device(device) = &new.subject {
        let paths = access_paths(tx, device, &new.services, at)?;
        return Ok(exclusion::of_device(paths, new.slots()));
    }
    let rows = known_groups(tx)?;
    let groups: Vec<Group<'_>> = rows.iter().map(KnownGroup::known).collect();
    let holders = match generation {
        Some(it) => individual::with_leaves_by(tx, &exclusion::below(it.id, hierarchy))?,
        None => individual::beside_groups(tx)?,
    };
    let individuals: Vec<Individual<'_>> = holders.iter().map(|it| it.known()).collect();
    let known = Enrollments {
        groups: &groups,
        individuals: &individuals,
    };
    let (_, name, _) = new.subject.key();
    Ok(match generation {
        Some(it) => exclusion::of_generation(it, hierarchy, new.end(), known),
        None => exclusion::of_group(name, hierarchy, &generation::signed(tx, at)?, known),
    })
}

/// Abandons the intents of what is excluded: their certificates are not recorded.
fn abandon_open(
    tx: &Tx<'_>,
    new: &Exclusion,
    generation: Option<&Generation>,
    hierarchy: &[Generation],
    at: UnixSeconds,
) -> Result<(), StoreError> {
    match &new.subject {
        Excluded::Device(device) => {
            let reason = match new.end() {
                End::Revert => "its device was blocked",
                End::Successor => "its device was reported as compromised",
            };
            abandon::abandon_leaves(tx, device, reason, at)
        }
        Excluded::Group(_) => {
            for open in abandon::open_leaves(tx)? {
                if conflicts::blocked_group(tx, &open.subject, open.issuer)?.is_some() {
                    abandon::abandon(tx, open.intent, "its group was blocked", at)?;
                }
            }
            Ok(())
        }
        Excluded::Generation(..) => {
            let below = generation.map(|it| exclusion::below(it.id, hierarchy));
            for issuer in below.into_iter().flatten() {
                abandon::abandon_by(tx, issuer, "its issuer was excluded", at)?;
            }
            Ok(())
        }
    }
}

/// Applies a restriction. It never enables an enrollment.
fn apply(
    tx: &Tx<'_>,
    restriction: &Restriction,
    cause: &'static str,
    at: UnixSeconds,
) -> Result<Applied, StoreError> {
    let (before, undo) = match restriction {
        Restriction::Device(path, _) => {
            let (row, leaving) = ensure_individual(tx, path, at)?;
            let undo = Undo::Device {
                id: row.id,
                leaving,
                added: path.individual.is_none(),
            };
            (row, Some(undo))
        }
        Restriction::Disable(id) => disabled(tx, *id)?,
        Restriction::Remove(id, _) => (by_id(tx, *id)?, None),
        Restriction::Hold(group) => {
            let id = enrollment::add_blocking_group(tx, group, at)?;
            (by_id(tx, id)?, Some(Undo::Remove(id)))
        }
    };
    let remaining = restriction.remaining(&before.slots);
    let remaining = remaining.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
    save_slots(tx, before.id, &remaining.slots)?;
    set_status(tx, before.id, before.enabled && remaining.enabled)?;
    mark::raise_urgent(tx, before.id, cause, at)?;
    let undo = undo.or_else(|| undo_of(&before, &remaining));
    Ok(Applied {
        before,
        remaining,
        undo,
    })
}

/// Finds an enrollment that a block of a group disables. A group that is being removed stays while
/// it is blocked: without it a group above would admit its devices, and the service may refuse the
/// removal.
fn disabled(tx: &Tx<'_>, id: EnrollmentId) -> Result<(EnrollmentRow, Option<Undo>), StoreError> {
    let row = by_id(tx, id)?;
    let stays = row.leaving && row.kind == EnrollmentKind::Group && row.slots != Slots::Empty;
    if !stays {
        return Ok((row, None));
    }
    enrollment::set_leaving(tx, id, false)?;
    Ok((row, Some(Undo::Enable { id, leaving: true })))
}

/// Returns the step that reverts the change of an enrollment. A blocking group is never enabled,
/// and an individual enrollment is enabled when nothing excludes its leaves.
fn undo_of(before: &EnrollmentRow, remaining: &Remaining) -> Option<Undo> {
    let is_group = before.kind == EnrollmentKind::Group;
    if !remaining.enabled {
        let undo = Undo::Enable {
            id: before.id,
            leaving: false,
        };
        return (is_group && before.overlay_of.is_none()).then_some(undo);
    }
    Some(Undo::Slots {
        id: before.id,
        from: before.slots.clone(),
        to: remaining.slots.clone(),
    })
}

/// Revokes what is compromised, and holds what is blocked. Of a device these are all leaves,
/// unless the leaf in the other slot is good; those of a group's devices follow in chunks.
fn revoke(
    tx: &Tx<'_>,
    new: &Exclusion,
    block: Option<BlockId>,
    generation: Option<&Generation>,
    applied: &[Applied],
    entry: &AuditEntry,
) -> Result<Revoked, StoreError> {
    let one_slot = new.slots().len() < SlotName::BOTH.len();
    let targets = match (&new.subject, generation) {
        (_, Some(it)) => vec![RevocationTarget::Generation { generation: it.id }],
        (Excluded::Device(_), None) if one_slot => {
            let leaves = applied
                .iter()
                .flat_map(|it| it.before.slots.in_slots(new.slots()));
            leaves
                .map(|it| RevocationTarget::Sha256(*it.as_bytes()))
                .collect()
        }
        (Excluded::Device(device), None) => vec![RevocationTarget::Leaves {
            subject: device.clone(),
        }],
        _ => Vec::new(),
    };
    let (reason, cause) = match (&new.cause, generation) {
        (Cause::Block(reason), _) => (
            RevocationReason::CertificateHold,
            format!("block: {reason}"),
        ),
        (_, Some(_)) => (
            RevocationReason::CaCompromise,
            "the authority is compromised".into(),
        ),
        _ => (RevocationReason::KeyCompromise, "roll by compromise".into()),
    };
    let mut revoked = Revoked::default();
    for target in targets {
        let revocation = Revocation {
            target,
            at: entry.at,
            actor: entry.actor.clone(),
            cause: cause.clone(),
        };
        let done = match block {
            Some(block) => hold::hold(tx, block, &revocation)?,
            None => revocation::revoke(tx, &revocation, reason)?,
        };
        revoked.changed.extend(done.changed);
        revoked.unchanged.extend(done.unchanged);
    }
    Ok(revoked)
}
