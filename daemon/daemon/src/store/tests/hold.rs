//! Tests holds of several blocks: a hold is lifted with the last of them.

use super::*;
use crate::enrollment::role::Role;
use crate::ids::{BlockId, EnrollmentId};
use crate::x509::revocation::RevocationReason::{CertificateHold, KeyCompromise};

fn leaves(device: &str) -> Revocation {
    Revocation {
        target: RevocationTarget::Leaves {
            subject: device.into(),
        },
        at: unix(1_000),
        actor: "test".into(),
        cause: "a test".into(),
    }
}

impl Fixture {
    /// The group of all devices below the root.
    fn everybody(&self) -> EnrollmentId {
        let slots = Slots::Empty.serve(Thumbprint::of(b"root")).unwrap();
        let added = self.add_group("all", "root", slots);
        added.unwrap().id
    }

    fn block_group(&self) -> BlockId {
        let row = self.block(Excluded::Group("all".into())).unwrap();
        assert_eq!(row.reached.as_deref(), Some(""));
        row.id
    }

    fn hold_one(&self, block: BlockId, from: &str, device: &str, last: bool) -> bool {
        let device = BlockedDevice {
            registration_id: device.into(),
            hold: Some(leaves(device)),
            services: vec!["dps".into()],
        };
        let chunk = HoldChunk {
            block,
            from: from.into(),
            reached: (!last).then(|| device.registration_id.clone()),
            devices: vec![device],
        };
        self.store.hold_devices(chunk, unix(1_000)).unwrap()
    }

    fn block_device(&self, device: &str) -> BlockId {
        let exclusion = Exclusion {
            placeholder: None,
            services: Vec::new(),
            ..block_of(Excluded::Device(device.into()))
        };
        let recorded = self.store.exclude(exclusion, entry("block.started"));
        recorded.unwrap().block.unwrap().id
    }

    fn is_good(&self, device: &str) -> bool {
        let leaves = self.store.certificates_of(device, 1).unwrap();
        leaves[0].revoked_at.is_none()
    }
}

/// Whichever of the two is lifted first, the other still holds.
#[test]
fn what_two_blocks_hold_comes_off_hold_with_the_last_of_them() {
    for first_lifted in [0, 1] {
        let fixture = Fixture::new();
        fixture.everybody();
        fixture.issue("press-7", 2);
        fixture.issue("press-8", 3);
        let all = fixture.block_group();
        assert!(fixture.hold_one(all, "", "press-7", false));
        assert!(fixture.hold_one(all, "press-7", "press-8", true));
        let blocks = [fixture.block_device("press-7"), all];
        fixture.lift(blocks[first_lifted]);
        assert!(!fixture.is_good("press-7"));
        assert_eq!(fixture.is_good("press-8"), first_lifted == 1);
        fixture.lift(blocks[1 - first_lifted]);
        assert!(fixture.is_good("press-7") && fixture.is_good("press-8"));
        assert!(fixture.store.unfinished_blocks().unwrap().is_empty());
    }
}

/// No block lifts a hold that an operator set by itself, and no operator one that a block set.
#[test]
fn a_hold_of_its_own_and_a_final_revocation_outlive_every_block() {
    let fixture = Fixture::new();
    for (device, serial) in [("press-7", 2), ("press-8", 3), ("press-9", 4)] {
        fixture.issue(device, serial);
    }
    fixture
        .store
        .revoke(leaves("press-7"), CertificateHold)
        .unwrap();
    let blocks: Vec<BlockId> = ["press-7", "press-8", "press-9"]
        .map(|device| fixture.block_device(device))
        .into();
    fixture
        .store
        .revoke(leaves("press-8"), KeyCompromise)
        .unwrap();
    let lifted = fixture.store.unrevoke(leaves("press-9")).unwrap();
    assert!(lifted.changed.is_empty() && !fixture.is_good("press-9"));
    for block in blocks {
        fixture.lift(block);
    }
    assert!(!fixture.is_good("press-7") && !fixture.is_good("press-8"));
    assert!(fixture.is_good("press-9"));
    fixture.store.unrevoke(leaves("press-7")).unwrap();
    assert!(fixture.is_good("press-7"));
}

