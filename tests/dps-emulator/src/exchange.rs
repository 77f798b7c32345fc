//! What happens around every answer, over HTTPS and MQTT alike: the journal writes down, and a fault
//! may come first, after, or instead.

use std::future::Future;
use std::time::Duration;

use crate::arm::ArmRefusal;
use crate::cloud::Cloud;
use crate::faults::{Action, Target};
use crate::hub::HubRefusal;
use crate::journal::LoggedRequest;
use crate::plane::Plane;
use crate::refusal::Refusal;
use crate::service::records::Write;
use crate::wire::Reply;

/// What the client gets to see.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The answer.
    Whole(Reply),
    /// Half of the answer's body.
    Half(Reply),
    /// A connection reset.
    Cut,
    /// Nothing, ever.
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
    match action {
        None => Ending::Whole(act.await),
        Some(Action::Status {
            status,
            headers,
            body,
        }) => {
            let mut reply = match body {
                Some(body) => Reply::json(status, body),
                None => refused(cloud, plane, status),
            };
            let headers = headers
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase().into(), value));
            reply.headers.extend(headers);
            Ending::Whole(reply)
        }
        Some(Action::ResetBefore) => Ending::Cut,
        Some(Action::Hang) => Ending::Silence,
        Some(Action::ResetAfter) => {
            act.await;
            Ending::Cut
        }
        Some(Action::HangAfter) => {
            act.await;
            Ending::Silence
        }
        Some(Action::Truncate) => Ending::Half(act.await),
        Some(Action::Latency { milliseconds }) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Ending::Whole(act.await)
        }
        Some(Action::Edit { record, id, merge }) => {
            let write = Write::new(cloud);
            if let Err(refusal) = cloud.change(|world| write.edit(world, record, &id, merge)) {
                tracing::warn!(
                    refusal = refusal.message(),
                    id,
                    "the edit did not take place"
                );
            }
            Ending::Whole(act.await)
        }
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
