//! Encodes public keys and signatures in the DER of X.509, from the parts that tokens return.

use crate::fault::Fault;
use der::asn1::{BitString, Null, UintRef};
use der::{Any, Encode, Sequence};
use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::oid;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// The curves that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
    Ed25519,
}

impl Curve {
    /// Returns the length of an encoded point: `04 || X || Y`, or the compressed form of Ed25519.
    pub(crate) fn point_bytes(self) -> usize {
        match self {
            Curve::P256 => 65,
            Curve::P384 => 97,
            Curve::P521 => 133,
            Curve::Ed25519 => 32,
        }
    }
}

/// Returns the DER SubjectPublicKeyInfo (RFC 5480, RFC 8410) of an encoded point.
pub(crate) fn ec_public_key(curve: Curve, point: &[u8]) -> Result<Der, Fault> {
    let (algorithm, parameters) = match curve {
        Curve::P256 => (oid::EC_PUBLIC_KEY, Some(&oid::SECP256R1)),
        Curve::P384 => (oid::EC_PUBLIC_KEY, Some(&oid::SECP384R1)),
        Curve::P521 => (oid::EC_PUBLIC_KEY, Some(&oid::SECP521R1)),
        Curve::Ed25519 => (oid::ED25519, None),
    };
    let algorithm = AlgorithmIdentifierOwned {
        oid: algorithm,
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

/// Returns the DER SubjectPublicKeyInfo (RFC 3279, section 2.3.1) of big-endian integers.
pub(crate) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Result<Der, Fault> {
    let encode = || {
        let key = RsaPublicKey {
            modulus: UintRef::new(modulus)?,
            public_exponent: UintRef::new(exponent)?,
        };
        let parameters = Some(Any::from(Null));
        let algorithm = AlgorithmIdentifierOwned {
            oid: oid::RSA_ENCRYPTION,
            parameters,
        };
        assembled(algorithm, &key.to_der()?)
    };
    encode().map_err(not_encodable)
}

fn assembled(algorithm: AlgorithmIdentifierOwned, key: &[u8]) -> der::Result<Der> {
    let subject_public_key = BitString::from_bytes(key)?;
    SubjectPublicKeyInfoOwned {
        algorithm,
        subject_public_key,
    }
    .to_der()
    .map(Der::from)
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

/// Returns the `Ecdsa-Sig-Value` of big-endian integers.
pub(crate) fn ecdsa_signature(r: &[u8], s: &[u8]) -> Result<Vec<u8>, Fault> {
    let value = UintRef::new(r).and_then(|r| {
        Ok(EcdsaSigValue {
            r,
            s: UintRef::new(s)?,
        })
    });
    value
        .and_then(|value| value.to_der())
        .map_err(|error| Fault::device(format!("an invalid ECDSA signature: {error}")))
}
