//! Tests a block of a generation: its certificate leaves the slots, then gets a group of its own;
//! lifting the block reverts that.

use super::*;
use crate::ids::EnrollmentId;

fn certificate(name: &str) -> Thumbprint {
    Thumbprint::of(name.as_bytes())
}

impl Fixture {
    pub(super) fn group(&self) -> EnrollmentRow {
        let slots = serde_json::json!({
            "state": "draining", "slot": "primary",
            "serving": certificate("new"), "retiring": self.root_certificate(),
        });
        let slots = serde_json::from_value(slots).unwrap();
        let row = self.add_group("line", "root", slots).unwrap();
        self.settle_next(row.id);
        row
    }

    /// The one enrollment that is due is this one; it is settled.
    fn settle_next(&self, enrollment: EnrollmentId) {
        let due = self.store.due_marks("dps", unix(2_000), 10, true).unwrap();
        let subjects: Vec<_> = due.iter().map(|mark| mark.subject).collect();
        assert_eq!(subjects, [MarkSubject::Enrollment(enrollment)]);
        let row = self.store.enrollment(enrollment).unwrap();
        let observation = match row.leaving {
            true => Observation::Gone,
            false => Observation::InPlace {
                history: Box::default(),
                record: json!({}),
            },
        };
        self.store
            .complete_mark(&due[0], observation, unix(1_000))
            .unwrap();
    }

    /// Blocks the root, whose certificate is the old one. The device below follows at once.
    fn block_old(&self) -> BlockRow {
        let block = self.block(root_generation()).unwrap();
        let device = BlockedDevice {
            registration_id: "press-7".into(),
            hold: None,
            services: vec!["dps".into()],
        };
        let chunk = HoldChunk {
            block: block.id,
            from: String::new(),
            devices: vec![device],
            reached: None,
        };
        assert!(self.store.hold_devices(chunk, unix(1_000)).unwrap());
        block
    }
}

#[test]
fn a_blocked_certificate_is_never_wanted_in_two_enrollments_at_once() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let block = fixture.block_old();
    let own = block.restricted[1].id;
    assert!(
        fixture
            .store
            .due_hub_tasks("dps", unix(2_000), 10, true)
            .unwrap()
            .is_empty()
    );
    fixture.settle_next(group.id);
    assert_eq!(
        fixture.store.enrollment(group.id).unwrap().slots.held(),
        [certificate("new")]
    );
    assert!(
        fixture
            .store
            .due_hub_tasks("dps", unix(2_000), 10, true)
            .unwrap()
            .is_empty()
    );
    fixture.settle_next(own);
    let tasks = fixture
        .store
        .due_hub_tasks("dps", unix(2_000), 10, true)
        .unwrap();
    assert_eq!(
        tasks.len(),
        1,
        "the hub comes when all services have followed"
    );

    fixture.lift(block.id);
    assert!(
        fixture
            .store
            .due_hub_tasks("dps", unix(2_000), 10, true)
            .unwrap()
            .is_empty()
    );
    fixture.settle_next(own);
    fixture.settle_next(group.id);
    assert_eq!(
        fixture.store.enrollment(group.id).unwrap().slots,
        group.slots
    );
    assert!(fixture.store.find_enrollment(own).unwrap().is_none());
    assert!(fixture.store.blocks(true, None, 10).unwrap().is_empty());
}

/// Slots that a roll has changed since the block are not reverted.
#[test]
fn lifting_a_block_leaves_slots_that_have_moved_since() {
    let fixture = Fixture::new();
    let group = fixture.group();
    let block = fixture.block_old();
    let moved =
        json!({ "state": "serving", "slot": "primary", "certificate": certificate("third") });
    fixture
        .raw()
        .execute(
            "UPDATE enrollment SET slots = ?2 WHERE id = ?1",
            rusqlite::params![group.id.get(), moved.to_string()],
        )
        .unwrap();
    fixture.lift(block.id);
    let slots = fixture.store.enrollment(group.id).unwrap().slots;
    assert_eq!(slots.held(), [certificate("third")]);
}
