//! Tests the examples of `/openapi.json`: each example of a body is sent to a daemon, each answer
//! is judged by its schema, and so is each example of an answer, which is a recorded answer.
//!
//! `HALLMARK_WRITE_EXAMPLES=1` writes the answers into the file of the examples.

use crate::approvals::{Guarded, backup, post};
use crate::checkpoints::{change, subject_of_an_entry};
use crate::configured::station_table;
use crate::elsewhere::Elsewhere;
use crate::est_client::openssl;
use crate::external;
use crate::generated_keys::MADE;
use crate::imported::with_a_past;
use crate::ocsp::{TABLE, wait_for_responders};
use crate::openapi_walk::{Door, Walk};
use crate::process::until;
use crate::request::Request;
use crate::restored::unknown;
use crate::roles::OPERATOR;
use crate::stick::{vault, works};
use crate::test_env::TestEnv;
use crate::unrecorded::add;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::Kind;
use serde_json::{Value, json};
use std::fs;

/// The recorded answers.
const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../daemon/src/api/openapi/examples/answers.json"
);
fn plant() -> TestEnv {
    let env = TestEnv::certifying_elsewhere();
    let audit = "\n[audit]\ncheckpoints = { token = \"factory\", every = \"1s\" }\n";
    let policy = "\n[policy]\nscan_interval = \"1s\"\napprove = [\"cut_over\"]\n";
    let station = station_table("station-?", &["made"], &["press-*"]);
    let more = [&OPERATOR.toml(), MADE, &station, TABLE, audit, policy].concat();
    env.configure(&(env.configuration() + &more));
    let env = env.started();
    wait_for_responders(&env, 2);
    env
}

/// Verifies, for every operation of the document: a daemon accepts the example of its body; its
/// answer, and each example of an answer, is as the schema says, without a member that the schema
/// does not name.
#[test]
fn every_example_is_accepted_or_was_answered() {
    let env = plant();
    let at = Door::local(&env);
    let mut walk = Walk::of(&env);
    of_certificates(&mut walk, &at);
    of_devices(&mut walk, &at, &env);
    of_authorities(&mut walk, &at, &env);
    of_est(&mut walk, &env);
    of_the_daemon(&mut walk, &at);
    of_approvals(&mut walk);
    of_authorities_elsewhere(&mut walk);
    of_imports(&mut walk);
    of_the_journal(&mut walk, &at, &env);
    if std::env::var_os("HALLMARK_WRITE_EXAMPLES").is_some() {
        let all = Value::Object(walk.recorded);
        fs::write(FILE, format!("{all:#}\n")).unwrap();
        return;
    }
    walk.judge();
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member}: {value}"))
}

fn of_certificates(walk: &mut Walk, at: &Door) {
    let issued = walk.asks(at, "POST /v1/certificates", "/v1/certificates");
    walk.asks(at, "POST /v1/certificates:batch", "/v1/certificates:batch");
    walk.asks(at, "GET /v1/certificates", "/v1/certificates?limit=2");
    let own = format!("/v1/certificates/{}", text(&issued, "serial"));
    walk.asks(at, "GET /v1/certificates/{serial}", &own);
    for format in ["der", "chain"] {
        let export = format!("{own}/export?format={format}");
        walk.asks(at, "GET /v1/certificates/{serial}/export", &export);
    }
    for subject in ["holds", "releases", "revocations"] {
        let address = format!("/v1/certificates/{subject}");
        let operation = format!("POST {address}");
        let described = walk.operation(&operation);
        let mut body = described["requestBody"]["content"]["application/json"]["example"].clone();
        body["serial"] = issued["serial"].clone();
        walk.sends(at, &operation, &address, Some(body));
    }
    walk.asks(at, "GET /v1/profiles", "/v1/profiles");
    walk.asks(
        at,
        "GET /v1/profiles/{name}",
        "/v1/profiles/device?example=true",
    );
}

