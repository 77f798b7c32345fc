//! Tests one-time credentials: a device requests its first leaf by HTTP Basic over TLS.

use crate::configured::{device_profile, station_table};
use crate::device::is_assigned;
use crate::est_client::{Answer, EstClient, answer, print_certificates};
use crate::process::until;
use crate::request::{Request, der};
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn make(env: &TestEnv, id: &str) -> String {
    let made = env.json(&["device", "credential", "make", id, "--profile", "device"]);
    made["secret"].as_str().unwrap().to_owned()
}

/// `curl --user ID:SECRET`, from a file, as a station's script does.
fn enroll(env: &TestEnv, id: &str, secret: &str, request: &Request) -> Answer {
    enroll_at(env, "device/simpleenroll", id, secret, request)
}

fn enroll_at(env: &TestEnv, at: &str, id: &str, secret: &str, request: &Request) -> Answer {
    let user = env.write("user", &format!("user = \"{id}:{secret}\"\n"));
    let body = env.write("first.csr", &STANDARD.encode(der(&request.csr)));
    let client = EstClient::stranger(env);
    let mut curl = client.curl(at);
    curl.arg("--config").arg(user);
    curl.args([
        "--header",
        "content-type: application/pkcs10",
        "--data-binary",
    ]);
    answer(curl.arg(format!("@{}", body.display())))
}

fn is_refused(answer: &Answer, status: &str, code: &str) {
    assert_eq!(
        (&*answer.status, &*answer.code()),
        (status, code),
        "{answer:?}"
    );
}

/// A device without a certificate is assigned. Verifies: the credential gives one leaf; a repeat
/// has the same answer, another CSR is refused, also of another id; the journal names the
/// credential; no file of the daemon and no backup has the secret.
#[test]
fn a_device_requests_its_first_leaf_by_a_secret_that_works_once() {
    let mut env = TestEnv::running();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let secret = make(&env, "press-7");
    let request = Request::device("press-7");
    let other = Request::device("press-8");
    is_refused(
        &enroll(&env, "press-7", &secret, &other),
        "403",
        "role_forbidden",
    );
    is_refused(
        &enroll(&env, "press-8", &secret, &other),
        "401",
        "credential_refused",
    );

    let first = enroll(&env, "press-7", &secret, &request);
    assert_eq!(first.status, "200", "{first:?}");
    let certificate = print_certificates(&env, &first.body).remove(0);
    let chain = EstClient::stranger(&env).certificates("device/cacerts");
    let holder = crate::request::Holder {
        id: "press-7".into(),
        key: request.key.clone(),
        certificate: certificate.clone(),
        chain,
        serial: String::new(),
        thumbprint: String::new(),
    };
    holder.is_accepted_by_openssl(&env.authority("root"));
    is_assigned(&env.emulator, &holder);
    let again = enroll(&env, "press-7", &secret, &request);
    assert_eq!(print_certificates(&env, &again.body), [certificate]);
    let another = Request::device("press-7");
    is_refused(
        &enroll(&env, "press-7", &secret, &another),
        "409",
        "credential_used",
    );
    let renewal = enroll_at(&env, "device/simplereenroll", "press-7", &secret, &another);
    is_refused(&renewal, "401", "client_certificate_required");
    EstClient::of(&env, &holder).obtain("simplereenroll", &another);

    let issued = "audit WHERE action = 'certificate.issued' AND detail ->> 'grant' = 'credential'
                  AND actor = 'device press-7'";
    assert_eq!(env.count(issued), 1);
    let refused = "audit WHERE action = 'certificate.refused' AND actor = 'device press-7'
                   AND detail ->> 'code' = 'credential_used'";
    assert_eq!(env.count(refused), 1);
    let listed = env.json(&["device", "credential", "list"]);
    assert_eq!(listed[0]["state"], "used", "{listed}");
    env.run(&["backup", "create"]);
    env.run(&["audit", "verify"]);
    env.stop();
    holds_no(&secret, &env.path("state"));
    holds_no(&secret, &env.path("hallmarkd.log"));
    assert!(!listed.to_string().contains(&secret));
    env.start();
}

/// Asserts that no file below `path` has the secret, as it is or in the base64 of its header.
fn holds_no(secret: &str, path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            holds_no(secret, &entry.unwrap().path());
        }
        return;
    }
    let header = STANDARD.encode(format!("press-7:{secret}"));
    let bytes = fs::read(path).unwrap_or_default();
    for text in [secret, &header] {
        let found = bytes.windows(text.len()).any(|it| it == text.as_bytes());
        assert!(!found, "{path:?} holds the secret");
    }
}

