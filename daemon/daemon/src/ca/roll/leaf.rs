//! Rolls of leaves: the certificates of one device.
//!
//! The decisions are those of `enrollment::roll`; here they get their evidence and are recorded.

use super::super::authorize::{Authorized, Caller, Operate};
use super::super::{Code, Error, crash_point};
use super::Rollovers;
use crate::enrollment::record::Record;
use crate::enrollment::roll::{
    HubPolicy, LeafDetail, LeafEvidence, LeafStep, Override, RollState, next_leaf_step,
};
use crate::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::EnrollmentId;
use crate::store::{AuditEntry, EnrollmentKind, EnrollmentRow, HubCause, RollRow, RollStep};
use crate::unix_seconds::UnixSeconds;
use serde_json::json;

impl Rollovers {
    /// Starts the expiry rollover of an individually enrolled device: its next request for a
    /// certificate takes the free slot. One rollover per provisioning service that has the device;
    /// none where a group accepts it ([`under_groups`](Self::under_groups)).
    pub fn start_leaf_roll(
        &self,
        permission: &Authorized<Operate>,
        registration_id: &str,
    ) -> Result<Vec<RollRow>, Error> {
        let mut own = self.store.enrollments_named(registration_id)?;
        own.retain(|row| row.kind == EnrollmentKind::Individual && !row.leaving);
        if own.is_empty() && self.under_groups(registration_id)?.is_empty() {
            let message = format!(
                "no provisioning service admits {registration_id}; add an enrollment, or read \
                 `hallmark device show {registration_id}`"
            );
            return Err(Error::missing(Code::EnrollmentUnknown, message));
        }
        own.iter()
            .map(|row| {
                let entry = self.leaf_entry(permission.caller(), "roll.started", row);
                let roll = self.store.request_roll(row.id, json!({}), entry)?;
                self.issuer.wake();
                Ok(roll)
            })
            .collect()
    }

    /// Goes back to the old leaf, if the device can still use it: it is good, and the device was
    /// observed on it, or an operator says that it has it.
    pub(super) fn abort_leaf_roll(
        &self,
        caller: &Caller,
        roll: &RollRow,
        enrollment: EnrollmentId,
        overriding: Option<String>,
    ) -> Result<(), Error> {
        let row = self.store.enrollment(enrollment)?;
        let mut overridden = None;
        // Before that state the device has no other leaf, so there is nothing to lose.
        if roll.state == RollState::Staged {
            self.refuse_dead_leaf(roll)?;
            if self.seen_on(&row)? != Some(roll.old_certificate) {
                let guard = Code::RollDeviceNotSeen;
                let by = caller.to_string();
                let reason = overriding.ok_or_else(|| {
                    let message = format!(
                        "{} was not observed on its old leaf, and may have dropped it: then no \
                         enrollment would admit it; if you know better, say why with --override",
                        row.name
                    );
                    Error::conflict(guard, message)
                })?;
                let guard = guard.name().to_owned();
                overridden = Some(Override { guard, reason, by });
            }
        }
        let mut entry = self.leaf_entry(caller, "roll.aborted", &row);
        entry.detail["roll"] = json!(roll.id);
        entry.detail["override"] = json!(overridden);
        Ok(self
            .store
            .abort_leaf_roll(roll.id, json!(overridden), entry)?)
    }

    fn refuse_dead_leaf(&self, roll: &RollRow) -> Result<(), Error> {
        let old = self
            .store
            .certificate_by_sha256(roll.old_certificate.as_bytes())?;
        let now = self.issuer.now();
        if old.is_some_and(|old| old.not_after > now && old.revoked_at.is_none()) {
            return Ok(());
        }
        Err(Error::conflict(
            Code::RollOldCertificateDead,
            "the old leaf has expired or is revoked: without the new one no enrollment would \
             admit the device",
        ))
    }

    /// The next steps of a leaf's roll, as many as can be made. Returns when to look again.
    pub(super) fn advance_leaf_roll(
        &self,
        roll: &RollRow,
        enrollment: EnrollmentId,
        now: UnixSeconds,
    ) -> Result<Option<UnixSeconds>, Error> {
        let row = self.store.enrollment(enrollment)?;
        let evidence = self.leaf_evidence(roll, &row, now)?;
        match next_leaf_step(roll.state, &row.slots, &evidence) {
            Ok(next) => {
                self.make_step(roll, row, next)?;
                Ok(None)
            }
            // A wait is no failure: each turn reads the evidence again, and `next_retirement` makes
            // one due at an expiry.
            Err(_) => Ok(None),
        }
    }

