//! Computes and parses the digests that identify certificates.

use aws_lc_rs::digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a certificate's DER, by which DPS and the hub name a certificate.
///
/// It is printed and stored in upper-case hex without separators, and parsed in either case,
/// because the services promise neither.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbprint([u8; 32]);

/// SHA-1 of a certificate's DER: the only digest that Azure Resource Manager shows.
///
/// It recognises a certificate of our own, whose serial number no attacker chooses. It is never a
/// reason to trust a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Sha1Thumbprint([u8; 20]);

impl Thumbprint {
    /// Computes the digest of a certificate's DER.
    pub fn of(certificate_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate_der).as_ref());
        Self(bytes)
    }

    /// Wraps a digest that was computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Sha1Thumbprint {
    /// Computes the digest of a certificate's DER.
    pub fn of(certificate_der: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate_der);
        let mut bytes = [0; 20];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Returns the digest.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

/// The text is no thumbprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a {algorithm} thumbprint is {digits} hex digits without separators, not {length} bytes of \
     other text"
)]
pub struct ThumbprintInvalid {
    algorithm: &'static str,
    digits: usize,
    length: usize,
}

/// Parses hex in either case into a digest of a fixed length.
macro_rules! hex_conversions {
    ($thumbprint:ident, $length:literal, $algorithm:literal) => {
        impl fmt::Display for $thumbprint {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode_upper(self.0))
            }
        }

        impl fmt::Debug for $thumbprint {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $thumbprint {
            type Err = ThumbprintInvalid;
            fn from_str(given: &str) -> Result<Self, ThumbprintInvalid> {
                let mut bytes = [0; $length];
                hex::decode_to_slice(given, &mut bytes).map_err(|_| ThumbprintInvalid {
                    algorithm: $algorithm,
                    digits: 2 * $length,
                    length: given.len(),
                })?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $thumbprint {
            type Error = ThumbprintInvalid;
            fn try_from(given: String) -> Result<Self, ThumbprintInvalid> {
                given.parse()
            }
        }

        impl From<$thumbprint> for String {
            fn from(thumbprint: $thumbprint) -> String {
                thumbprint.to_string()
            }
        }
    };
}

hex_conversions!(Thumbprint, 32, "SHA-256");
hex_conversions!(Sha1Thumbprint, 20, "SHA-1");

#[cfg(test)]
mod tests {
    use super::*;

    const ABC_SHA256: &str = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
    const ABC_SHA1: &str = "A9993E364706816ABA3E25717850C26C9CD0D89D";

    #[test]
    fn the_digests_are_those_of_fips_180() {
        assert_eq!(Thumbprint::of(b"abc").to_string(), ABC_SHA256);
        assert_eq!(Sha1Thumbprint::of(b"abc").to_string(), ABC_SHA1);
    }

    #[test]
    fn case_does_not_matter_and_anything_else_does() {
        let parsed: Thumbprint = ABC_SHA256.to_lowercase().parse().unwrap();
        assert_eq!(parsed, Thumbprint::of(b"abc"));
        assert!(ABC_SHA1.parse::<Thumbprint>().is_err());
        assert!("zz".repeat(32).parse::<Thumbprint>().is_err());
        assert!("".parse::<Sha1Thumbprint>().is_err());
    }
}
