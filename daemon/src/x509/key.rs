//! Public keys, and the algorithms they sign with.

use serde::{Deserialize, Serialize};

/// The kinds of key that an authority or a leaf may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// ECDSA on NIST P-256 (secp256r1).
    P256,
    /// ECDSA on NIST P-384 (secp384r1).
    P384,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// Ed25519 (RFC 8410).
    Ed25519,
}

/// How a signature is made; what stands in a certificate's `signatureAlgorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureAlgorithm {
    /// `ecdsa-with-SHA256` (RFC 5758); the signature is the DER `Ecdsa-Sig-Value`.
    EcdsaSha256,
    /// `ecdsa-with-SHA384`.
    EcdsaSha384,
    /// `sha256WithRSAEncryption` (RFC 8017, PKCS #1 v1.5).
    RsaSha256,
    /// `id-Ed25519` (RFC 8410).
    Ed25519,
}

impl KeyType {
    /// The algorithm in which an authority with such a key signs.
    pub fn signature_algorithm(self) -> SignatureAlgorithm {
        match self {
            KeyType::P256 => SignatureAlgorithm::EcdsaSha256,
            KeyType::P384 => SignatureAlgorithm::EcdsaSha384,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => SignatureAlgorithm::RsaSha256,
            KeyType::Ed25519 => SignatureAlgorithm::Ed25519,
        }
    }
}
