//! Random hierarchies and groups against the planner of exclusions, judged as DPS judges a chain.

mod world;

use crate::enrollment::exclusion::{
    AccessPath, End, Enrollments, Generation, Group, Individual, Restriction, of_device, of_group,
    to_replace,
};
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{EnrollmentId, GenerationId, GenerationNumber};
use proptest::prelude::*;
use std::collections::BTreeSet;
use world::{SERVICES, world};

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
