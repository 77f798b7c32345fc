//! Sends what operators ask for by a button to the API: rolls, blocks and retries.
//!
//! The API decides whether the caller may. A page of another site could send a form in the name of
//! a browser with a client certificate, so a form needs a token that only our own pages have
//! ([`FormTokens`]), and must come from this origin as far as the browser says.

use super::components::segment;
use super::refused::Refused;
use super::table::query;
use super::visit::Visit;
use super::{Console, visit};
use crate::api::client::is_of_this_origin;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The largest form, in bytes.
const FORM_BYTES_MAX: usize = 8 * 1024;
/// How long a form may take.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes and checks the tokens of forms. They are good for one caller, until the daemon stops.
#[derive(Clone)]
pub(super) struct FormTokens(Arc<hmac::Key>);

impl FormTokens {
    /// Tokens by a key of their own.
    pub(super) fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        // aws-lc's generator ends the process rather than fail.
        Self(Arc::new(key.expect("the machine has random numbers")))
    }

    /// The token of a caller.
    pub(super) fn of(&self, caller: &str) -> String {
        hex::encode(hmac::sign(&self.0, caller.as_bytes()))
    }

    fn is_of(&self, token: &str, caller: &str) -> bool {
        let bytes = hex::decode(token).unwrap_or_default();
        hmac::verify(&self.0, caller.as_bytes(), &bytes).is_ok()
    }
}

/// A form that one of our own pages has sent, with its sender.
pub(super) struct Sent<T> {
    pub(super) visit: Visit,
    pub(super) form: T,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

impl<T: DeserializeOwned> FromRequest<Console> for Sent<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Refused> {
        let (mut parts, body) = request.into_parts();
        if !is_of_this_origin(&parts.headers) {
            return Err(Refused::forged());
        }
        let visit = Visit::from_request_parts(&mut parts, console).await?;
        let body = tokio::time::timeout(FORM_TIMEOUT, to_bytes(body, FORM_BYTES_MAX));
        let body = body.await.ok().and_then(Result::ok).unwrap_or_default();
        let Token { token } = read(&body)?;
        if !console.tokens.is_of(&token, visit.caller()) {
            return Err(Refused::forged());
        }
        let form = read(&body)?;
        Ok(Self { visit, form })
    }
}

/// Reads a form: it is encoded as a query is.
fn read<T: DeserializeOwned>(form: &[u8]) -> Result<T, Refused> {
    let form = String::from_utf8_lossy(form);
    let uri: Result<Uri, _> = format!("/?{form}").parse();
    let uri = uri.map_err(|error| Refused::unreadable("the form", &error))?;
    let read = Query::try_from_uri(&uri);
    let read = read.map_err(|error| Refused::unreadable("the form", &error.body_text()))?;
    Ok(read.0)
}

impl Visit {
    /// Sends a change to the API; then the browser shows `page`.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        page: &str,
    ) -> Result<Response, Refused> {
        let response = self.ask(request(method, path, body.as_ref())).await;
        Refused::unless_success(response).await?;
        Ok(Redirect::to(page).into_response())
    }

    /// Sends a change to the API, and returns its answer.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, Refused> {
        let response = self.ask(request(Method::POST, path, Some(body))).await;
        visit::read(response).await
    }
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Request {
    let mut request = visit::get(path);
    *request.method_mut() = method;
    if let Some(body) = body {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        *request.body_mut() = Body::from(body.to_string());
    }
    request
}

#[derive(Deserialize)]
pub(super) struct Override {
    #[serde(default)]
    r#override: String,
}

impl Override {
    fn body(&self) -> Value {
        let reason = self.r#override.trim();
        json!({ "override": (!reason.is_empty()).then_some(reason) })
    }
}

