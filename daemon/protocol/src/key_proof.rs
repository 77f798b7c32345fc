//! Makes and verifies test signatures, which show that a token signs with a key.
//!
//! The message is random, with a fixed prefix. It begins with a letter, whereas a `TBSCertificate`,
//! a CRL or an OCSP response begins with the tag of a SEQUENCE. So a test signature can never be
//! taken for one of an authority.

use super::{KeyDescription, KeyReference, TokenError};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use hallmark_pki::x509::key::SignatureAlgorithm;
use hallmark_pki::x509::oid;
use spki::SubjectPublicKeyInfoRef;

/// `CKA_LABEL` of test keys, by which keys that a failed check has left can be found.
pub const TEST_KEY_LABEL: &str = "hallmark-contract-check";

/// Prefix of every test message.
const DOMAIN: &[u8] = b"Hallmark token proof; not a certificate\n";

/// Returns a new test message.
pub fn challenge() -> Vec<u8> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).expect("aws-lc's generator has passed its self-test");
    [DOMAIN, &nonce].concat()
}

/// Returns true if `message` is a test message.
pub fn is_challenge(message: &[u8]) -> bool {
    message.starts_with(DOMAIN)
}

/// Lets `sign` sign a new test message with `key`, and verifies the signature with the key's SPKI.
pub fn prove(
    token: &str,
    key: &KeyDescription,
    sign: impl FnOnce(&KeyReference, SignatureAlgorithm, &[u8]) -> Result<Vec<u8>, TokenError>,
) -> Result<(), TokenError> {
    let refused = |reason: &str| TokenError::Key {
        token: token.to_owned(),
        label: key.label.clone(),
        reason: reason.to_owned(),
    };
    let algorithm = algorithm_of(&key.spki).ok_or_else(|| refused("its kind is not supported"))?;
    let message = challenge();
    let signature = sign(&key.reference(), algorithm, &message)?;
    if !verifies(&key.spki, algorithm, &message, &signature) {
        return Err(refused(
            "a test signature does not verify with its public key",
        ));
    }
    Ok(())
}

/// Returns the algorithm in which the key with this SPKI signs; `None` for types that we do not
/// use.
pub fn algorithm_of(spki: &[u8]) -> Option<SignatureAlgorithm> {
    let algorithm = SubjectPublicKeyInfoRef::try_from(spki).ok()?.algorithm;
    match algorithm.oid {
        oid::RSA_ENCRYPTION => Some(SignatureAlgorithm::RsaSha256),
        oid::ED25519 => Some(SignatureAlgorithm::Ed25519),
        oid::EC_PUBLIC_KEY => match algorithm.parameters_oid().ok()? {
            oid::SECP256R1 => Some(SignatureAlgorithm::EcdsaSha256),
            oid::SECP384R1 => Some(SignatureAlgorithm::EcdsaSha384),
            oid::SECP521R1 => Some(SignatureAlgorithm::EcdsaSha512),
            _ => None,
        },
        _ => None,
    }
}

/// Returns true if `signature` over `message` verifies with the key of this SPKI.
pub fn verifies(
    spki: &[u8],
    algorithm: SignatureAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Ok(info) = SubjectPublicKeyInfoRef::try_from(spki) else {
        return false;
    };
    let Some(key) = info.subject_public_key.as_bytes() else {
        return false;
    };
    UnparsedPublicKey::new(verification(algorithm), key)
        .verify(message, signature)
        .is_ok()
}

fn verification(algorithm: SignatureAlgorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        SignatureAlgorithm::EcdsaSha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SignatureAlgorithm::EcdsaSha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SignatureAlgorithm::EcdsaSha512 => &signature::ECDSA_P521_SHA512_ASN1,
        SignatureAlgorithm::RsaSha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::Ed25519 => &signature::ED25519,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_no_der_sequence_and_never_the_same() {
        const SEQUENCE: u8 = 0x30;
        assert_ne!(challenge()[0], SEQUENCE);
        assert_ne!(challenge(), challenge());
    }
}
