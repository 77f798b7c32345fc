//! Checks that the key of every serving authority has signed.
//!
//! A token can be ready while a key in it is missing, or while its key and certificate do not
//! belong together. Only a test signature shows that. So each key makes one when its token is
//! there, and an authority whose key has made none cannot sign.

use super::Issuer;
use crate::ca::alarm::{Alarm, AlarmCode};
use crate::ca::hierarchy::Generation;
use crate::ca::{ConfiguredToken, lock};
use crate::ids::GenerationId;
use crate::token::TokenError;
use crate::unix_seconds::UnixSeconds;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// How soon a key that did not sign is asked again, in seconds.
const PAUSE_SECONDS: i64 = 10;

/// Why keys did not sign when they were asked last, by the row id of the generation.
#[derive(Default)]
pub(super) struct KeyFaults(Mutex<BTreeMap<GenerationId, String>>);

impl Issuer {
    /// Has every key that should sign show that it does, once for each connection to its token.
    /// Returns when one that did not is asked again, in Unix seconds.
    pub fn prove_keys(&self) -> Option<UnixSeconds> {
        let mut slow = BTreeSet::new();
        let mut again = None;
        for generation in self.signing_generations() {
            let Ok(token) = self.signing_token(&generation) else {
                continue;
            };
            let name = token.client.name();
            if token.client.out_for().is_some() || slow.contains(name) {
                continue;
            }
            let asked = token
                .client
                .ready_to_sign(&generation.key, token.sign_deadline);
            let shown = pollster::block_on(asked);
            if let Err(TokenError::Deadline { .. }) = &shown {
                slow.insert(name);
            }
            if shown.is_err() {
                again = Some(self.now() + PAUSE_SECONDS);
            }
            self.note_key(&generation, shown);
        }
        again
    }

    fn note_key(&self, generation: &Generation, shown: Result<(), TokenError>) {
        let mut faults = lock(&self.shared.key_faults.0);
        match shown {
            Ok(()) => faults.remove(&generation.id),
            Err(error) => faults.insert(generation.id, error.to_string()),
        };
    }

    /// The signing generation and token of each configured authority, if there is one.
    fn signing_generations(&self) -> Vec<Arc<Generation>> {
        let hierarchy = self.hierarchy();
        let names = self.settings.authorities.keys();
        names
            .filter_map(|name| hierarchy.signing(name).ok().map(Arc::clone))
            .collect()
    }

    /// Whether `token` is there, and has shown that it signs with the key of `generation`.
    pub(super) fn has_usable_key(&self, token: &ConfiguredToken, generation: &Generation) -> bool {
        let client = &token.client;
        let is_shown = client.is_proven(&generation.key)
            || self.shared.failover.has_shown(client.name(), generation.id);
        client.out_for().is_none() && is_shown
    }

    /// Keys that do not sign although their token is there, in words.
    pub(in crate::ca) fn key_alarms(&self) -> Vec<Alarm> {
        let faults = lock(&self.shared.key_faults.0).clone();
        let alarms = self.signing_generations().into_iter().filter_map(|it| {
            let fault = faults.get(&it.id)?;
            let token = self.signing_token(&it).ok()?;
            if token.client.out_for().is_some() || self.has_usable_key(token, &it) {
                return None;
            }
            let authority = &it.authority;
            let token = token.client.name();
            let text = format!(
                "authority {authority} cannot sign, because its key on token {token} does not: \
                 {fault}; put the key back by the token's own means, or give the authority another \
                 one with `hallmark roll start --authority {authority}`"
            );
            let parameters = json!({ "authority": authority, "token": token, "reason": fault });
            Some(Alarm::new(AlarmCode::KeyUnusable, parameters, text))
        });
        alarms.collect()
    }
}
