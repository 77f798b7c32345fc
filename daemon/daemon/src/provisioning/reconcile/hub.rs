//! Works at the hub: deletes identities, and notifies devices to register again.
//!
//! The store has the queue; each due task is done here, at the hub that the device's registration
//! record names ([`super::identity`]). A device that is not connected is counted, and called again
//! for a while; after that it registers when it is refused. A failure moves the task's due time,
//! and a pause that the hub requests delays all tasks.

use super::backoff::{Backoff, while_the_store_fails};
use super::identity::Deleted;
use super::{
    APPLICATION_BOUND, CREDENTIAL_PAUSE_SECONDS, DUE_INTERVAL, Failure, Reconciler, pause_seconds,
};
use crate::ca::roll::NotifyBy;
use crate::ca::{CertificateAuthority, Error, crash_point};
use crate::ids::HubTaskId;
use crate::provisioning::failure::CallError;
use crate::provisioning::http::CALL_BOUND;
use crate::provisioning::hub::{DirectMethod, MethodOutcome};
use crate::store::{HubAction, HubAnswer, HubTaskEnd, HubTaskRow, NEEDED_NO_MORE};
use crate::trace;
use crate::unix_seconds::UnixSeconds;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Tasks that are worked on at once; the hub's budget is the limit that counts.
const TASKS_IN_WORK_MAX: usize = 8;

/// How long one task may take: its registration record, and three calls at each of some hubs.
const TASK_BOUND: Duration = CALL_BOUND.saturating_mul(16);

/// The answer on record of a call that was not made.
pub(super) const NOTIFICATION_OFF: &str = "not notified: [policy] tell_devices was changed";

