//! Keeps the worker's own record of its signatures, which the daemon cannot write.
//!
//! The file has totals, by key and class, since it began. A thread of its own writes those that
//! have changed, once a second and at the end, so that no signature waits for a disk. A worker that
//! ends without its last line may have lost the counts of its last second; the next one counts that
//! in `unclean_ends`. A longer file begins again with all totals, and the one before is kept.

use hallmark_base::files::{self, open_ours_for_lines};
use hallmark_protocol::signature_count::{
    SignatureClass, SignatureCount, SignatureCounts, add_digest,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A worker that is killed loses the counts of this time at most.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A file of this size begins again.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Default, Serialize, Deserialize)]
struct Line {
    at_unix_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Event>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<Total>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    /// A worker begins.
    Start {
        since_unix_ms: u64,
        unclean_ends: u64,
    },
    /// It has written all that it has counted.
    Stop,
    /// How many requests were refused in all.
    Refused(u64),
}

#[derive(Serialize, Deserialize)]
struct Total {
    key: String,
    label: String,
    class: SignatureClass,
    made: u64,
    digest_sum: String,
}

/// The totals, and the file that they are written to.
pub(super) struct Journal {
    /// `None` for a worker without a record: of one command, and in tests.
    path: Option<PathBuf>,
    tally: Mutex<Tally>,
    changed: Condvar,
}

#[derive(Default)]
struct Tally {
    since_unix_ms: u64,
    unclean_ends: u64,
    refused: u64,
    refused_written: u64,
    totals: BTreeMap<([u8; 32], SignatureClass), Counted>,
    is_changed: bool,
    is_closed: bool,
    /// The line of this worker's start is not in the file yet.
    is_start_unwritten: bool,
}

struct Counted {
    label: String,
    made: u64,
    digest_sum: [u8; 32],
    is_written: bool,
}

