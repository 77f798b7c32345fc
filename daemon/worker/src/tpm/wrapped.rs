//! Encodes a key for storage outside the TPM: the bytes of `KeyReference::wrapped`.
//!
//! The private area is encrypted and authenticated by the primary key, so only the TPM that made it
//! can use it. The rest is not encrypted: the public area (authenticated with the private one), the
//! name of the primary key, and label and id, which are part of the authorization value.

use super::fault::Fault;
use hallmark_protocol::WRAPPED_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// Version of this encoding.
const VERSION: u8 = 1;

/// A wrapped key, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrappedKey {
    version: u8,
    pub(super) label: String,
    pub(super) id: Vec<u8>,
    /// Name of the primary key above it.
    pub(super) primary: Vec<u8>,
    pub(super) public: Vec<u8>,
    pub(super) private: Vec<u8>,
}

impl WrappedKey {
    pub(super) fn new(
        (label, id): (&str, &[u8]),
        primary: &[u8],
        (public, private): (&[u8], &[u8]),
    ) -> Self {
        Self {
            version: VERSION,
            label: label.to_owned(),
            id: id.to_vec(),
            primary: primary.to_vec(),
            public: public.to_vec(),
            private: private.to_vec(),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let parsed = || {
            let within_limit = bytes.get(..).filter(|it| it.len() <= WRAPPED_BYTES_MAX)?;
            match postcard::take_from_bytes::<Self>(within_limit) {
                Ok((key, [])) if key.version == VERSION => Some(key),
                _ => None,
            }
        };
        parsed().ok_or_else(|| {
            Fault::key("its record is not a key of a TPM: restore the database from a backup")
        })
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Fault> {
        match postcard::to_stdvec(self) {
            Ok(bytes) if bytes.len() <= WRAPPED_BYTES_MAX => Ok(bytes),
            _ => Err(Fault::refused(
                "its label or id is too long to be stored with it",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> WrappedKey {
        WrappedKey::new(("ca", &[7; 16]), &[1; 34], (&[2; 90], &[3; 190]))
    }

    #[test]
    fn what_is_written_is_read_and_nothing_beyond_it() {
        let mut bytes = key()
            .to_bytes()
            .map_err(|fault| fault.reason)
            .expect("short");
        assert_eq!(
            WrappedKey::parse(&bytes).map_err(|fault| fault.reason),
            Ok(key())
        );
        bytes.push(0);
        assert!(WrappedKey::parse(&bytes).is_err());
        bytes.truncate(40);
        assert!(WrappedKey::parse(&bytes).is_err());
        let long = WrappedKey {
            label: "x".repeat(WRAPPED_BYTES_MAX),
            ..key()
        };
        assert!(long.to_bytes().is_err());
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_they_are_refused_or_a_key(
            bytes in proptest::collection::vec(any::<u8>(), 0..2 * WRAPPED_BYTES_MAX),
            at in 0usize..300, byte: u8,
        ) {
            let _ = WrappedKey::parse(&bytes);
            let mut altered = key().to_bytes().map_err(|fault| fault.reason).expect("short");
            let at = at % altered.len();
            altered[at] = byte;
            if let Ok(read) = WrappedKey::parse(&altered) {
                prop_assert!(read.to_bytes().is_ok());
            }
        }
    }
}
