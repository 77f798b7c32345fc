//! Uses a PKCS#11 token through its vendor's module.
//!
//! Only a worker process loads a module. [`Pkcs11Backend`] starts and stops the module and logs in;
//! each [`Pkcs11Token`] is one session.

mod backend;
pub(crate) mod environment;
pub(crate) mod fault;
mod halves;
mod key;
mod mechanism;
pub(crate) mod module;
pub(crate) mod raw;
mod remarks;
mod secret;
mod signature_login;
mod spki;

pub(crate) use backend::Pkcs11Backend;

use cryptoki::context::Pkcs11;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use fault::{Class, Fault, WRITE_PROTECTED};
use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::key::SignatureAlgorithm;
use hallmark_protocol::inventory::Inventory;
use hallmark_protocol::operation::{Answer, Operation, Token};
use hallmark_protocol::signature_use::SignatureUse;
use hallmark_protocol::{
    KeyDescription, KeyReference, KeySpecification, TokenDescription, TokenError,
};
use halves::{SigningSession, clear_half_made};
use key::KeyPair;
use mechanism::Mechanisms;
use module::open_session;
use raw::TokenReader;
use remarks::Remarks;
use secrecy::SecretSlice;
use signature_login::SignatureLogin;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// One session on a PKCS#11 token.
struct Pkcs11Token {
    name: String,
    slot: Slot,
    serial: String,
    context: Pkcs11,
    reader: TokenReader,
    session: Session,
    is_read_only: bool,
    signature_login: SignatureLogin,
    mechanisms: Mechanisms,
    takes_purposes: bool,
    description: TokenDescription,
    /// Keys found on this session, by their public keys. A handle is valid on the session on which
    /// it was found (PKCS#11 3.0, section 3.3) until the logout; sessions are new after that.
    handles: HashMap<Der, KeyPair>,
    /// Shared secrets found on this session, by label.
    secrets: HashMap<String, ObjectHandle>,
    destroyed: Arc<AtomicU64>,
    destroyed_seen: u64,
    /// Held to write while the objects of the token change, by a family whose sessions disturb each
    /// other (`changes_alone`), and to read by every other operation; `None` for other families.
    changes: Option<Arc<RwLock<()>>>,
    /// Remarks about keys, which the backend reports.
    remarks: Remarks,
}

