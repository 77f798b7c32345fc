//! Accepts findings: an operator has dealt with their cause, and certificates are issued again.
//!
//! The finding stays in the journal. The next checkpoint has a digest over the entries as they are,
//! so that a further change of them is a finding again.

use super::start::PAGE;
use super::whole::ACCEPTED;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::{Code, Error, Issuer, lock};
use crate::journal::checkpoint::{Accepted, State};
use crate::journal::finding::{Finding, FindingKind};
use crate::journal::verification::Digest;
use crate::store::AuditEntry;
use serde_json::json;

/// The longest reason, in octets.
const REASON_BYTES_MAX: usize = 1_000;

impl Issuer {
    /// Accepts the finding that stops issuance. Returns it.
    pub fn accept_journal(
        &self,
        permission: &Authorized<Operate>,
        reason: &str,
    ) -> Result<Finding, Error> {
        if reason.trim().is_empty() {
            let message = "say in `reason` what was done about the finding";
            return Err(Error::invalid(Code::ReasonInvalid, message));
        }
        if reason.len() > REASON_BYTES_MAX {
            let message = format!("a reason has at most {REASON_BYTES_MAX} bytes");
            return Err(Error::invalid(Code::ReasonTooLong, message));
        }
        let _alone = lock(&self.journal().alone);
        let finding = lock(&self.journal().known).finding.clone();
        let Some(finding) = finding else {
            let message = "the audit journal has no finding to accept";
            return Err(Error::conflict(Code::AuditIntact, message));
        };
        if finding.kind == FindingKind::SchemaChanged
            && let Some(changed) = self.schema_finding()?
        {
            let message = format!("{}; restore the schema first", changed.text);
            return Err(Error::stop(Code::AuditBroken, message));
        }
        let accepted = self.digest_of_all()?;
        self.record_acceptance(permission, reason, &finding, accepted)?;
        if let Some(policy) = &self.settings().audit.checkpoints {
            let copied = self.copied_checkpoints(&self.journal_keys()?, true);
            let newest = copied
                .ok()
                .and_then(|it| it.iter().map(|one| one.number).max());
            let newest = newest.unwrap_or(0);
            self.checkpoint_alone(policy, State::Open, accepted, newest)?;
        }
        let mut known = lock(&self.journal().known);
        known.finding = None;
        known.failure = None;
        known.retry_at = None;
        known.walk = None;
        known.next_walk = None;
        drop(known);
        self.journal().stop.store(None);
        self.wake();
        Ok(finding)
    }

    fn record_acceptance(
        &self,
        permission: &Authorized<Operate>,
        reason: &str,
        finding: &Finding,
        accepted: Option<Accepted>,
    ) -> Result<(), Error> {
        let entry = AuditEntry {
            at: self.now(),
            actor: permission.caller().to_string(),
            action: ACCEPTED,
            subject: finding.kind.name().into(),
            detail: json!({
                "reason": reason,
                "finding": finding.text,
                "up_to": accepted.map(|it| it.sequence),
                "digest": accepted.map(|it| hex::encode(it.digest)),
            }),
        };
        Ok(pollster::block_on(self.store().record_audit(entry))?)
    }

    /// Reads every entry as it is. `None` for an empty journal.
    fn digest_of_all(&self) -> Result<Option<Accepted>, Error> {
        let mut digest = Digest::default();
        let mut sequence = 0;
        loop {
            let entries = self.store().journal_from(sequence + 1, PAGE)?;
            let Some(last) = entries.last() else {
                break;
            };
            sequence = last.sequence;
            entries.iter().for_each(|it| digest.add(it));
        }
        Ok((sequence >= 1).then(|| Accepted {
            sequence,
            digest: digest.finish(),
        }))
    }
}
