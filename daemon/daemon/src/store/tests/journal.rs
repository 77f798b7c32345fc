//! Measures the verification of a journal of a million entries.

use super::*;
use crate::journal::checkpoints::Checkpoints;
use crate::journal::verification::{Chain, ENTRIES_AHEAD};
use crate::journal::{Place, seal};
use std::time::{Duration, Instant};

const ENTRIES: i64 = 1_000_000;
const PAGE: usize = 500;

/// Fills a journal with a million entries, and prints how long the whole and its longest portion
/// take: 3.0 to 3.6 s and 30 ms by a build without optimisation.
#[test]
#[ignore = "takes minutes: tests/run --long"]
#[expect(clippy::print_stderr, reason = "the numbers are what is asked for")]
fn a_million_entries_are_verified_in_seconds() {
    let fixture = Fixture::new();
    let mut raw = fixture.raw();
    let end = fixture.store.journal_end().unwrap().unwrap();
    let tx = raw.transaction().unwrap();
    {
        let mut insert = tx
            .prepare(
                "INSERT INTO audit
                 VALUES (?1, 1, 'station line-1', 'certificate.issued', ?2, ?3, ?4)",
            )
            .unwrap();
        let detail = format!("{{\"sha256\":\"{}\",\"role\":\"device\"}}", "ab".repeat(32));
        let mut last = end;
        for sequence in end.sequence + 1..=ENTRIES {
            let subject = format!("device-{sequence}");
            let fields = ["station line-1", "certificate.issued", &subject, &detail];
            let hash = seal(&last.hash, sequence, unix(1), fields);
            insert
                .execute(rusqlite::params![sequence, subject, detail, hash])
                .unwrap();
            last = Place { sequence, hash };
        }
    }
    tx.commit().unwrap();
    let begun = Instant::now();
    let mut chain = Chain::whole(&Checkpoints::default(), None);
    let mut longest = Duration::ZERO;
    let mut next = 1;
    while next <= ENTRIES {
        let page = Instant::now();
        let entries = fixture
            .store
            .journal_from(next, PAGE + ENTRIES_AHEAD)
            .unwrap();
        assert_eq!(chain.follow(&entries, PAGE), None);
        next = chain.place().sequence + 1;
        longest = longest.max(page.elapsed());
    }
    eprintln!("whole: {:?}, longest page: {longest:?}", begun.elapsed());
    assert_eq!(chain.place().sequence, ENTRIES);
}
