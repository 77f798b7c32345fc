//! Keys of credentials that live in a token, as far as a credential needs to know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A token that holds keys of credentials. Calls block; none of them shows a key.
pub trait CredentialKeys: fmt::Debug + Send + Sync {
    /// HMAC-SHA256 over `text`, with the secret that was imported under the name `key`. The token
    /// takes the text of a shared access signature and nothing else.
    fn hmac_sha256(&self, key: &str, text: &[u8]) -> Result<Vec<u8>, KeyFailure>;

    /// RS256 over `input`, with the key named `key` whose DER SubjectPublicKeyInfo is `spki`. The
    /// token takes the signing input of a JWT and nothing else.
    fn sign_assertion(&self, key: &str, spki: &[u8], input: &[u8]) -> Result<Vec<u8>, KeyFailure>;
}

/// The tokens by their names in the configuration.
pub type TokenKeys = BTreeMap<String, Arc<dyn CredentialKeys>>;

/// Why a token did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFailure {
    /// The token is unavailable or busy: try later.
    #[error("{0}")]
    Unavailable(String),
    /// The key is missing or is of another kind: an operator must act.
    #[error("{0}")]
    Unusable(String),
}
