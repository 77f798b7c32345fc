//! What the application does without being asked.

use crate::api::tls::ServerIdentity;
use crate::ca::{CertificateAuthority, CurrentAuthority, Error};
use crate::token::client::GENERATE_DEADLINE;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often rolls, codes and the TLS certificate are looked at without being woken.
const TICK: Duration = Duration::from_secs(60);
/// How long after a failure the application is driven again.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// How long everything rests while the store cannot write, whatever wakes it: each attempt would
/// fail, and the store tries by itself.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// How long a turn may take: it makes keys, and a small device takes minutes for each.
const TURN_BOUND: Duration = Duration::from_secs(6 * GENERATE_DEADLINE.as_secs());
/// How much later than it should the loop may be woken.
const WAKE_SLACK: Duration = Duration::from_secs(30);

/// What the application does by itself: the TLS certificate, wanted CA certificates, codes to sign,
/// revocation lists, rolls to advance.
pub(super) struct Application {
    current: CurrentAuthority,
    identity: Option<Arc<ServerIdentity>>,
    wake: Arc<Notify>,
    /// What was last logged; said again only when it changes.
    alarms: Mutex<Vec<String>>,
}

impl Application {
    /// `wake` is rung when there is something to do.
    pub(super) fn new(
        current: CurrentAuthority,
        identity: Option<Arc<ServerIdentity>>,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            current,
            identity,
            wake,
            alarms: Mutex::default(),
        }
    }

    /// Until `stop` turns true.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        loop {
            let turn = this.clone();
            let progress = this.current.load().progress().clone();
            let promise = progress.promise("the application", TURN_BOUND);
            let pause = match tokio::task::spawn_blocking(move || turn.turn()).await {
                Ok(pause) => pause,
                Err(_) => FAILURE_PAUSE,
            };
            drop(promise);
            let _promise = progress.promise("the application's rest", pause + WAKE_SLACK);
            let may_be_woken = this.current.load().store().write_fault().is_none();
            let stopping = tokio::select! {
                () = this.wake.notified(), if may_be_woken => false,
                () = tokio::time::sleep(pause) => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if stopping {
                // What was only counted is not lost with an orderly stop.
                let last = move || this.current.load().record_counted_refusals(true);
                let _ = tokio::task::spawn_blocking(last).await;
                return;
            }
        }
    }

    /// Logs alarms as they come and go.
    fn tell_alarms(&self, ca: &CertificateAuthority) {
        let alarms = ca.alarms();
        let alarms = alarms.unwrap_or_else(|error| vec![format!("alarms cannot be told: {error}")]);
        let mut told = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        for alarm in alarms.iter().filter(|alarm| !told.contains(alarm)) {
            tracing::error!(alarm, "alarm");
        }
        if alarms.is_empty() && !told.is_empty() {
            tracing::info!("all alarms are over");
        }
        *told = alarms;
    }

    /// Everything once; returns how long it can rest.
    fn turn(&self) -> Duration {
        let ca = self.current.load_full();
        self.tell_alarms(&ca);
        if ca.store().write_fault().is_some() {
            return STORE_PAUSE;
        }
        ca.record_counted_refusals(false);
        if ca.hierarchy().is_empty() {
            return TICK;
        }
        // Everything below signs, or goes by dates.
        if ca.clock_doubt().is_some() {
            return FAILURE_PAUSE;
        }
        let mut pause = TICK;
        let mut note = |what: &str, result: Result<(), Error>| {
            if let Err(error) = result {
                tracing::warn!(what, code = error.code, %error, "to be tried again");
                pause = FAILURE_PAUSE;
            }
        };
        note("abandoned intents", ca.burn_left_over());
        if let Some(identity) = &self.identity {
            let renewed = identity.renew(&ca);
            ca.note_https(identity.state(ca.store()));
            note("TLS certificate", renewed);
        }
        note("CA certificates", ca.want_verified());
        note("finished work", ca.forget_finished_hub_tasks());
        note("proof of possession", ca.prove_possession().map(drop));
        let mut next_due: Vec<i64> = Vec::new();
        for (what, due) in [
            // What goes on hold now is on the list that is signed next.
            ("blocks", ca.advance_blocks()),
            ("stand-ins", ca.prove_stand_ins()),
            ("revocation lists", ca.update_crls()),
            ("rolls", ca.advance_rolls()),
        ] {
            note(what, due.map(|due| next_due.extend(due)));
        }
        for due in next_due {
            let seconds = u64::try_from(due - ca.now()).unwrap_or(0).max(1);
            pause = pause.min(Duration::from_secs(seconds));
        }
        pause
    }
}
