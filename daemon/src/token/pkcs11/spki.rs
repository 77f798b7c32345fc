//! The SubjectPublicKeyInfo of a public-key object, built from its parts.
//!
//! `CKA_PUBLIC_KEY_INFO` would be it, but is optional, and empty on SoftHSM.

use super::fault::Fault;
use super::key::attributes;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;
use der::asn1::{BitString, Null, ObjectIdentifier, UintRef};
use der::{Any, Encode, Sequence};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP_256_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP_384_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ID_ED_25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// `CKA_EC_PARAMS` of P-256: the DER object identifier secp256r1.
pub(super) const P_256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// `CKA_EC_PARAMS` of P-384: the DER object identifier secp384r1.
pub(super) const P_384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// `CKA_EC_PARAMS` of Ed25519: the PrintableString of PKCS#11 3.0, section 2.3.5.
pub(super) const ED_25519: &[u8] = b"\x13\x0cedwards25519";

/// Ed25519 by the object identifier of RFC 8410, which tokens give as well.
const ED_25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) of `public`.
pub(super) fn spki(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
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

fn ec_spki(given: &[Attribute]) -> Result<Vec<u8>, Fault> {
    let [Attribute::EcParams(parameters), Attribute::EcPoint(point)] = given else {
        return Err(Fault::key("its public key has no curve or no point"));
    };
    let (curve, point_bytes) = match parameters.as_slice() {
        P_256 => (Some(&SECP_256_R_1), 65),
        P_384 => (Some(&SECP_384_R_1), 97),
        ED_25519 | ED_25519_OID => (None, 32),
        _ => return Err(Fault::key("its curve is not supported")),
    };
    let point = unwrapped(point, point_bytes)
        .ok_or_else(|| Fault::key("its point is not one of its curve"))?;
    let oid = if curve.is_some() {
        ID_EC_PUBLIC_KEY
    } else {
        ID_ED_25519
    };
    let algorithm = AlgorithmIdentifierOwned {
        oid,
        parameters: curve.map(Any::from),
    };
    assembled(algorithm, point).map_err(not_encodable)
}

/// The point itself. `CKA_EC_POINT` is a DER OCTET STRING around it, and on some modules only it;
/// lengths tell them apart, as a point may begin with the tag of an OCTET STRING.
fn unwrapped(attribute: &[u8], point_bytes: usize) -> Option<&[u8]> {
    const OCTET_STRING: u8 = 0x04;
    match attribute {
        [OCTET_STRING, length, point @ ..]
            if usize::from(*length) == point_bytes && point.len() == point_bytes =>
        {
            Some(point)
        }
        _ => (attribute.len() == point_bytes).then_some(attribute),
    }
}

/// RFC 8017, appendix A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn rsa_spki(given: &[Attribute]) -> Result<Vec<u8>, Fault> {
    let [
        Attribute::Modulus(modulus),
        Attribute::PublicExponent(exponent),
    ] = given
    else {
        return Err(Fault::key("its public key has no modulus or no exponent"));
    };
    let encode = || {
        let key = RsaPublicKey {
            modulus: UintRef::new(modulus)?,
            public_exponent: UintRef::new(exponent)?,
        };
        let parameters = Some(Any::from(Null));
        let algorithm = AlgorithmIdentifierOwned {
            oid: RSA_ENCRYPTION,
            parameters,
        };
        assembled(algorithm, &key.to_der()?)
    };
    encode().map_err(not_encodable)
}

fn assembled(algorithm: AlgorithmIdentifierOwned, key: &[u8]) -> der::Result<Vec<u8>> {
    let subject_public_key = BitString::from_bytes(key)?;
    SubjectPublicKeyInfoOwned {
        algorithm,
        subject_public_key,
    }
    .to_der()
}

fn not_encodable(error: der::Error) -> Fault {
    Fault::key(format!("its public key cannot be encoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::proof::algorithm_of;
    use crate::x509::key::SignatureAlgorithm;

    fn ec(parameters: &[u8], point: Vec<u8>) -> Result<Vec<u8>, Fault> {
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
