//! Verifies certificates with keys of a kind that only authorities elsewhere have: RSA of other
//! sizes and exponents. No key here and no leaf is of such a kind.

use super::{oid, weak};
use aws_lc_rs::signature::{self as verification, UnparsedPublicKey, VerificationAlgorithm};
use der::Decode;
use der::Sequence;
use der::asn1::{ObjectIdentifier, UintRef};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use std::ops::RangeInclusive;

/// The sizes that the library verifies.
const RSA_OCTETS: RangeInclusive<usize> = 2048 / 8..=8192 / 8;

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// Verifies `signature`. Returns `None` if the key is of no kind that is known here.
pub(super) fn verify(
    spki_der: &[u8],
    algorithm_der: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Option<Result<(), String>> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki_der).ok()?;
    let key = spki.subject_public_key.as_bytes()?;
    let algorithm = AlgorithmIdentifierRef::from_der(algorithm_der).ok()?;
    let verifier = match spki.algorithm.oid {
        oid::RSA_ENCRYPTION if is_sound(key) => rsa(algorithm.oid),
        _ => return None,
    };
    let Some(verifier) = verifier else {
        return Some(Err(format!(
            "signature algorithm {} is not supported; have it signed with SHA-256 or better",
            algorithm.oid
        )));
    };
    let verified = UnparsedPublicKey::new(verifier, key).verify(message, signature);
    Some(verified.map_err(|_| "the signature does not match the public key".to_owned()))
}

/// A modulus of a size that is verified and without a known weakness, and an exponent of 3 or more.
fn is_sound(key: &[u8]) -> bool {
    let Ok(key) = RsaPublicKey::from_der(key) else {
        return false;
    };
    let modulus = key.modulus.as_bytes();
    let exponent = key.public_exponent.as_bytes();
    let is_odd = exponent.last().is_some_and(|octet| octet & 1 == 1);
    RSA_OCTETS.contains(&modulus.len())
        && is_odd
        && exponent != [1]
        && weak::rsa_weakness(modulus).is_none()
}

fn rsa(algorithm: ObjectIdentifier) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        oid::SHA256_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA256,
        oid::SHA384_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA384,
        oid::SHA512_WITH_RSA => &verification::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}
