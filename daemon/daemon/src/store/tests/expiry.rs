//! Tests the counts of certificates that expire soon: by profile, without replaced and revoked
//! ones.

use super::*;
use crate::enrollment::role::Role;
use crate::ids::IntentId;
use crate::x509::revocation::RevocationReason;

const DAY: i64 = 86_400;

/// A certificate of `role` for `name` that ends at `not_after`.
fn issue(
    fixture: &Fixture,
    role: Role,
    profile: &str,
    name: &str,
    serial: u8,
    not_after: UnixSeconds,
) -> IntentId {
    let intent = Intent {
        profile: profile.into(),
        role: Some(role),
        not_after,
        is_device: role == Role::Device,
        moves: Moves::NotFrom([].into()),
        ..fixture.intent(name, serial)
    };
    let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
    let on_issued = match role {
        Role::Device => OnIssued::Device {
            registration_id: name.into(),
            profile: profile.into(),
        },
        _ => OnIssued::Alone,
    };
    fixture.settle(&recorded, on_issued).unwrap();
    recorded.id()
}

fn revoke(fixture: &Fixture, intent: IntentId) {
    let code = RevocationReason::KeyCompromise.code();
    let revoked = "UPDATE certificate SET revoked_at = 5, revocation_reason = ?2 WHERE intent = ?1";
    fixture
        .raw()
        .execute(revoked, (intent.get(), code))
        .unwrap();
}

#[test]
fn the_newest_leaf_of_each_device_counts() {
    let fixture = Fixture::new();
    let device = |name: &str, profile: &str, serial, not_after| {
        issue(&fixture, Role::Device, profile, name, serial, not_after)
    };
    let now = unix(10_000);
    device("renewed", "device", 2, now + DAY / 2);
    device("renewed", "device", 3, now + 40 * DAY);
    device("in-a-day", "device", 4, now + DAY);
    device("in-a-week", "device", 5, now + 6 * DAY);
    device("in-a-month", "device", 6, now + 30 * DAY);
    device("moved", "other", 7, now + 100);
    device("moved", "device", 8, now + 2 * DAY);
    device("ended", "device", 9, now);
    let revoked = device("revoked", "device", 10, now + 10);
    revoke(&fixture, revoked);
    let ending = fixture
        .store
        .ending_devices("device", now, 3 * DAY)
        .unwrap();
    let expected = Ending {
        alarming: 2,
        within: [1, 3, 4],
        next: Some((now + DAY, "in-a-day".into())),
    };
    assert_eq!(ending, expected);
    let none = fixture.store.ending_devices("other", now, DAY).unwrap();
    assert_eq!(none, Ending::default());
}

#[test]
fn the_newest_certificate_of_each_other_name_and_profile_counts() {
    let fixture = Fixture::new();
    let now = unix(10_000);
    let other = |role, profile: &str, name: &str, serial, not_after| {
        issue(&fixture, role, profile, name, serial, not_after)
    };
    other(Role::Device, "device", "press-7", 2, now + 1);
    other(Role::Station, "station", "station-1", 3, now + 10);
    other(Role::Station, "station", "STATION-1", 4, now + 20);
    other(Role::Station, "long", "station-1", 5, now + 30);
    other(Role::Auditor, "auditor", "auditor-1", 6, now);
    let revoked = other(Role::Operator, "operator", "operator-1", 7, now + 50);
    other(Role::Operator, "operator", "operator-2", 8, now + 60);
    revoke(&fixture, revoked);
    let current = fixture.store.current_leaves_of_others(now).unwrap();
    let mut ends: Vec<_> = current
        .iter()
        .map(|it| (it.role.name(), it.profile.as_str(), it.not_after - now))
        .collect();
    ends.sort_unstable();
    assert_eq!(
        ends,
        [
            ("operator", "operator", 60),
            ("station", "long", 30),
            ("station", "station", 20),
        ]
    );
}
