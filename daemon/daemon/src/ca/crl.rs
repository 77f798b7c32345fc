//! Revocation lists: each generation signs complete ones on schedule, and at once when something is
//! revoked or abandoned; with delta lists, a delta list then. A generation with partitions signs
//! the list of each partition.
//!
//! The promise is that of the issuance cycle: the bytes are recorded under a number of their own
//! before the token sees them, and the signed list is compared and verified before it is published.
//! After a failure the previous list stays published, and is served from memory without the token.
//! A list that was recorded and not signed is dropped, and its number with it.

mod lists;
mod status;

pub(super) use lists::RevocationLists;
pub use status::{CrlStatus, CrlSummary};

use super::failures::SHORT_PAUSE_SECONDS;
use super::hierarchy::Generation;
use super::issuer::issue::sign_and_verify;
use super::issuer::pace::Source;
use super::signing_request::Signer;
use super::{Advice, Code, Error, Issuer, crash_point};
use crate::ids::GenerationId;
use crate::store::{AuditEntry, CrlDraft, CrlPart, CrlRow, NewCrl, RecordedCrl};
use crate::unix_seconds::UnixSeconds;
use crate::x509::crl::{self, IssuingPoint, RevocationList, Scope};
use crate::x509::lint;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

/// When revocation lists are signed again.
#[derive(Clone, Debug)]
pub struct CrlSchedule {
    /// From a list until the one that must follow it, in seconds.
    pub validity_seconds: i64,
    /// From a list until the next one if nothing is revoked in between, in seconds.
    pub interval_seconds: i64,
    /// The authorities that sign changes as delta lists.
    pub with_deltas: BTreeSet<String>,
    /// The validity of a delta list, in seconds.
    pub delta_validity_seconds: i64,
    /// From a delta list until the next one if nothing is revoked in between, in seconds.
    pub delta_interval_seconds: i64,
}

impl Default for CrlSchedule {
    /// A week, and a new list each day; no delta lists.
    fn default() -> Self {
        Self {
            validity_seconds: 7 * 86_400,
            interval_seconds: 86_400,
            with_deltas: BTreeSet::new(),
            delta_validity_seconds: 86_400,
            delta_interval_seconds: 3_600,
        }
    }
}

/// Signs the revocation lists of all generations, and holds the current ones for publication.
pub struct CrlPublisher {
    issuer: Arc<Issuer>,
    schedule: CrlSchedule,
    lists: Arc<RevocationLists>,
}

/// How often each part of a list had to change.
type Counts = BTreeMap<(GenerationId, u16), i64>;

/// A list whose time has come.
struct Due {
    part: CrlPart,
    /// Of a delta list: the complete list that it changes.
    base: Option<Arc<CrlRow>>,
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
    pub fn is_withheld(&self, generation: &Generation) -> bool {
        let mut newest = generation
            .crl_parts()
            .filter_map(|it| self.lists.newest(it));
        newest.any(|it| it.withheld)
    }

    /// The current complete revocation list of a part.
    pub fn current(&self, of: impl Into<CrlPart>) -> Option<Arc<CrlRow>> {
        let newest = self.lists.newest(of.into());
        newest.filter(|it| !it.withheld)
    }

    /// Whether an authority has delta lists. Without an address verifiers would not find them.
    pub fn has_deltas(&self, authority: &str) -> bool {
        self.schedule.with_deltas.contains(authority) && self.issuer.public_http().is_some()
    }

    /// The current delta list of a part. Without delta lists in the configuration the last one is
    /// there as long as the complete list names it.
    pub fn delta(&self, of: CrlPart) -> Option<Arc<CrlRow>> {
        self.lists.delta(of)
    }

    /// Returns when the list after this one is due by the schedule: until then caches may keep it,
    /// and see no list that is signed earlier because something was revoked.
    pub fn kept_until(&self, list: &CrlRow) -> UnixSeconds {
        self.next_of(list)
    }

    /// Signs every revocation list whose time has come. Returns when the next one comes, in Unix
    /// seconds.
    pub fn update(&self) -> Result<Option<UnixSeconds>, Error> {
        let updating = self.lists.updating.lock();
        let _alone = updating.unwrap_or_else(PoisonError::into_inner);
        let counts = self.revocation_counts()?;
        let hierarchy = self.issuer.hierarchy();
        let now = self.issuer.now();
        let signing = hierarchy.iter().filter(|it| it.is_in_force(now));
        Ok(signing
            .map(|generation| self.update_generation(generation, &counts))
            .min())
    }

