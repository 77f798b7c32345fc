//! Random exclusions, leaves, groups and enrollments in any order. Verifies after each of them that
//! no enrollment that is to exist admits what is excluded.

use super::exclusion::Plant;
use super::*;
use crate::ids::{EnrollmentId, GenerationNumber};
use crate::x509::revocation::RevocationReason;
use proptest::prelude::*;

const SERVICES: [&str; 2] = ["dps", "dps-2"];
const DEVICES: [&str; 3] = ["press-7", "press-8", "press-9"];

#[derive(Clone, Debug)]
enum Event {
    /// Blocks the subject, or lifts its block.
    Block(usize),
    CompromiseDevice(usize),
    CompromiseLine,
    Issue(usize),
    Enroll(usize, usize),
    /// Adds a group of `line`, or of the root above it, at a service.
    AddGroup(bool, usize),
    /// Asks for the removal of an enrollment that is enabled; the service does not answer.
    Remove(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0usize..7).prop_map(Event::Block),
        3 => (0usize..3).prop_map(Event::CompromiseDevice),
        1 => Just(Event::CompromiseLine),
        5 => (0usize..3).prop_map(Event::Issue),
        3 => ((0usize..3), (0usize..2)).prop_map(|(it, at)| Event::Enroll(it, at)),
        3 => (any::<bool>(), 0usize..2).prop_map(|(line, at)| Event::AddGroup(line, at)),
        2 => (0usize..10).prop_map(Event::Remove),
    ]
}

fn subject(number: usize) -> Excluded {
    match number {
        0..3 => Excluded::Device(DEVICES[number].into()),
        3 => Excluded::Group("all".into()),
        4 => Excluded::Group("line".into()),
        5 => root_generation(),
        _ => Excluded::Generation("line".into(), GenerationNumber::FIRST),
    }
}

/// The store may refuse an event. The state after it counts, in either case.
impl Plant {
    fn apply(&self, event: &Event, serial: u8) {
        let fixture = &self.fixture;
        match event {
            Event::Block(number) => {
                let subject = subject(*number);
                let (kind, name, generation) = subject.key();
                match fixture.store.active_block(kind, name, generation).unwrap() {
                    Some(block) => fixture.lift(block.id),
                    None => drop(fixture.block(subject)),
                }
            }
            Event::CompromiseDevice(number) => {
                drop(self.compromise(Excluded::Device(DEVICES[*number].into())));
            }
            Event::CompromiseLine => {
                drop(self.compromise(Excluded::Generation("line".into(), GenerationNumber::FIRST)));
            }
            Event::Issue(number) => self.issue_below_line(DEVICES[*number], serial),
            Event::Enroll(number, at) => {
                drop(fixture.add_individual(SERVICES[*at], DEVICES[*number]));
            }
            Event::AddGroup(line, at) => self.add_late_group(*line, SERVICES[*at]),
            Event::Remove(number) => {
                let mut rows = fixture.store.enrollments(EnrollmentId::START, 100).unwrap();
                // The CA refuses a removal after which a group would accept a compromised leaf.
                let is_compromised = |it: &CertificateRow| {
                    it.revocation_reason.is_some_and(RevocationReason::is_final)
                };
                rows.retain(|it| {
                    let leaves = fixture.store.certificates_of(&it.name, 100).unwrap();
                    it.enabled && it.overlay_of.is_none() && !leaves.iter().any(is_compromised)
                });
                if let Some(row) = rows.get(number % rows.len().max(1)) {
                    let removed = fixture
                        .store
                        .remove_enrollment(row, entry("enrollment.removed"));
                    removed.unwrap();
                }
            }
        }
    }

    fn compromise(&self, subject: Excluded) -> Result<RecordedExclusion, StoreError> {
        let cause = Cause::Compromise {
            slots: SlotName::BOTH.into(),
            detail: json!({}),
        };
        let exclusion = Exclusion {
            cause,
            ..block_of(subject)
        };
        self.fixture.store.exclude(exclusion, entry("roll.started"))
    }

    fn issue_below_line(&self, device: &str, serial: u8) {
        let intent = Intent {
            issuer: self.line_generation,
            ..self.fixture.intent(device, serial)
        };
        let Ok(recorded) = block_on(self.fixture.store.record_intent(intent)) else {
            return;
        };
        let on_issued = OnIssued::Device {
            registration_id: device.into(),
            profile: "device".into(),
        };
        self.fixture.settle(&recorded, on_issued).unwrap();
    }

