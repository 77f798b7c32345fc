//! Asks the API in the name of the caller who visits a page.

use super::refused::Refused;
use super::{Console, assets};
use crate::api::client::ConnectedClient;
use crate::unix_seconds::UnixSeconds;
use askama::Template;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::header::LINK;
use axum::http::request::Parts;
use axum::http::{Method, Request};
use axum::response::{Html, IntoResponse, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The largest answer of the API that a page reads, in bytes: a page of 1,000 rows has less.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The pages of the navigation: name, and path below `/console`.
const PAGES: &[(&str, &str)] = &[
    ("Overview", ""),
    ("Devices", "/devices"),
    ("Certificates", "/certificates"),
    ("Hierarchy", "/hierarchy"),
    ("Rolls", "/rolls"),
    ("Blocks", "/blocks"),
    ("Approvals", "/approvals"),
    ("Expiry", "/expiry"),
    ("Cloud", "/cloud"),
    ("Tokens", "/tokens"),
    ("Audit", "/audit"),
    ("API", "/api"),
];

/// A caller who visits a page.
pub(super) struct Visit {
    api: Router,
    client: ConnectedClient,
    caller: Caller,
    /// The token of its forms.
    token: String,
}

/// The caller, as the API knows it.
#[derive(Clone, Deserialize)]
struct Caller {
    caller: String,
    operates: bool,
    now: UnixSeconds,
    version: String,
}

/// The parts that all pages have.
pub(super) struct Frame {
    pub(super) title: String,
    /// The caller; empty if it is not known.
    pub(super) caller: String,
    pub(super) operates: bool,
    /// The token of forms.
    pub(super) token: String,
    /// The daemon's time when the page was made.
    pub(super) now: UnixSeconds,
    pub(super) version: String,
    pub(super) style: &'static str,
    pub(super) script: &'static str,
    pub(super) htmx: &'static str,
}

impl Frame {
    /// The frame of a page whose caller is not known.
    pub(super) fn without_caller(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            caller: String::new(),
            operates: false,
            token: String::new(),
            now: UnixSeconds::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            style: assets::style(),
            script: assets::script(),
            htmx: assets::htmx(),
        }
    }

    /// The pages of the navigation: name and path.
    pub(super) fn pages(&self) -> &'static [(&'static str, &'static str)] {
        PAGES
    }

    /// Whether `page` is the one that is shown, or the one above it.
    pub(super) fn is_at(&self, page: &str) -> bool {
        self.title == page
    }
}

impl FromRequestParts<Console> for Visit {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Refused> {
        let client = parts.extensions.get::<ConnectedClient>().cloned();
        let client = client.ok_or_else(Refused::no_such_page)?;
        let api = console.api.clone();
        let caller: Caller =
            read(ask(api.clone(), client.clone(), get("/v1/caller")).await).await?;
        Ok(Self {
            token: console.tokens.of(&caller.caller),
            api,
            client,
            caller,
        })
    }
}

impl Visit {
    /// The frame of a page with this title.
    pub(super) fn frame(&self, title: &str) -> Frame {
        let caller = self.caller.clone();
        Frame {
            caller: caller.caller,
            operates: caller.operates,
            token: self.token.clone(),
            now: caller.now,
            version: caller.version,
            ..Frame::without_caller(title)
        }
    }

    /// The caller's role and name.
    pub(super) fn caller(&self) -> &str {
        &self.caller.caller
    }

    /// The answer to a GET of the API.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refused> {
        read(self.ask(get(path)).await).await
    }

    /// The same where 404 is an answer.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Refused> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(refused) if refused.is_missing() => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// A page of a list, and the parameter `after` of the next one, from the header `Link`.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(Vec<T>, Option<String>), Refused> {
        let response = self.ask(get(path)).await;
        let link = response.headers().get(LINK).and_then(|it| it.to_str().ok());
        let after = link.and_then(|it| it.rsplit_once("after=")?.1.split('>').next());
        let after = after.map(str::to_owned);
        Ok((read(response).await?, after))
    }

    /// The answer of the API to any request.
    pub(super) async fn ask(&self, request: Request<Body>) -> Response {
        ask(self.api.clone(), self.client.clone(), request).await
    }
}

#[cfg(test)]
impl Visit {
    /// A visitor of an API that does not ask who it is.
    pub(super) fn of_test(api: Router) -> Self {
        let caller = Caller {
            caller: "operator test".into(),
            operates: true,
            now: UnixSeconds::default(),
            version: String::new(),
        };
        Self {
            api,
            client: ConnectedClient::of_test(),
            caller,
            token: String::new(),
        }
    }
}

/// A GET of the API.
pub(super) fn get(path: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    // A path that cannot be parsed is a route that does not exist.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

async fn ask(api: Router, client: ConnectedClient, mut request: Request<Body>) -> Response {
    request.extensions_mut().insert(client);
    match TowerToHyperService::new(api).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Reads an answer of the API.
pub(super) async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Refused> {
    let status = response.status();
    let body = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
    let body = body.map_err(|error| Refused::unreadable("the answer", &error))?;
    if !status.is_success() {
        return Err(Refused::of(status, &body));
    }
    serde_json::from_slice(&body).map_err(|error| Refused::unreadable("the answer", &error))
}

/// Answers with a page.
pub(super) fn page(page: &impl Template) -> Result<Response, Refused> {
    let html = page.render();
    let html = html.map_err(|error| Refused::unreadable("the page", &error))?;
    Ok(Html(html).into_response())
}
