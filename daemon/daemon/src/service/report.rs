//! Reports to systemd that the daemon is ready, its status, and that it makes progress. This file
//! alone decides whether to ping the watchdog.
//!
//! Progress means: the writer of the database answers, the API answers a request over the admin
//! socket, and no loop (the application's, a reconciler's) exceeds the bound that it has set for
//! its present work (`ca::liveness`). Token, provisioning service and disk failures do not stop the
//! pings: a restart would not help. They appear in the status line.

use crate::api::Addresses;
use crate::ca::CurrentAuthority;
use crate::notify::{ServiceManager, Systemd};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How often the status line is computed without a change of state. It costs many reads.
const STATUS_PERIOD: Duration = Duration::from_secs(15);
/// The shortest time between two looks, whatever happens.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// How many times the watchdog is fed in its time, when answers come at once.
const PINGS: u32 = 4;
/// How much of the watchdog's time database and API may take to answer: a slow disk is no hang.
const ANSWERS: u32 = 2;
/// How long the answers may take without a watchdog.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often progress is checked before the daemon is ready.
const START_PERIOD: Duration = Duration::from_millis(20);
/// The request that the watchdog makes.
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// The beginning of every answer: its status code does not matter, since the API has answered.
const ANSWER: &[u8] = b"HTTP/1.1 ";

/// The reporter; it runs beside everything else.
pub(super) struct Report {
    pub(super) systemd: Arc<Systemd>,
    pub(super) current: CurrentAuthority,
    /// Notified when the state of a token, an authority or an enrollment changes.
    pub(super) state_changed: Arc<Notify>,
    pub(super) addresses: Addresses,
    /// Where the API is asked.
    pub(super) admin: PathBuf,
    /// Whether it is there; its disk may be full or read-only.
    pub(super) admin_is_open: Arc<AtomicBool>,
}

impl Report {
    /// Until `stop` turns true.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.report() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.systemd.stopping();
    }

    async fn report(&self) {
        let watchdog = self.systemd.watchdog();
        let within = watchdog.map_or(ANSWER_WITHIN, |time| time / ANSWERS);
        while let Err(reason) = self.makes_progress(within).await {
            tracing::debug!(reason = %format!("{reason:#}"), "not ready yet");
            sleep(START_PERIOD).await;
        }
        self.systemd.ready();
        let pings = async {
            if let Some(time) = watchdog {
                self.ping_watchdog(time / PINGS, within).await;
            }
        };
        tokio::join!(pings, self.report_status());
    }

    async fn ping_watchdog(&self, every: Duration, within: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.makes_progress(within).await {
                Ok(()) => self.systemd.alive(),
                Err(reason) => {
                    let reason = format!("{reason:#}");
                    tracing::error!(reason, "watchdog not fed");
                }
            }
        }
    }

    async fn makes_progress(&self, within: Duration) -> anyhow::Result<()> {
        let ca = self.current.load_full();
        let (database, api) = tokio::join!(
            timeout(within, ca.store().answers()),
            timeout(within, self.ask_api()),
        );
        database.context("the database does not answer")??;
        api.context("the API does not answer")??;
        match ca.liveness().overdue(Instant::now()) {
            Some(what) => bail!("{what} takes longer than it may"),
            None => Ok(()),
        }
    }

    /// Sends a request as a client would.
    async fn ask_api(&self) -> anyhow::Result<()> {
        if !self.admin_is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let socket = UnixStream::connect(&self.admin).await;
        let mut socket = socket.context("the admin socket takes no connection")?;
        socket.write_all(REQUEST).await?;
        let mut answer = [0; ANSWER.len()];
        let read = socket.read_exact(&mut answer).await;
        read.context("the admin socket does not answer")?;
        if answer != ANSWER {
            bail!("the admin socket answers something else");
        }
        Ok(())
    }

    async fn report_status(&self) {
        loop {
            let ca = self.current.load_full();
            let line = move || ca.summary().unwrap_or_else(|error| error.to_string());
            if let Ok(line) = tokio::task::spawn_blocking(line).await {
                let listeners = [
                    ("https", self.addresses.https),
                    ("http", self.addresses.http),
                ];
                let listeners = listeners
                    .map(|(name, at)| at.map_or(String::new(), |at| format!("{name} {at}; ")));
                self.systemd
                    .status(&format!("{}{line}", listeners.concat()));
            }
            sleep(STATUS_PAUSE).await;
            // Some parts of the line change without a notification.
            let _ = timeout(STATUS_PERIOD - STATUS_PAUSE, self.state_changed.notified()).await;
        }
    }
}
