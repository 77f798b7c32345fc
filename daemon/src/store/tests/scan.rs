//! What a scan may conclude from what it has not met.

use super::*;

#[test]
fn what_came_into_place_during_a_scan_is_not_missed_by_it() {
    let stage = Stage::new();
    let before = stage.store.begin_scan("dps".into()).unwrap();
    let group = stage.group();
    let unseen = |scan| {
        let (service, kind) = ("dps".to_owned(), EnrollmentKind::Group);
        stage.store.mark_unseen(service, kind, scan, 1_000).unwrap()
    };
    assert_eq!(unseen(before), 0);
    let after = stage.store.begin_scan("dps".into()).unwrap();
    assert_eq!(unseen(after), 1);
    let mark = stage.store.enrollment(group.id).unwrap().mark.unwrap();
    assert_eq!(mark.cause, "no longer listed by the service");
}

#[test]
fn a_page_from_before_our_own_write_tells_of_nobody_elses() {
    let stage = Stage::new();
    let before = stage.store.begin_scan("dps".into()).unwrap();
    let group = stage.group();
    let changed_in = |scan| {
        let page = ScannedPage {
            scan,
            seen: vec![group.id],
            changed: vec![group.id],
            ..ScannedPage::default()
        };
        stage.store.record_page(page, 1_000).unwrap().raised
    };
    assert_eq!(changed_in(before), 0);
    let after = stage.store.begin_scan("dps".into()).unwrap();
    assert_eq!(changed_in(after), 1);
}
