//! Tests what a scan concludes from enrollments that it has not listed.

use super::*;
use crate::store::engine::Tx;
use crate::store::unknown_enrollment::UNKNOWN_MAX;

#[test]
fn an_enrollment_placed_during_a_scan_is_not_reported_missing() {
    let fixture = Fixture::new();
    let before = fixture.store.begin_scan("dps".into()).unwrap();
    let group = fixture.group();
    let unseen = |scan| {
        let (service, kind) = ("dps".to_owned(), EnrollmentKind::Group);
        fixture
            .store
            .mark_unseen(service, kind, scan, unix(1_000))
            .unwrap()
    };
    assert_eq!(unseen(before), 0);
    let after = fixture.store.begin_scan("dps".into()).unwrap();
    assert_eq!(unseen(after), 1);
    let mark = fixture.store.enrollment(group.id).unwrap().mark.unwrap();
    assert_eq!(mark.cause, "no longer listed by the service");
}

#[test]
fn a_page_from_before_our_own_write_is_no_drift() {
    let fixture = Fixture::new();
    let before = fixture.store.begin_scan("dps".into()).unwrap();
    let group = fixture.group();
    let changed_in = |scan| {
        let page = ScannedPage {
            scan,
            seen: vec![group.id],
            changed: vec![group.id],
            ..ScannedPage::default()
        };
        fixture.store.record_page(page, unix(1_000)).unwrap().raised
    };
    assert_eq!(changed_in(before), 0);
    let after = fixture.store.begin_scan("dps".into()).unwrap();
    assert_eq!(changed_in(after), 1);
}

fn found(name: &str) -> FoundEnrollment {
    FoundEnrollment {
        provisioning: "dps".into(),
        kind: EnrollmentKind::Individual,
        name: name.into(),
        enabled: true,
        record: json!({ "registrationId": name, "etag": "\"e\"" }),
    }
}

#[test]
fn unknown_enrollments_are_listed_until_they_are_on_record_or_gone() {
    let fixture = Fixture::new();
    let names = || -> Vec<String> {
        let unknown = fixture.store.unknown_enrollments(0, 10).unwrap();
        unknown.into_iter().map(|it| it.found.name).collect()
    };
    let page_of = |names: &[&str]| {
        let scan = fixture.store.begin_scan("dps".into()).unwrap();
        let page = ScannedPage {
            scan,
            unknown: names.iter().map(|it| found(it)).collect(),
            ..ScannedPage::default()
        };
        let effect = fixture.store.record_page(page, unix(1_000)).unwrap();
        assert_eq!(effect.left_out, 0);
        scan
    };
    page_of(&["press-7", "press-8", "press-9"]);
    assert_eq!(names(), ["press-7", "press-8", "press-9"]);
    fixture.enroll("PRESS-8");
    assert_eq!(names(), ["press-7", "press-9"]);
    let scan = page_of(&["press-9"]);
    let (service, kind) = ("dps".to_owned(), EnrollmentKind::Individual);
    let seen = fixture.store.mark_unseen(service, kind, scan, unix(1_000));
    assert_eq!(seen.unwrap(), 0);
    assert_eq!(names(), ["press-9"]);
}

#[test]
fn too_many_unknown_enrollments_are_left_out_and_counted() {
    let fixture = Fixture::new();
    let names = 0..UNKNOWN_MAX + 2;
    let page = || ScannedPage {
        scan: 1,
        unknown: names
            .clone()
            .map(|it| found(&format!("press-{it}")))
            .collect(),
        ..ScannedPage::default()
    };
    for _ in 0..2 {
        let effect = fixture.store.record_page(page(), unix(1_000)).unwrap();
        assert_eq!(effect.left_out, 2);
    }
}

/// A change waited at the restore since an earlier second, since the same one, or by a clock that
/// was ahead. Verifies: each is older than the end of the lost period, and a change that comes in
/// the second of the restore is not.
#[test]
fn what_waited_at_a_restore_is_older_than_its_end() {
    for raised in [19, 20, 30] {
        let fixture = Fixture::new();
        let group = MarkSubject::Enrollment(fixture.group().id);
        let raise = |at| move |tx: &Tx<'_>| mark::raise(tx, group, "changed", unix(at));
        fixture.store.write(raise(raised)).unwrap();
        fixture
            .store
            .write(|tx| restore::record(tx, unix(10), unix(20)))
            .unwrap();
        let until = fixture.store.lost_period().unwrap().unwrap().until;
        let (_, _, waited) = fixture.store.push_queue(1).unwrap().remove(0);
        assert!(waited.since < until, "{raised}: {:?}", waited.since);
        fixture
            .store
            .complete_mark(&waited, Observation::Gone, unix(20))
            .unwrap();
        fixture.store.write(raise(20)).unwrap();
        let (_, _, later) = fixture.store.push_queue(1).unwrap().remove(0);
        assert_eq!(later.since, until);
    }
}
