//! Runs `hallmark token`.

use super::client::{ApiClient, StepsBody, segment};
use super::command::TokenCommand;
use super::failure::Failure;
use super::show::Show;
use super::steps;
use serde_json::json;

pub(super) fn run(client: &ApiClient, show: &Show, command: &TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::List => show.table(
            &client.get("/v1/tokens")?,
            &[
                "family", "slot", "label", "serial", "model", "token", "state", "remarks",
            ],
        ),
        TokenCommand::Show { name } => {
            show.record(&client.get(&format!("/v1/tokens/{}", segment(name)))?)
        }
        TokenCommand::Check { name } => {
            let path = format!("/v1/tokens/{}/check", segment(name));
            tried(client, show, &path, StepsBody::Text(String::new()), name)
        }
        TokenCommand::Bench {
            name,
            key_type,
            seconds,
        } => {
            let body = json!({ "key_types": key_type, "seconds": seconds });
            let path = format!("/v1/tokens/{}/bench", segment(name));
            tried(client, show, &path, StepsBody::Json(body), name)
        }
    }
}

/// Shows the report of a check or benchmark, and fails unless everything is good.
fn tried(
    client: &ApiClient,
    show: &Show,
    path: &str,
    body: StepsBody,
    name: &str,
) -> Result<(), Failure> {
    let outcome = steps(client, "token", path, body)?;
    let report = &outcome["report"];
    if show.json {
        show.record(report)?;
    } else {
        show.text(outcome["text"].as_str().unwrap_or_default())?;
    }
    match report["good"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(Failure::Failed(format!(
            "token {name}: not all is good; the report says what is not"
        ))),
    }
}
