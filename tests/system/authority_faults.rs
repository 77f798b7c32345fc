//! Rolls of intermediates and of roots, while every kind of call that they make fails once: throttled,
//! refused by a version, failed, cut off before and after it was done.
//!
//! Several authorities side by side, each with one of these faults at all of its calls; whatever it
//! was, they come to the same end. The clocks of daemon and service are moved together.

use crate::authority_roll::start;
use crate::device::{is_assigned, register};
use crate::leaf_faults::{FAULTS, all_were_met, side_by_side};
use crate::own_authority::{Call, Kind, OwnAuthority, stage_with, these_alone_are_known};
use crate::prober::Prober;
use crate::request::Holder;
use crate::stage::Stage;
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
/// What a compromise does: the device's identity, and the group that keeps the certificate out.
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
fn arm(stage: &Stage, authorities: &[OwnAuthority], calls: &[&[Call]]) {
    for (authority, action) in authorities.iter().zip(FAULTS) {
        for call in calls.concat() {
            let fault = authority.fault(call, action());
            stage.emulator.inject(fault).unwrap();
        }
    }
}

/// Verifies: the old leaf is let in until its end, the new one from its first issue on to the end of
/// the story, whatever fails; then the old certificate is gone from the slots.
fn expiry(kind: Kind, calls: &[&[Call]], retirement: &[&[Call]]) {
    let authorities = authorities(kind);
    let (stage, old) = stage_with(&authorities);
    arm(&stage, &authorities, calls);
    let old_prober = Prober::honest(&stage, &old);
    for it in &authorities {
        start(&stage, &it.name, "expiry", &["--validity", "5y"]);
    }
    for it in &authorities {
        it.comes_to(&stage, "draining");
    }
    stage.passes(Duration::days(15));
    let new: Vec<Holder> = authorities.iter().map(|it| it.obtain(&stage)).collect();
    let new_prober = Prober::honest(&stage, &new);
    stage.passes(Duration::days(4));
    for it in &authorities {
        it.comes_to(&stage, "draining");
    }
    // The old leaves end tomorrow.
    old_prober.ends();
    all_were_met(&stage);
    arm(&stage, &authorities, retirement);
    stage.passes(Duration::days(12));
    for it in &authorities {
        it.is_rolled_into(&stage, "secondary");
    }
    stage.is_in_step();
    new_prober.ends();
    all_were_met(&stage);
    these_alone_are_known(&stage, &new);
    for old in &old {
        assert_ne!(register(&stage.emulator, old).as_deref(), Ok("assigned"));
    }
}

/// Verifies: when the command answers, the leaf below the compromised certificate is refused at the
/// service and unknown to the hub, and so it stays; the device comes back with a new leaf.
fn compromise(kind: Kind, calls: &[&[Call]]) {
    let authorities = authorities(kind);
    let (stage, compromised) = stage_with(&authorities);
    arm(&stage, &authorities, calls);
    let prober = Prober::compromised(&stage, &compromised);
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
        let told = stage.json(&report);
        assert_eq!(told["receipt"]["complete"], true, "{name}: {told:#}");
        let end = register(&stage.emulator, device);
        assert_ne!(end.as_deref(), Ok("assigned"), "{name}");
        assert_eq!(stage.emulator.hub_identity(id), None, "{name}");
    });
    let new = side_by_side(&authorities, |it| {
        stage.enlist_when_possible(&it.profile(), &it.device())
    });
    for it in &authorities {
        it.is_rolled_into(&stage, "primary");
    }
    stage.is_in_step();
    prober.ends();
    all_were_met(&stage);
    for (authority, device) in authorities.iter().zip(&new) {
        authority.is_blocked(&stage);
        is_assigned(&stage.emulator, device);
    }
    these_alone_are_known(&stage, &new);
}

#[test]
fn an_intermediate_is_rolled_by_expiry_whatever_its_calls_come_to() {
    expiry(Kind::Intermediate, &[&GROUP, &CANARY], &[&GROUP]);
}

#[test]
fn a_root_is_rolled_by_expiry_whatever_its_calls_come_to() {
    expiry(
        Kind::Root,
        &[&GROUP, &CANARY, &CA_CERTIFICATE],
        &[&GROUP, &DELETION],
    );
}

#[test]
fn a_compromised_intermediate_is_replaced_whatever_the_calls_come_to() {
    compromise(Kind::Intermediate, &[&GROUP, &IDENTITY, &BLOCK]);
}

#[test]
fn a_compromised_root_is_replaced_whatever_the_calls_come_to() {
    compromise(Kind::Root, &[&GROUP, &IDENTITY, &CA_CERTIFICATE, &DELETION]);
}
