//! Failover: who signs for an authority while the token that holds its key is out.
//!
//! First another token that holds the same key (the relying parties see no difference), then a
//! standby authority below the same issuer, with a key of its own. A token is out when it has not
//! been ready for longer than the policy allows; until then its callers wait, for most weather
//! passes. As soon as it is ready again, it signs again.
//!
//! MUST NOT stand in for an authority that is revoked: a compromise is no weather.

use super::alarm::{Alarm, AlarmCode};
use super::hierarchy::{Generation, Hierarchy};
use super::issue::Signer;
use super::{CertificateAuthority, ConfiguredToken, Error, lock};
use crate::store::AuditEntry;
use crate::token::client::LOOKUP_DEADLINE;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How often a token that may have to stand in is asked for the key it has not shown.
const PROOF_PAUSE_SECONDS: i64 = 5;

/// What the configuration says of failover.
#[derive(Clone, Debug, Default)]
pub struct FailoverPolicy {
    /// How long a token may be out before another one signs.
    pub after: Duration,
    /// Tokens that hold the same key as the authority's own, in their order.
    pub also_on: BTreeMap<String, Vec<String>>,
    /// The authority that stands in for another.
    pub standby: BTreeMap<String, String>,
}

/// Who has stood in, and who can.
#[derive(Default)]
pub(super) struct StandIns {
    /// By authority: who signs in the place of its own token.
    told: Mutex<BTreeMap<String, String>>,
    /// Which tokens were asked for the key of a generation, by its row id: when, in Unix seconds, and
    /// whether they have shown it.
    asked: Mutex<BTreeMap<(String, i64), (i64, bool)>>,
}

impl FailoverPolicy {
    /// Others to whom the key of `authority` was given.
    fn also_on(&self, authority: &str) -> &[String] {
        self.also_on.get(authority).map_or(&[], Vec::as_slice)
    }
}

impl StandIns {
    /// Another token has this name now.
    pub(super) fn forget_token(&self, name: &str) {
        self.asked().retain(|(token, _), _| token != name);
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<(String, i64), (i64, bool)>> {
        lock(&self.asked)
    }

    pub(super) fn has_shown(&self, token: &str, generation: i64) -> bool {
        let entry = (token.to_owned(), generation);
        self.asked().get(&entry).is_some_and(|(_, shown)| *shown)
    }

    /// Whether somebody stood in for `authority` when it was last looked at.
    fn has_stood_in(&self, authority: &str) -> bool {
        let told = lock(&self.told);
        told.contains_key(authority)
    }

    /// Takes who signs now (`None`: as usual); true if that is news.
    fn is_news(&self, authority: &str, stand_in: Option<&str>) -> bool {
        let mut told = lock(&self.told);
        if told.get(authority).map(String::as_str) == stand_in {
            return false;
        }
        match stand_in {
            Some(name) => told.insert(authority.to_owned(), name.to_owned()),
            None => told.remove(authority),
        };
        true
    }

    /// What was said could not be written down: it is to be said again.
    fn forget(&self, authority: &str) {
        let mut told = lock(&self.told);
        told.insert(authority.to_owned(), String::new());
    }
}

impl CertificateAuthority {
    /// The token that signs by `generation`: its own, unless that is out and another one that has
    /// shown that it holds the key is ready.
    pub(super) fn signing_token(&self, generation: &Generation) -> Result<&ConfiguredToken, Error> {
        let signer = Signer::from(generation);
        self.token_of_signer(&signer)
    }

    /// The same for whoever is about to sign.
    pub(super) fn token_of_signer(&self, signer: &Signer<'_>) -> Result<&ConfiguredToken, Error> {
        let own = self.token(signer.token)?;
        let others = self.failover.also_on(signer.authority);
        if others.is_empty() || !self.is_out(own) {
            return Ok(own);
        }
        for name in others {
            let token = self.token(name)?;
            let holds_it = self.lasting.stand_ins.has_shown(name, signer.generation);
            if holds_it && token.client.out_for().is_none() {
                return Ok(token);
            }
        }
        Ok(own)
    }

