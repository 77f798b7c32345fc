//! Reconciles one provisioning service with the state that the store desires.
//!
//! The reconciler takes no input. Woken by an event, by the earliest due time or by the clock, it
//! reads the due marks, and for each one: reads the desired state, observes the service, lets
//! `enrollment::plan` decide, acts with `If-Match`, and clears the mark if nothing has changed
//! since. Every pass begins with an observation, so a write whose answer was lost is read back
//! before it could be repeated, and there are no inner retries: a failure moves the mark's due
//! time.
//!
//! It must never sign, and has nothing to sign with: a service that fails cannot cause a signature.

mod backlog;
mod backoff;
mod ca_certificate;
mod ca_scan;
mod canary;
mod enrollment;
mod group_registrations;
mod hub;
mod identity;
mod job;
mod proof;
mod scan;
mod unknown;

use super::configuration::Clients;
use super::failure::CallError;
use super::http::CALL_BOUND;
use crate::ca::liveness::Deadline;
use crate::ca::{CertificateAuthority, Code, Error};
use crate::enrollment::plan::DriftPolicy;
use crate::ids::MarkId;
use crate::store::{AuditEntry, MarkRow, MarkSubject, Observation};
use crate::trace;
use crate::unix_seconds::UnixSeconds;
use backoff::{Backoff, answer_timeout, while_the_store_fails};
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::Rng;
use serde_json::json;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often the reconciler reads its marks without a wake-up. The next due time is known, so this
/// is for a clock that was set.
const TICK: Duration = Duration::from_secs(120);
/// Marks that are worked on at once; the service's budget is the limit that counts.
const MARKS_IN_WORK_MAX: usize = 8;
/// Of these, marks that have failed before: calls that hang again leave room for other enrollments.
const RETRIES_IN_WORK_MAX: usize = 4;
/// How often due marks are read while others are worked on.
const DUE_INTERVAL: Duration = Duration::from_secs(1);
/// Turns that one mark may take in a row before others come first.
const TURNS_MAX: u32 = 8;
/// The first pause after a failure; it doubles.
const PAUSE_SECONDS: u64 = 1;
/// The longest pause after failures.
const PAUSE_SECONDS_MAX: u64 = 300;
/// The pause after a refused credential: the file may be exchanged at any time.
const CREDENTIAL_PAUSE_SECONDS: u64 = 10;
/// The most calls that one turn takes.
const TURN_CALLS_MAX: u32 = 4;
/// How long one turn may take.
const TURN_BOUND: Duration = CALL_BOUND.saturating_mul(TURN_CALLS_MAX);
/// How long the application may take for one thing that the reconciler asks of it; a canary's
/// certificate waits for its token.
const APPLICATION_BOUND: Duration = Duration::from_secs(300);
/// How much later than it should a loop may be woken.
const WAKE_SLACK: Duration = Duration::from_secs(30);
/// How long a signature by the application is waited for; it wakes us when it is there.
const SIGNATURE_PAUSE_SECONDS: u64 = 60;

/// The reconciler of one provisioning service.
pub struct Reconciler {
    /// The service's name in the configuration.
    pub name: String,
    /// The application, with the desired state.
    pub ca: Arc<CertificateAuthority>,
    /// How to reach the service.
    pub clients: Clients,
    /// The reaction to changes outside Hallmark.
    pub drift: DriftPolicy,
    /// How often the whole service is compared with what is on record.
    pub scan_interval: Duration,
    /// Notified when there may be something to do.
    pub wake: Arc<Notify>,
    /// Notified when there may be something to do at its hub.
    pub hub_wake: Arc<Notify>,
    /// Notified when something was observed that others wait for.
    pub observed: Arc<Notify>,
    /// Notified when a canary may be due.
    pub canary_wake: Arc<Notify>,
}

/// The result of one pass over a mark.
enum Outcome {
    /// Nothing is left to do.
    Done(Observation),
    /// Something was done; another turn observes the result.
    Again,
    /// The application has to sign something first.
    Signature,
    /// Try again, after this pause if the service named one.
    Later(Option<Duration>, String),
    /// An operator has to act.
    Parked(String),
}

