//! Describes one certificate to be signed: what steps 6 to 10 of the issuance cycle need to know.
//!
//! Builds its to-be-signed bytes, its intent and its audit entry. Nothing here reaches the store or
//! a token.

use super::hierarchy::Generation;
use super::issuer::pace::Source;
use super::profile::Role;
use super::{Code, Error};
use crate::ids::GenerationId;
use crate::store::{AuditEntry, Grant, Idempotency, Intent, Moves, OnIssued, Purpose, Requester};
use crate::token::KeyReference;
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::issuer::{Distribution, IssuerFields};
use crate::x509::key::PublicKey;
use crate::x509::lint::{self, Expectation, ExpectedIssuer, IssuerReading, LintedTbs};
use crate::x509::name::Subject;
use crate::x509::name_constraints::KeptConstraints;
use crate::x509::profile::Profile;
use crate::x509::requested_names::RequestedNames;
use crate::x509::san::SubjectAlternativeName;
use crate::x509::serial::SerialNumber;
use crate::x509::tbs;
use serde_json::json;

/// One certificate to be signed, and what follows from it.
pub(super) struct SigningRequest<'a> {
    pub source: Source,
    pub signer: Signer<'a>,
    pub purpose: Purpose,
    pub profile_name: &'a str,
    pub profile: &'a Profile,
    pub subject: Subject,
    pub public_key: &'a PublicKey,
    pub caller: String,
    pub holder: LeafHolder<'a>,
    pub on_issued: OnIssued,
}

/// The holder of a leaf; [`LeafHolder::none`] for a certificate that the daemon itself needs.
pub(super) struct LeafHolder<'a> {
    pub subject_alternative_names: &'a [SubjectAlternativeName],
    /// For an authority: the constraints of the certificate that this one follows.
    pub name_constraints: Option<&'a KeptConstraints>,
    /// The registration id, or the common name that was asked for; the lint compares it with the
    /// subject. `None` for a certificate that the daemon itself needs.
    pub common_name: Option<&'a str>,
    /// All that the request names, certified or not.
    pub requested_names: Option<&'a RequestedNames>,
    /// The extensions that a request for an authority asks for, and no profile has a place for.
    pub dropped_extensions: &'a [String],
    /// The daemon has made the key.
    pub generated_key: bool,
    /// Other holders may have the same key.
    pub shared_key: bool,
    /// The role that the holder will have here.
    pub role: Option<Role>,
    pub requester: Option<Requester>,
    pub idempotency: Option<Idempotency>,
    /// For a device: from which other profiles it may be moved to this one.
    pub moves: Moves,
    /// The serial number of the certificate that the holder renews. Devices are named here only if
    /// that certificate had ended.
    pub renews: Option<String>,
    /// By what a device without a valid leaf requests this one.
    pub grant: Option<Grant>,
    /// The generation of the same root whose key a cross-certificate certifies.
    pub certified: Option<&'a Generation>,
}

/// The signer: a serving generation, or a root that is about to sign itself.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub generation: GenerationId,
    pub authority: &'a str,
    /// The token of the authority; another one may hold the same key (`failover`).
    pub token: &'a str,
    pub key: &'a KeyReference,
    pub issuer: &'a IssuerFields,
    /// `None` for a root that is about to sign itself.
    pub certificate: Option<&'a IssuerReading>,
    /// Where relying parties find the issuer's revocation list and certificate.
    pub distribution: Option<&'a Distribution>,
}

impl<'a> From<&'a Generation> for Signer<'a> {
    fn from(generation: &'a Generation) -> Self {
        Self {
            generation: generation.id,
            authority: &generation.authority,
            token: &generation.token,
            key: &generation.key,
            issuer: &generation.issuer,
            certificate: Some(&generation.reading),
            distribution: Some(&generation.distribution),
        }
    }
}

impl LeafHolder<'_> {
    pub(super) fn none() -> Self {
        Self {
            subject_alternative_names: &[],
            name_constraints: None,
            common_name: None,
            requested_names: None,
            dropped_extensions: &[],
            generated_key: false,
            shared_key: false,
            role: None,
            requester: None,
            idempotency: None,
            moves: Moves::Never,
            renews: None,
            grant: None,
            certified: None,
        }
    }
}

