//! Drives the daemon's own work in one loop: renewals, proofs, CRLs and rollovers.

use super::reconcilers::Wakers;
use crate::api::tls::ServerIdentity;
use crate::ca::alarm::{Alarm, unreadable};
use crate::ca::{CertificateAuthority, CurrentAuthority, Error};
use crate::token::client::GENERATE_DEADLINE;
use crate::unix_seconds::UnixSeconds;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// How often rollovers, codes and the TLS certificate are checked without a wake-up.
const TICK: Duration = Duration::from_secs(60);
/// How long after a failure the application is driven again.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// How long the loop pauses while the store cannot write, even if woken: each attempt would fail,
/// and the store retries itself.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// How long a turn may take: it makes keys, and a small token takes minutes for each.
const TURN_BOUND: Duration = Duration::from_secs(6 * GENERATE_DEADLINE.as_secs());
/// How late the loop may be woken.
const WAKE_SLACK: Duration = Duration::from_secs(30);

/// The shortest time between two turns: at most 600 in a minute.
const TURN_PAUSE: Duration = Duration::from_millis(100);

/// The application's own work: the TLS certificate, desired CA certificates, codes to sign, CRLs,
/// rollovers.
pub(super) struct Application {
    current: CurrentAuthority,
    identity: Option<Arc<ServerIdentity>>,
    /// Notified when there may be work of any kind.
    wake: Arc<Notify>,
    /// Notified when something must be recorded, or a CRL signed.
    records: Arc<Notify>,
    /// The alarms that were logged last: an alarm is logged once.
    alarms: Mutex<Vec<Alarm>>,
}

/// The work of one turn.
#[derive(Clone, Copy)]
enum Turn {
    Full,
    /// Records and CRLs. Other work that failed is not retried.
    Short,
}

impl Application {
    pub(super) fn new(
        current: CurrentAuthority,
        identity: Option<Arc<ServerIdentity>>,
        wakers: &Wakers,
    ) -> Self {
        Self {
            current,
            identity,
            wake: wakers.application.clone(),
            records: wakers.records.clone(),
            alarms: Mutex::default(),
        }
    }

    /// Runs until `stop` turns true and the current turn has ended.
    pub(super) async fn run(self, stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        this.clone().take_turns(stop).await;
        // An orderly stop keeps counted refusals and key uses.
        let last = move || {
            let ca = this.current.load();
            ca.issuer().record_counted_refusals(true);
            if let Err(error) = ca.issuer().record_key_uses(true) {
                tracing::warn!(%error, "use of keys not recorded");
            }
        };
        let _ = tokio::task::spawn_blocking(last).await;
    }

    async fn take_turns(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut next = Instant::now();
        let mut turn = Turn::Full;
        loop {
            let rest = self.clone().take_turn(turn).await;
            let due = Instant::now() + rest;
            next = match turn {
                Turn::Full => due,
                Turn::Short => next.min(due),
            };
            sleep(TURN_PAUSE).await;
            let bound = next.saturating_duration_since(Instant::now()) + WAKE_SLACK;
            let liveness = self.current.load().liveness().clone();
            let _deadline = liveness.deadline("the application's rest", bound);
            let may_be_woken = self.current.load().store().write_fault().is_none();
            turn = tokio::select! {
                () = self.wake.notified(), if may_be_woken => Turn::Full,
                () = sleep_until(next) => Turn::Full,
                () = self.records.notified(), if may_be_woken => Turn::Short,
                _ = stop.wait_for(|stop| *stop) => return,
            };
        }
    }

    /// Takes a turn on a thread that may block; returns the pause until the next turn.
    async fn take_turn(self: Arc<Self>, turn: Turn) -> Duration {
        let liveness = self.current.load().liveness().clone();
        let _deadline = liveness.deadline("the application", TURN_BOUND);
        let taken = tokio::task::spawn_blocking(move || match turn {
            Turn::Full => self.full_turn(),
            Turn::Short => self.short_turn(),
        });
        taken.await.unwrap_or(FAILURE_PAUSE)
    }

