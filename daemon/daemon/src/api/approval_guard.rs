//! Stops an action that needs the approval of a second person, before its handler sees it.
//!
//! This layer is the one place that guards, so no handler can forget it: [`decided`] says of each
//! route of operators whether it is guarded, and a test compares that with the routes. A guarded
//! request is read whole, and the handler gets the bytes that the approver has seen: JSON is
//! written again from what was parsed.

use super::batch::BATCH_BYTES_MAX;
use super::body;
use super::caller::Peer;
use super::problem::Problem;
use super::transfers::TRANSFER_BYTES_MAX;
use super::{Api, BODY_BYTES_MAX, Edge};
use crate::ca::approval::{Action, Admission, AskedAction};
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::profile::Role;
use crate::ca::{CertificateAuthority, Code, Error};
use crate::ids::ApprovalId;
use crate::store::ApprovalRow;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// The header that names the approval of a request.
pub(super) const APPROVAL: &str = "hallmark-approval";

/// How a guarded route reads its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Json,
    /// A batch of requests for certificates.
    Batch,
    /// Files of an offline root.
    Transfer,
    Text,
    Nothing,
    /// A certification request of EST.
    Est,
}

/// Marks a request of a caller that was no operator when the guard looked. The handler looks again,
/// and may then find an operator: a hold was lifted, or the store answers once more. So it refuses
/// one (`Asks`).
#[derive(Clone, Copy)]
pub(super) struct NotJudged;

/// A request of an operator, as its actions are judged.
struct Judged<'a> {
    ca: &'a CertificateAuthority,
    caller: &'a Caller,
    /// As the router has it.
    route: &'a str,
    path: &'a str,
    query: &'a str,
    body: &'a Value,
}

