//! Tests certificates of authorities elsewhere: a factory and a gateway, two daemons with a chain
//! over both.

use crate::authority_roll::{begun, comes_to, retiring, shown, start};
use crate::configured::{device_profile, station_table};
use crate::device::{is_assigned, register};
use crate::process::{CommandOutput, until};
use crate::relying_party::{Relying, pem};
use crate::request::{Holder, Request, der};
use crate::subordinate_request::{P384, Requests};
use crate::test_env::TestEnv;
use dps_emulator::Kind;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const GATEWAY: &str = r#"
name = "gateway"
[[authority]]
name = "gateway"
external_issuer = true
subject = { country = "DE", organization = "Works", common_name = "Gateway 7" }
path_length = 0
"#;

const FOR_60_DAYS: [&str; 6] = [
    "--authority",
    "plant",
    "--profile",
    "intermediate",
    "--days",
    "60",
];

/// A daemon with an authority whose issuer is elsewhere, and a key for it.
fn gateway() -> TestEnv {
    let env = TestEnv::new();
    let authority = "[[authority]]\nname = \"gateway\"\ntoken = \"factory\"\n".to_owned()
        + &device_profile("behind", "gateway", "90d")
        + &station_table("station-*", &["behind"], &["*"])
        + "\n[[provisioning]]";
    env.configure(
        &env.configuration()
            .replacen("[[provisioning]]", &authority, 1),
    );
    let env = env.started();
    let file = env.write("gateway.toml", GATEWAY);
    env.json(&["ceremony", "run", file.to_str().unwrap()]);
    env
}

/// Carries a gateway's request to the factory: the file's path there.
fn carried(gateway: &TestEnv, factory: &TestEnv) -> String {
    let csr = gateway.run(&["authority", "csr", "gateway"]);
    path(factory, "gateway.csr", &csr)
}

pub(crate) fn path(env: &TestEnv, name: &str, text: &str) -> String {
    env.write(name, text).to_str().unwrap().to_owned()
}

pub(crate) fn sign(env: &TestEnv, csr: &str, more: &[&str]) -> CommandOutput {
    let command = ["--json", "authority", "sign", csr];
    env.hallmark(&[&command, more].concat())
}

