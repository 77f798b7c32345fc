//! Applies random events, in any order, to the rollover of one authority and the groups that hold
//! it.

use crate::enrollment::authority_roll::{Change, Evidence, Group, Step, next_step};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::EnrollmentId;
use crate::unix_seconds::UnixSeconds;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    /// The engine makes the step that is due.
    Advance,
    /// The reconciler brings one group's service to the desired state.
    Push(usize),
    Verified,
    /// Another program takes the next CA certificate away.
    Lost,
    Canary(usize, bool),
    Approve,
    Expire,
    Reissued,
    HubDone,
    BelowDone,
    AboveExcludes,
    Deleted,
    Blocked,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Advance),
        4 => (0usize..3).prop_map(Event::Push),
        2 => Just(Event::Verified),
        1 => Just(Event::Lost),
        2 => ((0usize..3), any::<bool>()).prop_map(|(group, passed)| Event::Canary(group, passed)),
        1 => Just(Event::Approve),
        1 => Just(Event::Expire),
        1 => Just(Event::Reissued),
        1 => Just(Event::HubDone),
        1 => Just(Event::BelowDone),
        1 => Just(Event::AboveExcludes),
        1 => Just(Event::Deleted),
        1 => Just(Event::Blocked),
    ]
}

fn certificate(name: &str) -> Thumbprint {
    Thumbprint::of(name.as_bytes())
}

/// A rollover, and the state of its surroundings.
#[derive(Clone, Debug)]
struct World {
    state: RollState,
    evidence: Evidence,
    expired: bool,
    /// Every service has held the next certificate verified when it began to sign.
    served_unverified: bool,
}

impl World {
    fn new(groups: usize, reason: RollReason) -> Self {
        let old = certificate("old");
        let compromise = reason == RollReason::Compromise;
        let group = |number: usize| Group {
            id: EnrollmentId::new(number as i64),
            provisioning: "dps".into(),
            name: format!("group {number}"),
            slots: Slots::Empty.serve(old).unwrap(),
            enabled: !compromise,
            in_step: !compromise,
            cut_over: CutOverEvidence {
                observed_primary: Some(old),
                observed_secondary: None,
                canary: if compromise {
                    CanaryVerdict::NotNeeded
                } else {
                    CanaryVerdict::Pending
                },
            },
        };
        Self {
            state: if compromise {
                RollState::Excluding
            } else {
                RollState::Requested
            },
            evidence: Evidence {
                reason,
                old,
                compromised: if compromise { vec![old] } else { Vec::new() },
                next: None,
                next_serves: false,
                unverified: vec!["dps".into()],
                groups: (0..groups).map(group).collect(),
                cut_over_approved: false,
                retirement_approved: false,
                retirement: expiry(false),
                above_admits: compromise,
                behind: Vec::new(),
                accepted_above: 0,
                ca_certificates: 1,
                ca_certificates_leaving: u64::from(compromise),
                hub_open: 0,
                to_reissue: 1,
                blocks_open: 0,
                others_open: Vec::new(),
                without_room: Vec::new(),
                old_blocked: false,
                next_blocked: false,
            },
            expired: false,
            served_unverified: false,
        }
    }

    fn apply(&mut self, event: &Event) {
        let evidence = &mut self.evidence;
        match event {
            Event::Advance => self.advance(),
            Event::Push(number) => {
                if let Some(group) = evidence.groups.get_mut(*number) {
                    group.in_step = true;
                    let (primary, secondary) = group.slots.wanted();
                    group.cut_over.observed_primary = primary;
                    group.cut_over.observed_secondary = secondary;
                }
            }
            Event::Verified if evidence.next.is_some() => evidence.unverified.clear(),
            Event::Lost => evidence.unverified = vec!["dps".into()],
            Event::Canary(number, passed) => {
                if let Some(group) = evidence.groups.get_mut(*number)
                    && group.awaits_canary()
                {
                    group.cut_over.canary = if *passed {
                        CanaryVerdict::Passed
                    } else {
                        CanaryVerdict::Failed("refused".into())
                    };
                }
            }
            Event::Approve => {
                evidence.retirement_approved = evidence.cut_over_approved;
                evidence.cut_over_approved = true;
            }
            Event::Expire => {
                self.expired = true;
                evidence.retirement = expiry(true);
            }
            Event::Reissued if evidence.next_serves => evidence.to_reissue = 0,
            Event::HubDone => evidence.hub_open = 0,
            Event::BelowDone => evidence.behind.clear(),
            Event::AboveExcludes => evidence.above_admits = false,
            Event::Deleted => {
                evidence.ca_certificates -= evidence.ca_certificates_leaving;
                evidence.ca_certificates_leaving = 0;
            }
            Event::Blocked => evidence.blocks_open = 0,
            Event::Verified | Event::Reissued => {}
        }
    }

