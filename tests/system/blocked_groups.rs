//! Tests that a blocked group admits no device where it holds no certificate: another program has
//! deleted the CA certificate of a group by reference, so DPS finds the group above.

use crate::ca_drift::has_drifted;
use crate::device::is_assigned;
use crate::excluded::{
    BLOCK_LINE, UNBLOCK_LINE, has_blocking_group, has_no_blocking_group, is_out, line_by_reference,
    the_group_alone_is_parked,
};
use crate::process::until;

const BLOCK: [&str; 4] = ["enrollment", "block", "--group", "line"];
const UNBLOCK: [&str; 4] = ["enrollment", "unblock", "--group", "line"];

/// Verifies: a block of the group adds a blocking group, and its receipt names the group that the
/// service does not take; the blocking group is not removed on its own; when the block is lifted,
/// the device comes back.
#[test]
fn a_blocked_group_whose_ca_certificate_was_deleted_admits_nothing() {
    let (env, device) = line_by_reference();
    assert!(env.emulator.delete_authority("line-1-1"));
    has_drifted(&env, "line-1-1", "deleted");
    is_assigned(&env.emulator, &device);
    let blocked = env.json(&BLOCK);
    has_blocking_group(&env);
    is_out(&env, &device);
    assert!(env.emulator.hub_identity("press-7").is_none(), "{blocked}");
    the_group_alone_is_parked(&blocked);
    let remove = ["enrollment", "remove", "--group", "line-1-blocked-1"];
    let refused = env.hallmark(&remove);
    assert!(
        refused
            .error
            .contains("hallmark enrollment unblock --group line"),
        "{refused:?}"
    );
    env.json(&UNBLOCK);
    has_no_blocking_group(&env);
    is_assigned(&env.emulator, &device);
}

/// The same happens while the block is in force. Verifies: the next scan adds a blocking group; the
/// end of the block removes it.
#[test]
fn a_ca_certificate_that_is_deleted_during_a_block_of_its_group_readmits_nothing() {
    let (env, device) = line_by_reference();
    let blocked = env.json(&BLOCK);
    assert_eq!(blocked["receipt"]["complete"], true, "{blocked}");
    assert!(env.emulator.group("line-1-blocked-1").is_none());
    assert!(env.emulator.delete_authority("line-1-1"));
    has_blocking_group(&env);
    is_out(&env, &device);
    until("the hub has no identity", || {
        env.emulator.hub_identity("press-7").is_none().then_some(())
    });
    env.json(&UNBLOCK);
    has_no_blocking_group(&env);
    is_assigned(&env.emulator, &device);
}

/// The group and its generation are blocked. Verifies: the blocking group stays until the last of
/// both blocks ends, whichever is first.
#[test]
fn a_blocking_group_that_two_blocks_need_ends_with_the_last_of_them() {
    for [first, last] in [[&UNBLOCK[..], &UNBLOCK_LINE], [&UNBLOCK_LINE, &UNBLOCK]] {
        let (env, device) = line_by_reference();
        assert!(env.emulator.delete_authority("line-1-1"));
        has_drifted(&env, "line-1-1", "deleted");
        env.json(&BLOCK);
        env.json(&BLOCK_LINE);
        has_blocking_group(&env);
        env.json(first);
        has_blocking_group(&env);
        is_out(&env, &device);
        env.json(last);
        has_no_blocking_group(&env);
        is_assigned(&env.emulator, &device);
    }
}

/// The group of the root comes after the block. Verifies: DPS holds the blocking group before it.
#[test]
fn a_group_above_that_is_added_later_admits_no_device_of_a_blocked_group() {
    let (env, device) = line_by_reference();
    env.run(&["enrollment", "remove", "--group", "works"]);
    until("the group of the root is gone", || {
        env.emulator.group("works").is_none().then_some(())
    });
    assert!(env.emulator.delete_authority("line-1-1"));
    has_drifted(&env, "line-1-1", "deleted");
    env.json(&BLOCK);
    assert!(env.emulator.group("line-1-blocked-1").is_none());
    env.add_group("works", "root");
    until("the group of the root is there", || {
        env.emulator.group("works")
    });
    has_blocking_group(&env);
    is_out(&env, &device);
    env.json(&UNBLOCK);
    has_no_blocking_group(&env);
    is_assigned(&env.emulator, &device);
}
