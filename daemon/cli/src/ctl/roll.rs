//! Runs `hallmark roll`: starts, lists, shows, approves and aborts rollovers.

use super::client::{ApiClient, segment};
use super::command::{RollCommand, StartRoll};
use super::failure::Failure;
use super::output::Output;
use super::pem_or_base64;
use super::progress::Progress;
use super::show::{Show, receipt};
use serde_json::{Value, json};
use std::thread;

/// The longest file of a CSR, in bytes: more than the daemon reads of one, and in base64 or JSON
/// still less than it reads of a request.
const CSR_FILE_BYTES_MAX: u64 = 24 * 1024;

const COLUMNS: [&str; 8] = [
    "id",
    "registration_id",
    "authority",
    "provisioning",
    "reason",
    "state",
    "waits_for",
    "estimate",
];

pub(super) fn run(client: &ApiClient, show: &Show, command: &RollCommand) -> Result<(), Failure> {
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
        RollCommand::Show { id, follow } => {
            if *follow {
                self::follow(client, *id)?;
            }
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

/// Waits until a rollover has ended. Shows its state, with the devices that have a new leaf or,
/// while it works at the hub, the identities and devices that are done there.
fn follow(client: &ApiClient, id: i64) -> Result<(), Failure> {
    let progress = Progress::new("roll");
    loop {
        let roll = client.get(&format!("/v1/rolls/{id}"))?;
        let state = roll["state"].as_str().unwrap_or_default();
        if matches!(state, "done" | "aborted") {
            return Ok(());
        }
        progress.state(state);
        let report = match &roll["authority"] {
            Value::String(_) => client.get(&format!("/v1/rolls/{id}/report"))?,
            _ => Value::Null,
        };
        match devices_done(&roll, &report) {
            Some((done, total)) => progress.at(done, total),
            None => progress.state_line(),
        }
        thread::sleep(super::FOLLOW_EVERY);
    }
}

/// Returns how many devices of how many are done in the present state of a rollover.
fn devices_done(roll: &Value, report: &Value) -> Option<(u64, u64)> {
    let hub = &roll["hub"];
    let is_at_hub = roll["state"] == "clearing";
    let (done, total) = if is_at_hub && hub["total"].as_u64().is_some() {
        (
            hub["done"].as_u64()? + hub["unanswered"].as_u64()?,
            hub["total"].as_u64()?,
        )
    } else {
        let new = report["devices_on_the_new"].as_u64()?;
        (new, new + report["devices_on_the_old"].as_u64()?)
    };
    (total > 0).then_some((done, total))
}

/// A request for a new leaf that cannot be used never delays an exclusion: what is wrong with it is
/// reported after the receipt.
fn start(client: &ApiClient, show: &Show, roll: &StartRoll) -> Result<(), Failure> {
    let csr = roll
        .csr
        .as_deref()
        .map(|path| pem_or_base64(path, CSR_FILE_BYTES_MAX, "the request"))
        .transpose();
    let unreadable = csr.as_ref().err().map(ToString::to_string);
    let csr = csr.ok().flatten();
    // Nor does a file that cannot be written.
    let out = Output::prepare(roll.out.as_deref()).map_err(|it| it.to_string());
    let body = json!({
        "registration_id": roll.id,
        "reason": roll.reason.name(),
        "slot": roll.slot.name(),
        "hub": roll.hub.map(|hub| hub.name()),
        "profile": csr.as_ref().and(roll.profile.as_ref()),
        "csr": csr,
    });
    let answer = client.post("/v1/rolls", &body)?;
    tell(show, &answer)?;
    let excluded = match answer["receipt"]["complete"].as_bool() {
        Some(true) => "the compromised leaf is excluded",
        _ => {
            "the exclusion of the compromised leaf is on record, and the receipt shows its progress"
        }
    };
    if let Some(why) = unreadable.or_else(|| not_issued(&answer)) {
        return Err(Failure::Failed(format!(
            "{excluded}, but there is no new one: {why}"
        )));
    }
    let wrong = problems(&answer);
    let written = match (&out, &answer["certificate"]) {
        (Ok(out), certificate @ Value::Object(_)) => out.write_chain(certificate),
        (Err(failure), Value::Object(_)) => Err(Failure::File(failure.clone())),
        _ => Ok(()),
    };
    let Err(failure) = written else {
        return if wrong.is_empty() {
            Ok(())
        } else {
            Err(Failure::Failed(format!("{excluded}, but: {wrong}")))
        };
    };
    if !show.json {
        show.record(&answer["certificate"])?;
    }
    Err(Failure::Failed(format!(
        "{excluded}; the new one is issued and printed, but not written: {failure}"
    )))
}

/// Returns in words the parts of the request that could not be used.
fn problems(answer: &Value) -> String {
    let problems = answer["problems"].as_array().into_iter().flatten();
    let problem = |it: &Value| {
        let code = it["code"].as_str().unwrap_or_default();
        format!("{} [{code}]", it["detail"].as_str().unwrap_or_default())
    };
    let problems: Vec<String> = problems.map(problem).collect();
    problems.join("; ")
}

fn not_issued(answer: &Value) -> Option<String> {
    let why = answer["not_issued"].as_str()?;
    let code = answer["not_issued_code"].as_str().unwrap_or_default();
    Some(format!("{why} [{code}]"))
}

fn start_authority(
    client: &ApiClient,
    show: &Show,
    roll: &StartRoll,
    authority: &str,
) -> Result<(), Failure> {
    let body = json!({
        "reason": roll.reason.name(),
        "validity": roll.of.validity,
        "key_type": roll.of.key_type,
        "generation": roll.of.generation,
    });
    let path = format!("/v1/authorities/{}/rolls", segment(authority));
    let answer = client.post(&path, &body)?;
    tell(show, &answer)?;
    let wrong = problems(&answer);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "the exclusion of {authority} is on record, and the receipt shows its progress, but: \
         {wrong}"
    )))
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
    if !answer["receipt"].is_null() {
        receipt(show, &answer["receipt"])?;
    }
    for obstacle in answer["obstacles"].as_array().into_iter().flatten() {
        show.line(obstacle.as_str().unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollover_counts_identities_while_it_clears_the_hub_and_leaves_otherwise() {
        let hub = json!({ "total": 5, "done": 1, "unanswered": 1 });
        let report = json!({ "devices_on_the_new": 2, "devices_on_the_old": 8 });
        for (state, report, expected) in [
            ("clearing", &report, Some((2, 5))),
            ("reissuing", &report, Some((2, 10))),
            ("reissuing", &Value::Null, None),
        ] {
            let roll = json!({ "state": state, "hub": hub });
            assert_eq!(devices_done(&roll, report), expected, "{state}");
        }
        let none = json!({ "devices_on_the_new": 0, "devices_on_the_old": 0 });
        assert_eq!(devices_done(&json!({ "state": "staged" }), &none), None);
    }
}
