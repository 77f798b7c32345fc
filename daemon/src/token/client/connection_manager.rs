//! Keeps a connection to the worker, and what was last heard of its health.
//!
//! Two threads per token: one connects and reads answers (with a third that sends, while there is a
//! connection), one asks for the health. All end with the last [`TokenClient`](super::TokenClient).

use super::connection::Connection;
use super::trust::Trust;
use super::{KeyCounts, TokenHealth};
use crate::token::TokenError;
use crate::token::protocol::{Answer, HEALTH_PAUSE, Operation};
use crate::token::worker::health::{RecoveryCounters, TokenState, WorkerHealth};
use rustix::process::Pid;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// First pause between two attempts to connect; it doubles.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause between two attempts to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a worker may take to tell its health: it need not touch the token for that, but waits
/// for news.
const HEALTH_DEADLINE: Duration = HEALTH_PAUSE.saturating_add(Duration::from_secs(2));

/// How many workers that have ended are remembered with what they had counted.
const ENDED_WORKERS_MAX: usize = 64;

/// Told the operation by which a worker shows that it hangs.
pub(super) type OnHang = Box<dyn Fn(&'static str) + Send>;

/// Told when the token has got into another state, or its keys have.
pub(super) type OnChange = Box<dyn Fn() + Send + Sync>;

/// Longer than any client lives.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Owner of the threads.
pub(super) struct ConnectionManager {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    name: String,
    socket: PathBuf,
    connection: RwLock<Option<Arc<Connection>>>,
    state: Mutex<State>,
    changed: Condvar,
    /// The process that was started as the worker, if one was.
    worker: Mutex<Option<Pid>>,
    trust: Trust,
    on_hang: Mutex<Option<OnHang>>,
    on_state_change: OnceLock<OnChange>,
    on_keys_change: OnceLock<OnChange>,
}

struct State {
    health: TokenHealth,
    /// Of which worker the health is.
    worker: Option<[u8; 8]>,
    /// What workers had counted when they ended, oldest first.
    ended: VecDeque<KeyCounts>,
    closing: bool,
}

impl State {
    /// Takes what a worker says of its keys, and keeps the last word of the one before.
    fn take_keys(&mut self, heard: &WorkerHealth) {
        let keys = std::mem::replace(&mut self.health.keys, heard.keys.clone());
        let before = self.worker.replace(heard.worker);
        let Some(worker) = before.filter(|worker| *worker != heard.worker) else {
            return;
        };
        if self.ended.len() >= ENDED_WORKERS_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(KeyCounts { worker, keys });
    }
}

impl ConnectionManager {
    pub(super) fn start(name: &str, socket: PathBuf) -> Self {
        let health = TokenHealth {
            state: TokenState::Starting,
            reason: "no worker yet".to_owned(),
            since: SystemTime::now(),
            out_since: Some(Instant::now()),
            restarts: 0,
            recoveries: RecoveryCounters::default(),
            keys: Vec::new(),
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            socket,
            connection: RwLock::default(),
            state: Mutex::new(State {
                health,
                worker: None,
                ended: VecDeque::new(),
                closing: false,
            }),
            changed: Condvar::new(),
            worker: Mutex::default(),
            trust: Trust::default(),
            on_hang: Mutex::default(),
            on_state_change: OnceLock::new(),
            on_keys_change: OnceLock::new(),
        });
        let threads = vec![
            spawn("token-client", &shared, Shared::keep_connected),
            spawn("token-health", &shared, Shared::keep_informed),
        ];
        ConnectionManager { shared, threads }
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    pub(super) fn health(&self) -> TokenHealth {
        self.shared.state().health.clone()
    }

    pub(super) fn out_for(&self) -> Option<Duration> {
        let out_since = self.shared.state().health.out_since;
        out_since.map(|since| since.elapsed())
    }

    /// Connects from now on to this process only.
    pub(super) fn trust(&self, worker: Pid) {
        *self
            .shared
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(worker);
    }

    /// Whether the token is ready, as last heard; if not, why.
    pub(super) fn is_ready(&self) -> Result<(), TokenError> {
        let state = self.shared.state();
        let token = &self.shared.name;
        match state.health.state {
            TokenState::Ready => Ok(()),
            TokenState::Parked => Err(TokenError::Parked {
                token: token.clone(),
                reason: state.health.reason.clone(),
            }),
            TokenState::Starting | TokenState::Unavailable => {
                let reason = format!("{}: {}", state.health.state.name(), state.health.reason);
                Err(TokenError::unavailable(token, reason))
            }
        }
    }

    pub(super) fn key_counts(&self) -> Vec<KeyCounts> {
        let state = self.shared.state();
        let present = state.worker.map(|worker| KeyCounts {
            worker,
            keys: state.health.keys.clone(),
        });
        state.ended.iter().cloned().chain(present).collect()
    }

    pub(super) fn forget_key_counts(&self, worker: [u8; 8]) {
        let mut state = self.shared.state();
        state.ended.retain(|counts| counts.worker != worker);
    }

    /// Which keys have shown that they sign.
    pub(super) fn proven_keys(&self) -> &Trust {
        &self.shared.trust
    }

    /// Who is told from now on when the worker hangs.
    pub(super) fn on_hang(&self, on_hang: Option<OnHang>) {
        *self.shared.on_hang() = on_hang;
    }

    /// Who is told whenever the token gets into another state; the first one stays.
    pub(super) fn on_state_change(&self, on_change: OnChange) {
        self.shared.on_state_change.get_or_init(|| on_change);
    }

    /// What is told whenever the worker reports something new of its keys; the first one stays.
    pub(super) fn on_keys_change(&self, on_change: OnChange) {
        self.shared.on_keys_change.get_or_init(|| on_change);
    }

    pub(super) fn note_restart(&self, reason: &str) {
        let mut state = self.shared.state();
        state.health.restarts += 1;
        self.shared
            .set_state(&mut state, TokenState::Unavailable, reason);
    }

    pub(super) fn wait_ready(&self, deadline: Instant) -> TokenHealth {
        let mut state = self.shared.state();
        let decided = |state| matches!(state, TokenState::Ready | TokenState::Parked);
        while !decided(state.health.state) && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            state = self.shared.wait(state, left);
        }
        state.health.clone()
    }

    /// The connection, if there is one now.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, TokenError> {
        self.shared.connection().ok_or_else(|| {
            let reason = format!("no worker: {}", self.shared.state().health.reason);
            TokenError::unavailable(&self.shared.name, reason)
        })
    }
}

