//! Calls a plane of the service over HTTPS, with a bound on everything.
//!
//! One [`Call`] is one request: spend from the budget, authorize, send, read a bounded answer,
//! classify. No redirects (they would carry the authorization elsewhere), no retries (the caller
//! must observe first), no proxy from the environment (a variable must not reroute a CA).

use super::budget::{Budget, WAIT_MAX};
use super::ca_bundle::read_ca_bundle;
use super::call::{Body, Call, Reply};
use super::credential::Credential;
use super::failure::{BadAnswer, CallError};
use super::skew::Skew;
use crate::measured;
use crate::trace;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Request, Response, redirect, retry, tls};
use secrecy::{ExposeSecret, SecretString};
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The bound of the TCP connection and the TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The bound of one request, from the first byte sent to the last one read.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The bound of one call with everything before it: the budget, the call that fetches an access
/// token, a credential's signature by a token.
pub const CALL_BOUND: Duration =
    Duration::from_secs(2 * (WAIT_MAX.as_secs() + REQUEST_TIMEOUT.as_secs()) + 30);

/// The longest answer; a page of a hundred enrollments has about half of it.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How many idle connections are kept.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// The address of a plane, and the authorities that it is trusted by.
#[derive(Clone, Debug)]
pub struct PlaneSettings {
    /// The host name that the server's certificate must have, in lower case.
    pub host: String,
    /// The address to connect to, instead of a lookup of `host` in the DNS.
    pub address: Option<SocketAddr>,
    /// A PEM file with the only trusted authorities; by default those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// `http://host:port` of a proxy.
    pub proxy: Option<String>,
}

/// A plane that cannot be called as configured.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The CA bundle cannot be used.
    #[error("cannot use the CA bundle {}: {reason}", path.display())]
    CaBundle { path: PathBuf, reason: String },
    /// A credential names a token that is not configured.
    #[error("the credential's key is in token {0:?}, and there is no such token")]
    Token(String),
    /// The client certificate cannot be used.
    #[error("cannot use the client certificate and its key: they are not PEM that fits together")]
    ClientCertificate,
    /// The client cannot be built.
    #[error("cannot prepare calls to {host}: {reason}")]
    Client { host: String, reason: String },
}

/// The purpose of a plane, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneKind {
    /// The service plane of DPS.
    Dps,
    /// Azure Resource Manager.
    Arm,
    Hub,
    /// The way in of devices.
    Device,
    /// Where access tokens come from.
    Credential,
}

impl PlaneKind {
    fn name(self) -> &'static str {
        match self {
            PlaneKind::Dps => "dps",
            PlaneKind::Arm => "arm",
            PlaneKind::Hub => "hub",
            PlaneKind::Device => "device",
            PlaneKind::Credential => "credential",
        }
    }
}

/// One plane of the service.
#[derive(Clone, Debug)]
pub struct Plane {
    kind: PlaneKind,
    client: reqwest::Client,
    /// `https://` and the host.
    origin: String,
    credential: Credential,
    budget: Arc<Budget>,
    /// The bound of one request.
    timeout: Duration,
    /// The time of the last answer.
    skew: Arc<Skew>,
}

impl Plane {
    /// Returns the same plane with another bound of one request, at most [`REQUEST_TIMEOUT`]. It
    /// has not answered yet.
    pub(super) fn within(&self, timeout: Duration) -> Self {
        Self {
            timeout: timeout.min(REQUEST_TIMEOUT),
            skew: Arc::default(),
            ..self.clone()
        }
    }

    /// Prepares calls; sends nothing.
    pub fn new(
        kind: PlaneKind,
        settings: &PlaneSettings,
        credential: Credential,
        budget: Arc<Budget>,
    ) -> Result<Self, PlaneError> {
        Self::build(kind, settings, None, credential, budget)
    }

    /// Prepares calls as a device: `identity_pem` holds its key, its leaf and the chain above.
    pub fn with_client_certificate(
        settings: &PlaneSettings,
        identity_pem: &SecretString,
        budget: Arc<Budget>,
    ) -> Result<Self, PlaneError> {
        let identity = reqwest::Identity::from_pem(identity_pem.expose_secret().as_bytes());
        // The source is left out: it might quote a key.
        let identity = identity.map_err(|_| PlaneError::ClientCertificate)?;
        let kind = PlaneKind::Device;
        Self::build(kind, settings, Some(identity), Credential::None, budget)
    }

