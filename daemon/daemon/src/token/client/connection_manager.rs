//! Keeps a connection to the worker, and records the health that the worker sends.
//!
//! One thread per token connects and reads messages; while there is a connection, a second one
//! sends requests. Both end with the last [`TokenClient`](super::TokenClient).

use super::connection::{Connection, Events};
use super::trust::Trust;
use super::{KeyCounts, TokenHealth};
use crate::token::TokenError;
use crate::token::health::{RecoveryCounters, Refusals, TokenState, WorkerHealth};
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

/// How many ended workers are kept with their last counts, until these are recorded. A worker that
/// ends at each start needs about ten minutes for so many (`supervisor::RESTART_PAUSE_MAX`).
const ENDED_WORKERS_MAX: usize = 64;

/// Called with the operation by which a worker shows that it hangs.
pub(super) type OnHang = Box<dyn Fn(&'static str) + Send>;

/// Called when the token has changed its state, or its keys have changed.
pub(super) type OnChange = Box<dyn Fn() + Send + Sync>;

/// Owner of the threads.
pub(super) struct ConnectionManager {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
    /// The worker that has reported the health.
    worker: Option<[u8; 8]>,
    /// The last counts of ended workers, oldest first.
    ended: VecDeque<KeyCounts>,
    closing: bool,
}

impl State {
    /// Takes the reports about keys. If another worker sends them, keeps the last ones of its
    /// predecessor.
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
            version: String::new(),
            state: TokenState::Starting,
            reason: "no worker yet".to_owned(),
            since: SystemTime::now(),
            out_since: Some(Instant::now()),
            restarts: 0,
            recoveries: RecoveryCounters::default(),
            refusals: Refusals::default(),
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
        let thread = std::thread::Builder::new()
            .name("token-client".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.keep_connected()
            })
            .expect("a client has one thread");
        ConnectionManager {
            shared,
            thread: Some(thread),
        }
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

    /// Restricts connections to this process.
    pub(super) fn trust(&self, worker: Pid) {
        *self
            .shared
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(worker);
    }

    /// Fails with the reason if the token is not ready, as last reported.
    pub(super) fn check_ready(&self) -> Result<(), TokenError> {
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

    /// Returns which keys have shown that they sign.
    pub(super) fn proven_keys(&self) -> &Trust {
        &self.shared.trust
    }

    /// Sets the callback for a hung worker.
    pub(super) fn on_hang(&self, on_hang: Option<OnHang>) {
        *self.shared.on_hang() = on_hang;
    }

    /// Sets the callback for a change of state; only the first one is kept.
    pub(super) fn on_state_change(&self, on_change: OnChange) {
        self.shared.on_state_change.get_or_init(|| on_change);
    }

    /// Sets the callback for a change of the reports about keys; only the first one is kept.
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
        if let Some(thread) = self.thread.take() {
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
        // The pause comes first: a worker that accepts and hangs up at once must not keep a
        // processor busy.
        while !self.pause(pause) {
            let reason = match Connection::open(&self.name, &self.socket, self.worker()) {
                Ok((connection, reader)) => {
                    pause = RECONNECT_PAUSE;
                    let connection = Arc::new(connection);
                    self.set_connection(Some(Arc::clone(&connection)));
                    // `drop` may have found no connection just before; then this one ends here.
                    if self.state().closing {
                        connection.end("the client is closed");
                    }
                    let reason = std::thread::scope(|scope| {
                        scope.spawn(|| connection.send(self));
                        connection.read(reader, self)
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

    fn on_hang(&self) -> MutexGuard<'_, Option<OnHang>> {
        self.on_hang.lock().expect("no callback panics")
    }

    /// Records that the state of the token cannot be known.
    fn lost(&self, reason: &str) {
        let mut state = self.state();
        let now = match state.health.state {
            // No worker has connected yet. Unavailable would be an alarm at each start.
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
        // Called under the lock, so that changes are reported in their order. A callback must not
        // ask for the health, nor block.
        if let (true, Some(on_change)) = (changed, self.on_state_change.get()) {
            on_change();
        }
    }

    /// Pauses; returns true if the client is being closed.
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
    }
}

impl Events for Shared {
    fn health(&self, new: &WorkerHealth) {
        let since = UNIX_EPOCH + Duration::from_millis(new.since_unix_ms);
        let mut state = self.state();
        state.health.recoveries = new.recoveries;
        state.health.refusals.clone_from(&new.refusals);
        state.health.version.clone_from(&new.version);
        let keys_changed = state.health.keys != new.keys;
        state.take_keys(new);
        self.trust.take_reports(&self.name, &new.keys);
        if new.state == TokenState::Ready && state.health.state != TokenState::Ready {
            self.trust.forget_failures();
        }
        self.set_state_since(&mut state, new.state, &new.reason, since);
        if let (true, Some(on_change)) = (keys_changed, self.on_keys_change.get()) {
            on_change();
        }
        self.changed.notify_all();
    }

    fn silent(&self) {
        self.lost("the worker does not report its health");
    }

    fn hung(&self, operation: &'static str) {
        if let Some(on_hang) = &*self.on_hang() {
            on_hang(operation);
        }
    }
}

impl TokenHealth {
    /// Sets the state; `since` changes only with the state.
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

/// Returns true if a process accepted the connection and did not greet in time.
fn has_timed_out(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
