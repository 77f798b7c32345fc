//! The lint: a second opinion on to-be-signed bytes, before they are recorded and signed.
//!
//! It must never share code with the builder. It reads the bytes with x509-parser and a DER walk
//! of its own, and compares them with what was asked for; it computes digests, times and
//! algorithm identifiers itself. A mistake then has to be made twice, the same way, to be signed.

mod canonical;
pub mod crl;
mod extensions;
mod fields;
mod issuer;
mod values;

use super::issuer::Distribution;
use super::key::{PublicKey, SignatureAlgorithm};
use super::name::DistinguishedName;
use super::profile::Profile;
use super::san::SubjectAlternativeName;
use super::serial::SerialNumber;
use super::tbs::ToBeSigned;
pub use issuer::IssuerReading;
use std::fmt;
use x509_parser::certificate::TbsCertificate;
use x509_parser::prelude::FromDer;

/// What was asked for, taken from where it was decided: never from the builder.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// Who signs.
    pub issuer: ExpectedIssuer<'a>,
    /// The URLs that the issuer's certificates carry.
    pub distribution: Option<&'a Distribution>,
    /// The shape.
    pub profile: &'a Profile,
    /// The registration id of the device, or the common name of the authority.
    pub common_name: &'a str,
    /// The whole subject.
    pub subject: &'a DistinguishedName,
    /// The key.
    pub public_key: &'a PublicKey,
    /// The names that were requested.
    pub subject_alternative_names: &'a [SubjectAlternativeName],
    /// The serial number.
    pub serial: &'a SerialNumber,
    /// The present, in Unix seconds.
    pub now: i64,
}

/// Who signs what is linted.
#[derive(Clone, Copy, Debug)]
pub enum ExpectedIssuer<'a> {
    /// The authority with this certificate.
    Certificate(&'a IssuerReading),
    /// The certified key itself.
    SelfSigned,
}

/// To-be-signed bytes that passed the lint. Nothing else may reach a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintedTbs {
    tbs: ToBeSigned,
}

/// One thing that is not as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable, in snake case.
    pub id: &'static str,
    /// What was found, for people.
    pub text: String,
}

/// All findings of one lint; at least one. A bug or an attack: never sign, tell the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LintFailures(Vec<Finding>);

impl LintedTbs {
    /// The DER bytes to sign.
    pub fn bytes(&self) -> &[u8] {
        &self.tbs.bytes
    }

    /// The serial number in them.
    pub fn serial(&self) -> &SerialNumber {
        &self.tbs.serial
    }

    /// `(notBefore, notAfter)` in Unix seconds.
    pub fn validity(&self) -> (i64, i64) {
        self.tbs.validity()
    }

    /// The algorithm that they say they are signed in.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.tbs.signature_algorithm
    }
}

impl LintFailures {
    /// In the order in which they were found.
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

/// Checks the bytes against what was asked for, and reports all that differs.
pub fn lint(tbs: ToBeSigned, expected: &Expectation<'_>) -> Result<LintedTbs, LintFailures> {
    let mut findings = Findings::default();
    if let Err(finding) = check(&tbs, expected, &mut findings) {
        findings.0.push(finding);
    }
    match findings.0.is_empty() {
        true => Ok(LintedTbs { tbs }),
        false => Err(LintFailures(findings.0)),
    }
}

/// An error is a finding after which nothing more can be read.
fn check(
    tbs: &ToBeSigned,
    expected: &Expectation<'_>,
    findings: &mut Findings,
) -> Result<(), Finding> {
    let parts = fields::Parts::read(&tbs.bytes).map_err(finding("not_canonical"))?;
    let parsed = read_with_parser(&tbs.bytes).map_err(finding("unreadable"))?;
    let issuer = issuer::Issuer::read(expected, &parts).map_err(finding("issuer_unreadable"))?;
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

/// What travels beside the bytes must say the same as they do.
fn check_labels(
    tbs: &ToBeSigned,
    parts: &fields::Parts<'_>,
    parsed: &TbsCertificate<'_>,
    findings: &mut Findings,
) {
    let validity = (
        parsed.validity.not_before.timestamp(),
        parsed.validity.not_after.timestamp(),
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

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn require(&mut self, holds: bool, id: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Finding { id, text: text() });
        }
    }
}
