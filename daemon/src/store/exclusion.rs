//! Excludes devices, groups and generations in one transaction, and readmits what a block excluded.
//!
//! Status and slots of enrollments, revocations, rolls, and intents that are abandoned change
//! together: from then on the store desires nothing that admits what is excluded. The groups and
//! the hierarchy are read in that transaction, so a plan misses nothing that was added a moment
//! before. The work for each of many devices follows in chunks ([`super::hold`]).

use super::access_path::{access_paths, ensure_individual};
use super::audit::{self, AuditEntry};
use super::block::{self, BlockKind, BlockRow, Undo};
use super::compromise::{self, compromised_until};
use super::engine::Tx;
use super::enrollment::{self, EnrollmentRow, by_id, save_slots, set_status};
use super::generation::{self, GenerationState};
use super::hub_task::{self, HubCause, NewHubTask};
use super::mark::{self, MarkSubject};
use super::revocation::{self, Revocation, RevocationTarget, Revoked};
use super::roll::RollRow;
use super::{Store, StoreError, UnixSeconds, abandon, conflicts, hold};
use crate::enrollment::exclusion::{self, End, Generation, Group, Remaining, Restriction};
use crate::enrollment::slots::SlotName;
use crate::enrollment::thumbprint::Thumbprint;
use crate::x509::revocation::RevocationReason;
use serde_json::Value;
use std::collections::BTreeSet;

/// The subject of an exclusion, its places and its end.
#[derive(Clone, Debug)]
pub struct Exclusion {
    /// The device, group or generation.
    pub subject: Excluded,
    /// The configured provisioning services.
    pub services: Vec<String>,
    /// The services whose hubs delete the identity of an excluded device.
    pub hubs: BTreeSet<String>,
    /// A block, or a compromise.
    pub cause: Cause,
}

/// The subject of an exclusion.
#[derive(Clone, Debug)]
pub enum Excluded {
    /// A device, by its registration id as on record.
    Device(String),
    /// All devices of the groups with this id.
    Group(String),
    /// All devices below a generation: the authority, and its number.
    Generation(String, i64),
}

impl Excluded {
    /// Returns kind, name and number as a block records them.
    pub fn key(&self) -> (BlockKind, &str, Option<i64>) {
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
    /// The block.
    pub block: Option<BlockRow>,
    /// The rolls of a compromise: one for each service of a device; that of an authority first,
    /// then those of the authorities below.
    pub rolls: Vec<RollRow>,
    /// The certificates that are revoked or on hold.
    pub revoked: Revoked,
}

/// A restriction that was applied.
pub(super) struct Applied {
    /// The enrollment as it was before.
    pub(super) before: EnrollmentRow,
    /// The status and slots that it has now.
    pub(super) remaining: Remaining,
    /// The step that reverts the restriction.
    pub(super) undo: Undo,
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

