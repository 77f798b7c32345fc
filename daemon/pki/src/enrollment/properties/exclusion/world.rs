//! Makes random hierarchies with the groups and devices that two services hold, and judges a chain
//! as DPS does.

use crate::enrollment::exclusion::{
    BlockingGroup, End, Enrollments, Generation, Group, Individual, Restriction, of_generation,
    of_group, of_new_group,
};
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, GenerationId, GenerationNumber};
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(super) const SERVICES: [&str; 2] = ["dps-1", "dps-2"];

/// A group at a service, as it is desired.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: EnrollmentId,
    pub(super) service: &'static str,
    pub(super) authority: String,
    pub(super) slots: Slots,
    pub(super) enabled: bool,
    pub(super) by_reference: bool,
    pub(super) unverified: Vec<Thumbprint>,
    pub(super) is_blocking: bool,
    pub(super) is_leaving: bool,
}

/// An individual enrollment at a service, as it is desired.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) id: EnrollmentId,
    pub(super) service: &'static str,
    pub(super) leaves: Vec<(Thumbprint, GenerationId)>,
    pub(super) slots: Slots,
    pub(super) enabled: bool,
}

/// The row id of the first individual enrollment: those of groups are lower.
pub(super) const FIRST_OWN: i64 = 1_000;

/// Authorities, each with a parent and one or two generations; the last generation serves.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) hierarchy: Vec<Generation>,
    pub(super) entries: Vec<Entry>,
    pub(super) own: Vec<Own>,
}

/// For each authority: its parent (modulo those before it, or none), the parent's generation for
/// each of its own, and for each service whether a group holds its certificates, which, whether it
/// is being removed, and whether by reference to CA certificates that are verified there or not.
pub(super) type Draft = (usize, Vec<usize>, [(u8, u8); 2]);

pub(super) fn draft() -> impl Strategy<Value = Draft> {
    let entry = || (0u8..5, 0u8..3);
    let generations = prop::collection::vec(0usize..2, 1..3);
    (0usize..4, generations, [entry(), entry()])
}

pub(super) fn world() -> impl Strategy<Value = World> {
    let drafts = prop::collection::vec(draft(), 1..6);
    let own = prop::collection::vec((0usize..10, 0usize..10, any::<bool>()), 0..5);
    (drafts, own).prop_map(|(drafts, own)| {
        let mut world = World {
            hierarchy: Vec::new(),
            entries: Vec::new(),
            own: Vec::new(),
        };
        for (index, draft) in drafts.iter().enumerate() {
            world.add(index, draft);
        }
        for (old, new, both) in own {
            world.enroll(old, new, both);
        }
        world
    })
}

impl World {
    pub(super) fn add(&mut self, index: usize, (parent, generations, groups): &Draft) {
        let authority = format!("authority {index}");
        // The first is a root; others may be roots, too.
        let above = (*parent < index).then(|| format!("authority {parent}"));
        let issuers = self.hierarchy.iter();
        let issuers = issuers.filter(|it| Some(&it.authority) == above.as_ref());
        let issuers: Vec<GenerationId> = issuers.map(|it| it.id).collect();
        let mut held = Vec::new();
        for (place, issuer) in generations.iter().enumerate() {
            let name = format!("{authority}, {place}");
            let certificate = Thumbprint::of(name.as_bytes());
            held.push(certificate);
            self.hierarchy.push(Generation {
                id: GenerationId::new(self.hierarchy.len() as i64),
                authority: authority.clone(),
                number: GenerationNumber::new(place as i64 + 1),
                parent: issuers.get(issuer % issuers.len().max(1)).copied(),
                is_root: issuers.is_empty(),
                serves: place + 1 == generations.len(),
                certificate,
            });
        }
        for (service, (kind, reference)) in SERVICES.into_iter().zip(groups) {
            let serving = held[held.len() - 1];
            let slots = match (kind, held.len()) {
                (0, _) => continue,
                (1, 2) => Slots::Draining {
                    slot: SlotName::Primary,
                    serving,
                    retiring: held[0],
                },
                (2, _) => Slots::Serving {
                    slot: SlotName::Secondary,
                    certificate: held[0],
                },
                _ => Slots::Serving {
                    slot: SlotName::Primary,
                    certificate: serving,
                },
            };
            self.entries.push(Entry {
                id: EnrollmentId::new(self.entries.len() as i64),
                service,
                authority: authority.clone(),
                slots,
                enabled: true,
                by_reference: *reference > 0,
                unverified: if *reference > 1 {
                    held.clone()
                } else {
                    Vec::new()
                },
                is_blocking: false,
                is_leaving: *kind == 4,
            });
        }
    }

