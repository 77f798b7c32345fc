//! Compares the names in a request with those of a certificate.
//!
//! A renewal MUST ask for the names of the renewed certificate (RFC 7030 4.2.2). The names read
//! here are compared and looked up, never certified: [`super::csr`] checks a request before that.

use super::certificate::Certificate;
use super::csr::{self, CSR_BYTES_MAX, CsrRefusal};
use super::{name, oid, wire};
use crate::der_bytes::Der;
use der::asn1::{Any, ObjectIdentifier};
use der::{Decode, Encode, Tag, Tagged};
use std::collections::BTreeSet;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::name::Name;
use x509_cert::request::CertReq;

/// A request read as far as its names, with no proof of possession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedNames {
    /// The request, without PEM or base64.
    pub der: Der,
    /// The one common name of the subject.
    pub common_name: Option<String>,
    names: Names,
}

/// Subject and subject alternative names. The string type of a value does not count, because
/// libraries differ in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    subject: Vec<BTreeSet<(ObjectIdentifier, Value)>>,
    alternative: BTreeSet<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Text(Vec<u8>),
    Other(Vec<u8>),
}

impl RequestedNames {
    /// Reads PEM, bare base64 with or without line breaks, or DER.
    pub fn read(bytes: &[u8]) -> Result<RequestedNames, CsrRefusal> {
        if bytes.len() > CSR_BYTES_MAX {
            return Err(CsrRefusal::TooLarge { bytes: bytes.len() });
        }
        let der = csr::unarmored(bytes)?;
        let request = CertReq::from_der(&der).map_err(csr::malformed)?;
        let extensions = csr::requested_extensions(&request.info)?;
        Ok(RequestedNames {
            common_name: name::read_common_name(&request.info.subject)?,
            names: Names::read(&request.info.subject, &extensions).map_err(csr::malformed)?,
            der,
        })
    }

    /// Reads the request for an authority's certificate. Its name may have several common names, or
    /// one in any string type.
    pub fn of_authority(der: &[u8]) -> Result<RequestedNames, CsrRefusal> {
        let request = CertReq::from_der(der).map_err(csr::malformed)?;
        let extensions = csr::requested_extensions(&request.info)?;
        Ok(RequestedNames {
            common_name: None,
            names: Names::read(&request.info.subject, &extensions).map_err(csr::malformed)?,
            der: der.into(),
        })
    }

    /// Returns true if the subject is that of `certificate`.
    pub fn has_subject_of(&self, certificate: &Certificate) -> bool {
        Names::of(certificate).is_ok_and(|names| names.subject == self.names.subject)
    }

    /// Returns true if the subject alternative names are those of `certificate`.
    pub fn has_alternative_names_of(&self, certificate: &Certificate) -> bool {
        Names::of(certificate).is_ok_and(|names| names.alternative == self.names.alternative)
    }

    /// Returns true if subject and subject alternative names are those of `certificate`.
    pub fn has_names_of(&self, certificate: &Certificate) -> bool {
        Names::of(certificate).is_ok_and(|names| names == self.names)
    }
}

impl Names {
    fn of(certificate: &Certificate) -> der::Result<Names> {
        let subject = Name::from_der(certificate.subject_der())?;
        let tbs = wire::TbsCertificate::from_der(certificate.tbs_bytes())?;
        Names::read(&subject, &tbs.extensions.unwrap_or_default())
    }

    fn read(subject: &Name, extensions: &[Extension]) -> der::Result<Names> {
        let alternative: Option<SubjectAltName> =
            wire::extension(extensions, oid::SUBJECT_ALT_NAME)?;
        let alternative = alternative.into_iter().flat_map(|names| names.0);
        Ok(Names {
            subject: subject
                .iter_rdn()
                .map(|names| names.iter().map(|it| (it.oid, Value::of(&it.value))))
                .map(Iterator::collect)
                .collect(),
            alternative: alternative
                .map(|name| name.to_der())
                .collect::<der::Result<_>>()?,
        })
    }
}

impl Value {
    fn of(value: &Any) -> Value {
        match value.tag() {
            Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
                Value::Text(value.value().to_vec())
            }
            _ => Value::Other(value.value().to_vec()),
        }
    }
}
