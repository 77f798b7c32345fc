//! Rolls of intermediates and of roots, while the daemon is killed at every step, and each time that
//! the service has done what was asked and its answer is on the way.
//!
//! Whatever was cut off: the end is that of a roll which nothing disturbed, with one next generation
//! of each authority, and the devices keep their names.

use crate::authority_roll::{
    ca_certificates, comes_to, references, second_signs, start, told_at, under_the_root,
};
use crate::crash_point::reported;
use crate::device::{is_assigned, register};
use crate::own_authority::{Call, Kind, OwnAuthority, stage_with, these_alone_are_known};
use crate::prober::Prober;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::stage::Stage;
use dps_emulator::{Action, Fault};
use time::Duration;

const GENERATION: [&str; 4] = [
    "roll-generation-planned",
    "roll-generation-keyed",
    // It is signed, and not on record.
    "cycle-8",
    "roll-generation-staged",
];
const CUT_OVER: [&str; 2] = ["roll.staged", "roll.cut_over"];
const SHUTTING_OUT: [&str; 5] = [
    "roll-compromise-recorded",
    "roll.shut_out",
    "roll-hub-answered",
    "roll.cleared",
    "roll.replaced",
];
const CANARY: [Call; 3] = [
    ("device.register", "hallmark-canary-NAME-"),
    ("identity.delete", "hallmark-canary-NAME-"),
    ("registration.delete", "hallmark-canary-NAME-"),
];
const CA_CERTIFICATE: [Call; 3] = [
    ("authority.put", "NAME-2"),
    ("authority.code", "NAME-2"),
    ("authority.verify", "NAME-2"),
];
const DELETION: Call = ("authority.delete", "NAME-1");

/// The answers to these calls are lost.
fn lost(authority: &OwnAuthority, calls: &[&[Call]]) -> Vec<Fault> {
    let calls = calls.concat().into_iter();
    calls
        .map(|call| authority.fault(call, Action::HangAfter))
        .collect()
}

/// Whether an authority's compromise is shut out as far as its roll says.
fn says_that_it_is_out(stage: &Stage, authority: &str) -> bool {
    let past = format!(
        "roll WHERE authority = '{authority}' AND state IN ('clearing', 'reissuing', 'done')"
    );
    stage.count(&past) == 1
}

