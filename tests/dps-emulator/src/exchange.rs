//! Wraps every answer, over HTTPS and MQTT alike: the journal records it, and a fault may come
//! before it, after it, or instead of it.

use std::future::Future;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::arm::ArmRefusal;
use crate::cloud::Cloud;
use crate::enrollment::Kind;
use crate::faults::{Action, Target};
use crate::hub::HubRefusal;
use crate::journal::LoggedRequest;
use crate::plane::Plane;
use crate::refusal::Refusal;
use crate::service::records::Write;
use crate::wire::Reply;

/// The ending that the client gets.
#[derive(Debug)]
pub(crate) enum Ending {
    Whole(Reply),
    /// Half of the answer's body.
    Half(Reply),
    Cut,
    Silence,
}

impl Ending {
    fn status(&self) -> Option<u16> {
        match self {
            Self::Whole(reply) | Self::Half(reply) => Some(reply.status),
            Self::Cut | Self::Silence => None,
        }
    }
}

/// Run one request: `act` does what was asked, unless a fault says otherwise.
pub(crate) async fn run(
    cloud: &Cloud,
    request: LoggedRequest,
    target: &Target<'_>,
    act: impl Future<Output = Reply>,
) -> Ending {
    let sequence = cloud.journal.begin(request);
    let action = cloud.faults.take(target);
    let fault = action.as_ref().map(Action::name);
    let ending = with_fault(cloud, target.plane, action, act).await;
    cloud.journal.end(sequence, ending.status(), fault);
    ending
}

async fn with_fault(
    cloud: &Cloud,
    plane: Option<Plane>,
    action: Option<Action>,
    act: impl Future<Output = Reply>,
) -> Ending {
    match before(cloud, plane, action.as_ref()).await {
        Some(ending) => ending,
        None => after(action, act.await),
    }
}

/// Applies a fault before the request; returns an ending if the fault replaces the request.
async fn before(cloud: &Cloud, plane: Option<Plane>, action: Option<&Action>) -> Option<Ending> {
    match action? {
        Action::Status {
            status,
            headers,
            body,
        } => {
            let mut reply = match body {
                Some(body) => Reply::json(*status, body.clone()),
                None => refused(cloud, plane, *status),
            };
            for (name, value) in headers {
                reply
                    .headers
                    .push((name.to_ascii_lowercase().into(), value.clone()));
            }
            Some(Ending::Whole(reply))
        }
        Action::ResetBefore => Some(Ending::Cut),
        Action::Hang => Some(Ending::Silence),
        Action::Latency { milliseconds } => {
            tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
            None
        }
        Action::Edit { record, id, merge } => {
            edit(cloud, *record, id, merge.clone());
            None
        }
        Action::ResetAfter | Action::HangAfter | Action::Truncate => None,
    }
}

/// Applies a fault to the answer.
fn after(action: Option<Action>, reply: Reply) -> Ending {
    match action {
        Some(Action::ResetAfter) => Ending::Cut,
        Some(Action::HangAfter) => Ending::Silence,
        Some(Action::Truncate) => Ending::Half(reply),
        _ => Ending::Whole(reply),
    }
}

fn edit(cloud: &Cloud, kind: Kind, id: &str, merge: Map<String, Value>) {
    let write = Write::new(cloud);
    if let Err(refusal) = cloud.change(|world| write.edit(world, kind, id, merge)) {
        tracing::warn!(
            refusal = refusal.message(),
            id,
            "the edit did not take place"
        );
    }
}

/// A bare status in the words of its plane.
fn refused(cloud: &Cloud, plane: Option<Plane>, status: u16) -> Reply {
    let message = "A fault on demand.";
    match plane {
        Some(Plane::Arm) => ArmRefusal::new(status, "Fault", message).reply(),
        Some(Plane::Hub) => HubRefusal::new(status, "Fault", message).reply(),
        _ => Refusal::new(u32::from(status) * 1000, message).reply(cloud.now()),
    }
}
