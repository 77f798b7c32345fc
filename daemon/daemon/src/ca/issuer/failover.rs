//! Chooses the token and the generation that sign while an authority's own token is unavailable.
//!
//! First another token that holds the same key (relying parties see no difference), then a standby
//! authority below the same issuer, with a key of its own. Failover begins when the token has not
//! been ready for longer than the policy allows; until then callers wait, because most outages are
//! short. As soon as the token is ready again, it signs again.
//!
//! MUST NOT sign in place of a revoked authority.

use super::Issuer;
use crate::ca::alarm::{Alarm, AlarmCode};
use crate::ca::hierarchy::{Generation, Hierarchy};
use crate::ca::signing_request::Signer;
use crate::ca::{ConfiguredToken, Error, lock};
use crate::ids::GenerationId;
use crate::store::AuditEntry;
use crate::token::client::LOOKUP_DEADLINE;
use crate::unix_seconds::UnixSeconds;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How often a token is asked again for a key that it has not shown, in seconds.
const PROOF_PAUSE_SECONDS: i64 = 5;

/// The failover settings.
#[derive(Clone, Debug, Default)]
pub struct FailoverPolicy {
    /// How long a token may be unavailable before another one signs.
    pub after: Duration,
    /// Tokens that hold the same key as the authority's own, in their order.
    pub also_on: BTreeMap<String, Vec<String>>,
    /// The standby of an authority.
    pub standby: BTreeMap<String, String>,
}

/// The present overrides, and which tokens have shown which keys.
#[derive(Default)]
pub(super) struct Failover {
    /// By authority: the token or standby that signs in place of its own token.
    overrides: Mutex<BTreeMap<String, String>>,
    /// By token and generation: when the token was asked for the key, and whether it has shown it.
    proofs: Mutex<BTreeMap<(String, GenerationId), KeyProof>>,
}

#[derive(Clone, Copy)]
struct KeyProof {
    /// Time of the request, in Unix seconds.
    asked_at: UnixSeconds,
    is_shown: bool,
}

/// The signer of an authority.
struct Choice {
    signs: Arc<Generation>,
    /// The token or standby that signs in place of the authority's token.
    signer: Option<String>,
    /// Whether another one signed before.
    is_new: bool,
}

impl FailoverPolicy {
    /// Other tokens that hold the key of `authority`.
    fn also_on(&self, authority: &str) -> &[String] {
        self.also_on.get(authority).map_or(&[], Vec::as_slice)
    }
}

impl Failover {
    /// Forgets what a token of this name has shown, because another token has the name now.
    pub(super) fn forget_token(&self, name: &str) {
        self.proofs().retain(|(token, _), _| token != name);
    }

    fn proofs(&self) -> MutexGuard<'_, BTreeMap<(String, GenerationId), KeyProof>> {
        lock(&self.proofs)
    }

    pub(super) fn has_shown(&self, token: &str, generation: GenerationId) -> bool {
        let entry = (token.to_owned(), generation);
        self.proofs().get(&entry).is_some_and(|it| it.is_shown)
    }

    fn is_overridden(&self, authority: &str) -> bool {
        lock(&self.overrides).contains_key(authority)
    }

    /// Calls `choose`, which says by which generation leaves of an authority are signed, and what
    /// signs in place of the authority's token. Returns both, and whether the latter changed.
    /// `choose` reads the tokens under the lock: a request that has read them before another one
    /// did would otherwise begin or end the failover again.
    fn choose(
        &self,
        authority: &str,
        choose: impl FnOnce() -> Result<(Arc<Generation>, Option<String>), Error>,
    ) -> Result<Choice, Error> {
        let mut overrides = lock(&self.overrides);
        let (signs, signer) = choose()?;
        let is_new = overrides.get(authority) != signer.as_ref();
        match &signer {
            _ if !is_new => {}
            Some(name) => drop(overrides.insert(authority.to_owned(), name.clone())),
            None => drop(overrides.remove(authority)),
        }
        Ok(Choice {
            signs,
            signer,
            is_new,
        })
    }

    /// Makes the next call of [`Self::choose`] report a change: this one is not on record.
    fn forget_override(&self, authority: &str) {
        lock(&self.overrides).insert(authority.to_owned(), String::new());
    }
}

