//! Reads something small at every plane of a service, to learn whether it answers, accepts the
//! credential, and what its clock shows. Nothing is written there.

use super::arm::NamedCaCertificate;
use super::call::Call;
use super::configuration::Clients;
use super::failure::CallError;
use crate::enrollment::desired::EnrollmentName;
use crate::enrollment::id::EnrollmentGroupId;
use reqwest::Method;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long one request to a plane may take.
const REQUEST_BOUND: Duration = Duration::from_secs(10);
/// How long all may take, with the budgets and access tokens before them.
const BOUND: Duration = Duration::from_secs(20);
/// The group and the identity that are asked for; it does not matter whether they exist.
const NAME: &str = "hallmark-doctor";
/// Names the call to the device plane in errors.
const OF_DEVICES: &str = "reach the device plane";

/// The answer of one plane.
#[derive(Debug)]
pub struct PlaneAnswer {
    pub plane: &'static str,
    pub host: String,
    pub error: Option<CallError>,
    /// How far its clock is ahead of this machine's, in seconds, if it has answered.
    pub skew_seconds: Option<i64>,
    /// The CA certificates, if this plane has listed them.
    pub ca_certificates: Option<Vec<NamedCaCertificate>>,
}

impl PlaneAnswer {
    fn new<T>(plane: &'static str, host: &str, answer: Result<T, CallError>) -> Self {
        Self {
            plane,
            host: host.to_owned(),
            error: answer.err(),
            skew_seconds: None,
            ca_certificates: None,
        }
    }
}

impl Clients {
    /// Reads at every plane at once. A plane that has not answered in time is an error.
    pub async fn read_planes(&self) -> Vec<PlaneAnswer> {
        let mut readings = JoinSet::new();
        let dps = self.dps.within(REQUEST_BOUND);
        readings.spawn(bounded("service", dps.host().to_owned(), async move {
            let group = EnrollmentGroupId::parse(NAME).expect("it is a valid group id");
            let answer = dps.enrollment(EnrollmentName::Group(&group)).await;
            with_skew(
                PlaneAnswer::new("service", dps.host(), answer),
                dps.skew_seconds(),
            )
        }));
        if let Some(arm) = self.arm.as_ref().map(|it| it.within(REQUEST_BOUND)) {
            readings.spawn(bounded(
                "resource manager",
                arm.host().to_owned(),
                async move {
                    let mut answer = arm.list().await;
                    let listed = answer.as_mut().ok().map(std::mem::take);
                    let mut read = PlaneAnswer::new("resource manager", arm.host(), answer);
                    read.ca_certificates = listed;
                    with_skew(read, arm.skew_seconds())
                },
            ));
        }
        for hub in self.hubs.iter().map(|it| it.within(REQUEST_BOUND)) {
            readings.spawn(bounded("hub", hub.host().to_owned(), async move {
                let answer = hub.identity(NAME).await;
                with_skew(
                    PlaneAnswer::new("hub", hub.host(), answer),
                    hub.skew_seconds(),
                )
            }));
        }
        if let Ok(device) = self.device.without_certificate() {
            let device = device.within(REQUEST_BOUND);
            readings.spawn(bounded("device", device.host().to_owned(), async move {
                let answer = device.call(Call::new(Method::GET, OF_DEVICES.into(), "/".into()));
                let answer = answer.await;
                // Without a certificate it refuses, and so it works.
                let answer = answer.map(drop).or_else(|error| match error {
                    CallError::Rejected { .. } | CallError::Unauthorized { .. } => Ok(()),
                    error => Err(error),
                });
                with_skew(
                    PlaneAnswer::new("device", device.host(), answer),
                    device.skew_seconds(),
                )
            }));
        }
        let mut read = readings.join_all().await;
        read.sort_by(|a, b| (a.plane, &a.host).cmp(&(b.plane, &b.host)));
        read
    }
}

fn with_skew(answer: PlaneAnswer, skew_seconds: Option<i64>) -> PlaneAnswer {
    PlaneAnswer {
        skew_seconds,
        ..answer
    }
}

async fn bounded(
    plane: &'static str,
    host: String,
    reading: impl Future<Output = PlaneAnswer>,
) -> PlaneAnswer {
    let read = tokio::time::timeout(BOUND, reading).await;
    read.unwrap_or_else(|_| {
        let error = CallError::Transient {
            operation: format!("read the {plane} plane"),
            reason: format!("no answer within {} s", BOUND.as_secs()),
            retry_after: None,
            lost_answer: false,
        };
        PlaneAnswer::new::<()>(plane, &host, Err(error))
    })
}