/// Signs below the plant for four years.
fn signed(env: &TestEnv, csr: &str, more: &[&str]) -> Value {
    let usual = [
        "--authority",
        "plant",
        "--profile",
        "intermediate",
        "--days",
        "1460",
    ];
    let output = sign(env, csr, &[&usual, more].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    serde_json::from_str(&output.out).unwrap()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The certificate and all above it, as PEM.
fn chain(answer: &Value) -> String {
    let above = answer["chain"].as_array().unwrap().iter();
    text(&answer["certificate"]).to_owned() + &above.map(text).collect::<String>()
}

fn installed(gateway: &TestEnv, answer: &Value) {
    let file = path(gateway, "chain.pem", &chain(answer));
    gateway.run(&["authority", "install", "gateway", &file]);
}

/// `openssl verify -x509_strict -crl_check_all`: four levels, with the lists of both daemons.
fn judged(factory: &TestEnv, gateway: &TestEnv, device: &Holder, own: &str) -> CommandOutput {
    let (above, below) = (Relying::on(factory), Relying::on(gateway));
    let lists = [(&below, "gateway"), (&above, "plant"), (&above, "root")];
    let lists = lists.map(|(at, name)| pem("crl", &at.crl(name)));
    factory.write("lists.pem", &lists.concat());
    factory.write("root.pem", &factory.authority("root"));
    let between = own.to_owned() + &factory.authority("plant");
    factory.write("between.pem", &between);
    factory.write("device.pem", &device.certificate);
    let arguments = "verify -x509_strict -crl_check_all -CAfile root.pem -untrusted between.pem \
                     -CRLfile lists.pem device.pem";
    let mut command = Command::new("openssl");
    CommandOutput::of(
        command
            .args(arguments.split_whitespace())
            .current_dir(factory.path("")),
    )
}

fn has_list(env: &TestEnv, authority: &str) {
    until("the authority has a list", || {
        let shown = env.json(&["authority", "show", authority]);
        shown[0]["crl_number"].is_i64().then_some(())
    });
}

/// A factory signs the intermediate of a gateway, which is another daemon. Verifies: OpenSSL
/// accepts four levels with the lists of both; DPS, which knows the factory's root alone, assigns
/// the gateway's device; a renewal keeps the key, both certificates serve, and the gateway takes
/// the later one over without a rollover, also over a restart; another key needs the operator's
/// `--rekey`, and serves after the gateway's rollover; after its compromise the factory's list has
/// it, OpenSSL refuses all below it and nothing else, its key is certified no more, and the receipt
/// names the group by which DPS goes on.
#[test]
fn a_factory_certifies_a_gateway() {
    let factory = TestEnv::certifying_elsewhere();
    factory.configure(&(factory.configuration() + "\n[policy]\nscan_interval = \"1s\"\n"));
    let factory = factory.started();
    factory.add_group("works", "root");
    factory.wait_in_sync();
    let mut gateway = gateway();
    let csr = carried(&gateway, &factory);
    let asked = gateway.run(&["authority", "csr", "gateway"]);
    let first = signed(&factory, &csr, &["--common-name", "Gateway 7"]);
    assert_eq!(
        (&first["subject"], &first["path_length"]),
        (&json!("Gateway 7"), &json!(0))
    );
    assert_eq!(
        (&first["renews"], &first["beside"]),
        (&Value::Null, &json!([]))
    );
    installed(&gateway, &first);
    has_list(&gateway, "gateway");
    let station = gateway.station();
    let device = station.obtain(&Request::new("behind", "press-1"));
    let own = text(&first["certificate"]);
    let verdict = judged(&factory, &gateway, &device, own);
    assert_eq!(verdict.code, Some(0), "{verdict:?}");
    is_assigned(&factory.emulator, &device);

    // The end of a certificate has whole seconds, and that of the renewed one must be later.
    std::thread::sleep(Duration::from_secs(1));
    // The same key: the holder may present either certificate.
    let renewed = signed(&factory, &csr, &[]);
    assert_eq!(renewed["renews"], first["serial"]);
    let renewed_pem = text(&renewed["certificate"]).to_owned();
    let mut by_renewed = device.clone();
    by_renewed.chain[0].clone_from(&renewed_pem);
    let verdict = judged(&factory, &gateway, &by_renewed, &renewed_pem);
    assert_eq!(verdict.code, Some(0), "{verdict:?}");
    is_assigned(&factory.emulator, &by_renewed);
    assert_eq!(gateway.run(&["authority", "csr", "gateway"]), asked);
    is_renewed(&mut gateway, &renewed);
    let station = gateway.station_called("station-2");
    let later = station.obtain(&Request::new("behind", "press-3"));
    assert_eq!(der(&later.chain[0]), der(&renewed_pem));
    for (device, own) in [(&later, &*renewed_pem), (&device, own)] {
        let verdict = judged(&factory, &gateway, device, own);
        assert_eq!(verdict.code, Some(0), "{verdict:?}");
        is_assigned(&factory.emulator, device);
    }

    // Another key.
    let roll = start(&gateway, "gateway", "expiry", &[]);
    until("the next key asks", || {
        let next = gateway.hallmark(&["authority", "csr", "gateway"]);
        assert_ne!(next.out, asked, "a rollover asks for its own key alone");
        (next.code == Some(0)).then_some(())
    });
    let next = carried(&gateway, &factory);
    let usual = [
        "--authority",
        "plant",
        "--profile",
        "intermediate",
        "--days",
        "1460",
    ];
    let refused = sign(&factory, &next, &usual);
    assert!(
        refused.error.contains("subordinate_other_key"),
        "{refused:?}"
    );
    let second = signed(&factory, &next, &["--rekey"]);
    assert_eq!(second["beside"].as_array().unwrap().len(), 2);
    installed(&gateway, &second);
    comes_to(&gateway, &roll, "draining");
    has_list(&gateway, "gateway");
    let another = station.obtain(&Request::new("behind", "press-2"));
    let second_pem = text(&second["certificate"]);
    let verdict = judged(&factory, &gateway, &another, second_pem);
    assert_eq!(verdict.code, Some(0), "{verdict:?}");
    is_assigned(&factory.emulator, &another);

    is_compromised(&factory, &second);
    until("the list has it", || {
        let verdict = judged(&factory, &gateway, &another, second_pem);
        verdict.error.contains("certificate revoked").then_some(())
    });
    let refused = sign(&factory, &next, &[&usual[..], &["--rekey"]].concat());
    assert!(refused.error.contains("key_compromised"), "{refused:?}");
    // DPS reads no list.
    assert_eq!(
        register(&factory.emulator, &another).as_deref(),
        Ok("assigned")
    );
    is_out_by_a_group(&factory, &second, &another);
    let listed = factory.json(&["authority", "subordinates", "plant"]);
    let revoked: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["revocation_reason"])
        .collect();
    assert_eq!(
        revoked,
        [&json!("cACompromise"), &Value::Null, &Value::Null]
    );
    let found = factory.json(&["certificate", "list", "Gateway 7", "--state", "revoked"]);
    assert_eq!(found[0]["serial"], second["serial"]);
}

/// Installs a renewed certificate at the gateway, whose generation stays as it is, and starts the
/// gateway again; the same certificate is not installed again.
fn is_renewed(gateway: &mut TestEnv, renewed: &Value) {
    let before = gateway.json(&["authority", "show", "gateway"]);
    installed(gateway, renewed);
    let shown = gateway.json(&["authority", "show", "gateway"]);
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown:#}");
    assert_ne!(shown[0]["not_after"], before[0]["not_after"], "{shown:#}");
    for kept in [
        "generation",
        "state",
        "subject",
        "spki_sha256",
        "crl_number",
    ] {
        assert_eq!(shown[0][kept], before[0][kept], "{kept}: {shown:#}");
    }
    gateway.restart();
    assert_eq!(gateway.json(&["authority", "show", "gateway"]), shown);
    let file = path(gateway, "chain.pem", &chain(renewed));
    let again = gateway.hallmark(&["authority", "install", "gateway", &file]);
    assert!(again.error.contains("authority_not_waiting"), "{again:?}");
}

/// Revokes it at the factory, for good, and returns the places that are open.
fn compromised(factory: &TestEnv, certificate: &Value) -> Vec<Value> {
    let serial = text(&certificate["serial"]);
    let command = [
        "certificate",
        "revoke",
        serial,
        "--reason",
        "cACompromise",
        "--everywhere",
    ];
    let revoked = factory.json(&command);
    assert_eq!(revoked["reason"], "cACompromise");
    let places = revoked["receipt"]["places"].as_array().unwrap();
    let open = places.iter().filter(|it| it["state"] == "open");
    open.cloned().collect()
}

/// An operator adds the disabled group that the receipt asks for, at the service itself.
fn is_out_by_a_group(factory: &TestEnv, certificate: &Value, device: &Holder) {
    let body = json!({
        "enrollmentGroupId": "gateway-7-out",
        "provisioningStatus": "disabled",
        "attestation": { "type": "x509", "x509": { "signingCertificates": {
            "primary": { "certificate": certificate["certificate"] },
        } } },
    });
    let body = body.as_object().unwrap().clone();
    let added = factory
        .emulator
        .create_record(Kind::Group, "gateway-7-out", body);
    added.unwrap();
    until("a scan has found the group", || {
        compromised(factory, certificate).is_empty().then_some(())
    });
    let end = register(&factory.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"));
    let deleted = factory.emulator.delete_record(Kind::Group, "gateway-7-out");
    deleted.unwrap();
}

fn is_compromised(factory: &TestEnv, certificate: &Value) {
    let open = compromised(factory, certificate);
    assert_eq!(open.len(), 1, "{open:#?}");
    assert_eq!(open[0]["code"], "authority_admitted");
    assert_eq!(
        open[0]["parameters"],
        json!({
            "authority": "Gateway 7", "group": "works", "provisioning": "dps",
        })
    );
}

/// Verifies: the end of a gateway's certificate is an alarm at the factory while there is no newer
/// one, and no other one is.
#[test]
fn the_end_of_an_authority_elsewhere_is_an_alarm() {
    let env = begun(TestEnv::certifying_elsewhere().with_a_movable_clock());
    let csr = Requests(&env).make("gateway", P384, "-subj /O=Works/CN=Gateway-7");
    let sign = || {
        let output = sign(&env, &csr, &FOR_60_DAYS);
        assert_eq!(output.code, Some(0), "{output:?}");
        serde_json::from_str::<Value>(&output.out).unwrap()
    };
    let first = sign();
    let alarm = || {
        let alarms = env.json(&["status"])["alarm_details"].clone();
        let mut alarms = alarms.as_array().unwrap().iter();
        alarms.find(|it| it["code"] == "subordinate_ends").cloned()
    };
    assert_eq!(alarm(), None);
    // A sixth of its life.
    env.passes(time::Duration::days(51));
    let raised = until("the alarm", alarm);
    assert_eq!(raised["parameters"]["serial"], first["serial"], "{raised}");
    assert_eq!(raised["parameters"]["authority"], "plant");
    assert_eq!(sign()["renews"], first["serial"]);
    until("the alarm ends", || alarm().is_none().then_some(()));
}

/// An authority here waits for its certificate from elsewhere. Verifies: no authority elsewhere
/// gets one with its subject.
#[test]
fn the_subject_of_an_authority_that_waits_is_taken() {
    let env = gateway();
    env.write(
        "same.cnf",
        "[req]\ndistinguished_name = name\nprompt = no\nstring_mask = utf8only\n\
        [name]\nC = DE\nO = works\nCN = gateway  7\n",
    );
    let csr = Requests(&env).make("same", P384, "-config same.cnf");
    let output = sign(&env, &csr, &FOR_60_DAYS);
    assert!(output.error.contains("subject_of_authority"), "{output:?}");
    assert!(output.error.contains("authority gateway"), "{output:?}");
}

/// The plant has certified a gateway, whose devices are not on record here. Verifies: its rollover
/// does not retire the certificate above the gateway's while that is valid.
#[test]
fn a_rollover_waits_for_authorities_elsewhere() {
    let env = begun(retiring(TestEnv::certifying_elsewhere()));
    env.add_group("plant", "plant");
    env.wait_in_sync();
    let csr = Requests(&env).make("gateway", P384, "-subj /O=Works/CN=Gateway-7");
    let serial = signed(&env, &csr, &[])["serial"].clone();
    let roll = start(&env, "plant", "expiry", &[]);
    let draining = comes_to(&env, &roll, "draining");
    assert_eq!(draining["report"]["subordinates_under_the_old"], 1);
    until("it is all that the rollover waits for", || {
        let waits = shown(&env, &roll)["waits_for"].to_string();
        waits.contains("subordinate certificate").then_some(())
    });
    // Three rounds of proofs.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(shown(&env, &roll)["state"], "draining");
    env.run(&[
        "certificate",
        "revoke",
        text(&serial),
        "--reason",
        "superseded",
    ]);
    comes_to(&env, &roll, "done");
}
