//! PKCS#11 tokens, through their vendor's module.
//!
//! Loaded in a worker process only. [`Pkcs11Backend`] brings the module up and down and logs in;
//! each [`Pkcs11Token`] is one session of it.

mod backend;
pub(crate) mod fault;
mod halves;
mod key;
mod mechanism;
pub(crate) mod module;
pub(crate) mod raw;
mod remarks;
mod secret;
mod spki;

pub(crate) use backend::Pkcs11Backend;

use super::credential::is_credential;
use super::inventory::Inventory;
use super::{KeyDescription, KeyReference, KeySpecification, Token, TokenDescription, TokenError};
use crate::x509::key::SignatureAlgorithm;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use fault::{Class, Fault};
use halves::{Look, clear_half_made};
use key::KeyPair;
use mechanism::Mechanisms;
use raw::TokenReader;
use remarks::Remarks;
use secrecy::SecretSlice;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One session on a PKCS#11 token.
struct Pkcs11Token {
    name: String,
    slot: Slot,
    serial: String,
    reader: TokenReader,
    session: Session,
    mechanisms: Mechanisms,
    takes_purposes: bool,
    description: TokenDescription,
    /// Keys found on this session, by their public keys. A handle is good for the session it was
    /// found on (PKCS#11 3.0, section 3.3), and dies with a logout; sessions are new after that.
    handles: HashMap<Vec<u8>, KeyPair>,
    /// Shared secrets found on this session, by label.
    secrets: HashMap<String, ObjectHandle>,
    destroyed: Arc<AtomicU64>,
    destroyed_seen: u64,
    /// What was found out about keys, told by the backend.
    remarks: Remarks,
}

impl Pkcs11Token {
    fn look(&self) -> Look<'_> {
        Look {
            session: &self.session,
            mechanisms: &self.mechanisms,
        }
    }

    /// The key, from the cache or looked for.
    fn pair(&mut self, reference: &KeyReference) -> Result<&KeyPair, Fault> {
        self.forget_destroyed();
        if !self.handles.contains_key(&reference.spki) {
            let Some(found) = key::find(self.look(), reference)? else {
                return Err(self.absent());
            };
            self.remarks.note(reference, found.remark);
            self.handles.insert(reference.spki.clone(), found.pair);
        }
        Ok(&self.handles[&reference.spki])
    }

    /// The shared secret, from the cache or looked for.
    fn secret(&mut self, label: &str) -> Result<ObjectHandle, Fault> {
        self.forget_destroyed();
        if let Some(secret) = self.secrets.get(label) {
            return Ok(*secret);
        }
        let secret = secret::find(&self.session, label)?.ok_or_else(|| self.absent())?;
        self.secrets.insert(label.to_owned(), secret);
        Ok(secret)
    }

    /// Drops all cached handles if another session has deleted something since.
    fn forget_destroyed(&mut self) {
        let destroyed = self.destroyed.load(Ordering::Acquire);
        if destroyed != std::mem::replace(&mut self.destroyed_seen, destroyed) {
            self.handles.clear();
            self.secrets.clear();
        }
    }

    /// Why nothing was found: the key is missing, or the token is. A vanished token finds nothing
    /// and reports no error; only what it says of itself tells.
    fn absent(&self) -> Fault {
        match self.reader.information(self.slot) {
            Err(error) => error.into(),
            Ok(now) if now.serial != self.serial => Fault::device("another token is in the slot"),
            Ok(_) => Fault::key("it is not on the token"),
        }
    }

    fn take_stock(&self) -> Result<Inventory, Fault> {
        let token = self.reader.information(self.slot)?;
        let mut inventory = Inventory {
            remarks: token.remarks(),
            sessions_open: token.sessions,
            sessions_max: token.sessions_max,
            pin_bytes: token.pin_bytes,
            ..Inventory::default()
        };
        key::list(self.look(), &mut inventory)?;
        Ok(inventory)
    }

    fn find_key(&mut self, reference: &KeyReference) -> Result<KeyDescription, Fault> {
        let pair = self.pair(reference)?.clone();
        key::describe(&self.session, &pair)
    }

    fn find_key_by_id(&mut self, id: &[u8]) -> Result<Option<KeyDescription>, Fault> {
        if id.is_empty() {
            return Err(Fault::refused("an empty id names no key"));
        }
        match key::find_by_id(self.look(), id)? {
            Some(pair) => Ok(Some(key::describe(&self.session, &pair)?)),
            None => match self.absent() {
                Fault {
                    class: Class::Key, ..
                } => Ok(None),
                fault => Err(fault),
            },
        }
    }

    fn generate_key(&mut self, specification: &KeySpecification) -> Result<KeyDescription, Fault> {
        if specification.id.is_empty() {
            return Err(Fault::refused("an empty id names no key"));
        }
        match self.absent() {
            Fault {
                class: Class::Key, ..
            } => {}
            fault => return Err(fault),
        }
        if clear_half_made(self.look(), specification)? {
            self.destroyed.fetch_add(1, Ordering::Release);
        }
        let pair = key::generate(
            &self.session,
            &self.mechanisms,
            specification,
            self.takes_purposes,
        )?;
        key::describe(&self.session, &pair)
    }

    /// Signs with a key for certificates, or with one for credentials, and never with the other.
    fn sign_message(
        &mut self,
        reference: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        for_credential: bool,
    ) -> Result<Vec<u8>, Fault> {
        let pair = self.pair(reference)?;
        let (private, own) = (pair.private, pair.algorithm);
        match (is_credential(&pair.label), for_credential) {
            (true, false) => return Err(Fault::key("it is a credential's and signs nothing else")),
            (false, true) => return Err(Fault::key("it is not a credential's")),
            _ => {}
        }
        // SoftHSM answers a key of another kind with CKR_GENERAL_ERROR, like a token that is lost.
        if own != Some(algorithm) {
            return Err(Fault::key(format!("it does not sign in {algorithm:?}")));
        }
        self.look().sign(private, algorithm, message)
    }

    fn destroy_key(&mut self, reference: &KeyReference) -> Result<(), Fault> {
        let pair = self.pair(reference)?.clone();
        // Before the objects go: another session must not sign with a handle given to a new key.
        self.destroyed.fetch_add(1, Ordering::Release);
        self.remarks.note(reference, None);
        key::destroy(&self.session, &pair)
    }

    fn import(&mut self, label: &str, secret: &SecretSlice<u8>) -> Result<(), Fault> {
        if secret::find(&self.session, label)?.is_some() {
            return Err(Fault::refused("there is a secret with this label"));
        }
        match self.absent() {
            Fault {
                class: Class::Key, ..
            } => secret::import(&self.session, &self.mechanisms, label, secret),
            fault => Err(fault),
        }
    }

    fn hmac(&mut self, label: &str, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let secret = self.secret(label)?;
        secret::hmac_sha256(&self.session, &self.mechanisms, secret, message)
    }

    fn destroy_shared(&mut self, label: &str) -> Result<(), Fault> {
        let secret = self.secret(label)?;
        self.destroyed.fetch_add(1, Ordering::Release);
        Ok(self.session.destroy_object(secret)?)
    }
}

