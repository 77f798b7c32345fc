//! A device that is connected to the hub: it is online, and direct methods reach it (contract
//! section 12).
//!
//! The hub accepts it by the thumbprint on record, and disconnects it within moments when that
//! changes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mqute_codec::protocol::v4::ConnectReturnCode;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval};

use super::topics::{self, HubLogin};
use super::{Client, Event, Who};
use crate::cloud::Cloud;
use crate::hub::presence::{INVOCATIONS_MAX, Invocation, MethodAnswer};

/// How often a connected device is checked against the record.
const CHECK_PAUSE: Duration = Duration::from_millis(100);

/// Serve the device until it leaves, or must.
pub(super) async fn run(mut client: Client, cloud: &Arc<Cloud>, login: HubLogin) -> io::Result<()> {
    if client.who.id != login.device_id || !admits(cloud, &client.who, &login) {
        return client.refuse(ConnectReturnCode::NotAuthorized).await;
    }
    client.accept().await?;
    let session = Session {
        invocations: cloud.presence.connect(&login.host, &login.device_id),
        waiting: BTreeMap::new(),
        next: 1,
        listens: false,
    };
    session.run(client, cloud, &login).await
}

fn admits(cloud: &Cloud, who: &Who, login: &HubLogin) -> bool {
    let now = cloud.now();
    who.leaf().is_some_and(|leaf| {
        let is_known = |world: &crate::world::World| {
            let hub = world.hubs.get(&login.host);
            hub.is_some_and(|hub| hub.admits(&login.device_id, leaf))
        };
        leaf.is_valid_at(now) && cloud.read(is_known)
    })
}

struct Session {
    invocations: mpsc::Receiver<Invocation>,
    /// Methods that the device has not answered yet, by request id.
    waiting: BTreeMap<u64, oneshot::Sender<MethodAnswer>>,
    next: u64,
    listens: bool,
}

impl Session {
    async fn run(mut self, mut client: Client, cloud: &Cloud, login: &HubLogin) -> io::Result<()> {
        let mut check = interval(CHECK_PAUSE);
        let mut last_packet = Instant::now();
        loop {
            tokio::select! {
                packet = client.packets.next() => {
                    last_packet = Instant::now();
                    let Some(packet) = packet? else { return Ok(()) };
                    let may = |topic: &str| may_subscribe(topic, &login.device_id);
                    match client.answer(packet, may).await? {
                        Event::Nothing => {}
                        Event::Subscribed => self.listens = true,
                        Event::Message { topic, payload } => self.hear(&topic, &payload),
                        Event::End => return Ok(()),
                    }
                }
                invocation = self.invocations.recv() => match invocation {
                    Some(invocation) => self.pass_on(&mut client, invocation).await?,
                    // Another connection of the same device took over.
                    None => return Ok(()),
                },
                _ = check.tick() => {
                    if last_packet.elapsed() > client.idle || !admits(cloud, &client.who, login) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A device that does not listen lets its caller wait: it is online all the same.
    async fn pass_on(&mut self, client: &mut Client, invocation: Invocation) -> io::Result<()> {
        if self.waiting.len() >= INVOCATIONS_MAX {
            self.waiting.retain(|_, caller| !caller.is_closed());
        }
        let request_id = self.next;
        self.next += 1;
        self.waiting.insert(request_id, invocation.answer);
        if !self.listens {
            return Ok(());
        }
        let topic = topics::method(&invocation.method, request_id);
        let payload = invocation.payload.to_string().into_bytes();
        client.packets.publish(topic, payload).await
    }

    /// An answer to a method; any other message of a device is telemetry, which is not kept.
    fn hear(&mut self, topic: &str, payload: &[u8]) {
        let Some((status, request_id)) = topics::method_answer(topic) else {
            return;
        };
        if let Some(caller) = self.waiting.remove(&request_id) {
            let payload = serde_json::from_slice(payload).unwrap_or(Value::Null);
            // A caller that has gone no longer cares.
            drop(caller.send(MethodAnswer { status, payload }));
        }
    }
}

fn may_subscribe(topic: &str, device_id: &str) -> bool {
    let own = format!("devices/{device_id}/");
    topic.starts_with("$iothub/") || topic.starts_with(&own)
}