/// Approves the next step of a roll.
pub(super) async fn approve(
    Path(id): Path<i64>,
    Sent { visit, form }: Sent<Override>,
) -> Result<Response, Refused> {
    let path = format!("/v1/rolls/{id}/approve");
    let page = format!("/console/rolls/{id}");
    visit
        .change(Method::POST, &path, Some(form.body()), &page)
        .await
}

/// Aborts a roll.
pub(super) async fn abort(
    Path(id): Path<i64>,
    Sent { visit, form }: Sent<Override>,
) -> Result<Response, Refused> {
    let path = format!("/v1/rolls/{id}/abort");
    let page = format!("/console/rolls/{id}");
    visit
        .change(Method::POST, &path, Some(form.body()), &page)
        .await
}

#[derive(Deserialize)]
pub(super) struct Start {
    /// `device` or `authority`.
    kind: String,
    name: String,
}

/// Starts a roll by expiry. One by compromise has a page of its own ([`super::compromise`]).
pub(super) async fn start_roll(Sent { visit, form }: Sent<Start>) -> Result<Response, Refused> {
    let name = form.name.trim();
    let (path, body) = if form.kind == "authority" {
        let path = format!("/v1/authorities/{}/rolls", segment(name));
        (path, json!({ "reason": "expiry" }))
    } else {
        let body = json!({ "registration_id": name, "reason": "expiry" });
        ("/v1/rolls".to_owned(), body)
    };
    visit
        .change(Method::POST, &path, Some(body), "/console/rolls")
        .await
}

#[derive(Deserialize)]
pub(super) struct Block {
    kind: String,
    name: String,
    #[serde(default)]
    generation: String,
    #[serde(default)]
    reason: String,
}

impl Block {
    fn number(&self) -> Option<i64> {
        self.generation.trim().parse().ok()
    }

    fn page(&self) -> String {
        let generation = query(&[("generation", self.generation.trim())]);
        let name = segment(self.name.trim());
        format!(
            "/console/blocks/{}/{name}?{generation}",
            segment(&self.kind)
        )
    }
}

/// Blocks a device, a group or a generation, and shows the receipt.
pub(super) async fn block(Sent { visit, form }: Sent<Block>) -> Result<Response, Refused> {
    let body = json!({
        "kind": form.kind, "name": form.name.trim(), "generation": form.number(),
        "reason": form.reason.trim(),
    });
    visit
        .change(Method::POST, "/v1/blocks", Some(body), &form.page())
        .await
}

/// Lifts a block.
pub(super) async fn lift(Sent { visit, form }: Sent<Block>) -> Result<Response, Refused> {
    let criteria = query(&[
        ("generation", form.generation.trim()),
        ("reason", form.reason.trim()),
    ]);
    let kind = segment(&form.kind);
    let name = segment(form.name.trim());
    let path = format!("/v1/blocks/{kind}/{name}?{criteria}");
    visit
        .change(Method::DELETE, &path, None, "/console/blocks?show=all")
        .await
}

#[derive(Deserialize)]
pub(super) struct Retry {
    #[serde(default)]
    name: String,
}

/// Makes waiting and parked changes due: those with a name, or all.
pub(super) async fn retry(Sent { visit, form }: Sent<Retry>) -> Result<Response, Refused> {
    let name = form.name.trim();
    let body = json!({ "name": (!name.is_empty()).then_some(name) });
    visit
        .change(Method::POST, "/v1/push/retry", Some(body), "/console/cloud")
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_good_for_its_caller_alone() {
        let tokens = FormTokens::new();
        let token = tokens.of("operator kim");
        assert!(tokens.is_of(&token, "operator kim"));
        for (token, caller) in [
            (token.as_str(), "operator alex"),
            ("", "operator kim"),
            ("00", ""),
        ] {
            assert!(!tokens.is_of(token, caller), "{caller}");
        }
        assert!(!FormTokens::new().is_of(&token, "operator kim"));
    }

    proptest! {
        #[test]
        fn any_form_is_read_or_refused(form in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read::<Block>(&form);
        }
    }
}
