//! Tests bad input. Each kind has its own status and code, is answered with a problem document (RFC
//! 9457), is written into the audit journal, and leaves nothing else behind.

use crate::caller::{Answer, Caller};
use crate::process::until;
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use std::fs;

/// One more than the API takes.
const BODY_TOO_LARGE: usize = 64 * 1024 + 1;
/// More than a CSR may have, and less than a body may.
const CSR_TOO_LARGE: usize = 17 * 1024;

/// Counts of rows that a refusal may change, and of those that it must not.
pub(crate) struct Witness<'a> {
    env: &'a TestEnv,
    left_behind: i64,
}

impl<'a> Witness<'a> {
    pub(crate) fn of(env: &'a TestEnv) -> Self {
        let left_behind = Self::left_behind(env);
        Self { env, left_behind }
    }

    fn left_behind(env: &TestEnv) -> i64 {
        let tables = ["intent", "certificate", "device", "mark"];
        tables.map(|table| env.count(table)).iter().sum()
    }

    fn audited(&self, code: &str) -> i64 {
        let refused = "audit WHERE action = 'certificate.refused' AND detail ->> 'code'";
        self.env.count(&format!("{refused} = '{code}'"))
    }

    /// Asserts that `ask` is refused with `status` and `code`, and that only the journal records
    /// it.
    pub(crate) fn sees_refused(&self, status: u16, code: &str, ask: impl FnOnce() -> Answer) {
        let audited = self.audited(code);
        let answer = ask();
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(answer.body["status"], status);
        assert_eq!(answer.body["type"], format!("urn:hallmark:problem:{code}"));
        assert!(answer.body["title"].is_string());
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.len() > 10,
            "{code} does not say how to fix it: {detail:?}"
        );
        assert_eq!(
            self.audited(code),
            audited + 1,
            "{code} is not in the journal, once"
        );
        assert_eq!(
            Self::left_behind(self.env),
            self.left_behind,
            "{code} left something"
        );
    }
}

#[test]
fn a_bad_csr_is_refused_with_the_reason() {
    let env = TestEnv::running();
    let station = env.station();
    let witness = Witness::of(&env);
    let with_csr = |csr: String| Request::of("device", "press-7", csr, String::new());
    let by_openssl = |algorithm: &[&str]| Request::by_openssl("press-7", &env.path(""), algorithm);
    let curve = |name: &str| by_openssl(&["ec", "-pkeyopt", &format!("ec_paramgen_curve:{name}")]);
    let mut forged = der(&Request::device("press-7").csr);
    *forged.last_mut().unwrap() ^= 1;

    for (code, request) in [
        ("csr_malformed", with_csr("neither DER nor PEM".into())),
        ("csr_malformed", with_csr(String::new())),
        ("csr_too_large", with_csr("A".repeat(CSR_TOO_LARGE))),
        ("csr_bad_signature", with_csr(STANDARD.encode(forged))),
        (
            "csr_unsupported_algorithm",
            by_openssl(&["rsa:2048", "-sha1"]),
        ),
        ("csr_weak_key", by_openssl(&["rsa:1024"])),
        ("csr_unsupported_key", curve("secp256k1")),
        ("key_type_forbidden", curve("P-384")),
        ("key_type_forbidden", curve("P-521")),
        (
            "csr_other_common_name",
            Request::named("device", "press-7", Some("press-8")),
        ),
    ] {
        witness.sees_refused(400, code, || station.ask(&request));
    }
}

#[test]
fn a_name_that_the_provisioning_service_would_not_take_is_refused() {
    let env = TestEnv::running();
    let station = env.station();
    let witness = Witness::of(&env);
    let too_long = "x".repeat(65);
    for id in [
        "press 7", "press/7", "prëss-7", "-press", "press.", "", &too_long,
    ] {
        let request = Request::named("device", id, None);
        witness.sees_refused(400, "registration_id_invalid", || station.ask(&request));
    }
    for id in ["hallmark-canary-line-1-2", "Hallmark-Canary-7"] {
        let request = Request::device(id);
        witness.sees_refused(400, "registration_id_reserved", || station.ask(&request));
        let added = env.hallmark(&["enrollment", "add", "--individual", id]);
        assert!(
            added.error.contains("registration_id_reserved"),
            "{added:?}"
        );
    }
    let longest = "x".repeat(64);
    assert_eq!(station.obtain(&Request::device(&longest)).id, longest);
}

#[test]
fn a_bad_request_is_refused_before_its_csr_is_parsed() {
    let env = TestEnv::running();
    let station = env.station();
    let witness = Witness::of(&env);
    let good = Request::device("press-7");
    let post = || station.post().header("idempotency-key", "bad-request");
    let json = |text: String| post().header("content-type", "application/json").body(text);
    let mut more = good.body();
    more["validity"] = "100y".into();

    let answer = |request: reqwest::blocking::RequestBuilder| Answer::read(request.send().unwrap());
    for (status, code, request) in [
        (
            415,
            "content_type_unsupported",
            post().body(good.body().to_string()),
        ),
        (413, "body_too_large", json(" ".repeat(BODY_TOO_LARGE))),
        (400, "body_invalid", json("{\"profile\": ".into())),
        (400, "body_invalid", json("{}".into())),
        (400, "body_invalid", json(more.to_string())),
        (
            400,
            "idempotency_key_required",
            station.post().json(&good.body()),
        ),
        (
            400,
            "idempotency_key_invalid",
            station
                .post()
                .header("idempotency-key", "k".repeat(129))
                .json(&good.body()),
        ),
    ] {
        witness.sees_refused(status, code, || answer(request).unwrap());
    }
    let unknown = Request::new("no-such-profile", "press-7");
    witness.sees_refused(404, "profile_unknown", || station.ask(&unknown));
}

