//! One turn for one enrollment: observe, plan, act.

use super::{Failure, Outcome, Reconciler};
use crate::ca::{Code, Error};
use crate::enrollment::desired::{Desired, EnrollmentName};
use crate::enrollment::history::History;
use crate::enrollment::id::{EnrollmentGroupId, RegistrationId};
use crate::enrollment::plan::{DriftPolicy, Plan, holds, plan};
use crate::enrollment::record::Record;
use crate::ids::EnrollmentId;
use crate::store::{EnrollmentKind, EnrollmentRow, Observation};
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
        let desired = self
            .blocking(move |ca| ca.enrollments().desired(&wanted))
            .await?;
        let observed = dps.enrollment(id.borrowed()).await?;
        let desired = desired.as_ref();
        let observed = observed.as_ref();
        let drift = self.drift_policy(&row);
        let history = row.history.observed(observed);
        match plan(desired, observed, &history, drift) {
            Plan::Settled => Ok(Outcome::Done(sighting(desired, observed))),
            Plan::Drift(drift) => Ok(Outcome::Done(Observation::Drifted {
                record: observed.map(record_of),
                drift: serde_json::to_value(&drift).unwrap_or_default(),
            })),
            Plan::Create { record } => {
                self.record_attempt(row.id, history.sending(desired))
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
                self.record_attempt(row.id, history.sending(desired))
                    .await?;
                let replaced = dps.replace(id.borrowed(), &record, &etag).await?;
                Ok(after_write(desired, &replaced))
            }
            Plan::Delete { etag } => {
                self.record_attempt(row.id, history.sending(None)).await?;
                dps.delete(id.borrowed(), &etag).await?;
                Ok(Outcome::Again)
            }
        }
    }

    /// A changed exclusion is restored at once, against any policy: with the difference, the
    /// excluded device has access.
    fn drift_policy(&self, row: &EnrollmentRow) -> DriftPolicy {
        let excludes = !row.enabled || row.overlay_of.is_some();
        if excludes {
            DriftPolicy::Repair
        } else {
            self.drift
        }
    }

    async fn record_attempt(&self, id: EnrollmentId, history: History) -> Result<(), Failure> {
        self.blocking(move |ca| Ok(ca.store().record_attempt(id, &history)?))
            .await?;
        Ok(())
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
            Outcome::Done(sighting(Some(desired), Some(written)))
        }
        _ => Outcome::Again,
    }
}

pub(super) fn sighting(desired: Option<&Desired>, observed: Option<&Record>) -> Observation {
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
