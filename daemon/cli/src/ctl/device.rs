//! Runs `hallmark device`: lists devices, and shows what one has and what admits it.

use super::block;
use super::client::{ApiClient, segment};
use super::command::DeviceCommand;
use super::credential;
use super::failure::Failure;
use super::render::cell;
use super::show::Show;
use super::state;
use hallmark_base::printable::Page;
use serde_json::{Value, json};

/// The columns of the list, the most needed first.
const COLUMNS: [&str; 6] = [
    "registration_id",
    "state",
    "days_left",
    "admitted_by",
    "block",
    "profile",
];
/// The columns that a terminal has with `-o wide` alone.
const WIDE: [&str; 4] = ["not_after", "serial", "thumbprint", "created_at"];

pub(super) fn run(client: &ApiClient, show: &Show, command: &DeviceCommand) -> Result<(), Failure> {
    match command {
        DeviceCommand::List => {
            let mut devices = client.pages("/v1/devices", "registration_id")?;
            if !show.json {
                for device in devices.as_array_mut().into_iter().flatten() {
                    device["admitted_by"] = admitted_by(device).into();
                    device["block"] = block_of(device).into();
                }
            }
            show.list(&devices, &COLUMNS, &WIDE)
        }
        DeviceCommand::Show { id } => {
            let device = client.get(&format!("/v1/devices/{}", segment(id)))?;
            if show.json {
                return show.record(&device);
            }
            let digits = device["thumbprint"].as_str().unwrap_or_default();
            let leaf = client.get(&format!("/v1/certificates/{}", segment(digits)))?;
            print(show, &device, &leaf["record"])
        }
        DeviceCommand::Credential(command) => credential::run(client, show, command),
        DeviceCommand::Block(of) => {
            block::start(client, show, "device", &of.id, None, &of.cause.reason)
        }
        DeviceCommand::Unblock(of) => {
            block::lift(client, show, "device", &of.id, None, &of.cause.reason)
        }
    }
}

/// Names the enrollments by which services admit a device.
fn admitted_by(device: &Value) -> String {
    let admitting = |it: &&Value| it["status"] == "enabled";
    deciding(device, admitting).unwrap_or_else(|| match refused_by(device) {
        Some(_) => "none".into(),
        None => "no enrollment".into(),
    })
}

/// Names the disabled enrollments by which services refuse a device, if there are any.
fn refused_by(device: &Value) -> Option<String> {
    deciding(device, |it| it["status"] != "enabled")
}

/// Names those of the enrollments by which services decide about a device, each with what is
/// special.
fn deciding(device: &Value, which: impl Fn(&&Value) -> bool) -> Option<String> {
    let access = device["access"].as_array().map(Vec::as_slice);
    let access = access.unwrap_or_default();
    let one = |it: &Value| {
        let text = |member: &str| it[member].as_str().unwrap_or_default();
        let mut words = match text("kind") {
            "group" => format!("group {}", text("name")),
            kind => format!("{kind}, {}", text("slots")),
        };
        let special = [("status", "enabled"), ("state", "in step")];
        for (member, usual) in special {
            if text(member) != usual {
                words += &format!(", {}", text(member));
            }
        }
        match access.len() {
            1 => words,
            _ => format!("{}: {words}", text("provisioning")),
        }
    };
    let named: Vec<String> = access.iter().filter(which).map(one).collect();
    (!named.is_empty()).then(|| named.join("; "))
}

/// Names the block that excludes a device.
fn block_of(device: &Value) -> Option<String> {
    let block = &device["blocked"];
    let kind = block["kind"].as_str()?;
    let name = block["name"].as_str().unwrap_or_default();
    Some(match kind {
        "device" => kind.to_owned(),
        "generation" => format!("{name}-{}", block["generation"]),
        _ => format!("{kind} {name}"),
    })
}

