//! Tests rollovers of intermediates and roots while every kind of call fails once: throttled,
//! refused by a version, failed, cut off before and after it was done.
//!
//! Several authorities roll side by side, each with one of these faults at all of its calls, and
//! come to the same end. The clocks of daemon and service move together.

use crate::authority_roll::start;
use crate::device::{is_assigned, register};
use crate::leaf_faults::{FAULTS, all_were_met, side_by_side};
use crate::own_authority::{Call, Kind, OwnAuthority, env_with, these_alone_are_known};
use crate::prober::Prober;
use crate::request::Holder;
use crate::test_env::TestEnv;
use time::Duration;

const GROUP: [Call; 2] = [("group.get", "NAME"), ("group.put", "NAME")];
const CANARY: [Call; 3] = [
    ("device.register", "hallmark-canary-NAME-"),
    ("identity.delete", "hallmark-canary-NAME-"),
    ("registration.delete", "hallmark-canary-NAME-"),
];
const CA_CERTIFICATE: [Call; 4] = [
    ("authority.get", "NAME"),
    ("authority.put", "NAME"),
    ("authority.code", "NAME"),
    ("authority.verify", "NAME"),
];
const DELETION: [Call; 1] = [("authority.delete", "NAME")];
/// The calls of a compromise: the device's identity, and the group that excludes the certificate.
const IDENTITY: [Call; 1] = [("identity.delete", "NAME-press")];
const BLOCK: [Call; 2] = [
    ("group.get", "NAME-blocked-"),
    ("group.put", "NAME-blocked-"),
];

/// One authority for each fault.
fn authorities(kind: Kind) -> Vec<OwnAuthority> {
    let numbers = 1..=FAULTS.len();
    numbers
        .map(|number| OwnAuthority::new(kind, &format!("bay-{number}")))
        .collect()
}

/// Each authority has its fault at all of these calls.
fn arm(env: &TestEnv, authorities: &[OwnAuthority], calls: &[&[Call]]) {
    for (authority, action) in authorities.iter().zip(FAULTS) {
        for call in calls.concat() {
            let fault = authority.fault(call, action());
            env.emulator.inject(fault).unwrap();
        }
    }
}

/// Verifies: whatever fails, DPS accepts the old leaf until its end, and the new one from its first
/// issue to the end of the test; then the old certificate is gone from the slots.
fn expiry(kind: Kind, calls: &[&[Call]], retirement: &[&[Call]]) {
    let authorities = authorities(kind);
    let (env, old) = env_with(&authorities);
    arm(&env, &authorities, calls);
    let old_prober = Prober::honest(&env, &old);
    for it in &authorities {
        start(&env, &it.name, "expiry", &["--validity", "5y"]);
    }
    for it in &authorities {
        it.comes_to(&env, "draining");
    }
    env.passes(Duration::days(15));
    let new: Vec<Holder> = authorities.iter().map(|it| it.obtain(&env)).collect();
    let new_prober = Prober::honest(&env, &new);
    env.passes(Duration::days(4));
    for it in &authorities {
        it.comes_to(&env, "draining");
    }
    // The old leaves end tomorrow.
    old_prober.ends();
    all_were_met(&env);
    arm(&env, &authorities, retirement);
    env.passes(Duration::days(12));
    for it in &authorities {
        it.is_rolled_into(&env, "secondary");
    }
    env.wait_in_sync();
    new_prober.ends();
    all_were_met(&env);
    these_alone_are_known(&env, &new);
    for old in &old {
        assert_ne!(register(&env.emulator, old).as_deref(), Ok("assigned"));
    }
}

/// Verifies: when the command answers, DPS refuses the leaf below the compromised certificate, and
/// the hub has no identity for it, for good; the device comes back with a new leaf.
fn compromise(kind: Kind, calls: &[&[Call]]) {
    let authorities = authorities(kind);
    let (env, compromised) = env_with(&authorities);
    arm(&env, &authorities, calls);
    let prober = Prober::excluded(&env, &compromised);
    let pairs: Vec<_> = authorities.iter().zip(&compromised).collect();
    side_by_side(&pairs, |(authority, device)| {
        let (name, id) = (&authority.name, &device.id);
        let report = [
            "roll",
            "start",
            "--authority",
            name,
            "--reason",
            "compromise",
        ];
        let output = env.json(&report);
        assert_eq!(output["receipt"]["complete"], true, "{name}: {output:#}");
        let end = register(&env.emulator, device);
        assert_ne!(end.as_deref(), Ok("assigned"), "{name}");
        assert_eq!(env.emulator.hub_identity(id), None, "{name}");
    });
    let new = side_by_side(&authorities, |it| {
        env.enlist_when_possible(&it.profile(), &it.device())
    });
    for it in &authorities {
        it.is_rolled_into(&env, "primary");
    }
    env.wait_in_sync();
    prober.ends();
    all_were_met(&env);
    for (authority, device) in authorities.iter().zip(&new) {
        authority.is_blocked(&env);
        is_assigned(&env.emulator, device);
    }
    these_alone_are_known(&env, &new);
}

#[test]
fn an_intermediate_is_rolled_by_expiry_whatever_its_calls_return() {
    expiry(Kind::Intermediate, &[&GROUP, &CANARY], &[&GROUP]);
}

#[test]
fn a_root_is_rolled_by_expiry_whatever_its_calls_return() {
    expiry(
        Kind::Root,
        &[&GROUP, &CANARY, &CA_CERTIFICATE],
        &[&GROUP, &DELETION],
    );
}

#[test]
fn a_compromised_intermediate_is_replaced_whatever_its_calls_return() {
    compromise(Kind::Intermediate, &[&GROUP, &IDENTITY, &BLOCK]);
}

#[test]
fn a_compromised_root_is_replaced_whatever_its_calls_return() {
    compromise(Kind::Root, &[&GROUP, &IDENTITY, &CA_CERTIFICATE, &DELETION]);
}
