//! Runs the certificate authority: hierarchy, ceremonies, issuance, CRLs, rollovers, exclusion.
//!
//! It must never sign what the store has not on record. It uses the store and the tokens, and no
//! HTTP: what must change at a provisioning service is a dirty mark in the store, and
//! [`CertificateAuthority::wake`] tells the reconcilers that there is one.
//!
//! It is synchronous and runs on blocking threads. Only what the issuance cycle waits for is async,
//! and needs no executor; synchronous callers run it with `pollster::block_on`.

pub mod adoption;
pub mod alarm;
pub mod authority_policy;
pub mod authorize;
pub mod backup;
pub mod block;
pub mod canary;
pub mod ceremony;
pub mod client;
pub mod clock;
pub mod coded;
pub mod crl;
mod device_access;
pub mod diagnostics;
pub mod enroll;
pub mod error;
pub mod est;
pub mod expiry;
pub mod external;
pub mod failover;
mod generation;
pub mod hierarchy;
pub mod issue;
mod issuer_constraints;
mod key_health;
mod key_proof;
mod key_use;
pub mod listeners;
pub mod liveness;
mod open_intents;
mod pace;
pub mod possession;
pub mod profile;
pub mod receipt;
#[cfg(test)]
mod reference_tests;
pub mod refusals;
mod renewal;
pub mod repeat;
pub mod retention;
pub mod revoke;
pub mod roll;
mod signed;
mod signing_request;
pub mod station;
pub mod status;
mod stranded;
pub mod tokens;
pub mod transcript;
mod window;

pub use crate::error_code::Code;
pub use error::{Advice, Error};

use crate::store::{AuditEntry, Store};
use crate::token::client::TokenClient;
use crate::token::probe::Probe;
use arc_swap::{ArcSwap, Guard};
use authority_policy::AuthorityPolicy;
use authorize::{Authorized, Operate};
use clock::{Clock, ClockPolicy};
use crl::{CrlSchedule, RevocationLists};
use failover::{Failover, FailoverPolicy};
use hierarchy::Hierarchy;
use key_health::KeyFaults;
use key_use::RecordedKeyUses;
use listeners::Listeners;
use liveness::Liveness;
use open_intents::OpenIntent;
use pace::Pace;
use profile::IssuanceProfile;
use refusals::RefusalCounts;
use roll::RollPolicy;
use serde_json::json;
use station::StationPolicy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A token, and how long it may take.
#[derive(Clone)]
pub struct ConfiguredToken {
    /// Its worker's client.
    pub client: TokenClient,
    /// How long one signature may take.
    pub sign_deadline: Duration,
    /// What the configuration and its family say of it.
    pub traits: TokenTraits,
}

/// What the configuration and its family say of a token.
#[derive(Clone, Debug)]
pub struct TokenTraits {
    /// The family's name, for people.
    pub family: String,
    /// The token's label.
    pub label: String,
    /// Its serial number, where the configuration says it.
    pub serial: Option<String>,
    /// Whether it tells which keys it has made itself (`CKA_LOCAL`).
    pub tells_local: bool,
    /// Sessions of the worker.
    pub sessions: usize,
}

impl TokenTraits {
    /// Whether a token with this label and serial number is the one.
    fn is_at(&self, label: &str, serial: &str) -> bool {
        self.label == label && self.serial.as_deref().is_none_or(|own| own == serial)
    }
}

impl Default for TokenTraits {
    fn default() -> Self {
        Self {
            family: "unknown".into(),
            label: String::new(),
            serial: None,
            tells_local: true,
            sessions: 1,
        }
    }
}

/// What the certificate authority is made of.
pub struct Config {
    /// The store.
    pub store: Store,
    /// Tokens by their names in the configuration.
    pub tokens: BTreeMap<String, ConfiguredToken>,
    /// The token that holds each authority's key.
    pub authorities: BTreeMap<String, String>,
    /// Who signs while a token is out.
    pub failover: FailoverPolicy,
    /// Profiles by name.
    pub profiles: BTreeMap<String, IssuanceProfile>,
    /// What stations may ask for.
    pub stations: StationPolicy,
    /// The profile of EST requests that name none.
    pub est_profile: Option<String>,
    /// Whether EST answers in lines.
    pub est_line_breaks: bool,
    /// Provisioning services, by their names in the configuration.
    pub provisioning: Vec<String>,
    /// Authorities whose certificates each provisioning service verifies.
    pub verified: BTreeMap<String, BTreeSet<String>>,
    /// When authorities are rolled, and what that needs.
    pub authority_policy: AuthorityPolicy,
    /// How long changes may wait for a provisioning service before that is an alarm, in seconds.
    pub push_age_alarm_seconds: i64,
    /// The services with a hub, and how many operations a minute it allows.
    pub hubs: BTreeMap<String, u32>,
    /// How leaves are rolled.
    pub rolling: RollPolicy,
    /// PKCS#11 modules that can be asked what they show.
    pub probes: Vec<Probe>,
    /// When revocation lists are signed anew.
    pub crl_schedule: CrlSchedule,
    /// How many backups are kept.
    pub backups_kept: usize,
    /// Where relying parties fetch what is published (`http://host`), for issued certificates to
    /// say so.
    pub public_http: Option<String>,
    /// When the machine's clock is believed.
    pub clock: ClockPolicy,
    /// Called when something at a provisioning service must change.
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// Called when a revocation list must be signed, and nothing else has to be done.
    pub wake_lists: Box<dyn Fn() + Send + Sync>,
}