/// Prints a device: what it has, what accepts its leaf, and its certificates.
fn print(show: &Show, device: &Value, record: &Value) -> Result<(), Failure> {
    let text = |member: &str| cell(&device[member]);
    let left = match device["days_left"].as_i64().unwrap_or_default() {
        days @ ..0 => format!("ended {} days ago", -days),
        days => format!("{days} days left"),
    };
    let state = text("state");
    show.styled(&format!(
        "{}  {}, {left}\n",
        text("registration_id"),
        show.toned(&state, state::of_word(&state))
    ))?;
    let mut page = Page::default();
    for (name, value) in [
        ("profile", text("profile")),
        ("serial", text("serial")),
        ("sha-256", text("thumbprint")),
        ("ends", text("not_after")),
        ("first leaf", text("created_at")),
        ("asked by", cell(&record["asked_by"])),
        ("blocked", blocked_in_words(&device["blocked"])),
        ("admitted by", admitted_by(device)),
        ("refused by", refused_by(device).unwrap_or_default()),
    ] {
        if !value.is_empty() {
            page.line(&format!("  {name:<12} {value}"));
        }
    }
    for place in record["in_force"].as_array().into_iter().flatten() {
        page.line(&format!(
            "  {:<12} {}",
            cell(&place["place"]),
            cell(&place["answer"])
        ));
    }
    if let Some(progress) = device["notification"].as_object() {
        let count = |member: &str| cell(progress.get(member).unwrap_or(&Value::Null));
        page.line(&format!(
            "  {:<12} {} of {} calls done, {} notified, {} offline",
            "notification",
            count("done"),
            count("total"),
            count("notified"),
            count("offline")
        ));
    }
    show.text(&page.into_text())?;
    section(
        show,
        &device["enrollments"],
        &[
            "provisioning",
            "kind",
            "status",
            "state",
            "primary",
            "secondary",
            "observed_at",
        ],
    )?;
    section(
        show,
        &device["certificates"],
        &[
            "serial",
            "not_before",
            "not_after",
            "revoked_at",
            "revocation_reason",
        ],
    )
}

/// Prints a table with an empty line above; nothing if it has no rows.
fn section(show: &Show, rows: &Value, columns: &[&str]) -> Result<(), Failure> {
    if rows.as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    show.text("\n")?;
    show.table(rows, columns)
}

fn blocked_in_words(block: &Value) -> String {
    if block.is_null() {
        return "no".into();
    }
    let of = block_of(&json!({ "blocked": block })).unwrap_or_default();
    let by = cell(&block["by"]);
    let mut words = format!("by {by} since {}", cell(&block["since"]));
    if of != "device" {
        words += &format!(", with {of}");
    }
    if let Some(reason) = block["reason"].as_str().filter(|it| !it.is_empty()) {
        words += &format!(": {reason}");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_names_its_group_its_slots_and_what_is_special() {
        let group = json!({
            "provisioning": "dps", "kind": "group", "name": "line-1", "status": "enabled",
            "state": "in step", "slots": "serving",
        });
        let mut own = group.clone();
        own["kind"] = json!("individual");
        own["slots"] = json!("draining");
        own["status"] = json!("disabled");
        own["provisioning"] = json!("other");
        let disabled = "individual, draining, disabled";
        let at_other = format!("other: {disabled}");
        for (access, admitted, refused) in [
            (json!([]), "no enrollment", None),
            (json!([group]), "group line-1", None),
            (json!([own]), "none", Some(disabled)),
            (json!([group, own]), "dps: group line-1", Some(&*at_other)),
        ] {
            let device = json!({ "access": access });
            assert_eq!(admitted_by(&device), admitted);
            assert_eq!(refused_by(&device).as_deref(), refused);
        }
    }

    #[test]
    fn a_block_is_named_by_what_it_is_of() {
        let block = |kind, name, generation| {
            let block = json!({ "kind": kind, "name": name, "generation": generation });
            block_of(&json!({ "blocked": block }))
        };
        assert_eq!(block("device", "press-7", None).as_deref(), Some("device"));
        assert_eq!(block("group", "line", None).as_deref(), Some("group line"));
        assert_eq!(
            block("generation", "line-1", Some(2)).as_deref(),
            Some("line-1-2")
        );
        assert_eq!(block_of(&json!({ "blocked": null })), None);
    }
}
