//! The state of everything, for people and programs that look.

use super::alarm::{Alarm, AlarmCode};
use super::ca_certificates::CaCertificateStatus;
use super::coded::Coded;
use super::crl::CrlStatus;
use super::exclusion::block::ActiveBlock;
use super::exclusion::unfinished::OpenReceipt;
use super::expiry::ExpiryStatus;
use super::issued_lately::IssuedLately;
use super::issuer_list::IssuerCrlStatus;
use super::ocsp::OcspStatus;
use super::overview::{Answer, Facts};
use super::remedy::ExplainedAlarm;
use super::{CertificateAuthority, ConfiguredToken, Error};
use crate::error_code::codes;
use crate::token::health::{KeyReport, RecoveryCounters, Refusals, TokenState};
use crate::unix_seconds::UnixSeconds;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many of the blocks that stand are shown.
pub const BLOCKS_SHOWN_MAX: u32 = 20;

/// The answer for `hallmark status`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Status {
    /// The version of this daemon.
    pub version: &'static str,
    pub now: String,
    /// Whether certificates can be issued: the store writes, authorities exist, their keys have
    /// shown that they sign, the clock is believed, and HTTPS can be used.
    pub ready: bool,
    /// The missing conditions, if it is not ready.
    pub not_ready: Vec<Coded<NotReady>>,
    /// Four questions and their answers, for a look of five seconds.
    pub overview: Vec<Answer>,
    /// Whether the store can write.
    pub store: StoreStatus,
    pub tokens: BTreeMap<String, TokenStatus>,
    /// How many authorities serve.
    pub authorities: usize,
    /// Certificates issued so far.
    pub certificates: i64,
    /// Serial numbers abandoned so far: their tokens may have signed.
    pub abandoned: i64,
    pub under_way: i64,
    /// The queue of changes to provisioning services.
    pub push: PushStatus,
    /// The CA certificates at provisioning services, as last observed there.
    pub ca_certificates: Vec<CaCertificateStatus>,
    /// How many blocks stand.
    pub blocked: i64,
    /// The newest of them, at most [`BLOCKS_SHOWN_MAX`].
    pub blocks: Vec<ActiveBlock>,
    /// The exclusions that an operator has to finish, the newest ones.
    pub open_receipts: Vec<OpenReceipt>,
    /// The current revocation lists, issuers first.
    pub crls: Vec<CrlStatus>,
    /// The revocation lists of issuers elsewhere that were brought here.
    pub issuer_crls: Vec<IssuerCrlStatus>,
    /// The OCSP responders, issuers first; none without `[ocsp]`.
    pub ocsp: Vec<OcspStatus>,
    /// The certificates that end soon, by role and profile.
    pub expiry: Arc<Vec<ExpiryStatus>>,
    /// The sentences of `alarm_details`.
    pub alarms: Vec<String>,
    /// The alarms for the operator, with their remedies; empty as a rule.
    pub alarm_details: Vec<ExplainedAlarm>,
    /// How many certificates were issued lately.
    pub issued: IssuedLately,
}

codes! {
    /// The missing conditions for issuing certificates.
    NotReady {
        AuditDoubted => "audit_doubted",
        AuthorityCannotSign => "authority_cannot_sign",
        ClockNotSane => "clock_not_sane",
        HttpsNotServing => "https_not_serving",
        NoAuthority => "no_authority",
        StoreNotWritable => "store_not_writable",
    }
}

/// The store's state.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StoreStatus {
    /// Whether its last writes succeeded.
    pub writable: bool,
    /// The cause if not, and how to fix it.
    pub reason: Option<String>,
    pub reason_code: Option<AlarmCode>,
    /// RFC 3339 of the first write that failed.
    pub since: Option<String>,
    /// How many groups of writes have failed since the process began.
    pub failures: u64,
}

