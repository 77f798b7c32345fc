//! Checks to-be-signed bytes a second time, before they are recorded and signed.
//!
//! The lint must never share code with the builder. It reads the bytes with x509-parser and a DER
//! walk of its own, compares them with the request, and computes digests, times and algorithm
//! identifiers itself. A mistake is signed only if it was made twice in the same way.

pub(super) mod canonical;
pub mod crl;
mod encoded;
mod extensions;
mod fields;
mod issuer;
pub mod ocsp;
pub mod signable;
mod values;

use super::issuer::Distribution;
use super::key::{PublicKey, SignatureAlgorithm};
use super::name::Subject;
use super::name_constraints::KeptConstraints;
use super::profile::Profile;
use super::san::SubjectAlternativeName;
use super::serial::SerialNumber;
use super::tbs::ToBeSigned;
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
pub use issuer::IssuerReading;
use std::fmt;
use x509_parser::certificate::TbsCertificate;
use x509_parser::prelude::FromDer;

/// The requested content, taken from the code that decided it and never from the builder.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    pub issuer: ExpectedIssuer<'a>,
    /// The URLs that the issuer's certificates carry.
    pub distribution: Option<&'a Distribution>,
    pub profile: &'a Profile,
    /// The registration id of the device, or the common name of the authority.
    pub common_name: &'a str,
    pub subject: &'a Subject,
    pub public_key: &'a PublicKey,
    pub subject_alternative_names: &'a [SubjectAlternativeName],
    /// The constraints of the certificate that this one follows.
    pub name_constraints: Option<&'a KeptConstraints>,
    pub serial: &'a SerialNumber,
    /// The time of issuance, in Unix seconds.
    pub now: UnixSeconds,
}

/// The issuer of the linted certificate.
#[derive(Clone, Copy, Debug)]
pub enum ExpectedIssuer<'a> {
    /// The authority with this certificate.
    Certificate(&'a IssuerReading),
    /// One generation of a root, which certifies another one (RFC 4210 4.4).
    Cross {
        issuer: &'a IssuerReading,
        /// The self-signed certificate of the other one.
        subject: &'a IssuerReading,
    },
    /// The certified key itself.
    SelfSigned,
}

/// To-be-signed bytes that passed the lint. Nothing else may reach a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintedTbs {
    tbs: ToBeSigned,
}

/// One difference from the requested content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The stable code, in snake case.
    pub id: &'static str,
    /// The difference in words.
    pub text: String,
}

/// The findings of one lint, at least one. They mean a bug or an attack: the bytes must not be
/// signed, and the operator must know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LintFailures(Vec<Finding>);

impl LintedTbs {
    /// Returns the DER bytes to sign.
    pub fn bytes(&self) -> &Der {
        &self.tbs.bytes
    }

    /// Returns the serial number.
    pub fn serial(&self) -> &SerialNumber {
        &self.tbs.serial
    }

    /// Returns `(notBefore, notAfter)` in Unix seconds.
    pub fn validity(&self) -> (UnixSeconds, UnixSeconds) {
        self.tbs.validity()
    }

    /// Returns the signature algorithm in the bytes.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.tbs.signature_algorithm
    }
}

impl LintFailures {
    /// Returns the findings in the order of the checks.
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

impl fmt::Display for LintFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lint refuses the bytes:")?;
        for Finding { id, text } in &self.0 {
            write!(f, " [{id}] {text};")?;
        }
        Ok(())
    }
}

/// Checks the bytes against the requested content, and returns all differences.
pub fn lint(tbs: ToBeSigned, expected: &Expectation<'_>) -> Result<LintedTbs, LintFailures> {
    let mut findings = Findings::default();
    if let Err(finding) = check(&tbs, expected, &mut findings) {
        findings.0.push(finding);
    }
    if findings.0.is_empty() {
        Ok(LintedTbs { tbs })
    } else {
        Err(LintFailures(findings.0))
    }
}

/// Fails with a finding after which the rest cannot be read.
fn check(
    tbs: &ToBeSigned,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) -> Result<(), Finding> {
    let parts = fields::Parts::read(&tbs.bytes).map_err(finding("not_canonical"))?;
    let parsed = read_with_parser(&tbs.bytes).map_err(finding("unreadable"))?;
    let issuer =
        issuer::ComparedIssuer::read(expected, &parts).map_err(finding("issuer_unreadable"))?;
    fields::check(&parts, &parsed, &issuer, expected, findings);
    check_labels(tbs, &parts, &parsed, findings);
    extensions::check(&parts, &parsed, &issuer, expected, findings)
}

fn finding(id: &'static str) -> impl FnOnce(String) -> Finding {
    move |text| Finding { id, text }
}

fn read_with_parser(bytes: &[u8]) -> Result<TbsCertificate<'_>, String> {
    match TbsCertificate::from_der(bytes) {
        Ok(([], tbs)) => Ok(tbs),
        Ok((rest, _)) => Err(format!("{} bytes after the end", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks that the values beside the bytes match the bytes.
fn check_labels(
    tbs: &ToBeSigned,
    parts: &fields::Parts<'_>,
    parsed: &TbsCertificate<'_>,
    findings: &mut Findings,
) {
    let validity = (
        fields::moment(parsed.validity.not_before),
        fields::moment(parsed.validity.not_after),
    );
    findings.require(tbs.validity == validity, "validity_label", || {
        format!(
            "the bytes do not state the validity {:?} beside them",
            tbs.validity
        )
    });
    findings.require(
        tbs.serial.der_contents() == parts.serial.contents,
        "serial_label",
        || {
            format!(
                "the bytes do not carry the serial {} beside them",
                tbs.serial
            )
        },
    );
    findings.require(
        tbs.signature_algorithm.identifier_der() == parts.signature.whole,
        "signature_label",
        || {
            format!(
                "the bytes do not name {:?} beside them",
                tbs.signature_algorithm
            )
        },
    );
}

/// The findings so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn require(&mut self, holds: bool, id: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Finding { id, text: text() });
        }
    }
}