fn of_devices(walk: &mut Walk, at: &Door, env: &TestEnv) {
    let credentials = "/v1/device-credentials";
    walk.asks(at, "POST /v1/device-credentials", credentials);
    walk.asks(at, "GET /v1/device-credentials", credentials);
    let own = "/v1/device-credentials/press-7";
    walk.asks(at, "DELETE /v1/device-credentials/{id}", own);
    env.enlist("device", "press-7");
    walk.asks(at, "POST /v1/enrollments", "/v1/enrollments");
    env.wait_in_sync();
    walk.asks(at, "GET /v1/enrollments", "/v1/enrollments?limit=1");
    walk.asks(at, "GET /v1/enrollments/{name}", "/v1/enrollments/press-7");
    walk.asks(at, "GET /v1/devices", "/v1/devices?limit=1");
    walk.asks(at, "GET /v1/devices/{id}", "/v1/devices/press-7");
    let plan = "/v1/devices/press-7/compromise";
    walk.asks(at, "GET /v1/devices/{id}/compromise", plan);
    let started = walk.asks(at, "POST /v1/rolls", "/v1/rolls");
    walk.asks(at, "GET /v1/rolls", "/v1/rolls");
    let roll = format!("/v1/rolls/{}", started["rolls"][0]["id"]);
    walk.asks(at, "GET /v1/rolls/{id}", &roll);
    walk.asks(at, "POST /v1/rolls/{id}/abort", &format!("{roll}/abort"));

    walk.asks(at, "POST /v1/blocks", "/v1/blocks");
    walk.asks(at, "GET /v1/blocks", "/v1/blocks");
    let block = "/v1/blocks/device/press-7";
    walk.asks(at, "GET /v1/blocks/{kind}/{name}", block);
    walk.asks(at, "DELETE /v1/blocks/{kind}/{name}", block);
    walk.asks(at, "GET /v1/push", "/v1/push");
    walk.asks(at, "POST /v1/push/retry", "/v1/push/retry");
    env.wait_in_sync();

    add(
        &env.emulator,
        Kind::Group,
        "theirs",
        &env.authority("plant"),
    );
    unknown(env, &["theirs"]);
    let adoption = "/v1/enrollments/group/theirs/adoption";
    walk.asks(at, "POST /v1/enrollments/{kind}/{name}/adoption", adoption);
    env.wait_in_sync();
    let theirs = "/v1/enrollments/group/theirs";
    walk.asks(at, "DELETE /v1/enrollments/{kind}/{name}", theirs);
    env.wait_in_sync();
}

fn of_authorities(walk: &mut Walk, at: &Door, env: &TestEnv) {
    walk.asks(at, "GET /v1/authorities", "/v1/authorities");
    walk.asks(at, "GET /v1/authorities/{name}", "/v1/authorities/line-1");
    walk.asks(at, "GET /v1/ca-certificates", "/v1/ca-certificates");
    let plan = "/v1/authorities/line-1/compromise";
    walk.asks(at, "GET /v1/authorities/{name}/compromise", plan);
    let own = "/v1/authorities/plant/subordinates";
    walk.asks(at, "POST /v1/authorities/{name}/subordinates", own);
    walk.asks(at, "GET /v1/authorities/{name}/subordinates", own);
    let below = "/ocsp/line-1";
    walk.asks(at, "POST /ocsp/{authority}", below);
    let parameters = walk.operation("GET /ocsp/{authority}/{request}")["parameters"].clone();
    let parameters = parameters.as_array().unwrap().iter();
    let request = parameters
        .clone()
        .find(|it| it["name"] == "request")
        .unwrap();
    let encoded = text(request, "example");
    let encoded = encoded
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let address = format!("{below}/{encoded}");
    walk.asks(at, "GET /ocsp/{authority}/{request}", &address);
    walk.asks(at, "GET /crl/{file}", "/crl/line-1.crl");
    walk.asks(at, "GET /ca/{file}", "/ca/line-1.cer");
    let rolls = "/v1/authorities/line-1/rolls";
    let started = walk.asks(at, "POST /v1/authorities/{name}/rolls", rolls);
    let roll = format!("/v1/rolls/{}", started["rolls"][0]["id"]);
    walk.asks(at, "GET /v1/rolls/{id}/report", &format!("{roll}/report"));
    until("it waits for an approval", || {
        let shown: Value = serde_json::from_str(&env.get(&roll)).unwrap();
        (shown["waits_for_detail"]["code"] == "approval").then_some(())
    });
    walk.asks(
        at,
        "POST /v1/rolls/{id}/approve",
        &format!("{roll}/approve"),
    );
    env.wait_in_sync();
}

