//! Reads and checks public keys, and names the signature algorithm of each key type.
//!
//! A [`PublicKey`] has passed the key policy, so later code need not check again that the curve is
//! known, the point is on it, or the modulus is long enough. Private keys never appear here; they
//! stay in tokens.

use super::{oid, weak};
use crate::der_bytes::Der;
use aws_lc_rs::digest;
use aws_lc_rs::signature::{self as verification, ParsedPublicKey, VerificationAlgorithm};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, ErrorKind, Sequence, Tag};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spki::SubjectPublicKeyInfoRef;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The RSA public exponent: F4. Smaller ones have a history of broken verifiers.
const RSA_EXPONENT: u64 = 65_537;

/// The advice for a key whose private key can be computed.
const NEW_KEY: &str =
    "make a new key with a current version of the library, or with newer firmware of the token";

/// The key types of authorities and leaves.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// ECDSA on NIST P-256 (secp256r1).
    P256,
    /// ECDSA on NIST P-384 (secp384r1).
    P384,
    /// ECDSA on NIST P-521 (secp521r1).
    P521,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    Ed25519,
}

/// A signature algorithm, as in a certificate's `signatureAlgorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureAlgorithm {
    /// `ecdsa-with-SHA256` (RFC 5758); the signature is the DER `Ecdsa-Sig-Value`.
    EcdsaSha256,
    EcdsaSha384,
    EcdsaSha512,
    /// `sha256WithRSAEncryption` (RFC 8017, PKCS #1 v1.5).
    RsaSha256,
    Ed25519,
}

impl KeyType {
    /// Every key type.
    pub const ALL: [KeyType; 7] = [
        KeyType::P256,
        KeyType::P384,
        KeyType::P521,
        KeyType::Rsa2048,
        KeyType::Rsa3072,
        KeyType::Rsa4096,
        KeyType::Ed25519,
    ];

    /// Returns the name in configuration, API and store.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::P256 => "p256",
            KeyType::P384 => "p384",
            KeyType::P521 => "p521",
            KeyType::Rsa2048 => "rsa2048",
            KeyType::Rsa3072 => "rsa3072",
            KeyType::Rsa4096 => "rsa4096",
            KeyType::Ed25519 => "ed25519",
        }
    }

    /// Returns the key type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the algorithm in which an authority with such a key signs.
    pub fn signature_algorithm(self) -> SignatureAlgorithm {
        match self {
            KeyType::P256 => SignatureAlgorithm::EcdsaSha256,
            KeyType::P384 => SignatureAlgorithm::EcdsaSha384,
            KeyType::P521 => SignatureAlgorithm::EcdsaSha512,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => SignatureAlgorithm::RsaSha256,
            KeyType::Ed25519 => SignatureAlgorithm::Ed25519,
        }
    }

    /// Returns true for RSA keys, the only ones that can encipher.
    pub fn is_rsa(self) -> bool {
        matches!(self, KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096)
    }

    /// Returns true for keys on a NIST curve, the only ones that can agree on a secret.
    pub fn is_ecdsa(self) -> bool {
        matches!(self, KeyType::P256 | KeyType::P384 | KeyType::P521)
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl SignatureAlgorithm {
    /// Returns the DER `AlgorithmIdentifier`: parameters absent for ECDSA (RFC 5758 3.2) and
    /// Ed25519 (RFC 8410 3), NULL for RSA (RFC 4055 5).
    pub fn identifier_der(self) -> &'static [u8] {
        match self {
            SignatureAlgorithm::EcdsaSha256 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
            SignatureAlgorithm::EcdsaSha384 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
            SignatureAlgorithm::EcdsaSha512 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04",
            SignatureAlgorithm::RsaSha256 => {
                b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"
            }
            SignatureAlgorithm::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
        }
    }
}

/// A public key that passed the key policy, as canonical DER SubjectPublicKeyInfo.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Der", into = "Der")]
pub struct PublicKey {
    spki_der: Der,
    key_type: KeyType,
    /// Contents of the `subjectPublicKey` BIT STRING, as aws-lc-rs takes them.
    key_bits: Vec<u8>,
    /// The key as aws-lc-rs has parsed it, for [`KeyType::signature_algorithm`].
    parsed: ParsedPublicKey,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki_der == other.spki_der
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spki_der.hash(state);
    }
}

/// The reason why a public key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// The bytes are no SubjectPublicKeyInfo, or the key is invalid (such as a point off the
    /// curve).
    #[error("the public key is malformed: {0}")]
    Malformed(String),
    /// The encoding is not canonical DER.
    #[error(
        "the public key is not encoded as RFC 5280 prescribes, so other programs may read another \
         key in it; make the request with a current library, for example with `openssl req -new \
         -key KEY`"
    )]
    NotCanonical,
    /// The key is too small, has a dangerous exponent, or its private key can be computed.
    #[error("the public key is too weak: {0}")]
    WeakKey(String),
    /// No profile can allow this algorithm, curve or size.
    #[error(
        "the public key is of an unsupported kind ({0}); use P-256, P-384, P-521, RSA with 2048, \
         3072 or 4096 bits, or Ed25519"
    )]
    UnsupportedKey(String),
}

