//! Runs the certificate authority: hierarchy, ceremonies, issuance, CRLs, rollovers, exclusion.
//!
//! It must never sign bytes without a record. It uses the store and the tokens, and no HTTP: a
//! change for a provisioning service is a dirty mark in the store, and
//! [`CertificateAuthority::wake`] wakes the reconcilers.
//!
//! It is synchronous and runs on blocking threads. Only what the issuance cycle waits for is async,
//! and needs no executor; synchronous callers run it with `pollster::block_on`.

pub mod access;
pub mod adoption;
pub mod alarm;
pub mod approval;
pub mod authority_policy;
pub mod authorize;
pub mod backup;
pub mod birth;
pub mod ca_certificates;
pub mod ceremony;
pub mod checkpoint;
pub mod coded;
pub mod crl;
pub mod device_credential;
pub mod diagnostics;
pub mod doctor;
pub mod ends;
pub mod enroll;
pub mod error;
pub mod est;
pub mod example;
pub mod exclusion;
pub mod expiry;
pub mod explain;
pub mod external;
mod failures;
pub mod generated_key;
pub mod hierarchy;
pub mod import;
mod issued_lately;
pub mod issuer;
pub mod issuer_list;
pub mod listeners;
pub mod liveness;
pub mod ocsp;
pub mod overview;
pub mod permissions;
pub mod profile;
#[cfg(test)]
mod reference_tests;
pub mod remedy;
pub mod retention;
pub mod roll;
pub mod services;
mod signed;
mod signing_request;
pub mod station;
pub mod status;
mod stranded;
mod subordinate_expiry;
pub mod tokens;
pub mod transcript;
pub mod transfer;

pub use crate::error_code::Code;
pub use error::{Advice, Error};
pub use issuer::{Callbacks, Issuer, IssuerSettings};

use crate::store::{AuditEntry, Store};
use crate::token::client::TokenClient;
use crate::token::probe::Probe;
use crate::unix_seconds::UnixSeconds;
use approval::{ApprovalPolicy, Approvals};
use arc_swap::{ArcSwap, Guard};
use authorize::{Authorized, Operate};
use backup::{BackupSettings, Backups};
use ceremony::Ceremonies;
use crl::{CrlPublisher, CrlSchedule, RevocationLists};
use diagnostics::TokenDiagnostics;
use enroll::Enrollments;
use est::{Est, EstSettings};
use exclusion::Exclusions;
use hierarchy::Hierarchy;
use issuer_list::IssuerLists;
use listeners::Listeners;
use liveness::Liveness;
use ocsp::{Ocsp, OcspState};
use roll::{RolloverSettings, Rollovers};
use serde_json::json;
use services::Services;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokens::Tokens;

/// A token, and how long it may take.
#[derive(Clone)]
pub struct ConfiguredToken {
    pub client: TokenClient,
    /// How long one signature may take.
    pub sign_deadline: Duration,
    /// The settings of the configuration and of the token's family.
    pub traits: TokenTraits,
}

