//! OCSP: requests of OpenSSL and hostile ones, answers judged by OpenSSL, and refused by the lint
//! when anything in them differs from what was asked for.

use super::{Authority, NOW, SoftwareKey, YEAR};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::key::KeyType;
use crate::x509::lint::ocsp::lint;
use crate::x509::ocsp::answer::build;
use crate::x509::ocsp::request::{CERTIFICATES_MAX, REQUEST_BYTES_MAX};
use crate::x509::ocsp::{
    AnswerContent, CertificateId, CertificateStatus, ErrorStatus, RequestRefusal, SignedAnswer,
    SingleAnswer, StatusRequest, is_answer,
};
use crate::x509::profile::{Preset, Profile};
use crate::x509::revocation::RevocationReason;
use crate::x509::serial::SerialNumber;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

static LINE: LazyLock<Authority> = LazyLock::new(|| {
    let root = Authority::root(KeyType::P256, &Profile::authority(None, 30 * YEAR));
    root.subordinate("Line", KeyType::P256, &Profile::authority(Some(0), YEAR))
});

/// A responder's key, and its certificate by [`LINE`].
static RESPONDER: LazyLock<(SoftwareKey, Certificate)> = LazyLock::new(|| {
    let key = SoftwareKey::generate(KeyType::P256);
    let certificate = LINE.certify("Responder", &key.public_key(), &Preset::Ocsp.profile());
    (key, certificate)
});

fn openssl(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output();
    let output = output.expect("runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("is text");
    (output.status.success(), text)
}

fn request_of_openssl(folder: &Path, serial: &str, more: &[&str]) -> Vec<u8> {
    fs::write(folder.join("issuer.pem"), LINE.certificate.to_pem()).expect("writes");
    let fixed = [
        "-issuer",
        "issuer.pem",
        "-serial",
        serial,
        "-reqout",
        "request",
    ];
    let arguments = [&["ocsp"][..], more, &fixed].concat();
    let (success, text) = openssl(folder, &arguments);
    assert!(success, "{text}");
    fs::read(folder.join("request")).expect("was written")
}

/// The same status for each certificate of a request.
fn singles(request: &StatusRequest, status: CertificateStatus) -> Vec<SingleAnswer<'_>> {
    let certificates = request.certificates.iter();
    certificates
        .map(|certificate| SingleAnswer {
            certificate,
            status,
        })
        .collect()
}

fn content<'a>(request: &'a StatusRequest, singles: &'a [SingleAnswer<'a>]) -> AnswerContent<'a> {
    AnswerContent {
        singles,
        this_update: NOW,
        next_update: NOW + 86_400,
        nonce: request.nonce.as_ref(),
    }
}

fn answered(content: &AnswerContent<'_>) -> SignedAnswer {
    let (key, certificate) = &*RESPONDER;
    let public_key = key.public_key();
    let built = build(&public_key, content).expect("builds");
    assert!(is_answer(&built.bytes));
    let linted = lint(built, &public_key, content).expect("passes the lint");
    let algorithm = KeyType::P256.signature_algorithm();
    let signature = key.sign(linted.bytes());
    SignedAnswer::assemble(&linted, algorithm, &signature, certificate).expect("assembles")
}

/// Verifies: OpenSSL reads the answer, verifies it by the delegated responder, and says the status.
/// Returns the text that OpenSSL prints of an answer to the request in the folder; it must verify.
fn verified_by_openssl(folder: &Path, answer: &SignedAnswer) -> String {
    fs::write(folder.join("line.pem"), LINE.certificate.to_pem()).expect("writes");
    fs::write(folder.join("answer"), answer.der()).expect("writes");
    let at = (NOW + 60).get().to_string();
    let judge = [
        "ocsp",
        "-respin",
        "answer",
        "-reqin",
        "request",
        "-CAfile",
        "line.pem",
        "-partial_chain",
        "-attime",
        &at,
        "-resp_text",
    ];
    let (success, text) = openssl(folder, &judge);
    assert!(success && text.contains("Response verify OK"), "{text}");
    text
}