/// The certificate authority as it is configured. Whoever begins something takes it as it is then
/// (see [`CurrentAuthority`]) and keeps it to the end.
pub struct CertificateAuthority {
    store: Store,
    tokens: BTreeMap<String, ConfiguredToken>,
    authorities: BTreeMap<String, String>,
    failover: FailoverPolicy,
    profiles: BTreeMap<String, IssuanceProfile>,
    stations: StationPolicy,
    est_profile: Option<String>,
    est_line_breaks: bool,
    provisioning: Vec<String>,
    /// Those that some service verifies.
    verified: BTreeSet<String>,
    verified_at: BTreeMap<String, BTreeSet<String>>,
    authority_policy: AuthorityPolicy,
    push_age_alarm_seconds: i64,
    hubs: BTreeMap<String, u32>,
    rolling: RollPolicy,
    clock: ClockPolicy,
    crl_schedule: CrlSchedule,
    backups_kept: usize,
    wake: Box<dyn Fn() + Send + Sync>,
    wake_lists: Box<dyn Fn() + Send + Sync>,
    probes: Vec<Probe>,
    /// What ends soon, as it was counted a moment ago.
    expiry: Mutex<Option<expiry::Counted>>,
    shared: Arc<SharedState>,
}

/// The certificate authority as every edge holds it: exchanged as a whole when a new configuration is
/// taken, while requests are in hand.
pub type CurrentAuthority = Arc<ArcSwap<CertificateAuthority>>;

/// What outlasts a configuration: what this process remembers, and its locks.
struct SharedState {
    clock: Clock,
    lists: RevocationLists,
    listeners: Listeners,
    hierarchy: ArcSwap<Hierarchy>,
    /// Where relying parties fetch what is published. Whoever reads the hierarchy anew holds it, so
    /// that an older reading replaces no newer one.
    public_http: Mutex<Option<String>>,
    failover: Failover,
    /// One ceremony at a time.
    ceremony: Mutex<()>,
    /// One check or bench of a token at a time.
    diagnostics: Mutex<()>,
    /// One look at all modules at a time: each costs a process for each of them.
    look: Mutex<()>,
    /// One backup at a time.
    backup: Mutex<()>,
    /// Intents whose end could not be recorded yet.
    open_intents: Mutex<Vec<OpenIntent>>,
    /// How often the daemon's own work may have something signed.
    pace: Pace,
    /// What is recorded of the use of keys.
    key_uses: Mutex<RecordedKeyUses>,
    /// Keys that do not sign.
    key_faults: KeyFaults,
    /// What strangers were refused lately.
    refusals: Mutex<RefusalCounts>,
    /// When it is looked next what of finished work may go, in Unix seconds.
    retention_due: AtomicI64,
    /// What is under way around it.
    liveness: Liveness,
}

impl CertificateAuthority {
    /// Loads the hierarchy, and abandons what a crash left open: every intent is explained before
    /// anything new is signed.
    pub fn start(config: Config) -> Result<Self, Error> {
        let hierarchy =
            Hierarchy::load(config.store.generations()?, config.public_http.as_deref())?;
        let clock = Clock::new(&config.clock, config.store.newest_date()?);
        let shared = SharedState {
            clock,
            lists: RevocationLists::new(config.store.current_crls()?),
            listeners: Listeners::default(),
            hierarchy: ArcSwap::from_pointee(hierarchy),
            public_http: Mutex::new(config.public_http.clone()),
            failover: Failover::default(),
            ceremony: Mutex::default(),
            diagnostics: Mutex::default(),
            look: Mutex::default(),
            backup: Mutex::default(),
            open_intents: Mutex::default(),
            pace: Pace::default(),
            key_uses: Mutex::default(),
            key_faults: KeyFaults::default(),
            refusals: Mutex::default(),
            retention_due: AtomicI64::default(),
            liveness: Liveness::default(),
        };
        let authority = Self::with_config(config, Arc::new(shared));
        authority.abandon_intents_of_last_run()?;
        Ok(authority)
    }

    /// The same authority under another configuration, on record as `entry`. Intents that are open
    /// belong to requests in hand, and are left to them. On failure nothing has changed.
    pub fn reconfigured(&self, config: Config, entry: AuditEntry) -> Result<Self, Error> {
        let shared = &self.shared;
        let mut public_http = lock(&shared.public_http);
        let rows = self.store.generations()?;
        let hierarchy = Hierarchy::load(rows, config.public_http.as_deref())?;
        pollster::block_on(self.store.record_audit(entry))?;
        shared.hierarchy.store(Arc::new(hierarchy));
        public_http.clone_from(&config.public_http);
        drop(public_http);
        for (name, token) in &config.tokens {
            let before = self.tokens.get(name);
            if !before.is_some_and(|it| it.client.is_same(&token.client)) {
                shared.failover.forget_token(name);
            }
        }
        Ok(Self::with_config(config, Arc::clone(shared)))
    }

