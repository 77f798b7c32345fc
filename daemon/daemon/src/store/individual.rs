//! Finds the individual enrollments that an exclusion concerns, with the issuers of their leaves.
//!
//! An individual enrollment takes precedence over every group (contract, section 10), so what is
//! excluded in the groups alone is still admitted by it.

use super::engine::dialect::{from_hex, values_of_1};
use super::engine::{Parameter, Parameters, Tx, params};
use super::enrollment::{EnrollmentRow, enrollment_rows};
use super::{Store, StoreError, UnixSeconds};
use crate::enrollment::desired::Status;
use crate::enrollment::exclusion::Individual;
use crate::enrollment::record::{ObservedSlot, Record};
use crate::enrollment::slots::SlotName;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, GenerationId};
use std::collections::BTreeSet;

/// The leaves in the slots of individual enrollments: `e` is the enrollment, `i` the leaf's intent.
/// A leaf that is not on record since a restore may be by any generation; its issuer is 0.
const LEAVES: &str = concat!(
    "SELECT e.id, e.provisioning, e.overlay_of, ",
    from_hex!(),
    "(slot.value), coalesce(i.issuer, 0)
     FROM enrollment e, json_each(e.slots) slot
     LEFT JOIN certificate c ON c.sha256 = ",
    from_hex!(),
    "(slot.value)
     LEFT JOIN intent i ON i.id = c.intent
     WHERE e.kind = 'individual' AND length(",
    from_hex!(),
    "(slot.value)) = 32"
);

/// Whether the enrollment `e` holds a leaf that is not on record.
const HOLDS_UNKNOWN: &str = concat!(
    "EXISTS (
         SELECT 1 FROM json_each(e.slots) slot
         WHERE length(",
    from_hex!(),
    "(slot.value)) = 32 AND NOT EXISTS (
             SELECT 1 FROM certificate WHERE sha256 = ",
    from_hex!(),
    "(slot.value)))"
);

/// Whether the enrollment `e` is being removed, and nothing of what it holds is on record.
pub(super) const REMOVED_UNKNOWN: &str = "(e.leaving = 1 AND e.slots ->> '$.state' = 'empty')";

/// Whether `block` excludes the individual enrollment `?1`: its leaves are below the generation, or
/// it is beside the group. A block keeps no record of these.
pub(super) const IS_BLOCKED: &str = concat!(
    "block.kind = 'group' AND EXISTS (
         SELECT 1 FROM enrollment e WHERE e.id = ?1 AND block.name = e.overlay_of
           AND e.kind = 'individual')
     OR block.kind = 'generation' AND EXISTS (
         WITH RECURSIVE above (id) AS (
             SELECT i.issuer FROM enrollment e, json_each(e.slots) slot
             JOIN certificate c ON c.sha256 = ",
    from_hex!(),
    "(slot.value) JOIN intent i ON i.id = c.intent
             WHERE e.id = ?1 AND e.kind = 'individual'
             UNION SELECT g.parent FROM generation g JOIN above ON g.id = above.id
             WHERE g.parent IS NOT NULL)
         SELECT 1 FROM generation g WHERE g.id IN (SELECT id FROM above)
           AND g.authority = block.name AND g.number = block.generation)"
);

/// An individual enrollment with the leaves in its slots.
pub(super) struct HeldLeaves {
    pub(super) id: EnrollmentId,
    provisioning: String,
    overlay_of: Option<String>,
    leaves: Vec<(Thumbprint, GenerationId)>,
}

impl HeldLeaves {
    pub(super) fn known(&self) -> Individual<'_> {
        Individual {
            id: self.id,
            provisioning: &self.provisioning,
            overlay_of: self.overlay_of.as_deref(),
            leaves: &self.leaves,
        }
    }
}

/// How many enrollments that wait for the operator are named for each service.
const NAMED_MAX: usize = 20;

/// How many rows are read at once to find those.
const PAGE: i64 = 100;

/// The individual enrollments of one service whose devices have a leaf by some generations.
#[derive(Clone, Debug)]
pub struct IndividualsBelow {
    pub provisioning: String,
    /// The number of enrollments.
    pub total: i64,
    /// How many of them the service was not observed to have as desired.
    pub open: i64,
    /// How many of these the daemon changes by itself.
    pub pending: i64,
    /// Why the service does not follow in one of these, if it has said so.
    pub last_error: Option<String>,
    /// The first few that wait for the operator and may admit such a leaf: the service rejects the
    /// change, or another program has changed them.
    pub stuck: Vec<EnrollmentRow>,
}