/// A token's state.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenStatus {
    /// `ready`, or what is wrong.
    pub state: &'static str,
    /// Why, if it is not ready; if it is, what an operator should know all the same.
    pub reason: Option<String>,
    /// The meaning of the reason.
    pub reason_code: Option<AlarmCode>,
    /// How often its worker was started again.
    pub restarts: u64,
    /// How often its worker opened sessions, logged in and initialized the library.
    recoveries: RecoveryCounters,
    /// The refusals of its worker because of the worker's own limits.
    #[serde(skip)]
    pub refusals: Refusals,
    /// The keys that its worker has used, and what for.
    #[serde(skip)]
    pub keys: Vec<KeyReport>,
}

impl TokenStatus {
    /// How often each recovery level was used.
    pub fn recoveries(&self) -> [(&'static str, u64); 3] {
        [
            ("session", self.recoveries.sessions),
            ("login", self.recoveries.logins),
            ("initialize", self.recoveries.initializations),
        ]
    }
}

/// The queue of changes to provisioning services.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PushStatus {
    pub waiting: i64,
    /// Rejected, waiting for an operator.
    pub parked: i64,
    /// RFC 3339 of the oldest cause.
    pub since: Option<String>,
    /// How long the oldest cause has waited, in seconds.
    pub age_seconds: i64,
}

