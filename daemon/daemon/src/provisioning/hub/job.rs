//! Orders jobs of the hub: it calls a method of many devices and reports each result (section 12).

use super::{DirectMethod, MethodOutcome};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Devices that one job may name. An id has up to 128 characters, and a query 8,192.
pub const JOB_DEVICES_MAX: usize = 60;

/// A job that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodJob {
    /// Its id, chosen by us and recorded first: after a lost answer it is found by it.
    pub id: String,
    /// The method to call.
    pub method: DirectMethod,
    /// Of which devices, 1 to [`JOB_DEVICES_MAX`].
    pub device_ids: Vec<String>,
    /// When the hub begins.
    pub start: OffsetDateTime,
    /// How long the job runs.
    pub duration_max: Duration,
}

impl MethodJob {
    /// The body of the request, or why there cannot be one.
    pub(super) fn body(&self) -> Result<Value, String> {
        let start = self.start.format(&Rfc3339);
        Ok(json!({
            "jobId": self.id,
            "type": "scheduleDeviceMethod",
            "cloudToDeviceMethod": self.method.body(),
            "queryCondition": self.condition()?,
            "startTime": start.map_err(|error| format!("the start is no date: {error}"))?,
            "maxExecutionTimeInSeconds": self.duration_max.as_secs(),
        }))
    }

    /// Returns `deviceId IN ['a','b']`. An id with a quote would end its string.
    fn condition(&self) -> Result<String, String> {
        if self.device_ids.is_empty() || self.device_ids.len() > JOB_DEVICES_MAX {
            return Err(format!("give 1 to {JOB_DEVICES_MAX} devices"));
        }
        let breaks_out = |id: &&String| id.contains(['\'', '"', '\\']);
        if let Some(id) = self.device_ids.iter().find(breaks_out) {
            return Err(format!("the device id {id:?} cannot stand in a condition"));
        }
        let quoted: Vec<String> = self.device_ids.iter().map(|id| format!("'{id}'")).collect();
        Ok(format!("deviceId IN [{}]", quoted.join(",")))
    }
}

/// A job at the hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The name that the daemon gave to the job.
    pub job_id: String,
    /// How far it is.
    pub status: JobStatus,
    /// The counts of devices; absent until the hub has looked them up.
    #[serde(rename = "deviceJobStatistics")]
    pub statistics: Option<JobStatistics>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    Enqueued,
    /// Waiting for its turn.
    Queued,
    /// Waiting for its start.
    Scheduled,
    Running,
    /// At its end; single devices may have failed.
    Completed,
    /// At its end, and not done.
    Failed,
    /// At its end, because it was asked to.
    Cancelled,
    /// A word that we do not know.
    #[serde(other)]
    Unknown,
}

impl JobStatus {
    /// Whether nothing more will come of it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// How many devices a job is for, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatistics {
    pub device_count: u64,
    /// How many devices answered.
    pub succeeded_count: u64,
    /// How many devices did not.
    pub failed_count: u64,
}

/// The result of one device of a job, as a query shows it. Only the needed members are read
/// strictly.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceJob {
    device_id: String,
    status: DeviceJobStatus,
    #[serde(default)]
    outcome: Value,
    #[serde(default)]
    error: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DeviceJobStatus {
    Completed,
    Failed,
    Canceled,
    /// Not yet, or a word that we do not know.
    #[serde(other)]
    Open,
}

impl DeviceJob {
    /// The device and how its call ended, if it has.
    pub(super) fn outcome(self) -> Option<(String, MethodOutcome)> {
        let outcome = match self.status {
            DeviceJobStatus::Open => return None,
            DeviceJobStatus::Completed => MethodOutcome::Answered {
                status: self.outcome["deviceMethodResponse"]["status"].as_i64(),
                payload: self.outcome["deviceMethodResponse"]["payload"].clone(),
            },
            DeviceJobStatus::Failed | DeviceJobStatus::Canceled => MethodOutcome::NotReached {
                code: self.error["code"].as_str().map(str::to_owned),
            },
        };
        Some((self.device_id, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(device_ids: &[&str]) -> MethodJob {
        MethodJob {
            id: "j".into(),
            method: DirectMethod {
                name: "reregister".into(),
                payload: Value::Null,
            },
            device_ids: device_ids.iter().map(|id| (*id).to_owned()).collect(),
            start: OffsetDateTime::UNIX_EPOCH,
            duration_max: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_job_names_its_devices_and_nothing_else() {
        let body = job(&["press-7", "press-8"]).body().unwrap();
        assert_eq!(body["queryCondition"], "deviceId IN ['press-7','press-8']");
        assert_eq!(body["startTime"], "1970-01-01T00:00:00Z");
        let longest = "x".repeat(128);
        let full = job(&[longest.as_str(); JOB_DEVICES_MAX]).body().unwrap();
        let query = format!("SELECT * FROM devices WHERE {}", full["queryCondition"]);
        assert!(query.len() <= 8_192, "the hub's limit of a query");
        for refused in [
            &[][..],
            &["a' OR deviceId != '"],
            &["a"; JOB_DEVICES_MAX + 1],
        ] {
            job(refused).body().unwrap_err();
        }
    }

    #[test]
    fn a_device_of_a_job_is_told_by_its_end() {
        let read = |value: Value| {
            let device: DeviceJob = serde_json::from_value(value).unwrap();
            device.outcome()
        };
        let answered = json!({ "deviceId": "a", "status": "completed",
            "outcome": { "deviceMethodResponse": { "status": 200, "payload": "soon" } } });
        let (status, payload) = (Some(200), json!("soon"));
        let outcome = MethodOutcome::Answered { status, payload };
        assert_eq!(read(answered), Some(("a".into(), outcome)));
        let failed = json!({ "deviceId": "a", "status": "failed", "error": { "code": "Gone" } });
        let code = Some("Gone".to_owned());
        let outcome = MethodOutcome::NotReached { code };
        assert_eq!(read(failed), Some(("a".into(), outcome)));
        let bare = json!({ "deviceId": "a", "status": "canceled", "error": null });
        let outcome = MethodOutcome::NotReached { code: None };
        assert_eq!(read(bare), Some(("a".into(), outcome)));
        for open in ["pending", "running", "of tomorrow"] {
            assert_eq!(read(json!({ "deviceId": "a", "status": open })), None);
        }
    }

    proptest! {
        #[test]
        fn no_member_of_a_device_makes_the_reader_panic(
            status in "completed|failed|canceled|.{0,8}",
            inner in "null|[0-9]|\"[a-z]\"|\\{\"code\":[0-9]\\}|\\[\\]",
        ) {
            let inner: Value = serde_json::from_str(&inner).unwrap();
            let value = json!({ "deviceId": "a", "status": status, "outcome": inner,
                "error": inner });
            let _ = serde_json::from_value::<DeviceJob>(value).map(DeviceJob::outcome);
        }
    }

    #[test]
    fn a_status_of_tomorrow_is_unknown_and_not_final() {
        let read = |status: &str| -> Job {
            serde_json::from_value(json!({"jobId": "j", "status": status})).unwrap()
        };
        assert_eq!(read("paused").status, JobStatus::Unknown);
        assert!(!read("paused").status.is_final() && read("cancelled").status.is_final());
    }
}
