//! Packets on a connection: bytes in, packets out, and back.

use std::io;

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use mqute_codec::Error;
use mqute_codec::codec::PacketCodec;
use mqute_codec::protocol::Flags;
use mqute_codec::protocol::v4::{Packet, Publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::listener::{Connection, Peer};

/// Longest packet of a client (IoT Hub's own limit).
pub(super) const PACKET_LENGTH_MAX: usize = 256 * 1024;

/// The transport of the bytes.
#[derive(Debug)]
pub(super) enum Carrier {
    /// TLS on a port of its own.
    Tls(Box<Connection>),
    /// A WebSocket on the HTTPS port.
    WebSocket(Box<WebSocket>, Peer),
}

impl Carrier {
    /// The certificates of the client.
    pub(super) fn peer(&self) -> &Peer {
        match self {
            Self::Tls(connection) => connection.peer(),
            Self::WebSocket(_, peer) => peer,
        }
    }

    /// Append what arrives next. False at the end. Frames may hold any part of a packet, or
    /// several.
    async fn receive(&mut self, received: &mut BytesMut) -> io::Result<bool> {
        let socket = match self {
            Self::Tls(connection) => return Ok(connection.read_buf(received).await? > 0),
            Self::WebSocket(socket, _) => socket,
        };
        match socket.recv().await.transpose().map_err(io::Error::other)? {
            Some(Message::Binary(bytes)) => received.extend_from_slice(&bytes),
            // The library answers pings by itself.
            Some(Message::Ping(_) | Message::Pong(_)) => {}
            Some(Message::Close(_)) | None => return Ok(false),
            Some(Message::Text(_)) => return Err(io::Error::other("MQTT does not come as text")),
        }
        Ok(true)
    }

    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Tls(connection) => {
                connection.write_all(&bytes).await?;
                connection.flush().await
            }
            Self::WebSocket(socket, _) => socket
                .send(Message::Binary(bytes))
                .await
                .map_err(io::Error::other),
        }
    }
}

/// A connection, seen as packets.
#[derive(Debug)]
pub(super) struct Packets {
    carrier: Carrier,
    received: BytesMut,
}

impl Packets {
    pub(super) fn new(carrier: Carrier) -> Self {
        Self {
            carrier,
            received: BytesMut::new(),
        }
    }

    /// The next packet; none at the end. May be dropped half-way: what was read stays.
    pub(super) async fn next(&mut self) -> io::Result<Option<Packet>> {
        loop {
            if let Some(packet) = decode(&mut self.received)? {
                return Ok(Some(packet));
            }
            if !self.carrier.receive(&mut self.received).await? {
                return Ok(None);
            }
        }
    }

    pub(super) async fn send(&mut self, packet: Packet) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        packet.encode(&mut bytes).map_err(io::Error::other)?;
        self.carrier.send(bytes.freeze()).await
    }

    /// Say something, once at most.
    pub(super) async fn publish(&mut self, topic: String, payload: Vec<u8>) -> io::Result<()> {
        let publish = Publish::new(topic, 0, Bytes::from(payload), Flags::default());
        self.send(Packet::Publish(publish)).await
    }

    /// Reset the connection. Always an error, so that the session ends.
    pub(super) async fn cut(&mut self) -> io::Result<()> {
        self.carrier.peer().cut.now();
        self.carrier.send(Bytes::from_static(&[0])).await
    }
}

/// Take one packet from `received`, if there is a whole one.
fn decode(received: &mut BytesMut) -> io::Result<Option<Packet>> {
    match PacketCodec::new(Some(PACKET_LENGTH_MAX), None).try_decode(received) {
        Ok(raw) => Packet::decode(raw).map(Some).map_err(io::Error::other),
        Err(Error::NotEnoughBytes(_)) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> BytesMut {
        let publish = Publish::new(
            "$dps/a/?$rid=1",
            0,
            Bytes::from_static(b"{}"),
            Flags::default(),
        );
        let mut bytes = BytesMut::new();
        Packet::Publish(publish).encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_packet_that_comes_byte_by_byte_is_whole_at_its_last_byte() {
        let whole = sample();
        let mut received = BytesMut::new();
        for (index, byte) in whole.iter().enumerate() {
            received.extend_from_slice(&[*byte]);
            let packet = decode(&mut received).unwrap();
            assert_eq!(packet.is_some(), index + 1 == whole.len());
        }
        assert!(received.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_codec_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut received = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = decode(&mut received) {}
        }

        #[test]
        fn a_damaged_packet_does_not_make_the_codec_panic(at in 0usize..24, byte: u8) {
            let mut received = sample();
            let at = at % received.len();
            received[at] = byte;
            let _ = decode(&mut received);
        }
    }
}
