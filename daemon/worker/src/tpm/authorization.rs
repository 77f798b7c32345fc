//! Derives the authorization value of each key from the credential; no value is stored.
//!
//! A key's label and id are part of its value. They are stored beside the key, outside the TPM. If
//! they are altered, the derived value differs and the TPM refuses the key. So label and id can be
//! trusted.
//!
//! Keys are exempt from the TPM's dictionary-attack lockout: another program cannot stop a CA with
//! wrong guesses. Therefore the credential must be one that cannot be guessed.

use super::fault::{Class, Fault};
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use tss_esapi::structures::Auth;

/// Shortest credential. Only the speed of the TPM limits guesses at it.
pub(super) const CREDENTIAL_BYTES_MIN: usize = 16;

const DOMAIN: &[u8] = b"Hallmark TPM key authorization 1";

/// The key that authorization values are derived with.
pub(super) struct Authorization(hmac::Key);

impl Authorization {
    pub(super) fn new(credential: &SecretString) -> Result<Self, Fault> {
        let credential = credential.expose_secret().as_bytes();
        if credential.len() < CREDENTIAL_BYTES_MIN {
            return Err(Fault {
                class: Class::Pin,
                reason: format!(
                    "the credential of a TPM must have {CREDENTIAL_BYTES_MIN} random bytes or more"
                ),
            });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, credential)))
    }

    /// Returns the value of the key with this label and id.
    pub(super) fn of_key(&self, label: &str, id: &[u8]) -> Auth {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [DOMAIN, label.as_bytes(), id] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Auth::try_from(context.sign().as_ref()).expect("32 bytes are less than the largest digest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(credential: &str, label: &str, id: &[u8]) -> Auth {
        let authorization = Authorization::new(&SecretString::from(credential));
        authorization
            .map(|it| it.of_key(label, id))
            .map_err(|fault| fault.reason)
            .expect("long")
    }

    #[test]
    fn each_key_has_its_own_value_and_parts_are_delimited() {
        let one = value("0123456789abcdef", "line", b"-1");
        assert_eq!(one.len(), 32);
        assert_eq!(one, value("0123456789abcdef", "line", b"-1"));
        assert_ne!(one, value("0123456789abcdef", "line-", b"1"));
        assert_ne!(one, value("0123456789abcdeg", "line", b"-1"));
    }

    #[test]
    fn a_credential_that_can_be_guessed_is_refused() {
        let fault = Authorization::new(&SecretString::from("1234"))
            .err()
            .expect("too short");
        assert_eq!(fault.class, Class::Pin);
    }
}
