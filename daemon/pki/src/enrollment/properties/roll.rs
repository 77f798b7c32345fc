//! Random events, in any order, against the roll of one device's leaf: the store's transactions as
//! a model, `next_leaf_step` and the slots as they are, a service and a hub that follow when they
//! can, and a daemon that forgets everything but the record.

use crate::enrollment::roll::{
    LeafEvidence, RollReason, RollState, Wait, next_leaf_step, renewal_moment,
};
use crate::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::unix_seconds::UnixSeconds;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    /// The device gets a leaf with a new key, if the store admits it.
    Issue,
    /// The service is brought to what is wanted, and seen so.
    Observe,
    /// The hub does what waits for it, if the service has followed.
    Hub,
    /// The device registers with the newest leaf that it has, and may drop the older one.
    Register,
    /// Every leaf but the newest expires.
    Expire,
    /// The engine looks at the roll.
    Advance,
    Abort,
    Compromise(Vec<SlotName>),
    Block,
    Unblock,
    /// The daemon is killed: what is not on record is forgotten.
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    let slots = prop::sample::subsequence(SlotName::BOTH.to_vec(), 1..=2);
    prop_oneof![
        3 => Just(Event::Issue),
        3 => Just(Event::Observe),
        2 => Just(Event::Hub),
        2 => Just(Event::Register),
        2 => Just(Event::Expire),
        6 => Just(Event::Advance),
        1 => Just(Event::Abort),
        1 => slots.prop_map(Event::Compromise),
        1 => Just(Event::Block),
        1 => Just(Event::Unblock),
        1 => Just(Event::Crash),
    ]
}

/// The record of the open rollover.
#[derive(Clone, Debug)]
struct Roll {
    reason: RollReason,
    state: RollState,
    old: Thumbprint,
    new: Option<Thumbprint>,
    hub_open: i64,
}

/// The record, the world, and what has happened.
#[derive(Clone, Debug)]
struct World {
    slots: Slots,
    enabled: bool,
    blocked: bool,
    marked: bool,
    roll: Option<Roll>,
    /// The service's slots and status.
    service: (Option<Thumbprint>, Option<Thumbprint>, bool),
    /// The leaf that the hub accepts.
    hub: Option<Thumbprint>,
    leaves: Vec<Thumbprint>,
    compromised: Vec<Thumbprint>,
    expired: Vec<Thumbprint>,
}

impl World {
    fn new() -> Self {
        Self {
            slots: Slots::Empty,
            enabled: true,
            blocked: false,
            marked: false,
            roll: None,
            service: (None, None, false),
            hub: None,
            leaves: Vec::new(),
            compromised: Vec::new(),
            expired: Vec::new(),
        }
    }

