//! Authorizes calls, by the credential of their plane.
//!
//! | module | is |
//! |---|---|
//! | [`configuration`] | the table of a credential, and its meaning |
//! | `file` | connection strings and bearer tokens in files |
//! | [`keys`] | keys in a token, for shared access signatures and client assertions |
//! | [`access_token`] | access tokens of Entra ID, kept until shortly before they expire |
//! | `client_assertion`, `managed_identity` | sources of access tokens |
//!
//! Every attempt has a new shared access signature. No credential is ever in an error or a log.

pub mod access_token;
mod client_assertion;
pub mod configuration;
mod file;
pub mod keys;
mod managed_identity;

pub use file::connection_string;

use super::sas::{ConnectionStringInvalid, SharedAccess};
use crate::files::SecretUnusable;
use access_token::{AccessTokens, NoAccessToken};
use keys::{CredentialKeys, KeyFailure};
use secrecy::SecretString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How the calls of one plane are authorised.
#[derive(Clone, Debug)]
pub enum Credential {
    /// None in the header: the TLS client certificate speaks, or the body does.
    None,
    /// The connection string of a shared access policy of the service.
    ConnectionString {
        path: PathBuf,
        /// The service that is called; a string for another one is refused.
        host: String,
    },
    /// The key of a shared access policy, in a token.
    TokenHmac(SharedAccessKey),
    /// A bearer token that something else refreshes.
    BearerToken { path: PathBuf },
    /// An access token that we refresh.
    AccessToken(Arc<AccessTokens>),
}

/// The value of `Authorization`, if the call needs one. Boxed, because it may need a call of its
/// own, to a token endpoint.
pub type Authorization<'a> =
    Pin<Box<dyn Future<Output = Result<Option<SecretString>, CredentialError>> + Send + 'a>>;

/// The key of a shared access policy, in a token.
#[derive(Clone, Debug)]
pub struct SharedAccessKey {
    keys: Arc<dyn CredentialKeys>,
    key: String,
    policy: String,
    host: String,
}

impl Credential {
    /// The value of `Authorization` for one attempt at `now`.
    pub fn authorization(&self, now: SystemTime) -> Authorization<'_> {
        Box::pin(async move {
            match self {
                Credential::None => Ok(None),
                Credential::ConnectionString { path, host } => {
                    file::shared_access(path, host, now).map(Some)
                }
                Credential::TokenHmac(key) => key.shared_access(now).await.map(Some),
                Credential::BearerToken { path } => file::bearer(path).map(Some),
                Credential::AccessToken(tokens) => Ok(Some(tokens.authorization(now).await?)),
            }
        })
    }

    /// The service refused `authorization`: what is kept of it is not used again.
    pub(super) async fn forget(&self, authorization: &SecretString) {
        if let Credential::AccessToken(tokens) = self {
            tokens.forget(authorization).await;
        }
    }
}

impl SharedAccessKey {
    async fn shared_access(&self, now: SystemTime) -> Result<SecretString, CredentialError> {
        let access = SharedAccess::new(&self.host, &self.policy, now);
        let keys = Arc::clone(&self.keys);
        let key = self.key.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let code = keys.hmac_sha256(&key, access.text().as_bytes())?;
            Ok(access.token(&code))
        });
        let stopping = |_| Err(KeyFailure::Unavailable("the daemon is stopping".into()));
        Ok(signed.await.unwrap_or_else(stopping)?)
    }
}

/// A credential that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No file, no right to read it, no text in it, or others can read it.
    #[error("cannot use the credential {}", path.display())]
    Unusable {
        path: PathBuf,
        source: SecretUnusable,
    },
    /// Not a connection string.
    #[error("the credential {} is no connection string", path.display())]
    ConnectionString {
        path: PathBuf,
        source: ConnectionStringInvalid,
    },
    /// A key of another service would be shown to this one.
    #[error("the credential {} is for {found}, but {called} is configured", path.display())]
    OtherHost {
        path: PathBuf,
        /// `HostName` of the connection string.
        found: String,
        called: String,
    },
    /// The token did not sign.
    #[error("no shared access signature was made")]
    Key(#[from] KeyFailure),
    /// Entra ID gave nothing.
    #[error(transparent)]
    AccessToken(#[from] NoAccessToken),
}

impl CredentialError {
    /// Whether there is no such file.
    fn is_missing_file(&self) -> bool {
        let CredentialError::Unusable { source, .. } = self else {
            return false;
        };
        matches!(source, SecretUnusable::Unreadable(it) if it.kind() == ErrorKind::NotFound)
    }

    /// Whether it may heal without an operator.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            CredentialError::Key(failure) => matches!(failure, KeyFailure::Unavailable(_)),
            CredentialError::AccessToken(failure) => failure.is_transient,
            _ => false,
        }
    }

    /// Returns the pause before a retry, if the source named one.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            CredentialError::AccessToken(failure) => failure.retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Signs with nothing, and counts.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl CredentialKeys for Counting {
        fn hmac_sha256(&self, key: &str, text: &[u8]) -> Result<Vec<u8>, KeyFailure> {
            assert_eq!(key, "dps");
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(text.to_vec())
        }

        fn sign_assertion(&self, _: &str, _: &[u8], _: &[u8]) -> Result<Vec<u8>, KeyFailure> {
            Err(KeyFailure::Unusable("it is for shared access".into()))
        }
    }

    #[tokio::test]
    async fn every_attempt_is_signed_anew() {
        let keys = Arc::new(Counting::default());
        let credential = Credential::TokenHmac(SharedAccessKey {
            keys: keys.clone(),
            key: "dps".into(),
            policy: "owner".into(),
            host: "line.example".into(),
        });
        let mut headers = Vec::new();
        for second in [0, 1] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let header = credential.authorization(now).await.unwrap().unwrap();
            headers.push(header.expose_secret().to_owned());
        }
        assert!(headers[0].contains("&se=3600&") && headers[1].contains("&se=3601&"));
        assert_ne!(headers[0], headers[1]);
        assert_eq!(keys.0.load(Ordering::Relaxed), 2);
    }
}