#[test]
fn openssl_accepts_every_status_with_and_without_a_nonce() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let folder = folder.path();
    let revoked = |reason| CertificateStatus::Revoked {
        since: NOW - 60,
        reason,
    };
    for (status, words) in [
        (CertificateStatus::Good, "Cert Status: good"),
        (CertificateStatus::Unknown, "Cert Status: unknown"),
        (
            revoked(RevocationReason::Unspecified),
            "Cert Status: revoked",
        ),
        (
            revoked(RevocationReason::CertificateHold),
            "Revocation Reason: certificateHold",
        ),
    ] {
        for more in [&["-nonce"][..], &["-no_nonce"], &["-no_nonce", "-sha256"]] {
            let request = request_of_openssl(folder, "0x4001", more);
            let request = StatusRequest::parse(&request).expect("is a request");
            assert_eq!(request.nonce.is_some(), more == ["-nonce"]);
            assert!(request.certificates[0].names(&LINE.issuer()));
            let answer = answered(&content(&request, &singles(&request, status)));
            let text = verified_by_openssl(folder, &answer);
            assert!(text.contains(words), "{text}");
            assert_eq!(
                text.contains("OCSP Nonce"),
                request.nonce.is_some(),
                "{text}"
            );
        }
    }
}

/// Verifies: OpenSSL asks for as many certificates as are answered, by the longest digest it has,
/// and finds the status of each in one answer; one more is too many.
#[test]
fn openssl_accepts_an_answer_for_many_certificates() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let folder = folder.path();
    let serials = |count: usize| {
        let serials = (1..count).map(|it| format!("0x40{it:038x}"));
        serials.flat_map(|it| ["-serial".to_owned(), it]).collect()
    };
    let ask = |count: usize| {
        let serials: Vec<String> = serials(count);
        let more: Vec<&str> = serials.iter().map(String::as_str).collect();
        // Digest and issuer stand before the serial numbers that they are for.
        let before = ["-nonce", "-sha512", "-issuer", "issuer.pem"];
        request_of_openssl(folder, "0x4001", &[&before[..], &more].concat())
    };
    request_of_openssl(folder, "0x4001", &[]);
    let request = StatusRequest::parse(&ask(CERTIFICATES_MAX)).expect("is a request");
    assert_eq!(request.certificates.len(), CERTIFICATES_MAX);
    let revoked = CertificateStatus::Revoked {
        since: NOW - 60,
        reason: RevocationReason::KeyCompromise,
    };
    let mut singles = singles(&request, revoked);
    singles[1].status = CertificateStatus::Good;
    let answer = answered(&content(&request, &singles));
    let text = verified_by_openssl(folder, &answer);
    assert_eq!(
        text.matches("Cert Status: revoked").count(),
        CERTIFICATES_MAX - 1,
        "{text}"
    );
    assert_eq!(text.matches("Cert Status: good").count(), 1, "{text}");
    assert_eq!(
        StatusRequest::parse(&ask(CERTIFICATES_MAX + 1)),
        Err(RequestRefusal::Count)
    );
}

#[test]
fn an_answer_that_differs_from_what_was_asked_is_not_signed() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let request = request_of_openssl(folder.path(), "0x4001", &["-nonce"]);
    let request = StatusRequest::parse(&request).expect("is a request");
    let other = request_of_openssl(folder.path(), "0x4002", &["-nonce"]);
    let other = StatusRequest::parse(&other).expect("is a request");
    let good = singles(&request, CertificateStatus::Good);
    let asked = content(&request, &good);
    let key = RESPONDER.0.public_key();
    let built = || build(&key, &asked).expect("builds");
    let revoked = CertificateStatus::Revoked {
        since: NOW,
        reason: RevocationReason::KeyCompromise,
    };
    for (id, expected) in [
        (
            "certificate",
            AnswerContent {
                singles: &singles(&other, CertificateStatus::Good),
                ..asked
            },
        ),
        (
            "status",
            AnswerContent {
                singles: &singles(&request, revoked),
                ..asked
            },
        ),
        (
            "status",
            AnswerContent {
                singles: &singles(&request, CertificateStatus::Unknown),
                ..asked
            },
        ),
        (
            "response_unreadable",
            AnswerContent {
                singles: &[good[0], good[0]],
                ..asked
            },
        ),
        (
            "response_unreadable",
            AnswerContent {
                singles: &[],
                ..asked
            },
        ),
        (
            "nonce",
            AnswerContent {
                nonce: None,
                ..asked
            },
        ),
        (
            "nonce",
            AnswerContent {
                nonce: other.nonce.as_ref(),
                ..asked
            },
        ),
        (
            "updates",
            AnswerContent {
                next_update: NOW + 1,
                ..asked
            },
        ),
        (
            "produced_at",
            AnswerContent {
                this_update: NOW - 1,
                ..asked
            },
        ),
    ] {
        let failures = lint(built(), &key, &expected).expect_err(id);
        assert!(
            failures.findings().iter().any(|it| it.id == id),
            "{failures}"
        );
    }
    let another = SoftwareKey::generate(KeyType::P256);
    let failures = lint(built(), &another.public_key(), &asked).expect_err("another responder");
    assert_eq!(failures.findings()[0].id, "responder");
    let linted = lint(built(), &key, &asked).expect("passes the lint");
    let algorithm = KeyType::P256.signature_algorithm();
    let forged = another.sign(linted.bytes());
    assert!(SignedAnswer::assemble(&linted, algorithm, &forged, &RESPONDER.1).is_err());
}

