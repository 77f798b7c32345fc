//! Defines the messages between `serve` and a token worker, and their form on the socket.
//!
//! A frame is a big-endian `u32` length and that many bytes of postcard. Each side begins with one
//! [`Hello`]. Then the client sends [`ToWorker`], requests in any number, and the worker sends
//! [`Message`]s: answers in any order, and its health. A signature names its key by number: a
//! reference has some hundred bytes, and would be copied and read again for each signature. The
//! peer is our own program under our own user id; even so, no bytes that it sends may make this
//! code panic or allocate beyond a limit.

use crate::KeyReference;
use crate::TokenError;
use crate::health::WorkerHealth;
use crate::operation::octets;
use crate::operation::{Answer, Operation};
use hallmark_base::trace::TraceContext;
use hallmark_pki::x509::key::SignatureAlgorithm;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

/// Version of these messages. Daemon and workers come from one package, so another one is refused.
pub const VERSION: u16 = 11;

/// Longest frame. The longest message is a to-be-signed CRL: 8 MiB hold some 200,000 entries.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Longest time between two health messages of a worker. A worker that is silent for longer hangs.
pub const HEALTH_PAUSE: Duration = Duration::from_secs(10);

/// Most keys that one connection may name.
pub const KEYS_NAMED_MAX: usize = 64;

/// Longest deadline of one request.
pub const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// How much one call reads from the socket.
const READ_BYTES: usize = 64 << 10;

/// Length of the length field.
const PREFIX_BYTES: usize = 4;

/// The first frame of each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u16,
    /// Name of the token in the configuration. Each side refuses another name than its own.
    pub token: String,
}

/// A message to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Names a key for signatures. Its number is how many were named on this connection before.
    Key(Arc<KeyReference>),
    /// A request for [`Operation::Sign`] with a key that was named.
    Sign {
        /// As in [`TokenRequest`].
        id: u64,
        /// As in [`TokenRequest`].
        deadline_ms: u32,
        /// The key's number.
        key: u32,
        /// As in [`Operation::Sign`].
        algorithm: SignatureAlgorithm,
        /// The token hashes it.
        #[serde(with = "octets")]
        message: Vec<u8>,
        /// As in [`TokenRequest`].
        trace: Option<Arc<TraceContext>>,
    },
    /// Any other request.
    Request(TokenRequest),
}

/// The keys that a connection has named, as the worker keeps them.
#[derive(Default)]
pub struct NamedKeys(Vec<Arc<KeyReference>>);

impl NamedKeys {
    /// Returns the request of a message; `None` for one that names a key.
    pub fn request(&mut self, message: ToWorker) -> Result<Option<TokenRequest>, ProtocolError> {
        match message {
            ToWorker::Request(request) => Ok(Some(request)),
            ToWorker::Key(key) if self.0.len() < KEYS_NAMED_MAX => {
                self.0.push(key);
                Ok(None)
            }
            ToWorker::Key(_) => Err(ProtocolError::TooManyKeys),
            ToWorker::Sign {
                id,
                deadline_ms,
                key,
                algorithm,
                message,
                trace,
            } => {
                let named = usize::try_from(key).ok().and_then(|it| self.0.get(it));
                let key = named.ok_or(ProtocolError::UnnamedKey(key))?;
                let operation = Operation::Sign {
                    key: Arc::clone(key),
                    algorithm,
                    message,
                };
                Ok(Some(TokenRequest {
                    id,
                    deadline_ms,
                    operation,
                    trace,
                }))
            }
        }
    }
}

/// A request to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Chosen by the client, unique on its connection.
    pub id: u64,
    /// How long the caller waits, from now. A request that is still queued then is not begun: a
    /// signature for which no caller waits must not be made.
    pub deadline_ms: u32,
    /// The operation that the token performs.
    pub operation: Operation,
    /// The trace of the request that it is for, if there is one.
    pub trace: Option<Arc<TraceContext>>,
}

/// A message from a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Sent once for each request, in any order.
    Answer(Response),
    /// Sent after the greeting, whenever the health has changed, and after [`HEALTH_PAUSE`] without
    /// a change. It needs no call into the token, so it is sent also while the token hangs.
    Health(WorkerHealth),
}

/// The answer to the request with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The id that the client chose for the request.
    pub id: u64,
    /// The answer, or the reason why there is none.
    pub result: Result<Answer, TokenError>,
}

/// The peer violates the protocol; the connection must be closed.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A frame beyond [`FRAME_BYTES_MAX`], announced or about to be sent.
    #[error("a frame of {0} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// Bytes that are not a message of this version.
    #[error("a frame is not a message of protocol version {VERSION}")]
    Malformed,
    /// More than [`KEYS_NAMED_MAX`] keys.
    #[error("more than {KEYS_NAMED_MAX} keys are named on one connection")]
    TooManyKeys,
    /// A signature by a key that was not named before.
    #[error("no key has the number {0} on this connection")]
    UnnamedKey(u32),
}

/// Appends `message` as one frame to `buffer`.
pub fn append_frame<M: Serialize>(buffer: &mut Vec<u8>, message: &M) -> Result<(), ProtocolError> {
    let start = buffer.len();
    let written = append_body(buffer, message);
    if written.is_err() {
        buffer.truncate(start);
    }
    written
}

