//! Serves `/crl/…` and `/ca/…`: CRLs, CA certificates and cross-certificates, to all, over every
//! listener.
//!
//! The files are in memory, so that an unavailable token takes nothing from relying parties. No
//! caller is identified, nothing but a name is looked up, and nothing else is ever served here.

use super::asks::Open;
use super::parts::Path;
use super::problem::Problem;
use super::{Api, Edge};
use crate::ca::hierarchy::Generation;
use crate::ca::{Code, Error};
use crate::store::{CrlPart, CrlRow, IssuerCrlRow};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::crl_partition::partition_name;
use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a file of the serving generation may be kept by caches, in seconds: another generation
/// may serve afterwards, and its leaves need its own list and certificate.
const SERVING_AGE_SECONDS_MAX: i64 = 3_600;

/// How long before the end of a list caches drop it at the latest, in seconds: a copy that is
/// fetched at the last moment can still be used.
const CRL_MARGIN_SECONDS_MAX: i64 = 300;

/// When a client may ask again for a list that is not signed yet, in seconds.
const CRL_ABSENT_SECONDS: u32 = 5;

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/crl/{file}", get(crl))
        .route("/ca/{file}", get(certificate))
}

/// RFC 5280 4.2.1.13 and RFC 2585: the DER list.
pub(super) async fn crl(
    Open(api): Open,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(list) = api.ca.issuer_list(&file) {
        return Ok(of_issuer(&list, api.ca.now()).answer(&headers, api.ca.now()));
    }
    let named = NamedList::find(&api, &file)?;
    let crls = api.ca.crls();
    let list = if named.is_delta {
        crls.delta(named.part)
    } else {
        crls.current(named.part)
    };
    let Some(list) = list else {
        return Err(no_list(&api, &named).into());
    };
    let now = api.ca.now();
    let kept_until = crls.kept_until(&list);
    let mut age_seconds_max = age_seconds_max(&list, kept_until, now);
    if !named.names_generation {
        age_seconds_max = age_seconds_max.min(SERVING_AGE_SECONDS_MAX);
    }
    let file = Published {
        content_type: "application/pkix-crl",
        etag: etag(list.sha256),
        modified_at: named.names_generation.then_some(list.this_update),
        age_seconds_max,
        body: Bytes::from_owner(Body(list)),
    };
    Ok(file.answer(&headers, now))
}

/// The list of an issuer elsewhere: an operator brings the next one at any time.
fn of_issuer(list: &IssuerCrlRow, now: UnixSeconds) -> Published {
    let validity = list.next_update.seconds_since(list.this_update);
    let end = list.next_update - (validity / 10).min(CRL_MARGIN_SECONDS_MAX);
    Published {
        content_type: "application/pkix-crl",
        etag: etag(list.sha256()),
        modified_at: Some(list.this_update),
        age_seconds_max: end.seconds_since(now).clamp(0, SERVING_AGE_SECONDS_MAX),
        body: Bytes::copy_from_slice(&list.der),
    }
}

/// A list by the name of its file.
struct NamedList {
    generation: Arc<Generation>,
    part: CrlPart,
    is_delta: bool,
    /// Whether it stands for the list of one generation, whichever serves.
    names_generation: bool,
}

impl NamedList {
    /// `NAME.crl`, `NAME.3of8.crl`, and `NAME.delta.crl` or `NAME.3of8.delta.crl`.
    fn find(api: &Api, file: &str) -> Result<Self, Problem> {
        let name = file.strip_suffix(".crl");
        let name = name.ok_or_else(|| nothing_published(".crl"))?;
        let hierarchy = api.ca.hierarchy();
        let (complete, is_delta) = match name.strip_suffix(".delta") {
            Some(complete) => (complete, true),
            None => (name, false),
        };
        let partition = complete.rsplit_once('.').filter(|(_, it)| is_partition(it));
        let (name, partition) = match partition {
            Some((name, partition)) => (name, Some(partition)),
            None => (complete, None),
        };
        let found = hierarchy.published(name).map(|it| (it, it.crl_parts()));
        let Some((generation, mut parts)) = found else {
            return Err(nothing_published(".crl"));
        };
        let of = parts.find(|it| it.partition().as_deref() == partition);
        let Some(of) = of else {
            return Err(other_parts(generation));
        };
        Ok(Self {
            names_generation: name == generation.name(),
            generation: Arc::clone(generation),
            part: of,
            is_delta,
        })
    }
}

/// Returns true if this is the name of a partition, such as `3of8`. Each file has one name.
fn is_partition(text: &str) -> bool {
    let number = |it: &str| it.parse::<u16>().ok();
    let numbers = text.split_once("of");
    let numbers = numbers.and_then(|(part, count)| Some((number(part)?, number(count)?)));
    numbers.is_some_and(|(part, count)| count > 1 && partition_name(part, count) == text)
}

fn other_parts(generation: &Generation) -> Problem {
    let name = generation.name();
    let message = match generation.crl_parts().last() {
        Some(CrlPart { count, .. }) if count > 1 => format!(
            "the list of {name} is split into {count} partitions; a certificate names the file of \
             its own"
        ),
        _ => format!("the list of {name} is not split; it is {name}.crl"),
    };
    Error::missing(Code::NotPublished, message).into()
}