impl SigningRequest<'_> {
    /// Builds the to-be-signed bytes and lints them by code that the builder does not share.
    pub(super) fn build_and_lint(
        &self,
        serial: &SerialNumber,
        now: UnixSeconds,
    ) -> Result<LintedTbs, Error> {
        let request = tbs::CertificateContent {
            profile: self.profile,
            subject: &self.subject,
            public_key: self.public_key,
            subject_alternative_names: self.holder.subject_alternative_names,
            name_constraints: self.holder.name_constraints,
            serial,
            now,
        };
        let built = tbs::build(self.signer.issuer, &request)
            .map_err(|refusal| Error::invalid(refusal.code(), refusal.to_string()))?;
        let expected = Expectation {
            issuer: match self.signer.certificate {
                Some(issuer) => match self.holder.certified {
                    Some(root) => ExpectedIssuer::Cross {
                        issuer,
                        subject: &root.reading,
                    },
                    None => ExpectedIssuer::Certificate(issuer),
                },
                None => ExpectedIssuer::SelfSigned,
            },
            distribution: self.signer.distribution,
            profile: self.profile,
            common_name: (self.holder.common_name).unwrap_or_else(|| self.subject.label()),
            subject: &self.subject,
            public_key: self.public_key,
            subject_alternative_names: self.holder.subject_alternative_names,
            name_constraints: self.holder.name_constraints,
            serial,
            now,
        };
        lint::lint(built, &expected)
            .map_err(|findings| Error::stop(Code::LintFailed, findings.to_string()))
    }

    /// Returns what step 7 records.
    pub(super) fn intent(
        &self,
        serial: &SerialNumber,
        linted: &LintedTbs,
        now: UnixSeconds,
    ) -> Intent {
        let (not_before, not_after) = linted.validity();
        Intent {
            serial: serial.as_bytes().to_vec(),
            issuer: self.signer.generation,
            purpose: self.purpose,
            profile: self.profile_name.to_owned(),
            subject: self.subject.label().to_owned(),
            tbs: linted.bytes().clone(),
            not_before,
            not_after,
            role: self.holder.role,
            caller: self.caller.clone(),
            requester: self.holder.requester,
            idempotency: self.holder.idempotency.clone(),
            public_key: self.public_key.spki_der().clone(),
            shared_key: self.holder.shared_key,
            is_device: matches!(
                self.on_issued,
                OnIssued::Device { .. } | OnIssued::EnrolledDevice { .. }
            ),
            moves: self.holder.moves.clone(),
            grant: self.holder.grant.clone(),
            at: now,
        }
    }

    /// Returns the requested names that the certificate lacks.
    pub(super) fn dropped_names(&self, certificate: &Certificate) -> Vec<String> {
        let requested = self.holder.requested_names;
        requested.map_or_else(Vec::new, |names| names.left_out_of(certificate))
    }

    /// Returns the audit entry of step 10.
    pub(super) fn audit_entry(
        &self,
        serial: &SerialNumber,
        certificate: &Certificate,
        dropped_names: &[String],
        now: UnixSeconds,
    ) -> AuditEntry {
        let mut detail = json!({
            "serial": serial.to_string(),
            "profile": self.profile_name,
            "role": self.holder.role,
            "sha256": hex::encode(certificate.sha256()),
            "renews": self.holder.renews,
            "dropped_names": dropped_names,
        });
        if let Some(grant) = &self.holder.grant {
            grant.describe(&mut detail);
        }
        if self.purpose == Purpose::Subordinate {
            detail["authority"] = json!(self.signer.authority);
            detail["dropped_extensions"] = json!(self.holder.dropped_extensions);
        }
        if let Some(root) = self.holder.certified {
            detail["authority"] = json!(self.signer.authority);
            detail["certifies"] = json!(root.name());
        }
        if self.holder.generated_key {
            detail["generated_key"] = true.into();
        }
        AuditEntry {
            at: now,
            actor: self.caller.clone(),
            action: "certificate.issued",
            subject: self.subject.label().to_owned(),
            detail,
        }
    }
}
