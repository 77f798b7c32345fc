//! Reads the extensions that decide what a certificate may be used for (RFC 5280 4.2.1).
//!
//! Certificates from elsewhere are not always DER in the details, and relying parties accept them:
//! a default is written out, a bit string has zeros at its end. So the values are read leniently,
//! and only what is read counts.

use super::ber::{BIT_STRING, Element, INTEGER, OCTET_STRING, SEQUENCE, context};
use super::extension::Extension;
use super::name_constraints::NameConstraints;
use super::oid;
use der::asn1::ObjectIdentifier;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        extensions: &[Extension<'_>],
        subject: &str,
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
            .any(|it| it.is(oid::NAME_CONSTRAINTS) && it.critical);
        Ok(ReadExtensions {
            subject_key_identifier: subject_key.map(|it| it.contents.to_vec()),
            authority_key: authority_key.map(AuthorityKey::read).unwrap_or_default(),
            basic_constraints: constraints.map(BasicConstraints::read),
            key_usage: usage.map(KeyUsage::read),
            name_constraints: names.map(|it| NameConstraints::read(it.whole, critical, subject)),
        })
    }
}

/// Returns the value of extension `id`. Two of them are an error (RFC 5280 4.2).
fn value_of<'a>(
    extensions: &[Extension<'a>],
    id: ObjectIdentifier,
    tag: u8,
) -> Result<Option<Element<'a>>, ()> {
    let mut with_id = extensions.iter().filter(|it| it.is(id));
    match (with_id.next(), with_id.next()) {
        (None, _) => Ok(None),
        (Some(extension), None) => match Element::first(extension.value) {
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
