//! Plans exclusions: which enrollments must change so that a provisioning service admits neither a
//! device nor any certificate below a generation.
//!
//! Pure. A block and a compromise take the same plan and differ in how they end: an operator
//! reverts a block, and a compromise ends with a successor. DPS searches a chain from the leaf
//! upwards for the first enrollment that holds one of its certificates, and asks whether that one
//! is enabled (contract, section 10). So a certificate is excluded when the first enrollment that
//! holds it, or one above it, is disabled; taking it out of its slots is not enough below a group
//! that is enabled. An individual enrollment takes precedence over every group, and holds leaves by
//! their thumbprints; it is excluded when no leaf in its slots is below what is excluded.

use super::refusal::Refusal;
use super::slot_exclusion::Remaining;
use super::slots::{SlotName, Slots};
use super::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, GenerationId, GenerationNumber};
use std::collections::BTreeSet;

/// How an exclusion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A block: an operator lifts it, and its restrictions are reverted.
    Revert,
    /// A compromise: a successor takes the place of what is excluded. CA certificates are deleted.
    Successor,
}

/// An enrollment by which a service admits a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPath {
    pub provisioning: String,
    /// The device's registration id.
    pub device: String,
    /// The device's individual enrollment there, which takes precedence over every group.
    pub individual: Option<EnrollmentId>,
    /// The group that admits the device where it has no individual enrollment.
    pub group: Option<String>,
}

/// A generation that has a certificate.
#[derive(Clone, Debug)]
pub struct Generation {
    pub id: GenerationId,
    pub authority: String,
    /// Which generation of the authority.
    pub number: GenerationNumber,
    /// The row id of its issuer, if that is an authority of this hierarchy.
    pub parent: Option<GenerationId>,
    /// Whether it signed its own certificate.
    pub is_root: bool,
    /// Whether its authority signs by it now.
    pub serves: bool,
    /// The thumbprint of its certificate.
    pub certificate: Thumbprint,
}

/// An enrollment group that a service may hold.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The row id of the enrollment.
    pub id: EnrollmentId,
    pub provisioning: &'a str,
    /// The group's id at the service.
    pub name: &'a str,
    /// The authority whose certificates it holds.
    pub authority: Option<&'a str>,
    /// The certificates that it is to hold.
    pub slots: &'a Slots,
    /// Whether it names CA certificates of the service instead of holding certificates.
    pub by_reference: bool,
    /// Of a group by reference: the certificates that the service was not observed to hold
    /// verified. DPS finds no device by them, so this group excludes none.
    pub unverified: &'a [Thumbprint],
    /// Whether it exists to exclude a certificate; it is never enabled.
    pub is_blocking: bool,
    /// Whether it is being removed. It may admit what it holds until the service was observed
    /// without it, and excludes nothing: a group above is found when it is gone.
    pub is_leaving: bool,
}

/// An individual enrollment that a service may hold, of a device on its own or beside a group.
#[derive(Clone, Copy, Debug)]
pub struct Individual<'a> {
    /// The row id of the enrollment.
    pub id: EnrollmentId,
    pub provisioning: &'a str,
    /// The group whose device it excludes, or has excluded.
    pub overlay_of: Option<&'a str>,
    /// The leaves in its slots, each with the generation that issued it.
    pub leaves: &'a [(Thumbprint, GenerationId)],
}

/// The enrollments of all services.
#[derive(Clone, Copy, Debug)]
pub struct Enrollments<'a> {
    pub groups: &'a [Group<'a>],
    /// Every individual enrollment that the exclusion may concern.
    pub individuals: &'a [Individual<'a>],
}

/// A disabled group that holds one excluded certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingGroup {
    pub provisioning: String,
    /// The authority of the certificate.
    pub authority: String,
    /// Which generation of the authority.
    pub number: GenerationNumber,
    pub certificate: Thumbprint,
    /// The enrollment whose change must be observed first: a service takes a certificate in one
    /// enrollment only.
    pub after: Option<EnrollmentId>,
}

impl BlockingGroup {
    /// Returns the group's id at the service.
    pub fn name(&self) -> String {
        format!("{}-blocked-{}", self.authority, self.number)
    }
}

