//! Tests failover: a token is unavailable for longer than policy allows, so a second token with the
//! same key signs, or a standby authority; afterwards the first one signs again.

use crate::est_client;
use crate::load::Load;
use crate::process::until;
use crate::request::{Request, der};
use crate::subordinate::sign;
use crate::subordinate_request::{P384, Requests};
use crate::test_env::{CEREMONY, TestEnv};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The policy of these stories, and how soon afterwards a certificate must come.
pub(crate) const AFTER: &str = "failover_after = \"2s\"\n";
const WITHIN: Duration = Duration::from_secs(10);

/// A second token's configuration, in a folder of its own.
pub(crate) fn second_token(env: &TestEnv, name: &str, label: &str) -> String {
    let conf = env.path(&format!("{name}.conf"));
    let tokens = env.path(&format!("tokens-{name}"));
    fs::write(
        &conf,
        format!("directories.tokendir = {}\n", tokens.display()),
    )
    .unwrap();
    format!(
        "[[token]]\nname = {name:?}\nkind = \"pkcs11\"\nfragment = \"softhsm2\"\nlabel = \
         {label:?}\n\
         credential = {:?}\n[token.environment]\nSOFTHSM2_CONF = {conf:?}\n\n",
        env.path("pin")
    )
}

/// Copies the key as a vendor's tool clones an HSM.
fn clone_token(from: &Path, to: &Path) {
    let output = std::process::Command::new("cp")
        .arg("-r")
        .args([from, to])
        .status();
    assert!(output.unwrap().success());
}

pub(crate) fn alarms(env: &TestEnv) -> String {
    env.json(&["status"])["alarms"].to_string()
}

fn crl_number(env: &TestEnv) -> i64 {
    let shown = env.json(&["authority", "show", "line-1"]);
    shown[0]["crl_number"].as_i64().unwrap()
}

fn audited(env: &TestEnv, action: &str) -> i64 {
    env.count(&format!(
        "audit WHERE action = '{action}' AND subject = 'line-1'"
    ))
}

/// Verifies, under load: while the first token is unavailable the second signs leaves and
/// revocation lists with the same key, and status and journal say so; afterwards the first token
/// signs again, and the second is not needed.
#[test]
fn a_second_token_with_the_same_key_signs_while_the_first_is_out() {
    let env = TestEnv::new();
    let mut configuration = env.configuration().replace(
        "name = \"line-1\"\ntoken = \"factory\"",
        "name = \"line-1\"\ntoken = \"factory\"\nalso_on = [\"twin\"]",
    );
    let twin = second_token(&env, "twin", "factory");
    configuration = configuration.replacen("[[authority]]", &format!("{twin}[[authority]]"), 1);
    env.configure(&format!("{configuration}\n[policy]\n{AFTER}"));
    let env = env.started();
    let (first, away) = (env.path("tokens"), env.path("tokens.away"));
    let second = env.path("tokens-twin");
    clone_token(&first, &second);
    until("the twin is ready", || {
        (env.json(&["status"])["tokens"]["twin"]["state"] == "ready").then_some(())
    });
    until("the twin has shown the key", || {
        (!alarms(&env).contains("has not shown")).then_some(())
    });

    Load::during(&env, |load| {
        fs::rename(&first, &away).unwrap();
        load.wait_for_refusal();
        load.served_within(WITHIN);
        until("the status says so", || {
            alarms(&env)
                .contains("authority line-1: token twin signs in its place")
                .then_some(())
        });
        // The caller that noticed it wrote the entry; another caller may have been served first.
        until("the journal says so", || {
            (audited(&env, "failover.begun") == 1).then_some(())
        });
        let before = crl_number(&env);
        env.run(&["device", "block", "device-0-0", "--reason", "lost"]);
        until("the twin signs the revocation list", || {
            (crl_number(&env) > before).then_some(())
        });

        fs::rename(&away, &first).unwrap();
        until("it goes back", || {
            (audited(&env, "failover.ended") == 1).then_some(())
        });
        fs::rename(&second, env.path("twin.away")).unwrap();
        load.served_within(WITHIN);
        assert!(!alarms(&env).contains("in its place"));
    });
    assert_eq!(audited(&env, "failover.begun"), 1);
}

