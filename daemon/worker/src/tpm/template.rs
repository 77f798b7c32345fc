//! Builds the templates of objects in a TPM: the primary key, and keys that sign.
//!
//! The TPM derives the primary key from its owner seed and this template, so the key is the same
//! each time, on this TPM only, until the TPM is cleared. It is the ECC storage key of the TCG's
//! provisioning guidance with a `unique` field of our own, so that every key below it is ours:
//!
//! | | |
//! |---|---|
//! | hierarchy | owner |
//! | type, name | ECC NIST P-256, SHA-256 |
//! | attributes | `fixedtpm\|fixedparent\|sensitivedataorigin\|userwithauth\|noda` |
//! | and | `restricted\|decrypt` |
//! | symmetric | AES-128-CFB |
//! | scheme, KDF | null |
//! | unique | x: "Hallmark" and 24 zeros; y: 32 zeros |
//! | authorization | none |
//!
//! Signing keys contain their scheme (ECDSA or RSASSA, with one hash) and can do nothing but sign.
//! Their attributes are `fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign`.

use super::fault::{Fault, failed};
use crate::encoding::{self, Curve};
use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::key::{KeyType, SignatureAlgorithm};
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    EccParameter, EccPoint, EccScheme, HashScheme, Public, PublicBuilder,
    PublicEccParametersBuilder, PublicKeyRsa, PublicRsaParametersBuilder, RsaExponent, RsaScheme,
    SymmetricDefinitionObject,
};

/// The exponent that the TPM uses when the template has zero.
const F4: u32 = 0x1_0001;

fn attributes() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
}

/// Returns the template of the primary key.
pub(super) fn primary() -> Result<Public, Fault> {
    let mut x = [0; 32];
    x[..8].copy_from_slice(b"Hallmark");
    let build = || {
        let unique = EccPoint::new(
            EccParameter::try_from(&x[..])?,
            EccParameter::try_from(&[0; 32][..])?,
        );
        let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
            SymmetricDefinitionObject::AES_128_CFB,
            EccCurve::NistP256,
        );
        PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(
                attributes()
                    .with_restricted(true)
                    .with_decrypt(true)
                    .build()?,
            )
            .with_ecc_parameters(parameters.build()?)
            .with_ecc_unique_identifier(unique)
            .build()
    };
    build().map_err(failed("template of the primary key"))
}

/// Returns true if an object was made from the template of the primary key, that is, if only its
/// public point differs.
pub(super) fn is_primary(public: &Public) -> bool {
    let (Public::Ecc { unique, .. }, Ok(mut template)) = (public, primary()) else {
        return false;
    };
    if let Public::Ecc {
        unique: template, ..
    } = &mut template
    {
        template.clone_from(unique);
    }
    template == *public
}

/// Returns the template of a signing key.
pub(super) fn signing(key_type: KeyType) -> Result<Public, Fault> {
    let ecc = |curve, hash| EccTemplate { curve, hash }.build();
    let built = match key_type {
        KeyType::P256 => ecc(EccCurve::NistP256, HashingAlgorithm::Sha256),
        KeyType::P384 => ecc(EccCurve::NistP384, HashingAlgorithm::Sha384),
        KeyType::Rsa2048 => rsa(RsaKeyBits::Rsa2048),
        KeyType::Rsa3072 => rsa(RsaKeyBits::Rsa3072),
        KeyType::P521 | KeyType::Rsa4096 | KeyType::Ed25519 => {
            return Err(Fault::refused(format!(
                "{key_type} keys are not made in a TPM; use p256, p384, rsa2048 or rsa3072"
            )));
        }
    };
    built.map_err(failed("template of a key"))
}

struct EccTemplate {
    curve: EccCurve,
    hash: HashingAlgorithm,
}

impl EccTemplate {
    fn build(self) -> tss_esapi::Result<Public> {
        let scheme = EccScheme::EcDsa(HashScheme::new(self.hash));
        let parameters =
            PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, self.curve);
        PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(attributes().with_sign_encrypt(true).build()?)
            .with_ecc_parameters(parameters.build()?)
            .with_ecc_unique_identifier(EccPoint::default())
            .build()
    }
}

fn rsa(bits: RsaKeyBits) -> tss_esapi::Result<Public> {
    let scheme = RsaScheme::RsaSsa(HashScheme::new(HashingAlgorithm::Sha256));
    let parameters = PublicRsaParametersBuilder::new_unrestricted_signing_key(
        scheme,
        bits,
        RsaExponent::default(),
    );
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Rsa)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes().with_sign_encrypt(true).build()?)
        .with_rsa_parameters(parameters.build()?)
        .with_rsa_unique_identifier(PublicKeyRsa::default())
        .build()
}

/// The properties of a signing key, from its public area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SigningKey {
    pub(super) spki: Der,
    /// The only algorithm in which it signs.
    pub(super) algorithm: SignatureAlgorithm,
    attributes: ObjectAttributes,
}

impl SigningKey {
    /// Returns true if the key can never be moved to another TPM or below another parent.
    pub(super) fn is_fixed(&self) -> bool {
        self.attributes.fixed_tpm() && self.attributes.fixed_parent()
    }