/// A client without a certificate, or with an expired one, learns that over HTTP: the TLS handshake
/// would give no reason.
#[test]
fn a_caller_without_an_identity_is_refused() {
    let env = TestEnv::running();
    let request = Request::device("press-7");
    let foreigner = env.caller(&foreign_certificate());
    let expiring = env.caller(&env.enlist("station-2s", "station-9"));
    until("the station's certificate expires", || {
        (expiring.get("/v1/status").code() == "client_certificate_expired").then_some(())
    });
    let answer = expiring.get("/v1/status").body.to_string();
    for words in [
        "station station-9",
        "ended at",
        "hallmark issue --profile station-2s",
    ] {
        assert!(answer.contains(words), "no {words}: {answer}");
    }
    let witness = Witness::of(&env);
    for (code, caller) in [
        ("client_certificate_required", env.stranger()),
        ("client_certificate_unknown", foreigner),
        ("client_certificate_expired", expiring),
    ] {
        witness.sees_refused(401, code, || caller.ask(&request));
    }
}

/// A client without a certificate connects again and again. Verifies: every refusal is in the
/// journal, as an entry or counted, and most are only counted.
#[test]
fn a_stranger_does_not_make_the_journal_grow() {
    const KNOCKS: i64 = 60;
    let mut env = TestEnv::running();
    let stranger = env.stranger();
    let request = Request::device("press-7");
    for _ in 0..KNOCKS {
        let answer = stranger.ask(&request);
        assert_eq!(answer.code(), "client_certificate_required");
    }
    env.stop();
    let written = "audit WHERE action = 'certificate.refused'";
    let written = env.count(written);
    let counted = "SELECT coalesce(sum(detail ->> 'times'), 0) FROM audit
                   WHERE action = 'certificate.refusals_counted'
                     AND detail ->> 'code' = 'client_certificate_required'";
    let counted: i64 = crate::invariants::open(&env.database())
        .query_row(counted, [], |row| row.get(0))
        .unwrap();
    assert_eq!(written + counted, KNOCKS);
    // Twenty a minute, and a minute may have ended in between.
    assert!((20..=40).contains(&written), "{written}");
}

/// A station requests for devices, a device for itself, no other role for anything.
#[test]
fn a_caller_may_ask_only_for_what_its_role_covers() {
    let env = TestEnv::running();
    let station = env.station();
    let device = env.caller(&station.obtain(&Request::device("press-7")));
    let auditor = env.caller(&env.enlist("auditor", "auditor-1"));
    let server = env.caller(&listener_itself(&env));
    let witness = Witness::of(&env);
    let other_device = Request::device("press-8");
    let other_station = Request::new("station", "station-2");
    let refused = |caller: &Caller, request: &Request| {
        witness.sees_refused(403, "role_forbidden", || caller.ask(request));
    };
    refused(&device, &other_device);
    refused(&device, &Request::new("station", "press-7"));
    refused(&station, &other_station);
    refused(&auditor, &other_device);
    refused(&server, &other_device);

    assert_eq!(device.obtain(&Request::device("press-7")).id, "press-7");
}

/// Verifies: the repeat of a request is answered with the certificate that it already has; the same
/// key for another request is a conflict; another caller's keys are separate.
#[test]
fn an_idempotency_key_identifies_one_request() {
    let env = TestEnv::running();
    let station = env.station();
    let request = Request::device("press-7");
    let first = station.obtain(&request);
    let rows = (env.count("intent"), env.entries());
    let again = station.obtain(&request);
    assert_eq!(again.certificate, first.certificate);
    assert_eq!(again.chain, first.chain);
    assert_eq!((env.count("intent"), env.entries()), rows);

    let witness = Witness::of(&env);
    for other in [Request::device("press-7"), Request::device("press-8")] {
        let reusing = Request {
            idempotency_key: request.idempotency_key.clone(),
            ..other
        };
        witness.sees_refused(409, "idempotency_key_reused", || station.ask(&reusing));
    }
    let second_station = env.caller(&env.enlist("station", "station-2"));
    assert_ne!(second_station.obtain(&request).serial, first.serial);
}

/// DPS compares registration ids without case, X.509 names with it: a device has one spelling.
#[test]
fn another_spelling_of_a_known_device_is_a_conflict() {
    let env = TestEnv::running();
    let station = env.station();
    station.obtain(&Request::device("Press-7"));
    let witness = Witness::of(&env);
    let other = Request::device("press-7");
    witness.sees_refused(409, "registration_id_spelling", || station.ask(&other));
}

fn foreign_certificate() -> Holder {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    Holder {
        id: "foreigner".into(),
        key: key.serialize_pem(),
        certificate: certificate.pem(),
        chain: Vec::new(),
        serial: String::new(),
        thumbprint: String::new(),
    }
}

/// The listener's own certificate, used by a client.
fn listener_itself(env: &TestEnv) -> Holder {
    let read = |name: &str| fs::read_to_string(env.path("state/tls").join(name)).unwrap();
    Holder {
        key: read("server.key"),
        certificate: read("server.pem"),
        ..foreign_certificate()
    }
}
