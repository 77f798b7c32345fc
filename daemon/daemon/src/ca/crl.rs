//! Revocation lists: each generation signs a full one, at once when something is revoked or
//! abandoned, and on schedule.
//!
//! The promise is that of the issuance cycle: the bytes are recorded under a number of their own
//! before the token sees them, and the signed list is compared and verified before it is published.
//! After a failure the previous list stays published, and is served from memory without the token.
//! A list that was recorded and not signed is dropped, and its number with it.

use super::alarm::{Alarm, AlarmCode};
use super::hierarchy::Generation;
use super::issuer::issue::sign_and_verify;
use super::issuer::pace::Source;
use super::signing_request::Signer;
use super::{Advice, Code, Error, Issuer, crash_point};
use crate::crl_number::CrlNumber;
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::{AuditEntry, CrlDraft, CrlRow, NewCrl, RecordedCrl};
use crate::unix_seconds::UnixSeconds;
use crate::x509::crl::{self, RevocationList};
use crate::x509::lint;
use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How soon a list is tried again whose token is not there, in seconds.
const TOKEN_PAUSE_SECONDS: i64 = 5;
/// The longest pause after failures, in seconds. Each attempt uses up a number and is audited.
const FAILURE_PAUSE_SECONDS_MAX: i64 = 300;

/// When revocation lists are signed again.
#[derive(Clone, Copy, Debug)]
pub struct CrlSchedule {
    /// From a list until the one that must follow it, in seconds.
    pub validity_seconds: i64,
    /// From a list until the next one if nothing is revoked in between, in seconds.
    pub interval_seconds: i64,
}

impl Default for CrlSchedule {
    /// A week, and a new list each day.
    fn default() -> Self {
        Self {
            validity_seconds: 7 * 86_400,
            interval_seconds: 86_400,
        }
    }
}

/// The current lists, and what keeps the next ones from being signed.
pub(super) struct RevocationLists {
    current: ArcSwap<BTreeMap<GenerationId, Arc<CrlRow>>>,
    failures: Mutex<BTreeMap<GenerationId, Failure>>,
    /// One at a time makes lists.
    updating: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Failure {
    message: String,
    attempts: u32,
    retry_at: UnixSeconds,
}

/// The revocation list of a generation, for people.
#[derive(Clone, Debug, Serialize)]
pub struct CrlStatus {
    pub authority: String,
    /// Which of its generations.
    pub generation: GenerationNumber,
    pub number: CrlNumber,
    pub this_update: String,
    /// RFC 3339: from then on verifiers refuse it.
    pub next_update: String,
    /// The same in Unix seconds.
    #[serde(skip)]
    pub next_update_seconds: UnixSeconds,
    /// How many entries it has.
    pub entries: i64,
    /// True if every revocation and abandoned intent is on it.
    pub up_to_date: bool,
    /// Whether it was restored from a backup, and is not served until the next one is signed.
    pub withheld: bool,
}

impl RevocationLists {
    pub(super) fn new(current: Vec<CrlRow>) -> Self {
        let current = current.into_iter().map(|it| (it.generation, Arc::new(it)));
        Self {
            current: ArcSwap::from_pointee(current.collect()),
            failures: Mutex::default(),
            updating: Mutex::default(),
        }
    }

    /// Also a restored one, which is not served.
    fn newest(&self, generation: GenerationId) -> Option<Arc<CrlRow>> {
        self.current.load().get(&generation).cloned()
    }

    fn publish(&self, row: CrlRow) {
        let mut lists = BTreeMap::clone(&self.current.load());
        lists.insert(row.generation, Arc::new(row));
        self.current.store(Arc::new(lists));
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<GenerationId, Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, generation: GenerationId, error: &Error, now: UnixSeconds) -> UnixSeconds {
        let mut failures = self.failures();
        let attempts = failures.get(&generation).map_or(0, |it| it.attempts);
        let pause = TOKEN_PAUSE_SECONDS.saturating_mul(1 << attempts.min(8));
        let retry_at = now + pause.min(FAILURE_PAUSE_SECONDS_MAX);
        let failure = Failure {
            message: error.message.clone(),
            attempts: attempts + 1,
            retry_at,
        };
        failures.insert(generation, failure);
        retry_at
    }

    /// The token is there and the key does not sign: nothing was recorded, so the pause is short.
    fn waits_for_its_key(
        &self,
        generation: GenerationId,
        error: &Error,
        now: UnixSeconds,
    ) -> UnixSeconds {
        let retry_at = now + TOKEN_PAUSE_SECONDS;
        let mut failures = self.failures();
        let failure = failures.entry(generation).or_insert_with(|| Failure {
            message: String::new(),
            attempts: 0,
            retry_at,
        });
        failure.message.clone_from(&error.message);
        failure.retry_at = retry_at;
        retry_at
    }
}

/// Signs the revocation lists of all generations, and holds the current ones for publication.
pub struct CrlPublisher {
    issuer: Arc<Issuer>,
    schedule: CrlSchedule,
    lists: Arc<RevocationLists>,
}

impl CrlPublisher {
    pub(super) fn new(
        issuer: Arc<Issuer>,
        schedule: CrlSchedule,
        lists: Arc<RevocationLists>,
    ) -> Self {
        Self {
            issuer,
            schedule,
            lists,
        }
    }

