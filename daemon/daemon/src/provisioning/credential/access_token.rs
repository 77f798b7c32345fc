//! Keeps access tokens of Entra ID (section 8.2) in memory, and renews them before they expire.
//!
//! One caller renews, the others wait for it. While the token endpoint fails, a valid token is
//! still used, and the endpoint is not called for [`FAILURE_PAUSE`].

use super::client_assertion::ClientAssertion;
use super::managed_identity::ManagedIdentity;
use crate::provisioning::failure::CallError;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

/// How long before its end a token is renewed, or half of its life if that is shorter.
const RENEWAL_MARGIN: Duration = Duration::from_secs(300);

/// Nearer to its end than this a token might expire on its way.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

/// How long after a failure the next attempt is made, at the earliest.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// The audience of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The service plane of DPS.
    ProvisioningService,
    Hub,
    ResourceManager,
}

impl Audience {
    /// As the token endpoint is asked.
    pub(super) fn scope(self) -> String {
        format!("{}/.default", self.resource())
    }

    /// As the metadata service is asked.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Audience::ProvisioningService => "https://azure-devices-provisioning.net",
            Audience::Hub => "https://iothubs.azure.net",
            Audience::ResourceManager => "https://management.azure.com",
        }
    }
}

/// The source of a token.
#[derive(Debug)]
pub(super) enum Source {
    /// The token endpoint, for an assertion.
    ClientAssertion(ClientAssertion),
    /// The machine's metadata service.
    ManagedIdentity(ManagedIdentity),
}

impl Source {
    async fn fetch(&self, now: SystemTime) -> Result<AccessToken, NoAccessToken> {
        match self {
            Source::ClientAssertion(source) => source.fetch(now).await,
            Source::ManagedIdentity(source) => source.fetch(now).await,
        }
    }
}

#[derive(Debug)]
pub(super) struct AccessToken {
    /// As the header has it.
    authorization: SecretString,
    renew_at: SystemTime,
    expires_at: SystemTime,
}

/// The answer of both sources. Only Entra's `expires_in` is a number.
#[derive(Deserialize)]
pub(super) struct Granted {
    access_token: String,
    expires_in: Seconds,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Granted {
    /// The token, asked for at `now`; `None` if it says no life.
    pub(super) fn token(self, now: SystemTime) -> Option<AccessToken> {
        let seconds = match self.expires_in {
            Seconds::Number(seconds) => seconds,
            Seconds::Text(text) => text.parse().ok()?,
        };
        let life = Duration::from_secs(seconds);
        let margin = RENEWAL_MARGIN.min(life / 2);
        let token = SecretString::from(self.access_token);
        Some(AccessToken {
            authorization: SecretString::from(format!("Bearer {}", token.expose_secret())),
            renew_at: now.checked_add(life - margin)?,
            expires_at: now.checked_add(life)?,
        })
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no access token: {reason}")]
pub struct NoAccessToken {
    pub(super) reason: String,
    /// It may be there later, without an operator.
    pub(super) is_transient: bool,
    pub(super) retry_after: Option<Duration>,
}

impl NoAccessToken {
    /// An operator must act.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_transient: false,
            retry_after: None,
        }
    }
}

impl From<CallError> for NoAccessToken {
    fn from(error: CallError) -> Self {
        let reason = error.to_string();
        match error {
            CallError::Transient { retry_after, .. } => Self {
                reason,
                is_transient: true,
                retry_after,
            },
            _ => Self::refused(reason),
        }
    }
}

/// The token of one plane.
#[derive(Debug)]
pub struct AccessTokens {
    source: Source,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    token: Option<AccessToken>,
    /// The last failure, and the time until which no new attempt is made.
    failure: Option<(SystemTime, NoAccessToken)>,
}

impl AccessTokens {
    pub(super) fn new(source: Source) -> Self {
        let held = Mutex::default();
        Self { source, held }
    }

    /// The value of `Authorization` at `now`.
    pub(super) async fn authorization(
        &self,
        now: SystemTime,
    ) -> Result<SecretString, NoAccessToken> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.token.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.authorization.clone());
        }
        if let Some((_, failure)) = held.failure.as_ref().filter(|(until, _)| now < *until) {
            return held.still_valid(now).ok_or_else(|| failure.clone());
        }
        match self.source.fetch(now).await {
            Ok(token) => {
                let authorization = token.authorization.clone();
                (held.token, held.failure) = (Some(token), None);
                Ok(authorization)
            }
            Err(failure) => {
                let pause = failure.retry_after.unwrap_or_default().max(FAILURE_PAUSE);
                held.failure = Some((now + pause, failure.clone()));
                held.still_valid(now).ok_or(failure)
            }
        }
    }

    /// Drops a token that the service refused as `authorization`, so that the next call fetches
    /// another. A newer token is kept.
    pub(super) async fn forget(&self, authorization: &SecretString) {
        let mut held = self.held.lock().await;
        let is_refused = |token: &AccessToken| {
            token.authorization.expose_secret() == authorization.expose_secret()
        };
        if held.token.as_ref().is_some_and(is_refused) {
            held.token = None;
        }
    }
}

impl Held {
    fn still_valid(&self, now: SystemTime) -> Option<SecretString> {
        let token = self.token.as_ref()?;
        (now + EXPIRY_MARGIN < token.expires_at).then(|| token.authorization.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(expires_in: &str) -> Option<AccessToken> {
        let text = format!(r#"{{"access_token":"t","expires_in":{expires_in}}}"#);
        let granted: Granted = serde_json::from_str(&text).unwrap();
        granted.token(SystemTime::UNIX_EPOCH)
    }

    fn after(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_renewed_five_minutes_or_half_its_life_before_its_end() {
        for (expires_in, renewed, expired) in [
            ("3599", 3299, 3599),
            ("\"3599\"", 3299, 3599),
            ("60", 30, 60),
        ] {
            let token = granted(expires_in).unwrap();
            assert_eq!(token.renew_at, after(renewed));
            assert_eq!(token.expires_at, after(expired));
        }
        assert!(granted("\"soon\"").is_none());
        assert!(granted(&u64::MAX.to_string()).is_none());
    }

    #[test]
    fn no_debug_shows_a_token() {
        assert!(!format!("{:?}", granted("60")).contains("Bearer"));
    }
}
