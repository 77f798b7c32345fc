//! Tests that an excluded device stays excluded, whatever else is lifted, added or retired.

use super::*;
use crate::enrollment::role::Role;
use crate::ids::{BlockId, EnrollmentId, RollId};
use crate::x509::revocation::RevocationReason::KeyCompromise;

fn certificate(name: &str) -> Thumbprint {
    Thumbprint::of(name.as_bytes())
}

fn device(id: &str) -> Excluded {
    Excluded::Device(id.into())
}

fn compromise_of(id: &str, slots: &[SlotName]) -> Exclusion {
    let cause = Cause::Compromise {
        slots: slots.into(),
        detail: json!({}),
    };
    Exclusion {
        placeholder: None,
        cause,
        ..block_of(device(id))
    }
}

impl Fixture {
    fn line(&self, slots: Slots) -> EnrollmentId {
        let added = self.add_group("line", "root", slots);
        added.unwrap().id
    }

    fn started(&self, subject: Excluded) -> BlockId {
        self.block(subject).unwrap().id
    }

    fn set_slots(&self, enrollment: EnrollmentId, slots: &Slots) {
        let slots = serde_json::to_string(slots).unwrap();
        let changed = self.raw().execute(
            "UPDATE enrollment SET slots = ?2 WHERE id = ?1",
            rusqlite::params![enrollment.get(), slots],
        );
        assert_eq!(changed.unwrap(), 1);
    }
}

#[test]
fn a_group_that_two_blocks_shut_opens_with_the_last_of_them() {
    for first_lifted in [0, 1] {
        let fixture = Fixture::new();
        let group = fixture.line(Slots::Empty.serve(fixture.root_certificate()).unwrap());
        let blocks = [
            fixture.started(Excluded::Group("line".into())),
            fixture.started(root_generation()),
        ];
        fixture.lift(blocks[first_lifted]);
        assert!(!fixture.store.enrollment(group).unwrap().enabled);
        fixture.lift(blocks[1 - first_lifted]);
        assert!(fixture.store.enrollment(group).unwrap().enabled);
    }
}

/// The removal was decided before the block, and would admit the device.
#[test]
fn an_enrollment_that_was_disabled_concurrently_is_not_removed() {
    let fixture = Fixture::new();
    let added = fixture.enroll("press-7");
    fixture.issue("press-7", 2);
    let judged = fixture
        .store
        .enrollments_named(&added.name)
        .unwrap()
        .remove(0);
    fixture.started(device("press-7"));
    let removed = fixture
        .store
        .remove_enrollment(&judged, entry("enrollment.removed"));
    assert!(
        matches!(removed, Err(StoreError::Conflict(_))),
        "{removed:?}"
    );
    let now = fixture
        .store
        .enrollments_named("press-7")
        .unwrap()
        .remove(0);
    assert!(!now.enabled && !now.leaving);
}

/// An enrollment was being removed when its device was blocked. Verifies: it keeps the device out,
/// and goes when the block is lifted.
#[test]
fn an_enrollment_on_its_way_out_goes_when_the_block_is_lifted() {
    let fixture = Fixture::new();
    fixture.issue("press-7", 2);
    fixture.enroll("press-7");
    let now = || {
        fixture
            .store
            .enrollments_named("press-7")
            .unwrap()
            .remove(0)
    };
    let removal = fixture
        .store
        .remove_enrollment(&now(), entry("enrollment.removed"));
    removal.unwrap();
    let standing = fixture.started(device("press-7"));
    assert!(!now().enabled && !now().leaving);
    fixture.lift(standing);
    assert!(now().leaving);
}