    /// Returns when to check the lists of this generation again, in Unix seconds.
    fn update_generation(&self, generation: &Generation, counts: &Counts) -> UnixSeconds {
        let now = self.issuer.now();
        if let Some(retry_at) = self.lists.failures.pause(generation.id, now) {
            return retry_at;
        }
        let mut next = UnixSeconds::MAX;
        for part in generation.crl_parts() {
            // A delta list comes after the complete one that it changes.
            for is_delta in [false, true] {
                let Some((due_at, due)) = self.due(generation, part, is_delta, counts) else {
                    continue;
                };
                if due_at > now {
                    next = next.min(due_at);
                    continue;
                }
                match self.sign_now(generation, &due) {
                    Ok(list) => next = next.min(self.next_of(&list)),
                    Err(retry_at) => return retry_at,
                }
            }
        }
        next
    }

    /// Signs and publishes one list; on failure returns when to try again.
    fn sign_now(&self, generation: &Generation, due: &Due) -> Result<CrlRow, UnixSeconds> {
        let now = self.issuer.now();
        let token = self.issuer.signing_token(generation);
        if token.is_ok_and(|it| it.client.out_for().is_some()) {
            return Err(now + SHORT_PAUSE_SECONDS);
        }
        let signer = Signer::from(generation);
        if let Err(error) = pollster::block_on(self.issuer.ready_token(&signer)) {
            // The token is there, and nothing was recorded.
            let counted = self.lists.failures.waits(generation.id, &error, now);
            if counted.is_new {
                let authority = &generation.authority;
                let number = generation.number.get();
                tracing::warn!(authority, generation = number, code = error.code.name(), %error,
                    "revocation list not signed, the key has not signed a test");
            }
            return Err(counted.retry_at);
        }
        let source = Source::RevocationList(generation.id, due.part.part);
        if let Err(Error {
            advice: Advice::Later { seconds },
            ..
        }) = self.issuer.may_have_signed(source)
        {
            return Err(now + i64::from(seconds));
        }
        match self.sign(generation, due) {
            Ok(list) => {
                self.lists.publish(list.clone());
                self.lists.failures.ended(generation.id);
                Ok(list)
            }
            Err(error) => {
                let counted = self.lists.failures.failed(generation.id, &error, now);
                if counted.is_new {
                    let authority = &generation.authority;
                    let number = generation.number.get();
                    tracing::warn!(authority, generation = number, code = error.code.name(), %error,
                        "a revocation list is not signed; the previous one stays");
                }
                Err(counted.retry_at)
            }
        }
    }

    /// Signs and publishes the complete list of a generation without partitions now, whether or not
    /// its time has come.
    pub(super) fn sign_complete(&self, generation: &Generation) -> Result<CrlRow, Error> {
        let updating = self.lists.updating.lock();
        let _alone = updating.unwrap_or_else(PoisonError::into_inner);
        pollster::block_on(self.issuer.ready_token(&Signer::from(generation)))?;
        self.issuer
            .may_have_signed(Source::RevocationList(generation.id, 1))?;
        let part = CrlPart {
            generation: generation.id,
            count: 1,
            part: 1,
        };
        let list = self.sign(generation, &Due { part, base: None })?;
        self.lists.publish(list.clone());
        self.lists.failures.ended(generation.id);
        Ok(list)
    }

    /// Returns the list of this kind, and when its time comes; `None` if there is no such list.
    fn due(
        &self,
        generation: &Generation,
        part: CrlPart,
        is_delta: bool,
        counts: &Counts,
    ) -> Option<(UnixSeconds, Due)> {
        let has_deltas = self.has_deltas(&generation.authority);
        let complete = self.current(part);
        let up_to_date = self.is_up_to_date(generation, part, counts);
        if is_delta {
            let base = complete.filter(|_| has_deltas)?;
            let due_at = match self.delta(part) {
                Some(list) if up_to_date => self.next_of(&list),
                _ => self.at_once(part, is_delta),
            };
            let base = Some(base);
            return Some((due_at, Due { part, base }));
        }
        let due_at = match complete {
            // Otherwise verifiers would not find the delta list, or look for one that ends.
            Some(list) if list.names_delta != has_deltas => self.at_once(part, is_delta),
            Some(list) if up_to_date || has_deltas => self.next_of(&list),
            _ => self.at_once(part, is_delta),
        };
        Some((due_at, Due { part, base: None }))
    }

    /// Returns when a list is due at the earliest: no two have one thisUpdate, because some clients
    /// know by that date alone which one they have (RFC 9110 8.8.2).
    fn at_once(&self, part: CrlPart, is_delta: bool) -> UnixSeconds {
        let now = self.issuer.now();
        match self.lists.last(part, is_delta) {
            Some(last) if last.this_update == now => now + 1,
            _ => UnixSeconds::MIN,
        }
    }

    fn next_of(&self, list: &CrlRow) -> UnixSeconds {
        let interval = match list.base {
            Some(_) => self.schedule.delta_interval_seconds,
            None => self.schedule.interval_seconds,
        };
        list.this_update + interval
    }

