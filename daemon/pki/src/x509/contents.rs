//! Finds the certificates in a file: PEM with any of its labels, DER, base64 of DER, and PKCS#7.
//!
//! A certificate keeps its octets, and is not read here. The label of a PEM block is no proof of
//! its contents, because tools write `CERTIFICATE` around PKCS#7 and other things; so the contents
//! decide, except where the label says that they may be secret.

use super::ber::{BIT_STRING, Element, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, context};
use super::bundle::BundleRefusal;
use super::other_file::OtherFile;
use super::{oid, pem};
use crate::der_bytes::Der;

/// How often base64 is found within base64.
const ARMOURS_MAX: usize = 2;

/// A certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) der: Der,
    /// Whether it may be used as an anchor for TLS servers: OpenSSL's trusted certificates can say
    /// that it may not.
    pub(super) trusted_for_servers: bool,
    /// It is from a set of PKCS#7, which has no order.
    pub(super) in_set: bool,
}

/// Returns all certificates in `bytes`, in their order.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<Found>, BundleRefusal> {
    in_file(bytes, ARMOURS_MAX)
}

fn in_file(bytes: &[u8], armours: usize) -> Result<Vec<Found>, BundleRefusal> {
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(in_der(bytes)?);
    }
    let blocks = pem::blocks(bytes)?;
    if !blocks.is_empty() {
        return in_blocks(&blocks);
    }
    let kind = OtherFile::of_file(bytes);
    match pem::decode_base64(bytes) {
        Ok(decoded) if armours > 0 && !decoded.is_empty() => match in_file(&decoded, armours - 1) {
            // Words without blanks are base64, too.
            Err(BundleRefusal::Other(OtherFile::Unknown | OtherFile::Damaged)) => Err(kind.into()),
            found => found,
        },
        _ => Err(kind.into()),
    }
}

/// Skips blocks of other kinds: files hold a chain together with the key or the request.
fn in_blocks(blocks: &[pem::Block<'_>]) -> Result<Vec<Found>, BundleRefusal> {
    let mut found = Vec::new();
    let mut other = None;
    for block in blocks {
        let kind = OtherFile::of_label(block.label);
        let in_block = match kind {
            Some(kind) => Err(kind),
            None => in_der(&block.der()?),
        };
        match in_block {
            Ok(certificates) => found.extend(certificates),
            // Its label promises a certificate: it must not be lost in silence.
            Err(kind) if is_certificate_label(block.label) => return Err(kind.into()),
            Err(OtherFile::Unknown) => {
                other.get_or_insert(OtherFile::Block(block.label.to_owned()));
            }
            Err(kind) => {
                other.get_or_insert(kind);
            }
        }
    }
    match other {
        Some(kind) if found.is_empty() => Err(kind.into()),
        _ => Ok(found),
    }
}

/// RFC 7468 5.1 names older labels, and OpenSSL has one of its own.
fn is_certificate_label(label: &str) -> bool {
    matches!(
        label,
        "CERTIFICATE" | "X509 CERTIFICATE" | "X.509 CERTIFICATE" | "TRUSTED CERTIFICATE"
    )
}

/// Reads certificates one after the other, or PKCS#7.
fn in_der(bytes: &[u8]) -> Result<Vec<Found>, OtherFile> {
    let Some((first, mut rest)) = Element::first(bytes) else {
        let whole = bytes.is_empty();
        return Err(if whole {
            OtherFile::Empty
        } else {
            OtherFile::Damaged
        });
    };
    if !is_certificate(first) {
        return match in_container(first) {
            Some(certificates) if certificates.is_empty() => Err(OtherFile::WithoutCertificates),
            Some(certificates) => Ok(certificates),
            None => Err(OtherFile::of_der(first)),
        };
    }
    let mut found = vec![Found::alone(first)];
    while let Some((next, after)) = Element::first(rest) {
        if is_certificate(next) {
            found.push(Found::alone(next));
        } else if let Some(last) = found.last_mut().filter(|_| next.tag == SEQUENCE) {
            last.trusted_for_servers = trusts_servers(next);
        } else {
            break;
        }
        rest = after;
    }
    // Some tools end DER files with a newline or with zeros.
    if rest.iter().all(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
        Ok(found)
    } else {
        Err(OtherFile::Behind(rest.len()))
    }
}

impl Found {
    fn alone(certificate: Element<'_>) -> Found {
        Found {
            der: certificate.whole.into(),
            trusted_for_servers: true,
            in_set: false,
        }
    }
}

/// `Certificate` (RFC 5280 4.1): the signed part begins with a version, or has the six fields of
/// version 1, with a validity of two times.
fn is_certificate(element: Element<'_>) -> bool {
    let mut parts = element.children();
    let (Some(signed), Some(algorithm), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let tags = [element.tag, signed.tag, algorithm.tag, signature.tag];
    let has_version = || signed.first_child().is_some_and(|it| it.tag == context(0));
    let validity = signed.children().filter(|it| it.tag == SEQUENCE).nth(2);
    let is_of_version_1 = || {
        signed.child(INTEGER).is_some()
            && validity.is_some_and(|it| it.first_child().is_some_and(Element::is_time))
    };
    tags == [SEQUENCE, SEQUENCE, SEQUENCE, BIT_STRING] && (has_version() || is_of_version_1())
}

/// The certificates of `SignedData` (RFC 5652 5.1), or of Netscape's sequence of certificates.
fn in_container(file: Element<'_>) -> Option<Vec<Found>> {
    let kind = file
        .first_child()
        .filter(|it| it.tag == OBJECT_IDENTIFIER)?;
    let content = file.child(context(0))?.first_child()?;
    let certificates = if kind.contents == oid::SIGNED_DATA.as_bytes() {
        content.child(context(0))
    } else if kind.contents == oid::NETSCAPE_CERTIFICATE_SEQUENCE.as_bytes() {
        Some(content)
    } else {
        return None;
    };
    let certificates = certificates.into_iter().flat_map(Element::children);
    let found = certificates
        .filter(|it| is_certificate(*it))
        .map(|it| Found {
            in_set: true,
            ..Found::alone(it)
        });
    Some(found.collect())
}

/// `X509_CERT_AUX` of OpenSSL: purposes that the certificate is trusted for, and purposes for which
/// it is rejected. Without the first it is trusted for everything else.
fn trusts_servers(settings: Element<'_>) -> bool {
    let names_servers = |purposes: Element<'_>| {
        purposes.children().any(|it| {
            [oid::SERVER_AUTH, oid::ANY_EXTENDED_KEY_USAGE]
                .iter()
                .any(|known| known.as_bytes() == it.contents)
        })
    };
    let trusted = settings.child(SEQUENCE);
    let rejected = settings.child(context(0));
    trusted.is_none_or(names_servers) && !rejected.is_some_and(names_servers)
}