    /// Prepares calls to the metadata service of this machine: the one plane without TLS, and
    /// without a credential.
    pub(super) fn of_metadata(
        address: SocketAddr,
        budget: Arc<Budget>,
    ) -> Result<Self, PlaneError> {
        let client = bounded_client().https_only(false).build();
        Ok(Self {
            kind: PlaneKind::Credential,
            client: client.map_err(|error| PlaneError::Client {
                host: address.to_string(),
                reason: with_sources(&error),
            })?,
            origin: format!("http://{address}"),
            credential: Credential::None,
            budget,
            timeout: REQUEST_TIMEOUT,
            skew: Arc::default(),
        })
    }

    fn build(
        kind: PlaneKind,
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
            kind,
            client: builder.build().map_err(failed)?,
            origin: format!("https://{}", settings.host),
            credential,
            budget,
            timeout: REQUEST_TIMEOUT,
            skew: Arc::default(),
        })
    }

    /// Makes one call. Returns an answer with a 2xx status; the error says what the caller can do.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Reply, CallError> {
        let waited = self.budget.acquire(call.cost).await;
        waited.map_err(|wait| CallError::Transient {
            operation: call.operation.clone(),
            reason: "the budget of operations per minute is spent".to_owned(),
            retry_after: Some(wait),
            lost_answer: false,
        })?;
        let secret = self.authorize(&call).await?;
        let request = self.request(&call, secret.as_ref());
        let answer = self.send(&call, request?).await?;
        if let (401, Some(refused)) = (answer.status, &secret) {
            self.credential.forget(refused).await;
        }
        self.judge(call, answer, secret.as_ref())
    }

    /// Returns the host name.
    pub(super) fn host(&self) -> &str {
        self.origin.strip_prefix("https://").unwrap_or(&self.origin)
    }

    /// Returns how far the clock of the plane was ahead of this machine's at its last answer, in
    /// seconds; `None` before one that had a `Date`.
    pub(super) fn skew_seconds(&self) -> Option<i64> {
        self.skew.seconds()
    }

    async fn send(&self, call: &Call<'_>, request: Request) -> Result<Reply, CallError> {
        let begun = Instant::now();
        let answer = match self.client.execute(request).await {
            Ok(response) => {
                self.skew.note(response.headers(), SystemTime::now());
                read_answer(call, response).await
            }
            Err(error) => Err(lost(call, &error)),
        };
        let status = answer.as_ref().ok().map(|it| it.status);
        measured::cloud_call(self.kind.name(), begun, status);
        answer
    }

    async fn authorize(&self, call: &Call<'_>) -> Result<Option<SecretString>, CallError> {
        let authorization = self.credential.authorization(SystemTime::now());
        authorization.await.map_err(|error| {
            let operation = call.operation.clone();
            let reason = match causes(&error) {
                None => error.to_string(),
                Some(causes) => format!("{error}: {causes}"),
            };
            if !error.is_transient() {
                return CallError::Unauthorized { operation, reason };
            }
            CallError::Transient {
                operation,
                reason,
                retry_after: error.retry_after(),
                lost_answer: false,
            }
        })
    }

    fn request(
        &self,
        call: &Call<'_>,
        secret: Option<&SecretString>,
    ) -> Result<Request, CallError> {
        let url = format!("{}{}", self.origin, call.path_and_query);
        let mut request = self.client.request(call.method.clone(), url);
        request = request.timeout(self.timeout);
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
        let is_of_the_service = self.kind != PlaneKind::Credential;
        if let Some(trace) = trace::current().filter(|_| is_of_the_service) {
            request = request.header(trace::PARENT, trace.parent());
            if let Some(state) = trace.state() {
                request = request.header(trace::STATE, state);
            }
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        request = match &call.body {
            Some(Body::Json(body)) => request.json(body),
            Some(Body::Form { fields, .. }) => request
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(fields.expose_secret().to_owned()),
            // Some front ends answer 411 to a POST without Content-Length.
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
        answer: Reply,
        secret: Option<&SecretString>,
    ) -> Result<Reply, CallError> {
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

/// The request got no answer. Only without a connection is it certain that nothing happened.
fn lost(call: &Call<'_>, error: &reqwest::Error) -> CallError {
    let causes = with_sources(error);
    let reason = if error.is_timeout() {
        format!("no answer in time: {causes}")
    } else {
        causes
    };
    CallError::Transient {
        operation: call.operation.clone(),
        reason,
        retry_after: None,
        lost_answer: call.writes() && !error.is_connect(),
    }
}

async fn read_answer(call: &Call<'_>, mut response: Response) -> Result<Reply, CallError> {
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
    Ok(Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body,
    })
}

/// Returns the causes of an error. reqwest's own text only repeats the URL.
fn with_sources(error: &reqwest::Error) -> String {
    causes(error).unwrap_or_else(|| "the request failed".to_owned())
}

/// Joins the sources of an error, from the nearest to the first.
fn causes(error: &dyn Error) -> Option<String> {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    (!texts.is_empty()).then(|| texts.join(": "))
}
