//! The operations on credential keys, asked of a worker.

use super::TokenClient;
use crate::token::credential::SecretBytes;
use crate::token::protocol::{Answer, Operation};
use crate::token::{KeyReference, TokenError};
use secrecy::SecretSlice;
use std::time::Duration;

impl TokenClient {
    /// [`Token::sign_assertion`](crate::token::Token::sign_assertion).
    pub fn sign_assertion(
        &self,
        key: &KeyReference,
        input: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        let (key, input) = (key.clone(), input.to_vec());
        match self.call(Operation::SignAssertion { key, input }, deadline)? {
            Answer::Signature(signature) => Ok(signature),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::hmac_sha256`](crate::token::Token::hmac_sha256), over the text of a shared access
    /// signature and nothing else.
    pub fn hmac_sha256(
        &self,
        label: &str,
        text: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        let (label, text) = (label.to_owned(), text.to_vec());
        match self.call(Operation::Hmac { label, text }, deadline)? {
            Answer::Signature(code) => Ok(code),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::import_secret`](crate::token::Token::import_secret).
    pub fn import_secret(
        &self,
        label: &str,
        secret: &SecretSlice<u8>,
        deadline: Duration,
    ) -> Result<(), TokenError> {
        let (label, secret) = (label.to_owned(), SecretBytes::new(secret));
        match self.call(Operation::ImportSecret { label, secret }, deadline)? {
            Answer::Imported => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::destroy_secret`](crate::token::Token::destroy_secret).
    pub fn destroy_secret(&self, label: &str, deadline: Duration) -> Result<(), TokenError> {
        match self.call(Operation::DestroySecret(label.to_owned()), deadline)? {
            Answer::Destroyed => Ok(()),
            _ => Err(self.nonsense()),
        }
    }
}
