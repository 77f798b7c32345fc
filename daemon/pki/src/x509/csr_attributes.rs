//! Encodes the attributes that EST asks of a request (CsrAttrs, RFC 7030 4.5.2): its key type, and
//! what the profile takes from its subject.
//!
//! A client must follow the attributes, and cannot be offered a choice. Where a profile accepts
//! several key types, the first is named: every token signs with it fastest. No
//! subject alternative names or extensions are asked for, because the profile decides them.

use super::key::{KeyType, SignatureAlgorithm};
use super::profile::Profile;
use super::template::Place;
use super::{oid, pem};
use der::Encode;
use der::asn1::{Any, ObjectIdentifier, SetOfVec};
use std::collections::BTreeSet;
use x509_cert::attr::Attribute;

/// Returns the body of the answer for requests by `profile`, as base64.
pub fn to_base64(profile: &Profile) -> der::Result<String> {
    let Some(key_type) = profile.key_types.first().copied() else {
        return Ok(String::new());
    };
    let mut attributes = vec![key(key_type)?, Any::encode_from(&signature(key_type))?];
    let taken: BTreeSet<_> = profile.places().filter_map(Place::attribute).collect();
    for attribute in taken {
        attributes.push(Any::encode_from(&attribute.oid())?);
    }
    Ok(pem::base64_lines(&attributes.to_der()?))
}

/// The value is a curve or the length of a modulus in bits.
fn key(key_type: KeyType) -> der::Result<Any> {
    let (oid, value) = match key_type {
        KeyType::P256 => (oid::EC_PUBLIC_KEY, Any::encode_from(&oid::SECP256R1)?),
        KeyType::P384 => (oid::EC_PUBLIC_KEY, Any::encode_from(&oid::SECP384R1)?),
        KeyType::P521 => (oid::EC_PUBLIC_KEY, Any::encode_from(&oid::SECP521R1)?),
        KeyType::Rsa2048 => (oid::RSA_ENCRYPTION, Any::encode_from(&2048_u16)?),
        KeyType::Rsa3072 => (oid::RSA_ENCRYPTION, Any::encode_from(&3072_u16)?),
        KeyType::Rsa4096 => (oid::RSA_ENCRYPTION, Any::encode_from(&4096_u16)?),
        KeyType::Ed25519 => return Any::encode_from(&oid::ED25519),
    };
    let values = SetOfVec::try_from([value])?;
    Any::encode_from(&Attribute { oid, values })
}

/// Returns the algorithm that signs the request itself.
fn signature(key_type: KeyType) -> ObjectIdentifier {
    match key_type.signature_algorithm() {
        SignatureAlgorithm::EcdsaSha256 => oid::ECDSA_WITH_SHA256,
        SignatureAlgorithm::EcdsaSha384 => oid::ECDSA_WITH_SHA384,
        SignatureAlgorithm::EcdsaSha512 => oid::ECDSA_WITH_SHA512,
        SignatureAlgorithm::RsaSha256 => oid::SHA256_WITH_RSA,
        SignatureAlgorithm::Ed25519 => oid::ED25519,
    }
}
