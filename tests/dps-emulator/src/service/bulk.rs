//! Bulk changes: at most ten records, each of which succeeds or fails by itself (contract section
//! 7).

use serde_json::{Map, Value, json};

use super::json_object;
use super::records::Write;
use crate::cloud::Cloud;
use crate::enrollment::Kind;
use crate::etag::IfMatch;
use crate::refusal::Refusal;
use crate::wire::{Call, Reply};
use crate::world::World;

/// Most records in one request.
const RECORDS_MAX: usize = 10;

#[derive(Clone, Copy, Debug)]
enum Mode {
    Create,
    Update,
    UpdateIfMatchEtag,
    Delete,
}

impl Mode {
    /// Case does not matter: Node's typings spell one of them differently.
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "create" => Some(Self::Create),
            "update" => Some(Self::Update),
            "updateifmatchetag" => Some(Self::UpdateIfMatchEtag),
            "delete" => Some(Self::Delete),
            _ => None,
        }
    }
}

pub(super) fn run(cloud: &Cloud, kind: Kind, call: &Call) -> Result<Reply, Refusal> {
    let mut body = json_object(call)?;
    let mode = body
        .get("mode")
        .and_then(Value::as_str)
        .and_then(Mode::parse);
    let mode = mode.ok_or_else(|| Refusal::bad_request("mode is missing or unknown"))?;
    let records = records(kind, body.remove(kind.bulk_member()))?;
    let write = Write::new(cloud);
    let results: Vec<_> = cloud.change(|world| {
        let one = |record: Map<String, Value>| {
            let id = record
                .get(kind.id_member())
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            let result = apply(&write, world, kind, mode, &id, record);
            (id, result)
        };
        records.into_iter().map(one).collect()
    });
    Ok(Reply::json(
        200,
        answer(kind, &results, write.switches.bulk_lists_successes),
    ))
}

fn records(kind: Kind, sent: Option<Value>) -> Result<Vec<Map<String, Value>>, Refusal> {
    let member = kind.bulk_member();
    let records: Vec<Map<String, Value>> = sent
        .and_then(|sent| serde_json::from_value(sent).ok())
        .ok_or_else(|| Refusal::bad_request(format!("{member} must be a list of records")))?;
    match records.len() {
        1..=RECORDS_MAX => Ok(records),
        _ => Err(Refusal::bad_request(format!(
            "{member} must hold 1 to {RECORDS_MAX} records"
        ))),
    }
}

fn apply(
    write: &Write<'_>,
    world: &mut World,
    kind: Kind,
    mode: Mode,
    id: &str,
    record: Map<String, Value>,
) -> Result<(), Refusal> {
    match mode {
        Mode::Create => write.put(world, kind, id, &IfMatch::Absent, record),
        Mode::Delete => write.delete(world, kind, id, &IfMatch::Any),
        Mode::Update | Mode::UpdateIfMatchEtag => {
            super::records::found(world, kind, id)?;
            write.put(world, kind, id, &version(mode, &record)?, record)
        }
    }
}

fn version(mode: Mode, record: &Map<String, Value>) -> Result<IfMatch, Refusal> {
    match mode {
        Mode::UpdateIfMatchEtag => {
            let etag = record.get("etag").and_then(Value::as_str);
            let etag = etag.ok_or_else(|| Refusal::bad_request("etag is missing"))?;
            IfMatch::strict(Some(etag)).map_err(|error| Refusal::bad_request(error.to_string()))
        }
        _ => Ok(IfMatch::Any),
    }
}

/// Items that failed; with `all` also those that did not (UNCONFIRMED, contract section 7).
fn answer(kind: Kind, results: &[(String, Result<(), Refusal>)], all: bool) -> Value {
    let item = |(id, result): &(String, Result<(), Refusal>)| {
        let (code, status) = match result {
            Ok(()) => (200, "Succeeded".to_owned()),
            Err(refusal) => (refusal.code(), refusal.message().to_owned()),
        };
        json!({ kind.id_member(): id, "errorCode": code, "errorStatus": status })
    };
    let shown = results.iter().filter(|(_, result)| all || result.is_err());
    json!({
        "isSuccessful": results.iter().all(|(_, result)| result.is_ok()),
        "errors": shown.map(item).collect::<Vec<_>>(),
    })
}