/// A change of one enrollment that makes a service admit less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// These slots of the device's individual enrollment are emptied, or it is disabled. It is
    /// added where a group admits the device.
    Device(AccessPath, Vec<SlotName>),
    /// The enrollment is disabled.
    Disable(EnrollmentId),
    /// These certificates leave the slots of the enrollment.
    Remove(EnrollmentId, Vec<Thumbprint>),
    /// A disabled group holds the certificate: DPS finds that group before any group above.
    Hold(BlockingGroup),
}

impl Restriction {
    /// Returns what the restriction leaves of an enrollment with these slots.
    pub fn remaining(&self, slots: &Slots) -> Result<Remaining, Refusal> {
        let excluded = match self {
            Restriction::Device(_, names) => slots.in_slots(names),
            Restriction::Remove(_, certificates) => certificates.clone(),
            Restriction::Disable(_) | Restriction::Hold(_) => slots.held(),
        };
        if excluded.len() == slots.held().len() {
            return Ok(Remaining {
                slots: slots.clone(),
                enabled: false,
            });
        }
        slots.clone().exclude(&excluded, None)
    }
}

/// Plans the exclusion of a device from every service that admits it, by the leaves in these slots.
pub fn of_device(paths: Vec<AccessPath>, slots: &[SlotName]) -> Vec<Restriction> {
    let restrict = |path| Restriction::Device(path, slots.to_vec());
    paths.into_iter().map(restrict).collect()
}

/// Plans the exclusion of all devices of the groups with this id, whichever their services. The
/// groups of authorities below, and the enrollments of devices beside such a group, are disabled
/// with it: they take precedence over it. A generation of its authority that it does not hold at
/// the service gets a blocking group, or a group above would admit the devices: `signed` are the
/// generations that may have devices.
pub fn of_group(
    name: &str,
    hierarchy: &[Generation],
    signed: &BTreeSet<GenerationId>,
    known: Enrollments<'_>,
) -> Vec<Restriction> {
    let named = known
        .groups
        .iter()
        .filter(|it| it.name.eq_ignore_ascii_case(name));
    let mut plan: Vec<_> = named
        .clone()
        .map(|it| Restriction::Disable(it.id))
        .collect();
    for group in known.groups.iter().filter(|it| !it.is_blocking) {
        if named.clone().any(|it| it.is_above(group, hierarchy)) {
            plan.push(Restriction::Disable(group.id));
        }
    }
    for individual in known.individuals {
        if named
            .clone()
            .any(|it| it.has_beside_it(individual, hierarchy))
        {
            plan.push(Restriction::Disable(individual.id));
        }
    }
    let blocking = named.flat_map(|it| it.blocking_beside(hierarchy, signed, known.groups));
    plan.extend(blocking.map(Restriction::Hold));
    plan
}

/// Plans the exclusion of a generation and all below it from every service: from the groups, and
/// from the individual enrollments, which take precedence over every group.
pub fn of_generation(
    excluded: &Generation,
    hierarchy: &[Generation],
    end: End,
    known: Enrollments<'_>,
) -> Vec<Restriction> {
    let scope = Scope::new(excluded, hierarchy, end);
    let services: BTreeSet<&str> = known.groups.iter().map(|it| it.provisioning).collect();
    let mut plan = Vec::new();
    for individual in known.individuals {
        let out: Vec<Thumbprint> = individual
            .leaves
            .iter()
            .filter(|(_, issuer)| scope.below.contains(issuer))
            .map(|(leaf, _)| *leaf)
            .collect();
        if !out.is_empty() {
            plan.push(Restriction::Remove(individual.id, out));
        }
    }
    for service in services {
        scope.plan_at(service, known.groups, &mut plan);
    }
    plan
}

