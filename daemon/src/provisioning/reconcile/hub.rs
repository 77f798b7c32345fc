//! Work at the hub: identities that go, devices that are told to register again.
//!
//! The queue is the store's; here each due task gets one call. Deleting what is gone already is
//! done, and a device that is not connected is counted, and called again for a while: in the end it
//! finds out when it is refused. A failure moves the task's due time, and the hub's own pause holds up all of them.

use super::{CREDENTIAL_PAUSE_SECONDS, Reconciler, TICK, pause_seconds};
use crate::ca::roll::TellBy;
use crate::ca::{Error, crash_point};
use crate::provisioning::failure::CallError;
use crate::provisioning::hub::{DirectMethod, HubClient, MethodOutcome};
use crate::store::{HubAction, HubTaskRow, NEEDED_NO_MORE, OFFLINE};
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::HashSet;
use std::time::Duration;

/// Tasks that are worked on at once; the hub's budget is the limit that counts.
const TASKS_IN_WORK_MAX: usize = 8;

impl Reconciler {
    /// Works tasks off as they fall due, beside the looks: a hub that hangs holds up no block.
    pub(super) async fn work_at_hub(&self) {
        let Some(hub) = &self.clients.hub else {
            return std::future::pending().await;
        };
        loop {
            if let Err(error) = self.work_off(hub).await {
                let service = &self.name;
                tracing::error!(service, %error, "the queue of work at the hub cannot be read");
            }
            let pause = self.until_next_hub_task().await;
            tokio::select! {
                () = self.hub_wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Every due task, and beside them one look at a job.
    async fn work_off(&self, hub: &HubClient) -> Result<(), Error> {
        if self.tells_by(TellBy::Job) {
            self.make_jobs().await?;
        }
        let (tasks, job) = tokio::join!(self.hub_pass(hub), self.look_at_job(hub));
        tasks.and(job)
    }

    fn tells_by(&self, by: TellBy) -> bool {
        self.ca.telling().is_some_and(|telling| telling.by == by)
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
            let Some((id, done)) = calls.next().await else {
                return Ok(());
            };
            under_way.remove(&id);
            done?;
        }
    }

    /// One call, and its answer on record.
    async fn do_at_hub(&self, hub: &HubClient, task: HubTaskRow) -> Result<(), Error> {
        let outcome = match task.action {
            HubAction::Delete => hub.delete(&task.device).await.map(|()| "deleted".into()),
            HubAction::Call if !self.is_call_needed(task.id).await? => Ok(NEEDED_NO_MORE.into()),
            HubAction::Call => self.tell(hub, &task.device).await,
        };
        let (service, observed) = (self.name.clone(), self.observed.clone());
        self.blocking(move |ca| {
            crash_point("roll-hub-answered");
            let now = ca.now();
            match outcome {
                Ok(answer) if answer == OFFLINE && ca.tell_again_at(task.queued_at).is_some() => {
                    let due = ca.tell_again_at(task.queued_at).unwrap_or(now);
                    ca.store().postpone_hub_task(task.id, due, answer)?;
                }
                Ok(answer) => {
                    ca.store().settle_hub_task(task.id, answer, now)?;
                    observed.notify_one();
                }
                Err(error) => {
                    let seconds = pause_after(task.attempts, &error);
                    tracing::warn!(service, reason = %error, seconds, "the hub has to wait");
                    let due = now.saturating_add_unsigned(seconds);
                    ca.store()
                        .postpone_hub_task(task.id, due, error.to_string())?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn tell(&self, hub: &HubClient, device: &str) -> Result<String, CallError> {
        let Some(method) = self.method() else {
            return Ok("nobody is told: [policy] tell_devices was changed".into());
        };
        Ok(match hub.invoke(device, &method).await? {
            MethodOutcome::Answered { status, .. } => format!("answered {status}"),
            MethodOutcome::NotReached { .. } => OFFLINE.into(),
        })
    }

    /// What devices are called by, if they are.
    pub(super) fn method(&self) -> Option<DirectMethod> {
        let telling = self.ca.telling()?;
        Some(DirectMethod {
            name: telling.method.clone(),
            payload: telling.payload.clone(),
        })
    }

    async fn is_call_needed(&self, task: i64) -> Result<bool, Error> {
        self.blocking(move |ca| Ok(ca.store().is_call_needed(task)?))
            .await
    }

    async fn due_hub_tasks(&self) -> Result<Vec<HubTaskRow>, Error> {
        let name = self.name.clone();
        // Those under way are among the due ones.
        let limit = 2 * TASKS_IN_WORK_MAX as u32;
        let calls = !self.tells_by(TellBy::Job);
        self.blocking(move |ca| Ok(ca.store().due_hub_tasks(&name, ca.now(), limit, calls)?))
            .await
    }

    async fn until_next_hub_task(&self) -> Duration {
        let name = self.name.clone();
        let next = self
            .blocking(move |ca| Ok((ca.store().next_hub_task(&name)?, ca.now())))
            .await;
        match next {
            Ok((Some(due), now)) => {
                let seconds = u64::try_from(due - now).unwrap_or(0);
                Duration::from_secs(seconds).min(TICK)
            }
            _ => TICK,
        }
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
