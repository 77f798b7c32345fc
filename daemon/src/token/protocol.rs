//! What `serve` and a token worker say to each other, and its form on the socket.
//!
//! A frame is a big-endian `u32` length and that many bytes of postcard. Each side begins with one
//! [`Hello`]; then come [`Request`]s one way and [`Response`]s the other, many in flight, answered
//! in any order. The peer is our own program under our own user id, and still nothing here may
//! panic or allocate beyond a limit on any bytes whatsoever.

use super::credential::SecretBytes;
use super::inventory::Inventory;
use super::worker::health::WorkerHealth;
use super::{KeyDescription, KeyReference, KeySpecification, TokenDescription, TokenError};
use crate::x509::key::SignatureAlgorithm;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::time::Duration;

/// Version of these messages. Daemon and workers come from one package, so unequal means refused.
pub(crate) const VERSION: u16 = 6;

/// Longest frame. The longest message is a to-be-signed CRL: 8 MiB hold some 200,000 entries.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;

/// How long a worker may have nothing new to tell of its health before it says so.
pub(crate) const HEALTH_PAUSE: Duration = Duration::from_secs(10);

/// How much is read from the socket at once.
const READ_BYTES: usize = 64 << 10;

/// Length of the length.
const PREFIX_BYTES: usize = 4;

/// The first frame of each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`VERSION`].
    pub(crate) version: u16,
    /// Name of the token in the configuration: each side refuses another's.
    pub(crate) token: String,
}

/// One thing asked of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Chosen by the client, unique on its connection.
    pub(crate) id: u64,
    /// How long the caller waits, from now. What is still queued after that is not begun any more:
    /// a signature nobody waits for must not be made.
    pub(crate) deadline_ms: u32,
    /// What to do.
    pub(crate) operation: Operation,
}

/// The operations of [`Token`](super::Token), and the worker's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Describe,
    Inventory,
    Find(KeyReference),
    FindById(Vec<u8>),
    Generate(KeySpecification),
    Sign {
        key: KeyReference,
        algorithm: SignatureAlgorithm,
        #[serde(with = "octets")]
        message: Vec<u8>,
    },
    /// Makes a test signature and verifies it. The worker counts it.
    Prove(KeyReference),
    Destroy(KeyReference),
    /// The worker looks at `input`: nothing but a JWT is signed.
    SignAssertion {
        key: KeyReference,
        input: Vec<u8>,
    },
    /// The worker looks at `text`: nothing but a shared access signature's is taken.
    Hmac {
        label: String,
        text: Vec<u8>,
    },
    ImportSecret {
        label: String,
        secret: SecretBytes,
    },
    DestroySecret(String),
    /// Answered without touching the token, so also while it hangs: once it is another one than
    /// `known`, after [`HEALTH_PAUSE`] at the latest. So news is heard at once, and rest is rest.
    Health {
        known: Option<WorkerHealth>,
    },
}

impl Operation {
    /// The operation's name in errors and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Operation::Describe => "describe",
            Operation::Inventory => "list keys",
            Operation::Find(_) => "find",
            Operation::FindById(_) => "find by id",
            Operation::Generate(_) => "generate",
            Operation::Sign { .. } => "sign",
            Operation::Prove(_) => "prove",
            Operation::Destroy(_) => "destroy",
            Operation::SignAssertion { .. } => "sign an assertion",
            Operation::Hmac { .. } => "compute an HMAC",
            Operation::ImportSecret { .. } => "import a secret",
            Operation::DestroySecret(_) => "destroy a secret",
            Operation::Health { .. } => "health",
        }
    }

    /// Whether doing it twice leaves the token as doing it once would.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(
            self,
            Operation::Generate(_)
                | Operation::Destroy(_)
                | Operation::ImportSecret { .. }
                | Operation::DestroySecret(_)
        )
    }
}

/// The answer to the request with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Response {
    /// Of the request.
    pub(crate) id: u64,
    /// What came of it.
    pub(crate) result: Result<Answer, TokenError>,
}

