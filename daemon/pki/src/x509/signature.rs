//! Verifies signatures on requests and on certificates of outside authorities.
//!
//! The sender chooses the `AlgorithmIdentifier`, so it must first match the key type. Algorithms
//! that are not listed here are refused; SHA-1 and MD5 are not listed.

use super::key::{KeyType, PublicKey};
use super::oid;
use aws_lc_rs::signature as verification;
use aws_lc_rs::signature::{RsaParameters, RsaPssSaltLength, VerificationAlgorithm};
use der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use der::{Decode, Sequence};
use spki::AlgorithmIdentifierRef;

/// The reason why a signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefusal {
    /// The algorithm is not listed, or does not match the key type. Names it, and a remedy.
    #[error("it is signed with {0}")]
    UnsupportedAlgorithm(String),
    /// The signature has another form than its algorithm has. Says which, and a remedy.
    #[error("the signature {0}")]
    Form(&'static str),
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
    let verified = if algorithm.oid == oid::RSASSA_PSS && key.key_type().is_rsa() {
        let verifier = rsa_pss(algorithm.parameters)?;
        key.verify_with(&verifier, message, signature)
    } else {
        let verifier =
            verifier(key.key_type(), algorithm).ok_or_else(|| unsupported(key, algorithm))?;
        key.verify_with(verifier, message, signature)
    };
    if verified {
        return Ok(());
    }
    let misform = key
        .key_type()
        .is_ecdsa()
        .then(|| ecdsa_misform(key, signature));
    Err(misform
        .flatten()
        .map_or(SignatureRefusal::Mismatch, SignatureRefusal::Form))
}

/// `Ecdsa-Sig-Value` (RFC 3279 2.2.3).
#[derive(Sequence)]
struct EcdsaNumbers<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// Says what is wrong with the form of an ECDSA signature, if something is: programs on
/// microcontrollers often put it together themselves.
fn ecdsa_misform(key: &PublicKey, signature: &[u8]) -> Option<&'static str> {
    // The key is an uncompressed point: one octet, and two numbers.
    let bare_length = key.key_bits().len() - 1;
    if EcdsaNumbers::from_der(signature).is_ok() {
        None
    } else if signature.len() == bare_length {
        Some(
            "is two numbers one behind the other, as JWT and secure elements write it, where \
             requests and certificates have them in the form of RFC 3279, 2.2.3; have a library \
             convert it",
        )
    } else {
        Some(
            "is not in the form of RFC 3279, 2.2.3: one of its two numbers is negative or has \
             needless zeros in front, or something follows them; have a library write it",
        )
    }
}

fn verifier(
    key_type: KeyType,
    algorithm: AlgorithmIdentifierRef<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let parameters_fit = match key_type {
        // RFC 8410 3: the parameters MUST be absent.
        KeyType::Ed25519 => algorithm.parameters.is_none(),
        // RFC 4055 5: for RSA, senders MUST write NULL, and receivers MUST accept its absence. RFC
        // 5758 3.2 has it the other way for ECDSA; TPM devices and old libraries write NULL.
        _ => algorithm.parameters.is_none_or(|it| it.is_null()),
    };
    parameters_fit.then(|| listed(key_type, algorithm.oid))?
}

fn listed(
    key_type: KeyType,
    algorithm: ObjectIdentifier,
) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key_type, algorithm) {
        (KeyType::P256, oid::ECDSA_WITH_SHA256) => &verification::ECDSA_P256_SHA256_ASN1,
        (KeyType::P256, oid::ECDSA_WITH_SHA384) => &verification::ECDSA_P256_SHA384_ASN1,
        (KeyType::P256, oid::ECDSA_WITH_SHA512) => &verification::ECDSA_P256_SHA512_ASN1,
        (KeyType::P384, oid::ECDSA_WITH_SHA256) => &verification::ECDSA_P384_SHA256_ASN1,
        (KeyType::P384, oid::ECDSA_WITH_SHA384) => &verification::ECDSA_P384_SHA384_ASN1,
        (KeyType::P384, oid::ECDSA_WITH_SHA512) => &verification::ECDSA_P384_SHA512_ASN1,
        (KeyType::P521, oid::ECDSA_WITH_SHA256) => &verification::ECDSA_P521_SHA256_ASN1,
        (KeyType::P521, oid::ECDSA_WITH_SHA384) => &verification::ECDSA_P521_SHA384_ASN1,
        (KeyType::P521, oid::ECDSA_WITH_SHA512) => &verification::ECDSA_P521_SHA512_ASN1,
        (KeyType::Ed25519, oid::ED25519) => &verification::ED25519,
        (KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096, algorithm) => {
            rsa_pkcs1(algorithm)?
        }
        _ => return None,
    })
}

