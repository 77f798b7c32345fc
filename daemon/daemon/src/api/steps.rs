//! Work that takes long: on the admin socket, a line of JSON for each step, and one for the end.

use super::Api;
use crate::ca::backup::progress_line;
use crate::ca::ceremony::Step;
use crate::ca::{CertificateAuthority, Error};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::mpsc;

/// Steps that may wait for a slow reader; further ones are dropped.
const STEPS_WAITING_MAX: usize = 512;

/// Sends the steps of work. Without a reader a step is dropped, and the work goes to its end.
pub(super) struct Steps(mpsc::Sender<Value>);

impl Steps {
    /// Sends a step that begins, in words.
    pub(super) fn begin(&self, step: String) {
        let _ = self.0.try_send(json!({ "progress": step }));
    }

    /// Sends a step that begins, and which of how many it is.
    pub(super) fn begin_of(&self, step: Step) {
        let Step { text, number, of } = step;
        let line = json!({ "progress": text, "step": number, "steps": of });
        let _ = self.0.try_send(line);
    }

    /// Sends how many bytes of how many a step has done; a step without a number has 0 of 0.
    pub(super) fn bytes(&self, step: &'static str, done: u64, total: u64) {
        let _ = self.0.try_send(progress_line(step, done, total));
    }

    /// Sends that so many of `total` are done.
    pub(super) fn count(&self, done: usize, total: usize) {
        let step = format!("{done} of {total}");
        let _ = self
            .0
            .try_send(json!({ "progress": step, "done": done, "total": total }));
    }
}

impl Api {
    /// Runs `work` to its end, even if the client hangs up, and sends each step as it begins.
    pub(super) fn steps(
        self,
        work: impl FnOnce(&CertificateAuthority, &Steps) -> Result<Value, Error> + Send + 'static,
    ) -> Response {
        let (steps, mut lines) = mpsc::channel::<Value>(STEPS_WAITING_MAX);
        tokio::spawn(async move {
            let sender = Steps(steps.clone());
            let run = move |ca: &CertificateAuthority| work(ca, &sender);
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
