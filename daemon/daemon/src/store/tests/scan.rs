//! Tests what a scan concludes from enrollments that it has not listed.

use super::*;

#[test]
fn an_enrollment_placed_during_a_scan_is_not_reported_missing() {
    let stage = Stage::new();
    let before = stage.store.begin_scan("dps".into()).unwrap();
    let group = stage.group();
    let unseen = |scan| {
        let (service, kind) = ("dps".to_owned(), EnrollmentKind::Group);
        stage
            .store
            .mark_unseen(service, kind, scan, unix(1_000))
            .unwrap()
    };
    assert_eq!(unseen(before), 0);
    let after = stage.store.begin_scan("dps".into()).unwrap();
    assert_eq!(unseen(after), 1);
    let mark = stage.store.enrollment(group.id).unwrap().mark.unwrap();
    assert_eq!(mark.cause, "no longer listed by the service");
}

#[test]
fn a_page_from_before_our_own_write_is_no_drift() {
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
        stage.store.record_page(page, unix(1_000)).unwrap().raised
    };
    assert_eq!(changed_in(before), 0);
    let after = stage.store.begin_scan("dps".into()).unwrap();
    assert_eq!(changed_in(after), 1);
}
