//! Encodes files that hold an encrypted private key: EncryptedPrivateKeyInfo (RFC 5958 3) by PBES2
//! (RFC 8018 6.2), and PKCS #12 (RFC 7292).
//!
//! Nothing here sees a private key or a password: the caller encrypts and computes the MAC. A
//! PKCS #12 file has the key encrypted and the certificates in the clear, because those are public.

use super::oid;
use crate::der_bytes::Der;
use der::asn1::{Any, BmpString, ContextSpecific, Null, ObjectIdentifier, OctetString, SetOfVec};
use der::{Decode, Encode, EncodeValue, Sequence, TagMode, TagNumber, Tagged};
use spki::AlgorithmIdentifierOwned;
use x509_cert::attr::Attribute;

/// The version of PKCS #12 (RFC 7292 4).
const VERSION: u8 = 3;

/// How a private key was encrypted: PBKDF2 with HMAC-SHA-256, then AES-256-CBC.
#[derive(Clone, Debug)]
pub struct KeyEncryption {
    /// The salt of PBKDF2.
    pub salt: [u8; 16],
    /// The count of PBKDF2.
    pub iterations: u32,
    /// The initialization vector of AES.
    pub iv: [u8; 16],
}

/// The HMAC-SHA-256 over an AuthenticatedSafe, whose key is derived from the password as in RFC
/// 7292 B.2.
#[derive(Clone, Debug)]
pub struct FileMac {
    pub salt: [u8; 16],
    pub iterations: u32,
    pub mac: [u8; 32],
}

#[derive(Sequence)]
struct EncryptedPrivateKeyInfo {
    algorithm: AlgorithmIdentifierOwned,
    encrypted: OctetString,
}

/// `PBES2-params` (RFC 8018 A.4).
#[derive(Sequence)]
struct Pbes2Parameters {
    key_derivation: AlgorithmIdentifierOwned,
    encryption: AlgorithmIdentifierOwned,
}

/// `PBKDF2-params` (RFC 8018 A.2) without the length of the key, which AES-256 determines.
#[derive(Sequence)]
struct Pbkdf2Parameters {
    salt: OctetString,
    iterations: u32,
    pseudorandom: AlgorithmIdentifierOwned,
}

/// `ContentInfo` of `id-data` (RFC 5652 4).
#[derive(Sequence)]
struct Data {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: OctetString,
}

/// `SafeBag` (RFC 7292 4.2).
#[derive(Sequence)]
struct SafeBag {
    kind: ObjectIdentifier,
    value: Any,
    attributes: SetOfVec<Attribute>,
}

/// `SafeBag` without attributes.
#[derive(Sequence)]
struct PlainBag {
    kind: ObjectIdentifier,
    value: Any,
}

/// `CertBag` (RFC 7292 4.2.3).
#[derive(Sequence)]
struct CertificateBag {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: OctetString,
}

/// `PFX` (RFC 7292 4).
#[derive(Sequence)]
struct File {
    version: u8,
    content: Data,
    mac: MacData,
}

#[derive(Sequence)]
struct MacData {
    digest: DigestInfo,
    salt: OctetString,
    iterations: u32,
}

#[derive(Sequence)]
struct DigestInfo {
    algorithm: AlgorithmIdentifierOwned,
    digest: OctetString,
}

/// Returns the EncryptedPrivateKeyInfo of a PKCS #8 key that was encrypted so.
pub fn encrypted_key(by: &KeyEncryption, encrypted: &[u8]) -> der::Result<Der> {
    let null = Any::encode_from(&Null)?;
    let derivation = Pbkdf2Parameters {
        salt: OctetString::new(by.salt)?,
        iterations: by.iterations,
        pseudorandom: algorithm(oid::HMAC_WITH_SHA256, null),
    };
    let parameters = Pbes2Parameters {
        key_derivation: algorithm(oid::PBKDF2, Any::encode_from(&derivation)?),
        encryption: algorithm(
            oid::AES_256_CBC,
            Any::encode_from(&OctetString::new(by.iv)?)?,
        ),
    };
    let info = EncryptedPrivateKeyInfo {
        algorithm: algorithm(oid::PBES2, Any::encode_from(&parameters)?),
        encrypted: OctetString::new(encrypted)?,
    };
    Ok(info.to_der()?.into())
}

/// Returns the AuthenticatedSafe of a PKCS #12 file: `key`, an EncryptedPrivateKeyInfo; its
/// certificate, which is the first; and the certificates above. `name` is what programs show.
pub fn authenticated_safe(key: &Der, certificates: &[&Der], name: &str) -> der::Result<Der> {
    let key = SafeBag {
        kind: oid::SHROUDED_KEY_BAG,
        value: in_bag(&Any::from_der(key)?)?,
        attributes: of_holder(name)?,
    };
    let mut bags = Vec::new();
    for (place, certificate) in certificates.iter().enumerate() {
        let bag = CertificateBag {
            kind: oid::X509_CERTIFICATE,
            value: OctetString::new(certificate.to_vec())?,
        };
        let kind = oid::CERTIFICATE_BAG;
        let value = in_bag(&bag)?;
        bags.push(if place == 0 {
            let attributes = of_holder(name)?;
            Any::encode_from(&SafeBag {
                kind,
                value,
                attributes,
            })?
        } else {
            Any::encode_from(&PlainBag { kind, value })?
        });
    }
    let safes = vec![data(&bags.to_der()?)?, data(&vec![key].to_der()?)?];
    Ok(safes.to_der()?.into())
}

/// Returns the PKCS #12 file with this AuthenticatedSafe.
pub fn pkcs12(safe: &Der, by: &FileMac) -> der::Result<Der> {
    let file = File {
        version: VERSION,
        content: data(safe)?,
        mac: MacData {
            digest: DigestInfo {
                algorithm: algorithm(oid::SHA256, Any::encode_from(&Null)?),
                digest: OctetString::new(by.mac)?,
            },
            salt: OctetString::new(by.salt)?,
            iterations: by.iterations,
        },
    };
    Ok(file.to_der()?.into())
}

fn algorithm(oid: ObjectIdentifier, parameters: Any) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid,
        parameters: Some(parameters),
    }
}

fn data(content: &[u8]) -> der::Result<Data> {
    Ok(Data {
        content_type: oid::DATA,
        content: OctetString::new(content)?,
    })
}

/// Returns a value with the tag that it has in a bag.
fn in_bag<T: EncodeValue + Tagged>(value: &T) -> der::Result<Any> {
    Any::encode_from(&ContextSpecific {
        tag_number: TagNumber(0),
        tag_mode: TagMode::Explicit,
        value: Any::encode_from(value)?,
    })
}

/// The attributes by which programs find the certificate of a key: one name, and one id.
fn of_holder(name: &str) -> der::Result<SetOfVec<Attribute>> {
    let name = Any::encode_from(&BmpString::from_utf8(name)?)?;
    let id = Any::encode_from(&OctetString::new([1])?)?;
    let attribute = |oid, value| {
        let values = SetOfVec::try_from([value])?;
        Ok::<_, der::Error>(Attribute { oid, values })
    };
    SetOfVec::try_from([
        attribute(oid::FRIENDLY_NAME, name)?,
        attribute(oid::LOCAL_KEY_ID, id)?,
    ])
}