impl Reconciler {
    /// Reconciles until `stop` turns true. A call in flight is abandoned then: its attempt is on
    /// record, and the next start reads its effect back.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.reconcile() => {}
            () = self.scan_from_time_to_time() => {}
            () = self.work_at_hub() => {}
            () = self.try_canaries() => {}
            () = self.gather_proofs() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn reconcile(&self) {
        let mut backoff = Backoff::default();
        let mut repairs = self.drift == DriftPolicy::Repair;
        loop {
            while_the_store_fails(&self.ca).await;
            if let Err(error) = self.pass_after(&mut repairs).await {
                tracing::error!(service = self.name, %error, "reconciler pass failed, retrying");
                backoff.rest().await;
                continue;
            }
            backoff.over();
            let pause = self.until_next_due().await;
            let _deadline = self.deadline("rest", pause + WAKE_SLACK);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Makes a pass. Before the first one, marks what drifted while policy did not repair it.
    async fn pass_after(&self, repairs: &mut bool) -> Result<(), Error> {
        if *repairs {
            let name = self.name.clone();
            self.blocking(move |ca| Ok(ca.store().mark_drifted(name, ca.now())?))
                .await?;
            *repairs = false;
        }
        self.pass().await
    }

    /// Takes a turn for every mark that is due, several at a time: one that hangs holds up no
    /// other, nor does a backlog of new enrollments. Ends when nothing is due.
    pub async fn pass(&self) -> Result<(), Error> {
        let mut turns = FuturesUnordered::new();
        let mut under_way: HashMap<MarkId, bool> = HashMap::new();
        let mut backlog = pin!(self.work_off_backlog().fuse());
        let mut backlog_is_worked_off = false;
        loop {
            let room = MARKS_IN_WORK_MAX - under_way.len();
            if room > 0 {
                for mark in self
                    .due(under_way.len() + room, backlog_is_worked_off)
                    .await?
                {
                    if has_room(&under_way, &mark) {
                        let id = mark.id;
                        under_way.insert(id, mark.attempts > 0);
                        turns.push(self.settle(mark).map(move |done| (id, done)));
                    }
                }
            }
            if turns.is_empty() && backlog_is_worked_off {
                return Ok(());
            }
            tokio::select! {
                Some((id, done)) = turns.next() => {
                    under_way.remove(&id);
                    done?;
                }
                done = &mut backlog => {
                    backlog_is_worked_off = true;
                    done?;
                }
                () = self.wake.notified() => {}
                // Marks fall due while a call hangs.
                () = tokio::time::sleep(DUE_INTERVAL) => {}
            }
        }
    }

    async fn due(&self, limit: usize, new_ones: bool) -> Result<Vec<MarkRow>, Error> {
        let name = self.name.clone();
        self.blocking(move |ca| {
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            Ok(ca.store().due_marks(&name, ca.now(), limit, new_ones)?)
        })
        .await
    }

    async fn until_next_due(&self) -> Duration {
        let name = self.name.clone();
        self.until(move |ca| Ok(ca.store().next_due(&name)?)).await
    }

    /// How long it is until the moment that `next` names, at most a [`TICK`].
    async fn until<F>(&self, next: F) -> Duration
    where
        F: FnOnce(&CertificateAuthority) -> Result<Option<UnixSeconds>, Error> + Send + 'static,
    {
        match self.blocking(move |ca| Ok((next(ca)?, ca.now()))).await {
            Ok((Some(due), now)) => {
                let seconds = u64::try_from(due - now).unwrap_or(0);
                Duration::from_secs(seconds).min(TICK)
            }
            _ => TICK,
        }
    }

    /// Takes turns for one mark until it is settled, or has to wait. Afterwards it is not due any
    /// more.
    async fn settle(&self, mark: MarkRow) -> Result<(), Error> {
        let trace = mark.trace.clone().map(Arc::new);
        trace::scope(trace, self.settle_in_its_trace(mark)).await
    }

    async fn settle_in_its_trace(&self, mark: MarkRow) -> Result<(), Error> {
        let mut is_contested = false;
        for _ in 0..TURNS_MAX {
            let deadline = self.deadline("turn", TURN_BOUND);
            let ended = self.turn(&mark).await;
            drop(deadline);
            let outcome = match ended {
                Ok(outcome) => outcome,
                // One conflict is the change of another client, which the next turn observes. A
                // second one in a row is a refusal: it is paced, with the service's words.
                Err(Failure::There(error @ CallError::Conflict { .. })) if is_contested => {
                    Outcome::Later(None, error.to_string())
                }
                Err(failure) => {
                    is_contested = matches!(failure, Failure::There(CallError::Conflict { .. }));
                    judge(failure)
                }
            };
            match outcome {
                Outcome::Again => {}
                other => return self.record(mark, other).await,
            }
        }
        self.record(
            mark,
            Outcome::Later(None, "the service keeps changing".into()),
        )
        .await
    }

    async fn turn(&self, mark: &MarkRow) -> Result<Outcome, Failure> {
        match mark.subject {
            MarkSubject::Enrollment(id) => {
                let row = self
                    .blocking(move |ca| Ok(ca.store().enrollment(id)?))
                    .await?;
                let timeout = answer_timeout(mark.attempts);
                self.enrollment_turn(row, timeout).await
            }
            MarkSubject::CaCertificate(id) => {
                let row = self
                    .blocking(move |ca| Ok(ca.store().ca_certificate(id)?))
                    .await?;
                self.ca_certificate_turn(row).await
            }
        }
    }

    async fn record(&self, mark: MarkRow, outcome: Outcome) -> Result<(), Error> {
        let service = self.name.clone();
        let notify = self.observed.clone();
        let hub = self.hub_wake.clone();
        let canary = self.canary_wake.clone();
        self.blocking(move |ca| {
            let now = ca.now();
            match outcome {
                Outcome::Done(observation) => {
                    if ca.store().complete_mark(&mark, observation, now)? {
                        notify.notify_one();
                        canary.notify_one();
                        // After the exclusion here, the identity can be deleted there.
                        hub.notify_one();
                    }
                }
                Outcome::Later(pause, reason) => {
                    let seconds = pause_seconds(mark.attempts, pause);
                    tracing::warn!(service, reason, seconds, "DPS call failed, retrying");
                    let due = now.saturating_add_unsigned(seconds);
                    ca.store().postpone_mark(&mark, due, reason)?;
                }
                Outcome::Signature => {
                    let due = now.saturating_add_unsigned(SIGNATURE_PAUSE_SECONDS);
                    ca.store().defer_mark(&mark, due, "waits for a signature")?;
                }
                Outcome::Parked(reason) => {
                    tracing::error!(service, reason, "change parked");
                    let entry = parked_entry(&service, &mark, &reason, now);
                    ca.store().park_mark(&mark, reason, entry)?;
                }
                Outcome::Again => {}
            }
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CertificateAuthority) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let ca = self.ca.clone();
        let _deadline = self.deadline("application", APPLICATION_BOUND);
        let trace = trace::current();
        tokio::task::spawn_blocking(move || trace::within(trace, || work(&ca)))
            .await
            .unwrap_or_else(|_| {
                Err(Error::stop(
                    Code::Internal,
                    "a turn failed; the log says why",
                ))
            })
    }

    fn deadline(&self, what: &str, bound: Duration) -> Deadline {
        let service = &self.name;
        let what = format!("the reconciler of {service} ({what})");
        self.ca.liveness().deadline(what, bound)
    }
}

/// Why a turn ended early: at the service, or here.
enum Failure {
    There(CallError),
    Here(Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::There(error) => error.fmt(f),
            Failure::Here(error) => error.fmt(f),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Failure::There(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Here(error)
    }
}

/// Returns true if a mark may be worked on beside those `under_way`, by their row ids and whether
/// each has failed before.
fn has_room(under_way: &HashMap<MarkId, bool>, mark: &MarkRow) -> bool {
    let retries = under_way.values().filter(|is_retry| **is_retry).count();
    under_way.len() < MARKS_IN_WORK_MAX
        && !under_way.contains_key(&mark.id)
        && (mark.attempts == 0 || retries < RETRIES_IN_WORK_MAX)
}

fn judge(failure: Failure) -> Outcome {
    match failure {
        Failure::There(CallError::Conflict { .. }) => Outcome::Again,
        Failure::There(error @ CallError::Transient { retry_after, .. }) => {
            Outcome::Later(retry_after, error.to_string())
        }
        Failure::There(error @ CallError::Unauthorized { .. }) => Outcome::Later(
            Some(Duration::from_secs(CREDENTIAL_PAUSE_SECONDS)),
            error.to_string(),
        ),
        // A 404 that is not the service's own: a proxy or another service has answered.
        Failure::There(error) if error.is_not_found() => Outcome::Later(None, error.to_string()),
        Failure::There(error @ (CallError::Rejected { .. } | CallError::Unsendable { .. })) => {
            Outcome::Parked(error.to_string())
        }
        // Another transaction changed the row, or the disk is full: try again later.
        Failure::Here(error) => Outcome::Later(None, error.to_string()),
    }
}

/// Returns the pause that the service asked for, or one that doubles; with a random addition, so
/// that not all retries come at once.
fn pause_seconds(attempts: i64, asked: Option<Duration>) -> u64 {
    let doubled = PAUSE_SECONDS << attempts.clamp(0, 16);
    let seconds = match asked {
        Some(pause) => pause
            .as_secs()
            .saturating_add(u64::from(pause.subsec_nanos() > 0)),
        None => doubled.min(PAUSE_SECONDS_MAX),
    };
    seconds + rand::rng().random_range(0..=seconds / 4)
}

fn parked_entry(service: &str, mark: &MarkRow, reason: &str, at: UnixSeconds) -> AuditEntry {
    AuditEntry {
        at,
        actor: "hallmarkd".into(),
        action: "push.parked",
        subject: service.to_owned(),
        detail: json!({ "cause": mark.cause, "reason": reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_own_word_outweighs_the_doubling() {
        let pause = pause_seconds(10, Some(Duration::from_millis(3_200)));
        assert!((4..=5).contains(&pause), "{pause}");
        assert!((300..=375).contains(&pause_seconds(60, None)));
        assert!((1..=1).contains(&pause_seconds(0, None)));
    }
}
