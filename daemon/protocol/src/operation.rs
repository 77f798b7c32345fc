//! Defines the operations of a token, once for backends, workers and clients.
//!
//! [`Token::perform`] is the contract of every token; `hallmark token check` checks it on each
//! backend. An operation MUST NOT create, replace or delete a key unless its description says
//! so, whatever a lookup returned: "find returned nothing" does not mean "the key is gone".

use super::{KeyDescription, KeyReference, KeySpecification, TokenDescription, TokenError};
use crate::credential::SecretBytes;
use crate::inventory::Inventory;
use crate::signature_count::SignatureCounts;
use hallmark_pki::x509::key::SignatureAlgorithm;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A token, or a worker's client in its place. One value is used by one thread.
pub trait Token: Send {
    /// Performs `operation` and returns the answer that belongs to it.
    fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError>;
}

impl dyn Token + '_ {
    /// Performs `operation` and returns its answer as the type that belongs to it.
    pub fn ask<T: TryFrom<Answer>>(&mut self, operation: Operation) -> Result<T, TokenError> {
        self.perform(&operation)?.typed("")
    }
}

/// A request to a token.
///
/// The operations down to [`Destroy`](Operation::Destroy) are for keys that sign certificates. The
/// operations below it are for credentials ([`credential`](crate::credential)) and MUST NOT touch
/// any other key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Returns what the token says of itself; needs no key.
    Describe,
    /// Lists what is on the token. A token that cannot list its keys refuses it.
    Inventory,
    /// Returns what the worker has counted by itself, without the token. A backend refuses it.
    CountSignatures,
    /// Finds the key that a reference names. MUST refuse when two keys match.
    Find(KeyReference),
    /// Finds a key by its `CKA_ID` alone: a ceremony uses the key that an interrupted one made.
    /// MUST return a finished key only: both halves exist, and a test signature verifies. A token
    /// that keeps its keys outside finds none: a key that was not recorded does not exist.
    FindById(Vec<u8>),
    /// Makes a key pair: sensitive, non-extractable, persistent. MUST read the attributes back.
    ///
    /// MUST remove what an interrupted generation of this very key has left, and nothing else: the
    /// caller chose the id at random and recorded it before, so half a key pair with this id, this
    /// label and this type is ours. MUST refuse when a finished key has the id, or when it is in
    /// doubt which program a private key with this id belongs to.
    Generate(KeySpecification),
    /// Signs a message (not a digest). ECDSA signatures are DER `Ecdsa-Sig-Value`. MUST refuse a
    /// key whose own label, read from the token, is a credential's.
    Sign {
        /// The key of an authority, or a test key; shared by all its signatures.
        key: Arc<KeyReference>,
        /// Must be the algorithm of the key's type.
        algorithm: SignatureAlgorithm,
        /// The token hashes it.
        #[serde(with = "octets")]
        message: Vec<u8>,
    },
    /// Signs an OCSP answer. MUST refuse a key whose own label, read from the token, is not a
    /// responder's, and bytes that are no answer. The other operation that signs MUST refuse such a
    /// key, but for test messages.
    SignAnswer {
        /// The key of a responder.
        key: KeyReference,
        /// Must be the algorithm of the key's type.
        algorithm: SignatureAlgorithm,
        /// DER `ResponseData` (RFC 6960 4.2.1).
        #[serde(with = "octets")]
        answer: Vec<u8>,
    },
    /// Signs a checkpoint of the audit journal. MUST refuse a key whose own label, read from the
    /// token, is not one of the journal, and bytes that are no checkpoint. The other operations
    /// that sign MUST refuse such a key, but for test messages.
    SignCheckpoint {
        /// The key of the journal.
        key: KeyReference,
        /// Must be the algorithm of the key's type.
        algorithm: SignatureAlgorithm,
        /// The checkpoint as text.
        #[serde(with = "octets")]
        checkpoint: Vec<u8>,
    },
    /// Makes a test signature and verifies it. Workers do this themselves and count it; a backend
    /// refuses it.
    Prove(KeyReference),
    /// Deletes a key pair that was made to be thrown away: a test key, or one that this very worker
    /// has made and that has signed nothing. Workers refuse any other. The caller MUST forget the
    /// reference of a key that is kept outside: the reference is the key.
    Destroy(KeyReference),
    /// Signs a client assertion with RSA (PKCS #1 v1.5) and SHA-256. MUST refuse a key whose own
    /// label, read from the token, is not a credential's. The worker checks that `input` is a JWT.
    SignAssertion {
        /// The RSA key of a credential.
        key: KeyReference,
        /// The signing input of a JWT.
        input: Vec<u8>,
    },
    /// Computes HMAC-SHA256 over `text` with the secret of this label. MUST refuse when two secrets
    /// have it. The worker checks that `text` is that of a shared access signature.
    Hmac {
        /// `CKA_LABEL` of the secret.
        label: String,
        /// Resource and expiry of a shared access signature.
        text: Vec<u8>,
    },
    /// Imports a shared secret, once: sensitive, non-extractable, persistent. MUST read the
    /// attributes back, and refuse a label that is in use.
    ImportSecret {
        /// `CKA_LABEL` of the new secret.
        label: String,
        /// The bytes of the new secret.
        secret: SecretBytes,
    },
    /// Deletes a shared secret that is for tests, or that this very worker has imported.
    DestroySecret(String),
}

