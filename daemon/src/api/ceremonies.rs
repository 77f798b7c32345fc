//! `POST /v1/ceremonies`, on the admin socket: the file in, a line of JSON for each step out.

use super::Api;
use super::caller::Peer;
use super::problem::Problem;
use axum::extract::{Extension, State};
use axum::response::Response;
use serde_json::json;

pub(super) async fn run(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    file: String,
) -> Result<Response, Problem> {
    let permission = api
        .local_operator(&peer, "ceremony_not_local", "a ceremony is run")
        .await?;
    Ok(api.steps(move |ca, progress| {
        let transcript = ca.run_ceremony(&permission, &file, progress)?;
        Ok(json!({ "transcript": transcript, "text": transcript.to_text() }))
    }))
}
