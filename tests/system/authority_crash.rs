//! Tests rollovers of intermediates and roots while the daemon is killed at every step, and each
//! time that DPS has done a call whose answer is still on the way.
//!
//! After every interruption the end is that of an undisturbed rollover: one next generation of each
//! authority, and devices keep their names.

use crate::authority_roll::{
    ca_certificates, comes_to, entry_of, references, second_signs, start, under_the_root,
};
use crate::crash_point::reported;
use crate::device::{is_assigned, register};
use crate::own_authority::{Call, Kind, OwnAuthority, env_with, these_alone_are_known};
use crate::prober::Prober;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use time::Duration;

const GENERATION: [&str; 4] = [
    "roll-generation-planned",
    "roll-generation-keyed",
    // The certificate is signed, and not on record.
    "cycle-8",
    "roll-generation-staged",
];
const CUT_OVER: [&str; 2] = ["roll.staged", "roll.cut_over"];
const SHUTTING_OUT: [&str; 5] = [
    "roll-compromise-recorded",
    "roll.excluded",
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

/// Returns true if a compromised authority is excluded as far as its rollover says.
fn says_that_it_is_out(env: &TestEnv, authority: &str) -> bool {
    let past = format!(
        "roll WHERE authority = '{authority}' AND state IN ('clearing', 'reissuing', 'done')"
    );
    env.count(&past) == 1
}

fn is_refused(env: &TestEnv, device: &Holder) {
    let end = register(&env.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// Verifies: DPS accepts a device with the old leaf until the leaf ends, and one with the new leaf
/// from its first issue on.
#[test]
fn an_intermediate_is_rolled_although_the_daemon_is_killed_at_every_step() {
    let bay = OwnAuthority::new(Kind::Intermediate, "bay-1");
    let (mut env, old) = env_with(std::slice::from_ref(&bay));
    let old_prober = Prober::honest(&env, &old);
    env.kill();
    let calls = lost(&bay, &[&[("group.put", "NAME")], &CANARY]);
    env.is_killed_at_each(&[&GENERATION[..], &CUT_OVER].concat(), &calls, |env| {
        if env.count("roll") == 0 {
            start(env, "bay-1", "expiry", &["--validity", "5y"]);
        }
    });
    bay.comes_to(&env, "draining");
    env.passes(Duration::days(15));
    let new = [bay.obtain(&env)];
    let new_prober = Prober::honest(&env, &new);
    env.passes(Duration::days(4));
    // The old leaf ends tomorrow.
    old_prober.ends();
    env.kill();
    let calls = lost(&bay, &[&[("group.put", "NAME")]]);
    let mut waited = false;
    env.is_killed_at_each(&["roll.retired", "roll.done"], &calls, |env| {
        if !waited {
            env.passes(Duration::days(12));
            waited = true;
        }
    });
    bay.is_rolled_into(&env, "secondary");
    env.wait_in_sync();
    new_prober.ends();
    these_alone_are_known(&env, &new);
    is_refused(&env, &old[0]);
}

/// The whole hierarchy. Verifies: DPS accepts the old leaf until its device has a new one; each
/// authority is published before it signs; the old root is deleted in the end.
#[test]
fn a_root_is_rolled_although_the_daemon_is_killed_at_every_step() {
    let mut env = crate::authority_roll::retiring_when_proven();
    let old = under_the_root(&mut env);
    let old_prober = Prober::honest(&env, std::slice::from_ref(&old));
    env.kill();
    let root = OwnAuthority::new(Kind::Root, "root");
    let group = ("group.put", "works");
    let calls = lost(&root, &[&CA_CERTIFICATE, &CANARY, &[group]]);
    env.is_killed_at_each(&[&GENERATION[..], &CUT_OVER].concat(), &calls, |env| {
        if env.count("roll") == 0 {
            start(env, "root", "expiry", &[]);
        }
    });
    until("all below sign under the new root", || {
        // Those with a device below drain until it has a new leaf.
        let open = "roll WHERE authority <> 'root' AND state NOT IN ('draining', 'done')";
        let below = ["plant", "line-1", "operations"];
        let all = below.iter().all(|it| second_signs(&env, it));
        (all && env.count(open) == 0).then_some(())
    });
    old_prober.ends();
    env.kill();
    // Nothing is retired before the device has a new leaf.
    let points = ["roll.retired", "roll.withdrawn", "roll.done-root"];
    let calls = lost(&root, &[&[group, DELETION]]);
    let mut new = None;
    env.is_killed_at_each(&points, &calls, |env| {
        // Until the token is ready after a start, the answer is 503.
        if new.is_none() {
            new = env.try_to_issue(&Request::device("press-1"));
            new.iter()
                .for_each(|device| is_assigned(&env.emulator, device));
        }
    });
    assert!(new.is_some(), "the line signs");
    for roll in env.json(&["roll", "list"]).as_array().unwrap() {
        comes_to(&env, &roll["id"].to_string(), "done");
    }
    env.wait_in_sync();
    assert_eq!(ca_certificates(&env), ["root-2"]);
    assert!(references(&env, "works")["primary"].is_null());
    assert_eq!(references(&env, "works")["secondary"], "root-2");
    let places = ["root", "plant", "line-1"].map(|it| entry_of(&env, "roll.cut_over", it));
    assert!(places.is_sorted(), "{places:?}");
    each_was_rolled_once(&env);
    these_alone_are_known(&env, new.as_slice());
    is_refused(&env, &old);
}

/// The hierarchy of the ceremony that ships.
fn each_was_rolled_once(env: &TestEnv) {
    for authority in ["root", "plant", "line-1", "operations"] {
        let generations = format!("generation WHERE authority = '{authority}'");
        assert_eq!(env.count(&generations), 2, "{authority}");
        let rolls = format!("roll WHERE authority = '{authority}'");
        assert_eq!(env.count(&rolls), 1, "{authority}");
    }
}

/// Verifies: once refused, the compromised leaf is never accepted again, and it is refused when the
/// rollover says so; a disabled group excludes its certificate; the device comes back with a new
/// leaf.
#[test]
fn a_compromised_intermediate_is_replaced_although_the_daemon_is_killed_at_every_step() {
    let bay = OwnAuthority::new(Kind::Intermediate, "bay-1");
    let (mut env, compromised) = env_with(std::slice::from_ref(&bay));
    let prober = Prober::excluded(&env, &compromised);
    env.kill();
    let operator = reported(&env, &["--authority", "bay-1"]);
    // First without the compromised certificate, then with the next one.
    let group = ("group.put", "NAME");
    let calls = [
        ("group.put", "NAME-blocked-"),
        group,
        group,
        ("identity.delete", "NAME-press"),
    ];
    let points = [&GENERATION[..], &SHUTTING_OUT, &["roll.done"]];
    let mut new = Vec::new();
    env.is_killed_at_each(&points.concat(), &lost(&bay, &[&calls]), |env| {
        if says_that_it_is_out(env, "bay-1") {
            is_refused(env, &compromised[0]);
        }
        if new.is_empty() && second_signs(env, "bay-1") {
            new.extend(bay.try_to_obtain(env));
        }
    });
    operator.join().unwrap();
    bay.is_rolled_into(&env, "primary");
    env.wait_in_sync();
    bay.is_blocked(&env);
    prober.ends();
    is_refused(&env, &compromised[0]);
    is_assigned(&env.emulator, &new[0]);
    these_alone_are_known(&env, &new);
}

/// The same for a root with all authorities below it: its CA certificate is deleted, and the next
/// one is verified and referenced.
#[test]
fn a_compromised_root_is_replaced_although_the_daemon_is_killed_at_every_step() {
    let mut env = TestEnv::new();
    let compromised = under_the_root(&mut env);
    let prober = Prober::excluded(&env, std::slice::from_ref(&compromised));
    env.kill();
    let operator = reported(&env, &["--authority", "root"]);
    let root = OwnAuthority::new(Kind::Root, "root");
    let calls = [
        DELETION,
        ("group.put", "works"),
        ("identity.delete", "press-1"),
    ];
    let points = [&GENERATION[..], &SHUTTING_OUT, &["roll.done-root"]];
    let calls = lost(&root, &[&CA_CERTIFICATE, &calls]);
    env.is_killed_at_each(&points.concat(), &calls, |env| {
        if says_that_it_is_out(env, "root") {
            is_refused(env, &compromised);
        }
    });
    let new = [env.enlist_when_possible("device", "press-1")];
    operator.join().unwrap();
    for roll in env.json(&["roll", "list"]).as_array().unwrap() {
        comes_to(&env, &roll["id"].to_string(), "done");
    }
    env.wait_in_sync();
    assert_eq!(ca_certificates(&env), ["root-2"]);
    each_was_rolled_once(&env);
    prober.ends();
    is_refused(&env, &compromised);
    is_assigned(&env.emulator, &new[0]);
    these_alone_are_known(&env, &new);
}