#[test]
fn a_blocked_device_and_a_revoked_leaf_get_no_new_enrollment() {
    let fixture = Fixture::new();
    let add = |id: &str| fixture.add_individual("dps", id);
    fixture.issue("press-7", 2);
    let standing = fixture.started(device("press-7"));
    let refused = add("Press-7").unwrap_err().to_string();
    assert!(refused.contains("is blocked"), "{refused}");
    fixture.lift(standing);

    let revocation = Revocation {
        target: RevocationTarget::Leaves {
            subject: "press-7".into(),
        },
        at: unix(1_000),
        actor: "test".into(),
        cause: "a test".into(),
    };
    fixture.store.revoke(revocation, KeyCompromise).unwrap();
    let refused = add("press-7").unwrap_err().to_string();
    assert!(refused.contains("is revoked"), "{refused}");
    fixture.issue("press-7", 3);
    add("press-7").unwrap();
}

/// A device without any enrollment is blocked, too.
#[test]
fn a_block_abandons_open_intents_of_its_device() {
    let fixture = Fixture::new();
    fixture.issue("press-7", 2);
    let under_way = block_on(fixture.store.record_intent(fixture.intent("press-7", 3))).unwrap();
    fixture.started(device("press-7"));
    let on_issued = OnIssued::Device {
        registration_id: "press-7".into(),
        profile: "device".into(),
    };
    assert!(fixture.settle(&under_way, on_issued).is_err());
}

/// Its issuer is blocked or compromised while a certificate is being signed. Verifies: it is not
/// recorded, whatever it is for.
#[test]
fn an_exclusion_of_the_issuer_abandons_every_open_intent() {
    for blocked in [true, false] {
        let fixture = Fixture::new();
        let others = [
            (Purpose::Leaf, Some(Role::Device)),
            (Purpose::Leaf, Some(Role::Station)),
            (Purpose::Leaf, Some(Role::Operator)),
            (Purpose::Leaf, Some(Role::Auditor)),
            (Purpose::Leaf, Some(Role::Server)),
            (Purpose::Leaf, None),
            (Purpose::Subordinate, None),
            (Purpose::Authority, None),
            (Purpose::Possession, None),
        ];
        let being_signed = (2..).zip(others).map(|(serial, (purpose, role))| {
            let intent = Intent {
                purpose,
                role,
                is_device: role == Some(Role::Device),
                ..fixture.intent(&format!("holder-{serial}"), serial)
            };
            block_on(fixture.store.record_intent(intent)).unwrap()
        });
        let being_signed: Vec<_> = being_signed.collect();
        if blocked {
            fixture.started(root_generation());
        } else {
            fixture.compromise_root().unwrap();
        }
        for (recorded, other) in being_signed.iter().zip(others) {
            let released = fixture.settle(recorded, OnIssued::Alone);
            assert!(released.is_err(), "{other:?}");
        }
        assert!(fixture.store.open_intents().unwrap().is_empty());
    }
}

/// One slot was compromised; the good leaf beside it gets a successor, and may go when it has ended
/// itself, not when the compromised one has.
#[test]
fn after_a_compromise_of_one_slot_the_good_leaf_is_not_retired_with_the_compromised_one() {
    let fixture = Fixture::new();
    let leaf = |not_after, serial| {
        let intent = Intent {
            not_after,
            ..fixture.intent("press-7", serial)
        };
        let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
        let on_issued = OnIssued::Device {
            registration_id: "press-7".into(),
            profile: "device".into(),
        };
        fixture.settle(&recorded, on_issued).unwrap();
        fixture
            .store
            .device("press-7")
            .unwrap()
            .unwrap()
            .certificate
    };
    let old = leaf(unix(2_000), 2);
    let enrollment = fixture.enroll("press-7");
    let good = leaf(unix(9_000), 3);
    let draining = Slots::Draining {
        slot: SlotName::Secondary,
        serving: good,
        retiring: old,
    };
    fixture.set_slots(enrollment.id, &draining);
    let compromise = compromise_of("press-7", &[SlotName::Primary]);
    let recorded = fixture.store.exclude(compromise, entry("roll.started"));
    let rolls = recorded.unwrap().rolls;
    let next = leaf(unix(9_500), 4);
    let step = RollStep {
        roll: rolls[0].id,
        enrollment: enrollment.id,
        from_state: rolls[0].state,
        from: fixture.store.enrollment(enrollment.id).unwrap().slots,
        to: Slots::Draining {
            slot: SlotName::Primary,
            serving: next,
            retiring: good,
        },
        state: RollState::Draining,
        hub: Vec::new(),
    };
    assert!(
        fixture
            .store
            .advance_roll(step, entry("roll.cut_over"))
            .unwrap()
    );
    assert_eq!(
        fixture.store.roll(rolls[0].id).unwrap().old_not_after,
        unix(9_000)
    );
    assert_eq!(fixture.store.next_retirement().unwrap(), Some(unix(9_000)));
}