/// A guarded route.
struct Guarded {
    reads: Reads,
    /// For local users alone: the handler refuses others.
    is_local: bool,
    actions: fn(&Judged<'_>) -> Vec<Action>,
}

/// Whether a route of operators is guarded. `None` for one that nothing was decided of.
fn decided(method: &Method, route: &str) -> Option<Option<Guarded>> {
    let guarded = |reads, is_local, actions| {
        Some(Some(Guarded {
            reads,
            is_local,
            actions,
        }))
    };
    let post = *method == Method::POST;
    match route {
        "/v1/ceremonies" if post => guarded(Reads::Text, true, |_| vec![Action::AuthorityCreate]),
        "/v1/transfers/answers" if post => {
            guarded(Reads::Transfer, true, |_| vec![Action::AuthoritySign])
        }
        "/v1/transfers/installations" if post => {
            guarded(Reads::Transfer, true, |_| vec![Action::AuthorityInstall])
        }
        "/v1/authorities/{name}/certificate" if post => {
            guarded(Reads::Json, false, |_| vec![Action::AuthorityInstall])
        }
        "/v1/authorities/{name}/subordinates" if post => {
            guarded(Reads::Json, false, |_| vec![Action::AuthoritySign])
        }
        "/v1/authorities/{name}/rolls" if post => guarded(Reads::Json, false, starts_roll),
        "/v1/rolls/{id}/approve" if post => guarded(Reads::Json, false, |it| {
            [overrides(it), vec![Action::RollApprove]].concat()
        }),
        "/v1/rolls/{id}/abort" if post => guarded(Reads::Json, false, overrides),
        "/v1/enrollments/{kind}/{name}" if *method == Method::DELETE => {
            guarded(Reads::Nothing, false, overrides)
        }
        "/v1/backups" if post => guarded(Reads::Nothing, true, |_| vec![Action::BackupCreate]),
        "/v1/audit/accept" if post => guarded(Reads::Json, false, |_| vec![Action::GuardOverride]),
        "/v1/clock/accept" if post => guarded(Reads::Nothing, false, |_| vec![Action::ClockAccept]),
        "/v1/certificates" if post => guarded(Reads::Json, false, changes_role),
        "/v1/certificates:batch" if post => guarded(Reads::Batch, false, changes_role),
        _ if post && route.starts_with("/.well-known/est/") => {
            guarded(Reads::Est, false, changes_role_by_est)
        }
        // The rest changes no authority, no role and no guard: see docs/decisions.md.
        "/v1/authorities/{name}/imports"
        | "/v1/authorities/{name}/request"
        | "/v1/blocks"
        | "/v1/blocks/{kind}/{name}"
        | "/v1/certificates/holds"
        | "/v1/certificates/releases"
        | "/v1/certificates/revocations"
        | "/v1/device-credentials"
        | "/v1/device-credentials/{id}"
        | "/v1/doctor"
        | "/v1/enrollments"
        | "/v1/grants"
        | "/v1/grants/{id}"
        | "/v1/enrollments/{kind}/{name}/adoption"
        | "/v1/push/retry"
        | "/v1/reload"
        | "/v1/rolls"
        | "/v1/tokens/{name}/bench"
        | "/v1/tokens/{name}/check"
        | "/v1/transfers/requests"
        | "/v1/approvals/{id}/rejection"
        | "/v1/approvals/{id}/signature" => Some(None),
        _ => None,
    }
}

/// Whether a route may need an approval; its method is in lower case.
pub(super) fn is_guarded(method: &str, route: &str) -> bool {
    let method = method.to_uppercase().parse();
    method.is_ok_and(|it| decided(&it, route).flatten().is_some())
}

/// Answers a request, unless it needs an approval that it does not have.
pub(super) async fn guard(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    match judge(&edge, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Returns the request for its handler, or says why it goes no further.
async fn judge(edge: &Edge, mut request: Request) -> Result<Request, Problem> {
    if request.method().is_safe() || edge.current.load().approvals().is_empty() {
        return Ok(request);
    }
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(String::new, |it| it.as_str().to_owned());
    let Some(Some(guarded)) = decided(request.method(), &route) else {
        return Ok(request);
    };
    let (api, peer) = edge.asked(request.extensions())?;
    if guarded.is_local && matches!(peer, Peer::Network { .. }) {
        return Ok(request);
    }
    let Some(caller) = operator(&api, &peer).await else {
        request.extensions_mut().insert(NotJudged);
        return Ok(request);
    };
    let (mut head, body) = request.into_parts();
    let sent = body::read(body, guarded.reads.limit()).await?;
    let body = guarded.reads.parse(&sent)?;
    let judged = Judged {
        ca: &api.ca,
        caller: &caller,
        route: &route,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        body: &body,
    };
    let actions = (guarded.actions)(&judged);
    let sent = guarded.reads.written_again(&body, sent);
    if let Some(action) = api.ca.approvals().guarded(&actions) {
        let path = head.uri.path_and_query();
        let asked = AskedAction {
            action,
            asked_by: caller.to_string(),
            method: head.method.to_string(),
            path: path.map_or_else(String::new, ToString::to_string),
            body,
        };
        let by = named(&head.headers)?;
        let admitted = api.application(move |ca| ca.approvals().admit(&asked, by));
        if let Admission::Waits(row) = admitted.await? {
            return Err(waits(&row));
        }
    }
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_LENGTH, sent.len().into());
    Ok(Request::from_parts(head, Body::from(sent)))
}

/// The caller, if it may operate: the handler refuses all others.
async fn operator(api: &Api, peer: &Peer) -> Option<Caller> {
    let caller = api.caller(peer).await.ok()?;
    Authorized::<Operate>::to_operate(caller.clone()).ok()?;
    Some(caller)
}

impl Reads {
    fn limit(self) -> usize {
        match self {
            Self::Batch => BATCH_BYTES_MAX,
            Self::Transfer => TRANSFER_BYTES_MAX,
            Self::Json | Self::Text | Self::Nothing | Self::Est => BODY_BYTES_MAX,
        }
    }

    /// The body as the document shows it.
    fn parse(self, sent: &Bytes) -> Result<Value, Error> {
        let invalid = |why: String| Error::invalid(Code::BodyInvalid, why);
        match self {
            Self::Nothing => Ok(Value::Null),
            Self::Est => Ok(json!({ "base64": STANDARD.encode(sent) })),
            Self::Json | Self::Batch | Self::Transfer => {
                serde_json::from_slice(sent).map_err(|error| invalid(body::why_invalid(&error)))
            }
            Self::Text => {
                let text = std::str::from_utf8(sent).map_err(|error| {
                    invalid(format!(
                        "the body is not UTF-8 text: {error}; send it as UTF-8"
                    ))
                })?;
                Ok(json!({ "lines": text.split('\n').collect::<Vec<_>>() }))
            }
        }
    }

    /// The body for the handler.
    fn written_again(self, body: &Value, sent: Bytes) -> Bytes {
        match self {
            Self::Json | Self::Batch | Self::Transfer => Bytes::from(body.to_string()),
            Self::Text | Self::Est => sent,
            Self::Nothing => Bytes::new(),
        }
    }
}

/// A roll of an authority, by expiry or compromise.
fn starts_roll(it: &Judged<'_>) -> Vec<Action> {
    match it.body["reason"].as_str() {
        Some("expiry") => vec![Action::RollStart],
        Some("compromise") => vec![Action::CompromiseAuthority],
        // The handler may read any other value as either.
        _ => vec![Action::CompromiseAuthority, Action::RollStart],
    }
}

/// A reason to go on although a guard refuses, in the body or the query.
fn overrides(it: &Judged<'_>) -> Vec<Action> {
    let is_said = it.query.split('&').any(|it| {
        let name = it.split('=').next().unwrap_or_default();
        percent_decode_str(name).decode_utf8_lossy() == "override"
    });
    if is_said || it.body.get("override").is_some_and(|it| !it.is_null()) {
        return vec![Action::GuardOverride];
    }
    Vec::new()
}

/// A certificate that makes its holder an operator, approver or auditor, unless it is the caller's
/// own next one.
fn changes_role(it: &Judged<'_>) -> Vec<Action> {
    let items = it.body["items"].as_array().map(Vec::as_slice);
    let items = items.unwrap_or_else(|| std::slice::from_ref(it.body));
    let changes = items.iter().any(|item| {
        let profile = item["profile"].as_str().unwrap_or_default();
        let own = matches!(
            it.caller,
            Caller::Certificate { name, profile: by, .. }
                if by == profile && item["registration_id"] == name.as_str()
        );
        gives_role(it.ca, profile) && !own
    });
    changes.then_some(Action::RoleChange).into_iter().collect()
}

/// The same by EST, whose renewals are judged like first requests: whose they are is known only
/// after the request is read.
fn changes_role_by_est(it: &Judged<'_>) -> Vec<Action> {
    let label = it.route.contains("{label}");
    let label = label.then(|| it.path.split('/').nth(3)).flatten();
    // The handler takes an empty label for none.
    let label = label.filter(|it| !it.is_empty());
    let label = label.map(|it| percent_decode_str(it).decode_utf8_lossy());
    let profile = match &label {
        Some(label) => Some(&**label),
        None => it.ca.est().profile(None).ok().map(|it| it.name.as_str()),
    };
    let renews = it.route.contains("/simplereenroll");
    let own = match it.caller {
        Caller::Certificate { profile, .. } if label.is_none() && renews => Some(profile.as_str()),
        _ => None,
    };
    let mut profiles = profile.into_iter().chain(own);
    let changes = profiles.any(|name| gives_role(it.ca, name));
    changes.then_some(Action::RoleChange).into_iter().collect()
}

fn gives_role(ca: &CertificateAuthority, profile: &str) -> bool {
    let profile = ca.issuer().profile(profile);
    profile.is_ok_and(|it| matches!(it.role, Role::Operator | Role::Approver | Role::Auditor))
}

/// The approval that the request names.
fn named(headers: &HeaderMap) -> Result<Option<ApprovalId>, Error> {
    let Some(value) = headers.get(APPROVAL) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|it| it.parse().ok());
    let id = id.ok_or_else(|| {
        let message = format!(
            "the header {APPROVAL} is no number; `hallmark approval list` has those of the requests"
        );
        Error::invalid(Code::ApprovalInvalid, message)
    })?;
    Ok(Some(ApprovalId::new(id)))
}

/// Says what the caller does next.
fn waits(row: &ApprovalRow) -> Problem {
    let id = row.id;
    let sha256 = hex::encode(row.sha256);
    let message = match row.signed {
        Some(_) => format!(
            "request {id} ({}) is approved; repeat the command with --approval {id}",
            row.action
        ),
        None => format!(
            "{} needs the approval of another person, and nothing was done: request {id}, SHA-256 \
             {sha256}, stands until {}; have it approved (`hallmark approve {id}`), then repeat \
             the command with --approval {id}",
            row.action, row.expires_at
        ),
    };
    let error = Error::conflict(Code::ApprovalRequired, message);
    Problem::from(error).with_approval(id, sha256, row.expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openapi::{Access, accesses};

    #[test]
    fn of_each_route_of_operators_it_is_decided_whether_it_is_guarded() {
        let mut guarded = 0;
        for (method, route, access) in accesses() {
            let changes = method != "get" && !matches!(access, Access::All);
            let method: Method = method.to_uppercase().parse().unwrap();
            if !changes {
                continue;
            }
            let decided = decided(&method, &route);
            let decided = decided.unwrap_or_else(|| panic!("{method} {route} is not decided"));
            guarded += usize::from(decided.is_some());
        }
        assert!(guarded >= 13, "{guarded}");
    }
}