    fn make_step(
        &self,
        roll: &RollRow,
        enrollment: EnrollmentRow,
        next: LeafStep,
    ) -> Result<(), Error> {
        crash_point(&format!("roll-to-{}", next.state.name()));
        let entry = self.leaf_entry(&Caller::Daemon, action(next.state), &enrollment);
        let hub = if puts_in_force(roll, &next) {
            self.notify_tasks(&enrollment.provisioning, &enrollment.name)
        } else {
            Vec::new()
        };
        let step = RollStep {
            hub,
            roll: roll.id,
            enrollment: enrollment.id,
            from_state: roll.state,
            from: enrollment.slots,
            to: next.slots,
            state: next.state,
        };
        // False if slots or state have changed since they were read: the next turn decides again.
        if self.store.advance_roll(step, entry)? {
            self.issuer.wake();
        }
        Ok(())
    }

    fn leaf_evidence(
        &self,
        roll: &RollRow,
        enrollment: &EnrollmentRow,
        now: UnixSeconds,
    ) -> Result<LeafEvidence, Error> {
        // Only this state waits for the hub, and the count reads every task of the rollover.
        let hub_open = match roll.state {
            RollState::Clearing => self
                .store
                .hub_progress(HubCause::Roll(roll.id), None)?
                .open(),
            _ => 0,
        };
        Ok(LeafEvidence {
            cut_over: cut_over(enrollment),
            retirement: self.retirement(roll, enrollment, now)?,
            in_step: enrollment.mark.is_none() && enrollment.drift.is_none(),
            hub_open,
            replaced: roll.new_certificate.is_some(),
        })
    }

    /// The old leaf's end; or, where policy allows it, the proof that its device has the new one.
    fn retirement(
        &self,
        roll: &RollRow,
        enrollment: &EnrollmentRow,
        now: UnixSeconds,
    ) -> Result<RetireEvidence, Error> {
        if self.rolling.retire_proven && now <= roll.old_not_after {
            let seen = self.seen_on(enrollment)?;
            return Ok(RetireEvidence::DevicesProven {
                unproven: u64::from(seen.is_none() || seen != roll.new_certificate),
                early_retirement_allowed: true,
            });
        }
        Ok(expiry(roll, now))
    }

    /// Returns the leaf that the hub was last observed to know of a device.
    fn seen_on(&self, enrollment: &EnrollmentRow) -> Result<Option<Thumbprint>, Error> {
        let EnrollmentRow {
            provisioning, name, ..
        } = enrollment;
        let proof = self.store.hub_observation(provisioning, name)?;
        Ok(proof.and_then(|proof| proof.certificate))
    }

    pub(super) fn leaf_entry(
        &self,
        caller: &Caller,
        action: &'static str,
        row: &EnrollmentRow,
    ) -> AuditEntry {
        let detail = json!({ "provisioning": row.provisioning, "slots": row.slots });
        self.roll_entry(caller, action, &row.name, detail)
    }
}

/// Returns true if the service was observed with the new leaf, so that the device can register with
/// it. After a compromise the device can be called only if its hub identity was kept.
fn puts_in_force(roll: &RollRow, next: &LeafStep) -> bool {
    match next.state {
        RollState::Draining => true,
        RollState::Done if roll.state == RollState::Reissuing => {
            let detail = serde_json::from_value::<LeafDetail>(roll.detail.clone());
            detail.is_ok_and(|it| it.hub == Some(HubPolicy::Reprovision))
        }
        _ => false,
    }
}

/// How the journal calls a step into `state`.
fn action(state: RollState) -> &'static str {
    match state {
        RollState::Draining => "roll.cut_over",
        RollState::Clearing => "roll.excluded",
        RollState::Reissuing => "roll.cleared",
        _ => "roll.done",
    }
}

/// The last observation of the service; a mark means that the observation is not up to date.
fn cut_over(enrollment: &EnrollmentRow) -> CutOverEvidence {
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

pub(super) fn expiry(roll: &RollRow, now: UnixSeconds) -> RetireEvidence {
    RetireEvidence::Expired {
        now,
        retiring_not_after: roll.old_not_after,
    }
}
