//! Holds what signing needs: the store, tokens, hierarchy, profiles, clock and failover.
//!
//! The methods are in the files of their subjects: [`issue`] has the issuance cycle, [`generation`]
//! the keys and certificates of authorities. An issuer belongs to one configuration and never
//! changes; its state is shared with the issuers of later configurations. Its fields are private:
//! the other parts of the application use it by its methods only.

pub mod client;
pub mod clock;
mod constraints;
pub mod cross;
pub mod failover;
pub mod fetch;
pub mod former;
mod generate;
pub(super) mod generation;
pub mod issue;
mod key_health;
mod key_proof;
mod key_use;
pub mod late_renewal;
mod open_intents;
pub(super) mod pace;
pub mod refusals;
pub(super) mod renewal;
pub mod repeat;
pub mod search;
pub mod subordinate;

use crate::ca::birth::BirthPolicy;
use crate::ca::checkpoint::{AuditPolicy, JournalState};
use crate::ca::failures::Failures;
use crate::ca::hierarchy::{Hierarchy, Published};
use crate::ca::ocsp::OcspPolicy;
use crate::ca::profile::IssuanceProfile;
use crate::ca::station::StationPolicy;
use crate::ca::{Code, ConfiguredToken, Error, lock};
use crate::ids::CaCertificateId;
use crate::store::{AuditEntry, Store};
use arc_swap::{ArcSwap, Guard};
use clock::{Clock, ClockPolicy};
use cross::CrossFailures;
use failover::{Failover, FailoverPolicy};
use key_health::KeyFaults;
use key_use::RecordedKeyUses;
use open_intents::OpenIntent;
use pace::Pace;
use refusals::RefusalCounts;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use subordinate::profile::SubordinateProfile;

/// Signs certificates, revocation lists and requests, after it has recorded them.
pub struct Issuer {
    store: Store,
    /// Tokens by their names in the configuration.
    tokens: BTreeMap<String, ConfiguredToken>,
    settings: IssuerSettings,
    callbacks: Callbacks,
    shared: Arc<IssuerState>,
}

/// The settings of an issuer.
#[derive(Clone, Debug, Default)]
pub struct IssuerSettings {
    /// The token that holds each authority's key.
    pub authorities: BTreeMap<String, String>,
    /// Other tokens and authorities that sign while a token is unavailable.
    pub failover: FailoverPolicy,
    pub profiles: BTreeMap<String, IssuanceProfile>,
    pub subordinate_profiles: BTreeMap<String, SubordinateProfile>,
    /// The certificates that each station may request.
    pub stations: StationPolicy,
    /// The manufacturers whose certificates let a device request its first leaf.
    pub births: BirthPolicy,
    /// Authorities whose certificates some provisioning service verifies: chains end there.
    pub verified: BTreeSet<String>,
    /// How long each authority signs leaves after its making, in seconds, where it is limited.
    pub signing_windows: BTreeMap<String, i64>,
    /// Where relying parties fetch what is published (`http://host`); certificates name it.
    pub public_http: Option<String>,
    /// Into how many partitions the revocation lists of an authority's next generations are split.
    pub crl_partitions: BTreeMap<String, u16>,
    /// Which authorities answer OCSP requests, and how.
    pub ocsp: OcspPolicy,
    /// When the machine's clock is believed.
    pub clock: ClockPolicy,
    /// How the audit journal is signed and verified.
    pub audit: AuditPolicy,
}

impl IssuerSettings {
    /// Returns why an authority whose key is on `token` is not served with these settings.
    pub fn misplaced(&self, authority: &str, token: &str) -> Option<String> {
        match self.authorities.get(authority) {
            None => Some("it exists, and the configuration has no such [[authority]]".into()),
            Some(configured) if configured != token => Some(format!(
                "its key is on token {token:?}, and the configuration says {configured:?}"
            )),
            Some(_) => None,
        }
    }

    fn published(&self) -> Published {
        Published {
            http: self.public_http.clone(),
            ocsp: self.ocsp.authorities.clone(),
        }
    }
}

/// The callback that wakes other parts of the daemon.
pub struct Callbacks {
    /// Called when something at a provisioning service must change.
    pub desired_changed: Box<dyn Fn() + Send + Sync>,
    /// Called when a revocation list must be signed, and nothing else has to be done.
    pub crl_due: Box<dyn Fn() + Send + Sync>,
}

/// State that all issuers of this process share.
struct IssuerState {
    clock: Clock,
    hierarchy: ArcSwap<Hierarchy>,
    /// The present addresses in certificates. A thread that loads the hierarchy holds this lock, so
    /// that an older hierarchy replaces no newer one.
    published: Mutex<Published>,
    failover: Failover,
    /// Intents whose end could not be recorded yet.
    open_intents: Mutex<Vec<OpenIntent>>,
    /// How often the daemon's own work may have something signed.
    pace: Pace,
    /// The proofs of possession that could not be signed.
    unsigned_proofs: Failures<CaCertificateId>,
    /// The recorded uses of keys.
    key_uses: Mutex<RecordedKeyUses>,
    /// Keys that do not sign.
    key_faults: KeyFaults,
    /// Refusals of the present minute.
    refusals: Mutex<RefusalCounts>,
    /// Held while a subordinate certificate is signed.
    subordinates: Mutex<()>,
    /// Why cross-certificates are not signed yet.
    cross_failures: Mutex<CrossFailures>,
    /// The state of the audit journal.
    journal: JournalState,
}