impl PublicKey {
    /// Checks a DER SubjectPublicKeyInfo (RFC 5280 4.1.2.7).
    pub fn from_spki_der(der: &[u8]) -> Result<PublicKey, KeyRefusal> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
        if spki.to_der().map_err(malformed)? != der {
            return Err(KeyRefusal::NotCanonical);
        }
        let key_bits = whole_octets(&spki.subject_public_key)?;
        let key_type = match spki.algorithm.oid {
            oid::EC_PUBLIC_KEY => ec_key_type(spki.algorithm.parameters, key_bits)?,
            oid::RSA_ENCRYPTION => rsa_key_type(spki.algorithm.parameters, key_bits)?,
            oid::ED25519 => ed25519_key_type(spki.algorithm.parameters, key_bits)?,
            other => return Err(KeyRefusal::UnsupportedKey(oid::name_of(other))),
        };
        Ok(PublicKey {
            spki_der: der.into(),
            key_type,
            key_bits: key_bits.to_vec(),
            parsed: read_with_library(key_type, key_bits)?,
        })
    }

    /// Returns the DER SubjectPublicKeyInfo, byte for byte as received.
    pub fn spki_der(&self) -> &Der {
        &self.spki_der
    }

    /// Returns the contents of the `subjectPublicKey`.
    pub fn key_bits(&self) -> &[u8] {
        &self.key_bits
    }

    /// Returns the key type.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Returns the SHA-256 of the SubjectPublicKeyInfo, which identifies a key on a token.
    pub fn sha256(&self) -> [u8; 32] {
        digest_of(&digest::SHA256, &self.spki_der)
    }

    /// Returns the key identifier of RFC 5280 4.2.1.2, method 1: SHA-1 over the BIT STRING's
    /// contents.
    ///
    /// Nothing relies on its collision resistance.
    pub fn key_identifier(&self) -> [u8; 20] {
        digest_of(&digest::SHA1_FOR_LEGACY_USE_ONLY, &self.key_bits)
    }

    /// Verifies a signature in one of our own algorithms. Returns false, too, if the key type
    /// cannot sign in `algorithm`.
    pub fn verify(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        self.key_type.signature_algorithm() == algorithm
            && self.parsed.verify_sig(message, signature).is_ok()
    }

    /// Verifies in an algorithm that the caller has matched to this key type.
    pub(super) fn verify_with(
        &self,
        algorithm: &dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let verified = if std::ptr::addr_eq(algorithm, native_algorithm(self.key_type)) {
            self.parsed.verify_sig(message, signature)
        } else {
            algorithm.verify_sig(&self.key_bits, message, signature)
        };
        verified.is_ok()
    }
}

impl TryFrom<Der> for PublicKey {
    type Error = KeyRefusal;

    fn try_from(der: Der) -> Result<PublicKey, KeyRefusal> {
        PublicKey::from_spki_der(&der)
    }
}

impl From<PublicKey> for Der {
    fn from(key: PublicKey) -> Der {
        key.spki_der
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = hex::encode(&self.sha256()[..6]);
        write!(f, "PublicKey({} {hash})", self.key_type)
    }
}

fn malformed(error: der::Error) -> KeyRefusal {
    match error.kind() {
        ErrorKind::IndefiniteLength | ErrorKind::Overlength | ErrorKind::Noncanonical { .. } => {
            KeyRefusal::NotCanonical
        }
        _ => KeyRefusal::Malformed("it is damaged".to_owned()),
    }
}

fn whole_octets<'a>(bits: &BitStringRef<'a>) -> Result<&'a [u8], KeyRefusal> {
    bits.as_bytes()
        .ok_or_else(|| KeyRefusal::Malformed("it does not fill its bytes".to_owned()))
}

/// The parameters name the curve (RFC 5480 2.1.1). Only uncompressed points are accepted, which
/// every verifier understands.
fn ec_key_type(parameters: Option<AnyRef<'_>>, point: &[u8]) -> Result<KeyType, KeyRefusal> {
    let curve: Option<ObjectIdentifier> = parameters.and_then(|it| it.decode_as().ok());
    let curve = curve.ok_or_else(|| {
        KeyRefusal::UnsupportedKey(
            "EC key without a named curve; openssl: -pkeyopt ec_param_enc:named_curve".to_owned(),
        )
    })?;
    let (key_type, point_length) = match curve {
        oid::SECP256R1 => (KeyType::P256, 65),
        oid::SECP384R1 => (KeyType::P384, 97),
        oid::SECP521R1 => (KeyType::P521, 133),
        other => {
            return Err(KeyRefusal::UnsupportedKey(format!(
                "curve {}",
                oid::name_of(other)
            )));
        }
    };
    match point.first() {
        Some(0x04) if point.len() == point_length => Ok(key_type),
        Some(0x02 | 0x03 | 0x06 | 0x07) => Err(KeyRefusal::UnsupportedKey(
            "compressed or hybrid EC point; openssl ec: -conv_form uncompressed".to_owned(),
        )),
        _ => Err(KeyRefusal::Malformed(
            "not an uncompressed EC point".to_owned(),
        )),
    }
}