    fn with_config(config: Config, shared: Arc<SharedState>) -> Self {
        Self {
            store: config.store,
            tokens: config.tokens,
            authorities: config.authorities,
            failover: config.failover,
            profiles: config.profiles,
            stations: config.stations,
            est_profile: config.est_profile,
            est_line_breaks: config.est_line_breaks,
            provisioning: config.provisioning,
            verified: config.verified.values().flatten().cloned().collect(),
            verified_at: config.verified,
            authority_policy: config.authority_policy,
            push_age_alarm_seconds: config.push_age_alarm_seconds,
            hubs: config.hubs,
            rolling: config.rolling,
            clock: config.clock,
            crl_schedule: config.crl_schedule,
            backups_kept: config.backups_kept,
            wake: config.wake,
            wake_lists: config.wake_lists,
            probes: config.probes,
            expiry: Mutex::default(),
            shared,
        }
    }

    /// Returns the store. The reconciler records there what it observed.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The authorities as they serve now.
    pub fn hierarchy(&self) -> Guard<Arc<Hierarchy>> {
        self.shared.hierarchy.load()
    }

    /// Returns the open deadlines of the loops around the application.
    pub fn liveness(&self) -> &Liveness {
        &self.shared.liveness
    }

    /// A profile by name.
    pub fn profile(&self, name: &str) -> Result<&IssuanceProfile, Error> {
        self.profiles.get(name).ok_or_else(|| {
            let known: Vec<_> = self.profiles.keys().map(String::as_str).collect();
            let message = format!(
                "there is no profile {name:?}; configured are {}",
                known.join(", ")
            );
            Error::missing(Code::ProfileUnknown, message)
        })
    }

    /// Profiles by name.
    pub fn profiles(&self) -> &BTreeMap<String, IssuanceProfile> {
        &self.profiles
    }

    /// Makes waiting and parked changes due: all of them, or those with this name.
    pub fn retry_push(
        &self,
        permission: &Authorized<Operate>,
        name: Option<String>,
    ) -> Result<usize, Error> {
        let entry = AuditEntry {
            at: self.now(),
            actor: permission.caller().to_string(),
            action: "push.retried",
            subject: name.clone().unwrap_or_else(|| "all".into()),
            detail: json!({}),
        };
        let retried = self.store.retry_marks(name, entry)?;
        self.wake();
        Ok(retried)
    }

    /// Tells the reconcilers that there is something to do.
    pub fn wake(&self) {
        (self.wake)();
    }

    fn reload_hierarchy(&self) -> Result<(), Error> {
        let public_http = lock(&self.shared.public_http);
        let rows = self.store.generations()?;
        let hierarchy = Hierarchy::load(rows, public_http.as_deref())?;
        self.shared.hierarchy.store(Arc::new(hierarchy));
        Ok(())
    }

    fn token(&self, name: &str) -> Result<&ConfiguredToken, Error> {
        self.tokens.get(name).ok_or_else(|| {
            let message = format!("the configuration names no token {name:?}; add it");
            Error::stop(Code::TokenUnknown, message)
        })
    }

    fn token_of(&self, authority: &str) -> Result<&str, Error> {
        self.authorities.get(authority).map(String::as_str).ok_or_else(|| {
            let message = format!(
                "the configuration has no [[authority]] named {authority:?}; add it with the token \
                 that shall hold its key, and reload"
            );
            Error::mend(Code::AuthorityUnknown, message)
        })
    }
}

/// Whoever panicked while holding it left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A named place where the fault tests kill the daemon; nothing without the feature `failpoints`.
///
/// `FAILPOINTS="NAME=return(FILE)"` makes whoever comes here write FILE, and stay until a signal
/// ends the process.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables))]
pub(crate) fn crash_point(name: &str) {
    fail::fail_point!(name, |file| {
        let announced = std::fs::write(file.unwrap_or_default(), name);
        tracing::warn!(name, ?announced, "stays at a crash point");
        loop {
            std::thread::park();
        }
    });
}

/// How much time a test lets pass for the application, in seconds; always 0 without the feature
/// `failpoints`.
///
/// `FAILPOINTS="clock=return(FILE)"` lets pass what FILE says at that moment.
fn clock_offset() -> i64 {
    fail::fail_point!("clock", seconds_in);
    0
}

/// By how much a test has set the machine's clock without letting time pass, by the failpoint `wall`.
fn wall_offset() -> i64 {
    fail::fail_point!("wall", seconds_in);
    0
}

#[cfg(feature = "failpoints")]
fn seconds_in(file: Option<String>) -> i64 {
    let said = std::fs::read_to_string(file.unwrap_or_default());
    said.ok().and_then(|said| said.parse().ok()).unwrap_or(0)
}

/// RFC 3339 of Unix seconds.
pub fn rfc3339(unix_seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_seconds.to_string())
}