impl Reconciler {
    /// Works tasks off as they fall due, beside the turns for marks: a hub that hangs holds up no
    /// block.
    pub(super) async fn work_at_hub(&self) {
        if self.clients.hubs.is_empty() {
            return std::future::pending().await;
        }
        let mut backoff = Backoff::default();
        let mut has_resumed = false;
        loop {
            while_the_store_fails(&self.ca).await;
            let worked = async {
                if !has_resumed {
                    self.resume_deletions().await?;
                    has_resumed = true;
                }
                self.work_off().await
            };
            if let Err(error) = worked.await {
                let service = &self.name;
                tracing::error!(service, %error, "hub pass failed, retrying");
                backoff.rest().await;
                continue;
            }
            backoff.over();
            let pause = self.until_next_hub_task().await;
            tokio::select! {
                () = self.hub_wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Queues deletions again whose hub was not configured before.
    async fn resume_deletions(&self) -> Result<(), Error> {
        let hubs = self.clients.hubs.iter().map(|it| it.host().to_owned());
        let hubs: Vec<String> = hubs.collect();
        let name = self.name.clone();
        let resumed = self.blocking(move |ca| {
            let now = ca.now();
            Ok(ca.store().resume_hub_deletions(&name, &hubs, now)?)
        });
        resumed.await.map(drop)
    }

    /// Every due task, and beside them one turn for a job.
    async fn work_off(&self) -> Result<(), Error> {
        self.list_registrations().await?;
        if self.notifies_by_jobs() {
            self.make_jobs().await?;
        }
        let job_turn = async {
            match self.clients.hubs.only() {
                Some(hub) => self.job_turn(hub).await,
                None => Ok(()),
            }
        };
        let (tasks, job) = tokio::join!(self.hub_pass(), job_turn);
        tasks.and(job)
    }

    /// A job is one hub's. Among several hubs each device is called at its own.
    fn notifies_by_jobs(&self) -> bool {
        let notification = self.ca.rollovers().device_notification();
        self.clients.hubs.only().is_some() && notification.is_some_and(|it| it.by == NotifyBy::Job)
    }

    /// Every due task, several at a time. Ends when none is due.
    async fn hub_pass(&self) -> Result<(), Error> {
        let mut calls = FuturesUnordered::new();
        let mut under_way = HashSet::new();
        loop {
            for task in self.due_hub_tasks().await? {
                if under_way.len() < TASKS_IN_WORK_MAX && under_way.insert(task.id) {
                    let id = task.id;
                    calls.push(self.do_at_hub(task).map(move |done| (id, done)));
                }
            }
            if calls.is_empty() {
                return Ok(());
            }
            // A call that hangs must not delay the deletions that fall due after it.
            tokio::select! {
                Some((id, done)) = calls.next() => {
                    under_way.remove(&id);
                    done?;
                }
                () = tokio::time::sleep(DUE_INTERVAL) => {}
            }
        }
    }

    /// One task, and its answer on record.
    async fn do_at_hub(&self, task: HubTaskRow) -> Result<(), Error> {
        let trace = task.trace.clone().map(Arc::new);
        trace::scope(trace, self.do_in_its_trace(task)).await
    }

    async fn do_in_its_trace(&self, task: HubTaskRow) -> Result<(), Error> {
        let _deadline = self.deadline("hub", TASK_BOUND + 4 * APPLICATION_BOUND);
        let answer = match self.done_at_hub(&task).await {
            Ok(answer) => Ok(answer),
            Err(Failure::There(error)) => Err(error),
            Err(Failure::Here(error)) => return Err(error),
        };
        let service = self.name.clone();
        let observed = self.observed.clone();
        self.blocking(move |ca| {
            crash_point("roll-hub-answered");
            let now = ca.now();
            let end = match answer {
                Ok(answer) => task_end(ca, (task.id, task.round), task.queued_at, answer),
                Err(error) => {
                    let seconds = pause_after(task.attempts, &error);
                    tracing::warn!(service, reason = %error, seconds, "hub call failed, retrying");
                    HubTaskEnd {
                        id: task.id,
                        round: task.round,
                        answer: HubAnswer::said(error.to_string()),
                        again_at: Some(now.saturating_add_unsigned(seconds)),
                    }
                }
            };
            let is_done = end.again_at.is_none();
            ca.store().end_hub_task(end, now)?;
            if is_done {
                observed.notify_one();
            }
            Ok(())
        })
        .await
    }

    async fn done_at_hub(&self, task: &HubTaskRow) -> Result<HubAnswer, Failure> {
        match task.action {
            HubAction::Delete => {
                let deleted = Deleted {
                    device: task.device.clone(),
                    cause: Some(task.cause),
                };
                self.delete_identities(&deleted).await
            }
            HubAction::Call if !self.is_call_needed(task.id).await? => {
                Ok(HubAnswer::said(NEEDED_NO_MORE))
            }
            HubAction::Call => match self.method() {
                Some(method) => Ok(self.call_device(&task.device, &method).await?),
                None => Ok(HubAnswer::said(NOTIFICATION_OFF)),
            },
        }
    }

    /// Returns the method that notifies devices, if they are notified.
    pub(super) fn method(&self) -> Option<DirectMethod> {
        let notification = self.ca.rollovers().device_notification()?;
        Some(DirectMethod {
            name: notification.method.clone(),
            payload: notification.payload.clone(),
        })
    }

    async fn is_call_needed(&self, task: HubTaskId) -> Result<bool, Error> {
        self.blocking(move |ca| Ok(ca.store().is_call_needed(task)?))
            .await
    }

    async fn due_hub_tasks(&self) -> Result<Vec<HubTaskRow>, Error> {
        let name = self.name.clone();
        // Those under way are among the due ones.
        let limit = 2 * TASKS_IN_WORK_MAX as u32;
        let calls = !self.notifies_by_jobs();
        self.blocking(move |ca| Ok(ca.store().due_hub_tasks(&name, ca.now(), limit, calls)?))
            .await
    }

    async fn until_next_hub_task(&self) -> Duration {
        let name = self.name.clone();
        let next = self.until(move |ca| {
            let task = ca.store().next_hub_task(&name)?;
            let group = ca.store().next_group_to_list(&name)?;
            Ok(task.into_iter().chain(group).min())
        });
        next.await
    }
}

/// Returns the result of a call, for the record.
pub(super) fn answer_of(outcome: MethodOutcome) -> HubAnswer {
    match outcome {
        MethodOutcome::Answered { status, .. } => HubAnswer::heard(status),
        MethodOutcome::NotReached { code } => HubAnswer::not_heard(code),
    }
}

/// Ends a task, given by row and round, with its answer. A device that was not connected is called
/// again for a while.
pub(super) fn task_end(
    ca: &CertificateAuthority,
    (id, round): (HubTaskId, i64),
    queued_at: UnixSeconds,
    answer: HubAnswer,
) -> HubTaskEnd {
    let again_at = if answer.is_not_heard() {
        ca.rollovers().next_notification_at(queued_at)
    } else {
        None
    };
    HubTaskEnd {
        id,
        round,
        answer,
        again_at,
    }
}

pub(super) fn pause_after(attempts: i64, error: &CallError) -> u64 {
    let asked = match error {
        CallError::Transient { retry_after, .. } => *retry_after,
        CallError::Unauthorized { .. } => Some(Duration::from_secs(CREDENTIAL_PAUSE_SECONDS)),
        _ => None,
    };
    pause_seconds(attempts, asked)
}
