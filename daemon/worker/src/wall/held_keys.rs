//! Records the keys that the tokens of this installation hold, and the name under which each signs.
//!
//! Each worker writes a file of its own in the workers' folder of state, which the daemon cannot
//! write, and reads those of the others: an authority is certified if its key is in one of them. A
//! line is written when a key is made or has made its first test signature, and once more when the
//! key signs its first certificate or list for another key: from then on it signs under that name
//! alone, also after a restart.

use hallmark_base::files;
use hallmark_protocol::spki_sha256;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Some hundred thousand keys.
const FILE_BYTES_MAX: u64 = 32 << 20;

#[derive(Serialize, Deserialize)]
struct Line {
    spki_sha256: String,
    label: String,
    /// Hex of the DER `Name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
}

/// The keys of this worker's token, by the SHA-256 of their SPKI, with the names of their issuers.
pub(super) struct HeldKeys {
    /// The file of this worker; `None` in tests.
    file: Option<PathBuf>,
    known: Mutex<HashMap<[u8; 32], Option<Vec<u8>>>>,
}

impl HeldKeys {
    /// Reads the file of the token `name`.
    pub(super) fn read(folder: &Path, name: &str) -> io::Result<Self> {
        let file = folder.join(format!("token-{name}.keys"));
        let mut known = HashMap::new();
        for line in lines(&file)? {
            if let Some((key, issuer)) = line.parsed() {
                let kept: &mut Option<Vec<u8>> = known.entry(key).or_default();
                *kept = issuer.or(kept.take());
            }
        }
        Ok(Self {
            file: Some(file),
            known: Mutex::new(known),
        })
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn in_memory() -> Self {
        Self {
            file: None,
            known: Mutex::default(),
        }
    }

    /// Returns true if the token is known to hold the key.
    pub(super) fn knows(&self, key: &[u8; 32]) -> bool {
        self.known().contains_key(key)
    }

    /// Returns true if a key has signed under this name, and false if under another one; `None` if
    /// it has not signed.
    pub(super) fn signs_as(&self, key: &[u8; 32], issuer: &[u8]) -> Option<bool> {
        let known = self.known();
        let name = known.get(key)?.as_deref()?;
        Some(name == issuer)
    }

    /// Records that the token holds a key. No effect if that is known.
    pub(super) fn note(&self, spki: &[u8], label: &str) -> io::Result<()> {
        let key = spki_sha256(spki);
        if let Entry::Vacant(unknown) = self.known().entry(key) {
            self.append(&key, label, None)?;
            unknown.insert(None);
        }
        Ok(())
    }

    /// Records the name under which a key signs, before it does so.
    pub(super) fn bind(&self, key: [u8; 32], label: &str, issuer: &[u8]) -> io::Result<()> {
        let mut known = self.known();
        self.append(&key, label, Some(issuer))?;
        known.insert(key, Some(issuer.to_owned()));
        Ok(())
    }

    /// Returns true if a token of this installation holds the key with this SPKI.
    pub(super) fn holds(&self, spki: &[u8]) -> bool {
        let key = spki_sha256(spki);
        self.known().contains_key(&key) || self.is_held_elsewhere(&key)
    }

    /// Reads the files of the other workers. They are few, and so are certificates of authorities.
    fn is_held_elsewhere(&self, key: &[u8; 32]) -> bool {
        let Some(folder) = self.file.as_deref().and_then(Path::parent) else {
            return false;
        };
        let Ok(entries) = std::fs::read_dir(folder) else {
            return false;
        };
        let files = entries.filter_map(Result::ok).map(|it| it.path());
        let mut files = files.filter(|it| it.extension().is_some_and(|it| it == "keys"));
        files.any(|file| {
            let lines = lines(&file).unwrap_or_default();
            lines
                .iter()
                .any(|it| it.parsed().is_some_and(|it| it.0 == *key))
        })
    }

    fn append(&self, key: &[u8; 32], label: &str, issuer: Option<&[u8]>) -> io::Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let line = Line {
            spki_sha256: hex::encode(key),
            label: label.to_owned(),
            issuer: issuer.map(hex::encode),
        };
        // A line break first: a crash may have cut the last line off.
        let text = format!("\n{}\n", serde_json::to_string(&line)?);
        let mut file = files::open_ours_for_lines(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Option<Vec<u8>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Returns the key and the name; `None` if the line has no key.
    fn parsed(&self) -> Option<([u8; 32], Option<Vec<u8>>)> {
        let key = hex::decode(&self.spki_sha256).ok()?.try_into().ok()?;
        let issuer = self.issuer.as_deref().and_then(|it| hex::decode(it).ok());
        Some((key, issuer))
    }
}

/// Returns the lines of a file; none if it does not exist. Lines that a crash has cut off are left
/// out.
fn lines(path: &Path) -> io::Result<Vec<Line>> {
    let text = match files::read_ours_text(path, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let lines = text.lines().filter(|it| !it.is_empty());
    Ok(lines
        .filter_map(|it| serde_json::from_str(it).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outlives_the_worker_and_another_worker_knows_the_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = |name| HeldKeys::read(folder.path(), name).expect("readable");
        let key = spki_sha256(b"key");
        let one = read("one");
        one.note(b"key", "ca").expect("writable");
        one.note(b"key", "ca").expect("writable");
        assert_eq!(one.signs_as(&key, b"name"), None);
        one.bind(key, "ca", b"name").expect("writable");
        assert_eq!(one.signs_as(&key, b"name"), Some(true));
        assert_eq!(read("one").signs_as(&key, b"name"), Some(true));
        assert_eq!(read("one").signs_as(&key, b"other"), Some(false));
        let two = read("two");
        assert!(two.holds(b"key") && !two.holds(b"other"));
        assert_eq!(
            two.signs_as(&key, b"name"),
            None,
            "that is another worker's record"
        );
    }

    #[test]
    fn a_line_that_a_crash_has_cut_off_hides_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = HeldKeys::read(folder.path(), "one").expect("readable");
        one.note(b"a", "a").expect("writable");
        let path = folder.path().join("token-one.keys");
        let mut file = files::open_ours_for_lines(&path).expect("writable");
        file.write_all(b"{\"spki_sha").expect("writable");
        one.note(b"b", "b").expect("writable");
        let again = HeldKeys::read(folder.path(), "one").expect("readable");
        assert!(again.holds(b"a") && again.holds(b"b"));
    }
}
