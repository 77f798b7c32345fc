//! Defines the bytes of one DER value, so that they are not confused with ids, serial numbers and
//! signatures.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;

/// The bytes of one DER value: a certificate, a name, a public key, or the to-be-signed part of
/// any of them. The bytes are not checked here; the type that parses them does that.
///
/// It is serialized as one piece, in a time that does not depend on a format's treatment of single
/// numbers.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Der(Vec<u8>);

impl Deref for Der {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Der {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Der {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Der {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Der> for Vec<u8> {
    fn from(der: Der) -> Self {
        der.0
    }
}

/// Shows the length only: the contents would fill a log line and say nothing to a reader.
impl fmt::Debug for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Der({} bytes)", self.0.len())
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_byte_buf(Bytes).map(Self)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    /// JSON has no bytes: there they are a list of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_a_format_without_bytes() {
        let der = Der::from(vec![0x30, 0x00]);
        let json = serde_json::to_string(&der).unwrap();
        assert_eq!(json, "[48,0]");
        assert_eq!(serde_json::from_str::<Der>(&json).unwrap(), der);
        assert!(serde_json::from_str::<Der>("[48,256]").is_err());
    }

    #[test]
    fn debug_output_has_no_contents() {
        assert_eq!(format!("{:?}", Der::from(vec![0x30, 0x00])), "Der(2 bytes)");
    }
}
