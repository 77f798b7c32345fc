//! The state of everything, for people and programs that look.

use super::{CertificateAuthority, ConfiguredToken, Error, rfc3339};
use serde::Serialize;
use std::collections::BTreeMap;

/// What `hallmark status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The version of this daemon.
    pub version: &'static str,
    /// RFC 3339.
    pub now: String,
    /// Whether certificates can be issued: authorities exist and their tokens answer.
    pub ready: bool,
    /// Tokens by name.
    pub tokens: BTreeMap<String, TokenStatus>,
    /// How many authorities serve.
    pub authorities: usize,
    /// Certificates issued so far.
    pub certificates: i64,
    /// Serial numbers burned so far.
    pub abandoned: i64,
    /// Signatures under way.
    pub under_way: i64,
    /// The queue of changes to provisioning services.
    pub push: PushStatus,
}

/// A token's state.
#[derive(Clone, Debug, Serialize)]
pub struct TokenStatus {
    /// `ready`, or what is wrong.
    pub state: &'static str,
    /// Why, if it is not ready.
    pub reason: Option<String>,
    /// How often its worker was started again.
    pub restarts: u64,
}

/// The queue of changes to provisioning services.
#[derive(Clone, Debug, Serialize)]
pub struct PushStatus {
    /// Waiting.
    pub waiting: i64,
    /// Rejected, waiting for an operator.
    pub parked: i64,
    /// RFC 3339 of the oldest cause.
    pub since: Option<String>,
}

impl CertificateAuthority {
    /// How everything is now. Asks no token anything: a token that hangs cannot hang this.
    pub fn status(&self) -> Result<Status, Error> {
        let (under_way, certificates, abandoned) = self.store.issuance_counts()?;
        let (waiting, parked, since) = self.store.mark_counts()?;
        let tokens: BTreeMap<_, _> = self
            .tokens
            .iter()
            .map(|(name, token)| (name.clone(), token_status(token)))
            .collect();
        let authorities = self
            .hierarchy()
            .iter()
            .filter(|generation| generation.serving)
            .count();
        let ready = authorities > 0 && tokens.values().all(|token| token.state == "ready");
        Ok(Status {
            version: env!("CARGO_PKG_VERSION"),
            now: rfc3339(self.now()),
            ready,
            tokens,
            authorities,
            certificates,
            abandoned,
            under_way,
            push: PushStatus {
                waiting,
                parked,
                since: since.map(rfc3339),
            },
        })
    }
}

fn token_status(token: &ConfiguredToken) -> TokenStatus {
    let health = token.client.health();
    TokenStatus {
        state: health.state.name(),
        reason: Some(health.reason).filter(|reason| !reason.is_empty()),
        restarts: health.restarts,
    }
}
