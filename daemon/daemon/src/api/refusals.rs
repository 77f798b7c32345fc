//! Audits refusals: every 401 and 403 of every route, and every refused request for a certificate,
//! be it a leaf or a subordinate certificate.
//!
//! This layer alone does so for requests from the network; a handler that audited a refusal, too,
//! would make two entries. It runs each request to its end in a task of its own: a client that
//! hangs up cancels neither work nor entry.

use super::applicant::Applicant;
use super::client::{Class, ConnectedClient};
use super::problem::{About, Problem, Refusal, Refusals};
use super::{Api, Edge};
use crate::ca::issuer::refusals::{CERTIFICATE_REFUSED, REQUEST_REFUSED, Refused};
use crate::ca::{Advice, Code, Error};
use crate::request_task;
use crate::trace::{self, TraceContext};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// Answers a request, and audits it if it was refused.
pub(super) async fn audit(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let summary = RequestSummary::of(&request);
    request.extensions_mut().insert(summary.applicant.clone());
    let is_cycle = summary.asks_for_certificate();
    let trace = trace_of(request.headers());
    let handle = trace::scope(trace, async move {
        let mut response = next.run(request).await;
        if let Some(Refusals(refusals)) = response.extensions_mut().remove() {
            // All at once: the entries share a commit.
            join_all(refusals.into_iter().map(|it| summary.audit(&edge, it))).await;
        }
        response
    });
    let handled = if is_cycle {
        request_task::start(handle).await.ok()
    } else {
        tokio::spawn(handle).await.ok()
    };
    handled.unwrap_or_else(|| {
        let error = Error::stop(Code::Internal, "the request failed; the log says why");
        Problem::from(error).into_response()
    })
}

/// Returns the trace context of a request. One with several `traceparent` has none (W3C Trace
/// Context, section 3.2); several `tracestate` are one list (section 3.3.1).
fn trace_of<'a>(headers: &'a HeaderMap) -> Option<Arc<TraceContext>> {
    let text = |it: &'a HeaderValue| it.to_str().ok();
    let parents: Vec<_> = headers.get_all(trace::PARENT).iter().map(text).collect();
    let [Some(parent)] = parents[..] else {
        return None;
    };
    let states: Option<Vec<_>> = headers.get_all(trace::STATE).iter().map(text).collect();
    let state = states.map(|it| it.join(","));
    TraceContext::parse(parent, state.as_deref()).map(Arc::new)
}

impl Edge {
    /// Audits a TLS handshake that was refused for the client's certificate or signature. Other
    /// failures say nothing about a client: port scans and old protocols.
    pub(super) async fn tls_refused(&self, address: Option<IpAddr>, failure: &io::Error) {
        let cause = failure.get_ref().and_then(|it| it.downcast_ref());
        let Some(rustls::Error::InvalidCertificate(reason)) = cause else {
            tracing::debug!(error = %failure, "TLS handshake failed");
            return;
        };
        let message = format!("the TLS handshake was refused: {reason:?}");
        let error = Error::new(
            Advice::Authenticate,
            Code::ClientCertificateInvalid,
            message,
        );
        let refused = Refused {
            action: "connection.refused",
            actor: None,
            subject: String::new(),
            detail: json!({ "address": address.map(|it| it.to_string()) }),
        };
        let api = self.api(Class::Stranger);
        api.ca.issuer().record_refused(refused, &error).await;
    }
}

/// A request, as the journal shows it.
struct RequestSummary {
    client: Option<ConnectedClient>,
    /// The device without a valid leaf that made it, once it is identified.
    applicant: Applicant,
    method: Method,
    route: String,
    path: String,
}

impl RequestSummary {
    fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        let route = extensions.get::<MatchedPath>();
        Self {
            client: extensions.get::<ConnectedClient>().cloned(),
            applicant: Applicant::default(),
            method: request.method().clone(),
            route: route.map_or_else(String::new, |it| it.as_str().to_owned()),
            path: request.uri().path().to_owned(),
        }
    }

    async fn audit(&self, edge: &Edge, refusal: Refusal) {
        let status = refusal.status;
        let asks_for_certificate = self.asks_for_certificate();
        let is_audited = status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN;
        let Some(client) = &self.client else { return };
        if !is_audited && !asks_for_certificate {
            return;
        }
        let api = edge.api(client.class);
        let actor = self.actor(&api, client, status).await;
        let About { subject, profile } = refusal.about.unwrap_or_else(|| About {
            subject: self.subject(asks_for_certificate),
            profile: None,
        });
        let refused = Refused {
            action: if asks_for_certificate {
                CERTIFICATE_REFUSED
            } else {
                REQUEST_REFUSED
            },
            actor,
            subject,
            detail: self.detail(client, profile),
        };
        api.ca
            .issuer()
            .record_refused(refused, &refusal.error)
            .await;
    }

    /// `None` for a client that could not be identified.
    async fn actor(
        &self,
        api: &Api,
        client: &ConnectedClient,
        status: StatusCode,
    ) -> Option<String> {
        if let Some(user) = client.peer.user() {
            return Some(user);
        }
        if let Some(applicant) = self.applicant.name() {
            return Some(applicant);
        }
        match status {
            StatusCode::UNAUTHORIZED => None,
            _ => api.caller(&client.peer).await.ok().map(|it| it.to_string()),
        }
    }

    fn asks_for_certificate(&self) -> bool {
        let route = self.route.as_str();
        self.method == Method::POST
            && (route == "/v1/certificates"
                || route == "/v1/certificates:batch"
                || route == "/v1/authorities/{name}/subordinates"
                || route.starts_with("/.well-known/est/"))
    }

    /// Empty for a certificate: its name is in a body that was not read.
    fn subject(&self, asks_for_certificate: bool) -> String {
        if asks_for_certificate {
            String::new()
        } else {
            self.path.clone()
        }
    }

    fn detail(&self, client: &ConnectedClient, profile: Option<String>) -> Value {
        let mut detail = json!({ "method": self.method.as_str(), "route": self.route });
        if let Some(address) = client.address {
            detail["address"] = address.to_string().into();
        }
        if let Some(holder) = client.peer.holder() {
            detail["holder"] = holder.into();
        }
        if let Some(sha256) = client.peer.presented() {
            detail["certificate"] = hex::encode_upper(sha256).into();
        }
        if let Some(profile) = profile {
            detail["profile"] = profile.into();
        }
        detail
    }
}
