//! Work that takes long: on the admin socket, a line of JSON for each step, and one for the end.

use super::Api;
use crate::ca::{CertificateAuthority, Error};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::mpsc;

/// Steps that may wait for a slow reader; further ones are dropped.
const STEPS_WAITING_MAX: usize = 512;

impl Api {
    /// Runs `work` to its end, even if the client hangs up, and sends each step as it begins.
    pub(super) fn steps(
        self,
        work: impl FnOnce(&CertificateAuthority, &dyn Fn(String)) -> Result<Value, Error>
        + Send
        + 'static,
    ) -> Response {
        let (steps, mut lines) = mpsc::channel::<Value>(STEPS_WAITING_MAX);
        tokio::spawn(async move {
            let progress_of = steps.clone();
            let run = move |ca: &CertificateAuthority| {
                // Without a reader the progress is dropped, and the work goes to its end.
                let progress =
                    |step: String| drop(progress_of.try_send(json!({ "progress": step })));
                work(ca, &progress)
            };
            let last = match self.application(run).await {
                Ok(outcome) => outcome,
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
        let kind = [(CONTENT_TYPE, "application/x-ndjson")];
        (kind, Body::from_stream(stream)).into_response()
    }
}
