//! Rolls: started by an operator or by a renewal, advanced whenever what they wait for has come.
//!
//! The decisions are those of `enrollment::slots`; here they get their evidence and are recorded.
//! Advancing takes no input and may be called at any time: each step is one transaction that is
//! refused if the slots have moved meanwhile.

use super::authorize::{Authorized, Caller, Operate};
use super::{CertificateAuthority, Error, rfc3339};
use crate::enrollment::record::Record;
use crate::enrollment::refusal::Refusal;
use crate::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, Slots};
use crate::store::{
    AuditEntry, EnrollmentKind, EnrollmentRow, RollReason, RollRow, RollState, RollStep,
};
use serde_json::json;
use time::OffsetDateTime;

impl CertificateAuthority {
    /// Starts the roll of an individually enrolled device: its next request for a certificate goes
    /// into the free slot. One roll per provisioning service that has the device.
    pub fn start_roll(
        &self,
        permission: &Authorized<Operate>,
        registration_id: &str,
        reason: RollReason,
    ) -> Result<Vec<RollRow>, Error> {
        if reason == RollReason::Compromise {
            let message = "only rolls by expiry are offered yet; to shut a device out now, disable \
                           its enrollment at the provisioning service";
            return Err(Error::mend("roll_unsupported", message));
        }
        let enrollments = self.store.enrollments_named(registration_id)?;
        let individual: Vec<_> = enrollments
            .into_iter()
            .filter(|row| row.kind == EnrollmentKind::Individual && !row.removed)
            .collect();
        if individual.is_empty() {
            let message = format!(
                "{registration_id} has no individual enrollment; under a group nothing changes at \
                 the service, so simply request a new certificate"
            );
            return Err(Error::missing("enrollment_unknown", message));
        }
        individual
            .iter()
            .map(|row| {
                let entry = self.entry(permission.caller(), "roll.started", row);
                Ok(self.store.request_roll(row.id, reason, entry)?)
            })
            .collect()
    }

    /// Gives up a roll that still waits for its request.
    pub fn abort_roll(
        &self,
        permission: &Authorized<Operate>,
        roll: i64,
    ) -> Result<RollRow, Error> {
        let row = self.store.enrollment(self.store.roll(roll)?.enrollment)?;
        let entry = self.entry(permission.caller(), "roll.aborted", &row);
        self.store.abort_requested_roll(roll, entry)?;
        Ok(self.store.roll(roll)?)
    }

    /// Makes every step whose time has come. Returns when the next one can come, in Unix seconds.
    pub fn advance_rolls(&self) -> Result<Option<i64>, Error> {
        let now = self.now();
        let mut next_due: Option<i64> = None;
        for (roll, enrollment) in self.store.rolling_enrollments()? {
            match next_slots(&roll, &enrollment, now) {
                Ok((to, state)) => {
                    let action = if state == RollState::Done {
                        "roll.done"
                    } else {
                        "roll.cut_over"
                    };
                    let entry = self.entry(&Caller::Daemon, action, &enrollment);
                    let from = enrollment.slots.clone();
                    let step = RollStep {
                        roll: roll.id,
                        enrollment: enrollment.id,
                        from,
                        to,
                        state,
                    };
                    if self.store.advance_roll(step, entry)? {
                        self.wake();
                    }
                }
                Err(_) if roll.state == RollState::Draining => {
                    let due = roll.old_not_after + 1;
                    next_due = Some(next_due.map_or(due, |earlier| earlier.min(due)));
                }
                Err(_) => {}
            }
        }
        Ok(next_due)
    }

    /// In words, what a roll waits for.
    pub fn roll_waits_for(&self, roll: &RollRow) -> Result<String, Error> {
        Ok(match roll.state {
            RollState::Requested => {
                format!(
                    "a request for a certificate of {} with a new key",
                    roll.name
                )
            }
            RollState::Staged => {
                format!("{} to be seen holding both certificates", roll.provisioning)
            }
            RollState::Draining => {
                format!(
                    "the old certificate to expire at {}",
                    rfc3339(roll.old_not_after)
                )
            }
            RollState::Done | RollState::Aborted => "nothing".into(),
        })
    }

    fn entry(&self, caller: &Caller, action: &'static str, row: &EnrollmentRow) -> AuditEntry {
        AuditEntry {
            at: self.now(),
            actor: caller.to_string(),
            action,
            subject: row.name.clone(),
            detail: json!({ "provisioning": row.provisioning, "slots": row.slots }),
        }
    }
}

/// The next step of a roll, or why it has to wait.
fn next_slots(
    roll: &RollRow,
    enrollment: &EnrollmentRow,
    now: i64,
) -> Result<(Slots, RollState), Refusal> {
    let slots = enrollment.slots.clone();
    match slots {
        Slots::Staged { .. } => Ok((slots.cut_over(&sighting(enrollment))?, RollState::Draining)),
        _ => Ok((slots.retire(&expiry(roll, now))?, RollState::Done)),
    }
}

/// What the service was last seen holding; a mark means that the sighting is not up to date.
fn sighting(enrollment: &EnrollmentRow) -> CutOverEvidence {
    let settled = enrollment
        .observed
        .clone()
        .filter(|_| enrollment.mark.is_none());
    let (observed_primary, observed_secondary) = settled
        .and_then(|record| Record::parse(record).ok())
        .map_or((None, None), |record| record.thumbprints());
    CutOverEvidence {
        observed_primary,
        observed_secondary,
        canary: CanaryVerdict::NotNeeded,
    }
}

fn expiry(roll: &RollRow, now: i64) -> RetireEvidence {
    let time = |unix_seconds| {
        OffsetDateTime::from_unix_timestamp(unix_seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    // An end that cannot be read must not look expired.
    let end = OffsetDateTime::from_unix_timestamp(roll.old_not_after);
    RetireEvidence::Expired {
        now: time(now),
        retiring_not_after: end.unwrap_or_else(|_| time(i64::from(u32::MAX) * 64)),
    }
}
