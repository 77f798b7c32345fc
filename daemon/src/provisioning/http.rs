//! One HTTPS client per plane of the service, with a limit on everything.
//!
//! One [`Call`] is one request: spend from the budget, authorise, send, read a bounded answer,
//! classify. No redirects (they would carry the authorization elsewhere), no retries (the caller
//! must observe first), no proxy from the environment (a variable must not reroute a CA).

use super::budget::{Budget, WAIT_MAX};
use super::credential::Credential;
use super::failure::{BadAnswer, CallError, parse_retry_after};
use crate::enrollment::etag::Etag;
use crate::files;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, redirect, retry, tls};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// For the TCP connection and the TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For one request, from the first byte sent to the last one read.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// For one call, with all that it waits for: its budget, an access token that has to be fetched first
/// (a call of its own), a credential's signature by a token.
pub const CALL_BOUND: Duration =
    Duration::from_secs(2 * (WAIT_MAX.as_secs() + REQUEST_TIMEOUT.as_secs()) + 30);

/// No answer is longer; a page of a hundred enrollments has about half of it.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// No continuation is longer: it must fit a header.
const CONTINUATION_LENGTH_MAX: usize = 4096;

/// Connections that wait for the next call.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where a plane is, and whom to trust there.
#[derive(Clone, Debug)]
pub struct PlaneSettings {
    /// The host name that the server's certificate must have, in lower case.
    pub host: String,
    /// Connect here instead of asking the DNS for `host`.
    pub address: Option<SocketAddr>,
    /// PEM file with the only authorities to trust; the system's otherwise.
    pub ca_bundle: Option<PathBuf>,
    /// `http://host:port` of a proxy.
    pub proxy: Option<String>,
}

/// A plane that cannot be called as configured.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The CA bundle cannot be used.
    #[error("cannot use the CA bundle {}: {reason}", path.display())]
    CaBundle {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A credential's key is in a token that is not there.
    #[error("the credential's key is in token {0:?}, and there is no such token")]
    Token(String),
    /// The client certificate cannot be used.
    #[error("cannot use the client certificate and its key: they are not PEM that fits together")]
    ClientCertificate,
    /// The client cannot be built.
    #[error("cannot prepare calls to {host}: {reason}")]
    Client {
        /// The plane's host.
        host: String,
        /// Why.
        reason: String,
    },
}

/// One plane of the service.
#[derive(Clone, Debug)]
pub struct Plane {
    client: reqwest::Client,
    /// `https://` and the host.
    origin: String,
    credential: Credential,
    budget: Arc<Budget>,
}

impl Plane {
    /// Prepares calls; nothing is sent yet.
    pub fn new(
        settings: &PlaneSettings,
        credential: Credential,
        budget: Arc<Budget>,
    ) -> Result<Self, PlaneError> {
        Self::build(settings, None, credential, budget)
    }

    /// Prepares calls as a device: `identity_pem` holds its key, its leaf and the chain above.
    pub fn with_client_certificate(
        settings: &PlaneSettings,
        identity_pem: &SecretString,
        budget: Arc<Budget>,
    ) -> Result<Self, PlaneError> {
        let identity = reqwest::Identity::from_pem(identity_pem.expose_secret().as_bytes());
        // The source is left out on purpose: it must never quote a key.
        let identity = identity.map_err(|_| PlaneError::ClientCertificate)?;
        Self::build(settings, Some(identity), Credential::None, budget)
    }

    /// Prepares calls to the metadata service of this machine: the one plane without TLS, and
    /// without a credential.
    pub(super) fn of_metadata(
        address: SocketAddr,
        budget: Arc<Budget>,
    ) -> Result<Self, PlaneError> {
        let client = bounded_client().https_only(false).build();
        Ok(Self {
            client: client.map_err(|error| PlaneError::Client {
                host: address.to_string(),
                reason: with_sources(&error),
            })?,
            origin: format!("http://{address}"),
            credential: Credential::None,
            budget,
        })
    }

