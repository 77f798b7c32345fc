//! Tokens: where private keys live, and the worker processes that hold them.
//!
//! [`Token`] is the one trait; `pkcs11` implements it on a PKCS#11 module, [`tpm`] on a TPM 2.0. Only a
//! worker process ([`worker`]) ever talks to a token or holds a PIN; `serve` talks to it through [`client`], over the
//! frames of `protocol`, and on a developer's machine starts it through [`supervisor`].
//!
//! | module | in which process | what for |
//! |---|---|---|
//! | [`configuration`], [`fragment`] | both | what was said of a token, and what its family needs |
//! | [`credential`] | both | keys that open the cloud's doors, and what they may sign |
//! | [`client`], [`supervisor`] | serve | ask a worker; keep one running |
//! | [`worker`], `pkcs11`, [`tpm`], `pin` | worker | signer threads, the recovery ladder, the token, the PIN |
//! | `fault`, `encoding` | worker | failures by class; keys and signatures in DER |
//! | `protocol`, `frame_writer` | both | frames, and few system calls for many of them |
//! | [`contract`], `test_keys`, `key_proof` | both | what every token must do; throw-away keys; test signatures |
//! | [`inventory`], [`probe`] | both; a process for one question | what is on a token; what a module shows |
//! | [`key_uri`] | serve | which key an operator means |
//! | [`initialize`], [`bench`] | commands | make a new token; measure one |

mod backend;
pub mod bench;
pub mod client;
pub mod configuration;
pub mod contract;
pub mod credential;
mod encoding;
mod fault;
mod frame_writer;
pub mod initialize;
pub mod inventory;
mod key_proof;
pub mod key_uri;
#[cfg(any(test, debug_assertions))]
pub mod memory;
mod pin;
mod pkcs11;
pub mod probe;
mod protocol;
pub mod supervisor;
mod test_keys;
pub mod tpm;
pub mod worker;

use crate::x509::key::{KeyType, SignatureAlgorithm};
pub use hallmark_base::fragment;
use inventory::Inventory;
use secrecy::SecretSlice;
use serde::{Deserialize, Serialize};

/// How a private key is found again: by its public key, and where to look first.
///
/// The public key binds; `label` and `id` are hints (two keys may share a label, and anyone may
/// write a public-key object with any id).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyReference {
    /// DER SubjectPublicKeyInfo, as it is on record.
    pub spki: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// The key itself, where the token keeps it outside ([`KeyDescription::wrapped`]).
    pub wrapped: Option<Vec<u8>>,
}

/// What a new key shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpecification {
    /// Its kind.
    pub key_type: KeyType,
    /// `CKA_LABEL`, for people.
    pub label: String,
    /// `CKA_ID`, random, chosen and recorded by the caller *before* the key exists: a crash
    /// between generation and record is then healed by looking for it.
    pub id: Vec<u8>,
}

/// A key that exists on the token: its public half, and what the token says of the private one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDescription {
    /// DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_SENSITIVE`, read back.
    pub sensitive: bool,
    /// `CKA_EXTRACTABLE`, read back.
    pub extractable: bool,
    /// `CKA_NEVER_EXTRACTABLE`, read back.
    pub never_extractable: bool,
    /// `CKA_LOCAL`, read back: made on this token, never imported.
    pub local: bool,
    /// The key itself, encrypted by the token for itself and nobody else; `None` for a token that
    /// keeps its keys inside. Whoever makes a key MUST keep this: the token does not. At most
    /// [`WRAPPED_BYTES_MAX`].
    pub wrapped: Option<Vec<u8>>,
}

/// Longest wrapped key. An RSA-3072 key of a TPM takes some 900 bytes.
pub const WRAPPED_BYTES_MAX: usize = 2048;

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDescription {
    /// Token label, trailing padding removed.
    pub label: String,
    /// Token serial number.
    pub serial: String,
    /// Manufacturer of the token.
    pub manufacturer: String,
    /// Model of the token.
    pub model: String,
    /// Firmware version.
    pub firmware: String,
    /// The module or TPM interface in use, with its own version.
    pub interface: String,
    /// Names of the mechanisms it lists.
    pub mechanisms: Vec<String>,
}

impl KeyDescription {
    /// The reference by which this key is found again.
    pub fn reference(&self) -> KeyReference {
        KeyReference {
            spki: self.spki.clone(),
            label: self.label.clone(),
            id: self.id.clone(),
            wrapped: self.wrapped.clone(),
        }
    }
}