    /// The token that signs for `signer`, if it can do so now with exactly that key. To be called
    /// before anything is recorded that is to be signed.
    pub(super) async fn ready_token(&self, signer: &Signer<'_>) -> Result<&ConfiguredToken, Error> {
        let token = self.token_of_signer(signer)?;
        token
            .client
            .ready_to_sign(signer.key, token.sign_deadline)
            .await?;
        Ok(token)
    }

    /// Has every token that may sign in another's place show that it holds the key. Returns when that
    /// is to be tried again, in Unix seconds.
    pub fn prove_stand_ins(&self) -> Result<Option<i64>, Error> {
        let mut again = None;
        for authority in self.failover.also_on.keys() {
            let hierarchy = self.hierarchy();
            let Some(generation) = hierarchy.serving(authority).cloned() else {
                continue;
            };
            drop(hierarchy);
            for name in self.failover.also_on(authority) {
                if !self.shows_key(name, &generation)? {
                    again = Some(self.now() + PROOF_PAUSE_SECONDS);
                }
            }
        }
        Ok(again)
    }

    fn shows_key(&self, name: &str, generation: &Generation) -> Result<bool, Error> {
        let client = &self.token(name)?.client;
        let entry = (name.to_owned(), generation.id);
        if client.out_for().is_some() {
            self.lasting.stand_ins.asked().remove(&entry);
            return Ok(false);
        }
        let before = self.lasting.stand_ins.asked().get(&entry).copied();
        let now = self.now();
        match before {
            Some((_, true)) => return Ok(true),
            Some((at, false)) if now - at < PROOF_PAUSE_SECONDS => return Ok(false),
            _ => {}
        }
        let found = client.find(&generation.key, LOOKUP_DEADLINE);
        let shown = found.and_then(|key| client.prove(&key, LOOKUP_DEADLINE));
        self.lasting
            .stand_ins
            .asked()
            .insert(entry, (now, shown.is_ok()));
        if let Err(error) = &shown {
            let generation = generation.name();
            tracing::warn!(token = name, generation, %error, "cannot stand in");
        }
        Ok(shown.is_ok())
    }

    /// The generation by which leaves of `authority` are signed: its own, unless no token that holds
    /// its key is there and its standby can sign. Who signs in whose place is audited when it changes.
    pub(super) async fn signing_generation(
        &self,
        authority: &str,
    ) -> Result<Arc<Generation>, Error> {
        let own = Arc::clone(self.hierarchy().signing(authority)?);
        if !self.has_alternatives(authority) {
            return Ok(own);
        }
        let standby = self.standby_of(&own)?;
        let signs = standby.unwrap_or(own);
        let token = self.signing_token(&signs)?;
        let stand_in = stand_in(authority, &signs, token);
        if self
            .lasting
            .stand_ins
            .is_news(authority, stand_in.as_deref())
        {
            let recorded = self.record_failover(authority, stand_in).await;
            if recorded.is_err() {
                self.lasting.stand_ins.forget(authority);
            }
            recorded?;
        }
        Ok(signs)
    }

    /// The standby of an authority whose key is nowhere to be had, if it can sign.
    fn standby_of(&self, own: &Generation) -> Result<Option<Arc<Generation>>, Error> {
        let Some(name) = self.failover.standby.get(&own.authority) else {
            return Ok(None);
        };
        if !self.is_out(self.signing_token(own)?) {
            return Ok(None);
        }
        let hierarchy = self.hierarchy();
        let Ok(standby) = hierarchy.signing(name) else {
            return Ok(None);
        };
        let ready = self.signing_token(standby)?.client.out_for().is_none();
        let can_sign = ready && below_the_same(&hierarchy, own, standby);
        Ok(can_sign.then(|| Arc::clone(standby)))
    }

    fn has_alternatives(&self, authority: &str) -> bool {
        let policy = &self.failover;
        // What the configuration no longer says may still have to be ended.
        policy.also_on.contains_key(authority)
            || policy.standby.contains_key(authority)
            || self.lasting.stand_ins.has_stood_in(authority)
    }

    /// Whether a token has been away for longer than it may.
    fn is_out(&self, token: &ConfiguredToken) -> bool {
        let out = token.client.out_for();
        out.is_some_and(|out| out >= self.failover.after)
    }