impl Issuer {
    /// Loads the hierarchy, and abandons what the last run left open, if the store can write.
    pub(super) fn start(
        store: Store,
        tokens: BTreeMap<String, ConfiguredToken>,
        settings: IssuerSettings,
        callbacks: Callbacks,
    ) -> Result<Self, Error> {
        let hierarchy = load(&store, &settings.published())?;
        let shared = IssuerState {
            clock: Clock::new(&settings.clock, store.newest_date()?),
            hierarchy: ArcSwap::from_pointee(hierarchy),
            published: Mutex::new(settings.published()),
            failover: Failover::default(),
            open_intents: Mutex::default(),
            pace: Pace::default(),
            unsigned_proofs: Failures::default(),
            key_uses: Mutex::default(),
            key_faults: KeyFaults::default(),
            refusals: Mutex::default(),
            subordinates: Mutex::default(),
            cross_failures: Mutex::default(),
            journal: JournalState::new(),
        };
        let issuer = Self {
            store,
            tokens,
            settings,
            callbacks,
            shared: Arc::new(shared),
        };
        // Before the first entry of this run.
        issuer.open_journal();
        issuer.abandon_intents_of_last_run()?;
        Ok(issuer)
    }

    /// Returns this issuer with other settings, on record as `entry`. Open intents belong to
    /// running requests, which end them. On failure nothing has changed.
    pub(super) fn reconfigured(
        &self,
        tokens: BTreeMap<String, ConfiguredToken>,
        settings: IssuerSettings,
        callbacks: Callbacks,
        entry: AuditEntry,
    ) -> Result<Self, Error> {
        let shared = &self.shared;
        load(&self.store, &settings.published())?;
        // No lock while this waits for the store: requests take it, too.
        pollster::block_on(self.store.record_audit(entry))?;
        let mut published = lock(&shared.published);
        let hierarchy = load(&self.store, &settings.published())?;
        shared.hierarchy.store(Arc::new(hierarchy));
        *published = settings.published();
        drop(published);
        for (name, token) in &tokens {
            let before = self.tokens.get(name);
            if !before.is_some_and(|it| it.client.is_same(&token.client)) {
                shared.failover.forget_token(name);
            }
        }
        Ok(Self {
            store: self.store.clone(),
            tokens,
            settings,
            callbacks,
            shared: Arc::clone(shared),
        })
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns where relying parties fetch what is published.
    pub(in crate::ca) fn public_http(&self) -> Option<&str> {
        self.settings.public_http.as_deref()
    }

    /// Returns the present authorities.
    pub fn hierarchy(&self) -> Guard<Arc<Hierarchy>> {
        self.shared.hierarchy.load()
    }

    pub(super) fn reload_hierarchy(&self) -> Result<(), Error> {
        let published = lock(&self.shared.published);
        let hierarchy = load(&self.store, &published)?;
        self.shared.hierarchy.store(Arc::new(hierarchy));
        Ok(())
    }

    /// Returns the profile of this name.
    pub fn profile(&self, name: &str) -> Result<&IssuanceProfile, Error> {
        let profiles = &self.settings.profiles;
        profiles.get(name).ok_or_else(|| {
            let known: Vec<_> = profiles.keys().map(String::as_str).collect();
            let message = format!(
                "there is no profile {name:?}; configured are {}",
                known.join(", ")
            );
            Error::missing(Code::ProfileUnknown, message)
        })
    }

    /// Returns the configured tokens by name.
    pub(super) fn tokens(&self) -> &BTreeMap<String, ConfiguredToken> {
        &self.tokens
    }

    pub(super) fn journal(&self) -> &JournalState {
        &self.shared.journal
    }

    pub(super) fn settings(&self) -> &IssuerSettings {
        &self.settings
    }

    /// Returns the token that holds each configured authority's key.
    pub(super) fn authorities(&self) -> &BTreeMap<String, String> {
        &self.settings.authorities
    }

    pub(super) fn stations(&self) -> &StationPolicy {
        &self.settings.stations
    }

    /// Returns the configured manufacturers.
    pub fn births(&self) -> &BirthPolicy {
        &self.settings.births
    }

    pub(super) fn ocsp_policy(&self) -> &OcspPolicy {
        &self.settings.ocsp
    }

    pub(super) fn unsigned_proofs(&self) -> &Failures<CaCertificateId> {
        &self.shared.unsigned_proofs
    }

    /// Returns all profiles by name.
    pub fn profiles(&self) -> &BTreeMap<String, IssuanceProfile> {
        &self.settings.profiles
    }

    pub(super) fn token(&self, name: &str) -> Result<&ConfiguredToken, Error> {
        self.tokens.get(name).ok_or_else(|| {
            let message = format!("the configuration names no token {name:?}; add it");
            Error::stop(Code::TokenUnknown, message)
        })
    }

    /// Returns the token that a caller named.
    pub(super) fn known_token(&self, name: &str) -> Result<&ConfiguredToken, Error> {
        self.tokens.get(name).ok_or_else(|| {
            let known: Vec<_> = self.tokens.keys().map(String::as_str).collect();
            let known = known.join(", ");
            let message = format!("there is no token {name:?}; configured are {known}");
            Error::missing(Code::TokenUnknown, message)
        })
    }

    pub(super) fn token_of(&self, authority: &str) -> Result<&str, Error> {
        let token = self.settings.authorities.get(authority);
        token.map(String::as_str).ok_or_else(|| {
            let message = format!(
                "the configuration has no [[authority]] named {authority:?}; add it with the token \
                 of its key, and reload"
            );
            Error::invalid(Code::AuthorityUnknown, message)
        })
    }

    pub(super) fn wake(&self) {
        (self.callbacks.desired_changed)();
    }
}

fn load(store: &Store, published: &Published) -> Result<Hierarchy, Error> {
    Hierarchy::load(store.generations()?, published)?
        .with_cross_certificates(store.cross_certificates()?, store.generations_in_use()?)
}