/// Each operation with a label and without; only with one there is a profile.
fn of_est(walk: &mut Walk, env: &TestEnv) {
    let labelled = "/.well-known/est/{label}";
    let plain = "/.well-known/est";
    let station = Door::remote(env, &env.enlist("station", "works-1"));
    let maker = Door::remote(env, &env.enlist("station", "station-1"));
    // Another device than that of the example, which has its profile already; and a next CSR.
    let base64 = |id| {
        let csr = Request::device(id).csr;
        let lines = csr.lines().filter(|it| !it.starts_with('-'));
        json!(lines.collect::<String>())
    };
    let mut asks = |at: &Door, method: &str, operation: &str, label: &str| {
        let address = format!("{plain}/{label}/{operation}");
        let body = match operation {
            "serverkeygen" => Some(base64("press-6")),
            "simplereenroll" => Some(base64("press-9")),
            _ => None,
        };
        walk.sends(
            at,
            &format!("{method} {labelled}/{operation}"),
            &address,
            body,
        );
        walk.asked.insert(format!("{method} {plain}/{operation}"));
    };
    asks(&station, "GET", "cacerts", "device");
    asks(&station, "GET", "csrattrs", "device");
    asks(&station, "POST", "simpleenroll", "device");
    asks(&maker, "POST", "serverkeygen", "made");
    let device = Door::remote(env, &env.enlist("device", "press-9"));
    asks(&device, "POST", "simplereenroll", "device");
}

fn of_the_daemon(walk: &mut Walk, at: &Door) {
    for address in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/expiry",
        "/v1/caller",
        "/v1/status",
        "/v1/tokens",
        "/v1/audit",
        "/v1/audit/verification",
    ] {
        walk.asks(at, &format!("GET {address}"), address);
    }
    // The whole document would be an example of itself.
    walk.asked.insert("GET /openapi.json".to_owned());
    walk.asks(at, "GET /v1/tokens/{name}", "/v1/tokens/factory");
    for work in ["check", "bench"] {
        let operation = format!("POST /v1/tokens/{{name}}/{work}");
        walk.asks(at, &operation, &format!("/v1/tokens/factory/{work}"));
    }
    for address in [
        "/v1/doctor",
        "/v1/reload",
        "/v1/backups",
        "/v1/clock/accept",
    ] {
        walk.asks(at, &format!("POST {address}"), address);
    }
}

/// The checkpoints of the journal, and a finding that is accepted.
fn of_the_journal(walk: &mut Walk, at: &Door, env: &TestEnv) {
    walk.asks(at, "GET /v1/audit/keys", "/v1/audit/keys");
    let checkpoints = "/v1/audit/checkpoints?limit=2";
    walk.asks(at, "GET /v1/audit/checkpoints", checkpoints);
    let subject = subject_of_an_entry(env);
    change(env, "another");
    walk.asks(at, "GET /v1/audit/verification", "/v1/audit/verification");
    walk.asks(at, "POST /v1/audit/accept", "/v1/audit/accept");
    change(env, &subject);
}

