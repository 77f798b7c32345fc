//! Checks the records: database, audit journal, backups, revocation lists, the listener's
//! certificate.

use super::Visit;
use super::check::Check;
use super::finding::Finding;
use crate::ca::backup;
use crate::ca::listeners::HttpsState;
use crate::measured;
use crate::store::StoreError;
use crate::store::inspection::{JournalInspection, PageInspection};
use crate::unix_seconds::UnixSeconds;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the pages of the database are read, and how long its journal.
pub const INSPECTION_BOUND: Duration = Duration::from_secs(20);
/// A newest backup that is older needs attention: the timer makes one each day.
const BACKUP_SECONDS_MAX: i64 = 48 * 3600;
/// A certificate of the listener that ends sooner needs attention: it is renewed long before.
const LISTENER_SECONDS_MIN: i64 = 24 * 3600;

impl Visit<'_> {
    pub(super) fn database(&self) -> Finding {
        pages(self.ca.store().inspect_pages(INSPECTION_BOUND))
    }

    /// Also for the metrics, if it was read to its end or to a broken entry.
    pub(super) fn audit(&self) -> Finding {
        let inspected = self.ca.store().inspect_journal(INSPECTION_BOUND);
        if let Ok(JournalInspection { verdict, complete }) = &inspected {
            let intact = verdict.broken_at.is_none();
            if *complete || !intact {
                measured::audit_verified(self.ca.now().get(), intact);
            }
        }
        journal(inspected)
    }

    pub(super) fn backups(&self) -> Finding {
        backups(
            &backup::folder_beside(self.ca.store().path()),
            self.ca.now(),
        )
    }

    pub(super) fn lists(&self) -> Vec<Finding> {
        let check = Check::Lists;
        let lists = match self.ca.crls().statuses() {
            Ok(lists) => lists,
            Err(error) => return vec![Finding::failed(check, error.message)],
        };
        let Some(next) = lists.iter().min_by_key(|it| it.next_update_seconds) else {
            let text = "no authority has a revocation list yet";
            return vec![Finding::not_applicable(check, text)];
        };
        if let Some(late) = lists.iter().find(|it| !it.up_to_date) {
            let text = format!(
                "the list of {}, generation {}, does not have every revocation yet",
                late.authority, late.generation
            );
            return vec![Finding::attention(check, text)];
        }
        let text = format!(
            "{} lists have every revocation; that of {} ends first, at {}, and is of {}",
            lists.len(),
            next.authority,
            next.next_update,
            next.this_update
        );
        vec![Finding::ok(check, text)]
    }

    /// A certificate that has ended has failed, whether or not the next one can be made.
    pub(super) fn listener(&self) -> Finding {
        let check = Check::Listener;
        let now = self.ca.now();
        let not_after = match self.ca.https_state() {
            HttpsState::Configured { not_after, .. } => not_after,
            HttpsState::None => {
                let text = "the configuration has no HTTPS listener";
                return Finding::not_applicable(check, text);
            }
        };
        let alarm = self.or_alarms(check, Vec::new).into_iter().next();
        let found = alarm.map(|it| it.text);
        match (not_after, found) {
            (Some(end), Some(text)) if end >= now => Finding::attention(check, text),
            (_, Some(text)) => Finding::failed(check, text),
            (None, None) => Finding::failed(check, "it has no certificate yet"),
            (Some(end), None) if end - now < LISTENER_SECONDS_MIN => {
                let text = format!("its certificate ends at {end}, and was not renewed yet");
                Finding::attention(check, text)
            }
            (Some(end), None) => Finding::ok(check, format!("its certificate ends at {end}")),
        }
    }
}

/// Judges what reading every page of the database has found.
pub fn pages(inspected: Result<PageInspection, StoreError>) -> Finding {
    let check = Check::Database;
    match inspected {
        Ok(PageInspection::Good) => Finding::ok(check, "it was read whole, and is good"),
        Ok(PageInspection::Damaged(what)) => {
            Finding::failed(check, format!("it is damaged: {what}"))
        }
        Ok(PageInspection::OutOfTime) => Finding::unknown(
            check,
            format!(
                "nothing wrong was found within {} s, in which it was not read whole; `hallmark \
                 backup create` reads all of it",
                INSPECTION_BOUND.as_secs()
            ),
        ),
        Err(error) => Finding::failed(check, error.to_string()),
    }
}

/// Judges what reading the journal has found.
pub fn journal(inspected: Result<JournalInspection, StoreError>) -> Finding {
    let check = Check::Audit;
    match inspected {
        Ok(JournalInspection { verdict, complete }) => match verdict.broken_at {
            Some(sequence) => {
                let text = format!("the journal was altered at entry {sequence}");
                Finding::failed(check, text)
            }
            None if complete => Finding::ok(
                check,
                format!("{} entries, each hash is right", verdict.entries),
            ),
            None => Finding::unknown(
                check,
                format!(
                    "the first {} entries are right, and {} s were over before the others were \
                     read; `hallmark audit verify` reads all of them",
                    verdict.entries,
                    INSPECTION_BOUND.as_secs()
                ),
            ),
        },
        Err(error) => Finding::failed(check, error.to_string()),
    }
}

/// Judges the age of the newest backup in `folder`.
pub fn backups(folder: &Path, now: UnixSeconds) -> Finding {
    let check = Check::Backups;
    let newest: io::Result<Option<PathBuf>> = backup::newest(folder);
    let file = match newest {
        Ok(Some(file)) => file,
        Ok(None) => {
            let text = format!("there is no backup in {}", folder.display());
            return Finding::attention(check, text);
        }
        Err(error) => {
            let text = format!("{} cannot be read: {error}", folder.display());
            return Finding::failed(check, text);
        }
    };
    let manifest = match backup::manifest_of(&file) {
        Ok(manifest) => manifest,
        Err(error) => return Finding::failed(check, error.to_string()),
    };
    match manifest.made() {
        Ok(made) if now - made > BACKUP_SECONDS_MAX => {
            let days = (now - made) / 86_400;
            let text = format!("the newest backup is {days} days old, of {made}");
            Finding::attention(check, text)
        }
        Ok(made) => Finding::ok(check, format!("the newest is of {made}")),
        Err(error) => Finding::failed(check, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;
    use crate::store::AuditVerdict;

    #[test]
    fn what_was_not_read_whole_is_unknown() {
        let found = pages(Ok(PageInspection::OutOfTime));
        assert_eq!(found.verdict, Verdict::Unknown);
        assert!(found.text.contains("not read whole"), "{}", found.text);
        let read = |broken_at, complete| {
            let verdict = AuditVerdict {
                entries: 7,
                last_hash: String::new(),
                broken_at,
            };
            journal(Ok(JournalInspection { verdict, complete })).verdict
        };
        assert_eq!(read(None, true), Verdict::Ok);
        assert_eq!(read(None, false), Verdict::Unknown);
        assert_eq!(read(Some(3), false), Verdict::Failed);
    }
}