impl Token for Pkcs11Token {
    fn describe(&mut self) -> Result<TokenDescription, TokenError> {
        match self.reader.information(self.slot) {
            Ok(_) => Ok(self.description.clone()),
            Err(error) => Err(Fault::from(error).into_error(&self.name, "describe", "")),
        }
    }

    fn inventory(&mut self) -> Result<Inventory, TokenError> {
        self.take_stock()
            .map_err(|fault| fault.into_error(&self.name, "list keys", ""))
    }

    fn find(&mut self, reference: &KeyReference) -> Result<KeyDescription, TokenError> {
        self.find_key(reference)
            .map_err(|fault| fault.into_error(&self.name, "find", &reference.label))
    }

    fn find_by_id(&mut self, id: &[u8]) -> Result<Option<KeyDescription>, TokenError> {
        self.find_key_by_id(id)
            .map_err(|fault| fault.into_error(&self.name, "find by id", &hex::encode(id)))
    }

    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, TokenError> {
        self.generate_key(specification)
            .map_err(|fault| fault.into_error(&self.name, "generate", &specification.label))
    }

    fn sign(
        &mut self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        self.sign_message(key, algorithm, message, false)
            .map_err(|fault| fault.into_error(&self.name, "sign", &key.label))
    }

    fn destroy(&mut self, key: &KeyReference) -> Result<(), TokenError> {
        self.destroy_key(key)
            .map_err(|fault| fault.into_error(&self.name, "destroy", &key.label))
    }

    fn sign_assertion(&mut self, key: &KeyReference, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.sign_message(key, SignatureAlgorithm::RsaSha256, input, true)
            .map_err(|fault| fault.into_error(&self.name, "sign an assertion", &key.label))
    }

    fn import_secret(&mut self, label: &str, secret: &SecretSlice<u8>) -> Result<(), TokenError> {
        self.import(label, secret)
            .map_err(|fault| fault.into_error(&self.name, "import a secret", label))
    }

    fn hmac_sha256(&mut self, label: &str, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.hmac(label, message)
            .map_err(|fault| fault.into_error(&self.name, "compute an HMAC", label))
    }

    fn destroy_secret(&mut self, label: &str) -> Result<(), TokenError> {
        self.destroy_shared(label)
            .map_err(|fault| fault.into_error(&self.name, "destroy a secret", label))
    }
}