/// The settings of a token in the configuration and in its family.
#[derive(Clone, Debug)]
pub struct TokenTraits {
    /// The family's name, for people.
    pub family: String,
    pub label: String,
    /// Its serial number, where the configuration says it.
    pub serial: Option<String>,
    /// True if it reports which keys it has made itself (`CKA_LOCAL`).
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

/// The parts of the certificate authority.
pub struct Config {
    pub store: Store,
    /// Tokens by their names in the configuration.
    pub tokens: BTreeMap<String, ConfiguredToken>,
    /// The settings of the issuer.
    pub issuer: IssuerSettings,
    /// The callback that wakes other parts of the daemon.
    pub callbacks: Callbacks,
    /// The settings of all other parts.
    pub settings: Settings,
}

/// The settings of all parts but the issuer.
#[derive(Default)]
pub struct Settings {
    /// The settings of EST.
    pub est: EstSettings,
    /// The configured provisioning services.
    pub services: Services,
    /// How long changes may wait for a provisioning service before that is an alarm, in seconds.
    pub push_age_alarm_seconds: i64,
    /// The settings of rollovers.
    pub rollovers: RolloverSettings,
    /// PKCS#11 modules that can be asked for their slots.
    pub probes: Vec<Probe>,
    /// When revocation lists are signed again.
    pub crl_schedule: CrlSchedule,
    /// The actions that need an approval.
    pub approvals: ApprovalPolicy,
    /// How backups are made.
    pub backups: BackupSettings,
    /// How long the records of a revocation are kept after the end of its certificate, in seconds.
    pub revocations_kept_seconds: i64,
}

/// The certificate authority under one configuration. A task loads it once (see
/// [`CurrentAuthority`]) and keeps it to its end.
pub struct CertificateAuthority {
    issuer: Arc<Issuer>,
    crls: Arc<CrlPublisher>,
    ocsp: Ocsp,
    est: Est,
    ceremonies: Arc<Ceremonies>,
    tokens: Tokens,
    diagnostics: TokenDiagnostics,
    backups: Backups,
    approvals: Approvals,
    exclusions: Arc<Exclusions>,
    enrollments: Enrollments,
    rollovers: Rollovers,
    store: Store,
    push_age_alarm_seconds: i64,
    revocations_kept_seconds: i64,
    /// The last count of what ends soon.
    expiry: Mutex<Option<expiry::Counted>>,
    surroundings: doctor::Surrounded,
    /// The last count of what was issued.
    issued: Mutex<Option<issued_lately::KeptCount>>,
    shared: Arc<SharedState>,
}

/// The certificate authority as every edge holds it: a reload exchanges it as a whole while
/// requests are running.
pub type CurrentAuthority = Arc<ArcSwap<CertificateAuthority>>;

/// State and locks that every reload shares.
struct SharedState {
    lists: Arc<RevocationLists>,
    issuer_lists: IssuerLists,
    ocsp: Arc<OcspState>,
    listeners: Listeners,
    ceremony: Arc<Mutex<()>>,
    diagnostics: Arc<Mutex<()>>,
    listing: Arc<Mutex<()>>,
    backup: Arc<Mutex<()>>,
    /// The next cleanup of finished work, in Unix seconds.
    retention_due: AtomicI64,
    /// Deadlines of the loops.
    liveness: Liveness,
}

impl CertificateAuthority {
    /// Loads what is on record, and abandons what the last run left open.
    pub fn start(config: Config) -> Result<Self, Error> {
        let shared = SharedState {
            lists: Arc::new(RevocationLists::new(config.store.current_crls()?)),
            issuer_lists: IssuerLists::load(&config.store)?,
            ocsp: Arc::default(),
            listeners: Listeners::default(),
            ceremony: Arc::default(),
            diagnostics: Arc::default(),
            listing: Arc::default(),
            backup: Arc::default(),
            retention_due: AtomicI64::default(),
            liveness: Liveness::default(),
        };
        let issuer = Issuer::start(config.store, config.tokens, config.issuer, config.callbacks)?;
        let authority = Self::compose(issuer, config.settings, Arc::new(shared));
        match authority.exclusions.record_hubs() {
            // Nothing can be excluded either until the store writes; then a turn records them.
            Err(error) if error.code == Code::StoreUnavailable => {
                tracing::error!(%error, "hubs not recorded, will retry");
            }
            result => result?,
        }
        Ok(authority)
    }

    /// Returns this authority under another configuration, on record as `entry`. On failure nothing
    /// has changed.
    pub fn reconfigured(&self, config: Config, entry: AuditEntry) -> Result<Self, Error> {
        let issuer =
            self.issuer
                .reconfigured(config.tokens, config.issuer, config.callbacks, entry)?;
        let authority = Self::compose(issuer, config.settings, Arc::clone(&self.shared));
        authority.exclusions.record_hubs()?;
        Ok(authority)
    }

