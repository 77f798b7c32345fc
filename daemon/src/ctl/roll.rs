//! `hallmark roll`: start, list, show and abort replacements of certificates.

use super::client::{Client, Failure};
use super::command::{RollCommand, StartRoll};
use super::{Show, read, receipt, write_chain};
use serde_json::{Value, json};

const COLUMNS: [&str; 7] = [
    "id",
    "registration_id",
    "authority",
    "provisioning",
    "reason",
    "state",
    "waits_for",
];

pub(super) fn run(client: &Client, show: &Show, command: &RollCommand) -> Result<(), Failure> {
    match command {
        RollCommand::Start(roll) => start(client, show, roll),
        RollCommand::List { open } => {
            show.table(&client.get(&format!("/v1/rolls?open={open}"))?, &COLUMNS)
        }
        RollCommand::Show { id } => show.record(&client.get(&format!("/v1/rolls/{id}"))?),
        RollCommand::Abort { id, r#override } => {
            let body = json!({ "override": r#override });
            show.record(&client.post(&format!("/v1/rolls/{id}/abort"), &body)?)
        }
    }
}

fn start(client: &Client, show: &Show, roll: &StartRoll) -> Result<(), Failure> {
    let csr = roll.csr.as_deref().map(read).transpose()?;
    let body = json!({
        "registration_id": roll.id,
        "reason": roll.reason.name(),
        "slot": roll.slot.name(),
        "hub": roll.hub.map(|hub| hub.name()),
        "csr": csr,
        "profile": roll.profile,
    });
    let answer = client.post("/v1/rolls", &body)?;
    if let (Some(path), Value::Object(_)) = (&roll.out, &answer["certificate"]) {
        write_chain(path, &answer["certificate"])?;
    }
    tell(show, &answer)?;
    match answer["not_issued"].as_str() {
        Some(why) => Err(Failure::Refused(format!(
            "the breached leaf is shut out, but there is no new one: {why}"
        ))),
        None => Ok(()),
    }
}

fn tell(show: &Show, answer: &Value) -> Result<(), Failure> {
    if show.json {
        return show.record(answer);
    }
    if answer["rolls"]
        .as_array()
        .is_some_and(|rolls| !rolls.is_empty())
    {
        show.table(&answer["rolls"], &COLUMNS)?;
    }
    for group in answer["under_groups"].as_array().into_iter().flatten() {
        show.text(&format!("{}\n", group["says"].as_str().unwrap_or_default()))?;
    }
    match &answer["receipt"] {
        Value::Null => Ok(()),
        told => receipt(show, told),
    }
}
