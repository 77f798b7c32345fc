//! The write-ahead log is copied into the database beside the writer.

use super::*;
use std::fs;

/// 64 MiB are written, as entries of 128 KiB. Verifies: the log is begun again and again, so it
/// stays smaller than what was written, and every entry is on record.
#[test]
fn the_log_is_copied_while_the_writer_goes_on() {
    const ENTRIES: i64 = 512;
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("hallmark.db")).expect("a store");
    let filler = "x".repeat(128 * 1024);
    for _ in 0..ENTRIES {
        let entry = AuditEntry {
            at: unix(1_000),
            actor: "hallmarkd".into(),
            action: "test.written",
            subject: "filler".into(),
            detail: serde_json::json!({ "filler": filler }),
        };
        pollster::block_on(store.record_audit(entry)).expect("recorded");
    }
    let log = fs::metadata(folder.path().join("hallmark.db-wal")).expect("a log");
    assert!(log.len() < 48 << 20, "{} bytes", log.len());
    let verdict = store.verify_audit().expect("readable");
    assert_eq!((verdict.entries, verdict.broken_at), (ENTRIES, None));
}
