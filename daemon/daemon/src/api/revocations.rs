//! `POST /v1/certificates/revocations`: an operator revokes a certificate.

use super::asks::Asks;
use super::body::JsonBody;
use super::problem::Problem;
use super::rolls::Roll;
use crate::ca::authorize::Operate;
use crate::ca::exclusion::certificate_name::CertificateName;
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::exclusion::revoke::{READS_NO_LIST, RevokedLeaf};
use crate::ca::profile::Role;
use crate::ca::roll::ExcludedCertificate;
use crate::ca::{Code, Error};
use crate::enrollment::roll::HubPolicy;
use crate::ids::GenerationNumber;
use crate::x509::revocation::RevocationReason;
use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest cause, in bytes.
const CAUSE_BYTES_MAX: usize = 1_024;

/// Which certificate, named by exactly one of the first three, and why.
#[derive(Deserialize, JsonSchema)]
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
    /// Exclude a device's compromised leaf at DPS and at the hub, too.
    #[serde(default)]
    everywhere: bool,
}

/// The ways to name a certificate.
pub(super) struct Named {
    pub(super) serial: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) authority: Option<String>,
}

/// The present state of the certificate, and whether its CRL has it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RevokedCertificate")]
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
    /// The operator who revoked it for that reason, and the cause; null if that is not on record,
    /// as of an import.
    revoked_by: Option<String>,
    cause: Option<String>,
    /// Sentences for the operator.
    notices: Vec<String>,
    /// With `everywhere`: the rollovers by which the device gets its next leaf.
    rolls: Vec<Roll>,
    receipt: Receipt,
}

pub(super) async fn revoke(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(revoke): JsonBody<Revoke>,
) -> Result<Json<Revoked>, Problem> {
    let reason = reason(&revoke.reason)?;
    let everywhere = revoke.everywhere;
    if everywhere && !reason.is_of_the_key() {
        return Err(not_everywhere(reason).into());
    }
    let cause = cause(revoke.cause)?;
    let named = Named {
        serial: revoke.serial,
        sha256: revoke.sha256,
        certificate: revoke.certificate,
        authority: revoke.authority,
    };
    let name = named.name()?;
    let (revoked, excluded) = api
        .application(move |ca| {
            let exclusions = ca.exclusions();
            let revoked = exclusions.revoke_leaf(&permission, &name, reason, &cause)?;
            let leaf = revoked.sha256.filter(|_| everywhere);
            let exclude = |it| ca.rollovers().exclude_certificate(&permission, it);
            let excluded = leaf.map_or(Ok(ExcludedCertificate::NoOtherPlace), exclude)?;
            Ok((revoked, excluded))
        })
        .await?;
    let issuer = revoked.issuer;
    let since = revoked.since;
    let leaf = revoked.sha256.unwrap_or_default();
    let subordinate = revoked.is_subordinate && everywhere;
    let mut rolls = Vec::new();
    if let ExcludedCertificate::Excluded { rolls: ids, .. } = &excluded {
        rolls.clone_from(ids);
    }
    let receipt = api.receipt(move |ca| {
        let exclusions = ca.exclusions();
        match &excluded {
            ExcludedCertificate::NoOtherPlace if subordinate => {
                exclusions.subordinate_receipt(&leaf, since)
            }
            ExcludedCertificate::NoOtherPlace => exclusions.revocation_receipt(issuer, since),
            ExcludedCertificate::Older { .. } => exclusions.older_leaf_receipt(&leaf, since),
            ExcludedCertificate::Excluded { device, rolls } => {
                exclusions.compromise_receipt(device, rolls, HubPolicy::Delete)
            }
        }
    });
    let receipt = receipt.await?;
    let rolls = api.application(move |ca| {
        let rows = rolls
            .into_iter()
            .map(|id| Roll::of(ca, ca.store().roll(id)?));
        rows.collect()
    });
    Ok(Json(Revoked::new(revoked, rolls.await?, receipt)))
}

impl Revoked {
    fn new(mut revoked: RevokedLeaf, rolls: Vec<Roll>, receipt: Receipt) -> Self {
        if !rolls.is_empty() {
            // The receipt says what they did.
            revoked.notices.retain(|it| !it.starts_with(READS_NO_LIST));
        }
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
            revoked_by: revoked.by,
            cause: revoked.cause,
            notices: revoked.notices,
            rolls,
            receipt,
        }
    }
}

impl Named {
    pub(super) fn name(self) -> Result<CertificateName, Error> {
        let authority = self.authority;
        match (self.serial, self.sha256, self.certificate) {
            (Some(serial), None, None) => CertificateName::of_serial(&serial, authority),
            (None, Some(sha256), None) => CertificateName::of_sha256(&sha256),
            (None, None, Some(text)) => CertificateName::of_certificate(text.as_bytes()),
            _ => Err(Error::invalid(
                Code::CertificateNotNamed,
                "name the certificate by exactly one of `serial`, `sha256` and `certificate`",
            )),
        }
    }
}

fn not_everywhere(reason: RevocationReason) -> Error {
    let message = format!(
        "nothing was revoked: `everywhere` excludes a device until it has a new leaf, and is for \
         keyCompromise, not for {reason}; leave it out, and then `hallmark device block` excludes \
         the device until you lift the block"
    );
    Error::invalid(Code::ReasonInvalid, message)
}

/// `aACompromise` is of attribute authorities, and there are none.
fn reason(name: &str) -> Result<RevocationReason, Error> {
    let known = RevocationReason::from_name(name);
    let known = known.filter(|it| *it != RevocationReason::AaCompromise);
    known.ok_or_else(|| {
        let mut reasons = RevocationReason::ALL.to_vec();
        reasons.retain(|it| it.is_for_leaves());
        let names: Vec<_> = reasons.into_iter().map(RevocationReason::name).collect();
        let message = format!(
            "{name:?} is no reason for a leaf; one of RFC 5280 5.3.1 is: {}",
            names.join(", ")
        );
        Error::invalid(Code::ReasonInvalid, message)
    })
}

pub(super) fn cause(cause: String) -> Result<String, Error> {
    if cause.len() <= CAUSE_BYTES_MAX {
        return Ok(cause);
    }
    let message = format!("a cause has at most {CAUSE_BYTES_MAX} bytes");
    Err(Error::invalid(Code::CauseTooLong, message))
}