/// A request that an approver signs, and one that is rejected.
fn of_approvals(walk: &mut Walk) {
    let guarded = Guarded::new();
    let at = Door::local(&guarded.env);
    let [signed, rejected] = [backup(), post("/v1/clock/accept", &json!({}))];
    let own = format!("/v1/approvals/{}", guarded.waits(&signed));
    let document = walk.asks(
        &at,
        "GET /v1/approvals/{id}/document",
        &format!("{own}/document"),
    );
    let document = guarded.env.write("document", document.as_str().unwrap());
    let signature = guarded.env.path("signature");
    let key = guarded.file_of(&guarded.approver, "key");
    let [key, signature, document] = [&key, &signature, &document].map(|it| it.to_str().unwrap());
    openssl(&["dgst", "-sha256", "-sign", key, "-out", signature, document]);
    let body = json!({
        "signature": STANDARD.encode(fs::read(signature).unwrap()),
        "certificate": guarded.approver.certificate,
    });
    let operation = "POST /v1/approvals/{id}/signature";
    walk.sends(&at, operation, &format!("{own}/signature"), Some(body));
    walk.asks(&at, "GET /v1/approvals/{id}", &own);
    let other = format!("/v1/approvals/{}", guarded.waits(&rejected));
    walk.asks(&at, "GET /v1/approvals", "/v1/approvals");
    walk.asks(
        &at,
        "POST /v1/approvals/{id}/rejection",
        &format!("{other}/rejection"),
    );
}

/// An authority below another organisation's, and one below an offline root.
fn of_authorities_elsewhere(walk: &mut Walk) {
    let gateway = external::asked();
    external::ceremony(&gateway);
    let at = Door::local(&gateway);
    let own = "/v1/authorities/gateway";
    let asked = walk.asks(
        &at,
        "POST /v1/authorities/{name}/request",
        &format!("{own}/request"),
    );
    gateway.write("gateway.csr", text(&asked, "csr"));
    let elsewhere = Elsewhere::on(&gateway);
    let signed = elsewhere.signs("gateway.csr", "below", 1800, "root");
    walk.sends(
        &at,
        "POST /v1/authorities/{name}/certificate",
        &format!("{own}/certificate"),
        Some(json!({ "certificates": signed })),
    );

    let (vault, works) = (vault(), works());
    let [above, below] = [&vault, &works].map(Door::local);
    let requests = "/v1/transfers/requests";
    let asked = walk.asks(&below, "POST /v1/transfers/requests", requests);
    let files = |written: &Value| -> Value {
        let files = written["files"].as_array().unwrap().iter();
        let files = files.map(|it| (text(it, "name").to_owned(), it["base64"].clone()));
        Value::Object(files.collect())
    };
    let order = json!({
        "authority": "vault",
        "profile": "plant",
        "requests": asked["transcript"],
        "requests_sha256": asked["sha256"],
        "files": files(&asked),
    });
    let answers = "/v1/transfers/answers";
    let signed = walk.sends(&above, "POST /v1/transfers/answers", answers, Some(order));
    let last: Value =
        serde_json::from_str(signed.as_str().unwrap().lines().last().unwrap()).unwrap();
    let written = &last["written"];
    let body = json!({
        "answers": written["transcript"],
        "answers_sha256": written["sha256"],
        "files": files(written),
    });
    let installations = "/v1/transfers/installations";
    let operation = "POST /v1/transfers/installations";
    walk.sends(&below, operation, installations, Some(body));
}

/// A ceremony file of one's own, and what an adopted authority issued before.
fn of_imports(walk: &mut Walk) {
    let mut fresh = TestEnv::new();
    fresh.start();
    let at = Door::local(&fresh);
    walk.asks(&at, "POST /v1/ceremonies", "/v1/ceremonies");
    let env = with_a_past();
    let at = Door::local(&env);
    let files = json!({ "index": env.path("index.txt"), "crl": env.path("old.crl") });
    let operation = "POST /v1/authorities/{name}/imports";
    walk.sends(&at, operation, "/v1/authorities/old/imports", Some(files));
}