/// Plans what a new group needs beside it: a blocking group for each generation below that is in
/// `excluded`, unless a group of that service holds its certificate. Each comes after the one
/// before it, so that the new group can come after the last.
pub fn of_new_group(
    new: &Group<'_>,
    hierarchy: &[Generation],
    excluded: &BTreeSet<GenerationId>,
    groups: &[Group<'_>],
) -> Vec<BlockingGroup> {
    let held = new.slots.held();
    let holding = hierarchy.iter().filter(|it| held.contains(&it.certificate));
    let below: BTreeSet<GenerationId> = holding.flat_map(|it| below(it.id, hierarchy)).collect();
    let here = || {
        groups
            .iter()
            .filter(|it| it.provisioning == new.provisioning)
    };
    let is_held = |certificate| here().any(|it| it.excludes(certificate));
    let open = hierarchy
        .iter()
        .filter(|it| below.contains(&it.id) && excluded.contains(&it.id))
        .filter(|it| !held.contains(&it.certificate) && !is_held(it.certificate));
    let blocking = open.map(|it| BlockingGroup {
        after: leaving_holder(here(), it.certificate),
        ..it.blocking_group(new.provisioning)
    });
    blocking.collect()
}

/// Returns the group that must be gone before another one can hold the certificate. A blocking
/// group is not removed then: it is needed again.
fn leaving_holder<'a>(
    mut groups: impl Iterator<Item = &'a Group<'a>>,
    certificate: Thumbprint,
) -> Option<EnrollmentId> {
    let is_holder = |it: &&Group<'_>| {
        it.is_leaving && !it.is_blocking && it.slots.held().contains(&certificate)
    };
    groups.find(is_holder).map(|it| it.id)
}

/// The generations that one exclusion concerns.
struct Scope<'a> {
    excluded: &'a Generation,
    /// The excluded generation and all below it.
    below: BTreeSet<GenerationId>,
    certificates: BTreeSet<Thumbprint>,
    /// The certificates that a service deletes where it holds them as CA certificates.
    deleted: BTreeSet<Thumbprint>,
    /// The authority of the generation and those of all generations above it.
    above: BTreeSet<&'a str>,
}

impl<'a> Scope<'a> {
    fn new(excluded: &'a Generation, hierarchy: &'a [Generation], end: End) -> Self {
        let below = below(excluded.id, hierarchy);
        let certificates = hierarchy.iter().filter(|it| below.contains(&it.id));
        let certificates: BTreeSet<Thumbprint> = certificates.map(|it| it.certificate).collect();
        Self {
            excluded,
            below,
            deleted: match end {
                End::Revert => BTreeSet::new(),
                End::Successor => certificates.clone(),
            },
            certificates,
            above: authorities_above(excluded, hierarchy),
        }
    }

    /// Plans the changes of the groups of one service. The blocking group comes last.
    fn plan_at(&self, service: &str, groups: &[Group<'_>], plan: &mut Vec<Restriction>) {
        let mut after = None;
        let mut is_reachable = false;
        let mut is_held = false;
        for group in groups.iter().filter(|it| it.provisioning == service) {
            let held = group.slots.held();
            let mut out = held.clone();
            out.retain(|it| self.certificates.contains(it));
            let is_own = out.contains(&self.excluded.certificate);
            if out.is_empty() {
                is_reachable |= group.authority.is_some_and(|it| self.above.contains(it));
                continue;
            }
            if out.len() < held.len() {
                is_reachable = true;
                after = is_own.then_some(group.id).or(after);
            } else {
                // The service takes no record that names a CA certificate which is deleted, and
                // finds no device by it: the group stays as it is, and holds nothing.
                let is_gone = group.by_reference && out.iter().all(|it| self.deleted.contains(it));
                is_held |= !is_gone && group.excludes(self.excluded.certificate);
                if group.is_blocking || is_gone {
                    continue;
                }
                let leaves = is_own && group.is_leaving;
                after = leaves.then_some(group.id).or(after);
            }
            plan.push(Restriction::Remove(group.id, out));
        }
        // A root that is deleted is not found by any group above: there is none.
        let is_gone = self.excluded.is_root && self.deleted.contains(&self.excluded.certificate);
        if is_reachable && !is_held && !is_gone {
            let blocking = self.excluded.blocking_group(service);
            plan.push(Restriction::Hold(BlockingGroup { after, ..blocking }));
        }
    }
}

impl Generation {
    /// Returns the blocking group that excludes this generation from a service.
    fn blocking_group(&self, provisioning: &str) -> BlockingGroup {
        BlockingGroup {
            provisioning: provisioning.to_owned(),
            authority: self.authority.clone(),
            number: self.number,
            certificate: self.certificate,
            after: None,
        }
    }
}

impl Group<'_> {
    /// Returns whether this group, disabled, excludes what the certificate signed: DPS finds it for
    /// each chain with the certificate, and goes on finding it.
    pub fn excludes(&self, certificate: Thumbprint) -> bool {
        let is_found =
            self.slots.held().contains(&certificate) && !self.unverified.contains(&certificate);
        is_found && !self.is_leaving
    }

