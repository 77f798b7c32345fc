//! Verifies schema, newest checkpoint and the entries after it before this process writes any.
//!
//! Reads what no checkpoint covers, so a start takes as long for a million entries as for few.

use crate::ca::{Error, Issuer, lock};
use crate::journal::checkpoint::{Checkpoint, State};
use crate::journal::finding::{Finding, FindingKind};
use crate::journal::verification::{Chain, ENTRIES_AHEAD, after_closing};
use crate::store::Schema;
use std::time::Duration;

/// How many entries are read at once.
pub(super) const PAGE: usize = 500;
/// How many differences of the schema are named.
const DIFFERENCES_MAX: usize = 5;
/// How long a start after an orderly stop waits for the token of the checkpoints. Entries that are
/// written before it has signed cannot be distinguished from planted ones after a crash.
const OPENING_WAIT: Duration = Duration::from_secs(5);

impl Issuer {
    /// Verifies what this process begins with, and signs the checkpoint that opens the journal.
    /// Does nothing while the store cannot write: it then may have nothing to read either.
    pub(in crate::ca) fn open_journal(&self) {
        if self.store().write_fault().is_some() {
            return;
        }
        let opened = self.verify_beginning();
        let (last, finding) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(code = error.code.name(), %error,
                    "audit journal not verified, retrying");
                return;
            }
        };
        let was_closed = last.as_ref().is_some_and(|it| it.state == State::Closed);
        let mut known = lock(&self.journal().known);
        known.began_at = self
            .store()
            .journal_end()
            .ok()
            .flatten()
            .unwrap_or_default();
        known.started = self.now();
        known.last = last;
        known.is_opened = true;
        drop(known);
        match finding {
            Some(finding) => self.note_finding(finding),
            None => self.journal().stop.store(None),
        }
        if was_closed {
            self.reopen();
        }
    }

    /// Signs a checkpoint in place of the closing one, if its token comes in time.
    fn reopen(&self) {
        let Some(policy) = &self.settings().audit.checkpoints else {
            return;
        };
        if let Ok(token) = self.token(&policy.token) {
            token.client.wait_ready(OPENING_WAIT);
        }
        if let Err(error) = self.checkpoint_if_due() {
            tracing::warn!(code = error.code.name(), %error,
                "audit checkpoint not signed, retrying");
        }
    }

    fn verify_beginning(&self) -> Result<(Option<Checkpoint>, Option<Finding>), Error> {
        let keys = self.journal_keys()?;
        let newest = self.store().last_checkpoint()?;
        let last = match newest.map(|it| it.verify(&keys)).transpose() {
            Ok(last) => last,
            Err(forged) => return Ok((None, Some(forged))),
        };
        let finding = match self.schema_finding()? {
            Some(changed) => Some(changed),
            None => self.beginning_finding(last.as_ref())?,
        };
        Ok((last, finding))
    }

    fn beginning_finding(&self, last: Option<&Checkpoint>) -> Result<Option<Finding>, Error> {
        let keys = self.journal_keys()?;
        let copied = match self.copied_checkpoints(&keys, false) {
            Ok(copied) => copied,
            Err(forged) => return Ok(Some(forged)),
        };
        // Only the newest of both: the others are compared when the whole journal is verified.
        let newest = copied.iter().max_by_key(|it| it.number);
        if let Some(newest) = newest
            && last.is_none_or(|last| last.number < newest.number)
        {
            let end = self.store().journal_end()?.unwrap_or_default().sequence;
            return Ok(Some(cut_off(newest, end)));
        }
        let Some(last) = last else {
            return Ok(None);
        };
        if last.state == State::Broken {
            return Ok(Some(found_before(last)));
        }
        self.tail_finding(last)
    }

    /// Follows the entries from the newest checkpoint on.
    fn tail_finding(&self, last: &Checkpoint) -> Result<Option<Finding>, Error> {
        let mut chain = Chain::since(last);
        let mut first = last.sequence;
        loop {
            let entries = self.store().journal_from(first, PAGE + ENTRIES_AHEAD)?;
            let finding = chain.follow(&entries, PAGE);
            if finding.is_some() {
                return Ok(finding);
            }
            if entries.len() <= PAGE {
                break;
            }
            first = chain.place().sequence + 1;
        }
        Ok(chain
            .end()
            .or_else(|| after_closing(last, chain.place().sequence)))
    }

    /// Compares the tables, indexes and triggers with those that this program makes.
    pub(super) fn schema_finding(&self) -> Result<Option<Finding>, Error> {
        let differences =
            Schema::made_here()?.differences(&self.store().schema()?, DIFFERENCES_MAX);
        if differences.is_empty() {
            return Ok(None);
        }
        let text = format!(
            "the schema of the database was changed: {}",
            differences.join(", ")
        );
        Ok(Some(Finding::new(FindingKind::SchemaChanged, 0, 0, text)))
    }
}

/// A copy has a newer checkpoint than the database.
fn cut_off(newest: &Checkpoint, end: i64) -> Finding {
    let number = newest.number;
    if newest.sequence > end {
        let text = format!(
            "the end is cut off: the copy has checkpoint {number} about entry {}, and the last \
             entry is {end}",
            newest.sequence
        );
        return Finding::new(FindingKind::EndCutOff, end + 1, newest.sequence, text);
    }
    let text = format!("checkpoint {number}, which the copy has, is missing");
    Finding::new(FindingKind::CheckpointMissing, newest.sequence, end, text)
}

fn found_before(last: &Checkpoint) -> Finding {
    let text = format!(
        "an earlier run found the journal broken, and no operator has accepted that; the entries \
         `audit.broken` up to {} say what it found",
        last.sequence
    );
    Finding::new(FindingKind::Rewritten, 0, last.sequence, text)
}