#[test]
fn what_is_no_answer_is_none() {
    assert!(!is_answer(LINE.certificate.tbs_bytes()));
    assert!(!is_answer(LINE.certificate.der()));
    assert!(!is_answer(&[]) && !is_answer(&[0x30, 0]) && !is_answer(&[0; 2_000]));
    for status in [
        ErrorStatus::MalformedRequest,
        ErrorStatus::InternalError,
        ErrorStatus::TryLater,
        ErrorStatus::Unauthorized,
    ] {
        assert!(!is_answer(status.der()));
        let folder = tempfile::tempdir().expect("makes a folder");
        fs::write(folder.path().join("answer"), status.der()).expect("writes");
        let (_, text) = openssl(folder.path(), &["ocsp", "-respin", "answer", "-noverify"]);
        let plain = status.name().to_lowercase();
        assert!(text.to_lowercase().contains(&plain), "{status:?}: {text}");
    }
}

/// A request as its parts say, encoded by hand.
fn written(certificates: usize, extensions: &[u8], version: &[u8]) -> Vec<u8> {
    let id = CertificateId::new(&LINE.issuer(), &serial(7)).expect("encodes");
    let single = [&[0x30][..], &sized(id.der())].concat();
    let list = [&[0x30][..], &sized(&single.repeat(certificates))].concat();
    let tbs = [&[0x30][..], &sized(&[version, &list, extensions].concat())].concat();
    [&[0x30][..], &sized(&tbs)].concat()
}

fn sized(contents: &[u8]) -> Vec<u8> {
    let length = match contents.len() {
        short @ ..0x80 => vec![u8::try_from(short).expect("is short")],
        middle @ ..0x100 => vec![0x81, u8::try_from(middle).expect("is short")],
        long => [
            &[0x82][..],
            &u16::try_from(long).expect("fits").to_be_bytes(),
        ]
        .concat(),
    };
    [&length, contents].concat()
}

fn serial(number: u8) -> SerialNumber {
    SerialNumber::from_magnitude(&[number]).expect("is a serial number")
}

/// `[2]` with one extension.
fn extensions(id: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if is_critical {
        &[0x01, 0x01, 0xff]
    } else {
        &[]
    };
    let value = [&[0x04][..], &sized(value)].concat();
    let one = [&[0x30][..], &sized(&[id, critical, &value].concat())].concat();
    let list = [&[0x30][..], &sized(&one)].concat();
    [&[0xa2][..], &sized(&list)].concat()
}

const NONCE: &[u8] = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x02";

