//! Scheduled jobs: a direct method for many devices, at a time (contract section 12).
//!
//! A job waits for its start by the emulator's clock, then calls each device once; `results` has
//! the result of each. Jobs are part of the world, the waiting is not: after a restart a job that
//! had not ended stays as it was.

mod order;
mod results;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::HubRefusal;
use super::methods::MethodCall;
use crate::cloud::Cloud;
use crate::dates;
use crate::wire::{Call, Reply};
use order::Order;
use results::Outcome;

pub(super) use results::query as query_devices;

/// Most jobs of a hub.
const JOBS_MAX: usize = 1000;
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
    /// When each device was done with, and how.
    results: BTreeMap<String, (String, Outcome)>,
}

impl Job {
    fn queued(id: &str, devices: Vec<String>, sent: Map<String, Value>, now: String) -> Self {
        Self {
            id: id.to_owned(),
            status: Status::Queued,
            sent,
            created: now,
            started: None,
            ended: None,
            devices,
            results: BTreeMap::new(),
        }
    }

    fn shown(&self) -> Value {
        let done = self.results.len();
        let answered = |(_, outcome): &&(String, Outcome)| matches!(outcome, Outcome::Completed(_));
        let succeeded = self.results.values().filter(answered).count();
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
                "succeededCount": succeeded,
                "failedCount": done - succeeded,
                "runningCount": 0,
                "pendingCount": self.devices.len() - done,
            },
        });
        shown.extend(own.as_object().cloned().unwrap_or_default());
        shown.into()
    }
}

pub(super) fn create(
    cloud: &Arc<Cloud>,
    hub: &str,
    id: &str,
    call: &Call,
) -> Result<Reply, HubRefusal> {
    let order = Order::read(id, call, cloud.now())?;
    let (method, start) = (order.method.clone(), order.start);
    let shown = store(cloud, hub, id, order)?;
    let run = Run {
        cloud: Arc::clone(cloud),
        hub: hub.to_owned(),
        id: id.to_owned(),
        method,
        start,
    };
    tokio::spawn(run.finish());
    Ok(Reply::json(200, shown))
}

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

/// `GET /jobs/v2/query`, with `jobType` and `jobStatus` to choose by.
pub(super) fn query(cloud: &Cloud, hub: &str, call: &Call) -> Reply {
    let fits = |job: &&Job| {
        let shown = job.shown();
        let is = |field: &str, member: &str| {
            let wanted = call.query.get(field).filter(|wanted| !wanted.is_empty());
            wanted.is_none_or(|wanted| shown[member] == wanted.as_str())
        };
        is("jobtype", "type") && is("jobstatus", "status")
    };
    cloud.read(|world| {
        let jobs = world
            .hubs
            .get(hub)
            .into_iter()
            .flat_map(|hub| hub.jobs.values());
        Reply::json(200, jobs.filter(fits).map(Job::shown).collect::<Vec<_>>())
            .with("x-ms-item-type", "jobResponse")
    })
}

fn missing(id: &str) -> HubRefusal {
    HubRefusal::new(404, "JobNotFound", id)
}

fn store(cloud: &Cloud, hub: &str, id: &str, order: Order) -> Result<Value, HubRefusal> {
    let now = dates::seven_digits(cloud.now());
    cloud.change(|world| {
        let hub = world.hubs.entry(hub.to_owned()).or_default();
        if hub.jobs.contains_key(id) {
            return Err(HubRefusal::new(409, "JobAlreadyExists", id));
        }
        if hub.jobs.len() >= JOBS_MAX {
            return Err(HubRefusal::new(403, "JobQuotaExceeded", id));
        }
        let all = hub.iter().map(|identity| identity.device_id.clone());
        let devices = all.filter(|device| order.wants(device)).collect();
        let job = Job::queued(id, devices, order.sent, now);
        let shown = job.shown();
        hub.jobs.insert(id.to_owned(), job);
        Ok(shown)
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
            let now = self.cloud.now();
            self.note(|job| results::note(job, &device, Outcome::of(answer), now));
        }
        let now = dates::seven_digits(self.cloud.now());
        self.note(|job| {
            if job.status == Status::Running {
                job.status = Status::Completed;
                job.ended = Some(now);
            }
        });
    }

    /// The devices to call; none if the job was cancelled in between.
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
