//! Defines what the daemon and the worker of a token agree on: operations, messages, settings.
//!
//! | module | what it does |
//! |---|---|
//! | [`operation`], [`inventory`] | defines what a token can do, and what it answers |
//! | [`message`], [`frame_writer`] | defines messages between both programs, and their frames |
//! | [`health`] | defines what a worker reports of its token and keys |
//! | [`configuration`], [`tcti`] | reads and checks `[[token]]` of the configuration |
//! | [`token_file`] | reads what a worker needs of the configuration file |
//! | [`arguments`] | defines the command line of the worker's program |
//! | [`credential`] | restricts the keys that authorize calls to provisioning services |
//! | [`key_proof`] | makes and verifies test signatures |
//! | [`signature_use`] | keeps keys of authorities, credentials, responders and the journal apart |
//! | [`limits`], [`signature_count`] | bounds what a worker signs; counts what it has signed |
//!
//! The daemon sends operations and loads no token library. The worker performs them with the
//! backends of its own crate. Neither is known here.

pub mod arguments;
pub mod configuration;
pub mod credential;
pub mod frame_writer;
pub mod health;
pub mod inventory;
pub mod key_proof;
pub mod limits;
pub mod message;
pub mod operation;
pub mod signature_count;
pub mod signature_use;
pub mod tcti;
pub mod token_file;

use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::key::KeyType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Identifies a private key by its public key, with hints where to find it.
///
/// Only the public key is decisive. `label` and `id` are hints: two keys may share a label, and
/// anyone may write a public-key object with any id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyReference {
    /// As recorded.
    pub spki: Der,
    pub label: String,
    pub id: Vec<u8>,
    /// The key itself, if the token does not store it ([`KeyDescription::wrapped`]).
    pub wrapped: Option<Vec<u8>>,
}

/// The properties of a new key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpecification {
    pub key_type: KeyType,
    pub label: String,
    /// `CKA_ID`, random. The caller chooses and records it *before* the key exists, so that the key
    /// is found by it after a crash between generation and record.
    pub id: Vec<u8>,
}

/// A key on the token: its public half, and the attributes of the private half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDescription {
    pub spki: Der,
    pub label: String,
    pub id: Vec<u8>,
    pub sensitive: bool,
    pub extractable: bool,
    pub never_extractable: bool,
    /// `CKA_LOCAL`, read back: made on this token, never imported.
    pub local: bool,
    /// The key itself, encrypted by the token for itself only; `None` for a token that stores its
    /// keys. The caller that makes a key MUST store this: the token does not. At most
    /// [`WRAPPED_BYTES_MAX`].
    pub wrapped: Option<Vec<u8>>,
}

/// Longest wrapped key. An RSA-3072 key of a TPM takes some 900 bytes.
pub const WRAPPED_BYTES_MAX: usize = 2048;

/// The properties that a token reports about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenDescription {
    /// Token label, without padding.
    pub label: String,
    pub serial: String,
    /// Manufacturer of the token.
    pub manufacturer: String,
    /// Model of the token.
    pub model: String,
    pub firmware: String,
    /// The module or TPM interface in use, with its own version.
    pub interface: String,
    /// Names of its mechanisms.
    pub mechanisms: Vec<String>,
}

impl KeyDescription {
    /// Returns the reference to this key.
    pub fn reference(&self) -> KeyReference {
        KeyReference {
            spki: self.spki.clone(),
            label: self.label.clone(),
            id: self.id.clone(),
            wrapped: self.wrapped.clone(),
        }
    }
}

/// Returns the SHA-256 of a DER SubjectPublicKeyInfo, by which operators compare keys.
pub fn spki_sha256(spki: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// A level of the recovery, lowest first. The next level, a new worker process, is the task
/// of the daemon's supervisor or of systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryLevel {
    /// Open a new session.
    Session,
    /// Log out, log in, and find the keys again.
    Login,
    /// Drop everything, `C_Finalize`, `C_Initialize`, log in, and find the keys again.
    Initialize,
}

/// Why an operation failed, classified by what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TokenError {
    /// Token absent, no worker, device error: try again later; the worker recovers the token.
    #[error("token {token} is unavailable: {reason}")]
    Unavailable {
        /// The token's name in the configuration.
        token: String,
        /// The cause, for the operator.
        reason: String,
        /// The lowest level of recovery that may help; `None` if none does, or a recovery has begun
        /// already. Only the worker uses it.
        level: Option<RecoveryLevel>,
    },
    /// No answer within the deadline. The token may have performed the operation.
    #[error("token {token} did not answer {operation} within {deadline_ms} ms")]
    Deadline {
        /// The token's name in the configuration.
        token: String,
        operation: String,
        /// The deadline that has passed.
        deadline_ms: u64,
    },
    /// The PIN is wrong or locked: no login is tried until the operator changes it.
    #[error("token {token} is parked: {reason}")]
    Parked {
        /// The token's name in the configuration.
        token: String,
        /// The cause and the remedy.
        reason: String,
    },
    /// The key cannot be used although the token works.
    #[error("token {token} holds no usable key {label:?}: {reason}")]
    Key {
        /// The token's name in the configuration.
        token: String,
        label: String,
        reason: String,
    },
    /// The token does not support the operation (mechanism, key type).
    #[error("token {token} refuses {operation}: {reason}")]
    Refused {
        /// The token's name in the configuration.
        token: String,
        operation: String,
        reason: String,
    },
}

impl TokenError {
    /// Returns the name of the kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            TokenError::Unavailable { .. } => "unavailable",
            TokenError::Deadline { .. } => "deadline",
            TokenError::Parked { .. } => "parked",
            TokenError::Key { .. } => "key",
            TokenError::Refused { .. } => "refused",
        }
    }

    /// Makes an [`Unavailable`](TokenError::Unavailable) that starts no recovery.
    pub fn unavailable(token: &str, reason: impl Into<String>) -> Self {
        TokenError::Unavailable {
            token: token.to_owned(),
            reason: reason.into(),
            level: None,
        }
    }
}
