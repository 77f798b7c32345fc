//! Keeps the file beside the certificates of `hallmark issue-batch`, in which each certificate has
//! a line: so a repeat of the command sends only the requests that are left.
//!
//! A line is JSON. If it was cut off, or is no line of this file, it counts as absent: its request
//! is sent again, and the daemon answers with the certificate that it has issued.

use super::list::short_digest;
use hallmark_base::files;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// The name of the file, in the folder of the certificates.
pub(super) const RESULTS: &str = "issued.jsonl";
/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// The certificates that this command, or an earlier one, has written.
pub(super) struct Results {
    file: File,
    /// By 16 bytes of the idempotency key; with their lines, if these are shown at the end.
    written: HashMap<[u8; 16], Option<Value>>,
    keeps_lines: bool,
}

impl Results {
    /// Reads the file in `folder`, and opens it for further lines.
    pub(super) fn open(folder: &Path, keeps_lines: bool) -> io::Result<Self> {
        let path = folder.join(RESULTS);
        let mut file = files::open_for_lines(&path)?;
        let mut results = Self {
            file: file.try_clone()?,
            written: HashMap::new(),
            keeps_lines,
        };
        let mut lines = BufReader::new(&file);
        let mut line = Vec::new();
        while read_line(&mut lines, &mut line)? {
            if let Ok(record) = serde_json::from_slice::<Value>(&line) {
                results.note(record);
            }
        }
        if !line.is_empty() && !line.ends_with(b"\n") {
            // The next line must not be a part of one that was cut off.
            file.write_all(b"\n")?;
        }
        Ok(results)
    }

    fn note(&mut self, record: Value) {
        if let Some(key) = record["idempotency_key"].as_str() {
            let key = short_digest(key.as_bytes());
            self.written.insert(key, self.keeps_lines.then_some(record));
        }
    }

    /// Returns the line of a request that was answered before; `Some(None)` if lines are not kept.
    pub(super) fn of(&self, idempotency_key: &str) -> Option<Option<&Value>> {
        let found = self.written.get(&short_digest(idempotency_key.as_bytes()));
        found.map(Option::as_ref)
    }

    /// Adds the line of a certificate that was written.
    pub(super) fn add(&mut self, record: &Value) -> io::Result<()> {
        self.file.write_all(format!("{record}\n").as_bytes())
    }
}

/// Reads the next line, whose rest is skipped if it is too long. Keeps the last one at the end.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut next = Vec::new();
    let read = io::Read::take(&mut *from, LINE_BYTES_MAX).read_until(b'\n', &mut next)?;
    if read == 0 {
        return Ok(false);
    }
    *line = next;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_that_were_cut_off_are_absent_and_harm_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let record = |key: &str| json!({ "idempotency_key": key, "serial": "5A" });
        let open = || Results::open(folder.path(), true).expect("readable");
        open().add(&record("first")).expect("writable");
        let path = folder.path().join(RESULTS);
        let mut text = std::fs::read(&path).expect("readable");
        text.extend(b"\xff no line\n{\"idempotency_key\":\"cut o");
        std::fs::write(&path, text).expect("writable");
        let mut results = open();
        assert_eq!(results.of("first"), Some(Some(&record("first"))));
        assert_eq!(results.of("cut off"), None);
        results.add(&record("second")).expect("writable");
        assert!(open().of("second").is_some() && open().of("first").is_some());
    }
}
