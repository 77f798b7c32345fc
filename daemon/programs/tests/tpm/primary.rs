//! Tests the primary key: persistent or not, derived by hand, and never made in another TPM.

use crate::fixture::{DEADLINE, Fixture};
use hallmarkd::token::health::TokenState;
use std::fs;

const OPERATIONS: &str = include_str!("../../../../docs/operations.md");

#[test]
fn a_persistent_primary_key_is_made_once_and_occupies_no_slot() {
    let mut fixture = Fixture::with("primary_handle = 0x81000101");
    let running = fixture.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    assert_eq!(fixture.tpm.transient_objects(), 1, "the key");
    let listed = fixture.tpm.tool("tpm2_getcap", &["handles-persistent"]);
    assert!(listed.to_lowercase().contains("0x81000101"), "{listed}");
    fixture.tpm.kill();
    running.wait_for(TokenState::Unavailable);
    fixture.tpm.start_again();
    running.signs_again(&key);
    drop(running);

    // It is the same key as the transient one, so the setting can be changed.
    fixture.configure("");
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
}

#[test]
fn a_persistent_handle_with_another_object_is_not_changed() {
    let fixture = Fixture::with("primary_handle = 0x81000101");
    let tools = &fixture.tpm;
    tools.tool(
        "tpm2_createprimary",
        &["-C", "o", "-G", "ecc", "-c", "others.ctx"],
    );
    tools.tool(
        "tpm2_evictcontrol",
        &["-C", "o", "-c", "others.ctx", "0x81000101"],
    );
    tools.tool("tpm2_flushcontext", &["-t"]);
    let before = tools.tool("tpm2_readpublic", &["-c", "0x81000101"]);
    let running = fixture.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("holds another object"), "{health:?}");
    assert_eq!(before, tools.tool("tpm2_readpublic", &["-c", "0x81000101"]));
}

/// The TPM was cleared, like another TPM. Verifies: nothing is made persistent in it before its
/// identity is checked.
#[test]
fn nothing_is_made_persistent_in_a_tpm_that_is_not_ours() {
    let fixture = Fixture::with("primary_handle = 0x81000101");
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    fixture.tpm.tool("tpm2_clear", &[]);
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("cleared or exchanged"), "{health:?}");
    let listed = fixture.tpm.tool("tpm2_getcap", &["handles-persistent"]);
    assert_eq!(listed.trim(), "");
    assert_eq!(fixture.tpm.transient_objects(), 0);
}

/// The template is public, so that the primary key can be made without this program, by the
/// commands in docs/operations.md.
#[test]
fn the_primary_key_is_the_one_that_the_documented_commands_make() {
    let fixture = Fixture::new();
    let running = fixture.start();
    let key = running.key();
    let serial = running.client.describe(DEADLINE).unwrap().serial;
    drop(running);
    let commands = OPERATIONS
        .split("```")
        .find(|it| it.contains("tpm2_createprimary"));
    let commands = commands.unwrap().strip_prefix("sh").unwrap();
    fixture.tpm.tool("sh", &["-ec", commands]);
    let read = ["-c", "0x81000101", "-n", "name"];
    fixture.tpm.tool("tpm2_readpublic", &read);
    let name = fs::read(fixture.path("tpm/name")).unwrap();
    let name: String = name[2..18]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(name, serial);

    fixture.tpm.tool("tpm2_flushcontext", &["-t"]);
    fixture
        .tpm
        .tool("tpm2_changeauth", &["-c", "owner", "mine"]);
    fixture.configure("primary_handle = 0x81000101");
    let running = fixture.start();
    running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
}

#[test]
fn an_owner_authorization_value_is_reported_with_the_remedy_and_not_guessed() {
    let fixture = Fixture::new();
    fixture
        .tpm
        .tool("tpm2_changeauth", &["-c", "owner", "mine"]);
    let running = fixture.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("primary_handle"), "{health:?}");
}