impl Issuer {
    /// Returns the token that signs by `generation`: its own, unless that is out and another one
    /// that has shown the key is ready.
    pub(in crate::ca) fn signing_token(
        &self,
        generation: &Generation,
    ) -> Result<&ConfiguredToken, Error> {
        let signer = Signer::from(generation);
        self.token_of_signer(&signer)
    }

    /// Returns the token that signs for `signer`, as [`Self::signing_token`] does.
    pub(super) fn token_of_signer(&self, signer: &Signer<'_>) -> Result<&ConfiguredToken, Error> {
        let own = self.token(signer.token)?;
        let others = self.settings.failover.also_on(signer.authority);
        if others.is_empty() || !self.is_out(own) {
            return Ok(own);
        }
        for name in others {
            let token = self.token(name)?;
            let holds_it = self.shared.failover.has_shown(name, signer.generation);
            if holds_it && token.client.out_for().is_none() {
                return Ok(token);
            }
        }
        Ok(own)
    }

    /// Returns the token that signs for `signer`, if it can sign with exactly that key now. Callers
    /// ask before they record anything that is to be signed.
    pub(in crate::ca) async fn ready_token(
        &self,
        signer: &Signer<'_>,
    ) -> Result<&ConfiguredToken, Error> {
        let token = self.token_of_signer(signer)?;
        token
            .client
            .ready_to_sign(signer.key, token.sign_deadline)
            .await?;
        Ok(token)
    }

