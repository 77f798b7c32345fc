//! Verifies the signature of an approver.

use crate::x509::key::{KeyType, PublicKey};
use aws_lc_rs::signature::{
    ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, UnparsedPublicKey, VerificationAlgorithm,
};

/// Returns true if `key` has signed `message`: in the algorithm of certificates of its type, or by
/// SHA-256, as `openssl dgst -sha256 -sign` does for every key.
pub(super) fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    if key.verify(key.key_type().signature_algorithm(), message, signature) {
        return true;
    }
    let algorithm: &'static dyn VerificationAlgorithm = match key.key_type() {
        KeyType::P384 => &ECDSA_P384_SHA256_ASN1,
        KeyType::P521 => &ECDSA_P521_SHA256_ASN1,
        _ => return false,
    };
    let key = UnparsedPublicKey::new(algorithm, key.key_bits());
    key.verify(message, signature).is_ok()
}