/// What an operation gives back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Token(TokenDescription),
    Inventory(Inventory),
    Key(KeyDescription),
    NoKey,
    Signature(#[serde(with = "octets")] Vec<u8>),
    Destroyed,
    Imported,
    Health(WorkerHealth),
}

/// Octets as one piece: serde takes a `Vec<u8>` for a sequence of numbers, and visits each.
mod octets {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(octets: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(octets)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_bytes(Octets)
    }

    struct Octets;

    impl Visitor<'_> for Octets {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("octets")
        }

        fn visit_bytes<E: Error>(self, octets: &[u8]) -> Result<Vec<u8>, E> {
            Ok(octets.to_vec())
        }
    }
}

/// The other side does not keep to the protocol: the connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// A frame beyond [`FRAME_BYTES_MAX`], announced or about to be sent.
    #[error("a frame of {0} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// Bytes that are no message of this version.
    #[error("a frame is not a message of protocol version {VERSION}")]
    Malformed,
}

/// Appends `message` as one frame to `buffer`.
pub(crate) fn append_frame<M: Serialize>(
    buffer: &mut Vec<u8>,
    message: &M,
) -> Result<(), ProtocolError> {
    let body = postcard::to_stdvec(message).map_err(|_| ProtocolError::Malformed)?;
    if body.len() > FRAME_BYTES_MAX {
        return Err(ProtocolError::TooLong(body.len()));
    }
    let length = u32::try_from(body.len()).map_err(|_| ProtocolError::TooLong(body.len()))?;
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(&body);
    Ok(())
}

/// Takes frames out of a byte stream, as many as one read brought.
#[derive(Default)]
pub(crate) struct FrameReader {
    /// Initialised once, not before every read.
    buffer: Vec<u8>,
    /// Where the first byte not yet taken is.
    start: usize,
    /// Where the bytes that were read end.
    end: usize,
}

impl FrameReader {
    /// Reads once. Zero means that the other side has closed.
    pub(crate) fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() < self.end + READ_BYTES {
            self.buffer.resize(self.end + READ_BYTES, 0);
        } else if self.end == 0 {
            // A single long frame shall not be paid for ever.
            self.buffer.truncate(READ_BYTES);
            self.buffer.shrink_to(READ_BYTES);
        }
        let read = source.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// The next message that is complete, if there is one.
    pub(crate) fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, ProtocolError> {
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

/// One message, of which every byte must have been used.
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

    fn request(id: u64, message: Vec<u8>) -> Request {
        let key = KeyReference {
            spki: vec![7; 91],
            label: "ca".into(),
            id: vec![1, 2],
            wrapped: Some(vec![3; 700]),
        };
        let algorithm = SignatureAlgorithm::EcdsaSha256;
        Request {
            id,
            deadline_ms: 5000,
            operation: Operation::Sign {
                key,
                algorithm,
                message,
            },
        }
    }

    fn read_all<M: DeserializeOwned>(mut source: &[u8]) -> Result<Vec<M>, ProtocolError> {
        let (mut reader, mut messages) = (FrameReader::default(), Vec::new());
        loop {
            while let Some(message) = reader.next()? {
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
            read_all::<Request>(&announced),
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
            let _ = read_all::<Request>(&bytes);
            let _ = read_all::<Response>(&bytes);
            let _ = read_all::<Hello>(&bytes);
        }

        #[test]
        fn a_body_never_panics(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<Request>(&body);
            let _ = decode::<Response>(&body);
        }

        #[test]
        fn what_is_written_is_read(
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..10_000), 0..20),
        ) {
            let requests: Vec<_> =
                (0..).zip(messages).map(|(id, message)| request(id, message)).collect();
            let mut buffer = Vec::new();
            for request in &requests {
                append_frame(&mut buffer, request).expect("below the limit");
            }
            prop_assert_eq!(read_all::<Request>(&buffer).expect("own frames"), requests);
        }
    }
}
