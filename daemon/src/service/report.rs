//! What systemd is told while the daemon runs: that it is ready, how it is, and that it makes
//! progress. The one place that decides whether the watchdog is fed.
//!
//! Progress is: the writer of the database answers a question, the API answers a request over the admin
//! socket, and no loop (the application's, a reconciler's) is beyond the bound that it has named for what
//! it does (`ca::progress`). A token, a provisioning service or a disk that fails is no reason: a restart
//! would not mend it. It is told in the status line.

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

/// How often the status is looked at where nothing is new. Each look wakes half of the daemon.
const STATUS_PERIOD: Duration = Duration::from_secs(15);
/// The shortest time between two looks, whatever happens.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// How many times the watchdog is fed in its time, when answers come at once.
const FEEDS: u32 = 4;
/// How much of the watchdog's time database and API may take to answer: a slow disk is no hang.
const ANSWERS: u32 = 2;
/// How long they may take where nobody waits for the watchdog.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether everything serves, before it does.
const START_PERIOD: Duration = Duration::from_millis(20);
/// The request that the watchdog makes.
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// What every answer to it begins with. Which one it is says how the daemon is, not whether.
const ANSWER: &[u8] = b"HTTP/1.1 ";

/// The reporter; it runs beside everything else.
pub(super) struct Report {
    pub(super) systemd: Arc<Systemd>,
    pub(super) current: CurrentAuthority,
    /// Notified when a token gets into another state, and when an authority or an enrollment changes.
    pub(super) news: Arc<Notify>,
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
        let feed = async {
            if let Some(time) = watchdog {
                self.feed(time / FEEDS, within).await;
            }
        };
        tokio::join!(feed, self.tell_status());
    }

    async fn feed(&self, every: Duration, within: Duration) {
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
        match ca.progress().broken(Instant::now()) {
            Some(what) => bail!("{what} takes longer than it may"),
            None => Ok(()),
        }
    }

    /// A request as everybody makes them.
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
        match answer == ANSWER {
            true => Ok(()),
            false => bail!("the admin socket answers something else"),
        }
    }

    async fn tell_status(&self) {
        loop {
            let ca = self.current.load_full();
            let line = move || ca.summary().unwrap_or_else(|error| error.to_string());
            if let Ok(line) = tokio::task::spawn_blocking(line).await {
                let doors = [
                    ("https", self.addresses.https),
                    ("http", self.addresses.http),
                ];
                let doors =
                    doors.map(|(name, at)| at.map_or(String::new(), |at| format!("{name} {at}; ")));
                self.systemd.status(&format!("{}{line}", doors.concat()));
            }
            sleep(STATUS_PAUSE).await;
            // Not all that the line tells is told as news.
            let _ = timeout(STATUS_PERIOD - STATUS_PAUSE, self.news.notified()).await;
        }
    }
}
