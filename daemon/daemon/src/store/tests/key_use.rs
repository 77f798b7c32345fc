//! Tests that counts of signatures are added up over workers, each signature once.

use super::*;

const FIRST: [u8; 8] = [1; 8];
const SECOND: [u8; 8] = [2; 8];

impl Fixture {
    fn report(&self, worker: [u8; 8], proofs: u64, credentials: u64) {
        let count = |key: &str, kind, made| KeyCount {
            key: key.into(),
            label: "line".into(),
            kind,
            made,
        };
        let counts = vec![
            count("aa", KeyUse::Proof, proofs),
            count("bb", KeyUse::Credential, credentials),
        ];
        self.store
            .record_key_counts("factory".into(), worker, counts, unix(1_000))
            .unwrap();
    }

    fn recorded_uses(&self) -> Vec<serde_json::Value> {
        let journal = self
            .store
            .audit_after(0, 100, &Default::default())
            .unwrap()
            .into_iter();
        let used = journal.filter(|it| it.action == "key.used");
        used.map(|it| it.detail).collect()
    }
}

#[test]
fn counts_of_workers_are_added_up_and_known_counts_are_not_recorded_again() {
    let fixture = Fixture::new();
    fixture.report(FIRST, 2, 0);
    fixture.report(FIRST, 2, 0);
    fixture.report(FIRST, 5, 1);
    // Another worker counts from zero, and one that forgot a key does, too.
    fixture.report(SECOND, 4, 1);
    fixture.report(SECOND, 1, 1);
    let proofs = fixture.store.key_proofs("factory").unwrap();
    assert_eq!(proofs["aa"], 2 + 3 + 4 + 1);
    let entries = fixture.recorded_uses();
    let new: Vec<_> = entries
        .iter()
        .map(|it| it["proofs"][0]["new"].as_i64())
        .collect();
    assert_eq!(new, [2, 3, 4, 1].map(Some));
    assert_eq!(entries[1]["credentials"][0]["total"], 1);
    assert_eq!(entries[2]["credentials"][0]["total"], 2);
    assert!(entries[3]["credentials"].is_null());
}
