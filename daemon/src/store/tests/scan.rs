//! What a scan may conclude from what it has not met.

use super::*;

/// Its group was seen in place at 1,000; a page that was read before then cannot show it.
#[test]
fn what_came_into_place_during_a_scan_is_not_missed_by_it() {
    let stage = Stage::new();
    let group = stage.group();
    let scan = stage.store.begin_scan().unwrap();
    let unseen = |begun_at| {
        let (service, kind) = ("dps".to_owned(), EnrollmentKind::Group);
        let store = &stage.store;
        store
            .mark_unseen(service, kind, scan, begun_at, 1_002)
            .unwrap()
    };
    assert_eq!(unseen(1_000), 0);
    assert!(stage.store.enrollment(group.id).unwrap().mark.is_none());
    assert_eq!(unseen(1_001), 1);
    assert!(stage.store.enrollment(group.id).unwrap().mark.is_some());
}