    /// At most one group of a service holds a certificate.
    fn add_late_group(&self, line: bool, service: &str) {
        let certificate = if line { self.line } else { self.root };
        let rows = self.fixture.store.groups().unwrap();
        let mut here = rows.iter().filter(|it| it.provisioning == service);
        if here.any(|it| it.slots.held().contains(&certificate)) {
            return;
        }
        let new = NewEnrollment {
            provisioning: service.into(),
            kind: EnrollmentKind::Group,
            name: format!("late-{line}"),
            authority: Some(if line { "line" } else { "root" }.into()),
            by_reference: false,
            slots: Slots::Empty.serve(certificate).unwrap(),
        };
        drop(
            self.fixture
                .store
                .add_enrollment(new, entry("enrollment.added")),
        );
    }

    /// Returns whether a service admits the device by this leaf, as DPS judges it.
    fn admits_leaf(&self, rows: &[EnrollmentRow], device: &str, leaf: Thumbprint) -> bool {
        let own = rows
            .iter()
            .find(|it| it.kind == EnrollmentKind::Individual && it.name == device);
        if let Some(own) = own {
            return own.enabled && own.slots.held().contains(&leaf);
        }
        let groups = || rows.iter().filter(|it| it.kind == EnrollmentKind::Group);
        let holding = |it: Thumbprint| groups().find(|row| row.slots.held().contains(&it));
        let found = [self.line, self.root].into_iter().find_map(holding);
        found.is_some_and(|it| it.enabled)
    }

