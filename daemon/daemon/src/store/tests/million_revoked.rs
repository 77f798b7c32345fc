//! Measures the drafts of revocation lists over a million revoked certificates.

use super::*;
use crate::store::CrlPart;
use std::time::Instant;

/// Fills a store with a million revoked certificates. Verifies that the draft of one of 256
/// partitions takes a few seconds at most, and has its share.
#[test]
#[ignore = "takes minutes: tests/run --long"]
fn a_partition_of_a_million_revoked_certificates_is_drafted_within_seconds() {
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
         SELECT i, randomblob(16), 1, 'leaf', 'device', 'device-' || i, randomblob(32),
             randomblob(500), 0, 100000, 'station line-1', 1000 + i / 10000, 'device' FROM n;
         INSERT INTO certificate (intent, signature, sha256, issued_at, revoked_at,
             revocation_reason)
         SELECT id, randomblob(80), randomblob(32), recorded_at, 1400, 1
         FROM intent WHERE id > 1;
         COMMIT;",
    )
    .unwrap();
    for count in [1, 256] {
        let part = CrlPart {
            generation: fixture.root,
            count,
            part: 1,
        };
        let began = Instant::now();
        let draft = fixture.store.draft_crl(part, unix(2_000)).unwrap();
        let took = began.elapsed();
        println!(
            "{count} partitions: {} entries, {took:?}",
            draft.entries.len()
        );
        assert!(took.as_secs() < 20, "{took:?}");
        let share = 1_000_000 / usize::from(count);
        assert!(draft.entries.len().abs_diff(share) <= share / 10);
    }
}
