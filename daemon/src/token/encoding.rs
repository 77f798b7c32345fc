//! Public keys and signatures in the DER of X.509, from the parts that tokens give.

use super::fault::Fault;
use der::asn1::{BitString, Null, ObjectIdentifier, UintRef};
use der::{Any, Encode, Sequence};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP_256_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP_384_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ID_ED_25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The curves that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    Ed25519,
}

impl Curve {
    /// Length of an encoded point: `04 || X || Y`, or Edwards's compressed form.
    pub(super) fn point_bytes(self) -> usize {
        match self {
            Curve::P256 => 65,
            Curve::P384 => 97,
            Curve::Ed25519 => 32,
        }
    }
}

/// DER SubjectPublicKeyInfo (RFC 5480, RFC 8410) of an encoded point.
pub(super) fn ec_public_key(curve: Curve, point: &[u8]) -> Result<Vec<u8>, Fault> {
    let (oid, parameters) = match curve {
        Curve::P256 => (ID_EC_PUBLIC_KEY, Some(&SECP_256_R_1)),
        Curve::P384 => (ID_EC_PUBLIC_KEY, Some(&SECP_384_R_1)),
        Curve::Ed25519 => (ID_ED_25519, None),
    };
    let algorithm = AlgorithmIdentifierOwned {
        oid,
        parameters: parameters.map(Any::from),
    };
    assembled(algorithm, point).map_err(not_encodable)
}

/// RFC 8017, appendix A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// DER SubjectPublicKeyInfo (RFC 3279, section 2.3.1) of big-endian integers.
pub(super) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>, Fault> {
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

/// RFC 3279, section 2.2.3.
#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// `Ecdsa-Sig-Value` of big-endian integers.
pub(super) fn ecdsa_signature(r: &[u8], s: &[u8]) -> Result<Vec<u8>, Fault> {
    let value = UintRef::new(r).and_then(|r| {
        Ok(EcdsaSigValue {
            r,
            s: UintRef::new(s)?,
        })
    });
    value
        .and_then(|value| value.to_der())
        .map_err(|error| Fault::device(format!("an ECDSA signature that is none: {error}")))
}