/// Returns how many seconds caches may keep a list: until the next one is due, and at the latest
/// until shortly before its own end.
fn age_seconds_max(list: &CrlRow, kept_until: UnixSeconds, now: UnixSeconds) -> i64 {
    let validity = list.next_update.seconds_since(list.this_update);
    let margin = (validity / 10).min(CRL_MARGIN_SECONDS_MAX);
    let end = list.next_update - margin;
    kept_until.min(end).seconds_since(now).clamp(0, validity)
}

fn no_list(api: &Api, named: &NamedList) -> Error {
    let generation = &named.generation;
    let name = generation.name();
    let token = &generation.token;
    if named.is_delta && !api.ca.crls().has_deltas(&generation.authority) {
        let message = format!("{name} has no delta lists: [[authority]] has no delta_crls");
        return Error::missing(Code::NotPublished, message);
    }
    if api.ca.crls().is_withheld(generation) {
        let message = format!(
            "the list of {name} was restored from a backup and may lack newer revocations; token \
             {token} has to sign the next one"
        );
        return Error::later(CRL_ABSENT_SECONDS, Code::CrlWithheld, message);
    }
    let message = format!("{name} has no revocation list yet; its token has to sign it first");
    Error::later(CRL_ABSENT_SECONDS, Code::CrlAbsent, message)
}

/// RFC 5280 4.2.2.1: the DER certificate of the one who signed.
pub(super) async fn certificate(
    Open(api): Open,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = file.strip_suffix(".cer");
    let of_issuer = name.and_then(|name| api.ca.issuer_certificate(name));
    let certificate = &match cross_certificate(&api, &file).or(of_issuer) {
        Some(certificate) => certificate,
        None => published(&api, &file, ".cer")?.certificate.clone(),
    };
    let file = Published {
        content_type: "application/pkix-cert",
        etag: etag(certificate.sha256()),
        modified_at: Some(certificate.not_before()),
        age_seconds_max: SERVING_AGE_SECONDS_MAX,
        body: Bytes::copy_from_slice(certificate.der()),
    };
    Ok(file.answer(&headers, api.ca.now()))
}

/// The certificate of one generation of a root by another one: `root-2-by-root-1.cer`.
fn cross_certificate(api: &Api, file: &str) -> Option<Certificate> {
    let name = file.strip_suffix(".cer")?;
    let hierarchy = api.ca.hierarchy();
    let mut good = hierarchy.good_cross_certificates(api.ca.now());
    let found = good.find(|it| it.name == name)?;
    Some(found.link.certificate.clone())
}

fn published(api: &Api, file: &str, extension: &str) -> Result<Arc<Generation>, Problem> {
    let hierarchy = api.ca.hierarchy();
    let found = file
        .strip_suffix(extension)
        .and_then(|name| hierarchy.published(name));
    found.cloned().ok_or_else(|| nothing_published(extension))
}

fn nothing_published(extension: &str) -> Problem {
    let message = format!(
        "nothing is published under this name; it is AUTHORITY{extension}, or \
         AUTHORITY-GENERATION{extension}"
    );
    Error::missing(Code::NotPublished, message).into()
}

/// The bytes of a CRL, shared by all connections that send them.
struct Body(Arc<CrlRow>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0.der
    }
}

struct Published {
    content_type: &'static str,
    etag: String,
    /// The time of `Last-Modified`; `None` if another file under this name may have the same.
    modified_at: Option<UnixSeconds>,
    age_seconds_max: i64,
    body: Bytes,
}

impl Published {
    /// Answers 304 with the same headers if the client has the file (RFC 9110 15.4.5).
    fn answer(self, asked: &HeaderMap, now: UnixSeconds) -> Response {
        let modified = self.modified_at.map(system_time);
        let expires = system_time(now + self.age_seconds_max);
        let known = is_known(asked, &self.etag, modified);
        let modified = modified.map(httpdate::fmt_http_date);
        let headers = [
            (ETAG, self.etag),
            (
                CACHE_CONTROL,
                format!("public, max-age={}", self.age_seconds_max),
            ),
            // For caches that know no `max-age`, which counts otherwise (RFC 9111 5.3).
            (EXPIRES, httpdate::fmt_http_date(expires)),
        ];
        let mut answer = if known {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            let content_type = [(CONTENT_TYPE, self.content_type)];
            (headers, content_type, self.body).into_response()
        };
        if let Some(Ok(modified)) = modified.map(HeaderValue::try_from) {
            answer.headers_mut().insert(LAST_MODIFIED, modified);
        }
        answer
    }
}

pub(super) fn system_time(at: UnixSeconds) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.get()).unwrap_or(0))
}

/// RFC 9110 13.2.2: entity tags count, dates only where there is no tag. A date must be the same:
/// after a restore the file may be older than the one that the client has. Without `modified` no
/// date counts.
pub(super) fn is_known(asked: &HeaderMap, etag: &str, modified: Option<SystemTime>) -> bool {
    let text = |name| asked.get(name).and_then(|value| value.to_str().ok());
    if asked.contains_key(IF_NONE_MATCH) {
        let tags = asked.get_all(IF_NONE_MATCH).iter();
        return tags
            .filter_map(|tags| tags.to_str().ok())
            .flat_map(|tags| tags.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == etag);
    }
    let since = text(IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date).ok());
    modified.is_some() && since == modified
}

pub(super) fn etag(sha256: [u8; 32]) -> String {
    format!("\"{}\"", hex::encode(sha256))
}
