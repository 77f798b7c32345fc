//! `POST /v1/ceremonies`, on the admin socket: the file in, a line of JSON for each step out.

use super::Api;
use super::caller::Peer;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::transcript::Transcript;
use crate::ca::{Error, ceremony};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::mpsc;

/// Steps that may wait for a slow reader; a ceremony has three per authority.
const STEPS_WAITING_MAX: usize = 4 * ceremony::AUTHORITIES_MAX + 1;

pub(super) async fn run(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    file: String,
) -> Result<Response, Problem> {
    if !matches!(peer, Peer::Local { .. }) {
        let message = "a ceremony is run on the machine itself, over the admin socket";
        return Err(Error::forbidden("ceremony_not_local", message).into());
    }
    let permission = Authorized::<Operate>::to_operate(api.caller(&peer).await?)?;
    let (steps, mut lines) = mpsc::channel::<Value>(STEPS_WAITING_MAX);
    tokio::spawn(async move {
        let told = steps.clone();
        let run = move |ca: &crate::ca::CertificateAuthority| {
            // A reader that went away misses the progress, not the ceremony.
            let progress = |step: String| drop(told.try_send(json!({ "progress": step })));
            ca.run_ceremony(&permission, &file, &progress)
        };
        let last = match api.application(run).await {
            Ok(transcript) => finished(&transcript),
            Err(problem) => {
                let error = problem.error();
                json!({ "problem": { "code": error.code, "detail": error.message } })
            }
        };
        let _ = steps.send(last).await;
    });
    let stream = futures_util::stream::poll_fn(move |context| {
        lines
            .poll_recv(context)
            .map(|line| line.map(|line| Ok::<_, Infallible>(format!("{line}\n"))))
    });
    Ok((
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(stream),
    )
        .into_response())
}

fn finished(transcript: &Transcript) -> Value {
    json!({ "transcript": transcript, "text": transcript.to_text() })
}