/// Verifies: the challenge comes exactly where a first leaf is requested; a wrong, locked, expired,
/// replaced or revoked credential is refused with its code, and a blocked device in any case; the
/// JSON API takes credentials, too.
#[test]
fn a_credential_that_is_wrong_or_over_is_refused() {
    let env = TestEnv::new().with_a_movable_clock().started();
    let stranger = EstClient::stranger(&env);
    let csr = Request::device("press-7").csr;
    for (operation, challenges) in [("device/simpleenroll", 2), ("device/simplereenroll", 1)] {
        let answer = stranger.post(operation, csr.as_bytes());
        assert_eq!(answer.status, "401");
        let count = answer.head.matches("www-authenticate: ").count();
        assert_eq!(count, challenges, "{answer:?}");
        assert_eq!(answer.head.contains("Basic realm="), challenges == 2);
    }
    let request = Request::device("press-7");
    let first = make(&env, "press-7");
    let secret = make(&env, "press-7");
    is_refused(
        &enroll(&env, "press-7", &first, &request),
        "401",
        "credential_refused",
    );
    env.run(&["device", "credential", "revoke", "press-7"]);
    is_refused(
        &enroll(&env, "press-7", &secret, &request),
        "401",
        "credential_revoked",
    );
    let none = env.hallmark(&["device", "credential", "revoke", "press-7"]);
    assert!(none.error.contains("credential_unknown"), "{none:?}");

    let secret = make(&env, "press-7");
    for _ in 0..10 {
        is_refused(
            &enroll(&env, "press-7", "wrong", &request),
            "401",
            "credential_refused",
        );
    }
    is_refused(
        &enroll(&env, "press-7", &secret, &request),
        "401",
        "credential_locked",
    );
    assert_eq!(env.count("audit WHERE action = 'credential.locked'"), 1);

    let secret = make(&env, "press-7");
    env.passes(time::Duration::hours(25));
    is_refused(
        &enroll(&env, "press-7", &secret, &request),
        "401",
        "credential_expired",
    );
    let secret = make(&env, "press-7");
    let post = env.stranger().post().basic_auth("press-7", Some(&secret));
    let post = post
        .header("idempotency-key", "first")
        .json(&request.body());
    assert_eq!(post.send().unwrap().status(), 201);
    let secret = make(&env, "press-7");
    env.run(&["device", "block", "press-7"]);
    let next = Request::device("press-7");
    is_refused(
        &enroll(&env, "press-7", &secret, &next),
        "403",
        "device_blocked",
    );
    env.run(&["device", "unblock", "press-7"]);
    let life = [
        "device",
        "credential",
        "make",
        "press-9",
        "--expires",
        "31d",
    ];
    let refused = env.hallmark(&life);
    assert!(refused.error.contains("credential_invalid"), "{refused:?}");
}

/// Verifies: a station makes credentials for the ids of its tables alone, a device none; of several
/// profiles for devices one must be named.
#[test]
fn a_station_makes_credentials_for_its_own_devices() {
    let env = TestEnv::new();
    let any = "[[station]]\nname = \"*\"\nprofiles = [\"device\", \"device-20s\"]\nids = [\"*\"]";
    let bound = station_table("line-1", &["device"], &["press-*"]);
    let more = device_profile("device-2", "line-1", "1d");
    env.configure(&(env.configuration().replace(any, &bound) + &more));
    let env = env.started();
    let station = env.caller(&env.enlist("station", "line-1"));
    let ask = |caller: &crate::caller::Caller, body: Value| {
        let answer = caller.post_to("/v1/device-credentials").json(&body).send();
        crate::caller::Answer::read(answer.unwrap()).unwrap()
    };
    let body = |id: &str, profile: &str| json!({ "registration_id": id, "profile": profile });
    let made = ask(&station, body("press-7", "device"));
    assert_eq!(made.status, 201, "{made:?}");
    let other = ask(&station, body("pump-7", "device"));
    assert_eq!(other.code(), "station_id_forbidden");
    let other = ask(&station, body("press-7", "device-2"));
    assert_eq!(other.code(), "station_profile_forbidden");
    let unnamed = env.hallmark(&["device", "credential", "make", "press-9"]);
    assert!(unnamed.error.contains("credential_invalid"), "{unnamed:?}");

    let secret = made.body["secret"].as_str().unwrap();
    let first = enroll(&env, "press-7", secret, &Request::device("press-7"));
    assert_eq!(first.status, "200", "{first:?}");
    let device = env.caller(&env.enlist("device", "press-7"));
    assert_eq!(
        ask(&device, body("press-7", "device")).code(),
        "role_forbidden"
    );
    until("the station's credential is listed as used", || {
        let listed = env.json(&["device", "credential", "list"]);
        (listed[0]["made_by"] == "station line-1" && listed[0]["state"] == "used").then_some(())
    });
}
