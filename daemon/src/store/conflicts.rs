//! Finds conflicts between rolls and exclusions that would touch the same certificates.
//!
//! Every roll and every exclusion asks here, in its own transaction. A compromise is never refused:
//! it ends the rolls under way. A revert asks here too, so that it readmits nothing that another
//! exclusion needs. A block of a group changes no slots: a roll goes on below it, and the group
//! stays disabled until the block is lifted.

use super::authority_roll::{groups_of, open_authority_roll};
use super::block::is_blocked;
use super::engine::{Tx, params};
use super::enrollment::{EnrollmentKind, EnrollmentRow, by_id};
use super::exclusion::Excluded;
use super::roll::open_roll;
use super::{StoreError, access_path, compromise};
use crate::enrollment::exclusion::Restriction;
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::error_code::Code;
use crate::x509::revocation::RevocationReason;
use std::collections::BTreeSet;

const UNDER_WAY: Code = Code::RollUnderWay;

fn in_the_way<T>(code: Code, message: String) -> Result<T, StoreError> {
    Err(StoreError::InTheWay { code, message })
}

/// Returns the blocked group that admits this device, if it has a leaf by `issuer`: nothing is
/// issued to the device while the group is blocked.
pub(super) fn blocked_group(
    tx: &Tx<'_>,
    device: &str,
    issuer: i64,
) -> Result<Option<String>, StoreError> {
    let sql = format!(
        "SELECT g.name FROM block b CROSS JOIN enrollment g
         WHERE b.kind = 'group' AND b.lifted_at IS NULL
           AND g.kind = 'group' AND g.name = b.name AND g.removed = 0
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
        return in_the_way(UNDER_WAY, message);
    }
    if is_blocked(tx, name)? {
        let message = format!("{name} is blocked; lift that with `hallmark device unblock` first");
        return in_the_way(Code::DeviceBlocked, message);
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
        return in_the_way(UNDER_WAY, message);
    }
    let blocked: Option<(String, String)> = tx.query_optional(
        "SELECT b.kind, b.name FROM block b WHERE b.lifted_at IS NULL
               AND (b.kind = 'generation' AND b.name = ?1
                    OR b.kind = 'group' AND EXISTS (
                        SELECT 1 FROM enrollment e WHERE e.kind = 'group' AND e.name = b.name
                          AND e.authority = ?1 AND e.removed = 0))",
        params![authority],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if let Some((kind, name)) = blocked {
        let message = format!(
            "{kind} {name} is blocked, and would be rolled with {authority}: lift the block first, \
             or start the roll by compromise"
        );
        return in_the_way(Code::AuthorityBlocked, message);
    }
    for group in groups_of(tx, authority)? {
        if !matches!(group.slots, Slots::Serving { .. }) {
            let message = format!(
                "group {} at {} is {}: wait for the roll before this one to end",
                group.name,
                group.provisioning,
                group.slots.state()
            );
            return in_the_way(UNDER_WAY, message);
        }
    }
    Ok(())
}

/// Refuses a block of a generation while a roll of its authority is under way, or of an authority
/// whose groups the block changes: both take certificates out of the same slots.
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
        if let Some(open) = open_authority_roll(tx, &authority)? {
            let message = format!(
                "roll {} of {authority} is under way, and this block would take certificates out of \
                 its slots: give it up with `hallmark roll abort {}`, or start a roll by \
                 compromise, which shuts out at once and is not refused",
                open.id, open.id
            );
            return in_the_way(UNDER_WAY, message);
        }
    }
    Ok(())
}

/// Refuses a new group that holds a CA certificate which is revoked or on hold, or below such a
/// one.
pub(super) fn new_group(tx: &Tx<'_>, held: &[Thumbprint]) -> Result<(), StoreError> {
    let Some((authority, number)) = revoked_above(tx, held)? else {
        return Ok(());
    };
    let message = format!(
        "generation {number} of {authority} is revoked, and this group would let in what it signed; \
         roll that authority, or lift the block that holds it"
    );
    in_the_way(Code::IssuerRevoked, message)
}

/// Returns the authority and number of a generation that is revoked or on hold, and whose
/// certificate is one of these or above one.
pub(super) fn revoked_above(
    tx: &Tx<'_>,
    certificates: &[Thumbprint],
) -> Result<Option<(String, i64)>, StoreError> {
    for it in certificates {
        let revoked: Option<(String, i64)> = tx.query_optional(
            "WITH RECURSIVE above (id) AS (
                     SELECT g.id FROM generation g JOIN certificate c ON c.intent = g.certificate
                     WHERE c.sha256 = ?1
                     UNION SELECT g.parent FROM generation g JOIN above ON g.id = above.id
                     WHERE g.parent IS NOT NULL)
                 SELECT g.authority, g.number FROM generation g
                 JOIN certificate c ON c.intent = g.certificate
                 WHERE g.id IN (SELECT id FROM above) AND c.revoked_at IS NOT NULL",
            params![it.as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if revoked.is_some() {
            return Ok(revoked);
        }
    }
    Ok(None)
}

/// Returns whether no exclusion needs this enrollment disabled, if it has these slots.
pub(super) fn may_enable(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    slots: &Slots,
) -> Result<bool, StoreError> {
    Ok(match row.kind {
        EnrollmentKind::Individual => {
            !is_blocked(tx, &row.name)? && !compromise::waits_for_leaf(tx, row.id)?
        }
        EnrollmentKind::Group => {
            // A blocking group works by being disabled, whichever exclusion ends.
            row.overlay_of.is_none()
                && !is_kept_disabled(tx, row.id)?
                && !any_excluded_for_good(tx, &slots.held())?
        }
    })
}

/// Returns whether a block in force keeps this group disabled.
fn is_kept_disabled(tx: &Tx<'_>, group: i64) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM block b, json_each(b.undo) u
                            WHERE b.lifted_at IS NULL AND b.kind <> 'device'
                              AND u.value ->> '$.Enable' = ?1)",
        params![group],
        |row| row.get(0),
    )
}

/// Returns whether a CA certificate is excluded for good: revoked without a hold, or replaced
/// because it, or one above it, was compromised.
fn is_excluded_for_good(tx: &Tx<'_>, it: &Thumbprint) -> Result<bool, StoreError> {
    let hold = RevocationReason::CertificateHold.code();
    tx.query_one(
        "SELECT EXISTS (SELECT 1 FROM certificate WHERE sha256 = ?1
                              AND revocation_reason IS NOT NULL AND revocation_reason <> ?2)
                 OR EXISTS (SELECT 1 FROM roll WHERE old_certificate = ?1
                              AND authority IS NOT NULL AND reason = 'compromise')",
        params![it.as_bytes(), hold],
        |row| row.get(0),
    )
}

/// Returns whether one of these CA certificates is excluded for good.
pub(super) fn any_excluded_for_good(tx: &Tx<'_>, them: &[Thumbprint]) -> Result<bool, StoreError> {
    for it in them {
        if is_excluded_for_good(tx, it)? {
            return Ok(true);
        }
    }
    Ok(false)
}
