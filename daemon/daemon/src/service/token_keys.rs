//! Lets the provisioning clients use credential keys that tokens hold, through the tokens' workers.

use crate::provisioning::credential::keys::{CredentialKeys, KeyFailure, TokenKeys};
use crate::token::client::{LOOKUP_DEADLINE, TokenClient};
use crate::token::credential::label;
use crate::token::{KeyReference, TokenError};
use std::fmt;
use std::sync::Arc;

/// Returns the tokens of `clients` by name, as sources of credential keys.
pub fn token_keys<'a>(clients: impl IntoIterator<Item = &'a TokenClient>) -> TokenKeys {
    let keys =
        |client: &TokenClient| -> Arc<dyn CredentialKeys> { Arc::new(KeysOfToken(client.clone())) };
    let named = |client: &'a TokenClient| (client.name().to_owned(), keys(client));
    clients.into_iter().map(named).collect()
}

struct KeysOfToken(TokenClient);

impl fmt::Debug for KeysOfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeysOfToken({})", self.0.name())
    }
}

impl CredentialKeys for KeysOfToken {
    fn hmac_sha256(&self, key: &str, text: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        let code = self.0.hmac_sha256(&labelled(key)?, text, LOOKUP_DEADLINE);
        code.map_err(failure)
    }

    fn sign_assertion(&self, key: &str, spki: &[u8], input: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        let reference = KeyReference {
            spki: spki.into(),
            label: labelled(key)?,
            id: Vec::new(),
            wrapped: None,
        };
        let signature = self.0.sign_assertion(&reference, input, LOOKUP_DEADLINE);
        signature.map_err(failure)
    }
}

fn labelled(key: &str) -> Result<String, KeyFailure> {
    label(key).ok_or_else(|| KeyFailure::Unusable(format!("{key:?} is not a valid key name")))
}

fn failure(error: TokenError) -> KeyFailure {
    let reason = error.to_string();
    match error {
        TokenError::Unavailable { .. }
        | TokenError::Deadline { .. }
        | TokenError::Parked { .. } => KeyFailure::Unavailable(reason),
        TokenError::Key { .. } | TokenError::Refused { .. } => KeyFailure::Unusable(reason),
    }
}