    fn sign(&self, generation: &Generation, due: &Due) -> Result<CrlRow, Error> {
        let now = self.issuer.signing_time()?;
        let mut draft = self.issuer.store().draft_crl(due.part, now)?;
        if let Some(base) = &due.base {
            let last = self.lists.delta(due.part);
            draft = draft.since(base, last.as_deref())?;
        }
        let recorded = self.record(generation, due.part, &draft, now)?;
        crash_point("crl-recorded");
        let token = self.issuer.signing_token(generation)?;
        let public_key = &generation.public_key;
        let signed = sign_and_verify(token, &generation.key, public_key, recorded.to_sign());
        let list: RevocationList = pollster::block_on(signed).map_err(|unsigned| unsigned.error)?;
        let entry = self.entry(generation, due.part, "crl.signed", &draft);
        Ok(self
            .issuer
            .store()
            .record_signed_crl(&recorded, list.der().clone(), entry)?)
    }

    /// Built, linted and on record, durable.
    fn record(
        &self,
        generation: &Generation,
        part: CrlPart,
        draft: &CrlDraft,
        this_update: UnixSeconds,
    ) -> Result<RecordedCrl, Error> {
        let validity = match draft.base {
            Some(_) => self.schedule.delta_validity_seconds,
            None => self.schedule.validity_seconds,
        };
        let next_update = this_update + validity;
        let number = draft.number;
        let entries = &draft.entries;
        let released = &draft.released;
        let scope = &self.scope(generation, part, draft);
        let request = crl::CrlContent {
            number,
            this_update,
            next_update,
            entries,
            released,
            scope,
        };
        let built = crl::build(&generation.issuer, &request)
            .map_err(|refusal| Error::stop(refusal.code(), refusal.to_string()))?;
        let expected = lint::crl::Expectation {
            issuer: &generation.certificate,
            number,
            this_update,
            next_update,
            entries,
            released,
            scope,
        };
        let linted = lint::crl::lint(built, &expected)
            .map_err(|findings| Error::stop(Code::LintFailed, findings.to_string()))?;
        let new = NewCrl {
            generation: generation.id,
            part: part.part,
            base: draft.base,
            number: draft.number,
            tbs: linted.bytes().clone(),
            this_update,
            next_update,
            revocations: draft.revocations,
            entries: entries.len() + released.len(),
        };
        let entry = self.entry(generation, part, "crl.recorded", draft);
        Ok(self.issuer.store().record_crl(new, entry)?)
    }

    /// The extensions that say what a list covers. A delta list covers what its base covers, so
    /// both have the same issuingDistributionPoint (RFC 5280 5.2.4).
    fn scope(&self, generation: &Generation, part: CrlPart, draft: &CrlDraft) -> Scope {
        let partitions = generation.distribution.crl_partitions.as_ref();
        let point = partitions.map(|it| IssuingPoint {
            url: it.url(part.part),
            // Path length 0 leaves no authority below (RFC 5280 4.2.1.9).
            only_user_certificates: generation.certificate.path_length() == Some(0),
        });
        let names_delta = draft.base.is_none() && self.has_deltas(&generation.authority);
        let public_http = self.issuer.public_http().filter(|_| names_delta);
        Scope {
            point,
            base: draft.base,
            delta_url: public_http
                .map(|base| format!("{base}/crl/{}", delta_file(generation, part))),
        }
    }

    fn entry(
        &self,
        generation: &Generation,
        part: CrlPart,
        action: &'static str,
        draft: &CrlDraft,
    ) -> AuditEntry {
        let entries = draft.entries.len() + draft.released.len();
        let mut detail = json!({ "number": draft.number, "entries": entries });
        if let Some(partition) = part.partition() {
            detail["partition"] = json!(partition);
        }
        if let Some(base) = draft.base {
            detail["base"] = json!(base);
        }
        AuditEntry {
            at: self.issuer.now(),
            actor: "hallmarkd".into(),
            action,
            subject: generation.name(),
            detail,
        }
    }

    /// Returns true if the current list of a part, or its delta list, has every change.
    fn is_up_to_date(&self, generation: &Generation, part: CrlPart, counts: &Counts) -> bool {
        let key = (part.generation, part.part);
        let counted = counts.get(&key).copied().unwrap_or(0);
        let delta = self.delta(part);
        let delta = delta.filter(|_| self.has_deltas(&generation.authority));
        let mut lists = [self.current(part), delta].into_iter().flatten();
        lists.any(|it| it.revocations >= counted)
    }

    fn revocation_counts(&self) -> Result<Counts, Error> {
        let counts = self.issuer.store().revocation_counts()?;
        Ok(counts.into_iter().collect())
    }
}

/// The name of the file with the delta list of a part.
fn delta_file(generation: &Generation, part: CrlPart) -> String {
    let name = generation.name();
    match part.partition() {
        None => format!("{name}.delta.crl"),
        Some(partition) => format!("{name}.{partition}.delta.crl"),
    }
}

#[cfg(test)]
pub(super) mod tests;
