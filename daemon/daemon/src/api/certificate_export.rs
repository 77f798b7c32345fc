//! Serves `GET /v1/certificates/{serial}/export`: a certificate as a file.

use super::asks::Asks;
use super::parts::{Path, Query};
use super::problem::Problem;
use crate::ca::authorize::Fetch;
use crate::ca::exclusion::certificate_name::CertificateName;
use crate::ca::issuer::fetch::Fetched;
use crate::x509::certificate::render_pem;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

/// The kind of file.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// The certificate alone.
    #[default]
    Pem,
    /// The certificate alone.
    Der,
    /// PEM: the certificate, then its issuers as its holder presents them.
    Chain,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    format: Format,
    /// The authority that issued it, where several have given the serial number.
    authority: Option<String>,
}

pub(super) async fn export(
    Asks {
        api, permission, ..
    }: Asks<Fetch>,
    Path(digits): Path<String>,
    Query(how): Query<How>,
) -> Result<Response, Problem> {
    let name = CertificateName::of_digits(&digits, how.authority)?;
    let found = api
        .application(move |ca| ca.certificate_file(&permission, &name))
        .await?;
    let content_type = [(CONTENT_TYPE, how.format.content_type())];
    Ok((content_type, how.format.write(&found)).into_response())
}

impl Format {
    /// The media type of RFC 8555, section 9.1, or of RFC 2585, section 4.1.
    fn content_type(self) -> &'static str {
        match self {
            Format::Pem | Format::Chain => "application/pem-certificate-chain",
            Format::Der => "application/pkix-cert",
        }
    }

    fn write(self, found: &Fetched) -> Vec<u8> {
        let certificate = &found.certificate.der;
        match self {
            Format::Der => certificate.to_vec(),
            Format::Pem => render_pem(certificate).into_bytes(),
            Format::Chain => {
                let above = found.chain.iter().map(|link| link.pem.as_str());
                let chain = [render_pem(certificate)].into_iter();
                chain
                    .chain(above.map(str::to_owned))
                    .collect::<String>()
                    .into_bytes()
            }
        }
    }
}