impl Operation {
    /// Returns the operation's name in errors and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Describe => "describe",
            Operation::Inventory => "list keys",
            Operation::CountSignatures => "count signatures",
            Operation::Find(_) => "find",
            Operation::FindById(_) => "find by id",
            Operation::Generate(_) => "generate",
            Operation::Sign { .. } => "sign",
            Operation::SignAnswer { .. } => "sign an OCSP answer",
            Operation::SignCheckpoint { .. } => "sign a checkpoint",
            Operation::Prove(_) => "prove",
            Operation::Destroy(_) => "destroy",
            Operation::SignAssertion { .. } => "sign an assertion",
            Operation::Hmac { .. } => "compute an HMAC",
            Operation::ImportSecret { .. } => "import a secret",
            Operation::DestroySecret(_) => "destroy a secret",
        }
    }

    /// Returns the label, or in its place the id, of the key that the operation is about.
    pub fn subject(&self) -> String {
        match self {
            Operation::Describe | Operation::Inventory | Operation::CountSignatures => {
                String::new()
            }
            Operation::Find(key) | Operation::Prove(key) | Operation::Destroy(key) => {
                key.label.clone()
            }
            Operation::Sign { key, .. } => key.label.clone(),
            Operation::SignAssertion { key, .. }
            | Operation::SignAnswer { key, .. }
            | Operation::SignCheckpoint { key, .. } => key.label.clone(),
            Operation::FindById(id) => hex::encode(id),
            Operation::Generate(specification) => specification.label.clone(),
            Operation::Hmac { label, .. }
            | Operation::ImportSecret { label, .. }
            | Operation::DestroySecret(label) => label.clone(),
        }
    }

    /// Returns true if performing it twice leaves the token as performing it once does.
    pub fn is_repeatable(&self) -> bool {
        !matches!(
            self,
            Operation::Generate(_)
                | Operation::Destroy(_)
                | Operation::ImportSecret { .. }
                | Operation::DestroySecret(_)
        )
    }
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The token's description of itself, for `Describe`.
    Token(TokenDescription),
    /// The keys on the token, for `Inventory`.
    Inventory(Inventory),
    /// The worker's own counts, for `CountSignatures`.
    Counts(SignatureCounts),
    /// The key that was found, made or has signed, for `Find`, `Generate` and `Prove`.
    Key(KeyDescription),
    /// The key with the id, for `FindById`; `None` if no finished key has it.
    Found(Option<KeyDescription>),
    /// The signature or HMAC, for `Sign`, `SignAnswer`, `SignCheckpoint`, `SignAssertion` and
    /// `Hmac`.
    Signature(#[serde(with = "octets")] Vec<u8>),
    /// No value, for `Destroy`, `ImportSecret` and `DestroySecret`.
    Done(()),
}

impl Answer {
    /// Returns the answer as the type that belongs to the operation. Fails if `token` has sent the
    /// answer of another operation.
    pub fn typed<T: TryFrom<Answer>>(self, token: &str) -> Result<T, TokenError> {
        let other = |_| TokenError::unavailable(token, "the worker sent another kind of answer");
        T::try_from(self).map_err(other)
    }
}

macro_rules! types_of_answers {
    ($($variant:ident: $type:ty,)+) => {$(
        impl TryFrom<Answer> for $type {
            type Error = Answer;

            fn try_from(answer: Answer) -> Result<Self, Answer> {
                match answer {
                    Answer::$variant(value) => Ok(value),
                    other => Err(other),
                }
            }
        }
    )+};
}

types_of_answers! {
    Token: TokenDescription,
    Inventory: Inventory,
    Counts: SignatureCounts,
    Key: KeyDescription,
    Found: Option<KeyDescription>,
    Signature: Vec<u8>,
    Done: (),
}

/// Serializes octets as one piece: serde would visit each number of a `Vec<u8>`.
pub(crate) mod octets {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    pub(crate) fn serialize<S: Serializer>(octets: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(octets)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_bytes(Octets)
    }

    struct Octets;

    impl Visitor<'_> for Octets {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("octets")
        }

        fn visit_bytes<E: Error>(self, octets: &[u8]) -> Result<Vec<u8>, E> {
            Ok(octets.to_vec())
        }
    }
}