    /// Lifts a block: reverts its restrictions, and takes the first chunk of the certificates that
    /// it holds off hold; the others follow ([`Store::release_holds`]). A device goes back to its
    /// group, unless that group would admit a compromised leaf.
    pub fn readmit(&self, block: i64, entry: AuditEntry) -> Result<Revoked, StoreError> {
        self.write(move |tx| readmit(tx, block, &entry))
    }
}

fn exclude(
    tx: &Tx<'_>,
    new: &Exclusion,
    entry: &AuditEntry,
) -> Result<RecordedExclusion, StoreError> {
    let hierarchy = hierarchy(tx)?;
    let generation = match &new.subject {
        Excluded::Generation(authority, number) => Some(find(&hierarchy, authority, *number)?),
        _ => None,
    };
    let plan = plan(tx, new, generation, &hierarchy, entry.at)?;
    let block = match &new.cause {
        Cause::Block(reason) => {
            conflicts::block(tx, &new.subject, &plan)?;
            Some(block::insert(tx, &new.subject, reason, entry)?)
        }
        Cause::Compromise { .. } => None,
    };
    abandon_open(tx, new, entry.at)?;
    let mut applied = Vec::new();
    for restriction in &plan {
        applied.push(apply(tx, restriction, new.mark_cause(), entry.at)?);
    }
    let mut rolls = Vec::new();
    if let Cause::Compromise { detail, .. } = &new.cause {
        rolls = match generation {
            Some(generation) => {
                let replaced = exclusion::to_replace(generation, &hierarchy);
                compromise::begin_authorities(tx, &replaced, detail, entry)?
            }
            None => compromise::begin_leaves(tx, new, &applied, detail, entry)?,
        };
    }
    let revoked = revoke(tx, new, block, generation, &applied, entry)?;
    if let Some(block) = block {
        block::save_undo(tx, block, applied.iter().map(|it| &it.undo))?;
        for it in &applied {
            delete_identity(tx, new, HubCause::Block(block), &it.before, entry.at)?;
        }
        audit::append(tx, entry)?;
    }
    Ok(RecordedExclusion {
        block: block.map(|id| block::by_id(tx, id)).transpose()?,
        rolls,
        revoked,
    })
}

/// Plans the exclusion on what is on record now.
fn plan(
    tx: &Tx<'_>,
    new: &Exclusion,
    generation: Option<&Generation>,
    hierarchy: &[Generation],
    at: UnixSeconds,
) -> Result<Vec<Restriction>, StoreError> {
    let rows = enrollment::groups(tx)?;
    let groups: Vec<Group<'_>> = rows.iter().map(known_group).collect();
    Ok(match (&new.subject, generation) {
        (Excluded::Device(device), _) => {
            let paths = access_paths(tx, device, &new.services, at)?;
            if new.slots().len() < SlotName::BOTH.len() {
                compromise::check_slots(device, &paths)?;
            }
            exclusion::of_device(paths, new.slots())
        }
        (Excluded::Group(name), _) => exclusion::of_group(name, &groups),
        (Excluded::Generation(..), None) => Vec::new(),
        (Excluded::Generation(..), Some(excluded)) => {
            let mut services: BTreeSet<&str> = new.services.iter().map(String::as_str).collect();
            if new.end() == End::Successor {
                // A group at a service that is not configured now must not admit it later.
                services.extend(groups.iter().map(|it| it.provisioning));
            }
            exclusion::of_generation(excluded, hierarchy, new.end(), &services, &groups)
        }
    })
}

fn known_group(row: &EnrollmentRow) -> Group<'_> {
    Group {
        id: row.id,
        provisioning: &row.provisioning,
        name: &row.name,
        authority: row.authority.as_deref(),
        slots: &row.slots,
        by_reference: row.by_reference,
        is_blocking: row.overlay_of.is_some(),
    }
}

/// Returns every generation that has a certificate, issuers first.
fn hierarchy(tx: &Tx<'_>) -> Result<Vec<Generation>, StoreError> {
    Ok(generation::all(tx)?
        .into_iter()
        .filter_map(|row| {
            let is_external = row.request.is_some_and(|it| it.above.is_some());
            Some(Generation {
                certificate: Thumbprint::of(row.certificate.as_deref()?),
                is_root: row.parent.is_none() && !is_external,
                serves: row.state == GenerationState::Serving,
                id: row.id,
                authority: row.authority,
                number: row.number,
                parent: row.parent,
            })
        })
        .collect())
}

fn find<'a>(
    hierarchy: &'a [Generation],
    authority: &str,
    number: i64,
) -> Result<&'a Generation, StoreError> {
    hierarchy
        .iter()
        .find(|it| it.authority == authority && it.number == number)
        .ok_or_else(|| StoreError::Missing(format!("generation {number} of {authority}")))
}

/// Abandons the intents of what is excluded: their certificates are not recorded. Below a
/// generation nothing has to be abandoned: its certificate is revoked or on hold, and it signs
/// nothing.
fn abandon_open(tx: &Tx<'_>, new: &Exclusion, at: UnixSeconds) -> Result<(), StoreError> {
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
        Excluded::Generation(..) => Ok(()),
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
            };
            (row, Some(undo))
        }
        Restriction::Disable(id) | Restriction::Remove(id, _) => (by_id(tx, *id)?, None),
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
    let undo = undo.unwrap_or_else(|| {
        if !remaining.enabled {
            return Undo::Enable(before.id);
        }
        Undo::Slots {
            id: before.id,
            from: before.slots.clone(),
            to: remaining.slots.clone(),
        }
    });
    Ok(Applied {
        before,
        remaining,
        undo,
    })
}

