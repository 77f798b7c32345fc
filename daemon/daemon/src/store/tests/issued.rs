//! Tests the count of what was issued since a moment.

use super::*;
use crate::enrollment::role::Role;

/// A certificate for `name` that was issued at `at`; or an open intent.
fn issue(fixture: &Fixture, serial: u8, at: i64, is_settled: bool) {
    let name = format!("press-{serial}");
    let intent = Intent {
        role: Some(Role::Device),
        at: unix(at),
        ..fixture.intent(&name, serial)
    };
    let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
    if is_settled {
        let der = join(recorded.tbs(), b"signature");
        let entry = AuditEntry {
            at: unix(at),
            ..entry("certificate.issued")
        };
        let on_issued = OnIssued::Alone;
        let recorded = fixture
            .store
            .record_certificate(&recorded, der, on_issued, entry);
        block_on(recorded).unwrap();
    }
}

#[test]
fn what_was_issued_since_a_moment_is_counted() {
    let fixture = Fixture::new();
    for serial in 2..50 {
        issue(&fixture, serial, 10_000 + 10 * i64::from(serial), true);
    }
    issue(&fixture, 50, 10_500, false);
    let counted = |since| fixture.store.issued_since(unix(since)).unwrap();
    assert_eq!(counted(10_000), 48);
    assert_eq!(counted(10_490), 1);
    assert_eq!(counted(10_491), 0, "an open intent is no certificate");
    for serial in 2..50 {
        let since = 10_000 + 10 * i64::from(serial);
        assert_eq!(counted(since), i64::from(50 - serial));
        assert_eq!(counted(since + 1), i64::from(49 - serial));
    }
}
