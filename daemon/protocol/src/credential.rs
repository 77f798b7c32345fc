//! Separates keys that authorize calls to provisioning services from keys that sign certificates.
//!
//! Both are in the same token, so two rules separate them. The label of a credential's key begins
//! with [`LABEL_PREFIX`]; only such a key signs assertions, and it signs nothing else. And the
//! worker checks the bytes to be signed: an assertion consists of letters, digits and one dot, the
//! text of a shared access signature of a host name and a number. Neither can be the bytes of a
//! certificate, which begin with the tag of a SEQUENCE, 0x30, and contain zeros.
//!
//! Both contain their expiry, and the worker refuses one that is far in the future. So an attacker
//! who controls `serve` cannot make credentials that remain valid for longer than [`LIFETIME_MAX`]
//! afterwards.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroize;

/// Prefix of the label of every credential's key.
const LABEL_PREFIX: &str = "hallmark-credential ";

/// Longest lifetime that is signed. The daemon requests an hour, or ten minutes.
pub const LIFETIME_MAX: Duration = Duration::from_secs(2 * 3600);

/// Longest name of a credential's key.
pub const NAME_BYTES_MAX: usize = 64;

/// Lengths of a shared secret. Azure's have 32 bytes, newer ones 64.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;

/// Longest assertion, and longest text of a shared access signature.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Returns `CKA_LABEL` of the credential's key with this name; `None` if the name is not valid.
pub fn label(name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    fits.then(|| format!("{LABEL_PREFIX}{name}"))
}

/// Returns true if a key with this label is a credential's.
pub fn is_credential(label: &str) -> bool {
    label.starts_with(LABEL_PREFIX)
}

/// Why a credential's key does not sign these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACredential {
    /// Not `<header>.<payload>` of a JWT.
    #[error("it is not the signing input of a JWT")]
    Assertion,
    /// Not `<resource>` LF `<expiry>`.
    #[error("it is not the text of a shared access signature")]
    SharedAccess,
    /// Valid for longer than the daemon needs.
    #[error("it would be valid for more than {} s", LIFETIME_MAX.as_secs())]
    Lifetime,
}

/// Checks that `input` is the signing input of a JWT (RFC 7515, section 5.1) that expires soon.
pub fn check_assertion(input: &[u8], now: SystemTime) -> Result<(), NotACredential> {
    let payload = assertion_payload(input).ok_or(NotACredential::Assertion)?;
    let expiry = payload.get("exp").and_then(Value::as_u64);
    check_expiry(expiry.ok_or(NotACredential::Assertion)?, now)
}

/// Returns the second part, if both parts are base64url of a JSON object.
fn assertion_payload(input: &[u8]) -> Option<Map<String, Value>> {
    let object = |part: &str| -> Option<Map<String, Value>> {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    };
    let text = std::str::from_utf8(bounded(input)?).ok()?;
    let (header, payload) = text.split_once('.')?;
    object(header)?;
    object(payload)
}

/// Checks that `text` is the text of a shared access signature (docs/dps-contract.md) that expires
/// soon.
pub fn check_shared_access(text: &[u8], now: SystemTime) -> Result<(), NotACredential> {
    let expiry = shared_access_expiry(text).ok_or(NotACredential::SharedAccess)?;
    check_expiry(expiry, now)
}

fn shared_access_expiry(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bounded(text)?).ok()?;
    let (resource, expiry) = text.split_once('\n')?;
    let is_resource = !resource.is_empty() && resource.bytes().all(|byte| byte.is_ascii_graphic());
    let is_number = expiry.bytes().all(|byte| byte.is_ascii_digit());
    (is_resource && is_number).then(|| expiry.parse().ok())?
}

fn bounded(input: &[u8]) -> Option<&[u8]> {
    (input.len() <= INPUT_BYTES_MAX).then_some(input)
}

fn check_expiry(expiry: u64, now: SystemTime) -> Result<(), NotACredential> {
    let latest = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) + LIFETIME_MAX;
    if expiry > latest.as_secs() {
        return Err(NotACredential::Lifetime);
    }
    Ok(())
}

/// A secret to be imported. Its `Debug` shows nothing, and it is wiped when dropped. The frame that
/// carries it is not wiped, so the command that imports has a worker of its own, which ends with
/// the command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Copies a secret, so that it can be sent in a frame.
    pub fn new(secret: &SecretSlice<u8>) -> Self {
        Self(secret.expose_secret().to_vec())
    }

    /// Returns a copy that shows nothing in a log and is wiped when dropped.
    pub fn expose(&self) -> SecretSlice<u8> {
        SecretSlice::from(self.0.clone())
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn assertion(header: &str, payload: &str) -> Vec<u8> {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}", part(header), part(payload)).into_bytes()
    }

    #[test]
    fn an_assertion_is_two_objects_that_end_soon() {
        let check =
            |header: &str, payload: &str| check_assertion(&assertion(header, payload), now());
        assert_eq!(check("{}", r#"{"exp":1800000600}"#), Ok(()));
        assert_eq!(
            check("{}", r#"{"exp":1900000000}"#),
            Err(NotACredential::Lifetime)
        );
        assert_eq!(
            check("{}", r#"{"exp":"x"}"#),
            Err(NotACredential::Assertion)
        );
        assert_eq!(
            check("[]", r#"{"exp":1800000600}"#),
            Err(NotACredential::Assertion)
        );
        assert_eq!(
            check_assertion(b"0\x82.x", now()),
            Err(NotACredential::Assertion)
        );
    }

    #[test]
    fn a_shared_access_text_is_a_host_and_a_number() {
        let check = |text: &str| check_shared_access(text.as_bytes(), now());
        assert_eq!(check("line.example\n1800003600"), Ok(()));
        assert_eq!(
            check("line.example\n9999999999"),
            Err(NotACredential::Lifetime)
        );
        for text in ["line.example", "\n1", "a b\n1", "a\n1\n2", "a\n-1", "a\n"] {
            assert_eq!(check(text), Err(NotACredential::SharedAccess), "{text:?}");
        }
    }

    #[test]
    fn a_label_of_a_valid_name_is_a_credentials() {
        assert!(is_credential(&label("dps-sas").unwrap()));
        assert!(!is_credential("line-1"));
        for name in ["", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(label(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_secret_shows_nothing() {
        let secret = SecretBytes::new(&SecretSlice::from(b"sesame".to_vec()));
        assert_eq!(format!("{secret:?}"), "SecretBytes([redacted])");
    }

    proptest! {
        /// Bytes that an authority signs are a SEQUENCE of more than 127 bytes.
        #[test]
        fn nothing_that_begins_as_a_certificate_is_a_credential(
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            for length in [&[0x30, 0x81][..], &[0x30, 0x82]] {
                let message = [length, &rest].concat();
                prop_assert!(check_assertion(&message, now()).is_err());
                prop_assert!(check_shared_access(&message, now()).is_err());
            }
        }
    }
}