impl CertificateAuthority {
    /// How everything is now. Asks no token anything: a token that hangs cannot hang this. Counts
    /// all certificates, so it is for people and scrapes, not for every turn.
    pub fn status(&self) -> Result<Status, Error> {
        let (under_way, certificates, abandoned) = self.store.issuance_counts()?;
        let tokens = self.token_statuses();
        let push = self.push_status()?;
        let alarms = self.all_alarms(&tokens, &push);
        let not_ready = self.not_ready();
        let authorities = self.hierarchy().iter().filter(|it| it.serving).count();
        let blocked = self.store.active_block_count()?;
        let crls = self.crls.statuses()?;
        let open_receipts = self.exclusions.open_receipts()?;
        let overview = self.overview(&Facts {
            open_receipts: &open_receipts,
            not_ready: &not_ready,
            alarms: &alarms,
            push: &push,
            crls: &crls,
            certificates,
            blocked,
        })?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION"),
            now: self.now().to_string(),
            ready: not_ready.is_empty(),
            not_ready,
            overview,
            alarms: alarms.iter().map(|it| it.text.clone()).collect(),
            alarm_details: alarms.into_iter().map(ExplainedAlarm::from).collect(),
            issued: self.issued_lately()?,
            store: self.store_status(),
            tokens,
            authorities,
            certificates,
            abandoned,
            under_way,
            push,
            ca_certificates: self.ca_certificates()?,
            blocked,
            blocks: {
                let standing = self.store.blocks(true, None, BLOCKS_SHOWN_MAX)?;
                standing.into_iter().map(ActiveBlock::from).collect()
            },
            open_receipts,
            crls,
            issuer_crls: self.issuer_crl_statuses(),
            ocsp: self.ocsp.statuses(),
            expiry: self.expiry()?,
        })
    }

    /// How everything is now, in one line, for who looks after the process.
    pub fn summary(&self) -> Result<String, Error> {
        let tokens = self.token_statuses();
        let push = self.push_status()?;
        let ready = tokens.values().filter(|it| it.state == "ready").count();
        let mut parts = vec![format!("{ready} of {} tokens ready", tokens.len())];
        if self.hierarchy().is_empty() {
            parts.push("no ceremony yet".into());
        }
        if push.waiting > 0 {
            parts.push(format!("{} changes waiting", push.waiting));
        }
        let alarms = self.all_alarms(&tokens, &push);
        if let Some(first) = alarms.first() {
            parts.push(format!("{} alarms, such as: {}", alarms.len(), first.text));
        }
        Ok(parts.join("; "))
    }

    /// Whether certificates can be issued at this moment.
    pub fn is_ready(&self) -> bool {
        self.not_ready().is_empty()
    }

    /// Returns what is missing for certificates to be issued at this moment.
    pub fn not_ready(&self) -> Vec<Coded<NotReady>> {
        let mut missing = Vec::new();
        if let Some(fault) = self.store.write_fault() {
            let text = format!("the store cannot write: {}", fault.reason);
            let parameters = json!({ "reason": fault.reason });
            missing.push(Coded::new(NotReady::StoreNotWritable, parameters, text));
        }
        if let Some(doubt) = self.issuer.clock_doubt() {
            let parameters = json!({ "reason": doubt });
            missing.push(Coded::new(NotReady::ClockNotSane, parameters, doubt));
        }
        if let Err(error) = self.issuer.journal_permits()
            && missing.is_empty()
        {
            let parameters = json!({ "reason": error.message });
            missing.push(Coded::new(
                NotReady::AuditDoubted,
                parameters,
                error.message,
            ));
        }
        if !self.https_serves() {
            let text = "the HTTPS listener has no valid certificate, or could not renew it";
            missing.push(Coded::new(NotReady::HttpsNotServing, json!({}), text));
        }
        if self.hierarchy().is_empty() {
            let text = "there is no authority yet; run `hallmark ceremony run`";
            missing.push(Coded::new(NotReady::NoAuthority, json!({}), text));
        }
        for (name, token) in self.issuer.authorities() {
            if !self.issuer.can_sign(name, token) {
                let text = format!("nothing can sign for authority {name}");
                let parameters = json!({ "authority": name, "token": token });
                missing.push(Coded::new(NotReady::AuthorityCannotSign, parameters, text));
            }
        }
        missing
    }

    /// Whether something can sign for an authority of the configuration at this moment.
    pub fn can_sign_for(&self, authority: &str) -> bool {
        let token = self.issuer.authorities().get(authority);
        token.is_some_and(|token| self.issuer.can_sign(authority, token))
    }

    /// Returns what an operator must deal with.
    pub fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        Ok(self.all_alarms(&self.token_statuses(), &self.push_status()?))
    }

    fn all_alarms(&self, tokens: &BTreeMap<String, TokenStatus>, push: &PushStatus) -> Vec<Alarm> {
        let mut alarms = self.alarms_of(tokens, push);
        alarms.extend(self.exclusions.exclusion_alarms());
        alarms.extend(self.rollovers.authority_alarms());
        alarms.extend(self.drift_alarms());
        alarms.extend(self.enrollments.possession_alarms());
        alarms.extend(self.ocsp.alarms());
        alarms.extend(self.stranded_alarms());
        alarms.extend(self.expiry_alarms());
        alarms.extend(self.subordinate_alarms());
        alarms
    }

    fn store_status(&self) -> StoreStatus {
        let fault = self.store.write_fault();
        StoreStatus {
            writable: fault.is_none(),
            reason_code: fault.as_ref().map(|_| AlarmCode::StoreNotWritable),
            since: fault.as_ref().map(|it| unix_seconds(it.since).to_string()),
            reason: fault.map(|it| it.reason),
            failures: self.store.write_failures(),
        }
    }

    fn store_alarm(&self) -> Option<Alarm> {
        let fault = self.store.write_fault()?;
        let since = unix_seconds(fault.since).to_string();
        let text = format!(
            "the store cannot write since {since}, and nothing is issued: {}",
            fault.reason
        );
        let parameters = json!({ "since": since, "reason": fault.reason });
        Some(Alarm::new(AlarmCode::StoreNotWritable, parameters, text))
    }

    fn token_statuses(&self) -> BTreeMap<String, TokenStatus> {
        let tokens = self.issuer.tokens().iter();
        tokens
            .map(|(name, token)| (name.clone(), token_status(token)))
            .collect()
    }

    fn push_status(&self) -> Result<PushStatus, Error> {
        let (waiting, parked, since) = self.store.mark_counts()?;
        let age_seconds = since.map_or(0, |since| self.now().seconds_since(since));
        Ok(PushStatus {
            waiting,
            parked,
            since: since.map(|it| it.to_string()),
            age_seconds,
        })
    }

    fn alarms_of(&self, tokens: &BTreeMap<String, TokenStatus>, push: &PushStatus) -> Vec<Alarm> {
        let mut alarms = Vec::from_iter(self.store_alarm());
        alarms.extend(tokens.iter().filter_map(|(name, it)| token_alarm(name, it)));
        alarms.extend(
            tokens
                .iter()
                .filter_map(|(name, it)| refusal_alarm(name, it)),
        );
        alarms.extend(self.push_alarms(push));
        alarms.extend(self.issuer.clock_doubt().map(|doubt| {
            let text = format!("nothing is signed: {doubt}");
            Alarm::new(AlarmCode::ClockNotSane, json!({ "reason": doubt }), text)
        }));
        alarms.extend(self.issuer.journal_alarms());
        alarms.extend(self.issuer.key_alarms());
        alarms.extend(self.listener_alarms());
        alarms.extend(self.issuer.failover_alarms());
        alarms.extend(self.crls.alarms());
        alarms.extend(self.issuer_list_alarms());
        alarms
    }

    fn push_alarms(&self, push: &PushStatus) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        if push.parked > 0 {
            let text = format!(
                "{} changes are parked; `hallmark push list` says why",
                push.parked
            );
            let parameters = json!({ "changes": push.parked });
            alarms.push(Alarm::new(AlarmCode::ChangesParked, parameters, text));
        }
        let is_old = push.age_seconds > self.push_age_alarm_seconds;
        if let Some(since) = push.since.as_ref().filter(|_| is_old) {
            let text =
                format!("changes have been waiting for a provisioning service since {since}");
            let parameters = json!({ "since": since });
            alarms.push(Alarm::new(AlarmCode::ChangesWaiting, parameters, text));
        }
        alarms
    }
}

