//! Serves `GET /v1/certificates`: finds certificates by what is known of them.

use super::asks::Asks;
use super::pagination;
use super::parts::Query;
use super::problem::Problem;
use crate::ca::Error;
use crate::ca::authorize::Fetch;
use crate::ca::exclusion::certificate_name::CertificateName;
use crate::ca::issuer::former::FormerRow;
use crate::ca::issuer::search::{ListedRow, Wanted};
use crate::ca::profile::Role;
use crate::ids::{GenerationNumber, IntentId};
use crate::moment::{Moment, Span};
use crate::store::CertificateState;
use crate::x509::revocation::RevocationReason;
use axum::Json;
use axum::extract::RawQuery;
use axum::http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The criteria of a list; everything that is named must fit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// The common name.
    subject: Option<String>,
    /// A registration id: a station of the same name is left out.
    device: Option<String>,
    serial: Option<String>,
    sha256: Option<String>,
    profile: Option<String>,
    authority: Option<String>,
    state: Option<CertificateState>,
    /// Valid ones that end within this time: `30d`.
    expiring: Option<Span>,
    /// A date, a time, or how long ago: `7d`.
    issued_since: Option<Moment>,
    after: Option<IntentId>,
    limit: Option<u32>,
}

/// A certificate in a list, or an intent without one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListedCertificate")]
pub(super) struct Row {
    /// The number of its intent; newer ones have greater numbers. This, and more, is null for a
    /// certificate that is known by its serial number alone.
    number: Option<IntentId>,
    serial: String,
    thumbprint: Option<String>,
    subject: Option<String>,
    role: Option<Role>,
    profile: Option<String>,
    /// The authority that issued it, and which generation of it.
    authority: Option<String>,
    generation: Option<GenerationNumber>,
    state: CertificateState,
    not_before: Option<String>,
    not_after: Option<String>,
    issued_at: Option<String>,
    revoked_at: Option<String>,
    revocation_reason: Option<&'static str>,
    /// The caller who asked for it; callers that find their own alone do not learn it.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_by: Option<String>,
}

impl From<ListedRow> for Row {
    fn from(row: ListedRow) -> Self {
        let it = row.certificate;
        let (authority, generation) = row.issuer.unzip();
        Self {
            number: Some(it.intent),
            serial: hex::encode_upper(&it.serial),
            thumbprint: it.sha256.map(hex::encode_upper),
            subject: Some(it.subject),
            role: it.role,
            profile: Some(it.profile),
            authority,
            generation,
            state: it.state,
            not_before: Some(it.not_before.to_string()),
            not_after: Some(it.not_after.to_string()),
            issued_at: it.issued_at.map(|it| it.to_string()),
            revoked_at: it.revoked.map(|(since, _)| since.to_string()),
            revocation_reason: it.revoked.map(|(_, reason)| RevocationReason::name(reason)),
            asked_by: row.asked_by,
        }
    }
}

impl From<FormerRow> for Row {
    fn from(row: FormerRow) -> Self {
        let it = row.certificate;
        let (authority, generation) = row.issuer;
        Self {
            number: None,
            serial: hex::encode_upper(&it.serial),
            thumbprint: None,
            subject: it.subject,
            role: None,
            profile: None,
            authority: Some(authority),
            generation: Some(generation),
            state: row.state,
            not_before: None,
            not_after: it.not_after.map(|it| it.to_string()),
            issued_at: None,
            revoked_at: it.revoked.map(|(since, _)| since.to_string()),
            revocation_reason: it.revoked.map(|(_, reason)| RevocationReason::name(reason)),
            asked_by: None,
        }
    }
}

pub(super) async fn list(
    Asks {
        api, permission, ..
    }: Asks<Fetch>,
    Query(filter): Query<Filter>,
    RawQuery(query): RawQuery,
) -> Result<(HeaderMap, Json<Vec<Row>>), Problem> {
    let wanted = Wanted::try_from(filter)?;
    let limit = wanted.limit;
    let listed = api
        .application(move |ca| ca.issuer().list(&permission, &wanted))
        .await?;
    let rows = listed.rows.into_iter().map(Row::from);
    let rows = rows
        .chain(listed.former.into_iter().map(Row::from))
        .collect();
    let path = without_page("/v1/certificates", query.as_deref().unwrap_or_default());
    Ok(pagination::followed(&path, rows, limit, listed.next))
}

impl TryFrom<Filter> for Wanted {
    type Error = Error;

    fn try_from(filter: Filter) -> Result<Self, Error> {
        let serial = filter.serial.as_deref().map(CertificateName::serial);
        let sha256 = filter.sha256.as_deref().map(CertificateName::sha256);
        Ok(Self {
            subject: filter.subject,
            device: filter.device,
            serial: serial.transpose()?,
            sha256: sha256.transpose()?,
            profile: filter.profile,
            authority: filter.authority,
            state: filter.state,
            expiring: filter.expiring,
            issued_since: filter.issued_since,
            before: filter.after,
            limit: pagination::rows(filter.limit),
        })
    }
}

/// Returns the address of a list with its criteria, and without what says which page.
fn without_page(path: &str, query: &str) -> String {
    let is_of_page = |it: &&str| it.starts_with("after=") || it.starts_with("limit=");
    let criteria = query
        .split('&')
        .filter(|it| !it.is_empty() && !is_of_page(it));
    let criteria = criteria.collect::<Vec<_>>().join("&");
    if criteria.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{criteria}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_has_the_same_criteria() {
        for (query, path) in [
            ("", "/v1/x"),
            ("after=7&limit=2", "/v1/x"),
            (
                "limit=2&state=valid&after=7&subject=a%26limit%3D1",
                "/v1/x?state=valid&subject=a%26limit%3D1",
            ),
        ] {
            assert_eq!(without_page("/v1/x", query), path);
        }
    }
}
