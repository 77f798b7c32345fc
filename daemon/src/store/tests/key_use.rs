//! Signatures on no other record are added up over workers, each counted once.

use super::*;

const FIRST: [u8; 8] = [1; 8];
const SECOND: [u8; 8] = [2; 8];

impl Stage {
    fn told(&self, worker: [u8; 8], proofs: u64, credentials: u64) {
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
            .record_key_counts("factory".into(), worker, counts, 1_000)
            .unwrap();
    }

    fn uses_told(&self) -> Vec<serde_json::Value> {
        let journal = self.store.audit_after(0, 100).unwrap().into_iter();
        let used = journal.filter(|it| it.action == "key.used");
        used.map(|it| it.detail).collect()
    }
}

#[test]
fn counts_of_workers_are_added_up_and_what_is_known_is_not_told_again() {
    let stage = Stage::new();
    stage.told(FIRST, 2, 0);
    stage.told(FIRST, 2, 0);
    stage.told(FIRST, 5, 1);
    // Another worker counts from zero, and one that forgot a key does, too.
    stage.told(SECOND, 4, 1);
    stage.told(SECOND, 1, 1);
    let proofs = stage.store.key_proofs("factory").unwrap();
    assert_eq!(proofs["aa"], 2 + 3 + 4 + 1);
    let told = stage.uses_told();
    let new: Vec<_> = told
        .iter()
        .map(|it| it["proofs"][0]["new"].as_i64())
        .collect();
    assert_eq!(new, [2, 3, 4, 1].map(Some));
    assert_eq!(told[1]["credentials"][0]["total"], 1);
    assert_eq!(told[2]["credentials"][0]["total"], 2);
    assert!(told[3]["credentials"].is_null());
}