    /// Has every token that shares an authority's key make a test signature with it. Returns when
    /// to try again, in Unix seconds.
    pub fn prove_shared_keys(&self) -> Result<Option<UnixSeconds>, Error> {
        let mut again = None;
        for authority in self.settings.failover.also_on.keys() {
            let hierarchy = self.hierarchy();
            let Some(generation) = hierarchy.serving(authority).cloned() else {
                continue;
            };
            drop(hierarchy);
            for name in self.settings.failover.also_on(authority) {
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
            // It shows the key again when it is back, because it may be another token then.
            self.shared.failover.proofs().remove(&entry);
            return Ok(false);
        }
        let now = self.now();
        let before = self.shared.failover.proofs().get(&entry).copied();
        if let Some(before) = before
            && (before.is_shown || now - before.asked_at < PROOF_PAUSE_SECONDS)
        {
            return Ok(before.is_shown);
        }
        let found = client.find(&generation.key, LOOKUP_DEADLINE);
        let shown = found.and_then(|key| client.prove(&key, LOOKUP_DEADLINE));
        let proof = KeyProof {
            asked_at: now,
            is_shown: shown.is_ok(),
        };
        self.shared.failover.proofs().insert(entry, proof);
        if let Err(error) = &shown {
            let generation = generation.name();
            tracing::warn!(token = name, generation, %error, "shared key not proven, will retry");
        }
        Ok(proof.is_shown)
    }

    /// Returns the generation by which leaves of `authority` are signed: its own, unless no token
    /// with its key is ready and its standby can sign. Audits each change of the signer.
    pub(super) async fn signing_generation(
        &self,
        authority: &str,
    ) -> Result<Arc<Generation>, Error> {
        let own = Arc::clone(self.hierarchy().signing(authority)?);
        if !self.has_alternatives(authority) {
            return Ok(own);
        }
        let failover = &self.shared.failover;
        let choice = failover.choose(authority, || {
            let standby = self.standby_of(&own)?;
            let signs = standby.unwrap_or(own);
            let token = self.signing_token(&signs)?;
            let signer = signer_override(authority, &signs, token);
            Ok((signs, signer))
        })?;
        if choice.is_new {
            let recorded = self.record_failover(authority, choice.signer).await;
            if recorded.is_err() {
                failover.forget_override(authority);
            }
            recorded?;
        }
        Ok(choice.signs)
    }

    /// Returns the standby of an authority if no token with the authority's key is ready and the
    /// standby can sign.
    fn standby_of(&self, own: &Generation) -> Result<Option<Arc<Generation>>, Error> {
        let Some(name) = self.settings.failover.standby.get(&own.authority) else {
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

    /// Returns the authority that may sign in place of the one of `own`.
    pub(in crate::ca) fn failover_standby(
        &self,
        hierarchy: &Hierarchy,
        own: &Generation,
    ) -> Option<&str> {
        let name = self.settings.failover.standby.get(&own.authority)?;
        let standby = hierarchy.serving(name)?;
        below_the_same(hierarchy, own, standby).then_some(name)
    }

    fn has_alternatives(&self, authority: &str) -> bool {
        let policy = &self.settings.failover;
        // An override by an earlier configuration has yet to be ended.
        policy.also_on.contains_key(authority)
            || policy.standby.contains_key(authority)
            || self.shared.failover.is_overridden(authority)
    }

    /// Returns true if a token has been unavailable for longer than the policy allows.
    fn is_out(&self, token: &ConfiguredToken) -> bool {
        let out = token.client.out_for();
        out.is_some_and(|out| out >= self.settings.failover.after)
    }

    async fn record_failover(&self, authority: &str, signer: Option<String>) -> Result<(), Error> {
        let action = match &signer {
            Some(name) => {
                tracing::warn!(authority, signer = name, "failover begun");
                "failover.begun"
            }
            None => {
                tracing::info!(authority, "failover ended");
                "failover.ended"
            }
        };
        let entry = AuditEntry {
            at: self.now(),
            actor: "hallmarkd".into(),
            action,
            subject: authority.to_owned(),
            detail: json!({ "signed_by": signer }),
        };
        Ok(self.store.record_audit(entry).await?)
    }

    /// Returns true if a token can sign for `authority` now; `own` is the token of its key.
    pub(in crate::ca) fn can_sign(&self, authority: &str, own: &str) -> bool {
        let hierarchy = self.hierarchy();
        let Ok(generation) = hierarchy.signing(authority) else {
            // It has no key yet, or is revoked: only the state of its token is known.
            let own = self.token(own);
            return own.is_ok_and(|it| it.client.out_for().is_none());
        };
        let standby = self.standby_of(generation).ok().flatten();
        let signs = standby.as_ref().unwrap_or(generation);
        let token = self.signing_token(signs);
        token.is_ok_and(|it| self.has_usable_key(it, signs))
    }

    /// Returns alarms of authorities that are in failover, or whose failover would not work.
    pub(in crate::ca) fn failover_alarms(&self) -> Vec<Alarm> {
        let policy = &self.settings.failover;
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
        if let Some(name) = token.and_then(|token| signer_override(authority, signs, token)) {
            let text = format!("{name} signs in its place");
            raise(AlarmCode::StandbySigns, json!({ "signer": name }), text);
        }
        for name in self.settings.failover.also_on(authority) {
            let ready = self
                .token(name)
                .is_ok_and(|it| it.client.out_for().is_none());
            if ready && !self.shared.failover.has_shown(name, own.id) {
                let text = format!(
                    "token {name} has not shown the key of {}, and cannot sign in its place",
                    own.name()
                );
                let parameters = json!({ "token": name, "key_of": own.name() });
                raise(AlarmCode::StandbyKeyNotShown, parameters, text);
            }
        }
        if let Some(name) = self.settings.failover.standby.get(authority) {
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

/// Returns true if both are below one issuer, by its key: relying parties trust both or neither.
fn below_the_same(hierarchy: &Hierarchy, own: &Generation, standby: &Generation) -> bool {
    let above = |it: &Generation| {
        let key = hierarchy.issuer_key(it).ok().filter(|_| !it.is_root());
        key.map(<[u8]>::to_vec)
    };
    let own = above(own);
    own.is_some() && own == above(standby)
}

/// Returns the token or authority that signs in place of `authority`'s own token, if one does.
fn signer_override(authority: &str, signs: &Generation, token: &ConfiguredToken) -> Option<String> {
    if signs.authority != authority {
        Some(format!("authority {}", signs.authority))
    } else if token.client.name() != signs.token {
        Some(format!("token {}", token.client.name()))
    } else {
        None
    }
}
