//! Says how the revocation lists are, for people, metrics and alarms.

use super::CrlPublisher;
use crate::ca::Error;
use crate::ca::alarm::{Alarm, AlarmCode};
use crate::ca::hierarchy::Generation;
use crate::crl_number::CrlNumber;
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::{CrlPart, CrlRow};
use crate::unix_seconds::UnixSeconds;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A revocation list of a generation, for people.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CrlStatus {
    pub authority: String,
    /// Which of its generations.
    pub generation: GenerationNumber,
    /// Which partition it is of, such as `3of8`; none if the generation has one list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Whether it is a delta list.
    pub delta: bool,
    pub number: CrlNumber,
    pub this_update: String,
    /// The same in Unix seconds.
    #[serde(skip)]
    pub this_update_seconds: UnixSeconds,
    /// RFC 3339: from then on verifiers refuse it.
    pub next_update: String,
    /// The same in Unix seconds.
    #[serde(skip)]
    pub next_update_seconds: UnixSeconds,
    /// How many entries it has.
    pub entries: i64,
    /// True if every revocation and abandoned intent is on it, or on its delta list.
    pub up_to_date: bool,
    /// Whether it was restored from a backup, and is not served until the next one is signed.
    pub withheld: bool,
}

/// The lists of a generation, taken together.
#[derive(Clone, Copy, Debug)]
pub struct CrlSummary {
    /// The newest number: each list of a generation has its own.
    pub number: CrlNumber,
    /// When the first of them ends.
    pub next_update: UnixSeconds,
    /// How many entries the complete ones have.
    pub entries: i64,
}

impl CrlPublisher {
    /// Returns the lists of a generation that are served, taken together; `None` as long as one of
    /// its parts has none.
    pub fn summary(&self, generation: &Generation) -> Option<CrlSummary> {
        let complete = generation.crl_parts().map(|it| self.current(it));
        let complete = complete.collect::<Option<Vec<_>>>()?;
        let deltas = generation.crl_parts().filter_map(|it| self.delta(it));
        let entries = complete.iter().map(|it| it.entries).sum();
        let all: Vec<Arc<CrlRow>> = complete.into_iter().chain(deltas).collect();
        Some(CrlSummary {
            number: all.iter().map(|it| it.number).max()?,
            next_update: all.iter().map(|it| it.next_update).min()?,
            entries,
        })
    }

    /// The current lists, issuers first.
    pub fn statuses(&self) -> Result<Vec<CrlStatus>, Error> {
        let counts = self.revocation_counts()?;
        let hierarchy = self.issuer.hierarchy();
        let mut statuses = Vec::new();
        for generation in hierarchy.iter() {
            for part in generation.crl_parts() {
                let lists = [self.lists.newest(part), self.delta(part)];
                let up_to_date = self.is_up_to_date(generation, part, &counts);
                let lists = lists.into_iter().flatten();
                statuses.extend(lists.map(|it| status(generation, part, &it, up_to_date)));
            }
        }
        Ok(statuses)
    }

    /// Whether this generation goes on signing lists.
    pub fn signs_lists(&self, authority: &str, number: GenerationNumber) -> bool {
        let now = self.issuer.now();
        let hierarchy = self.issuer.hierarchy();
        let mut own = hierarchy.iter().filter(|it| it.authority == authority);
        own.any(|it| it.number == number && it.is_in_force(now))
    }

    /// Returns the alarms for CRLs that are withheld, cannot be signed or have ended: for each
    /// generation, however many lists it has.
    pub(in crate::ca) fn alarms(&self) -> Vec<Alarm> {
        let now = self.issuer.now();
        let hierarchy = self.issuer.hierarchy();
        let mut alarms = Vec::new();
        for generation in hierarchy.iter().filter(|it| it.is_in_force(now)) {
            let name = format!("{} generation {}", generation.authority, generation.number);
            let mut raise = |code, mut parameters: Value, text: String| {
                parameters["authority"] = json!(generation.authority);
                parameters["generation"] = json!(generation.number);
                alarms.push(Alarm::new(code, parameters, text));
            };
            if self.is_withheld(generation) {
                let text = format!(
                    "the revocation list of {name} is not served since the restore: it may lack \
                     what was revoked after the backup; token {} has to sign a newer one",
                    generation.token
                );
                let parameters = json!({ "token": generation.token });
                raise(AlarmCode::CrlWithheld, parameters, text);
            }
            if let Some(reason) = self.lists.failures.reason(generation.id) {
                let text = format!("the revocation list of {name} cannot be signed: {reason}");
                let parameters = json!({ "reason": reason });
                raise(AlarmCode::CrlNotSigned, parameters, text);
            }
            if let Some(ended_at) = self.first_end(generation).filter(|it| *it < now) {
                let ended_at = ended_at.to_string();
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

    /// Returns when the first served list of a generation ends.
    fn first_end(&self, generation: &Generation) -> Option<UnixSeconds> {
        let lists = generation
            .crl_parts()
            .flat_map(|it| [self.current(it), self.delta(it)]);
        lists.flatten().map(|it| it.next_update).min()
    }

    /// Returns true if every revocation and abandoned intent is on the current lists of this
    /// generation, or if the generation signs no lists any more.
    pub fn is_listed(&self, generation: GenerationId) -> Result<bool, Error> {
        let hierarchy = self.issuer.hierarchy();
        let now = self.issuer.now();
        let signs = hierarchy
            .generation(generation)
            .filter(|it| it.is_in_force(now));
        let Some(generation) = signs else {
            return Ok(true);
        };
        let counts = self.revocation_counts()?;
        Ok(generation
            .crl_parts()
            .all(|it| self.is_up_to_date(generation, it, &counts)))
    }
}

fn status(generation: &Generation, part: CrlPart, list: &CrlRow, up_to_date: bool) -> CrlStatus {
    CrlStatus {
        authority: generation.authority.clone(),
        generation: generation.number,
        partition: part.partition(),
        delta: list.base.is_some(),
        number: list.number,
        this_update: list.this_update.to_string(),
        this_update_seconds: list.this_update,
        next_update: list.next_update.to_string(),
        next_update_seconds: list.next_update,
        entries: list.entries,
        up_to_date,
        withheld: list.withheld,
    }
}