fn is_refused(stage: &Stage, device: &Holder) {
    let end = register(&stage.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// Verifies: a device with the old leaf is let in until that ends, one with the new leaf from its
/// first issue on.
#[test]
fn an_intermediate_is_rolled_although_the_daemon_is_killed_at_every_step() {
    let bay = OwnAuthority::new(Kind::Intermediate, "bay-1");
    let (mut stage, old) = stage_with(std::slice::from_ref(&bay));
    let old_prober = Prober::honest(&stage, &old);
    stage.kill();
    let calls = lost(&bay, &[&[("group.put", "NAME")], &CANARY]);
    stage.is_killed_at_each(&[&GENERATION[..], &CUT_OVER].concat(), &calls, |stage| {
        if stage.count("roll") == 0 {
            start(stage, "bay-1", "expiry", &["--validity", "5y"]);
        }
    });
    bay.comes_to(&stage, "draining");
    stage.passes(Duration::days(15));
    let new = [bay.obtain(&stage)];
    let new_prober = Prober::honest(&stage, &new);
    stage.passes(Duration::days(4));
    // The old leaf ends tomorrow.
    old_prober.ends();
    stage.kill();
    let calls = lost(&bay, &[&[("group.put", "NAME")]]);
    let mut waited = false;
    stage.is_killed_at_each(&["roll.retired", "roll.done"], &calls, |stage| {
        if !waited {
            stage.passes(Duration::days(12));
            waited = true;
        }
    });
    bay.is_rolled_into(&stage, "secondary");
    stage.is_in_step();
    new_prober.ends();
    these_alone_are_known(&stage, &new);
    is_refused(&stage, &old[0]);
}

/// The whole tree. Verifies: the old leaf is let in until its device has a new one; each authority
/// is published before it signs; the old root is deleted in the end.
#[test]
fn a_root_is_rolled_although_the_daemon_is_killed_at_every_step() {
    let mut stage = crate::authority_roll::retiring_when_proven();
    let old = under_the_root(&mut stage);
    let old_prober = Prober::honest(&stage, std::slice::from_ref(&old));
    stage.kill();
    let root = OwnAuthority::new(Kind::Root, "root");
    let group = ("group.put", "works");
    let calls = lost(&root, &[&CA_CERTIFICATE, &CANARY, &[group]]);
    stage.is_killed_at_each(&[&GENERATION[..], &CUT_OVER].concat(), &calls, |stage| {
        if stage.count("roll") == 0 {
            start(stage, "root", "expiry", &[]);
        }
    });
    until("all below sign under the new root", || {
        let open = "roll WHERE authority <> 'root' AND state <> 'done'";
        let below = ["plant", "line-1", "operations"];
        let all = below.iter().all(|it| second_signs(&stage, it));
        (all && stage.count(open) == 0).then_some(())
    });
    old_prober.ends();
    stage.kill();
    // Nothing is retired before the device has moved.
    let points = ["roll.retired", "roll.withdrawn", "roll.done"];
    let calls = lost(&root, &[&[group, DELETION]]);
    let mut new = None;
    stage.is_killed_at_each(&points, &calls, |stage| {
        // Until the token is ready after a start, the answer is 503.
        if new.is_none() {
            new = stage.try_to_issue(&Request::device("press-1"));
            new.iter()
                .for_each(|device| is_assigned(&stage.emulator, device));
        }
    });
    assert!(new.is_some(), "the line signs");
    let roll = stage.json(&["roll", "list"]);
    let roll = roll.as_array().unwrap().last().unwrap()["id"].to_string();
    comes_to(&stage, &roll, "done");
    stage.is_in_step();
    assert_eq!(ca_certificates(&stage), ["root-2"]);
    assert!(references(&stage, "works")["primary"].is_null());
    assert_eq!(references(&stage, "works")["secondary"], "root-2");
    let places = ["root", "plant", "line-1"].map(|it| told_at(&stage, "roll.cut_over", it));
    assert!(places.is_sorted(), "{places:?}");
    each_was_rolled_once(&stage);
    these_alone_are_known(&stage, new.as_slice());
    is_refused(&stage, &old);
}

/// The tree of the ceremony that ships.
fn each_was_rolled_once(stage: &Stage) {
    for authority in ["root", "plant", "line-1", "operations"] {
        let generations = format!("generation WHERE authority = '{authority}'");
        assert_eq!(stage.count(&generations), 2, "{authority}");
        let rolls = format!("roll WHERE authority = '{authority}'");
        assert_eq!(stage.count(&rolls), 1, "{authority}");
    }
}

/// Verifies: once refused, the compromised leaf is never let in again, and it is refused when the roll
/// says so; its certificate stays out by a disabled group; the device comes back with a new leaf.
#[test]
fn a_compromised_intermediate_is_replaced_although_the_daemon_is_killed_at_every_step() {
    let bay = OwnAuthority::new(Kind::Intermediate, "bay-1");
    let (mut stage, compromised) = stage_with(std::slice::from_ref(&bay));
    let prober = Prober::compromised(&stage, &compromised);
    stage.kill();
    let operator = reported(&stage, &["--authority", "bay-1"]);
    // Without the compromised certificate, and then with the next one.
    let group = ("group.put", "NAME");
    let calls = [
        ("group.put", "NAME-blocked-"),
        group,
        group,
        ("identity.delete", "NAME-press"),
    ];
    let points = [&GENERATION[..], &SHUTTING_OUT, &["roll.done"]];
    let mut new = Vec::new();
    stage.is_killed_at_each(&points.concat(), &lost(&bay, &[&calls]), |stage| {
        if says_that_it_is_out(stage, "bay-1") {
            is_refused(stage, &compromised[0]);
        }
        if new.is_empty() && second_signs(stage, "bay-1") {
            new.extend(bay.try_to_obtain(stage));
        }
    });
    operator.join().unwrap();
    bay.is_rolled_into(&stage, "primary");
    stage.is_in_step();
    bay.is_blocked(&stage);
    prober.ends();
    is_refused(&stage, &compromised[0]);
    is_assigned(&stage.emulator, &new[0]);
    these_alone_are_known(&stage, &new);
}

/// The same for a root with all that is below it: its CA certificate is deleted, and the next one is
/// proven and referenced.
#[test]
fn a_compromised_root_is_replaced_although_the_daemon_is_killed_at_every_step() {
    let mut stage = Stage::set();
    let compromised = under_the_root(&mut stage);
    let prober = Prober::compromised(&stage, std::slice::from_ref(&compromised));
    stage.kill();
    let operator = reported(&stage, &["--authority", "root"]);
    let root = OwnAuthority::new(Kind::Root, "root");
    let calls = [
        DELETION,
        ("group.put", "works"),
        ("identity.delete", "press-1"),
    ];
    let points = [&GENERATION[..], &SHUTTING_OUT, &["roll.done"]];
    let calls = lost(&root, &[&CA_CERTIFICATE, &calls]);
    stage.is_killed_at_each(&points.concat(), &calls, |stage| {
        if says_that_it_is_out(stage, "root") {
            is_refused(stage, &compromised);
        }
    });
    let new = [stage.enlist_when_possible("device", "press-1")];
    operator.join().unwrap();
    for roll in stage.json(&["roll", "list"]).as_array().unwrap() {
        comes_to(&stage, &roll["id"].to_string(), "done");
    }
    stage.is_in_step();
    assert_eq!(ca_certificates(&stage), ["root-2"]);
    each_was_rolled_once(&stage);
    prober.ends();
    is_refused(&stage, &compromised);
    is_assigned(&stage.emulator, &new[0]);
    these_alone_are_known(&stage, &new);
}
