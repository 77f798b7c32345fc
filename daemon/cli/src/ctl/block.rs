//! Runs `hallmark block`, and `hallmark device|enrollment|authority block` and `unblock`.

use super::client::{ApiClient, segment};
use super::command::BlockCommand;
use super::failure::Failure;
use super::show::{Show, receipt};
use serde_json::{Value, json};

const COLUMNS: [&str; 8] = [
    "id",
    "kind",
    "name",
    "generation",
    "reason",
    "blocked_by",
    "blocked_at",
    "lifted_at",
];

pub(super) fn run(client: &ApiClient, show: &Show, command: &BlockCommand) -> Result<(), Failure> {
    match command {
        BlockCommand::List { all } => {
            let blocks = client.pages(&format!("/v1/blocks?all={all}"), "id")?;
            show.table(&blocks, &COLUMNS)
        }
        BlockCommand::Show {
            kind,
            name,
            generation,
        } => {
            let generation = generation.map(|number| format!("?generation={number}"));
            let block = client.get(&format!(
                "/v1/blocks/{}/{}{}",
                kind.name(),
                segment(name),
                generation.unwrap_or_default()
            ))?;
            if show.json {
                return show.record(&block);
            }
            show.table(&Value::Array(vec![block.clone()]), &COLUMNS)?;
            receipt(show, &block["receipt"])
        }
    }
}

pub(super) fn start(
    client: &ApiClient,
    show: &Show,
    kind: &str,
    name: &str,
    generation: Option<i64>,
    reason: &str,
) -> Result<(), Failure> {
    let body = json!({ "kind": kind, "name": name, "generation": generation, "reason": reason });
    answered(show, &client.post("/v1/blocks", &body)?)
}

pub(super) fn lift(
    client: &ApiClient,
    show: &Show,
    kind: &str,
    name: &str,
    generation: Option<i64>,
    reason: &str,
) -> Result<(), Failure> {
    let generation = generation.map(|number| format!("&generation={number}"));
    answered(
        show,
        &client.lift(&format!(
            "/v1/blocks/{kind}/{}?reason={}{}",
            segment(name),
            segment(reason),
            generation.unwrap_or_default()
        ))?,
    )
}

/// Shows a place that has not answered, which is no failure: the daemon continues by itself.
fn answered(show: &Show, block: &Value) -> Result<(), Failure> {
    if show.json {
        show.record(block)
    } else {
        receipt(show, &block["receipt"])
    }
}
