//! Chooses the mechanism with which a token signs, computes HMACs and makes keys.
//!
//! A token that can hash gets the message; otherwise we hash. A mechanism that the token does not
//! list, or that the fragment says to avoid, is never tried.

use super::fault::Fault;
use crate::encoding::ecdsa_signature;
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use hallmark_pki::x509::key::{KeyType, SignatureAlgorithm};
use std::borrow::Cow;

/// `DigestInfo` of SHA-256 up to the digest (RFC 8017, section 9.2, note 1).
const SHA_256_DIGEST_INFO: &[u8] = &[
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// The mechanisms of `C_GetMechanismList`, without those that the family must avoid.
#[derive(Clone, Debug)]
pub(super) struct Mechanisms(Vec<MechanismType>);

impl Mechanisms {
    pub(super) fn new(listed: Vec<MechanismType>, avoid: &[String]) -> Self {
        let avoided = |mechanism: &MechanismType| avoid.contains(&mechanism.to_string());
        Mechanisms(
            listed
                .into_iter()
                .filter(|mechanism| !avoided(mechanism))
                .collect(),
        )
    }

    /// Returns the `CKM_…` names.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn lists(&self, mechanism: MechanismType) -> bool {
        self.0.contains(&mechanism)
    }

    /// Returns how this token signs in `algorithm`.
    pub(super) fn recipe(&self, algorithm: SignatureAlgorithm) -> Result<Recipe, Fault> {
        use MechanismType as M;
        use SignatureAlgorithm::*;
        let in_order: &[(MechanismType, Recipe)] = match algorithm {
            EcdsaSha256 => &[
                (M::ECDSA_SHA256, Recipe::EcdsaSha256),
                (M::ECDSA, Recipe::Ecdsa256),
            ],
            EcdsaSha384 => &[
                (M::ECDSA_SHA384, Recipe::EcdsaSha384),
                (M::ECDSA, Recipe::Ecdsa384),
            ],
            EcdsaSha512 => &[
                (M::ECDSA_SHA512, Recipe::EcdsaSha512),
                (M::ECDSA, Recipe::Ecdsa512),
            ],
            RsaSha256 => &[
                (M::SHA256_RSA_PKCS, Recipe::RsaSha256),
                (M::RSA_PKCS, Recipe::Rsa),
            ],
            Ed25519 => &[(M::EDDSA, Recipe::Ed25519)],
        };
        in_order
            .iter()
            .find(|(mechanism, _)| self.lists(*mechanism))
            .map(|(_, recipe)| *recipe)
            .ok_or_else(|| Fault::refused(format!("lists no mechanism for {algorithm:?}")))
    }

    /// Returns the mechanism of HMAC-SHA256.
    pub(super) fn hmac(&self) -> Result<Mechanism<'static>, Fault> {
        if !self.lists(MechanismType::SHA256_HMAC) {
            return Err(Fault::refused("lists no mechanism for HMAC-SHA256"));
        }
        Ok(Mechanism::Sha256Hmac)
    }

    /// Returns the mechanism that makes a key pair of this type.
    pub(super) fn generation(&self, key_type: KeyType) -> Result<Mechanism<'static>, Fault> {
        let mechanism = match key_type {
            KeyType::P256 | KeyType::P384 | KeyType::P521 => Mechanism::EccKeyPairGen,
            KeyType::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Mechanism::RsaPkcsKeyPairGen,
        };
        if !self.lists(mechanism.mechanism_type()) {
            return Err(Fault::refused(format!(
                "lists no mechanism to make a {key_type:?} key"
            )));
        }
        Ok(mechanism)
    }
}

/// One way to sign: where the message is hashed, and which mechanism is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    EcdsaSha256,
    EcdsaSha384,
    EcdsaSha512,
    /// `CKM_ECDSA` over our SHA-256.
    Ecdsa256,
    /// `CKM_ECDSA` over our SHA-384.
    Ecdsa384,
    /// `CKM_ECDSA` over our SHA-512.
    Ecdsa512,
    RsaSha256,
    /// `CKM_RSA_PKCS` over our `DigestInfo` of SHA-256.
    Rsa,
    Ed25519,
}