/// Revokes what is compromised, and puts on hold what is blocked. Of a device these are all leaves,
/// unless the leaf in the other slot is good; those of a group's devices follow in chunks.
fn revoke(
    tx: &Tx<'_>,
    new: &Exclusion,
    block: Option<i64>,
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

/// Queues the deletion of a device's identity, if the hub of this service does that. The task waits
/// for the enrollment: a device that the service still admits would come back.
pub(super) fn delete_identity(
    tx: &Tx<'_>,
    new: &Exclusion,
    cause: HubCause,
    enrollment: &EnrollmentRow,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let Excluded::Device(device) = &new.subject else {
        return Ok(());
    };
    if !new.hubs.contains(&enrollment.provisioning) {
        return Ok(());
    }
    let task = NewHubTask::deletion(&enrollment.provisioning, device, enrollment.id);
    hub_task::queue(tx, cause, &[task], at)?;
    Ok(())
}

fn readmit(tx: &Tx<'_>, block: i64, entry: &AuditEntry) -> Result<Revoked, StoreError> {
    let undo = block::lift(tx, block, entry)?;
    let revoked = hold::release(tx, block, entry.at)?;
    // Backwards: a restriction that came after another one is reverted before it.
    let mut blocking = None;
    for undo in undo.into_iter().rev() {
        revert(tx, &undo, blocking, entry.at)?;
        if let Undo::Remove(id) = undo {
            blocking = Some(id);
        }
    }
    audit::append(tx, entry)?;
    Ok(revoked)
}

/// Reverts a restriction, unless another exclusion needs it. `blocking` is the blocking group that
/// is being removed: the service takes its certificate in one enrollment only.
fn revert(
    tx: &Tx<'_>,
    undo: &Undo,
    blocking: Option<i64>,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let Some(row) = enrollment::find(tx, undo.enrollment())? else {
        return Ok(());
    };
    match undo {
        Undo::Enable(_) if !conflicts::may_enable(tx, &row, &row.slots)? => return Ok(()),
        Undo::Enable(id) => set_status(tx, *id, true)?,
        Undo::Remove(_) if conflicts::any_excluded_for_good(tx, &row.slots.held())? => {
            return Ok(());
        }
        Undo::Remove(id) => {
            // It came after the group that let go of its certificate; now that group comes after
            // it.
            enrollment::set_after(tx, *id, None)?;
            enrollment::set_removed(tx, *id)?;
        }
        Undo::Slots { from, to, .. } => {
            // A roll or another exclusion has changed the slots since, or one of the certificates
            // is excluded for good.
            if row.slots != *to || conflicts::any_excluded_for_good(tx, &from.held())? {
                return Ok(());
            }
            if let Some((authority, number)) = conflicts::revoked_above(tx, &from.held())? {
                // That block reverts it in its turn.
                let kind = BlockKind::Generation;
                return match block::active(tx, kind, &authority, Some(number))? {
                    Some(other) => block::hand_over(tx, other, undo),
                    None => Ok(()),
                };
            }
            save_slots(tx, row.id, from)?;
            enrollment::set_after(tx, row.id, blocking)?;
        }
        Undo::Device { id, leaving } => {
            let enabled = conflicts::may_enable(tx, &row, &row.slots)?;
            set_status(tx, *id, enabled)?;
            let goes = *leaving || row.overlay_of.is_some();
            if goes && compromised_until(tx, &row.name, at)?.is_none() {
                enrollment::set_removed(tx, *id)?;
            }
        }
    }
    let subject = MarkSubject::Enrollment(row.id);
    mark::raise(tx, subject, "block lifted", at)
}