    /// Logs alarms as they come and go.
    fn tell_alarms(&self, ca: &CertificateAuthority) {
        let alarms = ca.alarms();
        let alarms =
            alarms.unwrap_or_else(|error| vec![unreadable("no alarm can be read", &error)]);
        let mut logged = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        for it in alarms.iter().filter(|it| !logged.contains(it)) {
            tracing::error!(alarm = it.text, code = it.code.name(), "alarm");
        }
        if alarms.is_empty() && !logged.is_empty() {
            tracing::info!("no alarm left");
        }
        *logged = alarms;
    }

    /// Does all work once; returns the pause until the next turn.
    fn full_turn(&self) -> Duration {
        let ca = self.current.load_full();
        self.tell_alarms(&ca);
        if ca.store().write_fault().is_some() {
            return STORE_PAUSE;
        }
        ca.issuer().record_counted_refusals(false);
        let mut rest = Rest::new(&ca);
        self.keep_records(&ca, &mut rest);
        if ca.hierarchy().is_empty() {
            return rest.pause;
        }
        // The rest signs, or compares dates.
        if ca.issuer().clock_doubt().is_some() {
            return rest.pause.min(FAILURE_PAUSE);
        }
        if let Some(identity) = &self.identity {
            let renewed = identity.renew(&ca);
            ca.note_https(identity.state(ca.store()));
            rest.note("TLS certificate", renewed);
        }
        rest.note("CA certificates", ca.enrollments().want_verified());
        rest.note("finished work", ca.forget_finished_work());
        rest.note_due("proof of possession", ca.enrollments().prove_possession());
        rest.note("hubs", ca.exclusions().record_hubs());
        // A certificate that goes on hold now is on the CRL that is signed next.
        rest.note_due("blocks", ca.exclusions().advance_blocks());
        rest.note_due("shared keys", ca.issuer().prove_shared_keys());
        rest.note_due("cross-certificates", ca.issuer().cross_certify());
        rest.note_due("revocation lists", ca.crls().update());
        rest.note_due("OCSP responders", ca.ocsp().update());
        rest.note_due("rolls", ca.rollovers().advance_rolls());
        if let Some(identity) = &self.identity {
            identity.staple(&ca);
        }
        rest.pause
    }

    /// Does the work that must not wait for the next full turn; returns the pause.
    fn short_turn(&self) -> Duration {
        let ca = self.current.load_full();
        if ca.store().write_fault().is_some() {
            return STORE_PAUSE;
        }
        let mut rest = Rest::new(&ca);
        self.keep_records(&ca, &mut rest);
        if ca.issuer().clock_doubt().is_none() {
            rest.note_due("revocation lists", ca.crls().update());
        }
        rest.pause
    }

    fn keep_records(&self, ca: &CertificateAuthority, rest: &mut Rest<'_>) {
        rest.note("open intents", ca.issuer().end_open_intents());
        rest.note(
            "ranges of certificates",
            ca.issuer().summarise_certificates(),
        );
        rest.note_due("use of keys", ca.issuer().record_key_uses(false));
        rest.note_due("keys", Ok(ca.issuer().prove_keys()));
    }
}

/// The pause until the next turn, as far as known within the present one.
struct Rest<'a> {
    ca: &'a CertificateAuthority,
    pause: Duration,
}

impl<'a> Rest<'a> {
    fn new(ca: &'a CertificateAuthority) -> Self {
        Self { ca, pause: TICK }
    }

    fn note(&mut self, what: &str, result: Result<(), Error>) {
        if let Err(error) = result {
            tracing::warn!(
                what,
                code = error.code.name(),
                %error,
                "application step failed, retrying",
            );
            self.pause = self.pause.min(FAILURE_PAUSE);
        }
    }

    /// Notes work that is due again at a time, in Unix seconds.
    fn note_due(&mut self, what: &str, due: Result<Option<UnixSeconds>, Error>) {
        match due {
            Ok(None) => {}
            Ok(Some(due)) => {
                let seconds = u64::try_from(due - self.ca.now()).unwrap_or(0).max(1);
                self.pause = self.pause.min(Duration::from_secs(seconds));
            }
            Err(error) => self.note(what, Err(error)),
        }
    }
}
