//! Plans exclusions: which enrollments must change so that a provisioning service admits neither a
//! device nor any certificate below a generation.
//!
//! Pure. A block and a compromise take the same plan and differ in how they end: an operator
//! reverts a block, and a compromise ends with a successor. DPS searches a chain from the leaf
//! upwards for the first enrollment that holds one of its certificates, and asks whether that one
//! is enabled (contract, section 10). So a certificate is excluded when the first enrollment that
//! holds it, or one above it, is disabled; taking it out of its slots is not enough below a group
//! that is enabled.

use super::refusal::{Reason, Refusal};
use super::slots::{SlotName, Slots};
use super::thumbprint::Thumbprint;
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
    /// The provisioning service.
    pub provisioning: String,
    /// The device's registration id.
    pub device: String,
    /// The device's individual enrollment there, which takes precedence over every group.
    pub individual: Option<i64>,
    /// The group that admits the device where it has no individual enrollment.
    pub group: Option<String>,
}

/// A generation that has a certificate.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The row id.
    pub id: i64,
    /// The authority's name.
    pub authority: String,
    /// Which generation of the authority.
    pub number: i64,
    /// The row id of its issuer, if that is an authority of this hierarchy.
    pub parent: Option<i64>,
    /// Whether it signed its own certificate.
    pub is_root: bool,
    /// Whether its authority signs by it now.
    pub serves: bool,
    /// The thumbprint of its certificate.
    pub certificate: Thumbprint,
}

/// An enrollment group that is to exist.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The row id of the enrollment.
    pub id: i64,
    /// The provisioning service.
    pub provisioning: &'a str,
    /// The group's id at the service.
    pub name: &'a str,
    /// The authority whose certificates it holds.
    pub authority: Option<&'a str>,
    /// The certificates that it is to hold.
    pub slots: &'a Slots,
    /// Whether it names CA certificates of the service instead of holding certificates.
    pub by_reference: bool,
    /// Whether it exists to exclude a certificate; it is never enabled.
    pub is_blocking: bool,
}

/// A disabled group that holds one excluded certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingGroup {
    /// The provisioning service.
    pub provisioning: String,
    /// The authority of the certificate.
    pub authority: String,
    /// Which generation of the authority.
    pub number: i64,
    /// The excluded certificate.
    pub certificate: Thumbprint,
    /// The enrollment whose change must be observed first: a service takes a certificate in one
    /// enrollment only.
    pub after: Option<i64>,
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
    Disable(i64),
    /// These certificates leave the slots of the enrollment.
    Remove(i64, Vec<Thumbprint>),
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

