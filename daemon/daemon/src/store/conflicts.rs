//! Finds conflicts between rolls and exclusions that would touch the same certificates.
//!
//! Every roll and every exclusion asks here, in its own transaction. A compromise is never refused:
//! it ends the rolls under way. A revert asks here too, so that it readmits nothing that another
//! exclusion needs. A block of a group changes no slots: a roll goes on below it, and the group
//! stays disabled until the block is lifted.

use super::authority_roll::{groups_of, open_authority_roll};
use super::block::{BlockKind, is_blocked};
use super::engine::{Tx, params};
use super::enrollment::{self, EnrollmentKind, EnrollmentRow, by_id};
use super::exclusion::Excluded;
use super::hierarchy;
use super::known_group::{KnownGroup, known_group, known_groups};
use super::new_enrollment::NewEnrollment;
use super::roll::open_roll;
use super::{StoreError, access_path, block, compromise, individual};
use crate::enrollment::exclusion::Restriction;
use crate::enrollment::roll::RollState;
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::error_code::Code;
use crate::ids::{BlockId, EnrollmentId, GenerationId, GenerationNumber};
use crate::x509::revocation::RevocationReason;
use std::collections::BTreeSet;

const UNDER_WAY: Code = Code::RollUnderWay;

/// The generations above the certificate `?1`: of a CA certificate its own generation first.
const ABOVE: &str = "WITH RECURSIVE above (id) AS (
     SELECT g.id FROM generation g JOIN certificate c ON c.intent = g.certificate
     WHERE c.sha256 = ?1
     UNION SELECT i.issuer FROM intent i JOIN certificate c ON c.intent = i.id
     WHERE c.sha256 = ?1
     UNION SELECT g.parent FROM generation g JOIN above ON g.id = above.id
     WHERE g.parent IS NOT NULL)";

fn blocking<T>(code: Code, message: String) -> Result<T, StoreError> {
    Err(StoreError::Blocking { code, message })
}

/// Returns the blocked group that admits this device, if it has a leaf by `issuer`: nothing is
/// issued to the device while the group is blocked.
pub(super) fn blocked_group(
    tx: &Tx<'_>,
    device: &str,
    issuer: GenerationId,
) -> Result<Option<String>, StoreError> {
    // SQLite reorders no CROSS JOIN: it begins with the blocks in force, which are few. While there
    // is one, step 7 of the issuance cycle asks for every device.
    let sql = format!(
        "SELECT g.name FROM block b CROSS JOIN enrollment g
         WHERE b.kind = 'group' AND b.lifted_at IS NULL
           AND g.kind = 'group' AND g.name = b.name
           AND g.authority IN (
               WITH RECURSIVE above (id) AS (
                   VALUES (?2)
                   UNION SELECT it.parent FROM generation it JOIN above ON it.id = above.id
                   WHERE it.parent IS NOT NULL)
               SELECT authority FROM generation WHERE id IN (SELECT id FROM above))
           AND NOT EXISTS (
               SELECT 1 FROM enrollment e WHERE e.provisioning = g.provisioning
                 AND e.kind = 'individual' AND e.name = ?1 AND {})",
        access_path::TAKES_PRECEDENCE
    );
    tx.query_optional(&sql, params![device, issuer], |row| row.get(0))
}

/// Refuses an expiry roll of this enrollment's leaf while a roll is under way or a block in force.
/// Returns the leaf that it replaces.
pub(super) fn leaf_roll(tx: &Tx<'_>, row: &EnrollmentRow) -> Result<Thumbprint, StoreError> {
    let name = &row.name;
    if let Some(open) = open_roll(tx, row.id)? {
        let message = format!("roll {} of {name} is under way already", open.id);
        return blocking(UNDER_WAY, message);
    }
    if is_blocked(tx, name)? {
        let message = format!("{name} is blocked; lift that with `hallmark device unblock` first");
        return blocking(Code::DeviceBlocked, message);
    }
    if !excluded_leaves(tx, &row.slots)?.is_empty() {
        return Err(StoreError::Conflict(format!(
            "the leaf of {name} is revoked, below a revoked generation, or not on record since a \
             restore: issue a new leaf, which replaces it at once"
        )));
    }
    match row.slots {
        Slots::Serving { certificate, .. } => Ok(certificate),
        _ => Err(StoreError::Conflict(format!(
            "the slots of {name} are {}; a roll starts from serving",
            row.slots.state()
        ))),
    }
}

