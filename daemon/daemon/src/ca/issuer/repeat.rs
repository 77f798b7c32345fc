//! Answers repeated requests: the same idempotency key and the same request get the same answer.
//!
//! The store compares at step 7, in the transaction that would record a new intent; a request that
//! is refused earlier is compared here. RFC 7030 has no idempotency key, so `est` makes one.

use super::Issuer;
use super::issue::{IssueRequest, Issued};
use crate::ca::authorize::Caller;
use crate::ca::{Code, Error};
use crate::store::{Idempotency, PriorRequest};
use crate::x509::certificate::Certificate;
use crate::x509::requested_names::{RequestedNames, UnprovenCsr};
use aws_lc_rs::digest;

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

impl Issuer {
    /// Returns the first answer to a repeated request, and `refused` for any other one. A repeat is
    /// answered even while no token can sign: its answer needs none.
    pub(super) async fn answer_again(
        &self,
        caller: &Caller,
        request: &IssueRequest,
        idempotency: Option<&Idempotency>,
        refused: Error,
    ) -> Result<Issued, Error> {
        let Some(idempotency) = idempotency else {
            return Err(refused);
        };
        let prior = self
            .store
            .prior_request(&caller.to_string(), &idempotency.key)
            .await;
        let answer = match prior {
            Ok(Some(prior)) => {
                let requested = UnprovenCsr::read(&request.csr).ok();
                self.repeat(prior, idempotency, requested.as_ref().map(|it| &it.names))
            }
            Ok(None) => return Err(refused),
            Err(error) => Err(error.into()),
        };
        match answer {
            // A refusal is final, and says that there is no certificate. The record says that there
            // is one or may be one, so its answer takes the place of the refusal.
            Err(error) if refused.is_refusal() => Err(error),
            answer => answer.map_err(|_| refused),
        }
    }

    /// Returns the answer to a request whose idempotency key was used before.
    pub(super) fn repeat(
        &self,
        prior: PriorRequest,
        request: &Idempotency,
        names: Option<&RequestedNames>,
    ) -> Result<Issued, Error> {
        let PriorRequest::Issued(certificate) = prior else {
            return Err(Error::later(
                1,
                Code::RequestUnderWay,
                "a request with this idempotency key is being worked on; repeat it",
            ));
        };
        if certificate.request_sha256.as_deref() != Some(&request.request_sha256[..]) {
            return Err(Error::conflict(
                Code::IdempotencyKeyReused,
                "this idempotency key belongs to another request; take a new one",
            ));
        }
        if certificate.revoked_at.is_some() {
            return Err(Error::conflict(
                Code::CertificateRevoked,
                "this request was answered with a certificate that is now revoked; take a new \
                 idempotency key",
            ));
        }
        let parsed = Certificate::parse(&certificate.der)
            .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))?;
        Ok(Issued {
            subject: certificate.subject,
            profile: certificate.profile,
            chain: self.chain_of(certificate.issuer),
            dropped_names: names.map_or_else(Vec::new, |it| it.left_out_of(&parsed)),
            certificate: parsed,
            pending: Vec::new(),
            is_repeat: true,
        })
    }
}

/// Returns how a repeat of this request is recognised; `None` if it has no idempotency key.
pub(super) fn idempotency(request: &IssueRequest) -> Result<Option<Idempotency>, Error> {
    // `moves` is no part of the content: it permits the answer and does not change it.
    // The key is another one each time; no CSR begins so.
    let generated = request.generated.as_ref().map(|key| {
        let with = format!("generate {}\n", key.key_type());
        [with.as_bytes(), &request.csr].concat()
    });
    let fields = [
        request.profile.as_bytes(),
        request.registration_id.as_bytes(),
        generated.as_ref().unwrap_or(&request.csr),
    ];
    recognised_by(request.idempotency_key.as_ref(), fields)
}

/// The same for the content that these fields are.
pub(super) fn recognised_by(
    key: Option<&String>,
    fields: [&[u8]; 3],
) -> Result<Option<Idempotency>, Error> {
    let Some(key) = key else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let message =
            format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes; send a UUID");
        return Err(Error::invalid(Code::IdempotencyKeyInvalid, message));
    }
    Ok(Some(Idempotency {
        key: key.clone(),
        request_sha256: request_digest(fields),
    }))
}

/// Returns the SHA-256 of a request's fields. Each field's length is part of it, so no two requests
/// have the same input.
pub(in crate::ca) fn request_digest(fields: [&[u8]; 3]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    sha256
}
