//! One turn for one enrollment: observe, plan, act.

use super::unknown::was_changed_since;
use super::{Failure, Outcome, Reconciler};
use crate::ca::{Code, Error};
use crate::enrollment::desired::{Desired, EnrollmentName};
use crate::enrollment::history::History;
use crate::enrollment::id::{EnrollmentGroupId, RegistrationId};
use crate::enrollment::plan::{DriftPolicy, Plan, holds, plan};
use crate::enrollment::record::Record;
use crate::store::{EnrollmentKind, EnrollmentRow, LostPeriod, Observation};
use serde_json::Value;
use std::time::Duration;

impl Reconciler {
    /// Takes one turn; each of its calls waits for `timeout` at most.
    pub(super) async fn enrollment_turn(
        &self,
        row: EnrollmentRow,
        timeout: Duration,
    ) -> Result<Outcome, Failure> {
        let dps = self.clients.dps.within(timeout);
        let id = Id::of(&row)?;
        let wanted = row.clone();
        let read = self.blocking(move |ca| {
            let desired = ca.enrollments().desired(&wanted)?;
            Ok((desired, ca.store().lost_period()?))
        });
        let (desired, lost) = read.await?;
        let observed = dps.enrollment(id.borrowed()).await?;
        let desired = desired.as_ref();
        let observed = observed.as_ref();
        let drift = drift_policy(&row, observed, lost, self.drift);
        let history = row.history.clone().observed(observed);
        match plan(desired, observed, &history, drift) {
            Plan::Settled => Ok(Outcome::Done(observation(desired, observed))),
            // The mark is cleared all the same: the difference is an alarm until an operator or the
            // policy decides, and comparing again would find nothing else.
            Plan::Drift(drift) => Ok(Outcome::Done(Observation::Drifted {
                record: observed.map(record_of),
                drift: serde_json::to_value(&drift).unwrap_or_default(),
            })),
            // On record before the call. If its answer is lost, the next turn has to know our own
            // write from that of another client, and the service names no author.
            Plan::Create { record } => {
                // Without it a group may have admitted the device.
                let was_deleted = row.observed_at.is_some();
                self.record_attempt(&row, history.sending(desired), was_deleted)
                    .await?;
                let created = dps.create(id.borrowed(), &record).await?;
                Ok(after_write(desired, &created))
            }
            Plan::Replace {
                record,
                etag,
                repaired,
                left,
            } => {
                if !repaired.is_empty() || !left.is_empty() {
                    let enrollment = &row.name;
                    tracing::warn!(
                        enrollment,
                        ?repaired,
                        ?left,
                        "enrollment was changed outside Hallmark"
                    );
                }
                let was_changed = !repaired.is_empty();
                self.record_attempt(&row, history.sending(desired), was_changed)
                    .await?;
                let replaced = dps.replace(id.borrowed(), &record, &etag).await?;
                Ok(after_write(desired, &replaced))
            }
            Plan::Delete { etag } => {
                if let Id::Individual(id) = &id {
                    self.keep_place(id, &row, observed).await?;
                }
                self.record_attempt(&row, history.sending(None), false)
                    .await?;
                dps.delete(id.borrowed(), &etag).await?;
                // The answer shows no record: the next turn observes that it is gone.
                Ok(Outcome::Again)
            }
        }
    }

    /// Records an attempt. Where it restores an exclusion which another program has undone,
    /// what is excluded may have registered, so the deletions at the hub are made again.
    async fn record_attempt(
        &self,
        row: &EnrollmentRow,
        history: History,
        was_undone: bool,
    ) -> Result<(), Failure> {
        let repairs = was_undone && excludes(row);
        let row = row.clone();
        let recorded = self.blocking(move |ca| {
            let store = ca.store();
            if !repairs {
                return Ok(store.record_attempt(row.id, &history)?);
            }
            store.record_repair(&row, &history, ca.now())?;
            ca.wake();
            Ok(())
        });
        Ok(recorded.await?)
    }
}

/// Whether an enrollment excludes, or admits less than a group would.
fn excludes(row: &EnrollmentRow) -> bool {
    !row.leaving && (!row.enabled || row.overlay_of.is_some())
}

/// Returns the policy for drift in this turn, where `configured` is that of the configuration.
///
/// A changed exclusion is restored at once, against any policy: with the difference, the excluded
/// device has access. A state that may be from the period that a restore has lost is kept against
/// any policy: the service may exclude what the record would admit.
fn drift_policy(
    row: &EnrollmentRow,
    observed: Option<&Record>,
    lost: Option<LostPeriod>,
    configured: DriftPolicy,
) -> DriftPolicy {
    let lost = lost.filter(|lost| may_be_lost(row, observed, *lost));
    // Without its overlay a device is admitted by its group, with every leaf.
    let admits_by_group = row.overlay_of.is_some() && (lost.is_none() || observed.is_none());
    let excludes = !row.leaving && (!row.enabled || admits_by_group);
    match (excludes, lost) {
        (true, _) => DriftPolicy::Repair,
        (false, None) => configured,
        // A change that waited before the restore is older than the state at the service.
        (false, Some(lost)) if row.mark.as_ref().is_some_and(|it| it.since < lost.until) => {
            DriftPolicy::Keep
        }
        (false, Some(_)) => DriftPolicy::Report,
    }
}

/// Returns whether the state at the service may be from the period that a restore has lost, and
/// newer than the record: the enrollment was changed or deleted since the backup, and not observed
/// as desired since the restore.
fn may_be_lost(row: &EnrollmentRow, observed: Option<&Record>, lost: LostPeriod) -> bool {
    let was_sent = !row.history.is_empty();
    match observed {
        Some(record) => (row.restored || !was_sent) && was_changed_since(record, lost),
        None => row.restored && was_sent,
    }
}

/// The enrollment's id, owned.
enum Id {
    Individual(RegistrationId),
    Group(EnrollmentGroupId),
}

impl Id {
    fn of(row: &EnrollmentRow) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::Here(Error::stop(Code::StoreUnreadable, reason));
        match row.kind {
            EnrollmentKind::Individual => RegistrationId::parse(&row.name)
                .map(Id::Individual)
                .map_err(|error| invalid(error.to_string())),
            EnrollmentKind::Group => EnrollmentGroupId::parse(&row.name)
                .map(Id::Group)
                .map_err(|error| invalid(error.to_string())),
        }
    }

    fn borrowed(&self) -> EnrollmentName<'_> {
        match self {
            Id::Individual(id) => EnrollmentName::Individual(id),
            Id::Group(id) => EnrollmentName::Group(id),
        }
    }
}

/// The answer to a write shows the record as the service holds it now: an observation.
fn after_write(desired: Option<&Desired>, written: &Record) -> Outcome {
    match desired {
        Some(desired) if holds(written, desired) => {
            Outcome::Done(observation(Some(desired), Some(written)))
        }
        _ => Outcome::Again,
    }
}

pub(super) fn observation(desired: Option<&Desired>, observed: Option<&Record>) -> Observation {
    match (desired, observed) {
        (Some(desired), Some(record)) => Observation::InPlace {
            history: Box::new(History::settled(Some(desired))),
            record: record_of(record),
        },
        _ => Observation::Gone,
    }
}

fn record_of(record: &Record) -> Value {
    Value::Object(record.fields().clone())
}