/// A generation that was compromised before it signed is not what the next roll of its authority
/// takes.
#[test]
fn a_staged_generation_that_is_revoked_is_never_the_next_one() {
    let fixture = Fixture::new();
    const ROLL: RollId = RollId::new(1);
    let staged = fixture.stage_root(ROLL);
    let again = fixture
        .store
        .plan_rolled_generation(ROLL, Fixture::plan(9), unix(1_000))
        .unwrap();
    assert_eq!(again.id, staged.id, "it is taken over while it is good");

    let revocation = Revocation {
        target: RevocationTarget::Generation {
            generation: staged.id,
        },
        at: unix(1_000),
        actor: "test".into(),
        cause: "a test".into(),
    };
    fixture.store.revoke(revocation, KeyCompromise).unwrap();
    let next = fixture
        .store
        .plan_rolled_generation(ROLL, Fixture::plan(9), unix(1_000))
        .unwrap();
    assert_ne!(next.id, staged.id);
    assert_eq!(next.number, staged.number.next());
}

/// A mark that comes after another is not due before that one is settled, however long that takes.
#[test]
fn a_mark_that_waits_for_another_wakes_no_reconciler() {
    let fixture = Fixture::new();
    fixture.line(Slots::Draining {
        slot: SlotName::Primary,
        serving: certificate("next"),
        retiring: fixture.root_certificate(),
    });
    fixture.started(root_generation());
    let due = fixture
        .store
        .due_marks("dps", unix(1_000), 10, true)
        .unwrap();
    assert_eq!(due.len(), 1);
    fixture
        .store
        .postpone_mark(&due[0], unix(5_000), "throttled".into())
        .unwrap();
    assert_eq!(fixture.store.next_due("dps").unwrap(), Some(unix(5_000)));
}

/// An enrollment that was added just before a compromise or a block is disabled with the others,
/// although the plan began before it was there.
#[test]
fn an_enrollment_added_a_moment_ago_is_disabled_with_the_others() {
    for blocked in [false, true] {
        let fixture = Fixture::new();
        fixture.issue("press-7", 2);
        let late = fixture.enroll("press-7");
        assert!(late.enabled && !late.slots.held().is_empty());
        if blocked {
            fixture.started(device("press-7"));
        } else {
            let compromise = compromise_of("press-7", &SlotName::BOTH);
            let recorded = fixture.store.exclude(compromise, entry("roll.started"));
            assert_eq!(recorded.unwrap().rolls.len(), 1);
        }
        assert!(!fixture.store.enrollment(late.id).unwrap().enabled);
    }
}

/// An exclusion reads the groups in its own transaction: a group that was added a moment before is
/// disabled with the others; one that is added later is refused.
#[test]
fn no_group_slips_in_beside_the_block_of_its_generation() {
    let fixture = Fixture::new();
    let slots = Slots::Empty.serve(fixture.root_certificate()).unwrap();
    let group = |name: &str| fixture.add_group(name, "root", slots.clone());
    let early = group("early").unwrap();
    fixture.started(root_generation());
    assert!(!fixture.store.enrollment(early.id).unwrap().enabled);
    let refused = group("late").unwrap_err().to_string();
    assert!(refused.contains("is revoked"), "{refused}");
}

