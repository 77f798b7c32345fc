//! Reads the fields of a certification request (PKCS #10, RFC 2986 4), as libraries write them.
//!
//! Fields that are not decoded here stay byte for byte as they were signed. Refusals name the
//! field, because the sender cannot see how a request is encoded.

use super::csr::CsrRefusal;
use super::extension::Extension;
use super::other_file::OtherFile;
use super::subject::SubjectValues;
use super::wire::{Element, elements};
use super::{ber, oid};
use der::asn1::{BitStringRef, ObjectIdentifier};
use der::{Decode, ErrorKind, Length, Reader, SliceReader};
use spki::AlgorithmIdentifierRef;

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, the attributes of a request and the version of a certificate.
const FIRST: u8 = 0xa0;

/// Extensions are requested under the identifier of RFC 2985 5.4.2, and by old programs of Windows
/// under Microsoft's own. Both have the same form.
const EXTENSION_REQUESTS: [ObjectIdentifier; 2] =
    [oid::EXTENSION_REQUEST, oid::MICROSOFT_EXTENSION_REQUEST];

/// The fields of a request. Nothing is verified.
pub(super) struct Fields<'a> {
    /// The signature covers these bytes.
    pub(super) signed: &'a [u8],
    /// The DER `Name`, as it was signed.
    pub(super) subject_der: &'a [u8],
    pub(super) subject: SubjectValues,
    pub(super) spki: &'a [u8],
    /// The requested extensions of every attribute, in their order.
    pub(super) extensions: Vec<Extension<'a>>,
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    /// `None` if it does not fill its octets, as every signature does.
    pub(super) signature: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Reads the DER of one request.
    pub(super) fn read(der: &'a [u8]) -> Result<Fields<'a>, CsrRefusal> {
        let damaged = |field: &'static str| move |error: der::Error| refusal(&error, field);
        let parts = elements(whole(der)?).map_err(damaged("form"))?;
        let [info, algorithm, signature] = parts[..] else {
            return Err(not_a_request(der));
        };
        if info.tag != SEQUENCE {
            return Err(not_a_request(der));
        }
        let info_fields = elements(info.value).map_err(damaged("form"))?;
        let (subject, spki, attributes) = match info_fields[..] {
            // A certificate begins with `[0]`.
            [] | [Element { tag: FIRST, .. }, ..] => return Err(not_a_request(der)),
            [version, ref rest @ ..] => {
                check_version(version)?;
                match *rest {
                    [subject, spki] => (subject, spki, None),
                    [subject, spki, attributes] => (subject, spki, Some(attributes)),
                    _ => return Err(not_a_request(der)),
                }
            }
        };
        let signature = BitStringRef::from_der(signature.whole).map_err(damaged("signature"))?;
        Ok(Fields {
            signed: info.whole,
            subject_der: subject.whole,
            subject: SubjectValues::read(subject.whole).map_err(damaged("subject"))?,
            spki: spki.whole,
            extensions: attributes.map_or_else(|| Ok(Vec::new()), extensions)?,
            algorithm: AlgorithmIdentifierRef::from_der(algorithm.whole)
                .map_err(damaged("signature algorithm"))?,
            signature: signature.as_bytes(),
        })
    }
}

/// Returns the contents of the outer value, which must have all octets that it announces, and none
/// behind it.
fn whole(der: &[u8]) -> Result<&[u8], CsrRefusal> {
    if der.first() != Some(&SEQUENCE) {
        return Err(not_a_request(der));
    }
    let mut reader = SliceReader::new(der).map_err(|error| refusal(&error, "form"))?;
    let length = reader
        .read_byte()
        .and_then(|_| Length::decode(&mut reader))
        .map_err(|error| refusal(&error, "form"))?;
    let there = reader.remaining_len();
    if there < length {
        return Err(CsrRefusal::Malformed(format!(
            "it ends early, after {there} of {length} bytes; send the whole file"
        )));
    }
    reader
        .read_slice(length)
        .map_err(|error| refusal(&error, "form"))
        .and_then(|contents| match usize::try_from(reader.remaining_len()) {
            Ok(0) => Ok(contents),
            _ => Err(CsrRefusal::Malformed(format!(
                "{} bytes follow its end; send the request alone",
                reader.remaining_len()
            ))),
        })
}

