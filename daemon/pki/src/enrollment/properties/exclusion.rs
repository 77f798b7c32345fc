//! Random hierarchies and groups against the planner of exclusions, judged as DPS judges a chain.

use crate::enrollment::exclusion::{
    AccessPath, BlockingGroup, End, Enrollments, Generation, Group, Individual, Restriction,
    of_device, of_generation, of_group, of_new_group, to_replace,
};
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, GenerationId, GenerationNumber};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SERVICES: [&str; 2] = ["dps-1", "dps-2"];

/// A group at a service, as it is desired.
#[derive(Clone, Debug)]
struct Entry {
    id: EnrollmentId,
    service: &'static str,
    authority: String,
    slots: Slots,
    enabled: bool,
    by_reference: bool,
    unverified: Vec<Thumbprint>,
    is_blocking: bool,
    is_leaving: bool,
}

/// An individual enrollment at a service, as it is desired.
#[derive(Clone, Debug)]
struct Own {
    id: EnrollmentId,
    service: &'static str,
    leaves: Vec<(Thumbprint, GenerationId)>,
    slots: Slots,
    enabled: bool,
}

/// The row id of the first individual enrollment: those of groups are lower.
const FIRST_OWN: i64 = 1_000;

/// Authorities, each with a parent and one or two generations; the last generation serves.
#[derive(Clone, Debug)]
struct World {
    hierarchy: Vec<Generation>,
    entries: Vec<Entry>,
    own: Vec<Own>,
}

/// For each authority: its parent (modulo those before it, or none), the parent's generation for
/// each of its own, and for each service whether a group holds its certificates, which, whether it
/// is being removed, and whether by reference to CA certificates that are verified there or not.
type Draft = (usize, Vec<usize>, [(u8, u8); 2]);

fn draft() -> impl Strategy<Value = Draft> {
    let entry = || (0u8..5, 0u8..3);
    let generations = prop::collection::vec(0usize..2, 1..3);
    (0usize..4, generations, [entry(), entry()])
}

