//! Tests rolls of leaves: their steps, their abort, and their list.

use super::*;
use crate::ids::{BlockId, RollId};

#[test]
fn a_step_of_a_roll_is_refused_when_the_slots_have_moved() {
    let fixture = Fixture::new();
    let enrollment = fixture.enroll("pump-7");
    fixture.issue("pump-7", 2);
    fixture.issue("pump-7", 3);
    let roll = fixture.store.rolls(true, None, 1).unwrap().remove(0);
    let step = RollStep {
        roll: roll.id,
        enrollment: enrollment.id,
        from_state: RollState::Staged,
        from: Slots::Empty,
        to: Slots::Empty,
        state: RollState::Done,
        hub: Vec::new(),
    };
    assert!(
        !fixture
            .store
            .advance_roll(step, entry("roll.done"))
            .unwrap()
    );
    assert_eq!(
        fixture.store.roll(roll.id).unwrap().state,
        RollState::Staged
    );
}

/// After an aborted roll the device's current leaf is again the one in the slots; with two
/// services, after the last of the rolls is aborted.
#[test]
fn a_device_has_its_old_leaf_again_when_its_roll_is_aborted() {
    let fixture = Fixture::new();
    fixture.enroll("pump-7");
    fixture.add_individual("dps-2", "pump-7").unwrap();
    let old = Thumbprint::from_bytes(fixture.issue("pump-7", 2));
    let new = Thumbprint::from_bytes(fixture.issue("pump-7", 3));
    let current = || fixture.store.device("pump-7").unwrap().unwrap().certificate;
    let rolls = fixture.store.rolls(true, None, 10).unwrap();
    assert_eq!((rolls.len(), current()), (2, new));
    for (roll, left) in rolls.iter().zip([new, old]) {
        let entry = entry("roll.aborted");
        let aborted = fixture
            .store
            .abort_leaf_roll(roll.id, serde_json::Value::Null, entry);
        aborted.unwrap();
        assert_eq!(current(), left);
    }
}

/// A list is read page by page: each page begins after the last row of the one before.
#[test]
fn rolls_and_blocks_are_listed_page_by_page() {
    let fixture = Fixture::new();
    for (id, serial) in [("pump-1", 2), ("pump-2", 4), ("pump-3", 6)] {
        fixture.enroll(id);
        fixture.issue(id, serial);
        fixture.issue(id, serial + 1);
    }
    let all: Vec<RollId> = fixture
        .store
        .rolls(true, None, 10)
        .unwrap()
        .iter()
        .map(|it| it.id)
        .collect();
    let (mut paged, mut after) = (Vec::new(), None);
    while let Some(roll) = fixture.store.rolls(true, after, 1).unwrap().pop() {
        after = Some(roll.id);
        paged.push(roll.id);
    }
    assert_eq!((all.len(), paged), (3, all));
    assert!(
        fixture
            .store
            .blocks(true, Some(BlockId::new(1)), 1)
            .unwrap()
            .is_empty()
    );
}

/// A request arrives after the cut-over and before the hierarchy is read again.
#[test]
fn a_generation_that_does_not_serve_signs_for_no_device() {
    let fixture = Fixture::new();
    let staged = fixture.stage_root(RollId::new(1));
    let early = Intent {
        issuer: staged.id,
        ..fixture.intent("press-7", 10)
    };
    let refused = block_on(fixture.store.record_intent(early)).unwrap_err();
    assert!(matches!(refused, IntentError::IssuerReplaced), "{refused}");
    block_on(fixture.store.record_intent(fixture.intent("press-7", 11))).unwrap();
}
