//! Tests authorities whose issuer is elsewhere: OpenSSL plays the customer's root, which stays
//! there. Hallmark makes a key and a request, is given a certificate, and issues below it.

use crate::authority_roll::{comes_to, start};
use crate::configured::{device_profile, station_table};
use crate::device::is_assigned;
use crate::elsewhere::Elsewhere;
use crate::failover::{AFTER, alarms, second_token};
use crate::process::{CommandOutput, until};
use crate::relying_party::{Relying, pem};
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use serde_json::Value;
use std::fs;
use std::process::Command;

pub(crate) const CEREMONY: &str = r#"
name = "gateway"
[[authority]]
name = "gateway"
external_issuer = true
subject = { country = "DE", organization = "Works", common_name = "Gateway 7" }
path_length = 1
[[authority]]
name = "cell"
issuer = "gateway"
subject = { common_name = "Cell 7" }
validity = "1y"
path_length = 0
"#;

/// Two authorities, with profiles and a station, before the provisioning service.
fn gateway_and_cell() -> String {
    let authorities = "[[authority]]\nname = \"gateway\"\ntoken = \"factory\"\n\
                       [[authority]]\nname = \"cell\"\ntoken = \"factory\"\n";
    authorities.to_owned()
        + &device_profile("behind", "gateway", "90d")
        + &device_profile("in-cell", "cell", "90d")
        + &station_table("station-*", &["behind", "in-cell"], &["*"])
        + "\n[[provisioning]]"
}

/// An environment with the authorities that ship, and one more whose key is made.
pub(crate) fn asked() -> TestEnv {
    asked_over("")
}

/// The same with more tables of the configuration.
pub(crate) fn asked_over(more: &str) -> TestEnv {
    let env = TestEnv::new();
    let configuration = env.configuration();
    let configuration = configuration.replacen("[[provisioning]]", &gateway_and_cell(), 1);
    env.configure(&(configuration + more));
    let env = env.started();
    env.wait_in_sync();
    env
}

pub(crate) fn ceremony(env: &TestEnv) -> Value {
    let file = env.write("gateway.toml", CEREMONY);
    env.json(&["ceremony", "run", file.to_str().unwrap()])
}

pub(crate) fn csr(env: &TestEnv) -> String {
    let csr = env.run(&["authority", "csr", "gateway"]);
    env.write("gateway.csr", &csr);
    csr
}

pub(crate) fn install(env: &TestEnv, bundle: &str) -> CommandOutput {
    let file = env.write("bundle.pem", bundle);
    env.hallmark(&["authority", "install", "gateway", file.to_str().unwrap()])
}

const RESERVE: &str = r#"
name = "reserve"
[[authority]]
name = "reserve"
external_issuer = true
subject = { common_name = "Gateway 7, standby" }
path_length = 1
"#;

/// Two authorities, each with a key on a token of its own, and certified by the same root
/// elsewhere. Verifies: one of them signs while the token of the other is unavailable, and OpenSSL
/// accepts the chain up to that root.
#[test]
fn an_authority_that_is_certified_by_the_same_root_is_a_standby() {
    let env = TestEnv::new();
    let spare = second_token(&env, "spare", "spare");
    let standby = "name = \"gateway\"\ntoken = \"factory\"\nstandby = \"reserve\"\n\
                   [[authority]]\nname = \"reserve\"\ntoken = \"spare\"";
    let configuration = env
        .configuration()
        .replacen("[[provisioning]]", &gateway_and_cell(), 1)
        .replacen("name = \"gateway\"\ntoken = \"factory\"", standby, 1)
        .replacen("[[authority]]", &format!("{spare}[[authority]]"), 1);
    env.configure(&format!("{configuration}\n[policy]\n{AFTER}"));
    fs::create_dir(env.path("tokens-spare")).unwrap();
    env.make_token_at("spare", "spare.conf");
    let env = env.started();
    let elsewhere = installed(&env);
    let reserve = env.write("reserve.toml", RESERVE);
    env.json(&["ceremony", "run", reserve.to_str().unwrap()]);
    let csr = env.run(&["authority", "csr", "reserve"]);
    env.write("reserve.csr", &csr);
    let install = |extensions| {
        let answer = elsewhere.signs("reserve.csr", extensions, 1800, "root");
        let bundle = env.write("reserve.pem", &answer);
        env.hallmark(&["authority", "install", "reserve", bundle.to_str().unwrap()])
    };
    // The profiles of the other authority say what this one is for.
    let limited = install("servers");
    assert!(limited.error.contains("install_limits"), "{limited:?}");
    let installed = install("below");
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let station = env.station();
    let usual = station.obtain(&Request::new("behind", "press-1"));

    let (first, away) = (env.path("tokens"), env.path("tokens.away"));
    fs::rename(&first, &away).unwrap();
    let request = Request::new("behind", "press-2");
    let from_standby = until("the standby signs", || {
        let answer = station.ask(&request);
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    assert_ne!(usual.chain[0], from_standby.chain[0]);
    from_standby.is_accepted_by_openssl(&elsewhere.read("root.pem"));
    let alarms = alarms(&env);
    assert!(
        alarms.contains("authority gateway: authority reserve signs in its place"),
        "{alarms}"
    );
    fs::rename(&away, &first).unwrap();
    env.wait_ready();
}

/// Requests the certificate, installs it, and completes the ceremony.
fn installed<'a>(env: &'a TestEnv) -> Elsewhere<'a> {
    let elsewhere = Elsewhere::on(env);
    ceremony(env);
    csr(env);
    let answer = elsewhere.signs("gateway.csr", "below", 1800, "root");
    let output = install(env, &answer);
    assert_eq!(output.code, Some(0), "{output:?}");
    ceremony(env);
    elsewhere
}