#[test]
fn each_limit_of_a_request_has_its_refusal() {
    let nonce = |octets: usize| {
        let value = [&[0x04][..], &sized(&vec![7; octets])].concat();
        written(1, &extensions(NONCE, false, &value), &[])
    };
    let parsed =
        |der: &[u8]| StatusRequest::parse(der).map(|it| it.nonce.map(|it| it.octets().len()));
    assert_eq!(parsed(&written(1, &[], &[])), Ok(None));
    assert_eq!(parsed(&nonce(1)), Ok(Some(1)));
    assert_eq!(parsed(&nonce(32)), Ok(Some(32)));
    for (der, refusal) in [
        (nonce(0), RequestRefusal::Nonce),
        (nonce(33), RequestRefusal::Nonce),
        (
            written(1, &extensions(NONCE, false, b"bare"), &[]),
            RequestRefusal::Nonce,
        ),
        (written(0, &[], &[]), RequestRefusal::Count),
        (
            written(CERTIFICATES_MAX + 1, &[], &[]),
            RequestRefusal::Count,
        ),
        (
            written(1, &[], b"\xa0\x03\x02\x01\x01"),
            RequestRefusal::Version,
        ),
        (
            written(1, &extensions(b"\x06\x01\x2a", true, &[]), &[]),
            RequestRefusal::CriticalExtension,
        ),
        (written(1, &[0x30, 0], &[]), RequestRefusal::Malformed),
        (Vec::new(), RequestRefusal::Malformed),
        (vec![0x30; REQUEST_BYTES_MAX + 1], RequestRefusal::TooLong),
    ] {
        assert_eq!(parsed(&der), Err(refusal), "{}", hex::encode(&der));
    }
    assert_eq!(
        parsed(&written(1, &extensions(b"\x06\x01\x2a", false, &[]), &[])),
        Ok(None)
    );
    // MD5 in place of SHA-1.
    let sha1 = hex::decode("06052b0e03021a").expect("is hex");
    let mut by_md5 = written(1, &[], &[]);
    let at = by_md5
        .windows(sha1.len())
        .position(|it| it == sha1)
        .expect("names SHA-1");
    by_md5[at + sha1.len() - 1] = 0x19;
    assert_eq!(parsed(&by_md5), Err(RequestRefusal::Digest));
}

#[test]
fn a_name_by_sha_1_is_that_of_openssl() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let request = request_of_openssl(folder.path(), "7", &["-no_nonce"]);
    let request = StatusRequest::parse(&request).expect("is a request");
    let own = CertificateId::new(&LINE.issuer(), &serial(7)).expect("encodes");
    assert_eq!(request.certificates, std::slice::from_ref(&own));
    let other = Authority::root(KeyType::P256, &Profile::authority(None, YEAR));
    assert!(!own.names(&other.issuer()));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = StatusRequest::parse(&bytes);
        let _ = is_answer(&bytes);
    }

    /// Requests in which octets were changed, cut off or added: read with the limits kept, or
    /// refused.
    #[test]
    fn a_mutated_request_is_read_within_the_limits_or_refused(
        certificates in 1_usize..=CERTIFICATES_MAX,
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        more in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let value = [&[0x04][..], &sized(&[7; 16])].concat();
        let mut der = written(certificates, &extensions(NONCE, false, &value), &[]);
        for (place, octet) in places {
            let at = place.index(der.len());
            der[at] = octet;
        }
        if cut {
            der.truncate(length.index(der.len() + 1));
        }
        der.extend(more);
        if let Ok(request) = StatusRequest::parse(&der) {
            prop_assert!(request.nonce.is_none_or(|it| (1..=32).contains(&it.octets().len())));
            prop_assert!((1..=CERTIFICATES_MAX).contains(&request.certificates.len()));
            for id in request.certificates.iter().map(CertificateId::der) {
                prop_assert!(der.windows(id.len()).any(|it| it == &id[..]), "not as it was sent");
            }
        }
    }

    #[test]
    fn every_answer_passes_the_lint_and_is_one(
        serial in proptest::collection::vec(any::<u8>(), 1..=20),
        since in 0_i64..253_402_300_000, reason in 0_usize..9, count in 1_usize..=CERTIFICATES_MAX,
    ) {
        let serial = SerialNumber::from_magnitude(&serial);
        prop_assume!(serial.is_ok());
        let id = CertificateId::new(&LINE.issuer(), &serial.expect("is one")).expect("encodes");
        let request = StatusRequest { certificates: vec![id; count], nonce: None };
        let status = CertificateStatus::Revoked {
            since: UnixSeconds::new(since),
            reason: RevocationReason::ALL[reason],
        };
        answered(&content(&request, &singles(&request, status)));
    }
}
