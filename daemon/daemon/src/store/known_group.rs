//! Reads the groups on record as the plan of an exclusion needs them.

use super::engine::Tx;
use super::enrollment::{self, EnrollmentRow};
use super::{StoreError, possession};
use crate::enrollment::exclusion::Group;
use crate::enrollment::thumbprint::Thumbprint;
use std::collections::BTreeSet;

/// A group on record, and which of its CA certificates its service was observed to lack.
pub(super) struct KnownGroup {
    row: EnrollmentRow,
    unverified: Vec<Thumbprint>,
}

impl KnownGroup {
    pub(super) fn known(&self) -> Group<'_> {
        known_group(&self.row, &self.unverified)
    }
}

pub(super) fn known_group<'a>(row: &'a EnrollmentRow, unverified: &'a [Thumbprint]) -> Group<'a> {
    Group {
        id: row.id,
        provisioning: &row.provisioning,
        name: &row.name,
        authority: row.authority.as_deref(),
        slots: &row.slots,
        by_reference: row.by_reference,
        unverified,
        is_blocking: row.overlay_of.is_some(),
        is_leaving: row.leaving,
    }
}

/// Returns every group that a service may hold. A group by reference holds what its service was
/// last observed to hold verified: another program may have deleted the CA certificate.
pub(super) fn known_groups(tx: &Tx<'_>) -> Result<Vec<KnownGroup>, StoreError> {
    let verified: BTreeSet<(String, Thumbprint)> = possession::all(tx)?
        .into_iter()
        .filter(|it| !it.removed && it.is_verified())
        .map(|it| (it.provisioning, Thumbprint::of(&it.certificate)))
        .collect();
    let known = |row: EnrollmentRow| {
        let mut unverified = Vec::new();
        if row.by_reference {
            unverified = row.slots.held();
            unverified.retain(|it| !verified.contains(&(row.provisioning.clone(), *it)));
        }
        KnownGroup { row, unverified }
    };
    Ok(enrollment::groups(tx)?.into_iter().map(known).collect())
}
