//! The authorization values of keys: derived from the credential, one for each key, never stored.
//!
//! Label and id go into a key's value. They stand beside the key, outside the TPM, and who alters
//! them has another value, which the TPM refuses. So a key is what it says it is.
//!
//! Keys are exempt from the TPM's dictionary-attack lockout: others cannot make a CA stop by guessing
//! wrong. For that, the credential has to be one that cannot be guessed.

use super::fault::{Class, Fault};
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use tss_esapi::structures::Auth;

/// Shortest credential. Nothing slows down whoever guesses it at the TPM but the TPM.
pub(super) const CREDENTIAL_BYTES_MIN: usize = 16;

const DOMAIN: &[u8] = b"Hallmark TPM key authorization 1";

/// What authorization values are derived with.
pub(super) struct Authorization(hmac::Key);

impl Authorization {
    pub(super) fn new(credential: &SecretString) -> Result<Self, Fault> {
        let credential = credential.expose_secret().as_bytes();
        if credential.len() < CREDENTIAL_BYTES_MIN {
            return Err(Fault {
                class: Class::Pin,
                reason: format!(
                    "the credential of a TPM must have {CREDENTIAL_BYTES_MIN} bytes or more, at random"
                ),
            });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, credential)))
    }

    /// The value of the key with this label and id.
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
    fn each_key_has_its_own_and_nothing_slides_from_one_part_to_the_next() {
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