impl Drop for ConnectionManager {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        if let Some(connection) = self.shared.connection() {
            connection.end("the client is closed");
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn worker(&self) -> Option<Pid> {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_connected(&self) {
        let mut pause = RECONNECT_PAUSE;
        while !self.pause(pause) {
            let reason = match Connection::open(&self.name, &self.socket, self.worker()) {
                Ok((connection, reader)) => {
                    pause = RECONNECT_PAUSE;
                    let connection = Arc::new(connection);
                    self.set_connection(Some(Arc::clone(&connection)));
                    if self.state().closing {
                        connection.end("the client is closed");
                    }
                    let reason = std::thread::scope(|scope| {
                        scope.spawn(|| connection.send(|operation| self.hung(operation)));
                        connection.read(reader)
                    });
                    self.set_connection(None);
                    tracing::warn!(token = self.name, reason, "worker disconnected");
                    reason
                }
                Err(error) => {
                    if has_timed_out(&error) {
                        self.hung("greeting");
                    }
                    pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
                    format!("{error:#}")
                }
            };
            self.lost(&reason);
        }
    }

    fn keep_informed(&self) {
        while let Some(connection) = self.wait_for_connection() {
            let mut known = None;
            loop {
                let asked = Instant::now();
                let question = Operation::Health {
                    known: known.clone(),
                };
                known = match pollster::block_on(connection.call(question, HEALTH_DEADLINE)) {
                    Ok(Answer::Health(health)) => {
                        self.heard(&health);
                        // A worker at which too many wait for news answers at once.
                        let is_news = known.as_ref() != Some(&health);
                        if !is_news && asked.elapsed() < RECONNECT_PAUSE_MAX {
                            self.pause(RECONNECT_PAUSE_MAX);
                        }
                        Some(health)
                    }
                    Ok(_) => {
                        connection.end("the worker answered something else");
                        break;
                    }
                    // The connection's end, or a hung worker, is noticed by others.
                    Err(error) => {
                        self.lost(&error.to_string());
                        break;
                    }
                };
            }
            // An ended connection is put away by whoever reads it.
            self.pause(RECONNECT_PAUSE);
        }
    }

    /// `None` if the client is being closed.
    fn wait_for_connection(&self) -> Option<Arc<Connection>> {
        let mut state = self.state();
        while !state.closing {
            if let Some(connection) = self.connection() {
                return Some(connection);
            }
            state = self.wait(state, FOREVER);
        }
        None
    }

    fn hung(&self, operation: &'static str) {
        if let Some(on_hang) = &*self.on_hang() {
            on_hang(operation);
        }
    }

    fn on_hang(&self) -> MutexGuard<'_, Option<OnHang>> {
        self.on_hang
            .lock()
            .expect("no thread panics while it tells of a hang")
    }