impl Recipe {
    /// Returns the mechanism for `C_SignInit`.
    pub(super) fn mechanism(self) -> Mechanism<'static> {
        match self {
            Recipe::EcdsaSha256 => Mechanism::EcdsaSha256,
            Recipe::EcdsaSha384 => Mechanism::EcdsaSha384,
            Recipe::EcdsaSha512 => Mechanism::EcdsaSha512,
            Recipe::Ecdsa256 | Recipe::Ecdsa384 | Recipe::Ecdsa512 => Mechanism::Ecdsa,
            Recipe::RsaSha256 => Mechanism::Sha256RsaPkcs,
            Recipe::Rsa => Mechanism::RsaPkcs,
            Recipe::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
        }
    }

    /// Returns the data for `C_Sign`.
    pub(super) fn input(self, message: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Recipe::Ecdsa256 => digest::digest(&SHA256, message).as_ref().to_vec().into(),
            Recipe::Ecdsa384 => digest::digest(&SHA384, message).as_ref().to_vec().into(),
            Recipe::Ecdsa512 => digest::digest(&SHA512, message).as_ref().to_vec().into(),
            Recipe::Rsa => [
                SHA_256_DIGEST_INFO,
                digest::digest(&SHA256, message).as_ref(),
            ]
            .concat()
            .into(),
            _ => message.into(),
        }
    }

    /// Encodes the result of `C_Sign` as in a certificate.
    pub(super) fn output(self, raw: Vec<u8>) -> Result<Vec<u8>, Fault> {
        match self {
            Recipe::EcdsaSha256 | Recipe::Ecdsa256 => ecdsa_signature_der(&raw, 32),
            Recipe::EcdsaSha384 | Recipe::Ecdsa384 => ecdsa_signature_der(&raw, 48),
            // A scalar of P-521 has 521 bits.
            Recipe::EcdsaSha512 | Recipe::Ecdsa512 => ecdsa_signature_der(&raw, 66),
            _ => Ok(raw),
        }
    }
}

/// Encodes the token's `r || s` (PKCS#11 3.0, section 2.3.1) as `Ecdsa-Sig-Value`.
fn ecdsa_signature_der(raw: &[u8], scalar_bytes: usize) -> Result<Vec<u8>, Fault> {
    if raw.len() != 2 * scalar_bytes {
        return Err(Fault::device(format!(
            "an ECDSA signature of {} bytes",
            raw.len()
        )));
    }
    let (r, s) = raw.split_at(scalar_bytes);
    ecdsa_signature(r, s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_hashes_if_it_can() {
        let both = [MechanismType::ECDSA, MechanismType::ECDSA_SHA256];
        let recipe = |listed: &[MechanismType], avoid: &[String]| {
            let mechanisms = Mechanisms::new(listed.to_vec(), avoid);
            mechanisms.recipe(SignatureAlgorithm::EcdsaSha256).ok()
        };
        assert_eq!(recipe(&both, &[]), Some(Recipe::EcdsaSha256));
        assert_eq!(recipe(&both[..1], &[]), Some(Recipe::Ecdsa256));
        assert_eq!(
            recipe(&both, &["CKM_ECDSA_SHA256".into()]),
            Some(Recipe::Ecdsa256)
        );
        assert_eq!(recipe(&[MechanismType::RSA_PKCS], &[]), None);
    }

    #[test]
    fn integers_are_minimal_and_never_negative() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[32] = 0x80;
        let der = ecdsa_signature_der(&raw, 32).expect("64 bytes");
        assert_eq!(&der[..8], [0x30, 0x26, 0x02, 0x01, 0x7f, 0x02, 0x21, 0x00]);
        assert_eq!(&der[8..], &raw[32..]);
    }

    #[test]
    fn a_signature_of_another_length_is_the_device_s_fault() {
        assert!(ecdsa_signature_der(&[0; 63], 32).is_err());
    }
}
