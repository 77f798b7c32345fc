//! Tests rolls and blocks that would change the same certificates.

use super::*;
use crate::enrollment::authority_roll::Change;
use crate::error_code::Code;
use crate::x509::revocation::RevocationReason;

impl Fixture {
    pub(super) fn root_certificate(&self) -> Thumbprint {
        let sql =
            "SELECT c.sha256 FROM certificate c JOIN generation g ON g.certificate = c.intent";
        let sha256 = self.raw().query_row(sql, [], |row| row.get(0));
        Thumbprint::from_bytes(sha256.unwrap())
    }

    /// The group of the root.
    fn root_group(&self) -> EnrollmentRow {
        let slots = Slots::Empty.serve(self.root_certificate()).unwrap();
        let added = self.add_group("all", "root", slots);
        added.unwrap()
    }

    pub(super) fn new_roll(&self) -> NewAuthorityRoll {
        NewAuthorityRoll {
            authority: "root".into(),
            old_generation: self.root,
            old_certificate: self.root_certificate(),
            detail: json!({}),
        }
    }

    fn roll_root(&self) -> Result<RollRow, StoreError> {
        let entry = entry("roll.started");
        self.store
            .start_authority_roll(self.new_roll(), None, entry)
    }

    fn is_enabled(&self, group: &EnrollmentRow) -> bool {
        self.store.enrollment(group.id).unwrap().enabled
    }
}

/// All devices of the root's group.
fn all() -> Excluded {
    Excluded::Group("all".into())
}

fn code<T: std::fmt::Debug>(refused: Result<T, StoreError>) -> Code {
    match refused.unwrap_err() {
        StoreError::Blocking { code, .. } => code,
        other => panic!("{other}"),
    }
}

/// The change of a group that a step stages the next certificate by.
fn staging(group: &EnrollmentRow) -> Change {
    Change {
        group: group.id,
        from: group.slots.clone(),
        to: group.slots.clone().stage(Thumbprint::of(b"next")).unwrap(),
        was_enabled: group.enabled,
        enabled: group.enabled,
    }
}

#[test]
fn a_roll_that_is_under_way_refuses_a_second_one_and_a_block_of_its_generation() {
    let fixture = Fixture::new();
    let group = fixture.root_group();
    fixture.roll_root().unwrap();
    assert_eq!(code(fixture.roll_root()), Code::RollUnderWay);
    let block = fixture.block(root_generation());
    assert_eq!(code(block), Code::RollUnderWay);
    assert!(fixture.is_enabled(&group), "nothing of it was done");

    let device = fixture.enroll("pump-7");
    fixture.issue("pump-7", 9);
    let roll = || {
        let entry = entry("roll.started");
        fixture.store.request_roll(device.id, json!({}), entry)
    };
    roll().unwrap();
    assert_eq!(code(roll()), Code::RollUnderWay);
}

#[test]
fn while_a_block_is_in_place_no_expiry_roll_begins() {
    let fixture = Fixture::new();
    let group = fixture.root_group();
    for subject in [all(), root_generation()] {
        let block = fixture.block(subject).unwrap();
        assert_eq!(code(fixture.roll_root()), Code::AuthorityBlocked);
        fixture.lift(block.id);
        assert!(fixture.is_enabled(&group));
    }
    fixture.roll_root().unwrap();

    let device = fixture.enroll("pump-7");
    fixture.issue("pump-7", 9);
    fixture.block(Excluded::Device("pump-7".into())).unwrap();
    let entry = entry("roll.started");
    let roll = fixture.store.request_roll(device.id, json!({}), entry);
    assert_eq!(code(roll), Code::DeviceBlocked);
}

/// A group may be blocked at any time: the roll goes on below, and the group stays disabled.
#[test]
fn a_blocked_group_stays_disabled_whatever_a_roll_does() {
    let fixture = Fixture::new();
    let group = fixture.root_group();
    let roll = fixture.roll_root().unwrap();
    let decided_before = staging(&group);
    let block = fixture.block(all()).unwrap();
    let step = |change: Change| {
        let mut step = AuthorityStep::of(&roll, RollState::Staged);
        step.groups = vec![change];
        step.next = Some(Thumbprint::of(b"next"));
        fixture
            .store
            .step_authority_roll(step, entry("roll.staged"))
            .unwrap()
    };
    assert!(!step(decided_before), "the group has changed since");
    assert!(step(staging(&fixture.store.enrollment(group.id).unwrap())));
    assert!(!fixture.is_enabled(&group));
    let second = fixture.block(all());
    assert!(matches!(second, Err(StoreError::Conflict(_))), "{second:?}");
    fixture.lift(block.id);
    assert!(fixture.is_enabled(&group));
}

/// A compromise is not refused because of a block, and lifting that brings nothing back.
#[test]
fn a_compromise_outlives_an_earlier_block() {
    for subject in [all(), root_generation()] {
        let fixture = Fixture::new();
        let group = fixture.root_group();
        let block = fixture.block(subject).unwrap();
        let begun = fixture.compromise_root().unwrap();
        assert_eq!(begun.reason, RollReason::Compromise);
        fixture.lift(block.id);
        assert!(!fixture.is_enabled(&group));
        let revoked = fixture.raw().query_row(
            "SELECT revocation_reason FROM certificate WHERE sha256 = ?1",
            [fixture.root_certificate().as_bytes()],
            |row| row.get(0),
        );
        assert_eq!(revoked, Ok(RevocationReason::CaCompromise.code()));
    }
}
