//! Verifies the whole journal: every entry, every checkpoint, the copy and the schema.
//!
//! It runs after each start and daily, a portion in each turn of its loop, so that requests do not
//! wait for it; and at once for an operator who asks.

use super::copy::Copied;
use super::start::PAGE;
use crate::ca::{Error, Issuer, lock};
use crate::journal::Place;
use crate::journal::checkpoint::{Accepted, Checkpoint};
use crate::journal::checkpoints::Checkpoints;
use crate::journal::finding::Finding;
use crate::journal::verification::{Chain, ENTRIES_AHEAD};
use crate::measured;
use crate::x509::key::PublicKey;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::{Duration, Instant};

/// From one verification of the whole to the next, in seconds.
const EVERY_SECONDS: i64 = 86_400;
/// How long one portion takes; a turn comes each second.
const PORTION: Duration = Duration::from_millis(50);
/// How many checkpoints are read at once.
const CHECKPOINTS_PAGE: u32 = 1_000;
/// The action of the entry by which an operator accepts findings.
pub(super) const ACCEPTED: &str = "audit.accepted";

/// A verification of the whole that is under way.
pub(super) struct Walk {
    chain: Chain,
    next: i64,
}

/// The result of verifying the whole journal.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AuditVerification {
    /// How many entries are good.
    pub entries: i64,
    /// Hex hash of the last good entry.
    pub last_hash: String,
    /// The first entry at which the journal is broken; 0 if the schema or a key is.
    pub broken_at: Option<i64>,
    /// The reason, if it is broken.
    pub finding: Option<Finding>,
    /// How many checkpoints count.
    pub checkpoints: i64,
    /// The last entry that a checkpoint covers.
    pub covered: i64,
    /// The entries up to this one were accepted although something was wrong with them.
    pub accepted: i64,
    /// Whether an earlier finding stops issuance.
    pub stopped: bool,
}

impl Issuer {
    /// Verifies the whole journal now. A finding stops issuance.
    pub fn verify_journal(&self) -> Result<AuditVerification, Error> {
        let (checkpoints, finding) = self.all_checkpoints()?;
        let accepted = self.accepted(&checkpoints)?;
        let mut walk = Walk::new(&checkpoints, accepted);
        // Without a moment the portion is the whole.
        let found = self.portion(&mut walk, None)?.flatten();
        let finding = found.or(finding).or(self.schema_finding()?);
        let Place { sequence, hash } = walk.chain.place();
        self.verified(finding.clone());
        Ok(AuditVerification {
            entries: sequence,
            last_hash: hex::encode(hash),
            broken_at: finding.as_ref().map(|it| it.from),
            finding,
            checkpoints: i64::try_from(checkpoints.iter().count()).unwrap_or(i64::MAX),
            covered: checkpoints.last().map_or(0, |it| it.sequence),
            accepted: accepted.map_or(0, |it| it.sequence),
            stopped: lock(&self.journal().known).finding.is_some(),
        })
    }

    /// Verifies one more portion, if the whole is due.
    pub(super) fn walk_on(&self) -> Result<(), Error> {
        let mut known = lock(&self.journal().known);
        let is_due = known.next_walk.is_none_or(|it| it <= self.now());
        if !known.is_opened || known.finding.is_some() || !is_due {
            return Ok(());
        }
        let walk = known.walk.take();
        drop(known);
        let mut walk = match walk {
            Some(walk) => walk,
            None => {
                let (checkpoints, finding) = self.all_checkpoints()?;
                if let Some(finding) = finding.or(self.schema_finding()?) {
                    self.verified(Some(finding));
                    return Ok(());
                }
                Walk::new(&checkpoints, self.accepted(&checkpoints)?)
            }
        };
        match self.portion(&mut walk, Some(Instant::now() + PORTION))? {
            Some(finding) => self.verified(finding),
            None => lock(&self.journal().known).walk = Some(walk),
        }
        Ok(())
    }

    /// Notes the end of a verification.
    fn verified(&self, finding: Option<Finding>) {
        let now = self.now();
        measured::audit_verified(now.get(), finding.is_none());
        lock(&self.journal().known).next_walk = Some(now + EVERY_SECONDS);
        if let Some(finding) = finding {
            self.note_finding(finding);
        }
    }

    /// Follows entries until the end or until this moment. `None` if entries are left.
    fn portion(
        &self,
        walk: &mut Walk,
        until: Option<Instant>,
    ) -> Result<Option<Option<Finding>>, Error> {
        loop {
            let entries = self.store().journal_from(walk.next, PAGE + ENTRIES_AHEAD)?;
            let finding = walk.chain.follow(&entries, PAGE);
            if finding.is_some() {
                return Ok(Some(finding));
            }
            if entries.len() <= PAGE {
                return Ok(Some(walk.chain.end()));
            }
            walk.next = walk.chain.place().sequence + 1;
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    /// Reads and judges every checkpoint, with those of the copy.
    pub(super) fn all_checkpoints(&self) -> Result<(Checkpoints, Option<Finding>), Error> {
        let keys = self.journal_keys()?;
        // The copy first: a checkpoint is recorded before it is copied.
        let copied = self.copied_checkpoints(&keys, true);
        let recorded = self.recorded_checkpoints(&keys)?;
        Ok(match (recorded, copied) {
            (Ok(recorded), Ok(copied)) => Checkpoints::judge(recorded, copied),
            (Err(forged), _) | (_, Err(forged)) => (Checkpoints::default(), Some(forged)),
        })
    }

    fn recorded_checkpoints(&self, keys: &[PublicKey]) -> Result<Copied, Error> {
        let mut all: Vec<Checkpoint> = Vec::new();
        loop {
            let after = all.last().map_or(0, |it| it.number);
            let page = self.store().checkpoints_after(after, CHECKPOINTS_PAGE)?;
            if page.is_empty() {
                return Ok(Ok(all));
            }
            for signed in &page {
                match signed.verify(keys) {
                    Ok(checkpoint) => all.push(checkpoint),
                    Err(forged) => return Ok(Err(forged)),
                }
            }
        }
    }

    /// Returns what was accepted: the newest checkpoint says it, and without checkpoints the newest
    /// entry about it.
    pub(super) fn accepted(&self, checkpoints: &Checkpoints) -> Result<Option<Accepted>, Error> {
        if self.settings().audit.checkpoints.is_some() {
            return Ok(checkpoints.last().and_then(|it| it.accepted));
        }
        let Some(detail) = self.store().newest_detail(ACCEPTED)? else {
            return Ok(None);
        };
        let digest = detail["digest"]
            .as_str()
            .and_then(|it| hex::decode(it).ok());
        let digest = digest.and_then(|it| it.try_into().ok());
        Ok(digest
            .zip(detail["up_to"].as_i64())
            .map(|(digest, sequence)| Accepted { sequence, digest }))
    }
}

impl Walk {
    fn new(checkpoints: &Checkpoints, accepted: Option<Accepted>) -> Self {
        Self {
            chain: Chain::whole(checkpoints, accepted),
            next: 1,
        }
    }
}
