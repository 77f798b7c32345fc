//! Entra ID by a client assertion (section 8.2): a JWT signed with an RSA key in the token.
//!
//! Entra knows the application by a certificate of that key. The certificate is a file, and no
//! secret; its public key binds the key on the token.

use super::access_token::{AccessToken, Audience, Granted, NoAccessToken};
use super::keys::{CredentialKeys, KeyFailure};
use crate::enrollment::thumbprint::Sha1Thumbprint;
use crate::files;
use crate::provisioning::call::{Call, segment};
use crate::provisioning::http::{Plane, PlaneSettings};
use crate::x509::bundle::parse_first;
use crate::x509::certificate::Certificate;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest file with a certificate.
const CERTIFICATE_BYTES_MAX: u64 = 64 * 1024;

/// The lifetime that the SDKs use.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(600);

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An application of Entra ID, as it is meant.
#[derive(Clone, Debug)]
pub(super) struct Application {
    /// The token endpoint's host.
    pub endpoint: PlaneSettings,
    /// Tenant id, or a domain of the tenant.
    pub tenant: String,
    /// Client id of the application.
    pub client_id: String,
    /// The token that holds its key.
    pub token: String,
    /// The key's name there.
    pub key: String,
    /// PEM file with the certificate that Entra has.
    pub certificate: PathBuf,
}

/// Asks the token endpoint.
#[derive(Debug)]
pub(super) struct ClientAssertion {
    application: Application,
    audience: Audience,
    endpoint: Plane,
    keys: Arc<dyn CredentialKeys>,
}

impl ClientAssertion {
    pub(super) fn new(
        application: Application,
        audience: Audience,
        endpoint: Plane,
        keys: Arc<dyn CredentialKeys>,
    ) -> Self {
        Self {
            application,
            audience,
            endpoint,
            keys,
        }
    }

    /// One request, with a fresh assertion.
    pub(super) async fn fetch(&self, now: SystemTime) -> Result<AccessToken, NoAccessToken> {
        let assertion = self.assertion(now).await?;
        let operation = format!("ask {} for an access token", self.application.endpoint.host);
        let scope = self.audience.scope();
        let fields = [
            ("client_id", self.application.client_id.as_str()),
            ("grant_type", "client_credentials"),
            ("scope", &scope),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_info", "1"),
        ];
        let call = Call::new(Method::POST, operation.clone(), self.path())
            .reads_only()
            .form(&fields, "client_assertion", assertion);
        let granted: Granted = self.endpoint.call(call).await?.json(&operation)?;
        let no_life = || NoAccessToken::refused("the answer of the token endpoint has no lifetime");
        granted.token(now).ok_or_else(no_life)
    }

    fn path(&self) -> String {
        format!("/{}/oauth2/v2.0/token", segment(&self.application.tenant))
    }

    async fn assertion(&self, now: SystemTime) -> Result<SecretString, NoAccessToken> {
        let certificate = self.certificate()?;
        let audience = format!("https://{}{}", self.application.endpoint.host, self.path());
        let client_id = &self.application.client_id;
        let input = signing_input(&certificate, &audience, client_id, now);
        let keys = Arc::clone(&self.keys);
        let key = self.application.key.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let signature = keys.sign_assertion(&key, certificate.spki_der(), input.as_bytes())?;
            let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
            Ok(SecretString::from(format!("{input}.{signature}")))
        });
        signed
            .await
            .unwrap_or_else(|_| Err(KeyFailure::Unavailable("the daemon is stopping".into())))
            .map_err(NoAccessToken::from)
    }

    fn certificate(&self) -> Result<Certificate, NoAccessToken> {
        let path = &self.application.certificate;
        let unusable = |reason: String| {
            NoAccessToken::refused(format!("the certificate {}: {reason}", path.display()))
        };
        let text = files::read(path, CERTIFICATE_BYTES_MAX);
        let text = text.map_err(|error| unusable(error.to_string()))?;
        parse_first(&text).map_err(|refusal| unusable(refusal.to_string()))
    }
}

impl From<KeyFailure> for NoAccessToken {
    fn from(failure: KeyFailure) -> Self {
        Self {
            reason: failure.to_string(),
            is_transient: matches!(failure, KeyFailure::Unavailable(_)),
            retry_after: None,
        }
    }
}

/// `<header>.<payload>` (RFC 7515), as the SDKs write them: RS256 and `x5t`.
fn signing_input(
    certificate: &Certificate,
    audience: &str,
    client_id: &str,
    now: SystemTime,
) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let thumbprint = Sha1Thumbprint::of(certificate.der());
    let header = json!({
        "alg": "RS256",
        "typ": "JWT",
        "x5t": BASE64_URL_SAFE_NO_PAD.encode(thumbprint.as_bytes()),
    });
    let payload = json!({
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "iat": now.as_secs(),
        "nbf": now.as_secs(),
        "exp": (now + ASSERTION_LIFETIME).as_secs(),
        "jti": hex::encode(rand::random::<[u8; 16]>()),
    });
    format!("{}.{}", part(header), part(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn an_assertion_names_its_certificate_and_ends_in_ten_minutes() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        let certificate = Certificate::parse(made.der()).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let input = signing_input(&certificate, "https://login/t", "client", now);
        let (header, payload) = input.split_once('.').unwrap();
        let (header, payload) = (decoded(header), decoded(payload));
        assert_eq!(
            (&header["alg"], &payload["exp"]),
            (&json!("RS256"), &json!(1600))
        );
        assert_eq!(header["x5t"].as_str().unwrap().len(), 27);
        assert_eq!(payload["aud"], "https://login/t");
        assert_eq!(
            (&payload["iss"], &payload["sub"]),
            (&json!("client"), &json!("client"))
        );
        assert_ne!(
            signing_input(&certificate, "a", "b", now),
            signing_input(&certificate, "a", "b", now)
        );
    }
}
