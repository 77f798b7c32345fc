//! Notifies devices by jobs of the hub: many devices by one request.
//!
//! The store records the name of a job before the hub gets the order, and each pass begins with
//! reading the job: so a job whose answer was lost, or whose daemon died, is found and not ordered
//! again. The job is polled until it has ended and has a result for each device. A device that was
//! not reached is called again for a while, by the next job.

use super::Reconciler;
use super::hub::{NOTIFICATION_OFF, answer_of, pause_after, task_end};
use crate::ca::{CertificateAuthority, Error, crash_point};
use crate::provisioning::failure::CallError;
use crate::provisioning::hub::{HubClient, JOB_DEVICES_MAX, Job, MethodJob, MethodOutcome};
use crate::store::{HubAnswer, HubCall, HubJobRow, HubTaskEnd};
use std::time::Duration;
use time::OffsetDateTime;

/// How long a job runs at the hub.
const JOB_DURATION_MAX: Duration = Duration::from_secs(3_600);
/// The longest pause between two turns for a job, in seconds.
const TURN_PAUSE_SECONDS_MAX: i64 = 60;

/// How long after its order the results of a job are awaited, in seconds: the time that it runs,
/// and half an hour more.
const RESULT_SECONDS_MAX: i64 = 5_400;

/// The results of a job, by device.
type Results = Vec<(String, MethodOutcome)>;

/// The state of a job at the hub.
enum Seen {
    /// It runs, or its results are missing.
    UnderWay,
    /// It has ended; `None` if it was not ordered, because devices are not notified any more.
    Ended(Option<Results>),
}

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

    /// One turn for the job that has been due longest.
    pub(super) async fn job_turn(&self, hub: &HubClient) -> Result<(), Error> {
        let name = self.name.clone();
        let due = self
            .blocking(move |ca| Ok(ca.store().due_hub_job(&name, ca.now())?))
            .await?;
        let Some(row) = due else {
            return Ok(());
        };
        let seen = self.seen(hub, &row).await;
        let service = self.name.clone();
        self.blocking(move |ca| {
            crash_point("roll-job-answered");
            let now = ca.now();
            match seen {
                Ok(Seen::UnderWay) => {
                    let pause = (1 << row.attempts.clamp(0, 6)).min(TURN_PAUSE_SECONDS_MAX);
                    ca.store().postpone_hub_job(row.id, now + pause, None)?;
                }
                Ok(Seen::Ended(results)) => {
                    let ends = ends(ca, &row, &results);
                    ca.store().end_hub_job(row.id, ends, now)?;
                }
                Err(error) => {
                    let seconds = pause_after(row.attempts, &error);
                    tracing::warn!(
                        service,
                        reason = %error,
                        seconds,
                        "hub job call failed, retrying",
                    );
                    let due = now.saturating_add_unsigned(seconds);
                    ca.store()
                        .postpone_hub_job(row.id, due, Some(error.to_string()))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Reads the state of a job. The hub may report the devices later than the job; a device
    /// without a result in time was not reached.
    async fn seen(&self, hub: &HubClient, row: &HubJobRow) -> Result<Seen, CallError> {
        let Some(job) = self.ordered(hub, row).await? else {
            return Ok(Seen::Ended(None));
        };
        if !job.status.is_final() {
            return Ok(Seen::UnderWay);
        }
        let is_late = self.ca.now() > row.made_at + RESULT_SECONDS_MAX;
        let results = match hub.job_results(&row.name).await {
            Err(error) if is_late => {
                let service = &self.name;
                let job = &row.name;
                tracing::warn!(service, job, reason = %error, "results of the hub job unknown");
                Vec::new()
            }
            results => results?,
        };
        let called = job.statistics.map(|it| it.device_count);
        let called = called.map_or(row.calls.len(), |it| {
            usize::try_from(it).unwrap_or(usize::MAX)
        });
        if results.len() < called && !is_late {
            return Ok(Seen::UnderWay);
        }
        Ok(Seen::Ended(Some(results)))
    }

    /// Reads a job, and orders it if the hub does not know it. `None` if devices are not notified
    /// any more.
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
            device_ids: row
                .calls
                .iter()
                .map(|call| call.hub_device.clone())
                .collect(),
            start: row.made_at.date().unwrap_or(OffsetDateTime::UNIX_EPOCH),
            duration_max: JOB_DURATION_MAX,
        };
        hub.schedule(&job).await.map(Some)
    }
}

/// Returns the results of the calls of a job that has ended.
fn ends(ca: &CertificateAuthority, row: &HubJobRow, results: &Option<Results>) -> Vec<HubTaskEnd> {
    let answer = |call: &HubCall| {
        let Some(results) = results else {
            return HubAnswer::said(NOTIFICATION_OFF);
        };
        let is_its =
            |(device, _): &&(String, MethodOutcome)| device.eq_ignore_ascii_case(&call.hub_device);
        match results.iter().find(is_its) {
            Some((_, outcome)) => answer_of(outcome.clone()),
            None => HubAnswer::not_heard(None),
        }
    };
    let calls = row.calls.iter();
    calls
        .map(|call| task_end(ca, (call.id, call.round), call.queued_at, answer(call)))
        .collect()
}
