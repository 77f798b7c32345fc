//! Builds OCSP answers (RFC 6960 4.2). The output must pass
//! [`lint::ocsp`](super::super::lint::ocsp) before it is signed.

use super::super::certificate::Certificate;
use super::super::extensions::extension;
use super::super::key::{PublicKey, SignatureAlgorithm};
use super::super::lint::ocsp::LintedAnswer;
use super::super::oid;
use super::super::revocation::RevocationReason;
use super::super::tbs::BuildRefusal;
use super::request::{CertificateId, Nonce};
use super::wire::{self, ResponseStatus};
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, OctetString};
use der::{Decode, Encode, Tag};
use std::time::Duration;

/// `[0] IMPLICIT NULL`.
const GOOD: &[u8] = &[0x80, 0x00];
/// `[1] IMPLICIT SEQUENCE`, in place of the tag of the SEQUENCE.
const REVOKED_TAG: u8 = 0xa1;
/// `[2] IMPLICIT NULL`.
const UNKNOWN: &[u8] = &[0x82, 0x00];

/// The status of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateStatus {
    /// It was issued, and is not revoked.
    Good,
    Revoked {
        since: UnixSeconds,
        reason: RevocationReason,
    },
    /// It is not on record.
    Unknown,
}

/// An answer without a signature (RFC 6960 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorStatus {
    MalformedRequest,
    InternalError,
    TryLater,
    /// The issuer is not answered for here (RFC 5019 2.2.3).
    Unauthorized,
}

impl ErrorStatus {
    /// Returns the DER of the answer.
    pub fn der(self) -> &'static [u8] {
        match self {
            Self::MalformedRequest => b"\x30\x03\x0a\x01\x01",
            Self::InternalError => b"\x30\x03\x0a\x01\x02",
            Self::TryLater => b"\x30\x03\x0a\x01\x03",
            Self::Unauthorized => b"\x30\x03\x0a\x01\x06",
        }
    }

    /// Returns the name in the RFC.
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformedRequest",
            Self::InternalError => "internalError",
            Self::TryLater => "tryLater",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// The part of an answer about one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SingleAnswer<'a> {
    pub certificate: &'a CertificateId,
    pub status: CertificateStatus,
}

/// The content of an answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerContent<'a> {
    /// One for each certificate of the request, in its order (RFC 6960 4.2.1).
    pub singles: &'a [SingleAnswer<'a>],
    /// The time of the signature, and from when on each status is known to be correct.
    pub this_update: UnixSeconds,
    pub next_update: UnixSeconds,
    pub nonce: Option<&'a Nonce>,
}

/// DER `ResponseData`, not yet linted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(in crate::x509) bytes: Der,
}

/// Builds the to-be-signed bytes of an answer by the responder with this key.
pub fn build(responder: &PublicKey, content: &AnswerContent<'_>) -> Result<Answer, BuildRefusal> {
    let statuses = content.singles.iter().map(|it| status_der(it.status));
    let statuses = statuses.collect::<Result<Vec<_>, _>>()?;
    let singles = content.singles.iter().zip(&statuses);
    let responses = singles.map(|(single, status)| {
        Ok(wire::SingleResponse {
            cert_id: AnyRef::from_der(single.certificate.der())?,
            cert_status: AnyRef::from_der(status)?,
            this_update: time(content.this_update)?,
            next_update: time(content.next_update)?,
        })
    });
    let key_hash = responder.key_identifier();
    let data = wire::ResponseData {
        responder_key_hash: OctetString::new(key_hash)?,
        produced_at: time(content.this_update)?,
        responses: responses.collect::<Result<_, BuildRefusal>>()?,
        response_extensions: match content.nonce {
            None => None,
            Some(nonce) => Some(vec![extension(
                oid::OCSP_NONCE,
                false,
                &OctetString::new(nonce.octets())?,
            )?]),
        },
    };
    let bytes = data.to_der()?.into();
    Ok(Answer { bytes })
}

fn status_der(status: CertificateStatus) -> Result<Vec<u8>, BuildRefusal> {
    let CertificateStatus::Revoked { since, reason } = status else {
        let fixed = if status == CertificateStatus::Good {
            GOOD
        } else {
            UNKNOWN
        };
        return Ok(fixed.to_vec());
    };
    let code = [reason.code()];
    let revocation_reason = match reason {
        // As in an entry of a list (RFC 5280 5.3.1).
        RevocationReason::Unspecified => None,
        _ => Some(AnyRef::new(Tag::Enumerated, &code)?),
    };
    let info = wire::RevokedInfo {
        revocation_time: time(since)?,
        revocation_reason,
    };
    let mut der = info.to_der()?;
    der[0] = REVOKED_TAG;
    Ok(der)
}

fn time(at: UnixSeconds) -> Result<GeneralizedTime, BuildRefusal> {
    let since_epoch = u64::try_from(at.get()).map_err(|_| BuildRefusal::Time)?;
    GeneralizedTime::from_unix_duration(Duration::from_secs(since_epoch))
        .map_err(|_| BuildRefusal::Time)
}

/// A signed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAnswer {
    der: Der,
}

impl SignedAnswer {
    /// Assembles the answer from the linted bytes, their signature and the responder's certificate.
    /// Fails unless that certificate's key made the signature.
    pub fn assemble(
        linted: &LintedAnswer,
        algorithm: SignatureAlgorithm,
        signature: &[u8],
        responder: &Certificate,
    ) -> Result<Self, String> {
        let key = responder.public_key().map_err(|error| error.to_string())?;
        if !key.verify(algorithm, linted.bytes(), signature) {
            return Err("the responder's key did not sign this".into());
        }
        let der = assembled(linted.bytes(), algorithm, signature, responder);
        der.map(|der| Self { der })
            .map_err(|error| error.to_string())
    }

    /// Returns the DER `OCSPResponse`.
    pub fn der(&self) -> &Der {
        &self.der
    }
}

fn assembled(
    data: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
    responder: &Certificate,
) -> der::Result<Der> {
    let basic = wire::BasicOcspResponse {
        tbs_response_data: AnyRef::from_der(data)?,
        signature_algorithm: AnyRef::from_der(algorithm.identifier_der())?,
        signature: BitStringRef::from_bytes(signature)?,
        certs: vec![AnyRef::from_der(responder.der())?],
    };
    let basic = basic.to_der()?;
    let response = wire::OcspResponse {
        response_status: ResponseStatus::Successful,
        response_bytes: Some(wire::ResponseBytes {
            response_type: oid::OCSP_BASIC,
            response: OctetString::new(basic)?,
        }),
    };
    Ok(response.to_der()?.into())
}
