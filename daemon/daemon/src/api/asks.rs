//! Identifies and authorizes the sender of a request before anything else of it is parsed.
//!
//! The first argument of each handler is [`Asks`], which names its permission, or [`Open`]; a
//! handler without either cannot be described ([`openapi`](super::openapi)), and each route must
//! be. axum takes arguments in order, so a refused request has neither path nor query parsed, and
//! its body is not read. The body MUST be the last argument.

use super::approval_guard::NotJudged;
use super::caller::Peer;
use super::client::Class;
use super::openapi::Access;
use super::problem::Problem;
use super::server::Work;
use super::{Api, Edge};
use crate::ca::authorize::{Approve, Authorized, Caller, Fetch, Inspect, Issue, Operate};
use crate::ca::{Code, Error};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

/// A request whose sender has the permission that `R` names.
pub(super) struct Asks<R: RoutePermission> {
    pub(super) api: Api,
    pub(super) peer: Peer,
    pub(super) permission: Authorized<R::Permission>,
    /// Begins when its sender was identified.
    pub(super) since: Instant,
}

/// A request whose sender may be a stranger. It takes the permits of strangers.
pub(super) struct Open(pub(super) Api);

/// A permission that a handler needs.
pub(super) trait RoutePermission {
    /// The value that the application takes.
    type Permission;

    /// The code and the beginning of the refusal for callers over the network, if only local
    /// callers may have the permission.
    const LOCAL_ONLY: Option<(Code, &'static str)> = None;

    /// The callers that may have it, as documents say it.
    const ACCESS: Access = Access::AdminSocket;

    /// Identifies the sender of a request with this head.
    fn identify(
        api: &Api,
        peer: &Peer,
        _head: &Parts,
    ) -> impl Future<Output = Result<Caller, Problem>> + Send {
        api.caller(peer)
    }

    /// Returns the permission, or refuses `caller`.
    fn permit(caller: Caller) -> Result<Authorized<Self::Permission>, Error>;
}

impl RoutePermission for Issue {
    type Permission = Issue;

    const ACCESS: Access = Access::Callers;

    fn identify(
        api: &Api,
        peer: &Peer,
        head: &Parts,
    ) -> impl Future<Output = Result<Caller, Problem>> + Send {
        api.applicant(peer, head)
    }

    fn permit(caller: Caller) -> Result<Authorized<Issue>, Error> {
        Ok(Authorized::<Issue>::to_issue(caller))
    }
}

impl RoutePermission for Operate {
    type Permission = Operate;

    const ACCESS: Access = Access::Operators;

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

impl RoutePermission for Approve {
    type Permission = Approve;

    const ACCESS: Access = Access::OperatorsAndApprovers;

    fn permit(caller: Caller) -> Result<Authorized<Approve>, Error> {
        Authorized::<Approve>::to_approve(caller)
    }
}

impl RoutePermission for Inspect {
    type Permission = Inspect;

    const ACCESS: Access = Access::OperatorsAndAuditors;

    fn permit(caller: Caller) -> Result<Authorized<Inspect>, Error> {
        Authorized::<Inspect>::to_inspect(caller)
    }
}

impl RoutePermission for Fetch {
    type Permission = Fetch;

    const ACCESS: Access = Access::CallersForTheirOwn;

    fn permit(caller: Caller) -> Result<Authorized<Fetch>, Error> {
        Authorized::<Fetch>::to_fetch(caller)
    }
}

impl FromRequestParts<Edge> for Open {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, edge: &Edge) -> Result<Self, Infallible> {
        Ok(Self(edge.api(Class::Stranger)))
    }
}

impl<R: RoutePermission> FromRequestParts<Edge> for Asks<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let (api, peer) = edge.asked(&parts.extensions)?;
        let caller = R::identify(&api, &peer, parts).await?;
        let api = match caller {
            // A one-time credential comes with a request on the connection of a stranger.
            Caller::Granted { .. } => {
                if let Some(work) = parts.extensions.get::<Arc<Work>>() {
                    work.is_of_identified();
                }
                api.of_identified()
            }
            _ => api,
        };
        if let Some((code, what)) = R::LOCAL_ONLY
            && !R::ACCESS.admits(caller.kind())
        {
            let message = format!("{what} on the machine itself, over the admin socket");
            return Err(Error::forbidden(code, message).into());
        }
        let was_judged = parts.extensions.get::<NotJudged>().is_none();
        if !was_judged && Access::Operators.admits(caller.kind()) {
            let message = "the caller was not known as an operator when the need of an approval \
                           was judged; repeat the request";
            return Err(Error::conflict(Code::ApprovalRequired, message).into());
        }
        let permission = R::permit(caller)?;
        Ok(Self {
            api,
            peer,
            permission,
            since: Instant::now(),
        })
    }
}
