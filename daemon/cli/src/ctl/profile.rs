//! Runs `hallmark profile`: shows profiles and presets, and examples of their certificates.

use super::client::{ApiClient, segment};
use super::command::ProfileCommand;
use super::failure::Failure;
use super::show::Show;
use serde_json::{Value, json};

pub(super) fn run(
    client: &ApiClient,
    show: &Show,
    command: &ProfileCommand,
) -> Result<(), Failure> {
    match command {
        ProfileCommand::List => list(&client.get("/v1/profiles")?, show),
        ProfileCommand::Show {
            name,
            preset,
            example,
        } => {
            let query = format!("?preset={preset}&example={example}");
            let path = format!("/v1/profiles/{}{query}", segment(name));
            let mut shown = client.get(&path)?;
            if show.json {
                return show.record(&shown);
            }
            let example = shown.as_object_mut().and_then(|it| it.remove("example"));
            show.record(&shown)?;
            example.map_or(Ok(()), |it| {
                show.line("")?;
                show.line(it["note"].as_str().unwrap_or_default())?;
                show.text(it["text"].as_str().unwrap_or_default())
            })
        }
    }
}

fn list(profiles: &Value, show: &Show) -> Result<(), Failure> {
    if show.json {
        return show.record(profiles);
    }
    let row = |it: &Value| {
        let certificate = &it["certificate"];
        let ends = ["validity", "not_after"].map(|end| certificate[end].as_str());
        json!({
            "name": it["name"],
            "source": it["source"],
            "authority": it["authority"],
            "role": it["role"],
            "kind": certificate["kind"],
            "ends": ends[0].or(ends[1]),
            "key_types": words(&certificate["key_types"]),
            "purposes": words(&certificate["extended_key_usage"]),
        })
    };
    let rows = profiles.as_array().into_iter().flatten().map(row).collect();
    let columns = [
        "name",
        "source",
        "authority",
        "role",
        "kind",
        "ends",
        "key_types",
        "purposes",
    ];
    show.table(&rows, &columns)
}

fn words(list: &Value) -> String {
    let words = list.as_array().into_iter().flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    words.join(" ")
}