/// RFC 2986 4.1 has version 0 alone. RFC 2314 has it, too, and names it version 1.5.
fn check_version(version: Element<'_>) -> Result<(), CsrRefusal> {
    let found = match (version.tag, version.value) {
        (INTEGER, [0]) => return Ok(()),
        (INTEGER, [number @ 0..=0x7f]) => format!("its version is {number}"),
        (INTEGER, _) => "its version is a number that PKCS #10 lacks".to_owned(),
        _ => "it has no version".to_owned(),
    };
    Err(CsrRefusal::Malformed(format!(
        "{found}, and PKCS #10 has version 0 only; in a program, set version 0 or leave it to the \
         library (pyOpenSSL: no set_version), or use `openssl req -new`"
    )))
}

/// Returns the requested extensions of all attributes. RFC 2985 5.4.2 has one attribute with one
/// value; which of several holds is for the reader of an extension to decide.
fn extensions(attributes: Element<'_>) -> Result<Vec<Extension<'_>>, CsrRefusal> {
    let damaged = |error: der::Error| refusal(&error, "attributes");
    let no_attributes = || CsrRefusal::damaged("attributes");
    if attributes.tag != FIRST {
        return Err(no_attributes());
    }
    let mut found = Vec::new();
    for attribute in elements(attributes.value).map_err(damaged)? {
        let parts = elements(attribute.value).map_err(damaged)?;
        let (SEQUENCE, [kind, values @ Element { tag: SET, .. }]) = (attribute.tag, &parts[..])
        else {
            return Err(no_attributes());
        };
        if kind.tag != OBJECT_IDENTIFIER {
            return Err(no_attributes());
        }
        let is_request = |it: &ObjectIdentifier| it.as_bytes() == kind.value;
        if !EXTENSION_REQUESTS.iter().any(is_request) {
            continue;
        }
        for value in elements(values.value).map_err(damaged)? {
            let extensions = Extension::read_list(value.whole)
                .map_err(|error| refusal(&error, "requested extensions"))?;
            found.extend(extensions);
        }
    }
    Ok(found)
}

/// Some encodings are readable and not DER: a reader of DER alone may read them as something else.
pub(super) fn refusal(error: &der::Error, field: &'static str) -> CsrRefusal {
    match error.kind() {
        ErrorKind::IndefiniteLength
        | ErrorKind::Overlength
        | ErrorKind::Noncanonical { .. }
        | ErrorKind::SetOrdering => CsrRefusal::NotCanonical,
        _ => CsrRefusal::damaged(field),
    }
}

/// Names what the sender has sent instead. A private key must not be sent again.
fn not_a_request(der: &[u8]) -> CsrRefusal {
    let element = ber::Element::first(der).map(|(element, _)| element);
    let is_signed_data = |it: ber::Element<'_>| {
        let kind = it.first_child();
        kind.is_some_and(|it| it.is_identifier() && it.contents == oid::SIGNED_DATA.as_bytes())
    };
    let reason = match element.map(|it| (OtherFile::of_der(it), is_signed_data(it))) {
        Some((OtherFile::PrivateKey, _)) => {
            "it is a private key, which must stay where it is; keep it secret, and send the \
             request that is made with it"
        }
        Some((OtherFile::PublicKey, _)) => {
            "it is a public key alone; send a request, which proves that its sender has the \
             private key"
        }
        Some((_, true)) => {
            "it is a CMC request (PKCS #7); send one of PKCS #10 (certreq: RequestType = PKCS10 in \
             the INF file)"
        }
        _ => "it is no PKCS #10 certification request; make one with `openssl req -new -key KEY`",
    };
    CsrRefusal::Malformed(reason.to_owned())
}