    /// Returns why no service may admit the device by this leaf.
    fn excluded(&self, rows: &[EnrollmentRow], device: &str, leaf: &CertificateRow) -> Vec<String> {
        let store = &self.fixture.store;
        let mut reasons = Vec::new();
        let final_reason = |it: RevocationReason| it.is_final();
        if leaf.revocation_reason.is_some_and(final_reason) {
            reasons.push("revoked".to_owned());
        }
        for authority in ["root", "line"] {
            let own = store.certificates_of(authority, 1).unwrap().remove(0);
            if own.revoked_at.is_some() {
                reasons.push(format!("below {authority}"));
            }
        }
        for block in store.blocks(true, None, 100).unwrap() {
            let on_its_own = |row: &EnrollmentRow| row.name == device && row.overlay_of.is_none();
            let is_here =
                |row: &EnrollmentRow| row.kind == EnrollmentKind::Group && row.name == block.name;
            let is_excluded = match block.kind {
                BlockKind::Device => block.name == device,
                BlockKind::Group => !rows.iter().any(on_its_own) && rows.iter().any(is_here),
                BlockKind::Generation => false,
            };
            if is_excluded {
                reasons.push(format!("block of {}", block.name));
            }
        }
        reasons
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_excluded_is_admitted_in_any_order(
        events in prop::collection::vec(event(), 1..24),
    ) {
        let plant = Plant::new();
        for (number, event) in events.iter().enumerate() {
            plant.apply(event, 100 + number as u8);
            let mut rows = plant.fixture.store.enrollments(EnrollmentId::START, 100).unwrap();
            rows.retain(|it| !it.leaving);
            for service in SERVICES {
                let here: Vec<EnrollmentRow> = rows
                    .iter()
                    .filter(|it| it.provisioning == service)
                    .cloned()
                    .collect();
                for device in DEVICES {
                    for leaf in plant.fixture.store.certificates_of(device, 100).unwrap() {
                        let thumbprint = Thumbprint::from_bytes(leaf.sha256);
                        let reasons = plant.excluded(&here, device, &leaf);
                        let admitted = plant.admits_leaf(&here, device, thumbprint);
                        prop_assert!(
                            reasons.is_empty() || !admitted,
                            "{device} at {service} after {event:?}: {reasons:?}, {here:#?}"
                        );
                    }
                }
            }
        }
    }
}

/// A leaf that was excluded is replaced at once: it does not stay in a slot until it expires.
#[test]
fn a_new_leaf_takes_the_place_of_an_excluded_one() {
    for compromised in [false, true] {
        let plant = Plant::new();
        let old = plant
            .fixture
            .store
            .device("press-7")
            .unwrap()
            .unwrap()
            .certificate;
        let revocation = Revocation {
            target: RevocationTarget::Sha256(*old.as_bytes()),
            at: unix(1_000),
            actor: "test".into(),
            cause: "a test".into(),
        };
        if compromised {
            let reason = RevocationReason::KeyCompromise;
            plant.fixture.store.revoke(revocation, reason).unwrap();
        }
        plant.issue_below_line("press-7", 9);
        let row = plant
            .fixture
            .store
            .enrollments_named("press-7")
            .unwrap()
            .remove(0);
        assert!(row.enabled);
        assert_eq!(row.slots.held().contains(&old), !compromised);
        assert_eq!(
            plant.fixture.store.rolls(true, None, 9).unwrap().len(),
            usize::from(!compromised)
        );
    }
}

/// A device renews itself when its old leaf is blocked with its generation. Verifies: the leaf in
/// the other slot goes on, and the block gives the old one back while the roll is open.
#[test]
fn a_block_takes_one_leaf_of_a_renewal_and_gives_it_back() {
    let plant = Plant::new();
    let slots = || {
        plant
            .fixture
            .store
            .enrollments_named("press-7")
            .unwrap()
            .remove(0)
            .slots
    };
    let intent = plant.fixture.intent("press-7", 9);
    let recorded = block_on(plant.fixture.store.record_intent(intent)).unwrap();
    let on_issued = OnIssued::Device {
        registration_id: "press-7".into(),
        profile: "device".into(),
    };
    plant.fixture.settle(&recorded, on_issued).unwrap();
    let both = slots();
    assert_eq!(both.held().len(), 2);
    let block = plant
        .fixture
        .block(Excluded::Generation("line".into(), GenerationNumber::FIRST))
        .unwrap();
    assert_eq!(slots().held().len(), 1);
    assert!(plant.fixture.store.enrollments_named("press-7").unwrap()[0].enabled);
    plant.fixture.lift(block.id);
    assert_eq!(slots(), both);
}

#[test]
fn no_enrollment_is_added_below_a_blocked_generation() {
    let plant = Plant::new();
    let add = || plant.fixture.add_individual("dps", "press-8");
    let block = plant
        .fixture
        .block(Excluded::Generation("line".into(), GenerationNumber::FIRST))
        .unwrap();
    let refused = add().unwrap_err();
    assert!(
        matches!(&refused, StoreError::Blocking { code, .. } if code.name() == "issuer_revoked"),
        "{refused}"
    );
    plant.fixture.lift(block.id);
    add().unwrap();
}

/// The service has left the configuration and may come back.
#[test]
fn an_exclusion_reaches_services_that_are_not_configured() {
    for compromised in [false, true] {
        let plant = Plant::new();
        let elsewhere = plant.fixture.add_individual("gone", "press-8").unwrap().id;
        let subject = Excluded::Device("press-8".into());
        if compromised {
            let rolls = plant.compromise(subject).unwrap().rolls;
            assert_eq!(rolls.len(), 1, "none where it could not end");
        } else {
            plant.fixture.block(subject).unwrap();
        }
        assert!(!plant.fixture.store.enrollment(elsewhere).unwrap().enabled);
    }
}

/// A leaf is being signed when the generation above its issuer is blocked. Verifies: the leaf is
/// not recorded, and no other one is begun.
#[test]
fn a_block_abandons_open_intents_below_its_generation() {
    let plant = Plant::new();
    plant.fixture.enroll("press-9");
    let intent = |serial| Intent {
        issuer: plant.line_generation,
        ..plant.fixture.intent("press-9", serial)
    };
    let under_way = block_on(plant.fixture.store.record_intent(intent(8))).unwrap();
    plant.fixture.block(root_generation()).unwrap();
    let on_issued = OnIssued::Device {
        registration_id: "press-9".into(),
        profile: "device".into(),
    };
    assert!(plant.fixture.settle(&under_way, on_issued).is_err());
    let refused = block_on(plant.fixture.store.record_intent(intent(9))).unwrap_err();
    assert!(matches!(refused, IntentError::IssuerRevoked), "{refused}");
}