/// Before the first chunk no device of the group gets a leaf, registered or not, and open intents
/// are abandoned. A device with an enrollment of its own is not in the group.
#[test]
fn nothing_is_issued_below_a_blocked_group() {
    let fixture = Fixture::new();
    fixture.everybody();
    fixture.issue("press-7", 2);
    fixture.enroll("press-8");
    let under_way = block_on(fixture.store.record_intent(fixture.intent("press-9", 3))).unwrap();
    let own = block_on(fixture.store.record_intent(fixture.intent("press-8", 4))).unwrap();
    let server = Intent {
        profile: "server".into(),
        role: Some(Role::Server),
        ..fixture.intent("hallmark.example", 5)
    };
    let server = block_on(fixture.store.record_intent(server)).unwrap();
    let block = fixture.block_group();
    let device = |id: &str| OnIssued::Device {
        registration_id: id.into(),
        profile: "device".into(),
    };
    assert!(fixture.settle(&under_way, device("press-9")).is_err());
    fixture.settle(&own, device("press-8")).unwrap();
    fixture.settle(&server, OnIssued::Alone).unwrap();
    for (id, serial) in [("press-7", 6), ("press-10", 7)] {
        let refused = block_on(fixture.store.record_intent(fixture.intent(id, serial)));
        assert!(
            matches!(refused, Err(IntentError::GroupBlocked { .. })),
            "{refused:?}"
        );
    }
    let new = NewEnrollment {
        provisioning: "dps".into(),
        kind: EnrollmentKind::Individual,
        name: "press-7".into(),
        authority: None,
        by_reference: false,
        slots: Slots::Empty,
    };
    let refused = fixture.store.add_enrollment(new, entry("enrollment.added"));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("which is blocked"), "{refused}");
    fixture.lift(block);
    fixture.issue("press-7", 8);
    fixture.issue("press-9", 9);
}

/// A chunk that was put together before something else happened is refused whole.
#[test]
fn a_chunk_of_a_block_that_has_moved_does_nothing() {
    let fixture = Fixture::new();
    fixture.everybody();
    fixture.issue("press-7", 2);
    let block = fixture.block_group();
    assert!(fixture.hold_one(block, "", "press-7", false));
    assert!(
        !fixture.hold_one(block, "", "press-7", true),
        "done already"
    );
    fixture.lift(block);
    assert!(!fixture.hold_one(block, "press-7", "press-7", true));
    assert!(fixture.is_good("press-7"));
    let open = fixture.store.hub_progress(HubCause::Block(block), None);
    assert_eq!(open.unwrap().total, 0, "nothing of it is left for the hub");
}

/// An identity is being deleted when its device, which may have registered again, is to be cleared
/// again. Verifies: the answer to the first call does not end the second.
#[test]
fn an_answer_to_an_earlier_round_does_not_end_a_later_one() {
    let fixture = Fixture::new();
    fixture.everybody();
    fixture.issue("press-7", 2);
    let block = fixture.block_group();
    assert!(fixture.hold_one(block, "", "press-7", true));
    let cause = HubCause::Block(block);
    let task = || fixture.store.hub_tasks(cause, 10).unwrap().remove(0);
    let deleted = |seen: &HubTaskRow| {
        let end = HubTaskEnd {
            id: seen.id,
            round: seen.round,
            answer: HubAnswer::said("deleted"),
            again_at: None,
        };
        fixture.store.end_hub_task(end, unix(1_000)).unwrap();
    };
    let first = task();
    let again = NewHubTask {
        provisioning: first.provisioning.clone(),
        device: "press-7".into(),
        action: HubAction::Delete,
        enrollment: None,
    };
    let queue = |tasks| {
        fixture
            .store
            .queue_hub_tasks(cause, tasks, unix(900))
            .unwrap()
    };
    assert_eq!(queue(vec![again.clone()]), 1);
    deleted(&first);
    assert_eq!(task().answer, None, "it is still to be deleted");
    deleted(&task());
    assert!(task().answer.is_some());
    assert_eq!(queue(vec![again]), 1, "and once more, when it was done");
    assert_eq!(task().answer, None);
}

/// Finished work at a hub goes when its cause has ended and it is old, or when there is too much.
#[test]
fn finished_work_at_a_hub_is_kept_while_it_is_of_use() {
    let fixture = Fixture::new();
    fixture.everybody();
    fixture.issue("press-7", 2);
    fixture.issue("press-8", 3);
    let block = fixture.block_group();
    assert!(fixture.hold_one(block, "", "press-7", false));
    assert!(fixture.hold_one(block, "press-7", "press-8", true));
    let tasks = fixture.store.hub_tasks(HubCause::Block(block), 10).unwrap();
    let (done, late) = (tasks[0].id, tasks[1].id);
    let deleted = |id| HubTaskEnd {
        id,
        round: 1,
        answer: HubAnswer::said("deleted"),
        again_at: None,
    };
    fixture
        .store
        .end_hub_task(deleted(done), unix(1_000))
        .unwrap();
    fixture
        .store
        .end_hub_task(deleted(late), unix(3_000))
        .unwrap();
    let store = &fixture.store;
    assert!(
        store
            .hub_tasks_to_forget(unix(2_000), 10, 10)
            .unwrap()
            .is_empty(),
        "the block stands"
    );
    assert_eq!(
        store.hub_tasks_to_forget(unix(0), 1, 10).unwrap(),
        [done],
        "one too many"
    );
    fixture.lift(block);
    assert_eq!(
        store.hub_tasks_to_forget(unix(2_000), 10, 10).unwrap(),
        [done]
    );
    store.forget_hub_tasks(vec![done]).unwrap();
    let left = store.hub_tasks(HubCause::Block(block), 10).unwrap();
    assert_eq!(left.iter().map(|task| task.id).collect::<Vec<_>>(), [late]);
}
