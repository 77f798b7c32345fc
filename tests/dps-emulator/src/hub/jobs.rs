//! Scheduled jobs: a direct method for many devices, at a time (contract section 12).
//!
//! A job waits for its start by the emulator's clock, then calls each device once. Jobs are part of the
//! world, the waiting is not: after a restart a job that had not ended stays as it was.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::HubRefusal;
use super::methods::MethodCall;
use crate::cloud::Cloud;
use crate::dates;
use crate::wire::{Call, Reply};

/// Most jobs of a hub.
const JOBS_MAX: usize = 1000;
/// Most devices that a condition may name.
const DEVICES_MAX: usize = 10_000;
/// How often a waiting job looks at the clock.
const PAUSE: Duration = Duration::from_millis(50);

/// The states that this hub uses, of those in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Queued,
    Running,
    Completed,
    Cancelled,
}

/// One job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    id: String,
    status: Status,
    /// As it was sent: shown again in every answer.
    sent: Map<String, Value>,
    created: String,
    started: Option<String>,
    ended: Option<String>,
    devices: Vec<String>,
    succeeded: usize,
    failed: usize,
}

impl Job {
    fn shown(&self) -> Value {
        let done = self.succeeded + self.failed;
        let mut shown = self.sent.clone();
        let own = json!({
            "jobId": self.id,
            "status": self.status,
            "createdTime": self.created,
            "startTime": self.sent.get("startTime").cloned().unwrap_or_else(|| json!(self.created)),
            "endTime": self.ended,
            "startedDateTimeUtc": self.started,
            "deviceJobStatistics": {
                "deviceCount": self.devices.len(),
                "succeededCount": self.succeeded,
                "failedCount": self.failed,
                "runningCount": 0,
                "pendingCount": self.devices.len() - done,
            },
        });
        shown.extend(own.as_object().cloned().unwrap_or_default());
        shown.into()
    }
}

/// `PUT /jobs/v2/{id}`.
pub(super) fn create(
    cloud: &Arc<Cloud>,
    hub: &str,
    id: &str,
    call: &Call,
) -> Result<Reply, HubRefusal> {
    let body = call.json_object();
    let sent = body.ok_or_else(|| HubRefusal::argument("the body is not a JSON object"))?;
    if sent.get("jobId").and_then(Value::as_str) != Some(id) {
        return Err(HubRefusal::argument("jobId must be the id in the address"));
    }
    if sent.get("type").and_then(Value::as_str) != Some("scheduleDeviceMethod") {
        return Err(HubRefusal::argument(
            "only the type scheduleDeviceMethod is known here",
        ));
    }
    let method = sent.get("cloudToDeviceMethod").and_then(Value::as_object);
    let method = MethodCall::read(
        method.ok_or_else(|| HubRefusal::argument("cloudToDeviceMethod is missing"))?,
    )?;
    let start = start(&sent, cloud.now())?;
    let condition = sent
        .get("queryCondition")
        .and_then(Value::as_str)
        .unwrap_or("*");
    let wanted =
        wanted(condition).ok_or_else(|| HubRefusal::argument("queryCondition is not supported"))?;
    let job = store(cloud, hub, id, sent, wanted)?;
    let run = Run {
        cloud: Arc::clone(cloud),
        hub: hub.to_owned(),
        id: id.to_owned(),
        method,
        start,
    };
    tokio::spawn(run.finish());
    Ok(Reply::json(200, job.shown()))
}

/// `GET /jobs/v2/{id}`.
pub(super) fn get(cloud: &Cloud, hub: &str, id: &str) -> Result<Reply, HubRefusal> {
    cloud.read(|world| {
        let job = world.hubs.get(hub).and_then(|hub| hub.jobs.get(id));
        Ok(Reply::json(200, job.ok_or_else(|| missing(id))?.shown()))
    })
}

/// `POST /jobs/v2/{id}/cancel`. A job that has ended stays as it is.
pub(super) fn cancel(cloud: &Cloud, hub: &str, id: &str) -> Result<Reply, HubRefusal> {
    let now = dates::seven_digits(cloud.now());
    cloud.change(|world| {
        let job = world.hubs.get_mut(hub).and_then(|hub| hub.jobs.get_mut(id));
        let job = job.ok_or_else(|| missing(id))?;
        if matches!(job.status, Status::Queued | Status::Running) {
            job.status = Status::Cancelled;
            job.ended = Some(now);
        }
        Ok(Reply::json(200, job.shown()))
    })
}

/// `GET /jobs/v2/query`, with `jobStatus` to choose by.
pub(super) fn query(cloud: &Cloud, hub: &str, call: &Call) -> Reply {
    let wanted = call.query.get("jobstatus");
    cloud.read(|world| {
        let jobs = world
            .hubs
            .get(hub)
            .into_iter()
            .flat_map(|hub| hub.jobs.values());
        let fits = |job: &&Job| wanted.is_none_or(|wanted| json!(job.status) == json!(wanted));
        Reply::json(200, jobs.filter(fits).map(Job::shown).collect::<Vec<_>>())
            .with("x-ms-item-type", "jobResponse")
    })
}