    /// A compromise waits for a leaf: nothing in the slots is good.
    fn waits_for_leaf(&self) -> bool {
        let roll = self.roll.as_ref();
        roll.is_some_and(|it| it.reason == RollReason::Compromise && it.new.is_none())
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Issue => self.issue(),
            Event::Observe => {
                let (primary, secondary) = self.slots.wanted();
                self.service = (primary, secondary, self.enabled);
                self.marked = false;
            }
            Event::Hub => {
                let marked = self.marked;
                if let Some(roll) = self.roll.as_mut().filter(|it| it.hub_open > 0 && !marked) {
                    roll.hub_open = 0;
                    self.hub = None;
                }
            }
            Event::Register => self.hub = self.admitted().last().copied().or(self.hub),
            Event::Expire => {
                let older = self.leaves.iter().rev().skip(1);
                self.expired = older.copied().collect();
            }
            Event::Advance => self.advance(),
            Event::Abort => self.abort(),
            Event::Compromise(names) => self.compromise(names),
            Event::Block => {
                (self.blocked, self.enabled, self.marked) = (true, false, true);
            }
            Event::Unblock if self.blocked => {
                (self.blocked, self.marked) = (false, true);
                self.enabled = !self.waits_for_leaf();
            }
            Event::Unblock | Event::Crash => {}
        }
    }

    fn issue(&mut self) {
        let leaf = Thumbprint::of(&self.leaves.len().to_be_bytes());
        if self.blocked {
            return;
        }
        if self.waits_for_leaf() {
            let held = self.slots.held();
            let left = self.slots.clone().exclude(&held, Some(leaf)).unwrap();
            self.slots = left.slots;
            self.enabled = true;
            self.roll.as_mut().unwrap().new = Some(leaf);
        } else {
            let old = self.slots.serving();
            let placed = match self.slots {
                Slots::Empty => self.slots.clone().serve(leaf),
                _ => self.slots.clone().stage(leaf),
            };
            let Ok(slots) = placed else { return };
            if let Some(old) = old {
                self.stage(old, leaf);
            }
            self.slots = slots;
        }
        self.marked = true;
        self.leaves.push(leaf);
    }

    fn stage(&mut self, old: Thumbprint, new: Thumbprint) {
        match &mut self.roll {
            Some(roll) => roll.new = Some(new),
            none => {
                *none = Some(Roll {
                    reason: RollReason::Expiry,
                    state: RollState::Staged,
                    old,
                    new: Some(new),
                    hub_open: 0,
                });
            }
        }
    }

    fn evidence(&self, roll: &Roll) -> LeafEvidence {
        let end = UnixSeconds::default();
        let over = i64::from(self.expired.contains(&roll.old));
        let seen = |slot: Option<Thumbprint>| slot.filter(|_| !self.marked);
        LeafEvidence {
            cut_over: CutOverEvidence {
                observed_primary: seen(self.service.0),
                observed_secondary: seen(self.service.1),
                canary: CanaryVerdict::NotNeeded,
            },
            retirement: RetireEvidence::Expired {
                now: end + over,
                retiring_not_after: end,
            },
            in_step: !self.marked,
            hub_open: roll.hub_open,
            replaced: roll.new.is_some(),
        }
    }

    fn advance(&mut self) {
        let Some(roll) = self.roll.clone() else {
            return;
        };
        if let Ok(next) = next_leaf_step(roll.state, &self.slots, &self.evidence(&roll)) {
            self.marked |= self.slots.wanted() != next.slots.wanted();
            self.slots = next.slots;
            let state = next.state;
            let is_over = matches!(state, RollState::Done | RollState::Aborted);
            self.roll = (!is_over).then_some(Roll { state, ..roll });
        }
    }

    fn abort(&mut self) {
        let Some(roll) = &self.roll else { return };
        let alive = !self.expired.contains(&roll.old) && !self.compromised.contains(&roll.old);
        let uses_old = self.hub == Some(roll.old);
        if roll.reason == RollReason::Expiry && roll.state == RollState::Staged && alive && uses_old
        {
            self.slots = self.slots.clone().abort().unwrap();
            (self.roll, self.marked) = (None, true);
        }
    }

    fn compromise(&mut self, names: &[SlotName]) {
        let held = names.iter().filter_map(|name| self.slots.in_slot(*name));
        let compromised: Vec<_> = held.collect();
        let Ok(left) = self.slots.clone().exclude(&compromised, None) else {
            return;
        };
        if self.waits_for_leaf() {
            return;
        }
        let good = left.slots.serving().filter(|_| left.enabled);
        self.roll = Some(Roll {
            reason: RollReason::Compromise,
            state: RollState::Excluding,
            old: compromised[0],
            new: good,
            hub_open: 1,
        });
        self.slots = left.slots;
        self.enabled = left.enabled && !self.blocked;
        self.marked = true;
        self.compromised.extend(compromised);
    }

    /// The leaves that the service accepts, oldest first.
    fn admitted(&self) -> Vec<Thumbprint> {
        let (primary, secondary, enabled) = self.service;
        let in_slot = |it: &&Thumbprint| [primary, secondary].contains(&Some(**it));
        let leaves = self.leaves.iter().filter(in_slot);
        let good = leaves.filter(|it| enabled && !self.expired.contains(it));
        good.copied().collect()
    }

    fn check(&self) -> Result<(), String> {
        let ensure = |holds: bool, rule: &str| {
            if holds {
                Ok(())
            } else {
                Err(format!("{rule}: {self:?}"))
            }
        };
        let good_leaf = |it: &Thumbprint| !self.compromised.contains(it);
        if self.enabled {
            let good = self.slots.held().iter().all(good_leaf);
            ensure(good, "an enabled enrollment holds nothing compromised")?;
        }
        if !self.marked {
            ensure(
                self.admitted().iter().all(good_leaf),
                "DPS accepts a compromised leaf",
            )?;
            ensure(
                !self.blocked || self.admitted().is_empty(),
                "DPS accepts a blocked device",
            )?;
        }
        let over = self.roll.is_none();
        if over && !self.marked {
            let hub_good = self.hub.is_none_or(|it| !self.compromised.contains(&it));
            ensure(
                hub_good,
                "a roll ended and the hub still knows a compromised leaf",
            )?;
        }
        let newest = self
            .leaves
            .last()
            .filter(|it| !self.compromised.contains(it));
        if let (Some(newest), true, false) = (newest, over && self.enabled, self.marked) {
            let honest = self.slots.serving().is_some_and(|it| good_leaf(&it));
            ensure(
                honest,
                &format!("DPS accepts no honest leaf beside {newest}"),
            )?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_lets_a_compromised_leaf_in_or_an_honest_device_out(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new();
        for event in &events {
            let before = world.clone();
            world.apply(event);
            world.check().map_err(|broken| TestCaseError::fail(format!("{event:?}: {broken}")))?;
            // A step of an expiry roll never leaves a moment without a way in. (An abort has its
            // own evidence, and a leaf that was not renewed in time ends in any case.)
            let by_expiry = |it: &World| {
                it.enabled && it.roll.as_ref().is_none_or(|it| it.reason == RollReason::Expiry)
            };
            let late = before.slots.serving().is_some_and(|it| before.expired.contains(&it));
            let ours = !late && !matches!(event, Event::Abort | Event::Expire);
            let undisturbed = ours && by_expiry(&before) && by_expiry(&world);
            if undisturbed && !before.admitted().is_empty() {
                prop_assert!(!world.admitted().is_empty(), "{:?}: {:?}", event, before);
            }
        }
    }

    /// Without disturbance, while all parts work, every rollover ends.
    #[test]
    fn every_roll_ends_when_all_do_their_part(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        world.apply(&Event::Unblock);
        for _ in 0..12 {
            if world.waits_for_leaf() {
                world.apply(&Event::Issue);
            }
            for event in [Event::Observe, Event::Hub, Event::Expire, Event::Advance] {
                world.apply(&event);
            }
        }
        prop_assert!(world.roll.is_none(), "{:?}", world);
        prop_assert!(world.leaves.is_empty() || world.slots.state() == "serving", "{:?}", world);
    }

    #[test]
    fn a_renewal_begins_within_its_window_and_always_at_the_same_moment(
        id in "[a-z0-9-]{1,20}", end in 0i64..4_000_000_000, before in 0i64..10_000_000,
        jitter in 0i64..1_000_000,
    ) {
        let end = UnixSeconds::new(end);
        let moment = renewal_moment(&id, end, before, jitter);
        prop_assert!(moment >= end - before && moment - (end - before) <= jitter);
        prop_assert_eq!(moment, renewal_moment(&id.to_uppercase(), end, before, jitter));
    }
}

#[test]
fn a_roll_that_is_over_waits_for_nothing() {
    let world = World::new();
    let roll = Roll {
        reason: RollReason::Expiry,
        state: RollState::Done,
        old: Thumbprint::of(b"old"),
        new: None,
        hub_open: 0,
    };
    for state in [RollState::Done, RollState::Aborted] {
        let step = next_leaf_step(state, &Slots::Empty, &world.evidence(&roll));
        assert_eq!(step, Err(Wait::Nothing));
    }
}