/// Refuses an expiry roll of an authority while a roll is under way or a block in force.
pub(super) fn authority_roll(tx: &Tx<'_>, authority: &str) -> Result<(), StoreError> {
    if let Some(open) = open_authority_roll(tx, authority)? {
        let message = format!("roll {} of {authority} is under way already", open.id);
        return blocking(UNDER_WAY, message);
    }
    let blocked: Option<(String, String)> = tx.query_optional(
        "SELECT b.kind, b.name FROM block b WHERE b.lifted_at IS NULL
               AND (b.kind = 'generation' AND b.name = ?1
                    OR b.kind = 'group' AND EXISTS (
                        SELECT 1 FROM enrollment e WHERE e.kind = 'group' AND e.name = b.name
                          AND e.authority = ?1))",
        params![authority],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if let Some((kind, name)) = blocked {
        let message = format!(
            "{kind} {name} is blocked, and would be rolled with {authority}: lift the block first, \
             or start the roll by compromise"
        );
        return blocking(Code::AuthorityBlocked, message);
    }
    for group in groups_of(tx, authority)? {
        if !group.leaving && !matches!(group.slots, Slots::Serving { .. }) {
            let message = format!(
                "group {} at {} is {}: wait for the roll before this one to end",
                group.name,
                group.provisioning,
                group.slots.state()
            );
            return blocking(UNDER_WAY, message);
        }
    }
    Ok(())
}

/// Refuses a block of a generation before the cut-over of a roll of its authority, or of an
/// authority whose groups the block changes: both take certificates out of the same slots, and that
/// roll can be aborted. After the cut-over the roll waits for the block.
pub(super) fn block(
    tx: &Tx<'_>,
    subject: &Excluded,
    plan: &[Restriction],
) -> Result<(), StoreError> {
    let Excluded::Generation(authority, _) = subject else {
        return Ok(());
    };
    let mut authorities = BTreeSet::from([authority.clone()]);
    for restriction in plan {
        if let Restriction::Remove(id, _) = restriction {
            authorities.extend(by_id(tx, *id)?.authority);
        }
    }
    for authority in authorities {
        let open = open_authority_roll(tx, &authority)?;
        let before_cut_over = |state| matches!(state, RollState::Requested | RollState::Staged);
        if let Some(open) = open.filter(|it| before_cut_over(it.state)) {
            let message = format!(
                "roll {} of {authority} is under way, and this block would take certificates out \
                 of its slots: abort it with `hallmark roll abort {}`, or start a roll by \
                 compromise, which excludes at once and is not refused",
                open.id, open.id
            );
            return blocking(UNDER_WAY, message);
        }
    }
    Ok(())
}

/// Refuses a new group that holds a CA certificate which is revoked or on hold, or below such a
/// one; and a group below the authority of a blocked group, over which it would take precedence.
pub(super) fn new_group(tx: &Tx<'_>, new: &NewEnrollment) -> Result<(), StoreError> {
    let held = new.slots.held();
    if let Some((authority, number)) = revoked_above(tx, &held)? {
        let message = format!(
            "generation {number} of {authority} is revoked, and this group would admit the \
             certificates that it signed; roll that authority, or lift the block that holds it"
        );
        return blocking(Code::IssuerRevoked, message);
    }
    for it in held {
        if let Some(group) = blocked_group_above(tx, &new.provisioning, &it, None)? {
            let message = format!(
                "the group {group} of an authority above is blocked, and this group would admit \
                 its devices; lift the block first with `hallmark enrollment unblock --group \
                 {group}`"
            );
            return blocking(Code::GroupBlocked, message);
        }
    }
    Ok(())
}

/// Returns a blocked group at this service whose authority is above a CA certificate. Groups of the
/// authority `but` do not count.
fn blocked_group_above(
    tx: &Tx<'_>,
    provisioning: &str,
    certificate: &Thumbprint,
    but: Option<&str>,
) -> Result<Option<String>, StoreError> {
    let sql = format!(
        "{ABOVE} SELECT e.name FROM enrollment e
         JOIN block b ON b.kind = 'group' AND b.name = e.name AND b.lifted_at IS NULL
         WHERE e.kind = 'group' AND e.provisioning = ?2
           AND e.authority IN (
               SELECT authority FROM generation WHERE id IN (SELECT id FROM above))
           AND e.authority <> coalesce(?3, '')"
    );
    let parameters = params![certificate.as_bytes(), provisioning, but];
    tx.query_optional(&sql, parameters, |row| row.get(0))
}

/// Refuses a new individual enrollment with a leaf below a generation that is revoked or on hold.
pub(super) fn new_individual(
    tx: &Tx<'_>,
    device: &str,
    leaf: Thumbprint,
) -> Result<(), StoreError> {
    let Some((authority, number)) = revoked_above(tx, &[leaf])? else {
        return Ok(());
    };
    let message = format!(
        "the current leaf of {device} is below generation {number} of {authority}, which is \
         revoked or blocked, and this enrollment would admit it; issue a new leaf first, or lift \
         the block with `hallmark authority unblock {authority} --generation {number}`"
    );
    blocking(Code::IssuerRevoked, message)
}

/// Returns the authority and number of a generation that is revoked or on hold, and that is above
/// one of these certificates or holds one itself.
pub(super) fn revoked_above(
    tx: &Tx<'_>,
    certificates: &[Thumbprint],
) -> Result<Option<(String, GenerationNumber)>, StoreError> {
    let sql = format!(
        "{ABOVE} SELECT g.authority, g.number FROM generation g
         JOIN certificate c ON c.intent = g.certificate
         WHERE g.id IN (SELECT id FROM above) AND c.revoked_at IS NOT NULL
         ORDER BY g.id DESC LIMIT 1"
    );
    for it in certificates {
        let revoked = tx.query_optional(&sql, params![it.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        if revoked.is_some() {
            return Ok(revoked);
        }
    }
    Ok(None)
}

/// Returns the leaves in these slots that no relying party accepts: those revoked for good, and
/// those below a generation that is revoked or on hold; and those that are not on record, of which
/// neither is known. A new leaf replaces them at once. A leaf
/// on hold is not among them, because its device or group is blocked, and that can be lifted.
pub(super) fn excluded_leaves(tx: &Tx<'_>, slots: &Slots) -> Result<Vec<Thumbprint>, StoreError> {
    let mut excluded = Vec::new();
    for it in slots.held() {
        if is_excluded_for_good(tx, &it)?
            || revoked_above(tx, &[it])?.is_some()
            || !is_on_record(tx, &it)?
        {
            excluded.push(it);
        }
    }
    Ok(excluded)
}

/// Returns whether no exclusion needs this enrollment disabled, if it has these slots.
pub(super) fn may_enable(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    slots: &Slots,
) -> Result<bool, StoreError> {
    Ok(match row.kind {
        EnrollmentKind::Individual => {
            !is_blocked(tx, &row.name)?
                && !compromise::waits_for_leaf(tx, row.id)?
                && !is_beside_blocked_group(tx, row.id)?
                && excluded_leaves(tx, slots)?.is_empty()
        }
        EnrollmentKind::Group => {
            // A blocking group works by being disabled, whichever exclusion ends.
            row.overlay_of.is_none()
                && block::active(tx, BlockKind::Group, &row.name, None)?.is_none()
                && blocked_above(tx, row, slots)?.is_none()
                && revoked_above(tx, &slots.held())?.is_none()
        }
    })
}

/// Returns a blocked group of an authority above at the service of this group.
fn blocked_above(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    slots: &Slots,
) -> Result<Option<String>, StoreError> {
    for it in slots.held() {
        let own = row.authority.as_deref();
        let above = blocked_group_above(tx, &row.provisioning, &it, own)?;
        if above.is_some() {
            return Ok(above);
        }
    }
    Ok(None)
}

/// Returns a block in force that needs this group disabled.
pub(super) fn block_of_group(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
) -> Result<Option<BlockId>, StoreError> {
    let own = block::active(tx, BlockKind::Group, &row.name, None)?;
    if own.is_some() {
        return Ok(own);
    }
    if let Some(above) = blocked_above(tx, row, &row.slots)? {
        return block::active(tx, BlockKind::Group, &above, None);
    }
    match revoked_above(tx, &row.slots.held())? {
        Some((authority, number)) => {
            block::active(tx, BlockKind::Generation, &authority, Some(number))
        }
        None => Ok(None),
    }
}

/// Returns a block in force that needs this blocking group: no other group of the service excludes
/// its certificate.
pub(super) fn block_of_blocking_group(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
) -> Result<Option<BlockId>, StoreError> {
    let hierarchy = hierarchy::all(tx)?;
    let held = row.slots.held();
    let Some(generation) = hierarchy.iter().find(|it| held.contains(&it.certificate)) else {
        return Ok(None);
    };
    let others = known_groups(tx)?;
    let mut others = others.iter().map(KnownGroup::known);
    if others.any(|it| {
        let is_here = it.id != row.id && it.provisioning == row.provisioning;
        is_here && it.excludes(generation.certificate)
    }) {
        return Ok(None);
    }
    let kind = BlockKind::Generation;
    let authority = &generation.authority;
    match block::active(tx, kind, authority, Some(generation.number))? {
        Some(block) => Ok(Some(block)),
        None => block::of_group_with(tx, &row.provisioning, authority),
    }
}

/// Returns whether a blocked group would admit the device of this individual enrollment.
fn is_beside_blocked_group(tx: &Tx<'_>, individual: EnrollmentId) -> Result<bool, StoreError> {
    let holder = individual::held_leaves_of(tx, individual)?;
    let Some(holder) = holder.filter(|it| it.known().overlay_of.is_some()) else {
        return Ok(false);
    };
    let hierarchy = hierarchy::all(tx)?;
    for group in enrollment::groups(tx)? {
        let group = known_group(&group, &[]);
        let is_beside = group.has_beside_it(&holder.known(), &hierarchy);
        if is_beside && block::active(tx, BlockKind::Group, group.name, None)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the slots to which lifting a block takes this enrollment back: `from`, without what was
/// excluded for good or has retired. `None` if none of them can return.
pub(super) fn restorable(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    from: &Slots,
) -> Result<Option<Slots>, StoreError> {
    let has_ended = row.kind == EnrollmentKind::Individual && open_roll(tx, row.id)?.is_none();
    if has_ended {
        // Two leaves are in the slots only while a roll is open.
        return Ok(None);
    }
    let mut gone = Vec::new();
    for it in from.held() {
        if is_excluded_for_good(tx, &it)? || has_retired(tx, &it)? {
            gone.push(it);
        }
    }
    if gone.is_empty() {
        return Ok(Some(from.clone()));
    }
    let left = from.clone().exclude(&gone, None);
    Ok(left.ok().filter(|it| it.enabled).map(|it| it.slots))
}

/// Returns whether the roll that takes this CA certificate out of its slots is done.
fn has_retired(tx: &Tx<'_>, it: &Thumbprint) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM roll WHERE old_certificate = ?1
                          AND authority IS NOT NULL AND state = 'done')",
        params![it.as_bytes()],
        |row| row.get(0),
    )
}

/// Returns whether a certificate is excluded for good: revoked without a hold, or below a
/// generation that is.
fn is_excluded_for_good(tx: &Tx<'_>, it: &Thumbprint) -> Result<bool, StoreError> {
    let hold = RevocationReason::CertificateHold.code();
    let sql = format!(
        "{ABOVE} SELECT EXISTS (
             SELECT 1 FROM certificate c
             WHERE (c.sha256 = ?1 OR c.intent IN (
                     SELECT certificate FROM generation WHERE id IN (SELECT id FROM above)))
               AND c.revocation_reason IS NOT NULL AND c.revocation_reason <> ?2)"
    );
    tx.query_one(&sql, params![it.as_bytes(), hold], |row| row.get(0))
}

fn is_on_record(tx: &Tx<'_>, it: &Thumbprint) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM certificate WHERE sha256 = ?1)";
    tx.query_one(sql, params![it.as_bytes()], |row| row.get(0))
}

/// Returns whether one of these certificates is excluded for good.
pub(super) fn any_excluded_for_good(tx: &Tx<'_>, them: &[Thumbprint]) -> Result<bool, StoreError> {
    for it in them {
        if is_excluded_for_good(tx, it)? {
            return Ok(true);
        }
    }
    Ok(false)
}