    fn heard(&self, heard: &WorkerHealth) {
        let since = UNIX_EPOCH + Duration::from_millis(heard.since_unix_ms);
        let mut state = self.state();
        state.health.recoveries = heard.recoveries;
        let keys_changed = state.health.keys != heard.keys;
        state.take_keys(heard);
        self.trust.heard(&self.name, &heard.keys);
        if heard.state == TokenState::Ready && state.health.state != TokenState::Ready {
            self.trust.forget_failures();
        }
        self.set_state_since(&mut state, heard.state, &heard.reason, since);
        if let (true, Some(on_change)) = (keys_changed, self.on_keys_change.get()) {
            on_change();
        }
        self.changed.notify_all();
    }

    /// Nothing can be heard of the token.
    fn lost(&self, reason: &str) {
        let mut state = self.state();
        let now = match state.health.state {
            TokenState::Starting => TokenState::Starting,
            _ => TokenState::Unavailable,
        };
        self.set_state(&mut state, now, reason);
    }

    fn set_state(&self, state: &mut State, into: TokenState, reason: &str) {
        self.set_state_since(state, into, reason, SystemTime::now());
    }

    fn set_state_since(
        &self,
        state: &mut State,
        into: TokenState,
        reason: &str,
        since: SystemTime,
    ) {
        let changed = state.health.state != into;
        state.health.set(into, reason, since);
        if let (true, Some(on_change)) = (changed, self.on_state_change.get()) {
            on_change();
        }
    }

    /// Pauses; true if the client is being closed.
    fn pause(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        let mut state = self.state();
        while !state.closing && Instant::now() < until {
            state = self.wait(state, until.saturating_duration_since(Instant::now()));
        }
        state.closing
    }

    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        duration: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, duration);
        waited
            .expect("no thread panics while it holds the health")
            .0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics while it holds the health")
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.connection
            .read()
            .expect("no thread panics while it holds the connection")
            .clone()
    }

    fn set_connection(&self, connection: Option<Arc<Connection>>) {
        self.trust.forget_all();
        *self
            .connection
            .write()
            .expect("no thread panics while it holds the connection") = connection;
        // Under the lock of whoever looked before it was there, and is about to wait.
        drop(self.state());
        self.changed.notify_all();
    }
}

impl TokenHealth {
    /// Takes a state; `since` moves only if it is another one.
    fn set(&mut self, state: TokenState, reason: &str, since: SystemTime) {
        if self.state != state {
            self.since = since;
        }
        self.out_since = match state {
            TokenState::Ready => None,
            _ => self.out_since.or_else(|| Some(Instant::now())),
        };
        self.state = state;
        reason.clone_into(&mut self.reason);
    }
}

/// Whether somebody listens, and says nothing.
fn has_timed_out(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn spawn(name: &str, shared: &Arc<Shared>, body: fn(&Shared)) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || body(&shared))
        .expect("a client has two threads")
}