impl IndividualsBelow {
    /// Returns whether one of them may admit such a leaf.
    pub fn may_admit(&self) -> bool {
        self.pending > 0 || !self.stuck.is_empty()
    }
}

impl Store {
    /// Counts, for each service, the individual enrollments of devices with a leaf by one of these
    /// generations that has not expired, those that are being removed too.
    pub fn individuals_below(
        &self,
        generations: &BTreeSet<GenerationId>,
        now: UnixSeconds,
    ) -> Result<Vec<IndividualsBelow>, StoreError> {
        let condition = format!(
            "(EXISTS (
                 SELECT 1 FROM intent i JOIN certificate c ON c.intent = i.id
                 WHERE i.subject = e.name AND i.purpose = 'leaf'
                   AND i.not_after >= ?2 AND i.issuer IN {})
              OR {HOLDS_UNKNOWN})",
            values_of_1!()
        );
        self.read(|tx| counts(tx, generations, &condition, &now))
    }

    /// Counts, for each service, the individual enrollments beside this group. Their devices were
    /// excluded from it, or have a leaf by one of these generations, which it would admit.
    pub fn individuals_beside(
        &self,
        group: &str,
        generations: &BTreeSet<GenerationId>,
    ) -> Result<Vec<IndividualsBelow>, StoreError> {
        let condition = format!(
            "e.overlay_of IS NOT NULL AND (lower(e.overlay_of) = lower(?2) OR {HOLDS_UNKNOWN}
             OR EXISTS (
                 SELECT 1 FROM json_each(e.slots) slot
                 JOIN certificate c ON c.sha256 = {}(slot.value)
                 JOIN intent i ON i.id = c.intent WHERE i.issuer IN {}))",
            from_hex!(),
            values_of_1!()
        );
        self.read(|tx| counts(tx, generations, &condition, &group))
    }
}

/// Counts for `condition`, where `?1` is the list of generations and `?2` is `second`.
fn counts(
    tx: &Tx<'_>,
    generations: &BTreeSet<GenerationId>,
    condition: &str,
    second: &dyn Parameter,
) -> Result<Vec<IndividualsBelow>, StoreError> {
    let list = list(generations);
    let sql = format!(
        "SELECT e.provisioning, count(*),
             count(*) FILTER (WHERE m.id IS NOT NULL OR e.drift IS NOT NULL),
             count(*) FILTER (WHERE m.parked = 0), max(m.last_error) FILTER (WHERE m.parked = 0)
         FROM enrollment e LEFT JOIN mark m ON m.enrollment = e.id
         WHERE e.kind = 'individual' AND {condition}
         GROUP BY e.provisioning ORDER BY e.provisioning"
    );
    let mut counts = tx.query_all(&sql, &[&list, second], |row| {
        Ok(IndividualsBelow {
            provisioning: row.get(0)?,
            total: row.get(1)?,
            open: row.get(2)?,
            pending: row.get(3)?,
            last_error: row.get(4)?,
            stuck: Vec::new(),
        })
    })?;
    for it in counts.iter_mut().filter(|it| it.open > it.pending) {
        let condition = format!("{condition} AND e.provisioning = ?3");
        it.stuck = stuck(
            tx,
            generations,
            &condition,
            &[&list, second, &it.provisioning],
        )?;
    }
    Ok(counts)
}