    fn build(
        settings: &PlaneSettings,
        identity: Option<reqwest::Identity>,
        credential: Credential,
        budget: Arc<Budget>,
    ) -> Result<Self, PlaneError> {
        let failed = |error: reqwest::Error| PlaneError::Client {
            host: settings.host.clone(),
            reason: with_sources(&error),
        };
        let mut builder = bounded_client();
        if let Some(path) = &settings.ca_bundle {
            builder = builder.tls_certs_only(read_ca_bundle(path)?);
        }
        if let Some(address) = settings.address {
            builder = builder.resolve(&settings.host, address);
        }
        if let Some(proxy) = &settings.proxy {
            builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(failed)?);
        }
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        Ok(Self {
            client: builder.build().map_err(failed)?,
            origin: format!("https://{}", settings.host),
            credential,
            budget,
        })
    }

    /// One call: an answer with a 2xx status, or what to do about it.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Answer, CallError> {
        let waited = self.budget.acquire(call.cost).await;
        waited.map_err(|wait| CallError::Transient {
            operation: call.operation.clone(),
            reason: "the budget of operations per minute is spent".to_owned(),
            retry_after: Some(wait),
            lost_answer: false,
        })?;
        let secret = self.authorize(&call).await?;
        let request = self.request(&call, secret.as_ref());
        let sent = self.client.execute(request?).await;
        let response = sent.map_err(|error| lost(&call, &error))?;
        let answer = read_answer(&call, response).await?;
        if let (401, Some(refused)) = (answer.status, &secret) {
            self.credential.forget(refused).await;
        }
        self.judge(call, answer, secret.as_ref())
    }

    async fn authorize(&self, call: &Call<'_>) -> Result<Option<SecretString>, CallError> {
        let authorization = self.credential.authorization(SystemTime::now());
        authorization.await.map_err(|error| {
            let operation = call.operation.clone();
            let reason = match causes(&error) {
                None => error.to_string(),
                Some(causes) => format!("{error}: {causes}"),
            };
            match error.is_transient() {
                true => CallError::Transient {
                    operation,
                    reason,
                    retry_after: error.retry_after(),
                    lost_answer: false,
                },
                false => CallError::Unauthorized { operation, reason },
            }
        })
    }

    fn request(
        &self,
        call: &Call<'_>,
        secret: Option<&SecretString>,
    ) -> Result<reqwest::Request, CallError> {
        let url = format!("{}{}", self.origin, call.path_and_query);
        let mut request = self.client.request(call.method.clone(), url);
        if let Some(secret) = secret {
            let value = HeaderValue::from_str(secret.expose_secret());
            let mut value = value.map_err(|_| CallError::Unauthorized {
                operation: call.operation.clone(),
                reason: "the credential has characters that no header may have".to_owned(),
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(etag) = call.if_match {
            request = request.header(header::IF_MATCH, etag.if_match());
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        request = match &call.body {
            Some(Body::Json(body)) => request.json(body),
            Some(Body::Form { fields, .. }) => request
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(fields.expose_secret().to_owned()),
            // Some front ends answer 411 to a POST or PUT that does not say how empty it is.
            None if call.method == Method::POST => request.header(header::CONTENT_LENGTH, 0),
            None => request,
        };
        request.build().map_err(|error| CallError::Unsendable {
            operation: call.operation.clone(),
            reason: with_sources(&error),
        })
    }

    fn judge(
        &self,
        call: Call<'_>,
        answer: Answer,
        secret: Option<&SecretString>,
    ) -> Result<Answer, CallError> {
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let retry_after = answer.retry_after();
        if let (429, Some(pause)) = (answer.status, retry_after) {
            self.budget.pause(pause);
        }
        let writes = call.writes();
        let in_body = call.body.and_then(Body::into_secret);
        let bad = BadAnswer {
            writes,
            operation: call.operation,
            status: answer.status,
            body: &answer.body,
            code: answer.header("iothub-errorcode"),
            retry_after,
            secret: secret.or(in_body.as_ref()).map(ExposeSecret::expose_secret),
        };
        Err(bad.classify())
    }
}

fn bounded_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .https_only(true)
        .tls_version_min(tls::Version::TLS_1_2)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .user_agent(concat!("hallmarkd/", env!("CARGO_PKG_VERSION")))
}

/// The longest bundle: all authorities of a system are some 250 KiB.
const CA_BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

fn read_ca_bundle(path: &Path) -> Result<Vec<reqwest::Certificate>, PlaneError> {
    let unusable = |reason: String| PlaneError::CaBundle {
        path: path.to_owned(),
        reason,
    };
    let pem =
        files::read(path, CA_BUNDLE_BYTES_MAX).map_err(|error| unusable(error.to_string()))?;
    let bundle = reqwest::Certificate::from_pem_bundle(&pem);
    let bundle = bundle.map_err(|error| unusable(with_sources(&error)))?;
    match bundle.is_empty() {
        true => Err(unusable("there is no PEM certificate in it".to_owned())),
        false => Ok(bundle),
    }
}

/// The request got no answer. Only if there was no connection is it certain that nothing happened.
fn lost(call: &Call<'_>, error: &reqwest::Error) -> CallError {
    let reason = match error.is_timeout() {
        true => format!("no answer in time: {}", with_sources(error)),
        false => with_sources(error),
    };
    CallError::Transient {
        operation: call.operation.clone(),
        reason,
        retry_after: None,
        lost_answer: call.writes() && !error.is_connect(),
    }
}

async fn read_answer(call: &Call<'_>, mut response: Response) -> Result<Answer, CallError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                body.extend_from_slice(&chunk);
            }
            // The rest of a refusal is not needed to understand it.
            Ok(Some(_)) if !response.status().is_success() => break,
            Ok(Some(_)) => return Err(call.unreadable("is too long")),
            Ok(None) => break,
            Err(error) => return Err(lost(call, &error)),
        }
    }
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body,
    })
}