    async fn record_failover(
        &self,
        authority: &str,
        stand_in: Option<String>,
    ) -> Result<(), Error> {
        let action = match &stand_in {
            Some(name) => {
                tracing::warn!(authority, stand_in = name, "failover");
                "failover.begun"
            }
            None => {
                tracing::info!(authority, "failover is over");
                "failover.ended"
            }
        };
        let entry = AuditEntry {
            at: self.now(),
            actor: "daemon".into(),
            action,
            subject: authority.to_owned(),
            detail: json!({ "signed_by": stand_in }),
        };
        Ok(self.store.record_audit(entry).await?)
    }

    /// Whether somebody can sign for `authority` at this moment, whose key is on `own`.
    pub(super) fn can_sign(&self, authority: &str, own: &str) -> bool {
        let hierarchy = self.hierarchy();
        let Ok(generation) = hierarchy.signing(authority) else {
            // It has no key yet, or is revoked: nothing but its token can be asked.
            let own = self.token(own);
            return own.is_ok_and(|it| it.client.out_for().is_none());
        };
        let standby = self.standby_of(generation).ok().flatten();
        let signs = standby.as_ref().unwrap_or(generation);
        let token = self.signing_token(signs);
        token.is_ok_and(|it| self.has_usable_key(it, signs))
    }

    /// Authorities that somebody else signs for, and who could not if it were necessary, in words.
    pub(super) fn failover_alarms(&self) -> Vec<Alarm> {
        let policy = &self.failover;
        let configured = policy.also_on.keys().chain(policy.standby.keys());
        let authorities: BTreeSet<_> = configured.collect();
        authorities
            .into_iter()
            .flat_map(|authority| self.failover_alarms_of(authority))
            .collect()
    }

    fn failover_alarms_of(&self, authority: &str) -> Vec<Alarm> {
        let hierarchy = self.hierarchy();
        let Some(own) = hierarchy.serving(authority) else {
            return Vec::new();
        };
        let mut alarms = Vec::new();
        let mut raise = |code, mut parameters: Value, text: String| {
            parameters["authority"] = json!(authority);
            let text = format!("authority {authority}: {text}");
            alarms.push(Alarm::new(code, parameters, text));
        };
        let standby = self.standby_of(own).ok().flatten();
        let signs = standby.as_ref().unwrap_or(own);
        let token = self.signing_token(signs).ok();
        if let Some(name) = token.and_then(|token| stand_in(authority, signs, token)) {
            let text = format!("{name} signs in its place");
            raise(AlarmCode::StandbySigns, json!({ "signer": name }), text);
        }
        for name in self.failover.also_on(authority) {
            let ready = self
                .token(name)
                .is_ok_and(|it| it.client.out_for().is_none());
            if ready && !self.lasting.stand_ins.has_shown(name, own.id) {
                let text = format!(
                    "token {name} has not shown the key of {}, and cannot sign in its place",
                    own.name()
                );
                let parameters = json!({ "token": name, "key_of": own.name() });
                raise(AlarmCode::StandbyKeyNotShown, parameters, text);
            }
        }
        if let Some(name) = self.failover.standby.get(authority) {
            let parameters = json!({ "standby": name });
            match hierarchy.serving(name) {
                None => {
                    let text = format!("its standby {name} has no key yet");
                    raise(AlarmCode::StandbyWithoutKey, parameters, text);
                }
                Some(standby) if !below_the_same(&hierarchy, own, standby) => {
                    let text = format!(
                        "its standby {name} is not below the same issuer, and will not sign for it"
                    );
                    raise(AlarmCode::StandbyOtherIssuer, parameters, text);
                }
                Some(_) => {}
            }
        }
        alarms
    }
}

/// Whether both are below one issuer, by its key: relying parties then trust both or neither.
fn below_the_same(hierarchy: &Hierarchy, own: &Generation, standby: &Generation) -> bool {
    let above = |it: &Generation| hierarchy.issuer_key(it).ok().filter(|_| !it.is_root());
    let own = above(own);
    own.is_some() && own == above(standby)
}

/// Who signs in the place of `authority`'s own token; `None` if it does itself.
fn stand_in(authority: &str, signs: &Generation, token: &ConfiguredToken) -> Option<String> {
    if signs.authority != authority {
        Some(format!("authority {}", signs.authority))
    } else if token.client.name() != signs.token {
        Some(format!("token {}", token.client.name()))
    } else {
        None
    }
}