    /// Whether a restore brought back an older list of this generation: that one is never served,
    /// and there is no current list until the next one is signed.
    pub fn is_withheld(&self, generation: GenerationId) -> bool {
        let newest = self.lists.newest(generation);
        newest.is_some_and(|it| it.withheld)
    }

    /// The current revocation list of a generation.
    pub fn current(&self, generation: GenerationId) -> Option<Arc<CrlRow>> {
        let newest = self.lists.newest(generation);
        newest.filter(|it| !it.withheld)
    }

    /// Returns true if every revocation and abandoned intent is on the current list of this
    /// generation, or if the generation signs no lists any more.
    pub fn is_listed(&self, generation: GenerationId) -> Result<bool, Error> {
        let hierarchy = self.issuer.hierarchy();
        let now = self.issuer.now();
        let signs = hierarchy
            .generation(generation)
            .is_some_and(|it| signs_lists(it, now));
        Ok(!signs || self.is_up_to_date(generation, &self.revocation_counts()?))
    }

    /// The current lists, issuers first.
    pub fn statuses(&self) -> Result<Vec<CrlStatus>, Error> {
        let counts = self.revocation_counts()?;
        let hierarchy = self.issuer.hierarchy();
        let listed = hierarchy.iter().filter_map(|generation| {
            let list = self.lists.newest(generation.id)?;
            Some(CrlStatus {
                authority: generation.authority.clone(),
                generation: generation.number,
                number: list.number,
                this_update: list.this_update.to_string(),
                next_update: list.next_update.to_string(),
                next_update_seconds: list.next_update,
                entries: list.entries,
                up_to_date: self.is_up_to_date(generation.id, &counts),
                withheld: list.withheld,
            })
        });
        Ok(listed.collect())
    }

    /// Signs every revocation list whose time has come. Returns when the next one comes, in Unix
    /// seconds.
    pub fn update(&self) -> Result<Option<UnixSeconds>, Error> {
        let updating = self.lists.updating.lock();
        let _alone = updating.unwrap_or_else(PoisonError::into_inner);
        let counts = self.revocation_counts()?;
        let hierarchy = self.issuer.hierarchy();
        let now = self.issuer.now();
        let signing = hierarchy.iter().filter(|it| signs_lists(it, now));
        Ok(signing
            .map(|generation| self.update_one(generation, &counts))
            .min())
    }

    /// Returns the alarms for CRLs that are withheld, cannot be signed or have ended.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let now = self.issuer.now();
        let hierarchy = self.issuer.hierarchy();
        let failures = self.lists.failures();
        let mut alarms = Vec::new();
        for generation in hierarchy.iter().filter(|it| signs_lists(it, now)) {
            let name = format!("{} generation {}", generation.authority, generation.number);
            let mut raise = |code, mut parameters: Value, text: String| {
                parameters["authority"] = json!(generation.authority);
                parameters["generation"] = json!(generation.number);
                alarms.push(Alarm::new(code, parameters, text));
            };
            if self.is_withheld(generation.id) {
                let text = format!(
                    "the revocation list of {name} is not served since the restore: it may lack \
                     what was revoked after the backup; token {} has to sign a newer one",
                    generation.token
                );
                let parameters = json!({ "token": generation.token });
                raise(AlarmCode::CrlWithheld, parameters, text);
            }
            if let Some(failure) = failures.get(&generation.id) {
                let text = format!(
                    "the revocation list of {name} cannot be signed: {}",
                    failure.message
                );
                let parameters = json!({ "reason": failure.message });
                raise(AlarmCode::CrlNotSigned, parameters, text);
            }
            if let Some(list) = self
                .current(generation.id)
                .filter(|it| it.next_update < now)
            {
                let ended_at = list.next_update.to_string();
                let text = format!(
                    "the revocation list of {name} has ended at {ended_at}: verifiers refuse all \
                     that it signed until token {} signs the next one",
                    generation.token
                );
                let parameters = json!({ "ended_at": ended_at, "token": generation.token });
                raise(AlarmCode::CrlEnded, parameters, text);
            }
        }
        alarms
    }

