//! Signs checkpoints of the audit journal, verifies the journal and the schema, and stops issuance
//! while either is in doubt.
//!
//! The hash chain alone shows no change by the database's owner, who can seal it again. A
//! checkpoint is the end of the chain, signed by a key in a token ([`key`]): at the start, after so
//! many entries, after so much time, and at the stop ([`sign`]). No request waits for one. The tail
//! since the last checkpoint is verified before anything is written at a start ([`start`]), and the
//! whole after each start and daily ([`whole`]). A finding stops certificates, but not revocation
//! lists and OCSP answers, until an operator accepts it ([`accept`]).

mod accept;
mod copy;
mod key;
mod sign;
mod start;
mod whole;

pub use key::AuditKey;
pub use whole::AuditVerification;

use super::alarm::{Alarm, AlarmCode};
use super::{Code, Error, Issuer, lock};
use crate::journal::Place;
use crate::journal::checkpoint::Checkpoint;
use crate::journal::finding::Finding;
use crate::store::AuditEntry;
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::PublicKey;
use arc_swap::ArcSwapOption;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use whole::Walk;

/// The settings of `[audit]`.
#[derive(Clone, Debug, Default)]
pub struct AuditPolicy {
    /// When checkpoints are signed, and with which token; `None` for no checkpoints.
    pub checkpoints: Option<CheckpointPolicy>,
    /// The file to which each checkpoint is appended.
    pub copy_to: Option<PathBuf>,
    /// The only keys whose checkpoints are believed; empty for those that the token holds.
    pub pinned: Vec<PublicKey>,
}

/// When checkpoints are signed.
#[derive(Clone, Debug)]
pub struct CheckpointPolicy {
    /// The token with the key.
    pub token: String,
    /// The longest time from an entry to the checkpoint that covers it, in seconds.
    pub every_seconds: i64,
    /// The most entries that no checkpoint covers while the token works.
    pub entries: i64,
    /// With how many uncovered entries issuance stops.
    pub unsigned_entries_max: i64,
    /// After how many seconds with an uncovered entry issuance stops.
    pub unsigned_seconds_max: i64,
}

/// The state of the journal, which survives a reload.
pub(in crate::ca) struct JournalState {
    known: Mutex<Known>,
    /// Why no certificate is issued.
    stop: ArcSwapOption<Error>,
    /// One thread at a time signs, accepts, or verifies before the first entry.
    alone: Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// The tail was verified, before this process has written an entry.
    is_opened: bool,
    finding: Option<Finding>,
    /// The newest checkpoint.
    last: Option<Checkpoint>,
    /// The end of the journal when the daemon started.
    began_at: Place,
    started: UnixSeconds,
    /// The keys that their token was seen to hold.
    confirmed: BTreeSet<[u8; 32]>,
    /// Why the last checkpoint was not signed or not copied.
    failure: Option<String>,
    retry_at: Option<UnixSeconds>,
    walk: Option<Walk>,
    next_walk: Option<UnixSeconds>,
}

impl JournalState {
    /// Makes the state in which nothing is verified yet.
    pub(in crate::ca) fn new() -> Self {
        let not_yet = Error::later(
            5,
            Code::StoreUnavailable,
            "the audit journal is not verified yet; the log says why",
        );
        Self {
            known: Mutex::default(),
            stop: ArcSwapOption::from_pointee(not_yet),
            alone: Mutex::default(),
        }
    }
}

impl Issuer {
    /// Fails while no certificate may be issued because of the journal. Reads memory alone.
    pub(in crate::ca) fn journal_permits(&self) -> Result<(), Error> {
        let stop = self.journal().stop.load();
        stop.as_deref().map_or(Ok(()), |it| Err(it.clone()))
    }

    /// Does what is due: makes the key, signs a checkpoint, verifies a portion of the journal.
    /// Returns when something is due at the latest, in Unix seconds.
    pub fn keep_journal(&self) -> Result<(), Error> {
        if self.store().write_fault().is_some() {
            return Ok(());
        }
        if !lock(&self.journal().known).is_opened {
            self.open_journal();
        }
        let kept = self.checkpoint_if_due().and_then(|()| self.walk_on());
        self.judge_journal()?;
        kept
    }

    /// Whether nothing is due before the next daily verification: an idle gateway sleeps.
    pub fn journal_rests(&self) -> bool {
        let known = lock(&self.journal().known);
        let is_verified = known.next_walk.is_some_and(|it| it > self.now());
        self.settings().audit.checkpoints.is_none() && known.is_opened && is_verified
    }