/// Returns the first enrollments that wait for the operator and may admit a leaf by one of these
/// generations. `condition` has three parameters.
fn stuck(
    tx: &Tx<'_>,
    generations: &BTreeSet<GenerationId>,
    condition: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<EnrollmentRow>, StoreError> {
    let condition = format!(
        "WHERE e.kind = 'individual' AND (m.parked = 1 OR m.id IS NULL AND e.drift IS NOT NULL)
         AND {condition} AND e.id > ?4 ORDER BY e.id LIMIT ?5"
    );
    let mut stuck = Vec::new();
    let mut after = EnrollmentId::START;
    loop {
        let page = [parameters, params![after, PAGE]].concat();
        let rows = enrollment_rows(tx, &condition, &page)?;
        let Some(last) = rows.last() else {
            return Ok(stuck);
        };
        after = last.id;
        for row in rows {
            if may_admit(tx, &row, generations)? {
                stuck.push(row);
            }
            if stuck.len() == NAMED_MAX {
                return Ok(stuck);
            }
        }
    }
}

/// Returns whether an enrollment that waits for the operator may admit a leaf by one of these
/// generations. Where another program has changed it, it is as last observed. Where the service
/// rejects a change, an earlier one may be in place whose answer was lost.
fn may_admit(
    tx: &Tx<'_>,
    row: &EnrollmentRow,
    generations: &BTreeSet<GenerationId>,
) -> Result<bool, StoreError> {
    if row.mark.is_some() {
        return Ok(true);
    }
    let Some(observed) = row.observed.clone() else {
        return Ok(false);
    };
    let Ok(record) = Record::parse(observed) else {
        return Ok(true);
    };
    if record.status() == Some(Status::Disabled) {
        return Ok(false);
    }
    let Some(member) = record.x509_member() else {
        return Ok(false);
    };
    for slot in SlotName::BOTH {
        let may_admit = match record.slot(member, slot) {
            ObservedSlot::Empty => false,
            ObservedSlot::Certificate(leaf) => {
                issuer_of(tx, leaf)?.is_none_or(|it| generations.contains(&it))
            }
            ObservedSlot::Reference(_) | ObservedSlot::Unreadable => true,
        };
        if may_admit {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the generation that signed a certificate on record.
fn issuer_of(tx: &Tx<'_>, leaf: Thumbprint) -> Result<Option<GenerationId>, StoreError> {
    let issuer: Option<Option<GenerationId>> = tx.query_optional(
        "SELECT i.issuer FROM certificate c JOIN intent i ON i.id = c.intent
         WHERE c.sha256 = ?1 AND i.purpose = 'leaf'",
        params![leaf.as_bytes()],
        |row| row.get(0),
    )?;
    Ok(issuer.flatten())
}

/// Returns the individual enrollments that hold a leaf by one of these generations. A leaf that is
/// not on record counts as by the first one.
pub(super) fn with_leaves_by(
    tx: &Tx<'_>,
    generations: &BTreeSet<GenerationId>,
) -> Result<Vec<HeldLeaves>, StoreError> {
    let sql = format!(
        "{LEAVES} AND (i.id IS NULL OR i.issuer IN {}) ORDER BY e.id",
        values_of_1!()
    );
    let mut enrollments = held_leaves(tx, &sql, params![list(generations)])?;
    let first = generations.first().copied();
    for leaf in enrollments.iter_mut().flat_map(|it| &mut it.leaves) {
        if leaf.1 == GenerationId::START {
            leaf.1 = first.unwrap_or(leaf.1);
        }
    }
    Ok(enrollments)
}

/// Returns the individual enrollments that hold a leaf which is not on record, and those that are
/// being removed and of which nothing is on record.
pub(super) fn with_unknown_leaves(tx: &Tx<'_>) -> Result<Vec<EnrollmentRow>, StoreError> {
    let condition = format!(
        "WHERE e.kind = 'individual' AND ({HOLDS_UNKNOWN} OR {REMOVED_UNKNOWN}) ORDER BY e.id"
    );
    enrollment_rows(tx, &condition, params![])
}

/// Returns the individual enrollments of devices that a group would admit without them.
pub(super) fn beside_groups(tx: &Tx<'_>) -> Result<Vec<HeldLeaves>, StoreError> {
    let sql = format!("{LEAVES} AND e.overlay_of IS NOT NULL ORDER BY e.id");
    held_leaves(tx, &sql, params![])
}

/// Returns the enrollment with this row id, if it holds a leaf.
pub(super) fn held_leaves_of(
    tx: &Tx<'_>,
    id: EnrollmentId,
) -> Result<Option<HeldLeaves>, StoreError> {
    let sql = format!("{LEAVES} AND e.id = ?1");
    Ok(held_leaves(tx, &sql, params![id])?.pop())
}

fn held_leaves(
    tx: &Tx<'_>,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<HeldLeaves>, StoreError> {
    let leaves = tx.query_all(sql, parameters, |row| {
        Ok(HeldLeaves {
            id: row.get(0)?,
            provisioning: row.get(1)?,
            overlay_of: row.get(2)?,
            leaves: vec![(Thumbprint::from_bytes(row.get(3)?), row.get(4)?)],
        })
    })?;
    let mut enrollments: Vec<HeldLeaves> = Vec::new();
    for it in leaves {
        match enrollments.last_mut() {
            Some(last) if last.id == it.id => last.leaves.extend(it.leaves),
            _ => enrollments.push(it),
        }
    }
    Ok(enrollments)
}

fn list(generations: &BTreeSet<GenerationId>) -> String {
    serde_json::json!(generations).to_string()
}