fn world() -> impl Strategy<Value = World> {
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
    fn add(&mut self, index: usize, (parent, generations, groups): &Draft) {
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
    fn enroll(&mut self, old: usize, new: usize, both: bool) {
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

    fn plan(&self, excluded: usize, end: End) -> Vec<Restriction> {
        let groups: Vec<Group<'_>> = self.entries.iter().map(known).collect();
        let individuals: Vec<Individual<'_>> = self.own.iter().map(known_own).collect();
        let known = Enrollments {
            groups: &groups,
            individuals: &individuals,
        };
        of_generation(&self.hierarchy[excluded], &self.hierarchy, end, known)
    }

    /// Groups are named like their authorities here.
    fn plan_of_group(&self, name: &str) -> Vec<Restriction> {
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
    fn add_later(&mut self, pick: usize, excluded: &BTreeSet<GenerationId>) {
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

    fn hold(&mut self, group: &BlockingGroup) {
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

    fn apply(&mut self, plan: &[Restriction]) {
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
    fn admits(&self, service: &str, generation: GenerationId, deleted: &[Thumbprint]) -> bool {
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
    fn admitted_on_their_own(&self) -> BTreeSet<(EnrollmentId, Thumbprint, GenerationId)> {
        let enabled = self.own.iter().filter(|it| it.enabled);
        let leaves = enabled.flat_map(|own| own.leaves.iter().map(|it| (own.id, it.0, it.1)));
        leaves.collect()
    }

    fn below(&self, excluded: usize) -> Vec<GenerationId> {
        let mut below = vec![GenerationId::new(excluded as i64)];
        for it in &self.hierarchy {
            if it.parent.is_some_and(|parent| below.contains(&parent)) {
                below.push(it.id);
            }
        }
        below
    }

    /// No certificate is in two enrollments of a service once those that let go of it are settled.
    fn is_held_once(&self) -> bool {
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

fn known(entry: &Entry) -> Group<'_> {
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

fn known_own(own: &Own) -> Individual<'_> {
    Individual {
        id: own.id,
        provisioning: own.service,
        overlay_of: None,
        leaves: &own.leaves,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    /// One block after another, with groups that are added between them: what one excludes, the
    /// next one does not readmit.
    #[test]
    fn a_block_excludes_every_generation_below(
        world in world(), excluded in prop::collection::vec((0usize..10, 0usize..10), 1..4),
    ) {
        let mut world = world;
        let mut blocked = Vec::new();
        let mut revoked = BTreeSet::new();
        for (pick, late) in excluded {
            let excluded = pick % world.hierarchy.len();
            let before = world.clone();
            let plan = world.plan(excluded, End::Revert);
            world.apply(&plan);
            blocked.extend(world.below(excluded));
            for service in SERVICES {
                for it in &blocked {
                    prop_assert!(!world.admits(service, *it, &[]), "{}: {:?}", it, plan);
                }
                for it in (0..world.hierarchy.len() as i64).map(GenerationId::new) {
                    let newly = world.admits(service, it, &[]) && !before.admits(service, it, &[]);
                    prop_assert!(!newly, "{} was admitted by {:?}", it, plan);
                }
            }
            let own = world.admitted_on_their_own();
            for it in &own {
                prop_assert!(!blocked.contains(&it.2), "{:?}: {:?}", it, plan);
            }
            for it in before.admitted_on_their_own() {
                prop_assert!(blocked.contains(&it.2) || own.contains(&it), "{:?} is lost", it);
            }
            revoked.insert(GenerationId::new(excluded as i64));
            world.add_later(late, &revoked);
            for service in SERVICES {
                for it in &blocked {
                    prop_assert!(!world.admits(service, *it, &[]), "{}: {:?}", it, world);
                }
            }
            prop_assert!(world.is_held_once(), "{:?}", world.entries);
        }
    }

    /// Also where a service lacks the CA certificates of a group by reference, and where a group
    /// does not hold every generation.
    #[test]
    fn a_block_of_a_group_excludes_every_generation_of_its_authority(
        world in world(), pick in 0usize..10,
    ) {
        let mut world = world;
        if world.entries.is_empty() {
            return Ok(());
        }
        let named = world.entries[pick % world.entries.len()].clone();
        let before = world.clone();
        let plan = world.plan_of_group(&named.authority);
        world.apply(&plan);
        for entry in world.entries.iter_mut().filter(|it| it.authority == named.authority) {
            entry.is_leaving = false;
        }
        let own = before.hierarchy.iter().filter(|it| it.authority == named.authority);
        let excluded = own.flat_map(|it| before.below(it.id.get() as usize));
        for it in excluded.collect::<BTreeSet<_>>() {
            prop_assert!(!world.admits(named.service, it, &[]), "{}: {:?}", it, plan);
        }
        for service in SERVICES {
            for it in (0..world.hierarchy.len() as i64).map(GenerationId::new) {
                let newly = world.admits(service, it, &[]) && !before.admits(service, it, &[]);
                prop_assert!(!newly, "{} was admitted by {:?}", it, plan);
            }
        }
        prop_assert!(world.is_held_once(), "{:?}", world.entries);
    }

    #[test]
    fn a_compromise_excludes_every_generation_that_gets_a_successor(
        world in world(), excluded in 0usize..10,
    ) {
        let mut world = world;
        let excluded = excluded % world.hierarchy.len();
        let before = world.clone();
        let plan = world.plan(excluded, End::Successor);
        world.apply(&plan);
        let replaced = to_replace(&before.hierarchy[excluded], &before.hierarchy);
        let below = before.below(excluded).into_iter();
        let deleted = below.map(|it| before.hierarchy[it.get() as usize].certificate);
        let deleted: Vec<Thumbprint> = deleted.collect();
        for service in SERVICES {
            for it in before.below(excluded) {
                prop_assert!(!world.admits(service, it, &deleted), "{}: {:?}", it, plan);
            }
        }
        let below = before.below(excluded);
        for it in world.admitted_on_their_own() {
            prop_assert!(!below.contains(&it.2), "{:?}: {:?}", it, plan);
        }
        for it in &replaced[1..] {
            let issuer = replaced.iter().position(|other| Some(other.id) == it.parent);
            let own = replaced.iter().position(|other| other.id == it.id);
            prop_assert!(issuer < own, "an issuer comes first: {:?}", replaced);
        }
        // A generation outside of the subtree is admitted as before.
        for service in SERVICES {
            for it in before.hierarchy.iter().filter(|it| !below.contains(&it.id)) {
                let was = before.admits(service, it.id, &[]);
                prop_assert_eq!(world.admits(service, it.id, &[]), was, "{}: {:?}", it.id, plan);
            }
        }
    }

    #[test]
    fn every_access_path_of_a_device_is_restricted(
        services in prop::collection::vec((any::<bool>(), any::<bool>()), 0..5),
        one in any::<bool>(),
    ) {
        let path = |(at, (individual, group)): (usize, &(bool, bool))| AccessPath {
            provisioning: format!("dps-{at}"),
            device: "press-7".into(),
            individual: individual.then_some(EnrollmentId::new(at as i64)),
            group: group.then(|| "line".into()),
        };
        let paths: Vec<AccessPath> = services.iter().enumerate().map(path).collect();
        let slots = if one { vec![SlotName::Secondary] } else { SlotName::BOTH.to_vec() };
        let plan = of_device(paths.clone(), &slots);
        prop_assert_eq!(plan.len(), paths.len());
        let (old, new) = (Thumbprint::of(b"old"), Thumbprint::of(b"new"));
        let both = Slots::Draining { slot: SlotName::Primary, serving: new, retiring: old };
        for (restriction, path) in plan.iter().zip(&paths) {
            prop_assert_eq!(restriction, &Restriction::Device(path.clone(), slots.clone()));
            let left = restriction.remaining(&both).unwrap();
            prop_assert_eq!(left.enabled, one);
            prop_assert_eq!(left.slots.held().contains(&old), !one);
        }
    }
}

#[test]
fn a_group_is_excluded_at_every_service_in_whatever_case_it_is_written() {
    let slots = Slots::Empty.serve(Thumbprint::of(b"line")).unwrap();
    let group = |id, provisioning, name| Group {
        id: EnrollmentId::new(id),
        provisioning,
        name,
        authority: Some("line"),
        slots: &slots,
        by_reference: false,
        unverified: &[],
        is_blocking: false,
        is_leaving: false,
    };
    let groups = [
        group(1, "dps-1", "line"),
        group(2, "dps-2", "LINE"),
        group(3, "dps-1", "line-2"),
    ];
    let known = Enrollments {
        groups: &groups,
        individuals: &[],
    };
    let plan = [1, 2].map(|id| Restriction::Disable(EnrollmentId::new(id)));
    assert_eq!(of_group("Line", &[], &BTreeSet::new(), known), plan);
}

/// A device was compromised once and registers by an enrollment beside its group. One with an
/// enrollment on its own is not a device of the group.
#[test]
fn a_group_is_excluded_with_the_enrollments_beside_it() {
    let slots = Slots::Empty.serve(Thumbprint::of(b"line")).unwrap();
    let generation = |id, authority: &str, parent: Option<i64>| Generation {
        id: GenerationId::new(id),
        authority: authority.into(),
        number: GenerationNumber::FIRST,
        parent: parent.map(GenerationId::new),
        is_root: parent.is_none(),
        serves: true,
        certificate: Thumbprint::of(authority.as_bytes()),
    };
    let hierarchy = [generation(1, "root", None), generation(2, "line", Some(1))];
    let group = Group {
        id: EnrollmentId::new(1),
        provisioning: "dps-1",
        name: "all",
        authority: Some("root"),
        slots: &slots,
        by_reference: false,
        unverified: &[],
        is_blocking: false,
        is_leaving: false,
    };
    let leaves = [(Thumbprint::of(b"leaf"), GenerationId::new(2))];
    let individual = |id, provisioning, overlay_of| Individual {
        id: EnrollmentId::new(id),
        provisioning,
        overlay_of,
        leaves: &leaves,
    };
    let individuals = [
        individual(7, "dps-1", Some("ALL")),
        individual(8, "dps-1", Some("a group that the device has left")),
        individual(9, "dps-1", None),
        individual(10, "dps-2", Some("all")),
    ];
    let known = Enrollments {
        groups: &[group],
        individuals: &individuals,
    };
    let plan = [1, 7, 8].map(|id| Restriction::Disable(EnrollmentId::new(id)));
    assert_eq!(of_group("all", &hierarchy, &BTreeSet::new(), known), plan);
}
