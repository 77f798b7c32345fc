//! `POST /v1/certificates/revocations`: an operator revokes a certificate.

use super::asks::Asks;
use super::body::JsonBody;
use super::problem::Problem;
use crate::ca::authorize::Operate;
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::exclusion::revoke::{CertificateName, RevokedLeaf};
use crate::ca::profile::Role;
use crate::ca::{Code, Error};
use crate::ids::GenerationNumber;
use crate::x509::revocation::RevocationReason;
use axum::Json;
use serde::{Deserialize, Serialize};

/// The longest cause, in bytes.
const CAUSE_BYTES_MAX: usize = 1_024;

/// Which certificate, named by exactly one of the first three, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    serial: Option<String>,
    /// Hexadecimal digits: SHA-256 of its DER.
    sha256: Option<String>,
    /// The certificate: PEM, whose first certificate counts, or base64 of DER.
    certificate: Option<String>,
    /// The authority that issued it, where a serial number alone names several.
    authority: Option<String>,
    /// A name of RFC 5280 5.3.1, such as `keyCompromise`.
    reason: String,
    /// Why, in words, for the audit journal.
    #[serde(default)]
    cause: String,
}

/// The present state of the certificate, and whether its CRL has it.
#[derive(Serialize)]
pub(super) struct Revoked {
    serial: String,
    /// Of a certificate that is known by its serial number alone, these may be unknown.
    thumbprint: Option<String>,
    subject: Option<String>,
    profile: Option<String>,
    role: Option<Role>,
    /// The authority that issued it, and which generation of it.
    authority: String,
    generation: GenerationNumber,
    not_after: Option<String>,
    /// Since when; the first date, if it was revoked before.
    revoked_at: String,
    reason: &'static str,
    /// Whether it was revoked already, and nothing has changed.
    already_revoked: bool,
    /// Sentences for the operator.
    notices: Vec<String>,
    receipt: Receipt,
}

pub(super) async fn revoke(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(revoke): JsonBody<Revoke>,
) -> Result<Json<Revoked>, Problem> {
    let reason = reason(&revoke.reason)?;
    let cause = cause(revoke.cause.clone())?;
    let name = name(revoke)?;
    let revoked = api
        .application(move |ca| {
            ca.exclusions()
                .revoke_leaf(&permission, &name, reason, &cause)
        })
        .await?;
    let issuer = revoked.issuer;
    let since = revoked.since;
    let receipt = api.receipt(move |ca| ca.exclusions().revocation_receipt(issuer, since));
    let receipt = receipt.await?;
    Ok(Json(Revoked::new(revoked, receipt)))
}

impl Revoked {
    fn new(revoked: RevokedLeaf, receipt: Receipt) -> Self {
        Self {
            serial: hex::encode_upper(&revoked.serial),
            thumbprint: revoked.sha256.map(hex::encode_upper),
            subject: revoked.subject,
            profile: revoked.profile,
            role: revoked.role,
            authority: revoked.authority,
            generation: revoked.generation,
            not_after: revoked.not_after.map(|it| it.to_string()),
            revoked_at: revoked.since.to_string(),
            reason: revoked.reason.name(),
            already_revoked: revoked.was_revoked,
            notices: revoked.notices,
            receipt,
        }
    }
}

fn name(revoke: Revoke) -> Result<CertificateName, Error> {
    let authority = revoke.authority;
    match (revoke.serial, revoke.sha256, revoke.certificate) {
        (Some(serial), None, None) => CertificateName::of_serial(&serial, authority),
        (None, Some(sha256), None) => CertificateName::of_sha256(&sha256),
        (None, None, Some(text)) => CertificateName::of_certificate(text.as_bytes()),
        _ => Err(Error::invalid(
            Code::CertificateNotNamed,
            "name the certificate by exactly one of `serial`, `sha256` and `certificate`",
        )),
    }
}

fn reason(name: &str) -> Result<RevocationReason, Error> {
    RevocationReason::from_name(name).ok_or_else(|| {
        let known = RevocationReason::ALL.map(RevocationReason::name).join(", ");
        let message = format!("a reason is one of RFC 5280 5.3.1: {known}");
        Error::invalid(Code::ReasonInvalid, message)
    })
}

fn cause(cause: String) -> Result<String, Error> {
    if cause.len() <= CAUSE_BYTES_MAX {
        return Ok(cause);
    }
    let message = format!("a cause has at most {CAUSE_BYTES_MAX} bytes");
    Err(Error::invalid(Code::CauseTooLong, message))
}