/// A hub is recorded while the compromise of an authority still excludes, and the application may
/// have read the hubs before. Verifies: it deletes the identities of the devices below.
#[test]
fn a_hub_that_comes_during_the_exclusion_of_an_authority_is_cleared() {
    let fixture = Fixture::new();
    fixture.line(Slots::Empty.serve(fixture.root_certificate()).unwrap());
    fixture.issue("press-7", 2);
    let cause = Cause::Compromise {
        slots: SlotName::BOTH.into(),
        detail: json!({}),
    };
    let exclusion = Exclusion {
        cause,
        ..block_of(root_generation())
    };
    let recorded = fixture.store.exclude(exclusion, entry("roll.started"));
    let roll = recorded.unwrap().rolls.remove(0);
    assert_eq!(roll.state, RollState::Excluding);
    let hubs = ["dps", "new"].map(str::to_owned);
    assert!(fixture.store.record_hubs(hubs.into(), unix(1_001)).unwrap());
    let tasks = fixture
        .store
        .hub_tasks(HubCause::Roll(roll.id), 10)
        .unwrap();
    let at_new = tasks.iter().filter(|it| it.provisioning == "new");
    let devices: Vec<_> = at_new.map(|it| it.device.as_str()).collect();
    assert_eq!(devices, ["press-7"]);
}

/// A device is compromised before a restore, and another one after it, all in one second. Verifies:
/// only the second compromise outlives every date; the first does when it is reported again.
#[test]
fn a_compromise_after_a_restore_is_known_by_its_order() {
    let fixture = Fixture::new();
    for (device, serial) in [("press-7", 2), ("press-8", 3)] {
        fixture.enroll(device);
        fixture.issue(device, serial);
    }
    let report = |device| {
        let compromise = compromise_of(device, &SlotName::BOTH);
        fixture
            .store
            .exclude(compromise, entry("roll.started"))
            .unwrap();
    };
    let is_lost = |device| fixture.store.has_lost_compromise(device).unwrap();
    report("press-7");
    let restored = "INSERT INTO restore (lost_since, restored_at) VALUES (500, ?1)";
    let at = entry("roll.started").at.get();
    fixture.raw().execute(restored, [at]).unwrap();
    report("press-8");
    assert!(!is_lost("press-7") && is_lost("press-8"));
    report("press-7");
    assert!(is_lost("press-7"));
}

impl Fixture {
    /// Compromises a device with an enrollment of its own. Returns its roll, and the deletion of
    /// its identity.
    fn compromised(&self, device: &str) -> (RollId, HubTaskRow) {
        let compromise = compromise_of(device, &SlotName::BOTH);
        let recorded = self.store.exclude(compromise, entry("roll.started"));
        let roll = recorded.unwrap().rolls.remove(0).id;
        let mut tasks = self.store.hub_tasks(HubCause::Roll(roll), 10).unwrap();
        tasks.retain(|it| it.device == device);
        (roll, tasks.remove(0))
    }
}

/// An identity could not be deleted, and the compromise is over. Verifies: its task stays with its
/// roll, however old, so the receipt goes on naming it; without the roll it may go.
#[test]
fn an_identity_that_was_not_deleted_is_never_forgotten() {
    for deletion in [
        Deletion::Unknown,
        Deletion::Elsewhere {
            hub: "two.azure-devices.net".into(),
            device_id: "press-7".into(),
        },
    ] {
        let fixture = Fixture::new();
        fixture.enroll("press-7");
        fixture.issue("press-7", 2);
        let (_, task) = fixture.compromised("press-7");
        let end = HubTaskEnd {
            id: task.id,
            round: task.round,
            answer: HubAnswer::deletion("not found", deletion),
            again_at: None,
        };
        fixture.store.end_hub_task(end, unix(1_000)).unwrap();
        let raw = fixture.raw();
        raw.execute("UPDATE roll SET state = 'aborted'", [])
            .unwrap();
        let forgotten = |keep| {
            fixture
                .store
                .hub_tasks_to_forget(unix(9_000), keep, 10)
                .unwrap()
        };
        assert!(forgotten(10).is_empty() && forgotten(0).is_empty());
        raw.execute("DELETE FROM roll", []).unwrap();
        assert_eq!(forgotten(10), [task.id]);
    }
}
