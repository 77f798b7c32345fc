//! The application: hierarchy, ceremony, issuance, revocation and its lists, proof of possession,
//! rolls.
//!
//! Sync. It knows the store and the tokens, and nothing of HTTP or of the provisioning service: what
//! must change there is a dirty mark in the store, and [`CertificateAuthority::wake`] says that
//! there is one. It must never sign what the store has not on record.

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
mod door;
pub mod enroll;
pub mod error;
pub mod est;
pub mod expiry;
pub mod external;
pub mod failover;
mod generation;
pub mod hierarchy;
pub mod issue;
mod key_health;
mod key_proof;
mod key_use;
mod limits;
pub mod listeners;
mod pace;
pub mod possession;
pub mod profile;
pub mod progress;
pub mod receipt;
#[cfg(test)]
mod reference_tests;
pub mod refusals;
mod renewal;
pub mod retention;
pub mod revoke;
pub mod roll;
pub mod station;
pub mod status;
mod stranded;
pub mod tokens;
pub mod transcript;
pub mod trial;
mod window;

pub use crate::error_code::Code;
pub use error::{Advice, Error};

use crate::store::{AuditEntry, FOUND_AT_START, Store, StoreError};
use crate::token::client::TokenClient;
use crate::token::probe::Probe;
use arc_swap::{ArcSwap, Guard};
use authority_policy::AuthorityPolicy;
use authorize::{Authorized, Operate};
use clock::{Clock, ClockPolicy};
use crl::{CrlSchedule, RevocationLists};
use failover::{FailoverPolicy, StandIns};
use hierarchy::Hierarchy;
use issue::Unsettled;
use key_health::KeyFaults;
use key_use::RecordedKeyUses;
use listeners::Listeners;
use pace::Pace;
use profile::IssuanceProfile;
use progress::Progress;
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

/// What the application is put together from.
pub struct Parts {
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
    lasting: Arc<Lasting>,
}

/// The certificate authority as every edge holds it: exchanged as a whole when a new configuration is
/// taken, while requests are in hand.
pub type CurrentAuthority = Arc<ArcSwap<CertificateAuthority>>;

/// What outlasts a configuration: what this process remembers, and its locks.
struct Lasting {
    clock: Clock,
    lists: RevocationLists,
    listeners: Listeners,
    hierarchy: ArcSwap<Hierarchy>,
    /// Where relying parties fetch what is published. Whoever reads the hierarchy anew holds it, so
    /// that an older reading replaces no newer one.
    public_http: Mutex<Option<String>>,
    stand_ins: StandIns,
    /// One ceremony at a time.
    ceremony: Mutex<()>,
    /// One check or bench of a token at a time.
    trial: Mutex<()>,
    /// One look at all modules at a time: each costs a process for each of them.
    look: Mutex<()>,
    /// One backup at a time.
    backup: Mutex<()>,
    /// Intents whose end could not be recorded yet.
    unsettled: Mutex<Vec<Unsettled>>,
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
    progress: Progress,
}

impl CertificateAuthority {
    /// Loads the hierarchy, and abandons what a crash left open: every intent is explained before
    /// anything new is signed.
    pub fn start(parts: Parts) -> Result<Self, Error> {
        let hierarchy = Hierarchy::load(parts.store.generations()?, parts.public_http.as_deref())?;
        let clock = Clock::new(&parts.clock, parts.store.newest_date()?);
        let lasting = Lasting {
            clock,
            lists: RevocationLists::new(parts.store.current_crls()?),
            listeners: Listeners::default(),
            hierarchy: ArcSwap::from_pointee(hierarchy),
            public_http: Mutex::new(parts.public_http.clone()),
            stand_ins: StandIns::default(),
            ceremony: Mutex::default(),
            trial: Mutex::default(),
            look: Mutex::default(),
            backup: Mutex::default(),
            unsettled: Mutex::default(),
            pace: Pace::default(),
            key_uses: Mutex::default(),
            key_faults: KeyFaults::default(),
            refusals: Mutex::default(),
            retention_due: AtomicI64::default(),
            progress: Progress::default(),
        };
        let authority = Self::assemble(parts, Arc::new(lasting));
        authority.explain_open_intents()?;
        Ok(authority)
    }

    /// Abandons what a crash left open. Where the store cannot write yet, the application does it
    /// as soon as the store can; until then nothing can be recorded, and so nothing is signed.
    fn explain_open_intents(&self) -> Result<(), Error> {
        match self.store.abandon_open_intents(self.now()) {
            Ok(0) => Ok(()),
            Ok(abandoned) => {
                tracing::warn!(abandoned, "intents without a certificate were abandoned");
                Ok(())
            }
            Err(StoreError::Unavailable(reason)) => {
                let open = self.store.open_intents()?;
                tracing::error!(
                    reason,
                    open = open.len(),
                    "open intents cannot be abandoned yet"
                );
                let left = open.into_iter().map(|intent| Unsettled {
                    intent,
                    reason: FOUND_AT_START.to_owned(),
                    may_be_done: true,
                });
                lock(&self.lasting.unsettled).extend(left);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The same authority under another configuration, on record as `entry`. Intents that are open
    /// belong to requests in hand, and are left to them. On failure nothing has changed.
    pub fn reconfigured(&self, parts: Parts, entry: AuditEntry) -> Result<Self, Error> {
        let lasting = &self.lasting;
        let mut public_http = lock(&lasting.public_http);
        let rows = self.store.generations()?;
        let hierarchy = Hierarchy::load(rows, parts.public_http.as_deref())?;
        pollster::block_on(self.store.record_audit(entry))?;
        lasting.hierarchy.store(Arc::new(hierarchy));
        public_http.clone_from(&parts.public_http);
        drop(public_http);
        for (name, token) in &parts.tokens {
            let before = self.tokens.get(name);
            if !before.is_some_and(|it| it.client.is_same(&token.client)) {
                lasting.stand_ins.forget_token(name);
            }
        }
        Ok(Self::assemble(parts, Arc::clone(lasting)))
    }

    fn assemble(parts: Parts, lasting: Arc<Lasting>) -> Self {
        Self {
            store: parts.store,
            tokens: parts.tokens,
            authorities: parts.authorities,
            failover: parts.failover,
            profiles: parts.profiles,
            stations: parts.stations,
            est_profile: parts.est_profile,
            est_line_breaks: parts.est_line_breaks,
            provisioning: parts.provisioning,
            verified: parts.verified.values().flatten().cloned().collect(),
            verified_at: parts.verified,
            authority_policy: parts.authority_policy,
            push_age_alarm_seconds: parts.push_age_alarm_seconds,
            hubs: parts.hubs,
            rolling: parts.rolling,
            clock: parts.clock,
            crl_schedule: parts.crl_schedule,
            backups_kept: parts.backups_kept,
            wake: parts.wake,
            wake_lists: parts.wake_lists,
            probes: parts.probes,
            expiry: Mutex::default(),
            lasting,
        }
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The authorities as they serve now.
    pub fn hierarchy(&self) -> Guard<Arc<Hierarchy>> {
        self.lasting.hierarchy.load()
    }

    /// What is under way around it, for whoever drives it and whoever watches.
    pub fn progress(&self) -> &Progress {
        &self.lasting.progress
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
        let public_http = lock(&self.lasting.public_http);
        let rows = self.store.generations()?;
        let hierarchy = Hierarchy::load(rows, public_http.as_deref())?;
        self.lasting.hierarchy.store(Arc::new(hierarchy));
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