fn ders(pems: &[String]) -> Vec<Vec<u8>> {
    pems.iter().map(|pem| der(pem)).collect()
}

/// The daemon is killed between the key and its record, and between the record and the request.
/// Verifies: `token show` says which authority the key belongs to, and the same ceremony goes on
/// with it.
#[test]
fn a_ceremony_that_was_cut_off_goes_on_with_its_key() {
    let mut env = asked();
    for point in ["key-made", "ceremony-keyed"] {
        env.stop();
        env.start_to_stay_at(&[point]);
        let (client, file) = (env.client(), env.write("gateway.toml", CEREMONY));
        let operator = std::thread::spawn(move || {
            client.hallmark(&["ceremony", "run", file.to_str().unwrap()]);
        });
        env.stays_at(point);
        env.kill();
        operator.join().unwrap();
        env.start();
        env.wait_ready();
        let shown = env.json(&["token", "show", "factory"]);
        let keys = shown["keys"].as_array().unwrap().iter();
        let own = keys.filter(|key| key["purpose"] == "gateway generation 1 (planned)");
        assert_eq!(own.count(), 1, "{point}: {shown}");
        assert!(
            !shown.to_string().contains("none of ours"),
            "{point}: {shown}"
        );
    }
    assert_eq!(ceremony(&env)["authorities"][0]["outcome"], "waiting");
    csr(&env);
}

