//! Reads the extensions that decide what a certificate may be used for (RFC 5280 4.2.1).
//!
//! Certificates from elsewhere are not always DER in the details, and relying parties accept them:
//! a default is written out, a bit string has zeros at its end. So the values are read leniently,
//! and only what is read counts.

use super::ber::{BIT_STRING, Element, INTEGER, OCTET_STRING, SEQUENCE, context};
use super::name_constraints::NameConstraints;
use super::oid;
use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::time::Validity;

const BOOLEAN: u8 = 0x01;
/// `keyIdentifier` and `authorityCertSerialNumber` (RFC 5280 4.2.1.1).
const KEY_IDENTIFIER: u8 = 0x80;
const SERIAL_NUMBER: u8 = 0x82;
/// `directoryName` (RFC 5280 4.2.1.6).
const DIRECTORY_NAME: u8 = context(4);
/// The bits of the first octet of keyUsage (RFC 5280 4.2.1.3), counted from the left.
const KEY_CERT_SIGN: u8 = 0x80 >> 5;
const CRL_SIGN: u8 = 0x80 >> 6;

/// The extensions, or `None` where the certificate has none.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ReadExtensions {
    pub(super) subject_key_identifier: Option<Vec<u8>>,
    pub(super) authority_key: AuthorityKey,
    pub(super) basic_constraints: Option<BasicConstraints>,
    pub(super) key_usage: Option<KeyUsage>,
    /// Or why they cannot be judged by.
    pub(super) name_constraints: Option<Result<NameConstraints, String>>,
}

/// The authority key identifier: three ways to name the issuer's certificate.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct AuthorityKey {
    pub(super) key_identifier: Option<Vec<u8>>,
    /// The issuer of the issuer's certificate, DER.
    pub(super) issuer_der: Option<Vec<u8>>,
    /// The contents of the INTEGER.
    pub(super) serial: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct BasicConstraints {
    pub(super) ca: bool,
    pub(super) path_length: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyUsage {
    pub(super) key_cert_sign: bool,
    pub(super) crl_sign: bool,
}

impl ReadExtensions {
    /// Reads those of the certificate of `subject`. Fails with the name of an extension that cannot
    /// be read, or is there twice.
    pub(super) fn read(
        extensions: &[Extension],
        subject: &Name,
    ) -> Result<ReadExtensions, &'static str> {
        let subject_key = value_of(extensions, oid::SUBJECT_KEY_IDENTIFIER, OCTET_STRING)
            .map_err(|()| "subject key identifier")?;
        let authority_key = value_of(extensions, oid::AUTHORITY_KEY_IDENTIFIER, SEQUENCE)
            .map_err(|()| "authority key identifier")?;
        let constraints = value_of(extensions, oid::BASIC_CONSTRAINTS, SEQUENCE)
            .map_err(|()| "basic constraints")?;
        let usage = value_of(extensions, oid::KEY_USAGE, BIT_STRING).map_err(|()| "key usage")?;
        let names = value_of(extensions, oid::NAME_CONSTRAINTS, SEQUENCE)
            .map_err(|()| "name constraints")?;
        let critical = extensions
            .iter()
            .any(|it| it.extn_id == oid::NAME_CONSTRAINTS && it.critical);
        Ok(ReadExtensions {
            subject_key_identifier: subject_key.map(|it| it.contents.to_vec()),
            authority_key: authority_key.map(AuthorityKey::read).unwrap_or_default(),
            basic_constraints: constraints.map(BasicConstraints::read),
            key_usage: usage.map(KeyUsage::read),
            name_constraints: names
                .map(|it| NameConstraints::read(it.whole, critical, &subject.to_string())),
        })
    }
}

/// Returns the value of extension `id`. Two of them are an error (RFC 5280 4.2).
fn value_of(
    extensions: &[Extension],
    id: ObjectIdentifier,
    tag: u8,
) -> Result<Option<Element<'_>>, ()> {
    let mut with_id = extensions.iter().filter(|it| it.extn_id == id);
    match (with_id.next(), with_id.next()) {
        (None, _) => Ok(None),
        (Some(extension), None) => match Element::first(extension.extn_value.as_bytes()) {
            Some((value, [])) if value.tag == tag => Ok(Some(value)),
            _ => Err(()),
        },
        (Some(_), Some(_)) => Err(()),
    }
}

impl AuthorityKey {
    fn read(value: Element<'_>) -> AuthorityKey {
        let octets = |tag| value.child(tag).map(|it| it.contents.to_vec());
        let issuer = value.child(context(1));
        let name = issuer.and_then(|names| names.child(DIRECTORY_NAME));
        AuthorityKey {
            key_identifier: octets(KEY_IDENTIFIER),
            issuer_der: name.map(|it| it.contents.to_vec()),
            serial: octets(SERIAL_NUMBER),
        }
    }
}

impl BasicConstraints {
    fn read(value: Element<'_>) -> BasicConstraints {
        let is_true = |it: Element<'_>| it.contents.iter().any(|octet| *octet != 0);
        BasicConstraints {
            ca: value.child(BOOLEAN).is_some_and(is_true),
            path_length: value.child(INTEGER).map(|it| path_length(it.contents)),
        }
    }
}

/// A negative one is read as 0: it allows nothing.
fn path_length(contents: &[u8]) -> u8 {
    match contents {
        [0x80..=0xff, ..] => 0,
        [length] | [0, length] => *length,
        _ => u8::MAX,
    }
}

impl KeyUsage {
    fn read(value: Element<'_>) -> KeyUsage {
        // After the number of unused bits.
        let bits = value.contents.get(1).copied().unwrap_or_default();
        KeyUsage {
            key_cert_sign: bits & KEY_CERT_SIGN != 0,
            crl_sign: bits & CRL_SIGN != 0,
        }
    }
}

/// Says which field of a certificate cannot be read.
pub(super) fn unreadable(der: &[u8]) -> String {
    let field = unreadable_field(der).unwrap_or("signature");
    format!(
        "its {field} is not encoded as RFC 5280 prescribes; `openssl x509 -in FILE -noout -text` may \
         show it, and only its issuer can mend that, with another certificate"
    )
}

fn unreadable_field(der: &[u8]) -> Option<&'static str> {
    let Some((certificate, [])) = Element::first(der) else {
        return Some("end");
    };
    let signed = certificate.first_child()?;
    let mut fields = signed.children().filter(|it| it.tag != context(0));
    let serial = fields.next().filter(|it| it.tag == INTEGER);
    let _algorithm = fields.next();
    let issuer = fields.next().filter(|it| Name::from_der(it.whole).is_ok());
    let validity = fields.next();
    let validity = validity
        .filter(|it| Validity::<x509_cert::certificate::Rfc5280>::from_der(it.whole).is_ok());
    let subject = fields.next().filter(|it| Name::from_der(it.whole).is_ok());
    for (name, field) in [
        ("serial number", serial),
        ("issuer", issuer),
        ("validity", validity),
        ("subject", subject),
    ] {
        if field.is_none() {
            return Some(name);
        }
    }
    let extensions = signed.child(context(3))?;
    match Vec::<Extension>::from_der(extensions.contents) {
        Ok(extensions) => ReadExtensions::read(&extensions, &Name::default()).err(),
        Err(_) => Some("list of extensions"),
    }
}