/// Verifies: the standby has a key and a certificate of its own below the same issuer; devices get
/// leaves from it while the first token is unavailable, and OpenSSL accepts them; afterwards the
/// first authority signs again.
#[test]
fn a_standby_authority_signs_while_the_token_of_the_first_is_out() {
    let env = TestEnv::new();
    let spare = second_token(&env, "spare", "spare");
    let configuration = env
        .configuration()
        .replace(
            "name = \"line-1\"\ntoken = \"factory\"",
            "name = \"line-1\"\ntoken = \"factory\"\nstandby = \"reserve\"\n\
             [[authority]]\nname = \"reserve\"\ntoken = \"spare\"",
        )
        .replacen("[[authority]]", &format!("{spare}[[authority]]"), 1);
    env.configure(&format!("{configuration}\n[policy]\n{AFTER}"));
    fs::create_dir(env.path("tokens-spare")).unwrap();
    env.make_token_at("spare", "spare.conf");
    env.write("ceremony.toml", &format!("{CEREMONY}{RESERVE}"));
    let env = env.started();
    let station = env.station();
    let usual = station.obtain(&Request::device("press-1"));

    let (first, away) = (env.path("tokens"), env.path("tokens.away"));
    fs::rename(&first, &away).unwrap();
    let request = Request::device("press-2");
    let from_standby = until("the standby signs", || {
        let answer = station.ask(&request);
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    let reserve = env.authority("reserve");
    assert_eq!(from_standby.chain[0].trim(), reserve.trim());
    let above = est_client::authorities(&env, "device");
    let listed = above.iter().any(|it| der(it) == der(&reserve));
    assert!(listed, "who signs is among the authorities: {above:?}");
    est_client::is_in_chain_order(&above);
    assert_ne!(usual.chain[0], from_standby.chain[0]);
    from_standby.is_accepted_by_openssl(&env.authority("root"));
    assert!(alarms(&env).contains("authority line-1: authority reserve signs in its place"));
    assert_eq!(audited(&env, "failover.begun"), 1);
    assert_eq!(env.json(&["status"])["ready"], false, "others cannot sign");

    fs::rename(&away, &first).unwrap();
    env.wait_ready();
    let after = station.obtain(&Request::device("press-3"));
    assert_eq!(after.chain, usual.chain);
    assert_eq!(audited(&env, "failover.ended"), 1);
}

const RESERVE: &str = "
[[authority]]
name = \"reserve\"
issuer = \"plant\"
subject = { organization = \"Example Works\", common_name = \"Example Line 1, standby\" }
path_length = 0
validity = \"5y\"
";

/// Verifies: the standby signs leaves alone; the certificate of an authority elsewhere waits until
/// the token of the named authority is back.
#[test]
fn a_standby_certifies_no_authority_elsewhere() {
    let env = TestEnv::certifying_elsewhere();
    let spare = second_token(&env, "spare", "spare");
    let configuration = env
        .configuration()
        .replace(
            "name = \"plant\"\ntoken = \"factory\"",
            "name = \"plant\"\ntoken = \"factory\"\nstandby = \"reserve\"\n\
             [[authority]]\nname = \"reserve\"\ntoken = \"spare\"",
        )
        .replacen("[[authority]]", &format!("{spare}[[authority]]"), 1);
    env.configure(&format!("{configuration}\n[policy]\n{AFTER}"));
    fs::create_dir(env.path("tokens-spare")).unwrap();
    env.make_token_at("spare", "spare.conf");
    let above_lines = RESERVE
        .replace("issuer = \"plant\"", "issuer = \"root\"")
        .replace("path_length = 0", "path_length = 1");
    env.write("ceremony.toml", &format!("{CEREMONY}{above_lines}"));
    let env = env.started();
    let csr = Requests(&env).make("gateway", P384, "-subj /CN=Gateway-7");
    let usual = ["--authority", "plant", "--profile", "intermediate"];
    let asks = || sign(&env, &csr, &[&usual[..], &["--days", "365"]].concat());
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    until("the token is out", || {
        let is_out = asks().error.contains("token_unavailable");
        is_out.then_some(())
    });
    let out = Instant::now();
    while out.elapsed() < Duration::from_secs(4) {
        let output = asks();
        assert_eq!(output.code, Some(1), "{output:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    env.wait_ready();
    assert_eq!(asks().code, Some(0));
}

/// Verifies: a token that is configured to hold the key and does not hold it is an alarm and a
/// finding of `hallmarkd check`, and signs nothing, however long the first is unavailable.
#[test]
fn a_token_without_the_key_never_signs_in_anothers_place() {
    let env = TestEnv::new();
    let mut configuration = env.configuration().replace(
        "name = \"line-1\"\ntoken = \"factory\"",
        "name = \"line-1\"\ntoken = \"factory\"\nalso_on = [\"spare\"]",
    );
    let spare = second_token(&env, "spare", "spare");
    configuration = configuration.replacen("[[authority]]", &format!("{spare}[[authority]]"), 1);
    env.configure(&format!("{configuration}\n[policy]\n{AFTER}"));
    fs::create_dir(env.path("tokens-spare")).unwrap();
    env.make_token_at("spare", "spare.conf");
    let env = env.started();
    let station = env.station();
    assert!(alarms(&env).contains("token spare has not shown the key of line-1-1"));
    assert!(env.check().out.contains("also on token spare"));
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    let request = Request::device("press-1");
    let away = Instant::now();
    while away.elapsed() < WITHIN / 2 {
        let answer = station.ask(&request);
        assert_eq!(answer.status, 503, "{answer:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!alarms(&env).contains("signs in its place"));
    assert_eq!(env.json(&["status"])["ready"], false);
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    env.wait_ready();
    station.obtain(&request);
}