impl Pkcs11Token {
    fn signing(&self) -> SigningSession<'_> {
        SigningSession {
            session: &self.session,
            mechanisms: &self.mechanisms,
            reader: &self.reader,
            login: &self.signature_login,
        }
    }

    /// Returns the key from the cache, or finds it.
    fn pair(&mut self, reference: &KeyReference) -> Result<&KeyPair, Fault> {
        self.forget_destroyed();
        if !self.handles.contains_key(&reference.spki) {
            let Some(found) = key::find(self.signing(), reference)? else {
                return Err(self.absent());
            };
            self.remarks.note(reference, found.remark);
            self.handles.insert(reference.spki.clone(), found.pair);
        }
        Ok(&self.handles[&reference.spki])
    }

    /// Returns the shared secret from the cache, or finds it.
    fn secret(&mut self, label: &str) -> Result<ObjectHandle, Fault> {
        self.forget_destroyed();
        if let Some(secret) = self.secrets.get(label) {
            return Ok(*secret);
        }
        let secret = secret::find(&self.session, label)?.ok_or_else(|| self.absent())?;
        self.secrets.insert(label.to_owned(), secret);
        Ok(secret)
    }

    /// Drops all cached handles if another session has deleted an object since.
    fn forget_destroyed(&mut self) {
        let destroyed = self.destroyed.load(Ordering::Acquire);
        if destroyed != std::mem::replace(&mut self.destroyed_seen, destroyed) {
            self.handles.clear();
            self.secrets.clear();
        }
    }

    /// Returns why no object was found: the key is missing, or the token is. A removed token finds
    /// no objects and returns no error, so its information is read again.
    fn absent(&self) -> Fault {
        match self.reader.information(self.slot) {
            Err(error) => error.into(),
            Ok(now) if now.serial != self.serial => Fault::device("another token is in the slot"),
            Ok(_) => Fault::key("it is not on the token"),
        }
    }

    /// Fails if the token is write-protected. Opens another session if it is not any more.
    fn require_writable(&mut self) -> Result<(), Fault> {
        if !self.is_read_only {
            return Ok(());
        }
        let opened = open_session(&self.context, &self.reader, self.slot)?;
        if opened.is_read_only {
            return Err(Fault::refused(WRITE_PROTECTED));
        }
        self.session = opened.session;
        self.is_read_only = false;
        self.handles.clear();
        self.secrets.clear();
        Ok(())
    }

    fn answer(&mut self, operation: &Operation) -> Result<Answer, Fault> {
        // An operation that must not be performed twice changes the token's objects.
        if !operation.is_repeatable() {
            self.require_writable()?;
        }
        match operation {
            Operation::Describe => self.describe().map(Answer::Token),
            Operation::Inventory => self.inventory().map(Answer::Inventory),
            Operation::Find(key) => self.find(key).map(Answer::Key),
            Operation::FindById(id) => self.find_by_id(id).map(Answer::Found),
            Operation::Generate(specification) => self.generate(specification).map(Answer::Key),
            Operation::Sign {
                key,
                algorithm,
                message,
            } => self
                .sign(key, *algorithm, message, SignatureUse::Certificate)
                .map(Answer::Signature),
            Operation::SignAnswer {
                key,
                algorithm,
                answer,
            } => self
                .sign(key, *algorithm, answer, SignatureUse::Answer)
                .map(Answer::Signature),
            Operation::SignCheckpoint {
                key,
                algorithm,
                checkpoint,
            } => self
                .sign(key, *algorithm, checkpoint, SignatureUse::Checkpoint)
                .map(Answer::Signature),
            Operation::Prove(_) | Operation::CountSignatures => {
                Err(Fault::refused("the worker does it"))
            }
            Operation::Destroy(key) => self.destroy(key).map(Answer::Done),
            Operation::SignAssertion { key, input } => self
                .sign(
                    key,
                    SignatureAlgorithm::RsaSha256,
                    input,
                    SignatureUse::Assertion,
                )
                .map(Answer::Signature),
            Operation::Hmac { label, text } => self.hmac(label, text).map(Answer::Signature),
            Operation::ImportSecret { label, secret } => {
                self.import(label, &secret.expose()).map(Answer::Done)
            }
            Operation::DestroySecret(label) => self.destroy_secret(label).map(Answer::Done),
        }
    }

    fn describe(&self) -> Result<TokenDescription, Fault> {
        self.reader.information(self.slot)?;
        Ok(self.description.clone())
    }

    fn inventory(&self) -> Result<Inventory, Fault> {
        let token = self.reader.information(self.slot)?;
        let mut inventory = Inventory {
            remarks: token.remarks(),
            sessions_open: token.sessions,
            sessions_max: token.sessions_max,
            pin_bytes: token.pin_bytes,
            ..Inventory::default()
        };
        key::list(self.signing(), &mut inventory)?;
        Ok(inventory)
    }

    fn find(&mut self, reference: &KeyReference) -> Result<KeyDescription, Fault> {
        let pair = self.pair(reference)?.clone();
        key::describe(&self.session, &pair)
    }

    fn find_by_id(&mut self, id: &[u8]) -> Result<Option<KeyDescription>, Fault> {
        if id.is_empty() {
            return Err(Fault::refused("an empty id names no key"));
        }
        match key::find_by_id(self.signing(), id)? {
            Some(pair) => Ok(Some(key::describe(&self.session, &pair)?)),
            None => match self.absent() {
                Fault {
                    class: Class::Key, ..
                } => Ok(None),
                fault => Err(fault),
            },
        }
    }

    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, Fault> {
        if specification.id.is_empty() {
            return Err(Fault::refused("an empty id names no key"));
        }
        match self.absent() {
            Fault {
                class: Class::Key, ..
            } => {}
            fault => return Err(fault),
        }
        if clear_half_made(self.signing(), specification)? {
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

    /// Signs with a key for this use. Refuses a key for another one.
    fn sign(
        &mut self,
        reference: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature_use: SignatureUse,
    ) -> Result<Vec<u8>, Fault> {
        let pair = self.pair(reference)?;
        let private = pair.private;
        let own = pair.algorithm;
        if let Some(objection) = signature_use.objection(&pair.label, message) {
            return Err(Fault::key(objection));
        }
        // SoftHSM returns CKR_GENERAL_ERROR for a key of another type, as for a lost token.
        if own != Some(algorithm) {
            return Err(Fault::key(format!("it does not sign in {algorithm:?}")));
        }
        self.signing().sign(private, algorithm, message)
    }

    fn destroy(&mut self, reference: &KeyReference) -> Result<(), Fault> {
        let pair = self.pair(reference)?.clone();
        // Before the deletion: another session must not sign with a handle that a new key may get.
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

    fn destroy_secret(&mut self, label: &str) -> Result<(), Fault> {
        let secret = self.secret(label)?;
        self.destroyed.fetch_add(1, Ordering::Release);
        Ok(self.session.destroy_object(secret)?)
    }
}

impl Token for Pkcs11Token {
    fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError> {
        let changes = self.changes.clone();
        let changes = changes.as_deref();
        // The operations that make or delete objects are those that must not be performed twice.
        let _alone;
        let _beside;
        if operation.is_repeatable() {
            _beside = changes.map(|it| it.read().unwrap_or_else(PoisonError::into_inner));
        } else {
            _alone = changes.map(|it| it.write().unwrap_or_else(PoisonError::into_inner));
        }
        self.answer(operation)
            .map_err(|fault| fault.into_error(&self.name, operation.name(), &operation.subject()))
    }
}
