//! Says what a compromise would change, and changes nothing.
//!
//! The plan is the one that the exclusion makes in its own transaction ([`super::exclusion`]), at
//! another moment: what is added in between is excluded, too.

use super::compromise::of_authority_and_below;
use super::engine::{Tx, params};
use super::enrollment::{self, EnrollmentKind, by_id};
use super::exclusion::{self, Excluded, Exclusion};
use super::{Store, StoreError, UnixSeconds, fleet_queries, hierarchy, repeated_deletion};
use crate::enrollment::exclusion::{BlockingGroup, Generation, Restriction, below, to_replace};
use crate::ids::{GenerationId, GenerationNumber};
use crate::x509::revocation::RevocationReason;
use schemars::JsonSchema;
use serde::Serialize;

/// The changes that a compromise would make.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct PlannedExclusion {
    /// Of an authority: the compromised generation, and all below it.
    pub generations: Vec<ExcludedGeneration>,
    /// Certificates of devices and other leaves that are good now, and are not afterwards.
    pub certificates: u64,
    /// Devices whose current certificate is one of these.
    pub devices: u64,
    /// Devices whose identities are deleted at the hubs.
    pub identities: u64,
    /// The provisioning services with such a hub.
    pub hubs: Vec<String>,
    /// The enrollments that change at the provisioning services.
    pub enrollments: Vec<PlannedChange>,
}

/// A generation that is excluded.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExcludedGeneration {
    pub authority: String,
    pub generation: GenerationNumber,
    /// Whether a next generation is made for it.
    pub is_replaced: bool,
}

/// The change of an enrollment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlannedChange {
    pub provisioning: String,
    pub kind: EnrollmentKind,
    /// Registration id or group id.
    pub name: String,
    pub change: EnrollmentChange,
}

/// The kind of the change of an enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnrollmentChange {
    /// It is added, disabled: the service finds it before what admits the certificate now.
    AddedDisabled,
    /// It admits no device.
    Disabled,
    /// It loses the excluded certificates, and admits by its others.
    Emptied,
}

impl Store {
    /// Plans the compromise of a device or a generation as it is on record at `at`.
    pub fn planned_exclusion(
        &self,
        asked: &Exclusion,
        at: UnixSeconds,
    ) -> Result<PlannedExclusion, StoreError> {
        self.read(|tx| planned(tx, asked, at))
    }
}

fn planned(
    tx: &Tx<'_>,
    asked: &Exclusion,
    at: UnixSeconds,
) -> Result<PlannedExclusion, StoreError> {
    let hierarchy = hierarchy::all(tx)?;
    let mut plan = match &asked.subject {
        Excluded::Generation(authority, number) => {
            let generation = hierarchy::find(&hierarchy, authority, *number)?;
            of_generation(tx, generation, &hierarchy, at)?
        }
        Excluded::Device(device) => PlannedExclusion {
            certificates: leaves_of(tx, device, at)?,
            devices: 1,
            identities: 1,
            ..PlannedExclusion::default()
        },
        Excluded::Group(_) => PlannedExclusion::default(),
    };
    plan.hubs = Vec::from_iter(repeated_deletion::services_with_hub(tx)?);
    for restriction in exclusion::restrictions(tx, asked, &hierarchy, at)? {
        plan.enrollments.extend(change(tx, &restriction)?);
    }
    Ok(plan)
}

fn of_generation(
    tx: &Tx<'_>,
    excluded: &Generation,
    hierarchy: &[Generation],
    at: UnixSeconds,
) -> Result<PlannedExclusion, StoreError> {
    let replaced = to_replace(excluded, hierarchy);
    let below = below(excluded.id, hierarchy);
    let generations = hierarchy.iter().filter(|it| below.contains(&it.id));
    let generations = generations.map(|it| ExcludedGeneration {
        authority: it.authority.clone(),
        generation: it.number,
        is_replaced: replaced.iter().any(|other| other.id == it.id),
    });
    let ids = Vec::from_iter(below.iter().copied());
    let cleared = of_authority_and_below(&excluded.authority, hierarchy);
    let cleared: Vec<GenerationId> = cleared.into_iter().collect();
    let identities = fleet_queries::devices_to_clear(tx, &cleared, true, u32::MAX)?;
    Ok(PlannedExclusion {
        generations: generations.collect(),
        certificates: fleet_queries::good_leaves(tx, &ids, at)?,
        devices: fleet_queries::on_good_leaves(tx, &ids, at)?,
        identities: identities.len() as u64,
        ..PlannedExclusion::default()
    })
}

/// Counts the leaves of a device that are good, or on hold: a compromise makes a hold final.
fn leaves_of(tx: &Tx<'_>, device: &str, at: UnixSeconds) -> Result<u64, StoreError> {
    let hold = RevocationReason::CertificateHold.code();
    fleet_queries::count(
        tx,
        "SELECT count(*) FROM intent i JOIN certificate c ON c.intent = i.id
         WHERE i.subject = ?1 AND i.role = 'device' AND i.not_after >= ?2
           AND (c.revoked_at IS NULL OR c.revocation_reason = ?3)",
        params![device, at, hold],
    )
}

/// Returns the change of the enrollment of a restriction; none if it is as it must be.
fn change(tx: &Tx<'_>, restriction: &Restriction) -> Result<Option<PlannedChange>, StoreError> {
    let row = match restriction {
        Restriction::Hold(group) => return added_group(tx, group),
        Restriction::Device(path, _) => match path.individual {
            Some(id) => by_id(tx, id)?,
            None => {
                return Ok(Some(PlannedChange {
                    provisioning: path.provisioning.clone(),
                    kind: EnrollmentKind::Individual,
                    name: path.device.clone(),
                    change: EnrollmentChange::AddedDisabled,
                }));
            }
        },
        Restriction::Disable(id) | Restriction::Remove(id, _) => by_id(tx, *id)?,
    };
    let remaining = restriction.remaining(&row.slots);
    let remaining = remaining.map_err(|refusal| StoreError::Conflict(refusal.to_string()))?;
    if !row.enabled && remaining.slots == row.slots {
        return Ok(None);
    }
    Ok(Some(PlannedChange {
        provisioning: row.provisioning,
        kind: row.kind,
        name: row.name,
        change: if remaining.enabled {
            EnrollmentChange::Emptied
        } else {
            EnrollmentChange::Disabled
        },
    }))
}

fn added_group(tx: &Tx<'_>, group: &BlockingGroup) -> Result<Option<PlannedChange>, StoreError> {
    let name = group.name();
    let known = enrollment::groups(tx)?;
    let is_there = known
        .iter()
        .any(|it| it.provisioning == group.provisioning && it.name == name && !it.leaving);
    Ok((!is_there).then(|| PlannedChange {
        provisioning: group.provisioning.clone(),
        kind: EnrollmentKind::Group,
        name,
        change: EnrollmentChange::AddedDisabled,
    }))
}