/// Verifies: the ceremony makes the key and skips what cannot be signed yet; the request is the
/// same each time, and OpenSSL accepts it; until its certificate is installed the authority issues
/// nothing and says why; then a device below it is assigned, with a chain that ends with the root
/// elsewhere; lists are signed, and OpenSSL checks by them; a restart and another run of the
/// ceremony change nothing.
#[test]
fn an_authority_is_certified_elsewhere_and_issues() {
    let mut env = asked();
    let elsewhere = Elsewhere::on(&env);
    let transcript = ceremony(&env);
    let made = transcript["authorities"].as_array().unwrap();
    assert_eq!(made.len(), 1, "the one below is left out: {transcript}");
    assert_eq!(made[0]["outcome"], "waiting");
    let request = csr(&env);
    assert_eq!(made[0]["request"], request);
    assert_eq!(csr(&env), request);
    elsewhere.openssl("req -in gateway.csr -verify -noout");
    let shown = env.json(&["authority", "show", "gateway"]);
    assert_eq!(shown[0]["state"], "waiting");
    let alarms = env.json(&["status"])["alarms"].to_string();
    assert!(alarms.contains("authority gateway waits"), "{alarms}");
    let station = env.station();
    let early = station.ask(&Request::new("behind", "press-1"));
    assert_eq!((early.status, early.code()), (503, "authority_waiting"));

    let answer = elsewhere.signs("gateway.csr", "below", 1800, "root");
    let output = install(&env, &answer);
    assert_eq!(output.code, Some(0), "{output:?}");
    let again = install(&env, &answer);
    assert!(again.error.contains("authority_not_waiting"), "{again:?}");
    let outcomes = ceremony(&env)["authorities"].clone();
    assert_eq!(outcomes[0]["outcome"], "existed");
    assert_eq!(outcomes[1]["outcome"], "created");
    let shown = env.json(&["authority", "show", "gateway"]);
    assert_eq!(shown[0]["foreign"][0]["subject"], "CN=Elsewhere,O=Works");

    elsewhere.is_verified();
    env.add_group("gateway", "gateway");
    env.wait_in_sync();
    let root = elsewhere.read("root.pem");
    let device = station.obtain(&Request::new("behind", "press-1"));
    device.is_accepted_by_openssl(&root);
    let gateway = env.authority("gateway");
    assert_eq!(ders(&device.chain), ders(&[gateway.clone(), root.clone()]));
    is_assigned(&env.emulator, &device);
    let in_cell = station.obtain(&Request::new("in-cell", "press-2"));
    in_cell.is_accepted_by_openssl(&root);
    assert_eq!(
        ders(&in_cell.chain),
        ders(&[env.authority("cell"), gateway, root])
    );
    is_assigned(&env.emulator, &in_cell);

    until("the authority has a list", || {
        let shown = env.json(&["authority", "show", "gateway"]);
        shown[0]["crl_number"].is_i64().then_some(())
    });
    let verdict = judged(&env, &device);
    assert_eq!(verdict.code, Some(0), "{verdict:?}");
    env.run(&["device", "block", "press-1"]);
    until("the list says so", || {
        judged(&env, &device)
            .error
            .contains("revoked")
            .then_some(())
    });
    env.run(&["device", "unblock", "press-1"]);
    env.wait_in_sync();

    env.restart();
    let outcomes = ceremony(&env)["authorities"].clone();
    assert_eq!(outcomes[0]["outcome"], "existed");
    assert_eq!(env.count("request"), 1);
    env.run(&["audit", "verify"]);
}

/// `openssl verify -crl_check`, with the list of the leaf's issuer.
fn judged(env: &TestEnv, device: &Holder) -> CommandOutput {
    let list = Relying::on(env).crl("gateway");
    env.write("list.pem", &pem("crl", &list));
    env.write("device.pem", &device.certificate);
    env.write("gateway.pem", &env.authority("gateway"));
    let mut command = Command::new("openssl");
    command.args([
        "verify",
        "-x509_strict",
        "-crl_check",
        "-CAfile",
        "root.pem",
    ]);
    command.args([
        "-untrusted",
        "gateway.pem",
        "-CRLfile",
        "list.pem",
        "device.pem",
    ]);
    CommandOutput::of(command.current_dir(env.path("")))
}

