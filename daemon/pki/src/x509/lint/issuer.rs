//! Reads the issuer for the lint from the bytes of its certificate.

use super::fields::{Parts, moment};
use super::{Expectation, ExpectedIssuer, canonical};
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use x509_parser::certificate::{TbsCertificate, X509Certificate};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// An issuer's certificate, read once for all certificates that it issues.
#[derive(Clone, Debug)]
pub struct IssuerReading(Result<Facts, String>);

#[derive(Clone, Debug)]
struct Facts {
    name: Der,
    signature_algorithm: Result<&'static [u8], String>,
    above: Above,
}

/// The fields of the issuer's certificate that the lint compares.
pub(super) struct ComparedIssuer<'a> {
    pub(super) name: &'a [u8],
    /// The AlgorithmIdentifier of the issuer's signatures.
    pub(super) signature_algorithm: Result<&'static [u8], String>,
    /// `None` for a self-signed certificate.
    pub(super) above: Option<&'a Above>,
}

/// Limits for a certificate that is not self-signed.
#[derive(Clone, Debug)]
pub(super) struct Above {
    pub(super) key_identifier: Vec<u8>,
    pub(super) not_before: UnixSeconds,
    pub(super) not_after: UnixSeconds,
    pub(super) path_length: Option<u32>,
}

impl IssuerReading {
    /// Reads the certificate. An error in it becomes a finding of the next lint.
    pub fn new(certificate: &Certificate) -> IssuerReading {
        IssuerReading(Facts::read(certificate.der()))
    }

    pub(super) fn issuer(&self) -> Result<ComparedIssuer<'_>, String> {
        let facts = self.0.as_ref().map_err(String::clone)?;
        Ok(ComparedIssuer {
            name: &facts.name,
            signature_algorithm: facts.signature_algorithm.clone(),
            above: Some(&facts.above),
        })
    }
}

impl ExpectedIssuer<'_> {
    /// The key identifier that the certificate must have, where it follows another certificate.
    pub(super) fn kept_key_identifier(&self) -> Option<Result<Vec<u8>, String>> {
        let ExpectedIssuer::Cross { subject, .. } = self else {
            return None;
        };
        let facts = subject.0.as_ref().map_err(String::clone);
        Some(facts.map(|it| it.above.key_identifier.clone()))
    }
}

impl Facts {
    fn read(der: &[u8]) -> Result<Facts, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let tbs = parsed.tbs_certificate;
        Ok(Facts {
            name: tbs.subject.as_raw().into(),
            signature_algorithm: signature_algorithm(tbs.subject_pki.raw),
            above: Above::read(&tbs)?,
        })
    }
}

impl<'a> ComparedIssuer<'a> {
    pub(super) fn read(
        expected: &Expectation<'a>,
        parts: &Parts<'a>,
    ) -> Result<ComparedIssuer<'a>, String> {
        match expected.issuer {
            ExpectedIssuer::Certificate(reading)
            | ExpectedIssuer::Cross {
                issuer: reading, ..
            } => reading.issuer(),
            ExpectedIssuer::SelfSigned => Ok(ComparedIssuer {
                name: parts.subject.whole,
                signature_algorithm: signature_algorithm(parts.spki.whole),
                above: None,
            }),
        }
    }
}

fn signature_algorithm(spki: &[u8]) -> Result<&'static [u8], String> {
    let key = canonical::children(canonical::read(spki)?)?;
    let kind = key.first().map(|algorithm| algorithm.whole);
    match kind {
        // id-ecPublicKey, secp256r1: ecdsa-with-SHA256
        Some(
            b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
        ) => Ok(b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"),
        // id-ecPublicKey, secp384r1: ecdsa-with-SHA384
        Some(b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22") => {
            Ok(b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03")
        }
        // id-ecPublicKey, secp521r1: ecdsa-with-SHA512
        Some(b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23") => {
            Ok(b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04")
        }
        // rsaEncryption: sha256WithRSAEncryption
        Some(b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00") => {
            Ok(b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00")
        }
        // id-Ed25519: the same
        Some(b"\x30\x05\x06\x03\x2b\x65\x70") => Ok(b"\x30\x05\x06\x03\x2b\x65\x70"),
        _ => Err("the issuer's key is of an unknown kind".to_owned()),
    }
}

impl Above {
    fn read(tbs: &TbsCertificate<'_>) -> Result<Above, String> {
        let constraints = tbs.basic_constraints().map_err(|error| error.to_string())?;
        Ok(Above {
            key_identifier: key_identifier(tbs).ok_or("the issuer has no key identifier")?,
            not_before: moment(tbs.validity.not_before),
            not_after: moment(tbs.validity.not_after),
            path_length: constraints.and_then(|extension| extension.value.path_len_constraint),
        })
    }
}

fn key_identifier(tbs: &TbsCertificate<'_>) -> Option<Vec<u8>> {
    tbs.extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        })
}
