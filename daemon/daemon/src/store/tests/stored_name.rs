//! A name or code that this version does not know is an error, never a default.

use super::*;
use crate::x509::revocation::RevocationReason;

impl Fixture {
    /// Writes what CHECK constraints and triggers refuse today, as a newer version may.
    fn as_a_newer_version(&self, sql: &str) {
        let raw = self.raw();
        raw.pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        let triggers: Vec<String> = raw
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        for trigger in triggers {
            raw.execute_batch(&format!("DROP TRIGGER {trigger}"))
                .unwrap();
        }
        raw.execute_batch(sql).unwrap();
    }
}

#[track_caller]
fn unreadable<T: std::fmt::Debug>(read: Result<T, StoreError>, name: &str) {
    let Err(StoreError::Unreadable(message)) = read else {
        panic!("an unknown name was read: {read:?}");
    };
    assert!(message.contains(name), "{message}");
}

#[test]
fn an_unknown_hub_action_is_not_a_deletion() {
    let fixture = Fixture::new();
    let call = NewHubTask {
        provisioning: "dps".into(),
        device: "pump-7".into(),
        action: HubAction::Call,
        enrollment: None,
    };
    let roll = fixture
        .store
        .start_authority_roll(fixture.new_roll(), None, entry("roll.started"));
    fixture.queue(HubCause::Roll(roll.unwrap().id), vec![call]);
    fixture.as_a_newer_version("UPDATE hub_task SET action = 'restart'");
    let due = fixture.store.due_hub_tasks("dps", unix(2_000), 10, true);
    unreadable(due, "restart");
}

#[test]
fn an_unknown_kind_of_enrollment_is_not_a_group() {
    let fixture = Fixture::new();
    let row = fixture.enroll("pump-7");
    fixture.as_a_newer_version("UPDATE enrollment SET kind = 'fleet'");
    unreadable(fixture.store.enrollment(row.id), "fleet");
}

#[test]
fn an_unknown_kind_of_block_is_not_one_of_a_device() {
    let fixture = Fixture::new();
    fixture.block(Excluded::Device("pump-7".into())).unwrap();
    fixture.as_a_newer_version("UPDATE block SET kind = 'line'");
    unreadable(fixture.store.blocks(true, None, 10), "line");
}

#[test]
fn an_unknown_state_of_a_generation_is_not_retirement() {
    let fixture = Fixture::new();
    fixture.as_a_newer_version("UPDATE generation SET state = 'suspended'");
    unreadable(fixture.store.generations(), "suspended");
}

#[test]
fn an_unknown_key_type_is_an_error() {
    let fixture = Fixture::new();
    fixture.as_a_newer_version("UPDATE generation SET key_type = 'ml-dsa-65'");
    unreadable(fixture.store.generations(), "ml-dsa-65");
}

#[test]
fn an_unknown_reason_or_state_of_a_roll_is_an_error() {
    for (sql, name) in [
        ("UPDATE roll SET reason = 'policy'", "policy"),
        ("UPDATE roll SET state = 'resting'", "resting"),
    ] {
        let fixture = Fixture::new();
        let roll =
            fixture
                .store
                .start_authority_roll(fixture.new_roll(), None, entry("roll.started"));
        fixture.as_a_newer_version(sql);
        unreadable(fixture.store.roll(roll.unwrap().id), name);
    }
}

#[test]
fn an_unknown_role_is_not_a_device() {
    let fixture = Fixture::new();
    let sha256 = fixture.issue("pump-7", 2);
    fixture.as_a_newer_version("UPDATE intent SET role = 'admin' WHERE subject = 'pump-7'");
    unreadable(fixture.store.client(&sha256), "admin");
}

/// Such a certificate is revoked, whatever its reason means: it must not be shown as good, nor be
/// revoked a second time with another date, nor be missing from the next list.
#[test]
fn a_certificate_with_an_unknown_revocation_reason_is_not_good() {
    let fixture = Fixture::new();
    let sha256 = fixture.issue("pump-7", 2);
    let revocation = || Revocation {
        target: RevocationTarget::Sha256(sha256),
        at: unix(1_000),
        actor: "test".into(),
        cause: "a test".into(),
    };
    let reason = RevocationReason::Superseded;
    fixture.store.revoke(revocation(), reason).unwrap();
    fixture
        .as_a_newer_version("UPDATE certificate SET revocation_reason = 42 WHERE revoked_at > 0");
    unreadable(fixture.store.revoke(revocation(), reason), "42");
    unreadable(fixture.store.certificate_by_sha256(&sha256), "42");
    unreadable(fixture.store.draft_crl(fixture.root, unix(1_500)), "42");
}

#[test]
fn a_certificate_that_is_revoked_without_a_reason_is_not_good() {
    let fixture = Fixture::new();
    let sha256 = fixture.issue("pump-7", 2);
    fixture.as_a_newer_version("UPDATE certificate SET revoked_at = 1500");
    let revocation = Revocation {
        target: RevocationTarget::Sha256(sha256),
        at: unix(1_000),
        actor: "test".into(),
        cause: "a test".into(),
    };
    let lifted = fixture.store.unrevoke(revocation);
    unreadable(lifted, "NULL");
}

#[test]
fn a_detail_of_the_journal_that_is_not_json_is_an_error() {
    let fixture = Fixture::new();
    fixture.as_a_newer_version(
        "DROP INDEX audit_role; UPDATE audit SET detail = '{' WHERE sequence = 1",
    );
    unreadable(
        fixture.store.audit_after(0, 10, &Default::default()),
        "not JSON",
    );
}

/// A read that fails is reported as what it is, not as a conflict with another command.
#[test]
fn a_failed_read_of_the_groups_is_not_a_conflict() {
    let fixture = Fixture::new();
    fixture
        .raw()
        .execute_batch("ALTER TABLE enrollment RENAME TO elsewhere")
        .unwrap();
    let failed = fixture.block(root_generation());
    assert!(
        matches!(failed, Err(StoreError::Unavailable(_))),
        "{failed:?}"
    );
}