fn rsa_pkcs1(algorithm: ObjectIdentifier) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        oid::SHA256_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA256,
        oid::SHA384_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA384,
        oid::SHA512_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

/// Says why no verifier fits.
fn unsupported(key: &PublicKey, algorithm: AlgorithmIdentifierRef<'_>) -> SignatureRefusal {
    let name = oid::name_of(algorithm.oid);
    let is_listed_for = |key_type: &KeyType| listed(*key_type, algorithm.oid).is_some();
    let fits_another = KeyType::ALL.iter().any(is_listed_for);
    let why = if listed(key.key_type(), algorithm.oid).is_some() {
        format!(
            "{name} and parameters, which this algorithm does not have; sign with a current \
             version of the library"
        )
    } else if fits_another || algorithm.oid == oid::RSASSA_PSS {
        format!(
            "{name}, which does not fit its {} key; sign with that key",
            key.key_type()
        )
    } else {
        format!(
            "{name}, which is not accepted; sign with ECDSA or RSA over SHA-256, SHA-384 or \
             SHA-512 (openssl req: -sha256), or with Ed25519"
        )
    };
    SignatureRefusal::UnsupportedAlgorithm(why)
}

/// `RSASSA-PSS-params` (RFC 4055 3.1). The defaults are SHA-1, and a salt of 20 bytes.
#[derive(Sequence)]
struct PssParameters<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt_length: Option<u16>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer: Option<u16>,
}

/// Accepts RSASSA-PSS with one hash for message and mask, and any salt that fits the key: by
/// default OpenSSL makes the longest one.
fn rsa_pss(parameters: Option<AnyRef<'_>>) -> Result<RsaParameters, SignatureRefusal> {
    let refused = |why: &str| SignatureRefusal::UnsupportedAlgorithm(format!("RSA-PSS {why}"));
    let parameters = parameters
        .and_then(|it| it.decode_as::<PssParameters<'_>>().ok())
        .ok_or_else(|| refused("and without readable parameters; sign with a current library"))?;
    let hash = parameters.hash.map(|it| it.oid);
    let verifier = match hash {
        Some(oid::SHA256) => verification::RSA_PSS_2048_8192_SHA256,
        Some(oid::SHA384) => verification::RSA_PSS_2048_8192_SHA384,
        Some(oid::SHA512) => verification::RSA_PSS_2048_8192_SHA512,
        other => {
            let name = other.map_or_else(|| "SHA-1".to_owned(), oid::name_of);
            return Err(refused(&format!(
                "over {name}; sign over SHA-256, SHA-384 or SHA-512 (openssl req: -sha256)"
            )));
        }
    };
    // Without it the mask is MGF1 with SHA-1.
    let mask = parameters.mask.filter(|it| it.oid == oid::MGF1);
    let mask_hash = mask.and_then(|it| {
        it.parameters?
            .decode_as::<AlgorithmIdentifierRef<'_>>()
            .ok()
    });
    if mask_hash.map(|it| it.oid) != hash {
        return Err(refused(
            "and a mask (MGF) that is not MGF1 with the hash of the signature; sign with the same \
             hash for both (openssl req: -sigopt rsa_mgf1_md:sha256 with -sha256)",
        ));
    }
    if parameters.trailer.is_some_and(|it| it != 1) {
        return Err(refused(
            "and an unknown trailer; sign with a current library",
        ));
    }
    let salt_length = parameters.salt_length.unwrap_or(20);
    Ok(verifier.with_pss_salt_length(RsaPssSaltLength::Custom(salt_length)))
}