    /// Records a finding, which stops issuance. The first one stands until it is accepted.
    fn note_finding(&self, finding: Finding) {
        let mut known = lock(&self.journal().known);
        if known.finding.is_some() {
            return;
        }
        known.finding = Some(finding.clone());
        known.retry_at = None;
        drop(known);
        tracing::error!(
            kind = finding.kind.name(),
            from = finding.from,
            to = finding.to,
            finding = finding.text,
            "audit journal broken, issuing nothing"
        );
        self.journal()
            .stop
            .store(Some(Arc::new(stopped_by(&finding))));
        let entry = AuditEntry {
            at: self.now(),
            actor: "hallmarkd".into(),
            action: "audit.broken",
            subject: finding.kind.name().into(),
            detail: json!({ "from": finding.from, "to": finding.to, "finding": finding.text }),
        };
        if let Err(error) = pollster::block_on(self.store().record_audit(entry)) {
            tracing::error!(%error, "finding in the audit journal not recorded");
        }
        self.wake();
    }

    /// Decides whether certificates may be issued.
    fn judge_journal(&self) -> Result<(), Error> {
        let overdue = self.overdue()?;
        let known = lock(&self.journal().known);
        let stop = match &known.finding {
            Some(finding) => Some(stopped_by(finding)),
            None => overdue.map(|why| {
                let failure = known.failure.as_deref().unwrap_or("none was tried yet");
                let message = format!(
                    "{why}, so nothing is issued; repair the token of [audit] checkpoints \
                     ({failure})"
                );
                Error::later(60, Code::AuditNotCheckpointed, message)
            }),
        };
        self.journal().stop.store(stop.map(Arc::new));
        Ok(())
    }

    /// Returns by which limit uncovered entries stop issuance.
    fn overdue(&self) -> Result<Option<String>, Error> {
        let Some(policy) = &self.settings().audit.checkpoints else {
            return Ok(None);
        };
        let (uncovered, since) = self.uncovered()?;
        if uncovered > policy.unsigned_entries_max {
            return Ok(Some(format!(
                "{uncovered} entries of the audit journal have no checkpoint, more than \
                 unsigned_entries"
            )));
        }
        let age = since.map_or(0, |since| self.now() - since);
        Ok((age > policy.unsigned_seconds_max).then(|| {
            format!("the audit journal has had no checkpoint for {age} s, longer than unsigned_for")
        }))
    }

    /// Returns how many entries no checkpoint covers, and the time of the first of them.
    fn uncovered(&self) -> Result<(i64, Option<UnixSeconds>), Error> {
        let end = self.store().journal_end()?.unwrap_or_default().sequence;
        let known = lock(&self.journal().known);
        let (covered, not_before) = match &known.last {
            Some(last) => (last.sequence, UnixSeconds::MIN),
            // Where checkpoints begin, the entries before the start count for no limit.
            None => (known.began_at.sequence, known.started),
        };
        drop(known);
        if end <= covered {
            return Ok((0, None));
        }
        let first = self.store().journal_time(covered + 1)?;
        Ok((end - covered, first.map(|it| it.max(not_before))))
    }

    /// The alarms about the journal.
    pub(in crate::ca) fn journal_alarms(&self) -> Vec<Alarm> {
        let known = lock(&self.journal().known);
        let mut alarms = Vec::new();
        if let Some(it) = &known.finding {
            let text = format!(
                "the audit journal is broken, and nothing is issued: {}",
                it.text
            );
            let parameters = json!({
                "kind": it.kind.name(), "from": it.from, "to": it.to, "reason": it.text,
            });
            alarms.push(Alarm::new(AlarmCode::AuditBroken, parameters, text));
        }
        if let Some(reason) = &known.failure {
            let text = format!("no checkpoint of the audit journal is made: {reason}");
            let parameters = json!({ "reason": reason });
            alarms.push(Alarm::new(
                AlarmCode::AuditNotCheckpointed,
                parameters,
                text,
            ));
        }
        alarms
    }
}

fn stopped_by(finding: &Finding) -> Error {
    let message = format!(
        "the audit journal is broken ({}: {}), so nothing is issued; treat the machine as \
         compromised, compare the journal with a copy, and then `hallmark audit accept`",
        finding.kind.name(),
        finding.text
    );
    Error::stop(Code::AuditBroken, message)
}
