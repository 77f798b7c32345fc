//! A device that registers over MQTT (contract section 9).
//!
//! The device is identified at every request and not at CONNECT: a refusal comes as `res/401` with
//! the JSON body, as it does from the service.

use std::io;
use std::sync::Arc;

use axum::http::Method;

use super::topics::{self, DeviceLogin, TopicRequest};
use super::{Client, Event, Who};
use crate::certificate::Certificate;
use crate::cloud::Cloud;
use crate::dates;
use crate::device::requests::Device;
use crate::device::{self, Ask};
use crate::exchange::{self, Ending};
use crate::faults::Target;
use crate::journal::{self, LoggedRequest};
use crate::plane::{DEVICE_HOST, Plane};
use crate::refusal::Refusal;
use crate::wire::Reply;

/// Serve the device until it leaves.
pub(super) async fn run(
    mut client: Client,
    cloud: &Arc<Cloud>,
    login: DeviceLogin,
) -> io::Result<()> {
    client.accept().await?;
    let mut listens = false;
    while let Some(packet) = client.next().await? {
        match client
            .answer(packet, |topic| topic == topics::ANSWERS)
            .await?
        {
            Event::Nothing => {}
            Event::Subscribed => listens = true,
            Event::End => break,
            Event::Message { topic, payload } => {
                let (request, rid) = topics::request(&topic)
                    .ok_or_else(|| io::Error::other("a topic that nobody serves"))?;
                let ending = exchange(cloud, &client.who, &login, &request, &topic, &payload).await;
                if listens {
                    tell(&mut client, &rid, ending).await?;
                }
            }
        }
    }
    Ok(())
}

async fn exchange(
    cloud: &Cloud,
    who: &Who,
    login: &DeviceLogin,
    request: &TopicRequest,
    topic: &str,
    payload: &[u8],
) -> Ending {
    let (operation, method) = match request {
        TopicRequest::Register => ("device.register", Method::PUT),
        TopicRequest::Poll { .. } => ("device.poll", Method::GET),
    };
    let target = Target {
        plane: Some(Plane::Device),
        host: DEVICE_HOST,
        operation,
        method: &method,
        path: topic,
    };
    let logged = LoggedRequest {
        sequence: 0,
        at: dates::seven_digits(cloud.now()),
        transport: "MQTT",
        operation,
        method: method.to_string(),
        host: DEVICE_HOST.to_owned(),
        path: topic.to_owned(),
        if_match: None,
        traceparent: None,
        tracestate: None,
        body: journal::kept_body(payload),
        client: who.leaf().map(Certificate::sha256),
        status: None,
        fault: None,
    };
    let act = async {
        let answer = act(cloud, who, login, request, payload);
        answer.unwrap_or_else(|refusal| refusal.reply(cloud.now()))
    };
    exchange::run(cloud, logged, &target, act).await
}

fn act(
    cloud: &Cloud,
    who: &Who,
    login: &DeviceLogin,
    request: &TopicRequest,
    payload: &[u8],
) -> Result<Reply, Refusal> {
    if !who.id.eq_ignore_ascii_case(&login.registration_id) {
        return Err(Refusal::device_unauthorized("Unauthorized"));
    }
    let device = Device {
        id_scope: &login.id_scope,
        registration_id: &login.registration_id,
        api_version: &login.api_version,
        presented: device::readable(&who.presented)?,
    };
    let ask = match request {
        TopicRequest::Register => Ask::Register(payload),
        TopicRequest::Poll { operation_id } => Ask::Poll(operation_id),
    };
    device::act(cloud, ask, &device)
}

async fn tell(client: &mut Client, rid: &str, ending: Ending) -> io::Result<()> {
    let (reply, is_half) = match ending {
        Ending::Whole(reply) => (reply, false),
        Ending::Half(reply) => (reply, true),
        Ending::Cut => return client.packets.cut().await,
        Ending::Silence => return Ok(()),
    };
    let topic = topics::answer(reply.status, rid, reply.header("retry-after"));
    let mut payload = reply
        .body
        .map(|body| body.to_string())
        .unwrap_or_default()
        .into_bytes();
    if is_half {
        payload.truncate(payload.len() / 2);
    }
    client.packets.publish(topic, payload).await
}
