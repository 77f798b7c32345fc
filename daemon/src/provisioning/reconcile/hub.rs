//! Works at the hub: deletes identities, and notifies devices to register again.
//!
//! The store has the queue; each due task gets one call here. A missing identity counts as deleted.
//! A device that is not connected is counted, and called again for a while; after that it registers
//! when it is refused. A failure moves the task's due time, and a pause that the hub requests
//! delays all tasks.

use super::backoff::{Backoff, while_the_store_fails};
use super::{APPLICATION_BOUND, CREDENTIAL_PAUSE_SECONDS, DUE_INTERVAL, Reconciler, pause_seconds};
use crate::ca::roll::NotifyBy;
use crate::ca::{CertificateAuthority, Error, crash_point};
use crate::ids::HubTaskId;
use crate::provisioning::failure::CallError;
use crate::provisioning::http::CALL_BOUND;
use crate::provisioning::hub::{DirectMethod, HubClient, MethodOutcome};
use crate::store::{HubAction, HubAnswer, HubTaskEnd, HubTaskRow, NEEDED_NO_MORE};
use crate::unix_seconds::UnixSeconds;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::HashSet;
use std::time::Duration;

/// Tasks that are worked on at once; the hub's budget is the limit that counts.
const TASKS_IN_WORK_MAX: usize = 8;

/// The answer on record of a call that was not made.
pub(super) const NOTIFICATION_OFF: &str = "not notified: [policy] tell_devices was changed";

impl Reconciler {
    /// Works tasks off as they fall due, beside the looks: a hub that hangs holds up no block.
    pub(super) async fn work_at_hub(&self) {
        let Some(hub) = &self.clients.hub else {
            return std::future::pending().await;
        };
        let mut backoff = Backoff::default();
        loop {
            while_the_store_fails(&self.ca).await;
            if let Err(error) = self.work_off(hub).await {
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

    /// Every due task, and beside them one look at a job.
    async fn work_off(&self, hub: &HubClient) -> Result<(), Error> {
        if self.notifies_by(NotifyBy::Job) {
            self.make_jobs().await?;
        }
        let (tasks, job) = tokio::join!(self.hub_pass(hub), self.look_at_job(hub));
        tasks.and(job)
    }

    fn notifies_by(&self, by: NotifyBy) -> bool {
        self.ca
            .rollovers()
            .device_notification()
            .is_some_and(|notification| notification.by == by)
    }

    /// Every due task, several at a time. Ends when none is due.
    async fn hub_pass(&self, hub: &HubClient) -> Result<(), Error> {
        let mut calls = FuturesUnordered::new();
        let mut under_way = HashSet::new();
        loop {
            for task in self.due_hub_tasks().await? {
                if under_way.len() < TASKS_IN_WORK_MAX && under_way.insert(task.id) {
                    let id = task.id;
                    calls.push(self.do_at_hub(hub, task).map(move |done| (id, done)));
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

    /// One call, and its answer on record.
    async fn do_at_hub(&self, hub: &HubClient, task: HubTaskRow) -> Result<(), Error> {
        let _deadline = self.deadline("hub", CALL_BOUND + 2 * APPLICATION_BOUND);
        let answer = match task.action {
            HubAction::Delete => hub
                .delete(&task.device)
                .await
                .map(|()| HubAnswer::said("deleted")),
            HubAction::Call if !self.is_call_needed(task.id).await? => {
                Ok(HubAnswer::said(NEEDED_NO_MORE))
            }
            HubAction::Call => self.tell(hub, &task.device).await,
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

    async fn tell(&self, hub: &HubClient, device: &str) -> Result<HubAnswer, CallError> {
        let Some(method) = self.method() else {
            return Ok(HubAnswer::said(NOTIFICATION_OFF));
        };
        Ok(answer_of(hub.invoke(device, &method).await?))
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
        let calls = !self.notifies_by(NotifyBy::Job);
        self.blocking(move |ca| Ok(ca.store().due_hub_tasks(&name, ca.now(), limit, calls)?))
            .await
    }

    async fn until_next_hub_task(&self) -> Duration {
        let name = self.name.clone();
        self.until(move |ca| Ok(ca.store().next_hub_task(&name)?))
            .await
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