fn append_body<M: Serialize>(buffer: &mut Vec<u8>, message: &M) -> Result<(), ProtocolError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; PREFIX_BYTES]);
    postcard::to_extend(message, Tail(buffer)).map_err(|_| ProtocolError::Malformed)?;
    let length = buffer.len() - start - PREFIX_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(ProtocolError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_| ProtocolError::TooLong(length))?;
    buffer[start..start + PREFIX_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok(())
}

/// The end of a buffer, to which a frame is written without a buffer of its own.
struct Tail<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Tail<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, octets: I) {
        self.0.extend(octets);
    }
}

/// Splits a byte stream into frames.
#[derive(Default)]
pub struct FrameReader {
    /// Initialized once, not before every read.
    buffer: Vec<u8>,
    /// Index of the first byte that was not returned yet.
    start: usize,
    /// Index after the last byte that was read.
    end: usize,
}

impl FrameReader {
    /// Reads once. Returns zero when the peer has closed the connection.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() < self.end + READ_BYTES {
            self.buffer.resize(self.end + READ_BYTES, 0);
        } else if self.end == 0 {
            // One long frame must not keep its memory for the life of the connection.
            self.buffer.truncate(READ_BYTES);
            self.buffer.shrink_to(READ_BYTES);
        }
        let read = source.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// Returns the next complete message, or `None` if more bytes are needed.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, ProtocolError> {
        let unread = &self.buffer[self.start..self.end];
        let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(ProtocolError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = decode(body)?;
        self.start += PREFIX_BYTES + length;
        Ok(Some(message))
    }
}

/// Decodes one message. Fails if bytes are left over.
fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, ProtocolError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(ProtocolError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(id: u8) -> Arc<KeyReference> {
        Arc::new(KeyReference {
            spki: vec![7; 91].into(),
            label: "ca".into(),
            id: vec![id],
            wrapped: Some(vec![3; 700]),
        })
    }

    fn sign(id: u64, key: u32, message: Vec<u8>) -> ToWorker {
        ToWorker::Sign {
            id,
            deadline_ms: 5000,
            key,
            algorithm: SignatureAlgorithm::EcdsaSha256,
            message,
            trace: None,
        }
    }

    #[test]
    fn a_signature_is_by_the_key_that_has_its_number() {
        let mut keys = NamedKeys::default();
        for id in 0..3 {
            assert_eq!(keys.request(ToWorker::Key(key(id))).expect("room"), None);
        }
        let request = keys.request(sign(9, 1, vec![5])).expect("it is named");
        let operation = request.expect("a request").operation;
        assert!(matches!(operation, Operation::Sign { key: by, .. } if by == key(1)));
        let unnamed = keys.request(sign(9, 3, vec![5]));
        assert!(matches!(unnamed, Err(ProtocolError::UnnamedKey(3))));
    }

    #[test]
    fn a_connection_names_a_bounded_number_of_keys() {
        let mut keys = NamedKeys::default();
        let named = (0..=KEYS_NAMED_MAX).map(|_| keys.request(ToWorker::Key(key(1))));
        let refused = named.filter(Result::is_err).count();
        assert_eq!(refused, 1);
    }

    /// A message that is too long leaves the frames before it whole.
    #[test]
    fn a_frame_that_is_too_long_is_not_begun() {
        let mut buffer = Vec::new();
        append_frame(&mut buffer, &sign(1, 0, vec![1])).expect("short");
        let before = buffer.clone();
        let long = append_frame(&mut buffer, &sign(2, 0, vec![0; FRAME_BYTES_MAX]));
        assert!(matches!(long, Err(ProtocolError::TooLong(_))));
        assert_eq!(buffer, before);
    }

    fn read_all<M: DeserializeOwned>(mut source: &[u8]) -> Result<Vec<M>, ProtocolError> {
        let (mut reader, mut messages) = (FrameReader::default(), Vec::new());
        loop {
            while let Some(message) = reader.next_message()? {
                messages.push(message);
            }
            if reader.fill(&mut source).expect("a slice can be read") == 0 {
                return Ok(messages);
            }
        }
    }

    #[test]
    fn an_announced_length_beyond_the_limit_is_refused_before_its_bytes_arrive() {
        let announced = u32::try_from(FRAME_BYTES_MAX + 1)
            .expect("fits")
            .to_be_bytes();
        assert!(matches!(
            read_all::<ToWorker>(&announced),
            Err(ProtocolError::TooLong(_))
        ));
    }

    #[test]
    fn bytes_after_the_message_are_refused() {
        let mut buffer = Vec::new();
        append_frame(
            &mut buffer,
            &(
                Hello {
                    version: 1,
                    token: "t".into(),
                },
                0u8,
            ),
        )
        .expect("short");
        assert!(matches!(
            read_all::<Hello>(&buffer),
            Err(ProtocolError::Malformed)
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_reader_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = read_all::<ToWorker>(&bytes);
            let _ = read_all::<Message>(&bytes);
            let _ = read_all::<Hello>(&bytes);
        }

        #[test]
        fn a_body_never_panics(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<ToWorker>(&body);
            let _ = decode::<Message>(&body);
        }

        #[test]
        fn what_is_written_is_read(
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..10_000), 0..20),
        ) {
            let requests: Vec<_> =
                (0..).zip(messages).map(|(id, message)| sign(id, 0, message)).collect();
            let mut buffer = Vec::new();
            for request in &requests {
                append_frame(&mut buffer, request).expect("below the limit");
            }
            prop_assert_eq!(read_all::<ToWorker>(&buffer).expect("own frames"), requests);
        }
    }
}
