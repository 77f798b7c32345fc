//! A token in memory, for unit tests only. Compiled out of every release build.
//!
//! Its keys are software keys of aws-lc-rs, and they die with it. Clones share the keys, as sessions
//! on one token do.

use super::credential::is_credential;
use super::{KeyDescription, KeyReference, KeySpecification, Token, TokenDescription, TokenError};
use crate::x509::key::{KeyType, SignatureAlgorithm};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use secrecy::{ExposeSecret, SecretSlice};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The token. Its name is its label, too.
#[derive(Clone)]
pub struct MemoryToken {
    name: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    keys: Vec<MemoryKey>,
    shared_secrets: HashMap<String, hmac::Key>,
    /// What every operation answers instead of being done.
    failure: Option<TokenError>,
    signatures: u64,
}

struct MemoryKey {
    description: KeyDescription,
    secret: Secret,
}

enum Secret {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl MemoryToken {
    /// An empty token.
    pub fn new(name: &str) -> Self {
        MemoryToken {
            name: name.to_owned(),
            state: Arc::default(),
        }
    }

    /// From now on every operation fails with `failure`; with `None` it works again.
    pub fn fail_with(&self, failure: Option<TokenError>) {
        self.state().failure = failure;
    }

    /// How many signatures it has made.
    pub fn signatures(&self) -> u64 {
        self.state().signatures
    }

    fn sign_for(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        for_credential: bool,
    ) -> Result<Vec<u8>, TokenError> {
        let mut state = self.working()?;
        let Some(found) = state.key(key) else {
            return Err(self.key_error(&key.label, "it is not on the token"));
        };
        if is_credential(&found.description.label) != for_credential {
            return Err(self.key_error(&key.label, "it is for something else"));
        }
        let signature = found
            .secret
            .sign(algorithm, message)
            .ok_or_else(|| self.key_error(&key.label, "it does not sign in this algorithm"))?;
        state.signatures += 1;
        Ok(signature)
    }

    fn working(&self) -> Result<MutexGuard<'_, State>, TokenError> {
        let state = self.state();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds the token")
    }

    fn refused(&self, operation: &str, reason: &str) -> TokenError {
        let (token, operation) = (self.name.clone(), operation.to_owned());
        TokenError::Refused {
            token,
            operation,
            reason: reason.to_owned(),
        }
    }

    fn key_error(&self, label: &str, reason: &str) -> TokenError {
        let (token, label) = (self.name.clone(), label.to_owned());
        TokenError::Key {
            token,
            label,
            reason: reason.to_owned(),
        }
    }
}

impl State {
    fn key(&self, reference: &KeyReference) -> Option<&MemoryKey> {
        self.keys.iter().find(|key| {
            let description = &key.description;
            let hinted = description.id == reference.id || description.label == reference.label;
            hinted && description.spki == reference.spki
        })
    }
}

impl Token for MemoryToken {
    fn describe(&mut self) -> Result<TokenDescription, TokenError> {
        drop(self.working()?);
        Ok(TokenDescription {
            label: self.name.clone(),
            serial: "0".to_owned(),
            manufacturer: "Hallmark".to_owned(),
            model: "memory, for tests".to_owned(),
            firmware: "0".to_owned(),
            interface: "none".to_owned(),
            mechanisms: vec!["all".to_owned()],
        })
    }

    fn find(&mut self, reference: &KeyReference) -> Result<KeyDescription, TokenError> {
        let state = self.working()?;
        let key = state.key(reference);
        key.map(|key| key.description.clone())
            .ok_or_else(|| self.key_error(&reference.label, "it is not on the token"))
    }

    fn find_by_id(&mut self, id: &[u8]) -> Result<Option<KeyDescription>, TokenError> {
        let state = self.working()?;
        let key = state.keys.iter().find(|key| key.description.id == id);
        Ok(key.map(|key| key.description.clone()))
    }

    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, TokenError> {
        let mut state = self.working()?;
        if state
            .keys
            .iter()
            .any(|key| key.description.id == specification.id)
        {
            return Err(self.refused("generate", "there is a key with this id"));
        }
        let (secret, spki) = Secret::generate(specification.key_type)
            .map_err(|_| self.refused("generate", "aws-lc-rs failed"))?;
        let description = KeyDescription {
            spki,
            label: specification.label.clone(),
            id: specification.id.clone(),
            sensitive: true,
            extractable: false,
            never_extractable: true,
            local: true,
            wrapped: None,
        };
        state.keys.push(MemoryKey {
            description: description.clone(),
            secret,
        });
        Ok(description)
    }

    fn sign(
        &mut self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        self.sign_for(key, algorithm, message, false)
    }

    fn destroy(&mut self, key: &KeyReference) -> Result<(), TokenError> {
        let mut state = self.working()?;
        let before = state.keys.len();
        state.keys.retain(|kept| kept.description.spki != key.spki);
        if state.keys.len() == before {
            return Err(self.key_error(&key.label, "it is not on the token"));
        }
        Ok(())
    }

    fn sign_assertion(&mut self, key: &KeyReference, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.sign_for(key, SignatureAlgorithm::RsaSha256, input, true)
    }

    fn import_secret(&mut self, label: &str, secret: &SecretSlice<u8>) -> Result<(), TokenError> {
        let mut state = self.working()?;
        if state.shared_secrets.contains_key(label) {
            return Err(self.refused("import a secret", "there is a secret with this label"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret());
        state.shared_secrets.insert(label.to_owned(), key);
        Ok(())
    }

    fn hmac_sha256(&mut self, label: &str, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let state = self.working()?;
        let key = state.shared_secrets.get(label);
        let key = key.ok_or_else(|| self.key_error(label, "it is not on the token"))?;
        Ok(hmac::sign(key, message).as_ref().to_vec())
    }

    fn destroy_secret(&mut self, label: &str) -> Result<(), TokenError> {
        let removed = self.working()?.shared_secrets.remove(label);
        removed
            .map(drop)
            .ok_or_else(|| self.key_error(label, "it is not on the token"))
    }
}

impl Secret {
    fn generate(key_type: KeyType) -> Result<(Self, Vec<u8>), aws_lc_rs::error::Unspecified> {
        let rsa = |size| {
            let key = RsaKeyPair::generate(size)?;
            let spki = key.public_key().as_der()?.as_ref().to_vec();
            Ok((Secret::Rsa(key), spki))
        };
        match key_type {
            KeyType::P256 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
                let spki = key.public_key().as_der()?.as_ref().to_vec();
                Ok((Secret::P256(key), spki))
            }
            KeyType::P384 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)?;
                let spki = key.public_key().as_der()?.as_ref().to_vec();
                Ok((Secret::P384(key), spki))
            }
            KeyType::Ed25519 => {
                let key = Ed25519KeyPair::generate()?;
                let spki = key.public_key().as_der()?.as_ref().to_vec();
                Ok((Secret::Ed25519(key), spki))
            }
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyType::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
        }
    }

    /// `None` when the key is of another kind.
    fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match (self, algorithm) {
            (Secret::P256(key), SignatureAlgorithm::EcdsaSha256)
            | (Secret::P384(key), SignatureAlgorithm::EcdsaSha384) => {
                Some(key.sign(&random, message).ok()?.as_ref().to_vec())
            }
            (Secret::Ed25519(key), SignatureAlgorithm::Ed25519) => {
                Some(key.sign(message).as_ref().to_vec())
            }
            (Secret::Rsa(key), SignatureAlgorithm::RsaSha256) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
            _ => None,
        }
    }
}
