//! Implements a token in memory, for unit tests only. Release builds do not contain it.
//!
//! Its keys are software keys of aws-lc-rs, and end with it. Clones share the keys, like sessions
//! on one token.

use crate::fault::Fault;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::key::{KeyType, SignatureAlgorithm};
use hallmark_protocol::operation::{Answer, Operation, Token};
use hallmark_protocol::signature_use::SignatureUse;
use hallmark_protocol::{
    KeyDescription, KeyReference, KeySpecification, TokenDescription, TokenError,
};
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The token. Its name is also its label.
#[derive(Clone)]
pub struct MemoryToken {
    name: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    keys: Vec<MemoryKey>,
    shared_secrets: HashMap<String, hmac::Key>,
    /// The error that every operation returns, if set.
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
    P521(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl MemoryToken {
    /// Makes a token without keys.
    pub fn new(name: &str) -> Self {
        MemoryToken {
            name: name.to_owned(),
            state: Arc::default(),
        }
    }

    /// Lets every operation fail with `failure`; with `None` the token works again.
    pub fn fail_with(&self, failure: Option<TokenError>) {
        self.state().failure = failure;
    }

    /// Returns how many signatures it has made.
    pub fn signatures(&self) -> u64 {
        self.state().signatures
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds the token")
    }

    fn description(&self) -> TokenDescription {
        TokenDescription {
            label: self.name.clone(),
            serial: "0".to_owned(),
            manufacturer: "Hallmark".to_owned(),
            model: "memory, for tests".to_owned(),
            firmware: "0".to_owned(),
            interface: "none".to_owned(),
            mechanisms: vec!["all".to_owned()],
        }
    }

    fn answer(&self, state: &mut State, operation: &Operation) -> Result<Answer, Fault> {
        match operation {
            Operation::Describe => Ok(Answer::Token(self.description())),
            Operation::Inventory => Err(Fault::refused("it cannot list its keys")),
            Operation::Find(key) => state
                .key(key)
                .map(|found| Answer::Key(found.description.clone())),
            Operation::FindById(id) => Ok(Answer::Found(state.find_by_id(id).cloned())),
            Operation::Generate(specification) => state.generate(specification).map(Answer::Key),
            Operation::Sign {
                key,
                algorithm,
                message,
            } => state
                .sign(key, *algorithm, message, SignatureUse::Certificate)
                .map(Answer::Signature),
            Operation::SignAnswer {
                key,
                algorithm,
                answer,
            } => state
                .sign(key, *algorithm, answer, SignatureUse::Answer)
                .map(Answer::Signature),
            Operation::SignCheckpoint {
                key,
                algorithm,
                checkpoint,
            } => state
                .sign(key, *algorithm, checkpoint, SignatureUse::Checkpoint)
                .map(Answer::Signature),
            Operation::Prove(_) | Operation::CountSignatures => {
                Err(Fault::refused("the worker does it"))
            }
            Operation::Destroy(key) => state.destroy(key).map(Answer::Done),
            Operation::SignAssertion { key, input } => state
                .sign(
                    key,
                    SignatureAlgorithm::RsaSha256,
                    input,
                    SignatureUse::Assertion,
                )
                .map(Answer::Signature),
            Operation::Hmac { label, text } => match state.shared_secrets.get(label) {
                Some(key) => Ok(Answer::Signature(hmac::sign(key, text).as_ref().to_vec())),
                None => Err(absent()),
            },
            Operation::ImportSecret { label, secret } => state
                .import(label, secret.expose().expose_secret())
                .map(Answer::Done),
            Operation::DestroySecret(label) => state
                .shared_secrets
                .remove(label)
                .map(|_| Answer::Done(()))
                .ok_or_else(absent),
        }
    }
}

impl Token for MemoryToken {
    fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError> {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        self.answer(&mut state, operation)
            .map_err(|fault| fault.into_error(&self.name, operation.name(), &operation.subject()))
    }
}

fn absent() -> Fault {
    Fault::key("it is not on the token")
}

impl State {
    fn key(&self, reference: &KeyReference) -> Result<&MemoryKey, Fault> {
        let is_it = |key: &&MemoryKey| {
            let description = &key.description;
            let hinted = description.id == reference.id || description.label == reference.label;
            hinted && description.spki == reference.spki
        };
        self.keys.iter().find(is_it).ok_or_else(absent)
    }

    fn find_by_id(&self, id: &[u8]) -> Option<&KeyDescription> {
        self.keys
            .iter()
            .map(|key| &key.description)
            .find(|description| description.id == id)
    }

    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, Fault> {
        if self.find_by_id(&specification.id).is_some() {
            return Err(Fault::refused("there is a key with this id"));
        }
        let (secret, spki) = Secret::generate(specification.key_type)
            .map_err(|_| Fault::refused("aws-lc-rs failed"))?;
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
        self.keys.push(MemoryKey {
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
        signature_use: SignatureUse,
    ) -> Result<Vec<u8>, Fault> {
        let found = self.key(key)?;
        if let Some(objection) = signature_use.objection(&found.description.label, message) {
            return Err(Fault::key(objection));
        }
        let signature = found.secret.sign(algorithm, message);
        let signature =
            signature.ok_or_else(|| Fault::key("it does not sign in this algorithm"))?;
        self.signatures += 1;
        Ok(signature)
    }

    fn destroy(&mut self, key: &KeyReference) -> Result<(), Fault> {
        let before = self.keys.len();
        self.keys.retain(|kept| kept.description.spki != key.spki);
        if self.keys.len() == before {
            return Err(absent());
        }
        Ok(())
    }

    fn import(&mut self, label: &str, secret: &[u8]) -> Result<(), Fault> {
        if self.shared_secrets.contains_key(label) {
            return Err(Fault::refused("there is a secret with this label"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        self.shared_secrets.insert(label.to_owned(), key);
        Ok(())
    }
}

impl Secret {
    fn generate(key_type: KeyType) -> Result<(Self, Der), aws_lc_rs::error::Unspecified> {
        let rsa = |size| {
            let key = RsaKeyPair::generate(size)?;
            let spki = key.public_key().as_der()?.as_ref().into();
            Ok((Secret::Rsa(key), spki))
        };
        match key_type {
            KeyType::P256 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
                let spki = key.public_key().as_der()?.as_ref().into();
                Ok((Secret::P256(key), spki))
            }
            KeyType::P384 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)?;
                let spki = key.public_key().as_der()?.as_ref().into();
                Ok((Secret::P384(key), spki))
            }
            KeyType::P521 => {
                let key = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_ASN1_SIGNING)?;
                let spki = key.public_key().as_der()?.as_ref().into();
                Ok((Secret::P521(key), spki))
            }
            KeyType::Ed25519 => {
                let key = Ed25519KeyPair::generate()?;
                let spki = key.public_key().as_der()?.as_ref().into();
                Ok((Secret::Ed25519(key), spki))
            }
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyType::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
        }
    }

    /// Returns `None` if the key is of another type.
    fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match (self, algorithm) {
            (Secret::P256(key), SignatureAlgorithm::EcdsaSha256)
            | (Secret::P384(key), SignatureAlgorithm::EcdsaSha384)
            | (Secret::P521(key), SignatureAlgorithm::EcdsaSha512) => {
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
