//! Checks the to-be-signed bytes of an OCSP answer (RFC 6960 4.2.1) before a token gets them.
//!
//! The lint shares no code with the builder: it walks the DER itself, and writes the times, the
//! status and the digest that it expects by its own means.

use super::canonical::{self, GENERALIZED_TIME, SEQUENCE, Value};
use super::{Finding, Findings, LintFailures, finding};
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::PublicKey;
use crate::x509::ocsp::answer::{Answer, AnswerContent, CertificateStatus, SingleAnswer};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// `[2] EXPLICIT OCTET STRING` of 20 octets: `byKey` of `ResponderID`.
const BY_KEY: &[u8] = &[0xa2, 0x16, 0x04, 0x14];
/// `[1] EXPLICIT`: the extensions of an answer.
const EXTENSIONS: u8 = 0xa1;
/// id-pkix-ocsp-nonce, as an OBJECT IDENTIFIER.
const NONCE: &[u8] = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x02";

/// To-be-signed bytes of an answer that passed the lint. A token signs nothing else with the key
/// of a responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintedAnswer {
    answer: Answer,
}

impl LintedAnswer {
    /// The DER bytes to sign.
    pub fn bytes(&self) -> &Der {
        &self.answer.bytes
    }
}

/// Checks the bytes against what `responder` was to answer, and returns all differences.
pub fn lint(
    answer: Answer,
    responder: &PublicKey,
    expected: &AnswerContent<'_>,
) -> Result<LintedAnswer, LintFailures> {
    let mut findings = Findings::default();
    if let Err(finding) = check(&answer.bytes, responder, expected, &mut findings) {
        findings.0.push(finding);
    }
    if findings.0.is_empty() {
        Ok(LintedAnswer { answer })
    } else {
        Err(LintFailures(findings.0))
    }
}

/// Returns true if these are the parts of `ResponseData` by a key's digest: no certificate, list or
/// request begins so.
pub(in crate::x509) fn is_response_data(bytes: &[u8]) -> bool {
    let parts = canonical::read(bytes).and_then(|whole| {
        let parts = canonical::children(whole)?;
        Ok((whole.tag, parts))
    });
    parts.is_ok_and(|(tag, parts)| {
        let tags: Vec<u8> = parts.iter().map(|it| it.tag).collect();
        let by_key = parts.first().is_some_and(|it| it.whole.starts_with(BY_KEY));
        let rest = tags.get(1..).unwrap_or_default();
        let is_complete = rest == [GENERALIZED_TIME, SEQUENCE]
            || rest == [GENERALIZED_TIME, SEQUENCE, EXTENSIONS];
        tag == SEQUENCE && by_key && is_complete
    })
}

/// Fails with a finding after which the rest cannot be read.
fn check(
    bytes: &[u8],
    responder: &PublicKey,
    expected: &AnswerContent<'_>,
    findings: &mut Findings,
) -> Result<(), Finding> {
    if !is_response_data(bytes) {
        return Err(finding("not_canonical")(
            "the fields are not those of an answer".to_owned(),
        ));
    }
    let parts = canonical::read(bytes).and_then(canonical::children);
    let parts = parts.map_err(finding("unreadable"))?;
    let [by_key, produced_at, responses, extensions @ ..] = parts.as_slice() else {
        return Err(finding("unreadable")("parts are missing".to_owned()));
    };
    let key_hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, responder.key_bits());
    findings.require(
        by_key.whole.strip_prefix(BY_KEY) == Some(key_hash.as_ref()),
        "responder",
        || "the responder is named by another key".to_owned(),
    );
    findings.require(
        is_time(*produced_at, expected.this_update),
        "produced_at",
        || "the answer was produced at another time".to_owned(),
    );
    check_nonce(extensions, expected, findings).map_err(finding("extensions_unreadable"))?;
    check_singles(*responses, expected, findings).map_err(finding("response_unreadable"))
}

fn check_singles(
    responses: Value<'_>,
    expected: &AnswerContent<'_>,
    findings: &mut Findings,
) -> Result<(), String> {
    let all = canonical::children(responses)?;
    if all.is_empty() || all.len() != expected.singles.len() {
        return Err(format!("{} certificates are answered for", all.len()));
    }
    for (single, wanted) in all.into_iter().zip(expected.singles) {
        check_single(single, wanted, expected, findings)?;
    }
    Ok(())
}

fn check_single(
    single: Value<'_>,
    wanted: &SingleAnswer<'_>,
    expected: &AnswerContent<'_>,
    findings: &mut Findings,
) -> Result<(), String> {
    let parts = canonical::children(single)?;
    let [certificate, status, this_update, next_update] = parts.as_slice() else {
        return Err(format!("{} fields", parts.len()));
    };
    findings.require(
        certificate.whole == wanted.certificate.der().as_ref(),
        "certificate",
        || "the answer is for another certificate".to_owned(),
    );
    findings.require(status.whole == encoded(wanted.status), "status", || {
        "the answer has another status".to_owned()
    });
    let next = canonical::children(*next_update)?;
    let is_next = matches!(next.as_slice(), [it] if is_time(*it, expected.next_update));
    findings.require(
        next_update.tag == 0xa0
            && is_next
            && is_time(*this_update, expected.this_update)
            && expected.this_update < expected.next_update,
        "updates",
        || "the answer is for another time".to_owned(),
    );
    Ok(())
}

fn check_nonce(
    extensions: &[Value<'_>],
    expected: &AnswerContent<'_>,
    findings: &mut Findings,
) -> Result<(), String> {
    let found = match extensions {
        [] => None,
        [extensions, ..] => Some(extensions.whole),
    };
    let wanted = expected.nonce.map(|nonce| {
        let value = [&[0x04][..], &length(nonce.octets()), nonce.octets()].concat();
        let value = [&[0x04][..], &length(&value), &value].concat();
        let extension = [NONCE, &value].concat();
        let extension = [&[SEQUENCE][..], &length(&extension), &extension].concat();
        let list = [&[SEQUENCE][..], &length(&extension), &extension].concat();
        [&[EXTENSIONS][..], &length(&list), &list].concat()
    });
    findings.require(found == wanted.as_deref(), "nonce", || {
        "the nonce is not that of the request, or another extension is there".to_owned()
    });
    Ok(())
}

/// The octets of a length below 128; nothing that is written here is longer.
fn length(contents: &[u8]) -> [u8; 1] {
    [u8::try_from(contents.len()).unwrap_or(u8::MAX)]
}

fn encoded(status: CertificateStatus) -> Vec<u8> {
    match status {
        CertificateStatus::Good => vec![0x80, 0],
        CertificateStatus::Unknown => vec![0x82, 0],
        CertificateStatus::Revoked { since, reason } => {
            let mut contents = vec![GENERALIZED_TIME, 15];
            contents.extend(written(since));
            if reason.code() != 0 {
                contents.extend([0xa0, 3, 0x0a, 1, reason.code()]);
            }
            [&[0xa1][..], &length(&contents), &contents].concat()
        }
    }
}

fn is_time(value: Value<'_>, expected: UnixSeconds) -> bool {
    value.tag == GENERALIZED_TIME && value.contents == written(expected)
}

/// `YYYYMMDDHHMMSSZ` (RFC 5280 4.1.2.5.2).
fn written(at: UnixSeconds) -> Vec<u8> {
    let Some(date) = at.date() else {
        return Vec::new();
    };
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        date.hour(),
        date.minute(),
        date.second()
    )
    .into_bytes()
}
