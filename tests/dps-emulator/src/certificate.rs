//! A certificate as the emulator sees it.
//!
//! Read with `x509-parser`, which the daemon does not use: a certificate that the daemon builds
//! wrongly must not be read back wrongly in the same way. Bytes come from outside, so every reader
//! here has a limit and none may panic.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use x509_parser::asn1_rs::Sequence;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

use crate::dates;

/// Longest text of one certificate: far above any X.509 certificate that a device carries.
pub(crate) const TEXT_LENGTH_MAX: usize = 32 * 1024;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// Why a text or a run of bytes is not one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the certificate is too long")]
    TooLong,
    /// Neither PEM nor base64. The words are the service's own (contract section 3).
    #[error("The certificate is not a valid base64 string value")]
    NotBase64,
    /// More than one certificate where one is expected.
    #[error("expected one certificate, got several")]
    Several,
    /// The bytes are no X.509 certificate, or something follows it.
    #[error("the certificate is not valid X.509 DER")]
    NotX509,
}

/// One X.509 certificate: its bytes, and what the contract needs to know about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Certificate {
    der: Vec<u8>,
    subject: String,
    issuer: String,
    common_names: Vec<String>,
    serial: String,
    version: u32,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    authority: Option<PathLength>,
    may_sign_certificates: bool,
}

/// The path length constraint of an authority, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PathLength(Option<u32>);

/// A subject's public key, in the two parts that verifiers want.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    /// The contents of the `AlgorithmIdentifier`, as DER.
    pub(crate) algorithm: Vec<u8>,
    /// The contents of the bit string.
    pub(crate) bits: Vec<u8>,
}

