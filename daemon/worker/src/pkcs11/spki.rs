//! Builds the SubjectPublicKeyInfo of a public-key object from its attributes.
//!
//! `CKA_PUBLIC_KEY_INFO` contains it, but is optional, and empty on SoftHSM.

use super::fault::Fault;
use super::key::attributes;
use crate::encoding::{self, Curve};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;
use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::key::SignatureAlgorithm;

/// `CKA_EC_PARAMS` of P-256: the DER object identifier secp256r1.
pub(super) const P_256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// `CKA_EC_PARAMS` of P-384: the DER object identifier secp384r1.
pub(super) const P_384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// `CKA_EC_PARAMS` of P-521: the DER object identifier secp521r1.
pub(super) const P_521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// `CKA_EC_PARAMS` of Ed25519: the PrintableString of PKCS#11 3.0, section 2.3.5.
pub(super) const ED_25519: &[u8] = b"\x13\x0cedwards25519";

/// `CKA_EC_PARAMS` of Ed25519 on other tokens: the DER object identifier of RFC 8410.
const ED_25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// Returns the possible `CKA_EC_PARAMS` of a key that signs in `algorithm`.
pub(super) fn ec_parameters(algorithm: SignatureAlgorithm) -> &'static [&'static [u8]] {
    match algorithm {
        SignatureAlgorithm::EcdsaSha256 => &[P_256],
        SignatureAlgorithm::EcdsaSha384 => &[P_384],
        SignatureAlgorithm::EcdsaSha512 => &[P_521],
        SignatureAlgorithm::Ed25519 => &[ED_25519, ED_25519_OID],
        SignatureAlgorithm::RsaSha256 => &[],
    }
}

/// Returns the DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) of `public`.
pub(super) fn spki(session: &Session, public: ObjectHandle) -> Result<Der, Fault> {
    let kind = attributes(session, public, &[AttributeType::KeyType])?;
    match kind[..] {
        [Attribute::KeyType(KeyType::RSA)] => {
            let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
            rsa_spki(&attributes(session, public, &wanted)?)
        }
        [Attribute::KeyType(KeyType::EC | KeyType::EC_EDWARDS)] => {
            let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
            ec_spki(&attributes(session, public, &wanted)?)
        }
        _ => Err(Fault::key("its kind is neither RSA, EC nor Edwards")),
    }
}

fn ec_spki(given: &[Attribute]) -> Result<Der, Fault> {
    let [Attribute::EcParams(parameters), Attribute::EcPoint(point)] = given else {
        return Err(Fault::key("its public key has no curve or no point"));
    };
    let curve = match parameters.as_slice() {
        P_256 => Curve::P256,
        P_384 => Curve::P384,
        P_521 => Curve::P521,
        ED_25519 | ED_25519_OID => Curve::Ed25519,
        _ => return Err(Fault::key("its curve is not supported")),
    };
    let point = unwrapped(point, curve.point_bytes())
        .ok_or_else(|| Fault::key("its public point does not fit its curve"))?;
    encoding::ec_public_key(curve, point)
}

/// Returns the point in `CKA_EC_POINT`, which is a DER OCTET STRING, or on some modules the point
/// itself. Only the length distinguishes them, as a point may begin with the tag of an OCTET
/// STRING.
fn unwrapped(attribute: &[u8], point_bytes: usize) -> Option<&[u8]> {
    const OCTET_STRING: u8 = 0x04;
    /// X.690 8.1.3.5: one octet with the length follows, which is 128 or more.
    const LONG_LENGTH: u8 = 0x81;
    match attribute {
        [OCTET_STRING, LONG_LENGTH, length, point @ ..]
            if usize::from(*length) == point_bytes && point.len() == point_bytes =>
        {
            Some(point)
        }
        [OCTET_STRING, length, point @ ..]
            if usize::from(*length) == point_bytes && point.len() == point_bytes =>
        {
            Some(point)
        }
        _ => (attribute.len() == point_bytes).then_some(attribute),
    }
}

fn rsa_spki(given: &[Attribute]) -> Result<Der, Fault> {
    let [
        Attribute::Modulus(modulus),
        Attribute::PublicExponent(exponent),
    ] = given
    else {
        return Err(Fault::key("its public key has no modulus or no exponent"));
    };
    encoding::rsa_public_key(modulus, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_protocol::key_proof::algorithm_of;

    fn ec(parameters: &[u8], point: Vec<u8>) -> Result<Der, Fault> {
        ec_spki(&[
            Attribute::EcParams(parameters.to_vec()),
            Attribute::EcPoint(point),
        ])
    }

    #[test]
    fn a_point_is_taken_bare_or_in_its_octet_string() {
        let bare = [&[4u8][..], &[9; 64]].concat();
        let wrapped = [&[4, 65][..], &bare].concat();
        let spki = ec(P_256, bare).expect("bare");
        assert_eq!(spki, ec(P_256, wrapped).expect("wrapped"));
        assert_eq!(algorithm_of(&spki), Some(SignatureAlgorithm::EcdsaSha256));
    }

    #[test]
    fn the_octet_string_of_a_long_point_has_a_long_length() {
        let bare = [&[4u8][..], &[9; 132]].concat();
        let wrapped = [&[4, 0x81, 133][..], &bare].concat();
        let spki = ec(P_521, bare).expect("bare");
        assert_eq!(spki, ec(P_521, wrapped).expect("wrapped"));
        assert_eq!(algorithm_of(&spki), Some(SignatureAlgorithm::EcdsaSha512));
    }

    #[test]
    fn ed25519_goes_by_either_name() {
        let spki = ec(ED_25519, vec![7; 32]).expect("by string");
        assert_eq!(spki, ec(ED_25519_OID, vec![7; 32]).expect("by identifier"));
        assert_eq!(algorithm_of(&spki), Some(SignatureAlgorithm::Ed25519));
    }

    #[test]
    fn a_point_of_another_curve_is_refused() {
        assert!(ec(P_384, vec![4; 65]).is_err());
        assert!(ec(&[0x06, 0x01, 0x01], vec![4; 65]).is_err());
    }
}