/// Plans the exclusion of all devices of the groups with this id, whichever their services.
pub fn of_group(name: &str, groups: &[Group<'_>]) -> Vec<Restriction> {
    let named = groups
        .iter()
        .filter(|it| it.name.eq_ignore_ascii_case(name));
    named.map(|it| Restriction::Disable(it.id)).collect()
}

/// Plans the exclusion of a generation and all below it from these services.
pub fn of_generation(
    excluded: &Generation,
    hierarchy: &[Generation],
    end: End,
    services: &BTreeSet<&str>,
    groups: &[Group<'_>],
) -> Vec<Restriction> {
    let below = excluded_below(excluded, hierarchy, end);
    let above = authorities_above(excluded, hierarchy);
    let mut plan = Vec::new();
    for service in services {
        let here = groups.iter().filter(|it| it.provisioning == *service);
        let mut after = None;
        let mut is_reachable = false;
        let mut is_held = false;
        for group in here {
            let held = group.slots.held();
            let mut out = held.clone();
            out.retain(|it| below.contains(it));
            let is_own = out.contains(&excluded.certificate);
            if out.is_empty() {
                is_reachable |= group.authority.is_some_and(|it| above.contains(it));
                continue;
            }
            if out.len() < held.len() {
                is_reachable = true;
                after = is_own.then_some(group.id).or(after);
            } else {
                is_held |= is_own;
                // The service takes no record that names a CA certificate which is deleted, and
                // admits no device by it: the group stays as it is.
                if group.is_blocking || (group.by_reference && end == End::Successor) {
                    continue;
                }
            }
            plan.push(Restriction::Remove(group.id, out));
        }
        // A root that is deleted is not found by any group above: there is none.
        let is_deleted = excluded.is_root && end == End::Successor;
        if is_reachable && !is_held && !is_deleted {
            plan.push(Restriction::Hold(BlockingGroup {
                provisioning: (*service).to_owned(),
                authority: excluded.authority.clone(),
                number: excluded.number,
                certificate: excluded.certificate,
                after,
            }));
        }
    }
    plan
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

/// A block excludes all generations below, a compromise those of the authorities that get
/// successors: an authority that signs by a good generation already drains its old one as planned.
fn excluded_below(
    excluded: &Generation,
    hierarchy: &[Generation],
    end: End,
) -> BTreeSet<Thumbprint> {
    let replaced = to_replace(excluded, hierarchy);
    let mut below = BTreeSet::from([excluded.id]);
    let mut certificates = BTreeSet::from([excluded.certificate]);
    // Row ids of issuers are lower than those of the generations that they sign.
    for it in hierarchy {
        if !it.parent.is_some_and(|parent| below.contains(&parent)) {
            continue;
        }
        below.insert(it.id);
        if end == End::Revert || replaced.iter().any(|other| other.authority == it.authority) {
            certificates.insert(it.certificate);
        }
    }
    certificates
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

/// The slots and the status that an exclusion leaves to an enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// The slots without the excluded certificates, or unchanged if they hold nothing else.
    pub slots: Slots,
    /// Whether the enrollment may be enabled: not while it holds excluded certificates.
    pub enabled: bool,
}

impl Slots {
    /// Takes excluded certificates out of their slots; `replacement` takes the place of one.
    ///
    /// This is the only transition that takes the serving certificate out of its slot unobserved:
    /// an exclusion waits for nothing. The service knows no enrollment without a certificate. So
    /// slots that hold neither a good certificate nor a replacement stay as they are, and their
    /// enrollment must be disabled.
    pub fn exclude(
        self,
        excluded: &[Thumbprint],
        replacement: Option<Thumbprint>,
    ) -> Result<Remaining, Refusal> {
        let held = SlotName::BOTH.map(|slot| (slot, self.in_slot(slot)));
        let is_excluded = |it: &Thumbprint| excluded.contains(it);
        if !self.held().iter().any(is_excluded) {
            return Err(self.refuse(Reason::NotThere));
        }
        if let Some((slot, _)) = held
            .into_iter()
            .find(|(_, it)| it.is_some() && *it == replacement)
        {
            return Err(self.refuse(Reason::AlreadyThere { slot }));
        }
        let good = held
            .into_iter()
            .find_map(|(slot, it)| Some((slot, it.filter(|it| !is_excluded(it))?)));
        let slots = match (good, replacement) {
            (None, None) => {
                return Ok(Remaining {
                    slots: self,
                    enabled: false,
                });
            }
            (None, Some(certificate)) => Slots::Serving {
                slot: self.slot_of_serving(),
                certificate,
            },
            (Some((slot, certificate)), None) => Slots::Serving { slot, certificate },
            (Some((slot, serving)), Some(next)) => Slots::Staged {
                slot,
                serving,
                next,
            },
        };
        Ok(Remaining {
            slots,
            enabled: true,
        })
    }

    /// Returns the certificates in the named slots.
    pub fn in_slots(&self, names: &[SlotName]) -> Vec<Thumbprint> {
        let held = names.iter().filter_map(|name| self.in_slot(*name));
        held.collect()
    }

    fn slot_of_serving(&self) -> SlotName {
        match *self {
            Slots::Empty => SlotName::Primary,
            Slots::Serving { slot, .. }
            | Slots::Staged { slot, .. }
            | Slots::Draining { slot, .. } => slot,
        }
    }
}
