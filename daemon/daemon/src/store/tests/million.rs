//! Measures lists over a million certificates.

use super::certificates::anything;
use super::*;

/// Fills a store with a million certificates of which one in 5,000 is rare. Verifies that every
/// list answers within 100 ms, as far as its first page, and that the summary is small.
#[test]
#[ignore = "takes minutes: tests/run --long"]
fn a_million_certificates_are_listed_within_a_tenth_of_a_second() {
    let fixture = Fixture::new();
    let raw = fixture.raw();
    raw.execute_batch(
        "PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;
         DROP TRIGGER certificate_has_an_open_intent; DROP TRIGGER certificate_ends_its_intent;
         DROP TRIGGER intent_opens; DROP TRIGGER intent_under_way;
         BEGIN;
         WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1000001)
         INSERT INTO intent (id, serial, issuer, purpose, profile, subject, key_sha256, tbs,
             not_before, not_after, caller, recorded_at, role)
         SELECT i, randomblob(16), 1, 'leaf', iif(i % 5000 = 0, 'rare', 'device'),
             'device-' || (i % 200000), randomblob(32), randomblob(500), 0,
             iif(i % 7000 = 0, 1550, 100000), 'station line-1', 1000 + i / 10000, 'device' FROM n;
         INSERT INTO certificate (intent, signature, sha256, issued_at, revoked_at,
             revocation_reason)
         SELECT id, randomblob(80), randomblob(32), recorded_at, iif(id % 9000 = 0, 1400, NULL),
             iif(id % 9000 = 0, iif(id % 90000 = 0, 6, 1), NULL)
         FROM intent WHERE id > 1 AND id % 11000 <> 0;
         COMMIT;
         DROP TRIGGER intent_settles_once;
         UPDATE intent SET ended = 'abandoned', abandoned_at = 1400
         WHERE id > 1 AND id % 11000 = 0;",
    )
    .unwrap();
    fixture.store.summarise_certificates().unwrap();
    let ranges = "SELECT count(*) FROM certificate_range";
    let ranges: i64 = raw.query_row(ranges, [], |row| row.get(0)).unwrap();
    assert!(ranges < 20_000, "{ranges}");
    let sha256 = "SELECT sha256 FROM certificate WHERE intent = 500000";
    let sha256: [u8; 32] = raw.query_row(sha256, [], |row| row.get(0)).unwrap();
    let state = |state| CertificateFilter {
        state: Some(state),
        ..anything()
    };
    let rare = CertificateFilter {
        profile: Some("rare".into()),
        ..anything()
    };
    let expiring = CertificateFilter {
        not_after: (unix(1_500), unix(1_600)),
        ..anything()
    };
    for (name, filter) in [
        ("all", anything()),
        (
            "subject",
            CertificateFilter {
                subject: Some("device-77".into()),
                ..anything()
            },
        ),
        (
            "digest",
            CertificateFilter {
                sha256: Some(sha256),
                ..anything()
            },
        ),
        ("rare profile", rare.clone()),
        (
            "no profile",
            CertificateFilter {
                profile: Some("none".into()),
                ..anything()
            },
        ),
        (
            "authority",
            CertificateFilter {
                issuers: Some(vec![fixture.root]),
                ..anything()
            },
        ),
        ("expiring", expiring.clone()),
        (
            "since",
            CertificateFilter {
                issued_since: Some(unix(1_099)),
                ..anything()
            },
        ),
        ("valid", state(CertificateState::Valid)),
        ("expired", state(CertificateState::Expired)),
        ("revoked", state(CertificateState::Revoked)),
        ("on hold", state(CertificateState::OnHold)),
        ("abandoned", state(CertificateState::Abandoned)),
        (
            "rare, on hold and expiring",
            CertificateFilter {
                state: Some(CertificateState::OnHold),
                not_after: expiring.not_after,
                ..rare
            },
        ),
    ] {
        let begun = std::time::Instant::now();
        let page = fixture.store.search_certificates(&filter).unwrap();
        let elapsed = begun.elapsed();
        let rows = page.rows.len();
        assert!(
            elapsed.as_millis() < 100,
            "{name}: {elapsed:?}, {rows} rows"
        );
    }
}
