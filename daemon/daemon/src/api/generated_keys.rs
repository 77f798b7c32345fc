//! Answers requests for a leaf whose key pair the daemon makes (`generate`).

use super::asks::Asks;
use super::certificates::Answer;
use super::problem::Problem;
use crate::ca::authorize::Issue;
use crate::ca::generated_key::{GeneratedKey, Handover, KeyFile, KeyFormat};
use crate::ca::issuer::issue::{IssueRequest, Issued};
use crate::ca::{Code, Error};
use crate::x509::key::KeyType;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use std::io;
use std::time::Duration;
use tokio::sync::SemaphorePermit;
use zeroize::Zeroizing;

/// How long a request waits until it may make a key.
const PERMIT_WAIT: Duration = Duration::from_secs(10);

/// The member `generate` of a request.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Generate {
    #[serde(default, deserialize_with = "key_type")]
    key_type: Option<KeyType>,
    format: KeyFormat,
    #[serde(default, deserialize_with = "secret")]
    #[schemars(with = "Option<String>")]
    password: Option<SecretString>,
    /// The key comes back as it is.
    #[serde(default)]
    unencrypted: bool,
}

/// Key types have the names of the configuration.
fn key_type<'de, D: Deserializer<'de>>(from: D) -> Result<Option<KeyType>, D::Error> {
    let name = Option::<String>::deserialize(from)?;
    name.map(|it| {
        KeyType::from_name(&it).ok_or_else(|| {
            let known = KeyType::ALL.map(KeyType::name).join(", ");
            serde::de::Error::custom(format!("{it:?} is no key type; use {known}"))
        })
    })
    .transpose()
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(SecretString::from))
}

impl Generate {
    fn handover(self) -> Result<(Option<KeyType>, Handover), Error> {
        let handover = match (self.password, self.unencrypted) {
            (Some(password), false) => Handover::encrypted(self.format, password),
            (None, true) => Handover::in_the_clear(self.format),
            _ => {
                let message = "give generate a `password`, or `unencrypted`: true for a key that \
                               nothing protects after the connection";
                Err(Error::invalid(Code::KeyGenerationInvalid, message))
            }
        };
        Ok((self.key_type, handover?))
    }
}

/// The answer of `/v1/certificates`, with the key.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "IssuedWithKey")]
pub(super) struct AnswerWithKey<'a> {
    #[serde(flatten)]
    answer: Answer,
    key: ShownKey<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GeneratedKey")]
struct ShownKey<'a> {
    format: KeyFormat,
    content: &'a str,
}

impl Asks<Issue> {
    /// Makes a key, has it certified, and answers with both.
    pub(super) async fn issue_with_key(
        &self,
        request: IssueRequest,
        generate: Generate,
    ) -> Result<Response, Problem> {
        let about = (request.registration_id.clone(), request.profile.clone());
        let issued = self.certify_generated(request, generate).await;
        let (issued, file) = issued.map_err(|problem| problem.about(&about.0, &about.1))?;
        let key = ShownKey {
            format: file.format,
            content: &file.content,
        };
        let answer = Answer::from(issued);
        let body = secret_json(&AnswerWithKey { answer, key })?;
        let content_type = [(CONTENT_TYPE, "application/json")];
        let mut response = (StatusCode::CREATED, content_type, body).into_response();
        is_not_kept(&mut response);
        Ok(response)
    }

    async fn certify_generated(
        &self,
        mut request: IssueRequest,
        generate: Generate,
    ) -> Result<(Issued, KeyFile), Problem> {
        let (key_type, handover) = generate.handover()?;
        let turn = self.turn().await?;
        let key = self.generated_key(&request, key_type).await?;
        request.generated = Some(key.public_key().clone());
        let sealed = blocking(move || key.seal(&handover)).await?;
        drop(turn);
        let issued = self.issue(&request).await?;
        let of_file = issued.clone();
        let file = blocking(move || sealed.file(&of_file)).await?;
        Ok((issued, file))
    }

    /// Waits until a key may be made. Few are made at once: an RSA key takes seconds,
    /// and so do the rounds of an encryption.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let turns = &self.api.shared.in_flight.generating;
        let turn = tokio::time::timeout(PERMIT_WAIT, turns.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            self.count_overload();
            let message = "as many keys are being made as may be; send it again";
            Error::later(1, Code::TooManyRequestsInFlight, message).into()
        })
    }

    /// Makes the key of a leaf that the caller may have, in its [`Self::turn`].
    pub(super) async fn generated_key(
        &self,
        request: &IssueRequest,
        key_type: Option<KeyType>,
    ) -> Result<GeneratedKey, Problem> {
        let permission = self.permission.clone();
        let request = request.clone();
        let work = move |ca: &crate::ca::CertificateAuthority| {
            ca.issuer().generate_key(&permission, &request, key_type)
        };
        self.api.application(work).await
    }
}

/// A body with a private key, which is overwritten once it was sent.
pub(super) fn secret_body(content: Zeroizing<Vec<u8>>) -> Bytes {
    /// `Zeroizing` has no `AsRef<[u8]>` of its own.
    struct Secret(Zeroizing<Vec<u8>>);
    impl AsRef<[u8]> for Secret {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Secret(content))
}

/// Writes JSON with a private key into one buffer: one that grows leaves copies behind.
fn secret_json(value: &impl Serialize) -> Result<Bytes, Error> {
    let failed = |error: serde_json::Error| Error::stop(Code::AnswerUnencodable, error.to_string());
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_err(failed)?;
    let mut content = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *content, value).map_err(failed)?;
    Ok(secret_body(content))
}

/// Counts what is written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        self.0 += written.len();
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No cache and no proxy may keep an answer with a private key.
pub(super) fn is_not_kept(response: &mut Response) {
    let value = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, value);
}

/// Runs `work` where it may take a second. It takes no permit: after the certificate is issued, the
/// key must not be lost for the want of one.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Problem> {
    let work = tokio::task::spawn_blocking(work).await;
    let failed = |_| Error::stop(Code::Internal, "the key failed; the log says why");
    Ok(work.map_err(failed)??)
}