/// Verifies: each bundle that does not fit is refused with its own code, and changes nothing; the
/// one that fits is installed after all of them, whatever the order in its file.
#[test]
fn an_answer_that_does_not_fit_is_not_installed() {
    let env = asked();
    let elsewhere = Elsewhere::on(&env);
    ceremony(&env);
    csr(&env);
    let sign = |extensions, days| elsewhere.signs("gateway.csr", extensions, days, "root");
    let root = elsewhere.read("root.pem");
    let good = sign("any-purpose", 1800);
    let own = elsewhere.read("answer.pem");
    elsewhere.openssl("req -in gateway.csr -noout -pubkey -out gateway.pub");
    elsewhere.openssl(
        "x509 -new -force_pubkey gateway.pub -subj /CN=Gateway-8 -CA root.pem -CAkey root.key \
         -days 9 -extfile openssl.cnf -extensions below -out named.pem",
    );
    elsewhere.openssl(
        "req -config openssl.cnf -new -key other.key -subj /C=DE/O=Works/CN=Gateway\u{a0}7 -out \
         other.csr",
    );
    let other_key = elsewhere.signs("other.csr", "below", 9, "root");
    let short_root = {
        elsewhere.make_root("root", "short-root", "short-root");
        elsewhere.read("short-root.pem")
    };
    let limited_root = {
        elsewhere.make_root("root", "limited-root", "limited-root");
        elsewhere.read("limited-root.pem")
    };
    let left_behind = || env.count("intent") + env.count("certificate");
    let before = left_behind();

    for (code, bundle) in [
        ("install_malformed", "no certificate".to_owned()),
        ("install_other_key", root.clone()),
        ("install_other_key", other_key),
        ("install_other_name", elsewhere.read("named.pem") + &root),
        ("install_not_an_authority", sign("leaf", 9)),
        ("install_not_an_authority", sign("no-lists", 9)),
        ("install_path_length", sign("short", 9)),
        ("install_path_length", own.clone() + &short_root),
        ("install_limits", sign("names", 9)),
        ("install_limits", sign("names-unmarked", 9)),
        ("install_limits", sign("names-unknown", 9)),
        ("install_limits", sign("policies", 9)),
        ("install_limits", sign("servers", 9)),
        ("install_limits", own.clone() + &limited_root),
        ("install_not_valid", sign("below", -1)),
        ("install_outlives_issuer", sign("below", 4000)),
        ("install_chain_incomplete", own.clone()),
        (
            "install_chain_incomplete",
            own.clone() + &elsewhere.read("other.pem"),
        ),
    ] {
        let output = install(&env, &bundle);
        assert_eq!(output.code, Some(1), "{code}: {output:?}");
        assert!(output.error.contains(code), "{code}: {output:?}");
        let shown = env.json(&["authority", "show", "gateway"]);
        assert_eq!(shown[0]["state"], "waiting", "{code}");
    }
    assert_eq!(left_behind(), before);
    let plant = env.hallmark(&["authority", "csr", "plant"]);
    assert!(plant.error.contains("authority_not_waiting"), "{plant:?}");

    let output = install(&env, &(elsewhere.read("other.pem") + &root + &good));
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// Verifies: a configuration that asks for more than an installed certificate allows is accepted,
/// and an alarm names the authority until the configuration asks for less.
#[test]
fn a_profile_that_asks_for_more_than_its_authority_allows_is_an_alarm() {
    let env = asked();
    let elsewhere = Elsewhere::on(&env);
    ceremony(&env);
    csr(&env);
    let clients = elsewhere.signs("gateway.csr", "clients", 1800, "root");
    let output = install(&env, &clients);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(alarms(&env), "[]");
    let modest = fs::read_to_string(env.path("hallmark.toml")).unwrap();
    let (before, behind) = modest.split_once("name = \"behind\"").unwrap();
    let more = behind.replacen("[\"client_auth\"]", "[\"client_auth\", \"server_auth\"]", 2);
    env.configure(&format!("{before}name = \"behind\"{more}"));
    env.run(&["reload"]);
    let output = alarms(&env);
    assert!(
        output.contains("verifiers refuse leaves of gateway: "),
        "{output}"
    );
    assert!(output.contains("1.3.6.1.5.5.7.3.1"), "{output}");
    // Nothing is made below it that verifiers would refuse.
    let file = env.path("gateway.toml");
    let refused = env.hallmark(&["ceremony", "run", file.to_str().unwrap()]);
    assert!(refused.error.contains("authority_limited"), "{refused:?}");
    assert_eq!(env.count("generation WHERE authority = 'cell'"), 0);
    env.configure(&modest);
    env.run(&["reload"]);
    ceremony(&env);
    assert_eq!(alarms(&env), "[]");
}

/// Verifies: a rollover of the authority makes the next key, waits for its certificate, and says
/// so; it goes on when the certificate is installed; DPS accepts devices under both generations by
/// the root elsewhere.
#[test]
fn an_authority_that_is_certified_elsewhere_is_rolled() {
    let env = asked();
    let elsewhere = installed(&env);
    elsewhere.is_verified();
    env.add_group("gateway", "gateway");
    env.wait_in_sync();
    let station = env.station();
    let old = station.obtain(&Request::new("behind", "press-1"));
    is_assigned(&env.emulator, &old);

    let first = elsewhere.read("gateway.csr");
    let roll = start(&env, "gateway", "expiry", &[]);
    until("the roll says what it waits for", || {
        let alarms = env.json(&["status"])["alarms"].to_string();
        alarms.contains("authority install gateway").then_some(())
    });
    assert_ne!(csr(&env), first);
    let answer = elsewhere.signs("gateway.csr", "below", 1800, "root");
    let output = install(&env, &answer);
    assert_eq!(output.code, Some(0), "{output:?}");
    comes_to(&env, &roll, "draining");
    env.wait_in_sync();

    let new = station.obtain(&Request::new("behind", "press-2"));
    let root = elsewhere.read("root.pem");
    for device in [&old, &new] {
        device.is_accepted_by_openssl(&root);
        is_assigned(&env.emulator, device);
    }
    assert_ne!(old.chain[0], new.chain[0]);
    let generations = env.json(&["authority", "show", "gateway"]);
    assert_eq!(generations[0]["subject"], generations[1]["subject"]);
    assert_eq!(generations[1]["state"], "serving");
}