    fn compose(issuer: Issuer, settings: Settings, shared: Arc<SharedState>) -> Self {
        let issuer = Arc::new(issuer);
        let its = || Arc::clone(&issuer);
        let crls = CrlPublisher::new(its(), settings.crl_schedule, shared.lists.clone());
        let crls = Arc::new(crls);
        let ceremonies = Arc::new(Ceremonies::new(its(), shared.ceremony.clone()));
        let exclusions = Exclusions::new(its(), crls.clone(), Arc::new(settings.services));
        let exclusions = Arc::new(exclusions);
        Self {
            store: issuer.store().clone(),
            ocsp: Ocsp::new(its(), crls.clone(), shared.ocsp.clone()),
            est: Est::new(its(), settings.est),
            enrollments: Enrollments::new(exclusions.clone()),
            rollovers: Rollovers::new(exclusions.clone(), ceremonies.clone(), settings.rollovers),
            tokens: Tokens::new(its(), settings.probes, shared.listing.clone()),
            diagnostics: TokenDiagnostics::new(its(), shared.diagnostics.clone()),
            approvals: Approvals::new(its(), settings.approvals),
            backups: Backups::new(its(), settings.backups, shared.backup.clone()),
            issuer,
            crls,
            ceremonies,
            exclusions,
            push_age_alarm_seconds: settings.push_age_alarm_seconds,
            revocations_kept_seconds: settings.revocations_kept_seconds,
            expiry: Mutex::default(),
            issued: Mutex::default(),
            surroundings: OnceLock::new(),
            shared,
        }
    }

    /// Returns the part that signs.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Returns the part that signs and publishes revocation lists.
    pub fn crls(&self) -> &CrlPublisher {
        &self.crls
    }

    /// Returns the part that answers OCSP requests.
    pub fn ocsp(&self) -> &Ocsp {
        &self.ocsp
    }

    /// Returns the part that answers EST.
    pub fn est(&self) -> &Est {
        &self.est
    }

    /// Returns the part that makes authorities.
    pub fn ceremonies(&self) -> &Ceremonies {
        &self.ceremonies
    }

    /// Returns the part that lists tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Returns the part that checks and benches tokens.
    pub fn diagnostics(&self) -> &TokenDiagnostics {
        &self.diagnostics
    }

    /// Returns the part that makes backups.
    pub fn backups(&self) -> &Backups {
        &self.backups
    }

    /// Returns the part that has a second person approve.
    pub fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// Returns the part that blocks, revokes and readmits.
    pub fn exclusions(&self) -> &Exclusions {
        &self.exclusions
    }

    /// Returns the part that says what provisioning services must hold.
    pub fn enrollments(&self) -> &Enrollments {
        &self.enrollments
    }

    /// Returns the part that replaces certificates.
    pub fn rollovers(&self) -> &Rollovers {
        &self.rollovers
    }

    /// Returns the store. The reconciler records there what it observed.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the present authorities.
    pub fn hierarchy(&self) -> Guard<Arc<Hierarchy>> {
        self.issuer.hierarchy()
    }

    /// Returns the present in Unix seconds, as [`Issuer::now`] does.
    pub fn now(&self) -> UnixSeconds {
        self.issuer.now()
    }

    /// Wakes the reconcilers.
    pub fn wake(&self) {
        self.issuer.wake();
    }

    /// Returns the deadlines of the loops.
    pub fn liveness(&self) -> &Liveness {
        &self.shared.liveness
    }

    /// Makes waiting and parked changes due: all of them, or those with this name.
    pub fn retry_push(
        &self,
        permission: &Authorized<Operate>,
        name: Option<String>,
    ) -> Result<usize, Error> {
        if let Some(name) = &name {
            self.refuse_unknown_push(name)?;
        }
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

    fn refuse_unknown_push(&self, name: &str) -> Result<(), Error> {
        let certificates = self.store.ca_certificates()?;
        let is_known = certificates.iter().any(|it| it.name == name);
        if is_known || !self.store.enrollments_named(name)?.is_empty() {
            return Ok(());
        }
        let message = format!(
            "there is no enrollment and no CA certificate {name:?}; `hallmark push list` has the \
             changes that wait"
        );
        Err(Error::missing(Code::EnrollmentUnknown, message))
    }
}

/// A thread that panicked while holding it left consistent data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A named place where the fault tests kill the daemon; nothing without the feature `failpoints`.
///
/// `FAILPOINTS="NAME=return(FILE)"` makes a thread that reaches this point write FILE, and wait
/// until a signal ends the process.
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

/// By how much a test has set the machine's clock without letting time pass, by the failpoint
/// `wall`.
fn wall_offset() -> i64 {
    fail::fail_point!("wall", seconds_in);
    0
}

#[cfg(feature = "failpoints")]
fn seconds_in(file: Option<String>) -> i64 {
    let said = std::fs::read_to_string(file.unwrap_or_default());
    said.ok().and_then(|said| said.parse().ok()).unwrap_or(0)
}
