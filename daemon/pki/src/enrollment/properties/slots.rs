//! Tests one enrollment and its service under random events in any order.

use crate::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::unix_seconds::UnixSeconds;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Serve(u8),
    Stage(u8),
    /// A renewal while both slots are taken; the device was observed with those of these slots.
    StageThird(u8, Vec<SlotName>),
    /// The reconciler makes the service as desired.
    Push,
    CutOver(CanaryVerdict),
    Abort,
    /// A compromise of the certificates in these slots, with or without a replacement.
    Compromise(Vec<SlotName>, Option<u8>),
    Retire {
        seconds_after_expiry: i64,
    },
    RetireProven {
        unproven: u64,
        allowed: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let canary = prop_oneof![
        Just(CanaryVerdict::NotNeeded),
        Just(CanaryVerdict::Passed),
        Just(CanaryVerdict::Pending),
        Just(CanaryVerdict::Failed("refused".into())),
    ];
    prop_oneof![
        (0u8..6).prop_map(Event::Serve),
        (0u8..6).prop_map(Event::Stage),
        (
            0u8..6,
            prop::sample::subsequence(SlotName::BOTH.to_vec(), 0..=2)
        )
            .prop_map(|(number, in_use)| Event::StageThird(number, in_use)),
        Just(Event::Push),
        canary.prop_map(Event::CutOver),
        Just(Event::Abort),
        (
            prop::sample::subsequence(SlotName::BOTH.to_vec(), 0..=2),
            prop::option::of(0u8..6)
        )
            .prop_map(|(slots, replacement)| Event::Compromise(slots, replacement)),
        (-2i64..3).prop_map(|seconds_after_expiry| Event::Retire {
            seconds_after_expiry
        }),
        (0u64..2, any::<bool>())
            .prop_map(|(unproven, allowed)| Event::RetireProven { unproven, allowed }),
    ]
}

fn certificate(number: u8) -> Thumbprint {
    Thumbprint::of(&[number])
}

/// The state of the service, which only `Push` changes.
type Service = (Option<Thumbprint>, Option<Thumbprint>);

/// Applies one event. A refusal changes nothing.
fn apply(slots: Slots, service: &mut Service, event: &Event) -> Slots {
    let not_after = UnixSeconds::default();
    let result = match event {
        Event::Serve(number) => slots.serve(certificate(*number)),
        Event::Stage(number) => slots.stage(certificate(*number)),
        Event::StageThird(number, names) => {
            let in_use = in_slots(&slots, names);
            slots.stage_third(certificate(*number), &in_use)
        }
        Event::Push => {
            *service = slots.wanted();
            Ok(slots)
        }
        Event::CutOver(canary) => slots.cut_over(&CutOverEvidence {
            observed_primary: service.0,
            observed_secondary: service.1,
            canary: canary.clone(),
        }),
        Event::Abort => slots.abort(),
        Event::Compromise(names, replacement) => {
            let compromised = in_slots(&slots, names);
            let left = slots.exclude(&compromised, replacement.map(certificate));
            left.map(|left| left.slots)
        }
        Event::Retire {
            seconds_after_expiry,
        } => slots.retire(&RetireEvidence::Expired {
            now: not_after + *seconds_after_expiry,
            retiring_not_after: not_after,
        }),
        Event::RetireProven { unproven, allowed } => slots.retire(&RetireEvidence::DevicesProven {
            unproven: *unproven,
            early_retirement_allowed: *allowed,
        }),
    };
    result.unwrap_or_else(|refusal| refusal.slots)
}

fn holds(slots: &Slots, certificate: Thumbprint) -> bool {
    let (primary, secondary) = slots.wanted();
    primary == Some(certificate) || secondary == Some(certificate)
}

fn in_slots(slots: &Slots, names: &[SlotName]) -> Vec<Thumbprint> {
    names
        .iter()
        .filter_map(|name| slots.in_slot(*name))
        .collect()
}

