//! Tests the count of what ends on which day.

use super::*;
use crate::enrollment::role::Role;

const DAY: i64 = 86_400;

#[test]
fn each_newest_leaf_counts_on_its_day() {
    let fixture = Fixture::new();
    let now = 10_000;
    let issue = |name: &str, serial, not_after: i64| {
        let intent = Intent {
            role: Some(Role::Device),
            not_after: unix(not_after),
            ..fixture.intent(name, serial)
        };
        let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
        let on_issued = OnIssued::Device {
            registration_id: name.into(),
            profile: "device".into(),
        };
        fixture.settle(&recorded, on_issued).unwrap();
        recorded.id()
    };
    issue("ended", 2, now);
    issue("first", 3, now + 1);
    issue("first-too", 4, now + DAY);
    issue("second", 5, now + DAY + 1);
    issue("renewed", 6, now + DAY);
    issue("renewed", 7, now + 30 * DAY);
    issue("beyond", 8, now + 90 * DAY + 1);
    let revoked = issue("revoked", 9, now + DAY);
    let sql = "UPDATE certificate SET revoked_at = 5, revocation_reason = 1 WHERE intent = ?1";
    fixture.raw().execute(sql, [revoked.get()]).unwrap();
    let ends = fixture.store.ends_by_day("device", unix(now), 90).unwrap();
    let ends = ends.iter().map(|it| (it.day, it.issuer, it.devices));
    let root = fixture.root;
    assert_eq!(
        ends.collect::<Vec<_>>(),
        [(0, root, 2), (1, root, 1), (29, root, 1)]
    );
}
