//! Tests what goes wrong between a daemon and its offline root: a token that fails in between, a
//! restored backup, certificates that were replaced, advice that was followed.

use crate::authority_roll::start;
use crate::backup::{create, restore};
use crate::offline_root::{is_refused, journal};
use crate::process::until;
use crate::stick::{Stick, answered, ceremony, vault, works, works_configuration};
use crate::subordinate::{path, text};
use crate::test_env::TestEnv;
use crate::token_objects::Order;
use serde_json::{Value, json};

/// Beside `works`, another authority that the offline root certifies.
const YARD: &str = r#"
name = "yard"
[[authority]]
name = "yard"
external_issuer = true
subject = { organization = "Works", common_name = "Yard Berlin" }
path_length = 1
"#;

fn with_yard() -> TestEnv {
    let works = TestEnv::new();
    let hall = "[[authority]]\nname = \"hall\"";
    let yard = format!("[[authority]]\nname = \"yard\"\ntoken = \"factory\"\n{hall}");
    works.configure(&works_configuration(&works).replacen(hall, &yard, 1));
    let works = works.started();
    ceremony(&works);
    works
}

fn makes_yard(works: &TestEnv) {
    let file = path(works, "yard.toml", YARD);
    works.run(&["ceremony", "run", &file]);
}

fn excluded(stick: &Stick) -> Value {
    stick.parsed("installation.json")["excluded"].clone()
}

fn serial_of(stick: &Stick) -> String {
    text(&stick.parsed("answers.json")["certificates"][0]["serial"]).to_owned()
}

/// A folder with the lists of the offline root alone.
fn lists(vault: &TestEnv, works: &TestEnv, name: &str) -> Stick {
    let stick = Stick::on(works, name);
    stick.is_signed(vault, &[]);
    stick
}

/// A folder has a certificate for `yard`, whose private key cannot be found, and a list that
/// revokes the certificate of `works`. Verifies: the command fails and has excluded nothing; with
/// the key it excludes `works` with a receipt, and so does its repeat; the journal has what was
/// excluded.
#[test]
fn nothing_is_excluded_before_each_key_has_signed() {
    let (vault, mut works) = (vault(), with_yard());
    let stick = answered(&vault, &works, "stick", &[]);
    stick.is_installed(&works);
    makes_yard(&works);
    vault.run(&[
        "certificate",
        "revoke",
        &serial_of(&stick),
        "--reason",
        "cACompromise",
    ]);
    let yard = answered(&vault, &works, "yard-stick", &[]);
    let id = works.key_id("yard", 1);
    let away = "0badcafe";
    works.at_the_token(&Order::Move { id: &id, to: away });
    works.restart();
    let refused = yard.install(&works);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let compromises = "roll WHERE reason = 'compromise'";
    assert_eq!(works.count(compromises), 0, "{refused:?}");
    assert_eq!(works.count("issuer_crl WHERE entries > 0"), 0);

    works.at_the_token(&Order::Move { id: away, to: &id });
    works.restart();
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let installed = yard.is_installed(&works);
        assert!(installed["receipt"]["places"].is_array(), "{installed:#}");
        let transcript = yard.parsed("installation.json");
        outcomes.push(json!([
            transcript["certificates"][0]["outcome"],
            transcript["excluded"][0]["outcome"],
        ]));
    }
    assert_eq!(
        outcomes,
        [
            json!(["installed", "excluded"]),
            json!(["existed", "existed"])
        ]
    );
    assert_eq!(works.count(compromises), 1);
    let entry = "audit WHERE action = 'transfer.installed' \
                 AND detail ->> '$.excluded[0].authority' = 'works' \
                 AND detail ->> '$.excluded[0].outcome' = 'excluded'";
    assert_eq!(works.count(entry), 1, "{}", journal(&works));
}

