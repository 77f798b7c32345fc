//! `POST /v1/ceremonies`, on the admin socket: the file in, a line of JSON for each step out.

use super::asks::{Asks, RoutePermission};
use super::body::TextBody;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::{Code, Error};
use axum::response::Response;
use serde_json::json;

/// Permission to run a ceremony.
pub(super) struct Ceremony;

impl RoutePermission for Ceremony {
    type Permission = Operate;

    const LOCAL_ONLY: Option<(Code, &'static str)> =
        Some((Code::CeremonyNotLocal, "a ceremony is run"));

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

pub(super) async fn run(
    Asks {
        api, permission, ..
    }: Asks<Ceremony>,
    TextBody(file): TextBody,
) -> Result<Response, Problem> {
    Ok(api.steps(move |ca, steps| {
        let progress = |step| steps.begin_of(step);
        let transcript = ca.ceremonies().run(&permission, &file, &progress)?;
        Ok(json!({ "transcript": transcript, "text": transcript.to_text() }))
    }))
}
