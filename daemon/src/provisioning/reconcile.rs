//! The reconciler: makes one provisioning service hold what the store says it shall.
//!
//! It takes no input. Woken by an event, by the earliest due time or by the clock, it reads which
//! marks are due, and for each one: reads what is desired, observes the service, lets
//! `enrollment::plan` decide, acts with `If-Match`, and clears the mark if nothing has changed
//! meanwhile. Every look begins with an observation, so a write whose answer was lost is read back
//! before it could be repeated, and there are no inner retries: a failure moves the mark's due time.
//!
//! It must never sign, and has nothing to sign with: a service that fails cannot cause a signature.

use super::configuration::Clients;
use super::failure::CallError;
use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::ca_certificate::{Proof, Step, next_step};
use crate::enrollment::desired::{Desired, EnrollmentId, SlotCertificate};
use crate::enrollment::history::History;
use crate::enrollment::id::{EnrollmentGroupId, RegistrationId};
use crate::enrollment::plan::{DriftPolicy, Plan, holds, plan};
use crate::enrollment::record::Record;
use crate::store::{
    AuditEntry, CaCertificateRow, EnrollmentKind, EnrollmentRow, MarkRow, MarkSubject, Sighting,
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often the reconciler looks without being woken.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// Marks that are worked on at once; the service's budget is the limit that counts.
const MARKS_IN_WORK_MAX: u32 = 8;
/// Looks that one mark may take in a row before it lets others go first.
const LOOKS_MAX: u32 = 8;
/// The first pause after a failure; it doubles.
const PAUSE_SECONDS: u64 = 1;
/// The longest pause after failures.
const PAUSE_SECONDS_MAX: u64 = 300;
/// The pause after a refused credential: the file may be exchanged at any time.
const CREDENTIAL_PAUSE_SECONDS: u64 = 30;
/// How long a signature by the application is waited for; it wakes us when it is there.
const SIGNATURE_PAUSE_SECONDS: u64 = 60;

/// The reconciler of one provisioning service.
pub struct Reconciler {
    /// The service's name in the configuration.
    pub name: String,
    /// What is desired.
    pub ca: Arc<CertificateAuthority>,
    /// How to reach the service.
    pub clients: Clients,
    /// What to do about somebody else's changes.
    pub drift: DriftPolicy,
    /// Rung when there may be something to do.
    pub wake: Arc<Notify>,
    /// Rung when something was observed that others wait for.
    pub observed: Arc<Notify>,
}

/// What came of one look.
enum Outcome {
    /// Nothing is left to do.
    Done(Sighting),
    /// Something was done; look again.
    Again,
    /// The application has to sign something first.
    Signature,
    /// Try again, after this pause if the service named one.
    Later(Option<Duration>, String),
    /// An operator has to look.
    Parked(String),
}

impl Reconciler {
    /// Reconciles until `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.pass().await {
                tracing::error!(service = self.name, %error, "the reconciler cannot read its work");
            }
            let pause = self.until_next_due().await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Looks at every mark that is due.
    async fn pass(&self) -> Result<(), Error> {
        loop {
            let name = self.name.clone();
            let due = move |ca: &CertificateAuthority| {
                Ok(ca.store().due_marks(&name, ca.now(), MARKS_IN_WORK_MAX)?)
            };
            let marks = self.blocking(due).await?;
            if marks.is_empty() {
                return Ok(());
            }
            let mut work: FuturesUnordered<_> =
                marks.into_iter().map(|mark| self.settle(mark)).collect();
            while let Some(done) = work.next().await {
                done?;
            }
        }
    }

    async fn until_next_due(&self) -> Duration {
        let name = self.name.clone();
        let next = self
            .blocking(move |ca| Ok((ca.store().next_due(&name)?, ca.now())))
            .await;
        match next {
            Ok((Some(due), now)) => {
                let seconds = u64::try_from(due - now).unwrap_or(0);
                Duration::from_secs(seconds).min(SCAN_INTERVAL)
            }
            _ => SCAN_INTERVAL,
        }
    }

    /// Looks at one mark until it is settled, or has to wait. Afterwards it is not due any more.
    async fn settle(&self, mark: MarkRow) -> Result<(), Error> {
        for _ in 0..LOOKS_MAX {
            let outcome = match self.look(&mark).await {
                Ok(outcome) => outcome,
                Err(failure) => judge(failure),
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

    async fn look(&self, mark: &MarkRow) -> Result<Outcome, Failure> {
        match mark.subject {
            MarkSubject::Enrollment(id) => {
                let row = self
                    .blocking(move |ca| Ok(ca.store().enrollment(id)?))
                    .await?;
                self.look_at_enrollment(row).await
            }
            MarkSubject::CaCertificate(id) => {
                let row = self
                    .blocking(move |ca| Ok(ca.store().ca_certificate(id)?))
                    .await?;
                self.look_at_ca_certificate(row).await
            }
        }
    }

    async fn look_at_enrollment(&self, row: EnrollmentRow) -> Result<Outcome, Failure> {
        let id = Id::of(&row)?;
        let wanted = row.clone();
        let desired = self.blocking(move |ca| ca.desired(&wanted)).await?;
        let observed = self.clients.dps.enrollment(id.borrowed()).await?;
        let (desired, observed) = (desired.as_ref(), observed.as_ref());
        let history = row.history.observed(observed);
        match plan(desired, observed, &history, self.drift) {
            Plan::Settled => Ok(Outcome::Done(sighting(desired, observed))),
            Plan::Drift(drift) => Ok(Outcome::Done(Sighting::Drifted {
                record: observed.map(record_of),
                drift: serde_json::to_value(&drift).unwrap_or_default(),
            })),
            Plan::Create { record } => {
                self.record_attempt(row.id, history.sending(desired))
                    .await?;
                let created = self.clients.dps.create(id.borrowed(), &record).await?;
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
                    tracing::warn!(enrollment, ?repaired, ?left, "somebody else changed it");
                }
                self.record_attempt(row.id, history.sending(desired))
                    .await?;
                let replaced = self
                    .clients
                    .dps
                    .replace(id.borrowed(), &record, &etag)
                    .await?;
                Ok(after_write(desired, &replaced))
            }
            Plan::Delete { etag } => {
                self.record_attempt(row.id, history.sending(None)).await?;
                self.clients.dps.delete(id.borrowed(), &etag).await?;
                Ok(Outcome::Again)
            }
        }
    }

    async fn record_attempt(&self, id: i64, history: History) -> Result<(), Failure> {
        self.blocking(move |ca| Ok(ca.store().record_attempt(id, &history)?))
            .await?;
        Ok(())
    }

    async fn look_at_ca_certificate(&self, row: CaCertificateRow) -> Result<Outcome, Failure> {
        let Some(arm) = &self.clients.arm else {
            let reason = "no [provisioning.arm] is configured to verify CA certificates with";
            return Ok(Outcome::Parked(reason.into()));
        };
        let certificate = SlotCertificate::new(row.certificate.clone());
        let observed = arm.get(&row.name).await?.map(|named| named.certificate);
        match next_step(&certificate, &row.proof, observed.as_ref()) {
            Step::Done => {
                self.advance(&row, row.proof.clone().verified()).await?;
                Ok(Outcome::Done(Sighting::Verified))
            }
            Step::Upload => {
                arm.put(&row.name, &certificate, None).await?;
                self.advance(&row, row.proof.clone().uploaded()).await?;
                Ok(Outcome::Again)
            }
            Step::RequestCode { etag } => {
                let (code, _etag) = arm.generate_verification_code(&row.name, &etag).await?;
                let proof = row.proof.clone().code_received(code).map_err(refused)?;
                self.advance(&row, proof).await?;
                self.observed.notify_one();
                Ok(Outcome::Signature)
            }
            Step::Sign { .. } => {
                self.observed.notify_one();
                Ok(Outcome::Signature)
            }
            Step::Verify {
                etag,
                verification_certificate,
            } => {
                match arm
                    .verify(&row.name, &verification_certificate, &etag)
                    .await
                {
                    Ok(_) => Ok(Outcome::Again),
                    Err(rejected @ CallError::Rejected { .. }) => {
                        let proof = row.proof.clone().refused(rejected.to_string());
                        self.advance(&row, proof.map_err(refused)?).await?;
                        Ok(Outcome::Again)
                    }
                    Err(other) => Err(other.into()),
                }
            }
            Step::Park(reason) => Ok(Outcome::Parked(reason.to_string())),
        }
    }

    async fn advance(&self, row: &CaCertificateRow, to: Proof) -> Result<(), Failure> {
        let (id, from) = (row.id, row.proof.clone());
        if from != to {
            self.blocking(move |ca| Ok(ca.store().advance_proof(id, from, to)?))
                .await?;
        }
        Ok(())
    }

    async fn record(&self, mark: MarkRow, outcome: Outcome) -> Result<(), Error> {
        let service = self.name.clone();
        let notify = self.observed.clone();
        self.blocking(move |ca| {
            let now = ca.now();
            match outcome {
                Outcome::Done(sighting) => {
                    if ca.store().settle_mark(&mark, sighting, now)? {
                        notify.notify_one();
                    }
                }
                Outcome::Later(pause, reason) => {
                    let seconds = pause_seconds(mark.attempts, pause);
                    tracing::warn!(
                        service,
                        reason,
                        seconds,
                        "the provisioning service has to wait"
                    );
                    let due = now.saturating_add_unsigned(seconds);
                    ca.store().postpone_mark(&mark, due, reason)?;
                }
                Outcome::Signature => {
                    let due = now.saturating_add_unsigned(SIGNATURE_PAUSE_SECONDS);
                    ca.store()
                        .postpone_mark(&mark, due, "waits for a signature".into())?;
                }
                Outcome::Parked(reason) => {
                    tracing::error!(
                        service,
                        reason,
                        "a change is parked; see `hallmark push list`"
                    );
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
        tokio::task::spawn_blocking(move || work(&ca))
            .await
            .unwrap_or_else(|_| Err(Error::stop("internal", "a look failed; the log says why")))
    }
}

/// The enrollment's id, owned.
enum Id {
    Individual(RegistrationId),
    Group(EnrollmentGroupId),
}

impl Id {
    fn of(row: &EnrollmentRow) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::Here(Error::stop("store_unreadable", reason));
        match row.kind {
            EnrollmentKind::Individual => RegistrationId::parse(&row.name)
                .map(Id::Individual)
                .map_err(|error| invalid(error.to_string())),
            EnrollmentKind::Group => EnrollmentGroupId::parse(&row.name)
                .map(Id::Group)
                .map_err(|error| invalid(error.to_string())),
        }
    }

    fn borrowed(&self) -> EnrollmentId<'_> {
        match self {
            Id::Individual(id) => EnrollmentId::Individual(id),
            Id::Group(id) => EnrollmentId::Group(id),
        }
    }
}

/// Why a look ended early: at the service, or here.
enum Failure {
    There(CallError),
    Here(Error),
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

fn refused(refusal: impl std::fmt::Display) -> Failure {
    Failure::Here(Error::stop("possession_refused", refusal.to_string()))
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
        Failure::There(error @ (CallError::Rejected { .. } | CallError::Unsendable { .. })) => {
            Outcome::Parked(error.to_string())
        }
        // Somebody changed the row meanwhile, or the disk is full: look again later.
        Failure::Here(error) => Outcome::Later(None, error.to_string()),
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

fn sighting(desired: Option<&Desired>, observed: Option<&Record>) -> Sighting {
    match (desired, observed) {
        (Some(desired), Some(record)) => Sighting::InPlace {
            history: Box::new(History::settled(Some(desired))),
            record: record_of(record),
        },
        _ => Sighting::Gone,
    }
}

fn record_of(record: &Record) -> Value {
    Value::Object(record.fields().clone())
}

/// The service's own word, or a pause that doubles; a little more, so that not all come at once.
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

fn parked_entry(service: &str, mark: &MarkRow, reason: &str, at: i64) -> AuditEntry {
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