/// The offline root has replaced the certificate of `works`. Verifies: the command names the whole
/// command of the rollover, and no longer once that is under way.
#[test]
fn a_replaced_certificate_is_named_until_it_is_rolled() {
    let (vault, works) = (vault(), works());
    let stick = answered(&vault, &works, "stick", &[]);
    stick.is_installed(&works);
    vault.run(&[
        "certificate",
        "revoke",
        &serial_of(&stick),
        "--reason",
        "superseded",
    ]);
    let list = lists(&vault, &works, "list");
    let advice = |installed: &Value| {
        assert_eq!(excluded(&list)[0]["outcome"], "left");
        installed["problems"].to_string()
    };
    for _ in 0..2 {
        let said = advice(&list.is_installed(&works));
        let command = "hallmark roll start --authority works --reason expiry";
        assert!(said.contains(command), "{said}");
    }
    start(&works, "works", "expiry", &[]);
    assert_eq!(advice(&list.is_installed(&works)), "null");
}

/// The certificate of `works` was renewed for the same key, then the former one is revoked.
/// Verifies: a list with a reason that is about the certificate excludes nothing, and one that says
/// that the key is compromised excludes the generation.
#[test]
fn a_former_certificate_of_a_compromised_key_counts() {
    for (reason, count) in [("superseded", 0), ("cACompromise", 1)] {
        let (vault, works) = (vault(), works());
        let stick = answered(&vault, &works, "stick", &["--days", "400"]);
        stick.is_installed(&works);
        let csr = path(
            &vault,
            "works.csr",
            &works.run(&["authority", "csr", "works"]),
        );
        let by = ["--authority", "vault", "--profile", "plant"];
        let renewed = vault.json(&[&["authority", "sign", &csr], &by[..]].concat());
        let above = renewed["chain"].as_array().unwrap().iter().map(text);
        let chain = text(&renewed["certificate"]).to_owned() + &above.collect::<String>();
        let chain = path(&works, "renewed.pem", &chain);
        works.run(&["authority", "install", "works", &chain]);
        vault.run(&[
            "certificate",
            "revoke",
            &serial_of(&stick),
            "--reason",
            reason,
        ]);
        let list = lists(&vault, &works, "list");
        list.is_installed(&works);
        assert_eq!(
            works.count("roll WHERE reason = 'compromise'"),
            count,
            "{reason}"
        );
        assert_eq!(
            excluded(&list).as_array().unwrap().len() as i64,
            count,
            "{reason}"
        );
    }
}

/// A backup is older than the request, and is restored after the installation. Verifies: the newest
/// folder is installed once more, with its list; a folder with a certificate for a key that was
/// made after the backup is installed without that certificate, and the command says so; a daemon
/// without a restore goes on refusing what it has not asked for.
#[test]
fn the_newest_folder_is_installed_after_a_restore() {
    let (vault, mut works) = (vault(), with_yard());
    let backup = create(&works);
    let stick = answered(&vault, &works, "stick", &[]);
    stick.is_installed(&works);
    makes_yard(&works);
    let yard = answered(&vault, &works, "yard-stick", &[]);
    yard.is_installed(&works);
    works.stop();
    let output = restore(&works, &backup);
    assert_eq!(output.code, Some(0), "{output:?}");
    works.start();
    works.wait_ready();
    assert_eq!(
        works.json(&["authority", "show", "works"])[0]["state"],
        "waiting"
    );
    stick.is_installed(&works);
    let transcript = stick.parsed("installation.json");
    assert_eq!(transcript["certificates"][0]["outcome"], "installed");
    assert_eq!(transcript["lists"][0]["outcome"], "installed");
    let installed = yard.is_installed(&works);
    let problems = installed["problems"].to_string();
    assert!(
        problems.contains("yard-1.pem: it is left out"),
        "{problems}"
    );
    let transcript = yard.parsed("installation.json");
    assert_eq!(transcript["certificates"], json!([]));
    assert_eq!(transcript["lists"][0]["outcome"], "installed");
    ceremony(&works);
    until("the authority below signs", || {
        (works.count("generation WHERE authority = 'hall' AND state = 'serving'") == 1)
            .then_some(())
    });

    let other = TestEnv::new();
    other.configure(&works_configuration(&other));
    let other = other.started();
    ceremony(&other);
    is_refused(
        &stick.install(&other),
        "transfer_other_request",
        "has not made",
    );
}