/// `RSAPublicKey` of RFC 8017 A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn rsa_key_type(parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<KeyType, KeyRefusal> {
    // RFC 3279 2.3.1: the parameters MUST be NULL.
    if parameters != Some(AnyRef::NULL) {
        return Err(KeyRefusal::Malformed(
            "the parameter NULL, which RFC 3279 prescribes for RSA, is missing; make the request \
             with a current library"
                .to_owned(),
        ));
    }
    let rsa = RsaPublicKey::from_der(key).map_err(|error| match error.kind() {
        ErrorKind::Value { tag: Tag::Integer } => KeyRefusal::Malformed(
            "the modulus or the exponent is a negative number, by a fault of the program that \
             wrote it; make the request with a current library"
                .to_owned(),
        ),
        _ => malformed(error),
    })?;
    if rsa.to_der().map_err(malformed)? != key {
        return Err(KeyRefusal::NotCanonical);
    }
    check_rsa_exponent(rsa.public_exponent.as_bytes())?;
    let key_type = match bit_length(rsa.modulus.as_bytes()) {
        2048 => KeyType::Rsa2048,
        3072 => KeyType::Rsa3072,
        4096 => KeyType::Rsa4096,
        bits if bits < 2048 => {
            let reason = format!("RSA with {bits} bits; use at least 2048");
            return Err(KeyRefusal::WeakKey(reason));
        }
        bits => return Err(KeyRefusal::UnsupportedKey(format!("RSA with {bits} bits"))),
    };
    match weak::rsa_weakness(rsa.modulus.as_bytes()) {
        Some(reason) => Err(KeyRefusal::WeakKey(format!("{reason}; {NEW_KEY}"))),
        None => Ok(key_type),
    }
}

fn check_rsa_exponent(octets: &[u8]) -> Result<(), KeyRefusal> {
    let octets_max = size_of::<u32>();
    if octets.len() > octets_max {
        return Err(KeyRefusal::UnsupportedKey(
            "RSA exponent above 32 bits; use 65537".to_owned(),
        ));
    }
    let exponent = octets
        .iter()
        .fold(0, |sum, octet| sum << 8 | u64::from(*octet));
    // One exponent for all keys: otherwise the modulus of a compromised key could return as a new
    // key.
    if exponent != RSA_EXPONENT {
        return Err(KeyRefusal::WeakKey(format!(
            "RSA exponent {exponent}; use 65537"
        )));
    }
    Ok(())
}

/// Returns the number of bits of a big-endian number without leading zero octets.
fn bit_length(octets: &[u8]) -> usize {
    match octets.first() {
        Some(first) => octets.len() * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}

fn ed25519_key_type(parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<KeyType, KeyRefusal> {
    // RFC 8410 3: the parameters MUST be absent.
    if parameters.is_some() {
        return Err(KeyRefusal::Malformed(
            "it has parameters, which an Ed25519 key does not have (RFC 8410, 3); make the request \
             with a current library"
                .to_owned(),
        ));
    }
    let point = <&[u8; 32]>::try_from(key).map_err(|_| {
        let length = key.len();
        KeyRefusal::Malformed(format!("an Ed25519 key has 32 bytes, not {length}"))
    })?;
    if weak::has_small_order(point) {
        let reason = format!("an Ed25519 point of small order; {NEW_KEY}");
        return Err(KeyRefusal::WeakKey(reason));
    }
    Ok(KeyType::Ed25519)
}

/// Parses the key with aws-lc-rs, which checks that a point is on its curve and a modulus is odd.
fn read_with_library(key_type: KeyType, key_bits: &[u8]) -> Result<ParsedPublicKey, KeyRefusal> {
    ParsedPublicKey::new(native_algorithm(key_type), key_bits)
        .map_err(|_| KeyRefusal::Malformed(format!("not a valid {key_type} key")))
}

/// Returns the verifier for signatures of [`KeyType::signature_algorithm`].
fn native_algorithm(key_type: KeyType) -> &'static dyn VerificationAlgorithm {
    match key_type.signature_algorithm() {
        SignatureAlgorithm::EcdsaSha256 => &verification::ECDSA_P256_SHA256_ASN1,
        SignatureAlgorithm::EcdsaSha384 => &verification::ECDSA_P384_SHA384_ASN1,
        SignatureAlgorithm::EcdsaSha512 => &verification::ECDSA_P521_SHA512_ASN1,
        SignatureAlgorithm::RsaSha256 => &verification::RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::Ed25519 => &verification::ED25519,
    }
}

/// Returns the digest as an array of the algorithm's length.
pub(super) fn digest_of<const LENGTH: usize>(
    algorithm: &'static digest::Algorithm,
    message: &[u8],
) -> [u8; LENGTH] {
    digest::digest(algorithm, message)
        .as_ref()
        .try_into()
        .expect("callers name the length that the algorithm has")
}
