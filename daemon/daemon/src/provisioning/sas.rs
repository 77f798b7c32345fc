//! Makes shared access signatures (section 8.1), a new one for every attempt.
//!
//! `Authorization: SharedAccessSignature sr=<host>&sig=<hmac>&se=<expiry>&skn=<policy>`, where the
//! HMAC is over `sr` exactly as it is in the token, a line feed, and `se`.

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The lifetime that the SDKs use. A token that is used once only has to outlive the clock's error.
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

    /// The shared access policy whose key it holds.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The policy's key.
    pub fn key(&self) -> &SecretSlice<u8> {
        &self.key
    }

    /// A token for the whole service that expires [`TOKEN_LIFETIME`] after `now`.
    pub fn token(&self, now: SystemTime) -> SecretString {
        let access = SharedAccess::new(&self.host, &self.policy, now);
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose_secret());
        access.token(hmac::sign(&key, access.text().as_bytes()).as_ref())
    }
}

/// A token without its signature, which the holder of the key makes.
#[derive(Clone, Debug)]
pub struct SharedAccess {
    resource: String,
    policy: String,
    /// The end of its validity, in Unix seconds.
    expiry: u64,
}

impl SharedAccess {
    /// For the whole service at `host`, until [`TOKEN_LIFETIME`] after `now`.
    pub fn new(host: &str, policy: &str, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            resource: utf8_percent_encode(host, RESERVED).to_string(),
            policy: policy.to_owned(),
            expiry: (now + TOKEN_LIFETIME).as_secs(),
        }
    }

    /// Returns the text that the HMAC is over.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.resource, self.expiry)
    }

    /// The value of `Authorization`, with the HMAC over [`text`](Self::text).
    pub fn token(&self, code: &[u8]) -> SecretString {
        let resource = &self.resource;
        let expiry = self.expiry;
        let signature = BASE64_STANDARD.encode(code);
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
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000) - TOKEN_LIFETIME;
        let token = parse(TEXT).unwrap().token(now);
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