impl Certificate {
    /// Read exactly one DER certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, Unreadable> {
        if der.len() > TEXT_LENGTH_MAX {
            return Err(Unreadable::TooLong);
        }
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| Unreadable::NotX509)?;
        if !rest.is_empty() {
            return Err(Unreadable::NotX509);
        }
        Self::from_parsed(der, &parsed).ok_or(Unreadable::NotX509)
    }

    /// Read any of the four encodings that clients are known to send: PEM, the body of a PEM,
    /// base64 of a PEM, base64 of DER (contract section 3).
    pub fn from_text(text: &str) -> Result<Self, Unreadable> {
        if text.len() > TEXT_LENGTH_MAX {
            return Err(Unreadable::TooLong);
        }
        if text.contains(PEM_BEGIN) {
            return Self::from_der(&pem_body(text)?);
        }
        let bytes = base64_without_blanks(text)?;
        match std::str::from_utf8(&bytes) {
            Ok(inner) if inner.contains(PEM_BEGIN) => Self::from_der(&pem_body(inner)?),
            _ => Self::from_der(&bytes),
        }
    }

    fn from_parsed(der: &[u8], parsed: &X509Certificate<'_>) -> Option<Self> {
        let constraints = parsed.basic_constraints().ok()?.map(|found| found.value);
        let usage = parsed.key_usage().ok()?.map(|found| found.value);
        let common_names = parsed.subject().iter_common_name();
        Some(Self {
            der: der.to_vec(),
            subject: name_text(parsed.subject()),
            issuer: name_text(parsed.issuer()),
            common_names: common_names
                .map(|name| name.as_str().map(str::to_owned).ok())
                .collect::<Option<_>>()?,
            serial: hex::encode_upper(parsed.raw_serial()),
            version: parsed.version().0.checked_add(1)?,
            not_before: date(parsed.validity().not_before.timestamp())?,
            not_after: date(parsed.validity().not_after.timestamp())?,
            authority: constraints
                .filter(|constraints| constraints.ca)
                .map(|constraints| PathLength(constraints.path_len_constraint)),
            may_sign_certificates: usage.is_none_or(|usage| usage.key_cert_sign()),
        })
    }

    /// The bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject's one common name; none if it has none or several.
    pub fn common_name(&self) -> Option<&str> {
        match self.common_names.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }

    /// Upper-case SHA-256 thumbprint, as the hub keeps it (contract section 9).
    pub fn sha256(&self) -> String {
        thumbprint(&digest::SHA256, &self.der)
    }

    /// Upper-case SHA-1 thumbprint, as the resource manager shows it (contract section 11).
    pub fn sha1(&self) -> String {
        thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, &self.der)
    }

    /// End of validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether `at` lies within the validity, ends included (RFC 5280 section 4.1.2.5).
    pub fn is_valid_at(&self, at: OffsetDateTime) -> bool {
        let second = OffsetDateTime::from_unix_timestamp(at.unix_timestamp()).unwrap_or(at);
        self.not_before <= second && second <= self.not_after
    }

    /// Whether the certificate names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.with_parsed(|own| own.issuer().as_raw() == own.subject().as_raw())
    }

    /// Whether `issuer` is an authority that may sign this certificate with `below` further
    /// authorities under it, names it as its subject, and really signed it (RFC 5280 section 6.1).
    pub(crate) fn is_issued_by(&self, issuer: &Self, below: u32) -> bool {
        let path_allows = matches!(issuer.authority, Some(PathLength(limit))
            if limit.is_none_or(|limit| below <= limit));
        path_allows && issuer.may_sign_certificates && self.is_signed_by(issuer)
    }

    /// Whether `issuer`'s key signed this certificate, under `issuer`'s name. Asks nothing else of
    /// `issuer`: enough for a proof of possession (contract section 11).
    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        self.with_parsed(|own| {
            issuer.with_parsed(|issuer| {
                own.issuer().as_raw() == issuer.subject().as_raw()
                    && own.verify_signature(Some(issuer.public_key())).is_ok()
            })
        })
    }

    /// The public key, for signatures that are not on certificates.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        let (_, parsed) = X509Certificate::from_der(&self.der).ok()?;
        let whole = parsed.public_key();
        let (_, outer) = Sequence::from_der(whole.raw).ok()?;
        let (_, algorithm) = Sequence::from_der(&outer.content).ok()?;
        Some(PublicKey {
            algorithm: algorithm.content.to_vec(),
            bits: whole.subject_public_key.data.to_vec(),
        })
    }

    /// The `info` that an enrollment shows instead of the certificate (contract section 3).
    pub(crate) fn info(&self) -> Value {
        json!({
            "subjectName": self.subject,
            "sha1Thumbprint": self.sha1(),
            "sha256Thumbprint": self.sha256(),
            "issuerName": self.issuer,
            "notBeforeUtc": dates::whole_seconds(self.not_before),
            "notAfterUtc": dates::whole_seconds(self.not_after),
            "serialNumber": self.serial,
            "version": self.version,
        })
    }

    fn with_parsed(&self, ask: impl FnOnce(&X509Certificate<'_>) -> bool) -> bool {
        X509Certificate::from_der(&self.der).is_ok_and(|(_, parsed)| ask(&parsed))
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl From<Certificate> for String {
    fn from(certificate: Certificate) -> Self {
        STANDARD.encode(&certificate.der)
    }
}

impl TryFrom<String> for Certificate {
    type Error = Unreadable;

    fn try_from(text: String) -> Result<Self, Unreadable> {
        Self::from_text(&text)
    }
}

fn thumbprint(algorithm: &'static digest::Algorithm, der: &[u8]) -> String {
    hex::encode_upper(digest::digest(algorithm, der))
}

fn date(timestamp: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(timestamp).ok()
}

/// The most specific part first, separated by `", "` (contract section 3).
fn name_text(name: &X509Name<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    let mut parts: Vec<String> = name
        .iter_rdn()
        .flat_map(|rdn| rdn.iter())
        .map(|attribute| {
            let kind = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry)
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            let value = attribute
                .as_str()
                .map_or_else(|_| hex::encode(attribute.as_slice()), str::to_owned);
            format!("{kind}={value}")
        })
        .collect();
    parts.reverse();
    parts.join(", ")
}

fn pem_body(text: &str) -> Result<Vec<u8>, Unreadable> {
    let (_, after) = text.split_once(PEM_BEGIN).ok_or(Unreadable::NotBase64)?;
    let (body, rest) = after.split_once(PEM_END).ok_or(Unreadable::NotBase64)?;
    if rest.contains(PEM_BEGIN) {
        return Err(Unreadable::Several);
    }
    base64_without_blanks(body)
}

fn base64_without_blanks(text: &str) -> Result<Vec<u8>, Unreadable> {
    let dense: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(dense).map_err(|_| Unreadable::NotBase64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["press-7".to_owned()]).unwrap()
    }

    #[test]
    fn all_four_encodings_are_the_same_certificate() {
        let made = sample().cert;
        let der = made.der().to_vec();
        let pem = made.pem();
        for text in [
            pem.clone(),
            pem.replace("\r\n", "").replace('\n', ""),
            STANDARD.encode(&pem),
            STANDARD.encode(&der),
        ] {
            assert_eq!(Certificate::from_text(&text).unwrap().der(), der);
        }
    }

    #[test]
    fn two_certificates_are_not_one() {
        let pem = sample().cert.pem();
        let twice = format!("{pem}{pem}");
        assert_eq!(
            Certificate::from_text(&twice).unwrap_err(),
            Unreadable::Several
        );
    }

    #[test]
    fn bytes_after_the_certificate_are_refused() {
        let mut der = sample().cert.der().to_vec();
        der.push(0);
        assert_eq!(
            Certificate::from_der(&der).unwrap_err(),
            Unreadable::NotX509
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Certificate::from_der(&bytes);
            let _ = Certificate::from_text(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_damaged_certificate_does_not_make_the_reader_panic(at in 0usize..300, byte: u8) {
            let mut der = sample().cert.der().to_vec();
            let at = at % der.len();
            der[at] = byte;
            if let Ok(read) = Certificate::from_der(&der) {
                let _ = read.is_signed_by(&read);
                let _ = read.info();
            }
        }
    }
}
