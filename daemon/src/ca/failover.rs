//! Failover: who signs for an authority while the token that holds its key is out.
//!
//! First another token that holds the same key (the relying parties see no difference), then a
//! standby authority below the same issuer, with a key of its own. A token is out when it has not
//! been ready for longer than the policy allows; until then its callers wait, for most weather
//! passes. As soon as it is ready again, it signs again.
//!
//! MUST NOT stand in for an authority that is revoked: a breach is no weather.

use super::hierarchy::Generation;
use super::{CertificateAuthority, ConfiguredToken, Error};
use crate::store::AuditEntry;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// The policy, and what was last said of it.
pub(super) struct Failover {
    policy: FailoverPolicy,
    /// By authority: who signs in the place of its own token.
    told: Mutex<BTreeMap<String, String>>,
}

impl Failover {
    pub(super) fn new(policy: FailoverPolicy) -> Self {
        Self {
            policy,
            told: Mutex::default(),
        }
    }

    /// Takes who signs now (`None`: as usual); true if that is news.
    fn is_news(&self, authority: &str, stand_in: Option<&str>) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(authority).map(String::as_str) == stand_in {
            return false;
        }
        match stand_in {
            Some(name) => told.insert(authority.to_owned(), name.to_owned()),
            None => told.remove(authority),
        };
        true
    }
}

impl CertificateAuthority {
    /// The token that signs for `authority`, whose key is on `own`: that one, unless it is out and
    /// another that holds the same key is ready.
    pub(super) fn signing_token(
        &self,
        authority: &str,
        own: &str,
    ) -> Result<&ConfiguredToken, Error> {
        let first = self.token(own)?;
        let Some(others) = self.failover.policy.also_on.get(authority) else {
            return Ok(first);
        };
        if !self.is_out(first) {
            return Ok(first);
        }
        for name in others {
            let token = self.token(name)?;
            if token.client.out_for().is_none() {
                return Ok(token);
            }
        }
        Ok(first)
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
        let token = self.signing_token(&signs.authority, &signs.token)?;
        let stand_in = stand_in(authority, &signs, token);
        if self.failover.is_news(authority, stand_in.as_deref()) {
            self.record_failover(authority, stand_in).await?;
        }
        Ok(signs)
    }

    /// The standby of an authority whose key is nowhere to be had, if it can sign.
    fn standby_of(&self, own: &Generation) -> Result<Option<Arc<Generation>>, Error> {
        let Some(name) = self.failover.policy.standby.get(&own.authority) else {
            return Ok(None);
        };
        let token = self.signing_token(&own.authority, &own.token)?;
        if !self.is_out(token) {
            return Ok(None);
        }
        let hierarchy = self.hierarchy();
        let Ok(standby) = hierarchy.signing(name) else {
            return Ok(None);
        };
        let token = self.signing_token(&standby.authority, &standby.token)?;
        let below_the_same = hierarchy.parent_authority(own) == hierarchy.parent_authority(standby);
        let can_sign = below_the_same && token.client.out_for().is_none();
        Ok(can_sign.then(|| Arc::clone(standby)))
    }

    fn has_alternatives(&self, authority: &str) -> bool {
        let policy = &self.failover.policy;
        policy.also_on.contains_key(authority) || policy.standby.contains_key(authority)
    }

    /// Whether a token has been away for longer than it may.
    fn is_out(&self, token: &ConfiguredToken) -> bool {
        let out = token.client.out_for();
        out.is_some_and(|out| out >= self.failover.policy.after)
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

    /// Whether leaves of `authority` can be signed at this moment.
    pub(super) fn can_sign(&self, authority: &str, own: &str) -> bool {
        let ready = |token: &str| {
            let token = self.token(token);
            token.is_ok_and(|token| token.client.out_for().is_none())
        };
        if ready(own) {
            return true;
        }
        match self.stand_in_of(authority) {
            Some(Ok(_)) => true,
            Some(Err(_)) | None => false,
        }
    }

    /// Authorities that somebody else signs for, or that cannot be stood in for as configured, in
    /// words.
    pub(super) fn failover_alarms(&self) -> Vec<String> {
        let policy = &self.failover.policy;
        let configured = policy.also_on.keys().chain(policy.standby.keys());
        let authorities: std::collections::BTreeSet<_> = configured.collect();
        let alarm = |authority: &String| match self.stand_in_of(authority)? {
            Ok(name) => Some(format!("authority {authority}: {name} signs in its place")),
            Err(reason) => Some(format!("authority {authority}: {reason}")),
        };
        authorities.into_iter().filter_map(alarm).collect()
    }

    /// Who signs in the place of an authority's own token, or why nobody can who should.
    fn stand_in_of(&self, authority: &str) -> Option<Result<String, String>> {
        let hierarchy = self.hierarchy();
        let own = hierarchy.signing(authority).ok()?;
        if let Some(name) = self.failover.policy.standby.get(authority) {
            let above = hierarchy.parent_authority(own);
            match hierarchy.serving(name) {
                Some(standby) if hierarchy.parent_authority(standby) != above => {
                    return Some(Err(format!(
                        "its standby {name} is below another authority, and will not sign for it"
                    )));
                }
                None => return Some(Err(format!("its standby {name} has no key yet"))),
                Some(_) => {}
            }
        }
        let standby = self.standby_of(own).ok()?;
        let signs = standby.as_ref().unwrap_or(own);
        let token = self.signing_token(&signs.authority, &signs.token).ok()?;
        stand_in(authority, signs, token).map(Ok)
    }
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
