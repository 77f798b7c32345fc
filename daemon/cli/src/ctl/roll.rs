//! Runs `hallmark roll`: starts, lists, shows, approves and aborts rollovers.

use super::client::{Client, Failure, segment};
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
        RollCommand::Start(roll) => match &roll.of.authority {
            Some(authority) => start_authority(client, show, roll, authority),
            None => start(client, show, roll),
        },
        RollCommand::Approve { id, r#override } => {
            let body = json!({ "override": r#override });
            show.record(&client.post(&format!("/v1/rolls/{id}/approve"), &body)?)
        }
        RollCommand::List { open } => {
            let rolls = client.pages(&format!("/v1/rolls?open={open}"), "id")?;
            show.table(&rolls, &COLUMNS)
        }
        RollCommand::Show { id } => {
            let mut roll = client.get(&format!("/v1/rolls/{id}"))?;
            if roll["authority"].is_string() {
                roll["report"] = client.get(&format!("/v1/rolls/{id}/report"))?;
            }
            show.record(&roll)
        }
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
            "the compromised leaf is excluded, but there is no new one: {why}"
        ))),
        None => Ok(()),
    }
}

fn start_authority(
    client: &Client,
    show: &Show,
    roll: &StartRoll,
    authority: &str,
) -> Result<(), Failure> {
    let body = json!({
        "reason": roll.reason.name(),
        "validity": roll.of.validity,
        "key_type": roll.of.key_type,
        "generation": roll.of.generation,
        "override": roll.of.r#override,
    });
    let path = format!("/v1/authorities/{}/rolls", segment(authority));
    tell(show, &client.post(&path, &body)?)
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
        show.line(group["says"].as_str().unwrap_or_default())?;
    }
    match &answer["receipt"] {
        Value::Null => Ok(()),
        told => receipt(show, told),
    }
}