/// Returns the alarm for a token that is not ready, or that is ready with a remark.
fn token_alarm(name: &str, token: &TokenStatus) -> Option<Alarm> {
    let code = token.reason_code?;
    let reason = token.reason.as_deref().unwrap_or("no reason given");
    let text = match code {
        AlarmCode::TokenRemark => format!("token {name} works, but: {reason}"),
        _ => format!("token {name} is {}: {reason}", token.state),
    };
    let parameters = json!({ "token": name, "reason": reason });
    Some(Alarm::new(code, parameters, text))
}

/// Returns the alarm for a worker that has refused something since it started: the daemon asks for
/// nothing that its worker refuses, unless the configuration lags behind or the daemon is not ours.
fn refusal_alarm(name: &str, token: &TokenStatus) -> Option<Alarm> {
    let Refusals { count, last, .. } = &token.refusals;
    if *count == 0 {
        return None;
    }
    let text = format!("the worker of token {name} has refused {count} requests, the last: {last}");
    let parameters = json!({ "token": name, "count": count, "reason": last });
    Some(Alarm::new(AlarmCode::WorkerRefused, parameters, text))
}

fn unix_seconds(time: SystemTime) -> UnixSeconds {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn token_status(token: &ConfiguredToken) -> TokenStatus {
    let health = token.client.health();
    let reason = Some(health.reason).filter(|reason| !reason.is_empty());
    TokenStatus {
        state: health.state.name(),
        reason_code: match health.state {
            TokenState::Starting => None,
            TokenState::Ready => reason.as_ref().map(|_| AlarmCode::TokenRemark),
            TokenState::Unavailable => Some(AlarmCode::TokenUnavailable),
            TokenState::Parked => Some(AlarmCode::TokenParked),
        },
        reason,
        restarts: health.restarts,
        recoveries: health.recoveries,
        refusals: health.refusals,
        keys: health.keys,
    }
}
