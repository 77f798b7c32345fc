//! Test signatures: that a token signs with the key it says, shown without signing anything real.
//!
//! The message is domain-separated and random. It begins with a letter, and a `TBSCertificate`, a
//! CRL or an OCSP answer begins with the tag of a SEQUENCE: what is signed here can never be
//! mistaken for what an authority signs.

use super::{KeyDescription, KeyReference, TokenError};
use crate::x509::key::SignatureAlgorithm;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use der::asn1::ObjectIdentifier;
use spki::SubjectPublicKeyInfoRef;

/// What every test message begins with.
const DOMAIN: &[u8] = b"Hallmark token proof; not a certificate\n";

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP_256_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP_384_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ID_ED_25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A fresh test message.
pub(crate) fn challenge() -> Vec<u8> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).expect("aws-lc's generator has passed its self-test");
    [DOMAIN, &nonce].concat()
}

/// Has `sign` sign a fresh test message with `key`, and verifies it with the key's SPKI.
pub(crate) fn prove(
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

/// The algorithm in which the key with this SPKI signs; `None` for kinds that we do not use.
pub(crate) fn algorithm_of(spki: &[u8]) -> Option<SignatureAlgorithm> {
    let algorithm = SubjectPublicKeyInfoRef::try_from(spki).ok()?.algorithm;
    match algorithm.oid {
        RSA_ENCRYPTION => Some(SignatureAlgorithm::RsaSha256),
        ID_ED_25519 => Some(SignatureAlgorithm::Ed25519),
        ID_EC_PUBLIC_KEY => match algorithm.parameters_oid().ok()? {
            SECP_256_R_1 => Some(SignatureAlgorithm::EcdsaSha256),
            SECP_384_R_1 => Some(SignatureAlgorithm::EcdsaSha384),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `signature` over `message` verifies with the key of this SPKI.
pub(crate) fn verifies(
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