    /// Adds a device with an individual enrollment: with one leaf, or in the middle of a renewal.
    pub(super) fn enroll(&mut self, old: usize, new: usize, both: bool) {
        let number = self.own.len();
        let leaf = |which: &str| Thumbprint::of(format!("leaf {which} {number}").as_bytes());
        let issuer = |pick: usize| GenerationId::new((pick % self.hierarchy.len()) as i64);
        let mut leaves = vec![(leaf("old"), issuer(old))];
        let mut slots = Slots::Empty.serve(leaf("old")).unwrap();
        if both {
            leaves.push((leaf("new"), issuer(new)));
            slots = slots.stage(leaf("new")).unwrap();
        }
        self.own.push(Own {
            id: EnrollmentId::new(FIRST_OWN + number as i64),
            service: SERVICES[number % 2],
            leaves,
            slots,
            enabled: true,
        });
    }

    pub(super) fn plan(&self, excluded: usize, end: End) -> Vec<Restriction> {
        let groups: Vec<Group<'_>> = self.entries.iter().map(known).collect();
        let individuals: Vec<Individual<'_>> = self.own.iter().map(known_own).collect();
        let known = Enrollments {
            groups: &groups,
            individuals: &individuals,
        };
        of_generation(&self.hierarchy[excluded], &self.hierarchy, end, known)
    }

    /// Groups are named like their authorities here.
    pub(super) fn plan_of_group(&self, name: &str) -> Vec<Restriction> {
        let groups: Vec<Group<'_>> = self.entries.iter().map(known).collect();
        let known = Enrollments {
            groups: &groups,
            individuals: &[],
        };
        let signed = self.hierarchy.iter().map(|it| it.id).collect();
        of_group(name, &self.hierarchy, &signed, known)
    }

    /// Adds a group of an authority, with what excludes the generations below that are excluded
    /// already. A group of an excluded authority is refused, and so is a second one.
    pub(super) fn add_later(&mut self, pick: usize, excluded: &BTreeSet<GenerationId>) {
        let generation = self.hierarchy[pick % self.hierarchy.len()].clone();
        let service = SERVICES[pick % 2];
        let mut above = Some(generation.id);
        while let Some(id) = above {
            if excluded.contains(&id) {
                return;
            }
            above = self.hierarchy[id.get() as usize].parent;
        }
        let slots = Slots::Empty.serve(generation.certificate).unwrap();
        let here = self.entries.iter().filter(|it| it.service == service);
        if here
            .clone()
            .any(|it| it.slots.held().contains(&generation.certificate))
        {
            return;
        }
        let entry = Entry {
            id: EnrollmentId::new(self.entries.len() as i64),
            service,
            authority: generation.authority,
            slots,
            enabled: true,
            by_reference: false,
            unverified: Vec::new(),
            is_blocking: false,
            is_leaving: false,
        };
        let groups: Vec<Group<'_>> = self.entries.iter().map(known).collect();
        let plan = of_new_group(&known(&entry), &self.hierarchy, excluded, &groups);
        self.entries.push(entry);
        for group in plan {
            self.hold(&group);
        }
    }

    pub(super) fn hold(&mut self, group: &BlockingGroup) {
        self.entries.push(Entry {
            id: EnrollmentId::new(self.entries.len() as i64),
            service: SERVICES[usize::from(group.provisioning == SERVICES[1])],
            authority: group.authority.clone(),
            slots: Slots::Empty.serve(group.certificate).unwrap(),
            enabled: false,
            by_reference: false,
            unverified: Vec::new(),
            is_blocking: true,
            is_leaving: false,
        });
    }