/// reqwest's own text names the URL, which the operation says better; the causes say what happened.
fn with_sources(error: &reqwest::Error) -> String {
    causes(error).unwrap_or_else(|| "the request failed".to_owned())
}

/// Everything below an error, from the nearest cause to the first one.
fn causes(error: &dyn Error) -> Option<String> {
    let (mut texts, mut next) = (Vec::new(), error.source());
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    (!texts.is_empty()).then(|| texts.join(": "))
}

/// One segment of a path, whatever it contains.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// What a request carries.
enum Body {
    Json(Value),
    Form {
        /// As it is sent.
        fields: SecretString,
        /// The field that must not be repeated.
        secret: SecretString,
    },
}

impl Body {
    fn into_secret(self) -> Option<SecretString> {
        match self {
            Body::Json(_) => None,
            Body::Form { secret, .. } => Some(secret),
        }
    }
}

/// One request, before it is authorised.
pub(super) struct Call<'a> {
    operation: String,
    method: Method,
    path_and_query: String,
    if_match: Option<&'a Etag>,
    headers: Vec<(HeaderName, String)>,
    body: Option<Body>,
    cost: u32,
    reads_only: bool,
}

impl<'a> Call<'a> {
    /// `operation` names verb and subject for people.
    pub(super) fn new(method: Method, operation: String, path_and_query: String) -> Self {
        Self {
            operation,
            reads_only: method == Method::GET,
            method,
            path_and_query,
            if_match: None,
            headers: Vec::new(),
            body: None,
            cost: 1,
        }
    }

    pub(super) fn if_match(self, etag: &'a Etag) -> Self {
        let if_match = Some(etag);
        Self { if_match, ..self }
    }

    pub(super) fn body(self, body: Value) -> Self {
        let body = Some(Body::Json(body));
        Self { body, ..self }
    }

    /// A form, with one more field that is a secret.
    pub(super) fn form(
        self,
        fields: &[(&str, &str)],
        secret_name: &str,
        secret: SecretString,
    ) -> Self {
        let mut text = format!("{secret_name}={}", segment(secret.expose_secret()));
        for (name, value) in fields {
            text.push_str(&format!("&{name}={}", segment(value)));
        }
        let fields = SecretString::from(text);
        let body = Some(Body::Form { fields, secret });
        Self { body, ..self }
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// How many operations the service may count it as.
    pub(super) fn cost(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    /// A POST that changes nothing.
    pub(super) fn reads_only(self) -> Self {
        let reads_only = true;
        Self { reads_only, ..self }
    }

    /// A query, answered in pages of at most `items_max`.
    pub(super) fn page(self, items_max: usize, from: Option<&Continuation>) -> Self {
        let call = self.reads_only();
        let call = call.header("x-ms-max-item-count", items_max.to_string());
        match from {
            Some(Continuation(token)) => call.header("x-ms-continuation", token.clone()),
            None => call,
        }
    }

    fn writes(&self) -> bool {
        !self.reads_only
    }

    /// The answer came, but cannot be understood: whatever was asked may be done.
    fn unreadable(&self, problem: &str) -> CallError {
        unreadable(&self.operation, problem, self.writes())
    }
}

fn unreadable(operation: &str, problem: &str, writes: bool) -> CallError {
    CallError::Transient {
        operation: operation.to_owned(),
        reason: format!("the answer {problem}"),
        retry_after: None,
        lost_answer: writes,
    }
}

/// Where the next page of an answer begins; the service's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation(String);

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// The body, as what the caller expects. An unexpected one is treated as a lost answer:
    /// something between us and the service answered, and may not do so next time.
    pub(super) fn json<T: DeserializeOwned>(&self, operation: &str) -> Result<T, CallError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| unreadable(operation, &format!("cannot be read: {error}"), true))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the next page begins, if there is one. A page whose next one cannot be asked for is no
    /// last page: the caller would take what follows for missing.
    pub(super) fn continuation(&self, operation: &str) -> Result<Option<Continuation>, CallError> {
        let Some(value) = self.headers.get("x-ms-continuation") else {
            return Ok(None);
        };
        match value.to_str() {
            Ok("") => Ok(None),
            Ok(token) if token.len() <= CONTINUATION_LENGTH_MAX => {
                Ok(Some(Continuation(token.to_owned())))
            }
            _ => {
                let problem = "has a continuation that cannot be sent back";
                Err(unreadable(operation, problem, false))
            }
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        parse_retry_after(self.header("retry-after")?, SystemTime::now())
    }
}