fn missing(id: &str) -> HubRefusal {
    HubRefusal::new(404, "JobNotFound", id)
}

fn start(sent: &Map<String, Value>, now: OffsetDateTime) -> Result<OffsetDateTime, HubRefusal> {
    match sent.get("startTime").and_then(Value::as_str) {
        None | Some("") => Ok(now),
        Some(text) => OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| HubRefusal::argument("startTime is not a date")),
    }
}

/// The devices that a condition names; none means all of them. Known are `*`, `deviceId = 'a'` and
/// `deviceId IN ['a', 'b']`.
fn wanted(condition: &str) -> Option<Vec<String>> {
    let condition = condition.trim();
    if condition.is_empty() || condition == "*" {
        return Some(Vec::new());
    }
    let (member, rest) = condition.split_at_checked("deviceId".len())?;
    let rest = rest.trim_start();
    let list = match (
        rest.strip_prefix('='),
        rest.get(..2).map(str::to_ascii_lowercase).as_deref(),
    ) {
        (Some(one), _) => one.trim(),
        (None, Some("in")) => rest.get(2..)?.trim().strip_prefix('[')?.strip_suffix(']')?,
        _ => return None,
    };
    let names: Option<Vec<String>> = list.split(',').take(DEVICES_MAX + 1).map(quoted).collect();
    names.filter(|names| member.eq_ignore_ascii_case("deviceId") && names.len() <= DEVICES_MAX)
}

fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''));
    let inner = inner.or_else(|| {
        text.strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
    })?;
    crate::ids::is_hub_device_id(inner).then(|| inner.to_owned())
}

fn store(
    cloud: &Cloud,
    hub: &str,
    id: &str,
    sent: Map<String, Value>,
    wanted: Vec<String>,
) -> Result<Job, HubRefusal> {
    let now = dates::seven_digits(cloud.now());
    cloud.change(|world| {
        let hub = world.hubs.entry(hub.to_owned()).or_default();
        if hub.jobs.contains_key(id) {
            return Err(HubRefusal::new(409, "JobAlreadyExists", id));
        }
        if hub.jobs.len() >= JOBS_MAX {
            return Err(HubRefusal::new(403, "JobQuotaExceeded", id));
        }
        let is_wanted = |id: &String| wanted.is_empty() || wanted.contains(id);
        let devices = hub
            .iter()
            .map(|identity| identity.device_id.clone())
            .filter(is_wanted);
        let job = Job {
            id: id.to_owned(),
            status: Status::Queued,
            sent,
            created: now,
            started: None,
            ended: None,
            devices: devices.collect(),
            succeeded: 0,
            failed: 0,
        };
        hub.jobs.insert(id.to_owned(), job.clone());
        Ok(job)
    })
}

/// A job on its way.
struct Run {
    cloud: Arc<Cloud>,
    hub: String,
    id: String,
    method: MethodCall,
    start: OffsetDateTime,
}

impl Run {
    async fn finish(self) {
        while self.status() == Some(Status::Queued) && self.cloud.now() < self.start {
            tokio::time::sleep(PAUSE).await;
        }
        let devices = self.begin();
        for device in devices {
            if self.status() != Some(Status::Running) {
                return;
            }
            let answer = self.method.call(&self.cloud, &self.hub, &device).await;
            self.note(|job| match answer {
                Ok(_) => job.succeeded += 1,
                Err(_) => job.failed += 1,
            });
        }
        let now = dates::seven_digits(self.cloud.now());
        self.note(|job| {
            if job.status == Status::Running {
                job.status = Status::Completed;
                job.ended = Some(now);
            }
        });
    }

    /// The devices to call; none if the job was cancelled meanwhile.
    fn begin(&self) -> Vec<String> {
        let now = dates::seven_digits(self.cloud.now());
        let mut devices = Vec::new();
        self.note(|job| {
            if job.status == Status::Queued {
                job.status = Status::Running;
                job.started = Some(now);
                devices = job.devices.clone();
            }
        });
        devices
    }

    fn status(&self) -> Option<Status> {
        self.cloud
            .read(|world| Some(world.hubs.get(&self.hub)?.jobs.get(&self.id)?.status))
    }

    fn note(&self, change: impl FnOnce(&mut Job)) {
        self.cloud.change(|world| {
            let job = world
                .hubs
                .get_mut(&self.hub)
                .and_then(|hub| hub.jobs.get_mut(&self.id));
            if let Some(job) = job {
                change(job);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_name_devices() {
        let names = |condition: &str| wanted(condition);
        assert_eq!(names("*"), Some(vec![]));
        assert_eq!(names("deviceId = 'a'"), Some(vec!["a".to_owned()]));
        assert_eq!(
            names("deviceId IN ['a', \"b\"]"),
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(names("tags.line = '4'"), None);
        assert_eq!(names("deviceId IN []"), None);
    }

    proptest! {
        #[test]
        fn no_condition_makes_the_parser_panic(condition in "(deviceId)?.{0,100}") {
            let _ = wanted(&condition);
        }
    }
}
