//! The result of each device of a job, as a query over `devices.jobs` shows it (contract section
//! 12).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::presence::MethodAnswer;
use super::{HubRefusal, Job};
use crate::cloud::Cloud;
use crate::dates;
use crate::page::Page;
use crate::wire::{Call, Reply};

pub(super) const QUERY_LENGTH_MAX: usize = 8192;

/// The result of one device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Completed(MethodAnswer),
    /// It was not reached: the hub's code and words.
    Failed(String, String),
}

impl Outcome {
    pub(super) fn of(answer: Result<MethodAnswer, HubRefusal>) -> Self {
        match answer {
            Ok(answer) => Self::Completed(answer),
            Err(refusal) => Self::Failed(refusal.code.to_owned(), refusal.message),
        }
    }
}

/// `POST /devices/query`; the one query that is known is that of a job's devices.
pub(in crate::hub) fn query(cloud: &Cloud, hub: &str, call: &Call) -> Result<Reply, HubRefusal> {
    let body = call.json_object();
    let body = body.ok_or_else(|| HubRefusal::argument("the body is not a JSON object"))?;
    let text = body.get("query").and_then(Value::as_str);
    let id = text.and_then(job_of);
    let id = id.ok_or_else(|| HubRefusal::argument("the query is missing or not supported"))?;
    let switches = cloud.switches();
    let page = Page::read(call, switches.page_size_default).map_err(HubRefusal::argument)?;
    cloud.read(|world| {
        let jobs = world.hubs.get(hub).map(|hub| &hub.jobs);
        let job = jobs.and_then(|jobs| jobs.get(&id));
        let job = job.filter(|_| !switches.job_results_late);
        let devices = job.iter().flat_map(|job| {
            let rest = job.devices.iter().filter(|device| **device > page.after);
            rest.map(|device| (device.clone(), shown(job, device)))
        });
        Ok(page.answer(devices, "deviceJob"))
    })
}

fn shown(job: &Job, device: &str) -> Value {
    let mut shown = json!({
        "deviceId": device,
        "jobId": job.id,
        "jobType": "scheduleDeviceMethod",
        "status": "pending",
        "createdDateTimeUtc": job.created,
    });
    let members = match job.results.get(device) {
        None if job.ended.is_some() => json!({ "status": "canceled" }),
        None => json!({}),
        Some((at, Outcome::Completed(answer))) => json!({
            "status": "completed",
            "lastUpdatedDateTimeUtc": at,
            "outcome": { "deviceMethodResponse": answer },
        }),
        Some((at, Outcome::Failed(code, description))) => json!({
            "status": "failed",
            "lastUpdatedDateTimeUtc": at,
            "error": { "code": code, "description": description },
        }),
    };
    for (member, value) in members.as_object().into_iter().flatten() {
        shown[member] = value.clone();
    }
    shown
}

/// Notes the result of a device.
pub(super) fn note(job: &mut Job, device: &str, outcome: Outcome, at: time::OffsetDateTime) {
    let entry = (dates::seven_digits(at), outcome);
    job.results.insert(device.to_owned(), entry);
}

/// The job of `SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'a'`.
fn job_of(text: &str) -> Option<String> {
    if text.len() > QUERY_LENGTH_MAX {
        return None;
    }
    let (head, condition) = text.split_once('=')?;
    let words: Vec<String> = head
        .split_whitespace()
        .map(str::to_ascii_lowercase)
        .collect();
    let known = [
        "select",
        "*",
        "from",
        "devices.jobs",
        "where",
        "devices.jobs.jobid",
    ];
    let id = condition.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    let fits = words == known && !id.is_empty() && !id.contains('\'');
    fits.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_query_of_a_jobs_devices_is_known_and_no_other() {
        let text = "SELECT * FROM devices.jobs\n WHERE devices.jobs.jobId = 'a-1'";
        assert_eq!(job_of(text), Some("a-1".to_owned()));
        for other in [
            "SELECT * FROM devices.jobs",
            "SELECT deviceId FROM devices.jobs WHERE devices.jobs.jobId = 'a'",
            "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'a' OR 'b'",
            "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = ''",
        ] {
            assert_eq!(job_of(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_query_makes_the_parser_panic(text in "(SELECT . FROM )?.{0,60}=.{0,60}") {
            let _ = job_of(&text);
        }
    }
}