    /// Returns the blocking groups that this group needs beside it while it is disabled: for each
    /// of these generations of its authority that no group of the service excludes, and that a
    /// group of an authority above would admit. This group stays while it is blocked, also if it is
    /// being removed.
    fn blocking_beside(
        &self,
        hierarchy: &[Generation],
        signed: &BTreeSet<GenerationId>,
        groups: &[Group<'_>],
    ) -> Vec<BlockingGroup> {
        let staying = Group {
            is_leaving: false,
            ..*self
        };
        let others = || {
            groups
                .iter()
                .filter(|it| it.provisioning == self.provisioning && it.id != self.id)
        };
        let own = hierarchy
            .iter()
            .filter(|it| Some(it.authority.as_str()) == self.authority && signed.contains(&it.id));
        let open = own.filter(|it| {
            let mut above = authorities_above(it, hierarchy);
            above.remove(it.authority.as_str());
            let is_above = |group: &Group<'_>| {
                !group.is_blocking && group.authority.is_some_and(|name| above.contains(name))
            };
            let is_held = staying.excludes(it.certificate)
                || others().any(|group| group.excludes(it.certificate));
            !is_held && others().any(is_above)
        });
        let blocking = open.map(|it| BlockingGroup {
            after: leaving_holder(others(), it.certificate),
            ..it.blocking_group(self.provisioning)
        });
        blocking.collect()
    }

    /// Returns whether the authority of this group is above that of another one at the service.
    fn is_above(&self, other: &Group<'_>, hierarchy: &[Generation]) -> bool {
        if self.provisioning != other.provisioning || self.authority == other.authority {
            return false;
        }
        let held = other.slots.held();
        hierarchy
            .iter()
            .filter(|it| held.contains(&it.certificate))
            .map(|it| authorities_above(it, hierarchy))
            .any(|above| self.authority.is_some_and(|it| above.contains(it)))
    }

    /// Returns whether an individual enrollment is that of a device of this group: the group would
    /// admit the device without it. An enrollment on its own is not.
    pub fn has_beside_it(&self, individual: &Individual<'_>, hierarchy: &[Generation]) -> bool {
        let Some(overlay_of) = individual.overlay_of else {
            return false;
        };
        if individual.provisioning != self.provisioning {
            return false;
        }
        let is_below = |issuer: GenerationId| {
            // Not on record: it may be by any of them.
            if issuer == GenerationId::START {
                return true;
            }
            let issuer = hierarchy.iter().find(|it| it.id == issuer);
            let above = issuer.map(|it| authorities_above(it, hierarchy));
            above.is_some_and(|above| self.authority.is_some_and(|it| above.contains(it)))
        };
        overlay_of.eq_ignore_ascii_case(self.name)
            || individual
                .leaves
                .iter()
                .any(|(_, issuer)| is_below(*issuer))
    }
}

/// Returns the generations that need a successor when `excluded` is compromised: that generation,
/// and below it those that serve, each after its issuer.
pub fn to_replace<'a>(
    excluded: &'a Generation,
    hierarchy: &'a [Generation],
) -> Vec<&'a Generation> {
    let mut listed = vec![excluded];
    let issued = |it: &&Generation| it.serves && it.parent == Some(excluded.id);
    let mut below: Vec<&Generation> = hierarchy.iter().filter(issued).collect();
    below.sort_by_key(|it| &it.authority);
    for it in below {
        listed.extend(to_replace(it, hierarchy));
    }
    listed
}

/// Returns this generation and all below it. The certificate of each names the one above as its
/// issuer, so a relying party that rejects the one above accepts none of them.
pub fn below(id: GenerationId, hierarchy: &[Generation]) -> BTreeSet<GenerationId> {
    let mut below = BTreeSet::from([id]);
    // Row ids of issuers are lower than those of the generations that they sign.
    for it in hierarchy {
        if it.parent.is_some_and(|parent| below.contains(&parent)) {
            below.insert(it.id);
        }
    }
    below
}

/// Returns the authority of the generation and those of all generations above it.
fn authorities_above<'a>(
    excluded: &'a Generation,
    hierarchy: &'a [Generation],
) -> BTreeSet<&'a str> {
    let issuer = |it: &&'a Generation| hierarchy.iter().find(|other| Some(other.id) == it.parent);
    let upwards = std::iter::successors(Some(excluded), issuer);
    upwards.map(|it| it.authority.as_str()).collect()
}
