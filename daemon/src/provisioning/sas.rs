//! Shared access signatures (section 8.1), made anew for every attempt.
//!
//! `Authorization: SharedAccessSignature sr=<host>&sig=<hmac>&se=<expiry>&skn=<policy>`, where the
//! HMAC is over `sr` exactly as it stands in the token, a line feed, and `se`.

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As long as the SDKs make it: a token that is used once needs to outlive our clock's error only.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`, taken apart.
#[derive(Debug)]
pub struct ConnectionString {
    host: String,
    policy: String,
    key: SecretSlice<u8>,
}

impl ConnectionString {
    /// Takes one apart. The text is a secret; the error repeats nothing of it.
    pub fn parse(text: &SecretString) -> Result<Self, ConnectionStringInvalid> {
        let text = text.expose_secret().trim();
        let field = |name: &'static str| {
            let mut fields = text.split(';').filter_map(|field| field.split_once('='));
            let found = fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            let value = found.map_or("", |(_, value)| value.trim());
            (!value.is_empty())
                .then_some(value)
                .ok_or(ConnectionStringInvalid::Missing(name))
        };
        let key = BASE64_STANDARD.decode(field("SharedAccessKey")?);
        let key = key.map_err(|_| ConnectionStringInvalid::Key)?;
        Ok(Self {
            host: field("HostName")?.to_ascii_lowercase(),
            policy: field("SharedAccessKeyName")?.to_owned(),
            key: SecretSlice::from(key),
        })
    }

    /// The service it is for, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A token for the whole service that expires [`TOKEN_LIFETIME`] after `now`.
    pub fn token(&self, now: SystemTime) -> SecretString {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.token_until((now + TOKEN_LIFETIME).as_secs())
    }

    fn token_until(&self, expiry: u64) -> SecretString {
        let resource = utf8_percent_encode(&self.host, RESERVED).to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose_secret());
        let signature = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
        let signature = BASE64_STANDARD.encode(signature);
        let signature = utf8_percent_encode(&signature, RESERVED);
        let policy = utf8_percent_encode(&self.policy, RESERVED);
        SecretString::from(format!(
            "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"
        ))
    }
}

/// Text that is no connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringInvalid {
    /// A field is absent or empty.
    #[error(
        "{0}=… is missing: copy the whole connection string of a shared access policy \
         (HostName=…;SharedAccessKeyName=…;SharedAccessKey=…)"
    )]
    Missing(&'static str),
    /// The key is damaged.
    #[error("SharedAccessKey is not base64: copy the connection string again")]
    Key,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HostName=Line.azure-devices-provisioning.net;\
        SharedAccessKeyName=provisioningserviceowner;\
        SharedAccessKey=aGFsbG1hcmsgdGVzdCBrZXksIDMyIGJ5dGVzIGxvbmc=";

    fn parse(text: &str) -> Result<ConnectionString, ConnectionStringInvalid> {
        ConnectionString::parse(&SecretString::from(text))
    }

    /// printf 'line.azure-devices-provisioning.net\n1800000000' |
    ///     openssl dgst -sha256 -hmac 'hallmark test key, 32 bytes long' -binary | base64
    #[test]
    fn the_signature_is_what_openssl_computes() {
        let token = parse(TEXT).unwrap().token_until(1_800_000_000);
        assert_eq!(
            token.expose_secret(),
            "SharedAccessSignature sr=line.azure-devices-provisioning.net\
             &sig=cEtoVsbP5hh1WPAsOafGP8xRI7chKj6IdOUzbjTzMmQ%3D\
             &se=1800000000&skn=provisioningserviceowner"
        );
    }

    #[test]
    fn a_token_expires_an_hour_from_now() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let token = parse(TEXT).unwrap().token(now);
        assert!(token.expose_secret().contains("&se=4600&"));
    }

    #[test]
    fn no_error_or_debug_repeats_the_key() {
        let key = "aGFsbG1hcmsgdGVzdCBrZXksIDMyIGJ5dGVzIGxvbmc=";
        assert!(!format!("{:?}", parse(TEXT).unwrap()).contains(key));
        let damaged = parse(&TEXT.replace("aGFs", "a?Fs")).unwrap_err();
        assert_eq!(damaged, ConnectionStringInvalid::Key);
        let missing = parse("HostName=x;SharedAccessKeyName=y").unwrap_err();
        assert_eq!(missing, ConnectionStringInvalid::Missing("SharedAccessKey"));
    }
}