impl Journal {
    /// Counts without a file.
    pub(super) fn unwritten() -> Self {
        Self {
            path: None,
            tally: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Goes on with the file of the token `name`, or begins it.
    pub(super) fn go_on(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(format!("token-{name}.signatures"));
        let mut tally = Tally::read(&path)?;
        if tally.since_unix_ms == 0 {
            tally.since_unix_ms = unix_ms();
        }
        let begun = open_ours_for_lines(&path).and_then(|mut file| tally.write_start(&mut file));
        if let Err(error) = begun {
            // A full disk must not keep the token away: the keeper writes it once there is room.
            let error = error.to_string();
            tracing::error!(
                token = name,
                error,
                "cannot write the worker's record of signatures"
            );
            (tally.is_start_unwritten, tally.is_changed) = (true, true);
        }
        Ok(Self {
            path: Some(path),
            tally: Mutex::new(tally),
            changed: Condvar::new(),
        })
    }

    pub(super) fn count(
        &self,
        key: [u8; 32],
        label: &str,
        class: SignatureClass,
        digest: &[u8; 32],
    ) {
        let mut tally = self.tally();
        let counted = tally.totals.entry((key, class)).or_insert_with(|| Counted {
            label: label.to_owned(),
            made: 0,
            digest_sum: [0; 32],
            is_written: false,
        });
        counted.made += 1;
        counted.is_written = false;
        add_digest(&mut counted.digest_sum, digest);
        self.wake(&mut tally);
    }

    pub(super) fn count_refusal(&self) {
        let mut tally = self.tally();
        tally.refused += 1;
        self.wake(&mut tally);
    }

    fn wake(&self, tally: &mut Tally) {
        if !std::mem::replace(&mut tally.is_changed, true) {
            self.changed.notify_one();
        }
    }

    pub(super) fn counts(&self) -> SignatureCounts {
        let tally = self.tally();
        let counts = tally
            .totals
            .iter()
            .map(|((key, class), it)| SignatureCount {
                key: *key,
                label: it.label.clone(),
                class: *class,
                made: it.made,
                digest_sum: it.digest_sum,
            });
        SignatureCounts {
            since_unix_ms: tally.since_unix_ms,
            unclean_ends: tally.unclean_ends,
            refused: tally.refused,
            counts: counts.collect(),
        }
    }

    /// Writes what has changed, once a second, until [`close`](Self::close).
    pub(super) fn keep(&self, token: &str) {
        loop {
            let waited = self
                .changed
                .wait_while(self.tally(), |it| !it.is_changed && !it.is_closed);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            let waited = self
                .changed
                .wait_timeout_while(self.tally(), WRITE_EVERY, |it| !it.is_closed);
            let is_closed = waited.unwrap_or_else(PoisonError::into_inner).0.is_closed;
            if is_closed {
                return;
            }
            self.write(token, false);
        }
    }

    /// Writes all that was counted, with the line by which the next worker knows that.
    pub(super) fn close(&self, token: &str) {
        self.tally().is_closed = true;
        self.changed.notify_all();
        self.write(token, true);
    }

    /// Logs a failure; what was not written is written the next time.
    fn write(&self, token: &str, is_last: bool) {
        if let Some(path) = &self.path
            && let Err(error) = self.try_write(path, is_last)
        {
            let error = error.to_string();
            tracing::error!(
                token,
                error,
                "cannot write the worker's record of signatures"
            );
        }
    }

    fn try_write(&self, path: &Path, is_last: bool) -> io::Result<()> {
        let (text, written) = {
            let mut tally = self.tally();
            tally.is_changed = false;
            tally.changes(is_last)
        };
        let outcome = append(path, &text);
        let mut tally = self.tally();
        if let Err(error) = outcome {
            // The next attempt follows after a second.
            tally.is_changed = true;
            return Err(error);
        }
        tally.is_start_unwritten = false;
        tally.refused_written = written.refused;
        for (place, made) in written.totals {
            if let Some(counted) = tally.totals.get_mut(&place) {
                counted.is_written = counted.made == made;
            }
        }
        if files::open_ours(path)?.metadata()?.len() > FILE_BYTES_MAX {
            tally.begin_again(path)?;
        }
        Ok(())
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The contents of one write.
struct Written {
    refused: u64,
    totals: Vec<(([u8; 32], SignatureClass), u64)>,
}

impl Tally {
    /// Reads the last totals. A line that a crash has cut off is left out.
    fn read(path: &Path) -> io::Result<Self> {
        let text = match files::read_ours_text(path, 2 * FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        let mut tally = Self::default();
        let mut is_clean = true;
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Line>(line) else {
                continue;
            };
            match line.event {
                Some(Event::Start {
                    since_unix_ms,
                    unclean_ends,
                }) => {
                    (tally.since_unix_ms, tally.unclean_ends) = (since_unix_ms, unclean_ends);
                    is_clean = false;
                }
                Some(Event::Stop) => is_clean = true,
                Some(Event::Refused(refused)) => {
                    (tally.refused, tally.refused_written) = (refused, refused);
                }
                None => {}
            }
            if let Some((place, counted)) = line.total.and_then(Total::parsed) {
                tally.totals.insert(place, counted);
            }
        }
        tally.unclean_ends += u64::from(!is_clean);
        Ok(tally)
    }

    fn write_start(&self, file: &mut File) -> io::Result<()> {
        file.write_all(self.start_line()?.as_bytes())?;
        file.sync_data()
    }

    fn start_line(&self) -> io::Result<String> {
        let start = Event::Start {
            since_unix_ms: self.since_unix_ms,
            unclean_ends: self.unclean_ends,
        };
        Ok(format!("\n{}", event(start)?))
    }

    fn changes(&self, is_last: bool) -> (String, Written) {
        let mut text = String::new();
        if self.is_start_unwritten {
            text += &self.start_line().unwrap_or_default();
        }
        let mut totals = Vec::new();
        for (place, counted) in self.totals.iter().filter(|(_, it)| !it.is_written) {
            text += &total_line(place, counted).unwrap_or_default();
            totals.push((*place, counted.made));
        }
        if self.refused != self.refused_written {
            text += &event(Event::Refused(self.refused)).unwrap_or_default();
        }
        if is_last {
            text += &event(Event::Stop).unwrap_or_default();
        }
        let refused = self.refused;
        (text, Written { refused, totals })
    }

    /// Begins the file again with all totals, and keeps the one before.
    fn begin_again(&mut self, path: &Path) -> io::Result<()> {
        let before = path.with_extension("signatures.1");
        files::rename(path, &before)?;
        for counted in self.totals.values_mut() {
            counted.is_written = false;
        }
        self.refused_written = 0;
        self.is_changed = true;
        self.write_start(&mut open_ours_for_lines(path)?)?;
        let (text, _) = self.changes(false);
        append(path, &text)
    }
}

impl Total {
    fn parsed(self) -> Option<(([u8; 32], SignatureClass), Counted)> {
        let key = hex::decode(&self.key).ok()?.try_into().ok()?;
        let digest_sum = hex::decode(&self.digest_sum).ok()?.try_into().ok()?;
        let counted = Counted {
            label: self.label,
            made: self.made,
            digest_sum,
            is_written: true,
        };
        Some(((key, self.class), counted))
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut file = open_ours_for_lines(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()
}

fn event(event: Event) -> io::Result<String> {
    line(&Line {
        at_unix_ms: unix_ms(),
        event: Some(event),
        total: None,
    })
}

fn total_line(place: &([u8; 32], SignatureClass), counted: &Counted) -> io::Result<String> {
    line(&Line {
        at_unix_ms: unix_ms(),
        event: None,
        total: Some(Total {
            key: hex::encode(place.0),
            label: counted.label.clone(),
            class: place.1,
            made: counted.made,
            digest_sum: hex::encode(counted.digest_sum),
        }),
    })
}

fn line(line: &Line) -> io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}

/// Returns milliseconds of Unix time; zero for a clock before 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn made(journal: &Journal, class: SignatureClass) -> u64 {
        let counts = journal.counts().counts;
        counts
            .iter()
            .find(|it| it.class == class)
            .map_or(0, |it| it.made)
    }

    #[test]
    fn totals_go_on_after_a_stop_and_a_kill_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let go_on = || Journal::go_on(folder.path(), "one").expect("writable");
        let first = go_on();
        first.count(KEY, "ca", SignatureClass::Leaf, &[1; 32]);
        first.count(KEY, "ca", SignatureClass::Leaf, &[2; 32]);
        first.count_refusal();
        first.close("one");
        let second = go_on();
        assert_eq!(second.counts(), first.counts());
        assert_eq!(second.counts().counts[0].digest_sum, [3; 32]);
        second.count(KEY, "ca", SignatureClass::List, &[1; 32]);
        second.write("one", false);
        second.count(KEY, "ca", SignatureClass::List, &[1; 32]);
        // Killed: the last one was not written.
        let third = go_on();
        assert_eq!(third.counts().unclean_ends, 1);
        assert_eq!(made(&third, SignatureClass::Leaf), 2);
        assert_eq!(made(&third, SignatureClass::List), 1);
        assert_eq!(third.counts().refused, 1);
        third.close("one");
        assert_eq!(go_on().counts().unclean_ends, 1);
    }

    #[test]
    fn a_line_that_a_crash_has_cut_off_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Journal::go_on(folder.path(), "one").expect("writable");
        first.count(KEY, "ca", SignatureClass::Leaf, &[1; 32]);
        first.write("one", false);
        let path = folder.path().join("token-one.signatures");
        let mut file = open_ours_for_lines(&path).expect("writable");
        file.write_all(b"{\"at_unix_ms\":1,\"tot")
            .expect("writable");
        let second = Journal::go_on(folder.path(), "one").expect("writable");
        assert_eq!(made(&second, SignatureClass::Leaf), 1);
        second.count(KEY, "ca", SignatureClass::Leaf, &[1; 32]);
        second.close("one");
        let third = Journal::go_on(folder.path(), "one").expect("writable");
        assert_eq!(made(&third, SignatureClass::Leaf), 2);
        assert_eq!(third.counts().unclean_ends, 1);
    }

    #[test]
    fn a_long_file_begins_again_with_all_totals() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Journal::go_on(folder.path(), "one").expect("writable");
        first.count(KEY, "ca", SignatureClass::Leaf, &[1; 32]);
        first.count_refusal();
        first.write("one", false);
        let path = first.path.clone().expect("a file");
        first.tally().begin_again(&path).expect("writable");
        assert!(folder.path().join("token-one.signatures.1").exists());
        first.close("one");
        let second = Journal::go_on(folder.path(), "one").expect("writable");
        assert_eq!(second.counts(), first.counts());
    }

    #[test]
    fn a_thread_writes_within_a_second_or_two() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::go_on(folder.path(), "one").expect("writable");
        std::thread::scope(|scope| {
            scope.spawn(|| journal.keep("one"));
            journal.count(KEY, "ca", SignatureClass::Leaf, &[1; 32]);
            let path = folder.path().join("token-one.signatures");
            let is_written = || std::fs::read_to_string(&path).is_ok_and(|it| it.contains("leaf"));
            let begun = std::time::Instant::now();
            while !is_written() && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(is_written());
            journal.close("one");
        });
    }
}