    pub(super) fn apply(&mut self, plan: &[Restriction]) {
        for restriction in plan {
            let remaining = |slots: &Slots| restriction.remaining(slots).unwrap();
            match restriction {
                Restriction::Remove(id, _) if id.get() >= FIRST_OWN => {
                    let own = &mut self.own[(id.get() - FIRST_OWN) as usize];
                    let left = remaining(&own.slots);
                    own.slots = left.slots;
                    own.enabled &= left.enabled;
                    own.leaves
                        .retain(|(leaf, _)| own.slots.held().contains(leaf));
                }
                Restriction::Disable(id) | Restriction::Remove(id, _) => {
                    let entry = &mut self.entries[id.get() as usize];
                    let left = remaining(&entry.slots);
                    entry.slots = left.slots;
                    entry.enabled &= left.enabled;
                }
                Restriction::Hold(group) => self.hold(group),
                Restriction::Device(..) => unreachable!("no device is excluded"),
            }
        }
    }

    /// Whether the service admits a leaf by this generation once it has no enrollment that is being
    /// removed: the first enrollment that holds a certificate of its chain decides. `deleted` CA
    /// certificates are found by no reference.
    pub(super) fn admits(
        &self,
        service: &str,
        generation: GenerationId,
        deleted: &[Thumbprint],
    ) -> bool {
        let mut next = Some(generation);
        while let Some(id) = next {
            let it = &self.hierarchy[id.get() as usize];
            let mut here = self.entries.iter().filter(|it| it.service == service);
            let holds = |entry: &&Entry| {
                let is_deleted = entry.by_reference && deleted.contains(&it.certificate);
                let gone = is_deleted || entry.unverified.contains(&it.certificate);
                !gone && !entry.is_leaving && entry.slots.held().contains(&it.certificate)
            };
            if let Some(entry) = here.find(holds) {
                return entry.enabled;
            }
            next = it.parent;
        }
        false
    }

    /// Returns the issuers of the leaves that an individual enrollment of some service admits.
    pub(super) fn admitted_on_their_own(
        &self,
    ) -> BTreeSet<(EnrollmentId, Thumbprint, GenerationId)> {
        let enabled = self.own.iter().filter(|it| it.enabled);
        let leaves = enabled.flat_map(|own| own.leaves.iter().map(|it| (own.id, it.0, it.1)));
        leaves.collect()
    }

    pub(super) fn below(&self, excluded: usize) -> Vec<GenerationId> {
        let mut below = vec![GenerationId::new(excluded as i64)];
        for it in &self.hierarchy {
            if it.parent.is_some_and(|parent| below.contains(&parent)) {
                below.push(it.id);
            }
        }
        below
    }

    /// No certificate is in two enrollments of a service once those that let go of it are settled.
    pub(super) fn is_held_once(&self) -> bool {
        let mut held = BTreeSet::new();
        let all = self.entries.iter().filter(|it| !it.is_leaving);
        let found = |entry: &Entry| {
            let mut found = entry.slots.held();
            found.retain(|it| !entry.unverified.contains(it));
            found
        };
        let mut all = all.flat_map(|entry| found(entry).into_iter().map(|it| (entry.service, it)));
        all.all(|it| held.insert(it))
    }
}

pub(super) fn known(entry: &Entry) -> Group<'_> {
    Group {
        id: entry.id,
        provisioning: entry.service,
        name: &entry.authority,
        authority: Some(&entry.authority),
        slots: &entry.slots,
        by_reference: entry.by_reference,
        unverified: &entry.unverified,
        is_blocking: entry.is_blocking,
        is_leaving: entry.is_leaving,
    }
}

pub(super) fn known_own(own: &Own) -> Individual<'_> {
    Individual {
        id: own.id,
        provisioning: own.service,
        overlay_of: None,
        leaves: &own.leaves,
    }
}
