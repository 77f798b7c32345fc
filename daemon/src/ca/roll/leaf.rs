//! Rolls of leaves: the certificates of one device.
//!
//! The decisions are those of `enrollment::roll`; here they get their evidence and are recorded.

use super::super::authorize::{Authorized, Caller, Operate};
use super::super::{CertificateAuthority, Error};
use crate::enrollment::record::Record;
use crate::enrollment::roll::{LeafEvidence, LeafStep, RollReason, RollState, next_leaf_step};
use crate::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence};
use crate::store::{AuditEntry, EnrollmentKind, EnrollmentRow, HubCause, RollRow, RollStep};
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
                let entry = self.leaf_entry(permission.caller(), "roll.started", row);
                let tasks = self.told(&row.provisioning, &row.name);
                Ok(self.store.request_roll(row.id, json!({}), tasks, entry)?)
            })
            .collect()
    }

    pub(super) fn abort_leaf_roll(
        &self,
        caller: &Caller,
        roll: &RollRow,
        enrollment: i64,
    ) -> Result<(), Error> {
        let row = self.store.enrollment(enrollment)?;
        let entry = self.leaf_entry(caller, "roll.aborted", &row);
        Ok(self.store.abort_leaf_roll(roll.id, entry)?)
    }

    /// The next steps of a leaf's roll, as many as can be made. Returns when to look again.
    pub(super) fn advance_leaf_roll(
        &self,
        roll: &RollRow,
        enrollment: i64,
        now: i64,
    ) -> Result<Option<i64>, Error> {
        let row = self.store.enrollment(enrollment)?;
        let evidence = self.leaf_evidence(roll, &row, now)?;
        match next_leaf_step(roll.state, &row.slots, &evidence) {
            Ok(next) => {
                self.make_step(roll, row, next)?;
                Ok(None)
            }
            Err(_) if roll.state == RollState::Draining => Ok(Some(roll.old_not_after + 1)),
            Err(_) => Ok(None),
        }
    }

    fn make_step(
        &self,
        roll: &RollRow,
        enrollment: EnrollmentRow,
        next: LeafStep,
    ) -> Result<(), Error> {
        let entry = self.leaf_entry(&Caller::Daemon, action(next.state), &enrollment);
        let step = RollStep {
            roll: roll.id,
            enrollment: enrollment.id,
            from_state: roll.state,
            from: enrollment.slots,
            to: next.slots,
            state: next.state,
        };
        if self.store.advance_roll(step, entry)? {
            self.wake();
        }
        Ok(())
    }

    fn leaf_evidence(
        &self,
        roll: &RollRow,
        enrollment: &EnrollmentRow,
        now: i64,
    ) -> Result<LeafEvidence, Error> {
        let progress = self.store.hub_progress(HubCause::Roll(roll.id), None)?;
        Ok(LeafEvidence {
            sighting: sighting(enrollment),
            retirement: expiry(roll, now),
            in_step: enrollment.mark.is_none() && enrollment.drift.is_none(),
            hub_open: progress.open(),
            replaced: roll.new_certificate.is_some(),
        })
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

/// How the journal calls a step into `state`.
fn action(state: RollState) -> &'static str {
    match state {
        RollState::Draining => "roll.cut_over",
        RollState::Clearing => "roll.shut_out",
        RollState::Reissuing => "roll.cleared",
        _ => "roll.done",
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

pub(super) fn expiry(roll: &RollRow, now: i64) -> RetireEvidence {
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
