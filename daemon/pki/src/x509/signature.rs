//! Verifies signatures on requests and on certificates of outside authorities.
//!
//! The sender chooses the `AlgorithmIdentifier`, so it must first match the key type. Algorithms
//! that are not listed here are refused; SHA-1 and MD5 are not listed.

use super::key::{KeyType, PublicKey};
use super::oid;
use aws_lc_rs::signature as verification;
use aws_lc_rs::signature::VerificationAlgorithm;
use der::Encode;
use der::asn1::{AnyRef, ObjectIdentifier};
use spki::AlgorithmIdentifierRef;

/// The reason why a signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefusal {
    /// The algorithm is not listed, or does not match the key type.
    #[error("signature algorithm {0} is not supported; sign with SHA-256 or better")]
    UnsupportedAlgorithm(String),
    /// The key did not make this signature over these bytes.
    #[error("the signature does not match the public key")]
    Mismatch,
}

/// Verifies `signature` over `message` in the algorithm that the sender named.
pub(super) fn verify(
    key: &PublicKey,
    algorithm: AlgorithmIdentifierRef<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureRefusal> {
    let verifier = verifier(key.key_type(), algorithm)
        .ok_or_else(|| SignatureRefusal::UnsupportedAlgorithm(algorithm.oid.to_string()))?;
    if key.verify_with(verifier, message, signature) {
        Ok(())
    } else {
        Err(SignatureRefusal::Mismatch)
    }
}

fn verifier(
    key_type: KeyType,
    algorithm: AlgorithmIdentifierRef<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    match key_type {
        KeyType::P256 | KeyType::P384 => ecdsa(key_type, algorithm),
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => rsa(algorithm),
        KeyType::Ed25519 => match (algorithm.oid, algorithm.parameters) {
            (oid::ED25519, None) => Some(&verification::ED25519),
            _ => None,
        },
    }
}

fn ecdsa(
    key_type: KeyType,
    algorithm: AlgorithmIdentifierRef<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    // RFC 5758 3.2: the parameters MUST be absent.
    if algorithm.parameters.is_some() {
        return None;
    }
    Some(match (key_type, algorithm.oid) {
        (KeyType::P256, oid::ECDSA_WITH_SHA256) => &verification::ECDSA_P256_SHA256_ASN1,
        (KeyType::P256, oid::ECDSA_WITH_SHA384) => &verification::ECDSA_P256_SHA384_ASN1,
        (KeyType::P256, oid::ECDSA_WITH_SHA512) => &verification::ECDSA_P256_SHA512_ASN1,
        (KeyType::P384, oid::ECDSA_WITH_SHA256) => &verification::ECDSA_P384_SHA256_ASN1,
        (KeyType::P384, oid::ECDSA_WITH_SHA384) => &verification::ECDSA_P384_SHA384_ASN1,
        (KeyType::P384, oid::ECDSA_WITH_SHA512) => &verification::ECDSA_P384_SHA512_ASN1,
        _ => return None,
    })
}

fn rsa(algorithm: AlgorithmIdentifierRef<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    if algorithm.oid == oid::RSASSA_PSS {
        return rsa_pss(algorithm.parameters?);
    }
    // RFC 4055 5: senders MUST write NULL, receivers MUST accept its absence too.
    if algorithm.parameters.is_some_and(|any| !any.is_null()) {
        return None;
    }
    rsa_pkcs1(algorithm.oid)
}

fn rsa_pkcs1(algorithm: ObjectIdentifier) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        oid::SHA256_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA256,
        oid::SHA384_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA384,
        oid::SHA512_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

/// Accepts RSASSA-PSS with one hash for message and mask and a salt of its length (RFC 4055 3.1).
/// The default parameters mean SHA-1 and are refused.
fn rsa_pss(parameters: AnyRef<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let der = parameters.to_der().ok()?;
    if der == pss_parameters(1, 32) {
        Some(&verification::RSA_PSS_2048_8192_SHA256)
    } else if der == pss_parameters(2, 48) {
        Some(&verification::RSA_PSS_2048_8192_SHA384)
    } else if der == pss_parameters(3, 64) {
        Some(&verification::RSA_PSS_2048_8192_SHA512)
    } else {
        None
    }
}

/// Returns DER `RSASSA-PSS-params`; `hash` is the last arc of id-sha256 (1), id-sha384 (2),
/// id-sha512 (3).
fn pss_parameters(hash: u8, salt_length: u8) -> Vec<u8> {
    let hash_identifier = [
        &b"\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02"[..],
        &[hash, 0x05, 0x00],
    ]
    .concat();
    [
        &b"\x30\x34\xa0\x0f"[..],
        &hash_identifier,
        b"\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08",
        &hash_identifier,
        &[0xa2, 0x03, 0x02, 0x01, salt_length],
    ]
    .concat()
}
