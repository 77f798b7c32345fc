//! What throw-away keys were made on a token, so that none stays there.
//!
//! It stands between the token and whoever makes them, the contract or the bench. Whatever they make is remembered until it is deleted;
//! what is left at the end is deleted by [`clean_up`](TestKeys::clean_up), however it went.

use crate::token::{
    KeyDescription, KeyReference, KeySpecification, Token, TokenDescription, TokenError,
};
use crate::x509::key::SignatureAlgorithm;
use secrecy::SecretSlice;

/// A token, and what was made on it.
pub(super) struct TestKeys<'a> {
    token: &'a mut dyn Token,
    keys: Vec<KeyReference>,
    /// Keys of which the token did not say whether it made them.
    doubtful: Vec<KeySpecification>,
    secrets: Vec<String>,
}

impl<'a> TestKeys<'a> {
    pub(super) fn new(token: &'a mut dyn Token) -> Self {
        TestKeys {
            token,
            keys: Vec::new(),
            doubtful: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// Deletes what is left. Gives what could not be deleted, with the reason.
    pub(super) fn clean_up(mut self) -> Vec<String> {
        let mut left = Vec::new();
        for specification in std::mem::take(&mut self.doubtful) {
            match self.token.find_by_id(&specification.id) {
                Ok(Some(key)) => self.keys.push(key.reference()),
                Ok(None) => {}
                Err(error) => left.push(named(
                    "key",
                    &specification.label,
                    &specification.id,
                    &error,
                )),
            }
        }
        for key in std::mem::take(&mut self.keys) {
            match self.token.destroy(&key) {
                // It went although the token had said otherwise, or not at all.
                Ok(()) | Err(TokenError::Key { .. }) => {}
                Err(error) => left.push(named("key", &key.label, &key.id, &error)),
            }
        }
        for label in std::mem::take(&mut self.secrets) {
            match self.token.destroy_secret(&label) {
                Ok(()) => {}
                Err(error) => left.push(named("secret", &label, &[], &error)),
            }
        }
        left
    }
}

fn named(what: &str, label: &str, id: &[u8], error: &TokenError) -> String {
    let id = match id {
        [] => String::new(),
        id => format!(", id {}", hex::encode(id)),
    };
    format!("{what} {label:?}{id}: {error}")
}

/// Whether the token may have done what it says it has not.
fn is_doubtful(error: &TokenError) -> bool {
    matches!(
        error,
        TokenError::Unavailable { .. } | TokenError::Deadline { .. }
    )
}

impl Token for TestKeys<'_> {
    fn describe(&mut self) -> Result<TokenDescription, TokenError> {
        self.token.describe()
    }

    fn find(&mut self, reference: &KeyReference) -> Result<KeyDescription, TokenError> {
        self.token.find(reference)
    }

    fn find_by_id(&mut self, id: &[u8]) -> Result<Option<KeyDescription>, TokenError> {
        self.token.find_by_id(id)
    }

    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, TokenError> {
        let made = self.token.generate(specification);
        match &made {
            Ok(key) => self.keys.push(key.reference()),
            Err(error) if is_doubtful(error) => self.doubtful.push(specification.clone()),
            Err(_) => {}
        }
        made
    }

    fn sign(
        &mut self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        self.token.sign(key, algorithm, message)
    }

    fn destroy(&mut self, key: &KeyReference) -> Result<(), TokenError> {
        self.token.destroy(key)?;
        self.keys.retain(|made| made.spki != key.spki);
        Ok(())
    }

    fn sign_assertion(&mut self, key: &KeyReference, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.token.sign_assertion(key, input)
    }

    fn import_secret(&mut self, label: &str, secret: &SecretSlice<u8>) -> Result<(), TokenError> {
        let imported = self.token.import_secret(label, secret);
        let may_be_there = imported.as_ref().err().is_none_or(is_doubtful);
        if may_be_there && !self.secrets.iter().any(|made| made == label) {
            self.secrets.push(label.to_owned());
        }
        imported
    }

    fn hmac_sha256(&mut self, label: &str, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.token.hmac_sha256(label, message)
    }

    fn destroy_secret(&mut self, label: &str) -> Result<(), TokenError> {
        self.token.destroy_secret(label)?;
        self.secrets.retain(|made| made != label);
        Ok(())
    }
}
