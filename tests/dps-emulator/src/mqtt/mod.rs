//! MQTT 3.1.1 over TLS or WebSocket (contract sections 9 and 12): devices register here, and
//! connect to the hub.
//!
//! The user name says which of the two a client wants. Packets are `mqute-codec`'s; this module
//! never looks at bytes. It is no broker: clients talk to the service, never to each other.

mod hub;
mod packets;
mod provisioning;
mod topics;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::serve::Listener as _;
use mqute_codec::protocol::QoS;
use mqute_codec::protocol::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PingResp, PubAck, Publish, ReturnCode, SubAck,
    Subscribe, UnsubAck,
};
use tokio::time::timeout;

use crate::certificate::{Certificate, Unreadable};
use crate::cloud::Cloud;
use crate::listener::{Peer, TlsListener};
use packets::{Carrier, PACKET_LENGTH_MAX, Packets};
use topics::Login;

/// Time for the first packet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle time that is granted to a client without keep-alive.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

/// Serve every connection of `listener`.
pub(crate) async fn serve(mut listener: TlsListener, cloud: Arc<Cloud>) {
    loop {
        let (connection, _) = listener.accept().await;
        let cloud = Arc::clone(&cloud);
        tokio::spawn(run(Carrier::Tls(Box::new(connection)), cloud));
    }
}

/// Where MQTT over WebSocket is, on the HTTPS port of every host (contract section 9).
pub(crate) const WEBSOCKET_PATH: &str = "/$iothub/websocket";

pub(crate) fn upgrade(upgrade: WebSocketUpgrade, peer: Peer, cloud: Arc<Cloud>) -> Response {
    let serve = |socket: WebSocket| run(Carrier::WebSocket(Box::new(socket), peer), cloud);
    upgrade
        .protocols(["mqtt"])
        .max_message_size(PACKET_LENGTH_MAX)
        .on_upgrade(serve)
}

async fn run(carrier: Carrier, cloud: Arc<Cloud>) {
    if let Err(error) = session(carrier, &cloud).await {
        tracing::debug!(%error, "an MQTT connection failed");
    }
}

/// A client that has introduced itself.
#[derive(Debug)]
struct Client {
    packets: Packets,
    who: Who,
    /// After so long without a packet the client is gone.
    idle: Duration,
}

/// The client's name for itself, and its certificates.
#[derive(Debug)]
struct Who {
    id: String,
    presented: Result<Vec<Certificate>, Unreadable>,
}

impl Who {
    fn leaf(&self) -> Option<&Certificate> {
        self.presented.as_ref().ok()?.first()
    }
}

async fn session(carrier: Carrier, cloud: &Arc<Cloud>) -> io::Result<()> {
    let presented = carrier.peer().certificates();
    let mut packets = Packets::new(carrier);
    let first = timeout(CONNECT_TIMEOUT, packets.next()).await??;
    let Some(Packet::Connect(connect)) = first else {
        return Err(io::Error::other("the first packet is no CONNECT"));
    };
    let credentials = connect.credentials();
    let user = credentials
        .as_ref()
        .map(|own| own.username())
        .unwrap_or_default();
    let has_password = credentials
        .and_then(|own| own.password())
        .is_some_and(|password| !password.is_empty());
    let idle = idle(&connect);
    let client = Client {
        packets,
        who: Who {
            id: connect.client_id(),
            presented,
        },
        idle,
    };
    match Login::parse(&user) {
        // Only certificates authenticate here.
        _ if has_password => client.refuse(ConnectReturnCode::NotAuthorized).await,
        Some(Login::Device(login)) => provisioning::run(client, cloud, login).await,
        Some(Login::Hub(login)) => hub::run(client, cloud, login).await,
        None => client.refuse(ConnectReturnCode::BadAuthData).await,
    }
}

/// One and a half of the keep-alive (MQTT 3.1.1 section 3.1.2.10).
fn idle(connect: &Connect) -> Duration {
    match connect.keep_alive() {
        Duration::ZERO => IDLE_MAX,
        keep_alive => keep_alive * 3 / 2,
    }
}

impl Client {
    async fn accept(&mut self) -> io::Result<()> {
        let code = ConnectReturnCode::Success;
        self.packets
            .send(Packet::ConnAck(ConnAck::new(code, false)))
            .await
    }

    async fn refuse(mut self, code: ConnectReturnCode) -> io::Result<()> {
        self.packets
            .send(Packet::ConnAck(ConnAck::new(code, false)))
            .await
    }

    /// The next packet; an error if it does not come in time, none at the end.
    async fn next(&mut self) -> io::Result<Option<Packet>> {
        timeout(self.idle, self.packets.next()).await?
    }

    /// Packets that every session answers alike. Returns what is left to do: a message of the
    /// client.
    async fn answer(&mut self, packet: Packet, may: impl Fn(&str) -> bool) -> io::Result<Event> {
        match packet {
            Packet::PingReq(_) => self.packets.send(Packet::PingResp(PingResp {})).await?,
            Packet::Subscribe(subscribe) => return self.subscribe(&subscribe, may).await,
            Packet::Unsubscribe(unsubscribe) => {
                let packet = Packet::UnsubAck(UnsubAck::new(unsubscribe.packet_id()));
                self.packets.send(packet).await?;
            }
            Packet::Publish(publish) => return self.take(publish).await,
            Packet::PubAck(_) => {}
            Packet::Disconnect(_) => return Ok(Event::End),
            _ => return Err(io::Error::other("a packet that a client may not send")),
        }
        Ok(Event::Nothing)
    }

    /// QoS 2 is downgraded (contract section 9).
    async fn subscribe(
        &mut self,
        subscribe: &Subscribe,
        may: impl Fn(&str) -> bool,
    ) -> io::Result<Event> {
        let filters: Vec<_> = subscribe.filters().into_iter().collect();
        let code = |allowed: bool, qos: QoS| match (allowed, qos) {
            (false, _) => ReturnCode::Failure,
            (true, QoS::AtMostOnce) => ReturnCode::Success(QoS::AtMostOnce),
            (true, _) => ReturnCode::Success(QoS::AtLeastOnce),
        };
        let codes = filters
            .iter()
            .map(|filter| code(may(&filter.topic), filter.qos));
        let packet = Packet::SubAck(SubAck::new(subscribe.packet_id(), codes));
        self.packets.send(packet).await?;
        let allowed = filters
            .into_iter()
            .map(|filter| filter.topic)
            .find(|topic| may(topic));
        Ok(allowed.map_or(Event::Nothing, |_| Event::Subscribed))
    }

    async fn take(&mut self, publish: Publish) -> io::Result<Event> {
        match (publish.flags().qos, publish.packet_id()) {
            (QoS::ExactlyOnce, _) => return Err(io::Error::other("QoS 2 is not supported")),
            (QoS::AtLeastOnce, Some(id)) => {
                self.packets.send(Packet::PubAck(PubAck::new(id))).await?;
            }
            _ => {}
        }
        Ok(Event::Message {
            topic: publish.topic(),
            payload: publish.payload().to_vec(),
        })
    }
}

/// The work that a packet leaves.
#[derive(Debug)]
enum Event {
    Nothing,
    /// A topic that the session allows was subscribed.
    Subscribed,
    /// The client says something.
    Message {
        topic: String,
        payload: Vec<u8>,
    },
    /// The client says goodbye.
    End,
}