    fn advance(&mut self) {
        let step = next_step(self.state, &self.evidence);
        let compromise = self.evidence.reason == RollReason::Compromise;
        let step = match step {
            Err(_) if compromise => self.evidence.replacement(),
            other => other,
        };
        let Ok(step) = step else { return };
        match step {
            Step::Make => self.evidence.next = Some(certificate("next")),
            Step::Stage(changes) => self.enter(RollState::Staged, &changes),
            Step::CutOver(changes) => {
                self.enter(RollState::Draining, &changes);
                self.serve();
            }
            Step::Replace(changes) => {
                self.enter(self.state, &changes);
                self.evidence.blocks_open = changes.len() as u64;
                self.serve();
            }
            Step::Retire(changes) => self.enter(self.state, &changes),
            Step::Withdraw => {
                self.evidence.ca_certificates_leaving = self.evidence.ca_certificates;
            }
            Step::Enter(state) => {
                if state == RollState::Clearing {
                    self.evidence.hub_open = 1;
                }
                self.enter(state, &[]);
            }
        }
    }

    fn serve(&mut self) {
        if !self.evidence.next_serves {
            self.served_unverified = !self.evidence.unverified.is_empty();
            self.evidence.behind = vec!["below".into()];
        }
        self.evidence.next_serves = true;
    }

    fn enter(&mut self, state: RollState, changes: &[Change]) {
        self.state = state;
        for change in changes {
            let group = self
                .evidence
                .groups
                .iter_mut()
                .find(|it| it.id == change.group)
                .unwrap();
            assert_eq!(group.slots, change.from);
            group.slots = change.to.clone();
            group.enabled = change.enabled;
            group.in_step = false;
        }
    }
}

fn expiry(expired: bool) -> RetireEvidence {
    let end = UnixSeconds::default();
    RetireEvidence::Expired {
        now: end + i64::from(expired),
        retiring_not_after: end,
    }
}

fn observed(group: &Group, certificate: Thumbprint) -> bool {
    let seen = &group.cut_over;
    seen.observed_primary == Some(certificate) || seen.observed_secondary == Some(certificate)
}

/// Invariants after every event of an expiry rollover.
fn check_expiry(before: &World, after: &World) -> Result<(), String> {
    let ensure = |holds: bool, rule: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{rule}: {before:?} {after:?}"))
        }
    };
    let old = certificate("old");
    let next = certificate("next");
    let began = after.evidence.next_serves && !before.evidence.next_serves;
    for group in &before.evidence.groups {
        if began {
            ensure(
                observed(group, old) && observed(group, next),
                "used before seen",
            )?;
            ensure(
                group.cut_over.canary == CanaryVerdict::Passed,
                "used before tried",
            )?;
        }
    }
    ensure(!after.served_unverified, "used before it was verified")?;
    ensure(
        !began || before.evidence.cut_over_approved,
        "cut over without a word",
    )?;
    for group in &after.evidence.groups {
        let gone = !group.slots.held().contains(&old);
        ensure(!gone || after.expired, "the old one went before its end")?;
        ensure(
            !gone || after.evidence.behind.is_empty(),
            "an authority below needed it",
        )?;
        ensure(group.enabled, "an expiry disables no group")?;
        let moved = SlotName::BOTH.into_iter().any(|slot| {
            let other = group.slots.in_slot(slot.other());
            let same = before
                .evidence
                .groups
                .iter()
                .find(|it| it.id == group.id)
                .unwrap();
            same.slots.in_slot(slot).is_some() && same.slots.in_slot(slot) == other
        });
        ensure(!moved, "nothing is copied between slots")?;
    }
    let done = after.state == RollState::Done;
    ensure(
        !done || after.evidence.ca_certificates == 0,
        "ended before the CA certificate went",
    )
}

/// Invariants after every event of a compromise rollover.
fn check_compromise(before: &World, after: &World) -> Result<(), String> {
    let ensure = |holds: bool, rule: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{rule}: {before:?} {after:?}"))
        }
    };
    for group in &after.evidence.groups {
        let holds = group.slots.held().contains(&certificate("old"));
        ensure(
            !(holds && group.enabled),
            "DPS accepts a compromised certificate",
        )?;
    }
    let cleared = after.state == RollState::Clearing && before.state == RollState::Excluding;
    ensure(
        !cleared || before.evidence.groups.iter().all(|it| it.in_step),
        "the hub came before the service",
    )?;
    ensure(
        !cleared || !before.evidence.above_admits,
        "the hub came before the one above",
    )?;
    ensure(!after.served_unverified, "used before it was verified")?;
    let done = after.state == RollState::Done && before.state != RollState::Done;
    let ready = before.evidence.next_serves
        && before.evidence.to_reissue == 0
        && before.evidence.blocks_open == 0
        && before.evidence.behind.is_empty();
    ensure(!done || ready, "ended while something was left to do")
}

proptest! {
    #[test]
    fn an_authority_is_rolled_in_order_whatever_happens(
        groups in 0usize..4, events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(groups, RollReason::Expiry);
        for event in events {
            let before = world.clone();
            world.apply(&event);
            check_expiry(&before, &world).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn what_is_compromised_never_comes_back(
        groups in 0usize..4, events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(groups, RollReason::Compromise);
        for event in events {
            let before = world.clone();
            world.apply(&event);
            check_compromise(&before, &world).map_err(TestCaseError::fail)?;
        }
    }
}