    /// Returns when to check this list again, in Unix seconds.
    fn update_one(
        &self,
        generation: &Generation,
        counts: &BTreeMap<GenerationId, i64>,
    ) -> UnixSeconds {
        let now = self.issuer.now();
        let due = self.due(generation, counts);
        if due > now {
            return due;
        }
        let token = self.issuer.signing_token(generation);
        if token.is_ok_and(|it| it.client.out_for().is_some()) {
            return now + TOKEN_PAUSE_SECONDS;
        }
        let signer = Signer::from(generation);
        if let Err(error) = pollster::block_on(self.issuer.ready_token(&signer)) {
            let authority = &generation.authority;
            let number = generation.number.get();
            tracing::warn!(authority, generation = number, code = error.code.name(), %error,
                "revocation list not signed, the key has not signed a test");
            return self.lists.waits_for_its_key(generation.id, &error, now);
        }
        let source = Source::RevocationList(generation.id);
        if let Err(Error {
            advice: Advice::Later { seconds },
            ..
        }) = self.issuer.may_have_signed(source)
        {
            return now + i64::from(seconds);
        }
        match self.sign(generation) {
            Ok(list) => {
                let next = list.this_update + self.schedule.interval_seconds;
                self.lists.publish(list);
                self.lists.failures().remove(&generation.id);
                next
            }
            Err(error) => {
                let authority = &generation.authority;
                let number = generation.number.get();
                tracing::warn!(authority, generation = number, code = error.code.name(), %error,
                    "a revocation list is not signed; the previous one stays");
                self.lists.failed(generation.id, &error, now)
            }
        }
    }

    fn due(&self, generation: &Generation, counts: &BTreeMap<GenerationId, i64>) -> UnixSeconds {
        let by_schedule = match self.current(generation.id) {
            Some(list) if self.is_up_to_date(generation.id, counts) => {
                list.this_update + self.schedule.interval_seconds
            }
            _ => UnixSeconds::MIN,
        };
        let failures = self.lists.failures();
        let retry_at = failures.get(&generation.id).map(|it| it.retry_at);
        by_schedule.max(retry_at.unwrap_or(UnixSeconds::MIN))
    }

    fn sign(&self, generation: &Generation) -> Result<CrlRow, Error> {
        let now = self.issuer.signing_time()?;
        let draft = self.issuer.store().draft_crl(generation.id, now)?;
        let recorded = self.record(generation, &draft, now)?;
        crash_point("crl-recorded");
        let token = self.issuer.signing_token(generation)?;
        let public_key = &generation.public_key;
        let signed = sign_and_verify(token, &generation.key, public_key, recorded.to_sign());
        let list: RevocationList = pollster::block_on(signed).map_err(|unsigned| unsigned.error)?;
        let entry = self.entry(generation, "crl.signed", &draft);
        Ok(self
            .issuer
            .store()
            .record_signed_crl(&recorded, list.der().clone(), entry)?)
    }

    /// Built, linted and on record, durable.
    fn record(
        &self,
        generation: &Generation,
        draft: &CrlDraft,
        this_update: UnixSeconds,
    ) -> Result<RecordedCrl, Error> {
        let next_update = this_update + self.schedule.validity_seconds;
        let number = draft.number;
        let entries = &draft.entries;
        let request = crl::CrlContent {
            number,
            this_update,
            next_update,
            entries,
        };
        let built = crl::build(&generation.issuer, &request)
            .map_err(|refusal| Error::stop(refusal.code(), refusal.to_string()))?;
        let expected = lint::crl::Expectation {
            issuer: &generation.certificate,
            number,
            this_update,
            next_update,
            entries,
        };
        let linted = lint::crl::lint(built, &expected)
            .map_err(|findings| Error::stop(Code::LintFailed, findings.to_string()))?;
        let new = NewCrl {
            generation: generation.id,
            number: draft.number,
            tbs: linted.bytes().clone(),
            this_update,
            next_update,
            revocations: draft.revocations,
            entries: entries.len(),
        };
        let entry = self.entry(generation, "crl.recorded", draft);
        Ok(self.issuer.store().record_crl(new, entry)?)
    }

    fn entry(&self, generation: &Generation, action: &'static str, draft: &CrlDraft) -> AuditEntry {
        AuditEntry {
            at: self.issuer.now(),
            actor: "hallmarkd".into(),
            action,
            subject: generation.name(),
            detail: json!({ "number": draft.number, "entries": draft.entries.len() }),
        }
    }

    fn is_up_to_date(
        &self,
        generation: GenerationId,
        counts: &BTreeMap<GenerationId, i64>,
    ) -> bool {
        let counted = counts.get(&generation).copied().unwrap_or(0);
        self.current(generation)
            .is_some_and(|list| list.revocations >= counted)
    }

    fn revocation_counts(&self) -> Result<BTreeMap<GenerationId, i64>, Error> {
        Ok(self
            .issuer
            .store()
            .revocation_counts()?
            .into_iter()
            .collect())
    }
}

/// A generation publishes lists until its own certificate ends, whether it still issues or not; one
/// that is revoked signs nothing.
fn signs_lists(generation: &Generation, now: UnixSeconds) -> bool {
    generation.revoked_at.is_none() && now <= generation.certificate.not_after()
}

#[cfg(test)]
pub(super) mod tests;
