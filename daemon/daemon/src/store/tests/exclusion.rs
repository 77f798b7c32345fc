//! Random blocks, one over another, lifted in any order.

use super::*;
use crate::ids::{BlockId, EnrollmentId, GenerationId, GenerationNumber};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn subjects() -> [Excluded; 6] {
    [
        Excluded::Device("press-7".into()),
        Excluded::Device("press-8".into()),
        Excluded::Group("all".into()),
        Excluded::Group("line".into()),
        root_generation(),
        Excluded::Generation("line".into(), GenerationNumber::FIRST),
    ]
}

/// Two devices below the authority `line`, the first with an individual enrollment; `line` and the
/// root above it have a group each, and that of `line` holds another certificate, too.
pub(super) struct Plant {
    pub(super) fixture: Fixture,
    pub(super) root: Thumbprint,
    pub(super) line: Thumbprint,
    pub(super) line_generation: GenerationId,
    /// The slots and the status of each enrollment before any block.
    original: BTreeMap<String, (Slots, bool)>,
}

impl Plant {
    pub(super) fn new() -> Self {
        let fixture = Fixture::new();
        let plan = PlannedGeneration {
            authority: "line".into(),
            parent: Some(fixture.root),
            token: "factory".into(),
            key_type: KeyType::P256,
            key_id: vec![8; 16],
        };
        let line = fixture.store.plan_generation(plan).unwrap().id;
        let line_generation = line;
        fixture
            .store
            .record_key(line, vec![4, 5, 6].into(), None)
            .unwrap();
        let intent = Intent {
            purpose: Purpose::Authority,
            role: None,
            ..fixture.intent("line", 2)
        };
        let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
        let on_issued = OnIssued::Authority { generation: line };
        fixture.settle(&recorded, on_issued).unwrap();
        for (id, serial) in [("press-7", 3), ("press-8", 4)] {
            let intent = Intent {
                issuer: line,
                ..fixture.intent(id, serial)
            };
            let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
            let on_issued = OnIssued::Device {
                registration_id: id.into(),
                profile: "device".into(),
            };
            fixture.settle(&recorded, on_issued).unwrap();
        }
        let certificate = |name| {
            let newest = fixture.store.certificates_of(name, 1).unwrap().remove(0);
            Thumbprint::from_bytes(newest.sha256)
        };
        let root = certificate("root");
        let line = certificate("line");
        let serving = Slots::Empty.serve(root).unwrap();
        fixture.add_group("all", "root", serving).unwrap();
        let draining = Slots::Draining {
            slot: SlotName::Primary,
            serving: Thumbprint::of(b"the next of line"),
            retiring: line,
        };
        fixture.add_group("line", "line", draining).unwrap();
        fixture.enroll("press-7");
        let mut plant = Self {
            fixture,
            root,
            line,
            line_generation,
            original: BTreeMap::new(),
        };
        plant.original = plant.desired();
        plant
    }

    /// Slots and status of every enrollment that is to exist.
    fn desired(&self) -> BTreeMap<String, (Slots, bool)> {
        let rows = self
            .fixture
            .store
            .enrollments(EnrollmentId::START, 100)
            .unwrap()
            .into_iter();
        let rows = rows.filter(|row| !row.leaving);
        rows.map(|row| (row.name, (row.slots, row.enabled)))
            .collect()
    }

    /// Whether the first enrollment that holds one of these certificates is enabled.
    fn admits(&self, chain: &[Thumbprint]) -> bool {
        let desired = self.desired();
        for it in chain {
            let mut holding = desired
                .values()
                .filter(|(slots, _)| slots.held().contains(it));
            if let Some((_, enabled)) = holding.next() {
                return *enabled;
            }
        }
        false
    }

    fn admits_any(&self, excluded: &Excluded) -> bool {
        match excluded {
            Excluded::Device(id) => match self.desired().get(id) {
                Some((_, enabled)) => *enabled,
                None => self.admits(&[self.line, self.root]),
            },
            Excluded::Group(id) => self.desired()[id].1,
            Excluded::Generation(name, _) if name == "line" => self.admits(&[self.line, self.root]),
            Excluded::Generation(..) => {
                self.admits(&[self.root]) || self.admits(&[self.line, self.root])
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn lifting_a_block_readmits_nothing_that_another_one_excludes(
        events in prop::collection::vec(0usize..6, 1..16),
    ) {
        let plant = Plant::new();
        let mut active: BTreeMap<usize, BlockId> = BTreeMap::new();
        for event in events {
            match active.remove(&event) {
                Some(block) => plant.fixture.lift(block),
                None => {
                    let subject = subjects()[event].clone();
                    active.insert(event, plant.fixture.block(subject).unwrap().id);
                }
            }
            for excluded in active.keys() {
                let excluded = &subjects()[*excluded];
                prop_assert!(!plant.admits_any(excluded), "{:?} {:?}", excluded, plant.desired());
            }
        }
        for block in active.into_values() {
            plant.fixture.lift(block);
        }
        prop_assert_eq!(plant.desired(), plant.original);
    }
}

/// A blocking group is a group to an operator, who may block it and lift that block again. It stays
/// disabled throughout: enabled, it would admit what it excludes.
#[test]
fn a_blocking_group_is_never_enabled() {
    let plant = Plant::new();
    let line = Excluded::Generation("line".into(), GenerationNumber::FIRST);
    plant.fixture.block(line.clone()).unwrap();
    let added = plant
        .desired()
        .into_keys()
        .find(|name| !plant.original.contains_key(name))
        .expect("a blocking group");
    let block = plant.fixture.block(Excluded::Group(added.clone())).unwrap();
    plant.fixture.lift(block.id);
    assert!(!plant.desired()[&added].1);
    assert!(!plant.admits_any(&line));
}