/// SHA-256 of a DER SubjectPublicKeyInfo, as people compare keys.
pub fn spki_sha256(spki: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// The contract of every token; [`contract`] runs it against each backend.
///
/// One value is used by one thread. MUST NOT create, replace or delete a key except in the
/// operations that say so, whatever a lookup returned: "find returned nothing" is not "the key is
/// gone".
///
/// The operations down to [`destroy`](Token::destroy) are for keys that sign certificates. Those
/// below it are for credentials ([`credential`]) and MUST NOT touch any other key.
pub trait Token: Send {
    /// What the token says of itself; works without any key.
    fn describe(&mut self) -> Result<TokenDescription, TokenError>;

    /// What is on the token. MUST NOT change anything. Refused by those that cannot tell.
    fn inventory(&mut self) -> Result<Inventory, TokenError> {
        Err(TokenError::Refused {
            token: String::new(),
            operation: "list keys".to_owned(),
            reason: "it cannot list its keys".to_owned(),
        })
    }

    /// The key that `reference` names. MUST refuse when two keys match.
    fn find(&mut self, reference: &KeyReference) -> Result<KeyDescription, TokenError>;

    /// A key by its `CKA_ID` alone: a ceremony takes up the key that an interrupted one made. MUST
    /// give only a finished key: both halves are there, and a test signature verifies. A token that
    /// keeps its keys outside has none to find: a key that was not recorded is gone.
    fn find_by_id(&mut self, id: &[u8]) -> Result<Option<KeyDescription>, TokenError>;

    /// Makes a key pair: sensitive, non-extractable, persistent. MUST read the attributes back.
    ///
    /// MUST remove what an interrupted generation of this very key has left, and nothing else: the
    /// caller chose the id at random and recorded it before, so half a key pair with this id, this
    /// label and this kind is ours. MUST refuse when a finished key has the id, or when it is in
    /// doubt whose a private key with this id is.
    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, TokenError>;

    /// Signs `message` (not a digest). ECDSA signatures come back as DER `Ecdsa-Sig-Value`. MUST
    /// refuse a key whose own label, read from the token, is a credential's.
    fn sign(
        &mut self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, TokenError>;

    /// Deletes a key pair. Called by ceremonies and by the contract check only. Of a key that is kept
    /// outside, the caller MUST forget the reference: it is the key.
    fn destroy(&mut self, key: &KeyReference) -> Result<(), TokenError>;

    /// Signs a client assertion with RSA (PKCS #1 v1.5) and SHA-256. MUST refuse a key whose own
    /// label, read from the token, is not a credential's.
    fn sign_assertion(&mut self, key: &KeyReference, input: &[u8]) -> Result<Vec<u8>, TokenError>;

    /// Puts a shared secret into the token, once: sensitive, non-extractable, persistent. MUST read
    /// the attributes back, and refuse a label that is taken.
    fn import_secret(&mut self, label: &str, secret: &SecretSlice<u8>) -> Result<(), TokenError>;

    /// HMAC-SHA256 over `message`, with the secret of this label. MUST refuse when there are two.
    fn hmac_sha256(&mut self, label: &str, message: &[u8]) -> Result<Vec<u8>, TokenError>;

    /// Deletes a shared secret. Called by an operator's command and by the contract check only.
    fn destroy_secret(&mut self, label: &str) -> Result<(), TokenError>;
}

/// A rung of the recovery ladder, lowest first. What is above them, killing the worker and starting
/// it again, is done from outside: by [`supervisor`] or by systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryLevel {
    /// A new session in place of the broken one.
    Session,
    /// Log out, log in, and find the keys again.
    Login,
    /// Drop everything, `C_Finalize`, `C_Initialize`, log in, and find the keys again.
    Initialize,
}

/// Why a token did not do it, told by what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TokenError {
    /// Token absent, worker gone, device error: try later, the ladder is at work.
    #[error("token {token} is unavailable: {reason}")]
    Unavailable {
        /// The token's name in the configuration.
        token: String,
        /// What happened, for the operator.
        reason: String,
        /// The lowest rung that may heal it; `None` where climbing is no help or already under way.
        /// For the worker; everybody else only waits.
        level: Option<RecoveryLevel>,
    },
    /// No answer within the deadline. The token may have done it.
    #[error("token {token} did not answer {operation} within {deadline_ms} ms")]
    Deadline {
        /// The token's name in the configuration.
        token: String,
        /// What was asked.
        operation: String,
        /// How long was waited.
        deadline_ms: u64,
    },
    /// The PIN is wrong or locked: parked until the operator changes it.
    #[error("token {token} is parked: {reason}")]
    Parked {
        /// The token's name in the configuration.
        token: String,
        /// Why, and the way out.
        reason: String,
    },
    /// The key cannot be had although the token answers.
    #[error("token {token} holds no usable key {label:?}: {reason}")]
    Key {
        /// The token's name in the configuration.
        token: String,
        /// The key's label.
        label: String,
        /// What was found instead.
        reason: String,
    },
    /// The token cannot do this at all (mechanism, key type).
    #[error("token {token} refuses {operation}: {reason}")]
    Refused {
        /// The token's name in the configuration.
        token: String,
        /// What was asked.
        operation: String,
        /// The token's reason.
        reason: String,
    },
}

/// A request to a worker that brought no result.
///
/// Only the client makes the value, where it hands a request over for sending: so it is a fact, and
/// no guess, that a worker cannot have got the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct CallFailure {
    error: TokenError,
    sent: bool,
}

impl CallFailure {
    /// No byte of the request was handed over for sending.
    pub(in crate::token) fn unsent(error: TokenError) -> Self {
        Self { error, sent: false }
    }

    /// The worker may have got the request, and the token may have done what was asked.
    pub(in crate::token) fn sent(error: TokenError) -> Self {
        Self { error, sent: true }
    }

    /// Whether the token may have done what was asked.
    pub fn may_be_done(&self) -> bool {
        self.sent
    }
}

impl From<CallFailure> for TokenError {
    fn from(failure: CallFailure) -> Self {
        failure.error
    }
}

impl TokenError {
    /// An [`Unavailable`](TokenError::Unavailable) about which the caller can only wait.
    pub fn unavailable(token: &str, reason: impl Into<String>) -> Self {
        TokenError::Unavailable {
            token: token.to_owned(),
            reason: reason.into(),
            level: None,
        }
    }
}
