//! Devices that are told by jobs of the hub: many of them by one request.
//!
//! A job is named in the store before the hub hears of it, and each look begins with reading it: so a
//! job whose answer was lost, or that was ordered by a daemon that died, is found and not ordered
//! again. It is looked at until it has ended; what it counted is then on record.

use super::Reconciler;
use super::hub::pause_after;
use crate::ca::{Error, crash_point};
use crate::provisioning::failure::CallError;
use crate::provisioning::hub::{HubClient, JOB_DEVICES_MAX, Job, MethodJob};
use crate::store::HubJobRow;
use std::time::Duration;
use time::OffsetDateTime;

/// How long a job goes on at the hub.
const JOB_DURATION_MAX: Duration = Duration::from_secs(3_600);
/// The longest pause between two looks at a job, in seconds.
const LOOK_SECONDS_MAX: i64 = 60;

impl Reconciler {
    /// Makes jobs of all calls that are due.
    pub(super) async fn make_jobs(&self) -> Result<(), Error> {
        loop {
            let service = self.name.clone();
            let name = format!("hallmark-{:016x}", rand::random::<u64>());
            let made = self.blocking(move |ca| {
                let now = ca.now();
                Ok(ca
                    .store()
                    .make_hub_job(service, name, JOB_DEVICES_MAX as u32, now)?)
            });
            if !made.await? {
                return Ok(());
            }
        }
    }

    /// One look at the job that has been due longest.
    pub(super) async fn look_at_job(&self, hub: &HubClient) -> Result<(), Error> {
        let name = self.name.clone();
        let due = self
            .blocking(move |ca| Ok(ca.store().due_hub_job(&name, ca.now())?))
            .await?;
        let Some(row) = due else {
            return Ok(());
        };
        let seen = self.ordered(hub, &row).await;
        let service = self.name.clone();
        self.blocking(move |ca| {
            crash_point("roll-job-answered");
            let now = ca.now();
            match seen {
                Ok(Some(job)) if !job.status.is_final() => {
                    let pause = (1 << row.attempts.clamp(0, 6)).min(LOOK_SECONDS_MAX);
                    ca.store().postpone_hub_job(row.id, now + pause, None)?;
                }
                Ok(ended) => {
                    let told = ended.and_then(|job| job.statistics);
                    let told = told.map_or(0, |it| {
                        i64::try_from(it.succeeded_count).unwrap_or(i64::MAX)
                    });
                    ca.store().settle_hub_job(row.id, told, now)?;
                }
                Err(error) => {
                    let seconds = pause_after(row.attempts, &error);
                    tracing::warn!(service, reason = %error, seconds, "a job has to wait");
                    let due = now.saturating_add_unsigned(seconds);
                    ca.store()
                        .postpone_hub_job(row.id, due, Some(error.to_string()))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The job as the hub shows it, ordered now if it does not know it. `None` if nobody is told any
    /// more.
    async fn ordered(&self, hub: &HubClient, row: &HubJobRow) -> Result<Option<Job>, CallError> {
        if let Some(known) = hub.job(&row.name).await? {
            return Ok(Some(known));
        }
        let Some(method) = self.method() else {
            return Ok(None);
        };
        let job = MethodJob {
            id: row.name.clone(),
            method,
            device_ids: row.devices.clone(),
            start: OffsetDateTime::from_unix_timestamp(row.made_at)
                .unwrap_or(OffsetDateTime::UNIX_EPOCH),
            duration_max: JOB_DURATION_MAX,
        };
        hub.schedule(&job).await.map(Some)
    }
}
