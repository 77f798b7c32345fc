//! Serves `/v1/transfers`, on the admin socket: what an operator carries between this daemon and an
//! offline root.

use super::asks::{Asks, RoutePermission};
use super::body::{Members, read_typed_up_to, why_invalid};
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::transfer::{TransferToInstall, TransferToSign, Written};
use crate::ca::{Code, Error};
use crate::x509::transfer::{
    ALL_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, Files, TRANSCRIPT_BYTES_MAX,
};
use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// The largest body: a transcript and its files, in bytes.
pub(super) const TRANSFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many bytes of a JSON text one of a transcript becomes at most: it has no control characters
/// but line ends, and each has an escape of two bytes.
const ESCAPED: usize = 2;
/// Names of files and members in a body, in bytes.
const NAMES_BYTES_MAX: usize = 64 * 1024;
// The largest transfer that is written can be sent.
const _: () = assert!(
    ESCAPED * TRANSCRIPT_BYTES_MAX + ALL_BYTES_MAX.div_ceil(3) * 4 + NAMES_BYTES_MAX
        <= TRANSFER_BYTES_MAX
);

/// Permission to exchange files with an offline root.
pub(super) struct Transfer;

impl RoutePermission for Transfer {
    type Permission = Operate;

    const LOCAL_ONLY: Option<(Code, &'static str)> = Some((
        Code::CeremonyNotLocal,
        "files are exchanged with an offline root",
    ));

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToSign {
    authority: String,
    profile: String,
    days: Option<u32>,
    #[serde(default)]
    rekey: bool,
    /// The transcript of the requests.
    requests: Option<String>,
    /// Hex SHA-256 of it.
    requests_sha256: Option<String>,
    /// Names and contents in base64.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToInstall {
    /// The transcript of the offline root.
    answers: String,
    /// Hex SHA-256 of it.
    answers_sha256: String,
    /// Names and contents in base64.
    files: BTreeMap<String, String>,
}

/// The transcript of an installation, and the receipt if a list excludes authorities.
#[derive(Serialize, JsonSchema)]
pub(super) struct Installed {
    #[serde(flatten)]
    written: Written,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
    /// Each thing that was left out or not possible; all others were done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

pub(super) async fn request(
    Asks {
        api, permission, ..
    }: Asks<Transfer>,
) -> Result<Json<Written>, Problem> {
    let written = api.application(move |ca| ca.request_by_transfer(&permission));
    Ok(Json(written.await?))
}

pub(super) async fn sign(
    Asks {
        api, permission, ..
    }: Asks<Transfer>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let body: ToSign = read(&headers, request).await?;
    let brought = TransferToSign {
        authority: body.authority,
        profile: body.profile,
        days: body.days,
        rekey: body.rekey,
        requests: body.requests,
        requests_sha256: body.requests_sha256,
        files: files(body.files)?,
    };
    Ok(api.steps(move |ca, steps| {
        let progress = |step| steps.begin_of(step);
        let written = ca.sign_by_transfer(&permission, &brought, &progress)?;
        Ok(json!({ "written": written }))
    }))
}

pub(super) async fn install(
    Asks {
        api, permission, ..
    }: Asks<Transfer>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Json<Installed>, Problem> {
    let body: ToInstall = read(&headers, request).await?;
    let brought = TransferToInstall {
        answers: body.answers,
        answers_sha256: body.answers_sha256,
        files: files(body.files)?,
    };
    let installed = api.application(move |ca| ca.install_by_transfer(&permission, &brought));
    let installed = installed.await?;
    let rolls = installed.rolls;
    let receipt = if rolls.is_empty() {
        None
    } else {
        let read = api.receipt(move |ca| ca.exclusions().authority_receipt(&rolls));
        Some(read.await?)
    };
    Ok(Json(Installed {
        written: installed.written,
        receipt,
        problems: installed
            .problems
            .into_iter()
            .map(|it| it.message)
            .collect(),
    }))
}

async fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    request: Request<Body>,
) -> Result<T, Problem> {
    let body = request.into_body();
    let bytes = read_typed_up_to(TRANSFER_BYTES_MAX, headers, "application/json", body).await?;
    let Members(read): Members<T> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(Code::BodyInvalid, why_invalid(&error)))?;
    Ok(read)
}

fn files(sent: BTreeMap<String, String>) -> Result<Files, Error> {
    if sent.len() > FILES_MAX {
        let message = format!("the transfer has more than {FILES_MAX} files; carry fewer");
        return Err(Error::invalid(Code::BodyInvalid, message));
    }
    let files = sent.into_iter().map(|(name, text)| {
        let content = STANDARD.decode(text).ok();
        let content = content.filter(|it| it.len() <= FILE_BYTES_MAX);
        let content = content.ok_or_else(|| {
            let message = format!(
                "file {name:?} is not base64 of at most {FILE_BYTES_MAX} bytes; send it as it is"
            );
            Error::invalid(Code::BodyInvalid, message)
        })?;
        Ok((name, content))
    });
    files.collect()
}