/// A compromise excludes the compromised certificates, and leaves a certificate in a slot.
fn check_compromise(before: &Slots, names: &[SlotName], new: Option<u8>) -> Result<(), String> {
    let compromised = in_slots(before, names);
    let Ok(left) = before.clone().exclude(&compromised, new.map(certificate)) else {
        return Ok(());
    };
    let ensure = |holds: bool, rule: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{rule}: {before:?} {names:?} {left:?}"))
        }
    };
    ensure(!left.slots.held().is_empty(), "something is held")?;
    let still = compromised.iter().any(|it| holds(&left.slots, *it));
    ensure(
        left.enabled != still,
        "an enabled enrollment holds nothing compromised",
    )?;
    let good = before
        .held()
        .into_iter()
        .filter(|it| !compromised.contains(it));
    for certificate in good {
        ensure(holds(&left.slots, certificate), "what is good stays")?;
    }
    let replaced = new.is_none_or(|new| holds(&left.slots, certificate(new)));
    ensure(replaced, "the replacement is in a slot")
}

/// A third certificate takes one slot; a certificate that alone was observed in use keeps its own.
fn check_third(before: &Slots, names: &[SlotName], after: &Slots) -> Result<(), String> {
    let in_use = in_slots(before, names);
    let held = |it: &&Thumbprint| holds(after, **it);
    let kept = before.held().iter().filter(held).count();
    let is_refused = before == after;
    let stays = in_use.len() != 1 || holds(after, in_use[0]);
    let serves = after.serving().is_some_and(|it| holds(before, it));
    if is_refused || (kept == 1 && stays && serves) {
        return Ok(());
    }
    Err(format!("a third one: {before:?} {names:?} {after:?}"))
}

fn slot_of_serving(slots: &Slots) -> Option<SlotName> {
    let serving = slots.serving()?;
    let mut names = SlotName::BOTH.into_iter();
    names.find(|name| slots.in_slot(*name) == Some(serving))
}

/// Checks two successive states.
fn check(before: &Slots, service: Service, event: &Event, after: &Slots) -> Result<(), String> {
    let ensure = |holds: bool, rule: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{rule}: {before:?} {event:?} {after:?}"))
        }
    };
    if let Event::Compromise(names, replacement) = event {
        return check_compromise(before, names, *replacement);
    }
    if let (Event::StageThird(_, names), Slots::Draining { .. }) = (event, before) {
        return check_third(before, names, after);
    }
    if let Some(serving) = before.serving() {
        ensure(holds(after, serving), "what served is still in a slot")?;
        ensure(after.serving().is_some(), "something serves")?;
    }
    if before.serving().is_some() && before.serving() != after.serving() {
        ensure(service == before.wanted(), "a cut-over was observed first")?;
        let moved = slot_of_serving(after) == slot_of_serving(before).map(SlotName::other);
        ensure(moved, "primary and secondary alternate")?;
    }
    for name in SlotName::BOTH {
        if let Some(certificate) = before.in_slot(name) {
            let stays = after.in_slot(name.other()) != Some(certificate);
            ensure(stays, "nothing is copied between slots")?;
        }
    }
    if matches!(before, Slots::Draining { .. }) && matches!(after, Slots::Serving { .. }) {
        let expired =
            matches!(event, Event::Retire { seconds_after_expiry } if *seconds_after_expiry > 0);
        let proven = matches!(
            event,
            Event::RetireProven {
                unproven: 0,
                allowed: true
            }
        );
        ensure(expired || proven, "retired by expiry or by proof")?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_interleaving_loses_a_certificate(events in prop::collection::vec(event(), 1..80)) {
        let mut slots = Slots::Empty;
        let mut service = (None, None);
        for event in events {
            let before = slots.clone();
            let seen = service;
            slots = apply(slots, &mut service, &event);
            check(&before, seen, &event, &slots).map_err(TestCaseError::fail)?;
            let stored = serde_json::to_string(&slots).unwrap();
            let loaded: Slots = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&loaded, &slots);
        }
    }

    /// Any stored text is either loaded or refused.
    #[test]
    fn damaged_text_never_panics(text in "[\\{\\}\":,a-z0-9]{0,60}") {
        let _ = serde_json::from_str::<Slots>(&text);
    }
}