    /// Returns true if the TPM made the key from its own random numbers.
    pub(super) fn is_local(&self) -> bool {
        self.attributes.sensitive_data_origin()
    }

    /// Reads a public area. Refuses an object that none of our templates makes.
    pub(super) fn of(public: &Public) -> Result<Self, Fault> {
        let attributes = public.object_attributes();
        if !attributes.sign_encrypt() || attributes.decrypt() || attributes.restricted() {
            return Err(Fault::key("it is not a key that can only sign"));
        }
        let (spki, algorithm) = match public {
            Public::Ecc {
                parameters, unique, ..
            } => {
                let EccScheme::EcDsa(scheme) = parameters.ecc_scheme() else {
                    return Err(Fault::key("its scheme is not ECDSA"));
                };
                ecdsa(parameters.ecc_curve(), scheme.hashing_algorithm(), unique)?
            }
            Public::Rsa {
                parameters, unique, ..
            } => {
                let hash = HashingAlgorithm::Sha256;
                if parameters.rsa_scheme() != RsaScheme::RsaSsa(HashScheme::new(hash)) {
                    return Err(Fault::key("its scheme is not RSASSA with SHA-256"));
                }
                let exponent = match parameters.exponent().value() {
                    0 => F4,
                    given => given,
                };
                let spki = encoding::rsa_public_key(unique.value(), &exponent.to_be_bytes())?;
                (spki, SignatureAlgorithm::RsaSha256)
            }
            _ => return Err(Fault::key("it is neither RSA nor ECC")),
        };
        Ok(Self {
            spki,
            algorithm,
            attributes,
        })
    }
}

fn ecdsa(
    curve: EccCurve,
    hash: HashingAlgorithm,
    point: &EccPoint,
) -> Result<(Der, SignatureAlgorithm), Fault> {
    let (curve, algorithm) = match (curve, hash) {
        (EccCurve::NistP256, HashingAlgorithm::Sha256) => {
            (Curve::P256, SignatureAlgorithm::EcdsaSha256)
        }
        (EccCurve::NistP384, HashingAlgorithm::Sha384) => {
            (Curve::P384, SignatureAlgorithm::EcdsaSha384)
        }
        _ => return Err(Fault::key("its curve and hash are not used together")),
    };
    let bytes = uncompressed(point, curve.point_bytes())
        .ok_or_else(|| Fault::key("its public point is too long for its curve"))?;
    Ok((encoding::ec_public_key(curve, &bytes)?, algorithm))
}

/// Encodes a point as `04 || X || Y` (SEC 1, section 2.3.3). A TPM may omit leading zeros of a
/// coordinate.
fn uncompressed(point: &EccPoint, point_bytes: usize) -> Option<Vec<u8>> {
    const UNCOMPRESSED: u8 = 4;
    let coordinate_bytes = (point_bytes - 1) / 2;
    let mut bytes = vec![UNCOMPRESSED];
    for coordinate in [point.x(), point.y()] {
        let missing = coordinate_bytes.checked_sub(coordinate.len())?;
        bytes.resize(bytes.len() + missing, 0);
        bytes.extend_from_slice(coordinate.value());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::traits::{Marshall, UnMarshall};

    fn parameter(bytes: &[u8]) -> EccParameter {
        EccParameter::try_from(bytes).expect("short")
    }

    #[test]
    fn a_coordinate_without_its_leading_zeros_is_padded() {
        let point = EccPoint::new(parameter(&[9; 31]), parameter(&[8; 32]));
        let bytes = uncompressed(&point, 65).expect("it fits");
        assert_eq!((bytes.len(), &bytes[..3]), (65, &[4, 0, 9][..]));
        let long = EccPoint::new(parameter(&[9; 33]), parameter(&[8; 32]));
        assert_eq!(uncompressed(&long, 65), None);
    }

    #[test]
    fn the_primary_is_known_whatever_its_point() {
        let Ok(mut public) = primary() else {
            panic!("it builds")
        };
        assert!(is_primary(&public));
        if let Public::Ecc { unique, .. } = &mut public {
            *unique = EccPoint::new(parameter(&[1; 32]), parameter(&[2; 32]));
        }
        assert!(is_primary(&public));
        let Ok(other) = signing(KeyType::P256) else {
            panic!("it builds")
        };
        assert!(!is_primary(&other));
    }

    #[test]
    fn what_a_tpm_does_not_have_is_refused_by_name() {
        for key_type in [KeyType::Ed25519, KeyType::P521] {
            let fault = signing(key_type).expect_err("no TPM has it");
            assert!(fault.reason.contains("use p256, p384"), "{}", fault.reason);
        }
    }

    proptest::proptest! {
        /// Public areas come from the database: the library's reader must not fail on damaged ones.
        #[test]
        fn a_damaged_public_area_is_an_error(at in 0usize..400, byte: u8, length in 0usize..400) {
            for key_type in [KeyType::P256, KeyType::Rsa3072] {
                let Ok(public) = signing(key_type) else { panic!("it builds") };
                let mut bytes = public.marshall().expect("it fits");
                let at = at % bytes.len();
                bytes[at] = byte;
                bytes.truncate(length);
                if let Ok(public) = Public::unmarshall(&bytes) {
                    let _ = SigningKey::of(&public);
                }
            }
        }
    }
}
