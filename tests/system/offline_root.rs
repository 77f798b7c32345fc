//! Tests an offline root: two daemons that exchange files on a medium, one of them without network.

use crate::authority_roll::start;
use crate::device::{is_assigned, register};
use crate::process::{CommandOutput, until};
use crate::relying_party::Relying;
use crate::request::{Holder, Request};
use crate::stick::{Stick, answered, ceremony, vault, works, works_configuration};
use crate::subordinate::text;
use crate::test_env::TestEnv;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use time::Duration;

fn has_list(env: &TestEnv, authority: &str) {
    until("the authority has a list", || {
        let shown = env.json(&["authority", "show", authority]);
        let newest = shown.as_array().unwrap().last().unwrap().clone();
        newest["crl_number"].is_i64().then_some(())
    });
}

pub(crate) fn is_refused(output: &CommandOutput, code: &str, words: &str) {
    assert_eq!(output.code, Some(1), "{output:?}");
    let said = output.error.contains(code) && output.error.contains(words);
    assert!(said, "{code}, {words}: {output:?}");
}

/// The device's chain, with issuers and lists from the addresses in the certificates, judged by
/// `openssl verify -x509_strict -crl_check_all`.
fn judged(works: &TestEnv, vault: &TestEnv, device: &Holder) -> Result<(), String> {
    Relying::on(works).judge(device, &vault.authority("vault"))
}

/// Nothing of the offline daemon reaches a network: its namespace has no route and no socket.
fn has_no_network(vault: &TestEnv) {
    let process = format!("/proc/{}", vault.daemon());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(fs::read_link(format!("{process}/ns/net")).unwrap(), own);
    for table in ["route", "tcp", "udp", "if_inet6"] {
        let lines = fs::read_to_string(format!("{process}/net/{table}")).unwrap_or_default();
        let rows = lines
            .lines()
            .filter(|it| !it.contains("ddress") && !it.contains("Iface"));
        assert_eq!(rows.count(), 0, "{table}: {lines}");
    }
}

/// Two machines and a medium. Verifies: the offline daemon has no network; the transcripts name
/// each other, and the journals of both have them; OpenSSL accepts four levels with the lists that
/// relying parties find at the addresses in the certificates; DPS, which knows the offline root
/// alone, assigns the device; a repeat on each side gives the same certificate and changes
/// nothing; list and certificates are there after a restart.
#[test]
fn an_offline_root_certifies_an_authority() {
    let vault = vault();
    has_no_network(&vault);
    let mut works = works();
    let stick = Stick::on(&works, "stick");
    let page = works.run(&["ceremony", "request", stick.folder()]);
    let asked = stick.sha256("requests.json");
    assert!(page.contains(&asked), "{page}");
    assert_eq!(stick.read("requests.txt"), page);
    let shown = vault.json(&["ceremony", "show", stick.folder()]);
    assert_eq!(shown["requests"]["sha256"], asked);
    assert_eq!(shown["requests"]["requests"][0]["subject"], "Works Berlin");
    let waiting = works.json(&["authority", "show", "works"]);
    let key = &shown["requests"]["requests"][0]["spki_sha256"];
    assert_eq!(key, &waiting[0]["spki_sha256"]);

    let signed = stick.is_signed(&vault, &["--days", "1460"]);
    assert_eq!(signed["requests_sha256"], asked);
    let answers = stick.sha256("answers.json");
    let again = stick.is_signed(&vault, &["--days", "1460"]);
    assert_eq!(again["certificates"], signed["certificates"]);
    assert_ne!(again["lists"][0]["number"], signed["lists"][0]["number"]);
    assert!(journal(&vault).contains(&answers));
    let ours = vault.json(&["authority", "subordinates", "vault"]);
    assert_eq!(ours.as_array().unwrap().len(), 1);

    let installed = stick.is_installed(&works);
    let transcript = stick.parsed("installation.json");
    assert_eq!(transcript["answers_sha256"], stick.sha256("answers.json"));
    assert_eq!(transcript["requests_sha256"], asked);
    assert_eq!(transcript["certificates"][0]["outcome"], "installed");
    assert_eq!(transcript["lists"][0]["served"], "/crl/vault-1.crl");
    assert_eq!(installed["sha256"], stick.sha256("installation.json"));
    assert!(journal(&works).contains(text(&installed["sha256"])));
    assert!(journal(&works).contains(&stick.sha256("answers.json")));

    ceremony(&works);
    has_list(&works, "works");
    has_list(&works, "hall");
    let root = vault.authority("vault");
    works
        .emulator
        .upload_authority("offline-root", &root, true)
        .unwrap();
    works.add_group("works", "works");
    works.wait_in_sync();
    let device = works.station().obtain(&Request::new("behind", "press-1"));
    judged(&works, &vault, &device).unwrap();
    is_assigned(&works.emulator, &device);
    let status = works.json(&["status"]);
    assert_eq!(status["alarms"], json!([]));
    let list = &status["issuer_crls"][0];
    assert_eq!(
        list["number"].to_string(),
        text(&again["lists"][0]["number"])
    );

    let entries = works.count("certificate");
    stick.is_installed(&works);
    let transcript = stick.parsed("installation.json");
    assert_eq!(transcript["certificates"][0]["outcome"], "existed");
    assert_eq!(transcript["lists"][0]["outcome"], "existed");
    assert_eq!(works.count("certificate"), entries);
    works.restart();
    judged(&works, &vault, &device).unwrap();
    works.run(&["audit", "verify"]);
    vault.run(&["audit", "verify"]);
}

pub(crate) fn journal(env: &TestEnv) -> String {
    let all = env.json(&["audit", "show", "--limit", "60"]);
    all.to_string()
}

/// Verifies: a folder that was changed, an answer to another request, a list of another root, one
/// that is older than the installed one and one that is no list are refused, each with its code,
/// and leave nothing behind; so is a certificate that is on the installed list.
#[test]
fn files_that_do_not_fit_are_refused() {
    let (vault, works) = (vault(), works());
    let stick = Stick::on(&works, "stick");
    works.run(&["ceremony", "request", stick.folder()]);
    requests_that_do_not_fit(&vault, &stick);
    let signed = vault.count("intent");
    stick.is_signed(&vault, &[]);
    assert_eq!(vault.count("intent"), signed + 1);

    let answers = stick.sha256("answers.json");
    let other = stick.copy("other-transcript");
    other.change(
        "answers.json",
        "\"operator\": \"local",
        "\"operator\": \"Local",
    );
    is_refused(
        &other.install_as(&works, &answers),
        "transfer_other_transcript",
        "page",
    );
    let other = stick.copy("other-certificate");
    let root = vault.authority("other");
    fs::write(other.0.join("works-1.pem"), &root).unwrap();
    is_refused(
        &other.install(&works),
        "transfer_file_differs",
        "works-1.pem",
    );
    let other = stick.copy("no-list");
    fs::remove_file(other.0.join("vault-1.crl")).unwrap();
    is_refused(&other.install(&works), "transfer_file_differs", "missing");
    let other = stick.copy("other-serial");
    let serial = text(&stick.parsed("answers.json")["certificates"][0]["serial"]).to_owned();
    other.change("answers.json", &serial, "01AB");
    is_refused(&other.install(&works), "transfer_file_differs", "01AB");
    let other = stick.copy("other-request");
    other.change("answers.json", &stick.sha256("requests.json"), &answers);
    is_refused(
        &other.install(&works),
        "transfer_other_request",
        "has not made",
    );
    let other = stick.copy("out-of-the-folder");
    other.change("answers.json", "\"works-1.pem\"", "\"../works-1.pem\"");
    is_refused(
        &other.install(&works),
        "transfer_unreadable",
        "no plain name",
    );
    let other = stick.copy("link");
    fs::remove_file(other.0.join("works-1.pem")).unwrap();
    symlink(stick.0.join("works-1.pem"), other.0.join("works-1.pem")).unwrap();
    is_refused(&other.install(&works), "symbolic link", "not followed");

    let lists = Stick::on(&works, "other-root");
    let command = ["ceremony", "sign", lists.folder(), "--authority", "other"];
    vault.run(&command);
    is_refused(
        &lists.install(&works),
        "issuer_crl_other",
        "no authority here",
    );
    let other = stick.copy("no-number");
    let list = other.sha256("vault-1.crl");
    fs::write(other.0.join("vault-1.crl"), "none").unwrap();
    other.change("answers.json", &list, &other.sha256("vault-1.crl"));
    is_refused(
        &other.install(&works),
        "issuer_crl_unusable",
        "no revocation list",
    );
    assert_eq!(works.count("issuer_crl"), 0);
    assert_eq!(
        works.json(&["authority", "show", "works"])[0]["state"],
        "waiting"
    );

    let older = stick.copy("older");
    stick.is_signed(&vault, &[]);
    stick.is_installed(&works);
    is_refused(
        &older.install(&works),
        "issuer_crl_older",
        "bring a newer one",
    );
    is_refused(&lists.install(&works), "issuer_crl_other", "Another Root");
}

fn requests_that_do_not_fit(vault: &TestEnv, stick: &Stick) {
    let before = vault.count("intent");
    let asked = stick.sha256("requests.json");
    let unnamed = stick.sign(vault, None, &[]);
    assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
    let other = stick.copy("other-requests");
    other.change("requests.json", "Works Berlin", "Works Paris");
    is_refused(
        &other.sign(vault, Some(&asked), &[]),
        "transfer_other_transcript",
        "page",
    );
    let own = other.sha256("requests.json");
    is_refused(
        &other.sign(vault, Some(&own), &[]),
        "transfer_file_differs",
        "Works Berlin",
    );
    let other = stick.copy("other-csr");
    let csr = Request::named("none", "works", Some("Works Berlin")).csr;
    fs::write(other.0.join("works-1.csr"), &csr).unwrap();
    is_refused(
        &other.sign(vault, Some(&asked), &[]),
        "transfer_file_differs",
        "works-1.csr",
    );
    let sha256 = stick.sha256("works-1.csr");
    other.change("requests.json", &sha256, &other.sha256("works-1.csr"));
    let own = other.sha256("requests.json");
    is_refused(
        &other.sign(vault, Some(&own), &[]),
        "transfer_file_differs",
        "key",
    );
    let show = vault.hallmark(&["ceremony", "show", other.folder()]);
    is_refused(&show, "transfer_file_differs", "key");
    assert_eq!(vault.count("intent"), before, "nothing was signed");
}

/// The offline root is rolled over, and `works` stays below its first generation. Verifies: the
/// list of that generation goes on being carried, and that of the next one is left out with a word.
#[test]
fn the_list_of_an_earlier_root_is_carried() {
    let (vault, works) = (vault(), works());
    answered(&vault, &works, "stick", &[]).is_installed(&works);
    start(&vault, "vault", "expiry", &[]);
    until("the next generation serves", || {
        let serving = "generation WHERE authority = 'vault' AND number = 2 AND state = 'serving'";
        (vault.count(serving) == 1).then_some(())
    });
    let lists = Stick::on(&works, "lists");
    lists.is_signed(&vault, &[]);
    for file in ["vault-1.crl", "vault-2.crl"] {
        assert!(lists.0.join(file).exists(), "{file}");
    }
    let installed = lists.is_installed(&works);
    let problems = installed["problems"].to_string();
    assert!(problems.contains("vault-2.crl: "), "{installed:#}");
    assert!(problems.contains("no issuer above"), "{installed:#}");
    assert_eq!(works.count("issuer_crl"), 1);
    let listed = &lists.parsed("installation.json")["lists"];
    assert_eq!(listed[0]["served"], "/crl/vault-1.crl", "{listed:#}");
}

/// The offline root revokes the certificate of `works`, and the list is carried. Verifies: the
/// receipt has the issuer, the daemon signs nothing below, OpenSSL and DPS refuse the device, the
/// revoked certificate is not installed again; the next generation waits for the offline root,
/// which needs `--rekey`, and a device below it is assigned.
#[test]
fn what_the_offline_root_revokes_is_excluded() {
    let (vault, works) = (vault(), works());
    let stick = answered(&vault, &works, "stick", &[]);
    stick.is_installed(&works);
    ceremony(&works);
    has_list(&works, "hall");
    let root = vault.authority("vault");
    works
        .emulator
        .upload_authority("offline-root", &root, true)
        .unwrap();
    works.add_group("works", "works");
    works.wait_in_sync();
    let station = works.station();
    let device = station.obtain(&Request::new("behind", "press-1"));
    is_assigned(&works.emulator, &device);

    let serial = text(&stick.parsed("answers.json")["certificates"][0]["serial"]).to_owned();
    vault.run(&["certificate", "revoke", &serial, "--reason", "cACompromise"]);
    let list = Stick::on(&works, "list");
    let signed = list.is_signed(&vault, &[]);
    assert_eq!(signed["lists"][0]["entries"], 1);
    assert_eq!(signed["certificates"], json!([]));
    let installed = list.is_installed(&works);
    let places = installed["receipt"]["places"].as_array().unwrap();
    let issuer = places.iter().find(|it| it["code"] == "issuer_revoked");
    assert_eq!(issuer.unwrap()["state"], "done", "{installed:#}");
    let excluded = &list.parsed("installation.json")["excluded"][0];
    assert_eq!(
        (&excluded["authority"], &excluded["outcome"]),
        (&json!("works"), &json!("excluded"))
    );
    let refused = station.ask(&Request::new("behind", "press-2"));
    assert_eq!((refused.status, refused.code()), (503, "issuer_revoked"));
    assert!(
        judged(&works, &vault, &device)
            .unwrap_err()
            .contains("certificate revoked")
    );
    let registered = register(&works.emulator, &device);
    assert_ne!(registered.as_deref(), Ok("assigned"));
    list.is_installed(&works);
    let excluded = list.parsed("installation.json")["excluded"][0].clone();
    assert_eq!(excluded["outcome"], "existed");

    until("the next key asks", || {
        let next = works.hallmark(&["authority", "csr", "works"]);
        (next.code == Some(0)).then_some(())
    });
    let next = Stick::on(&works, "next");
    works.run(&["ceremony", "request", next.folder()]);
    next.is_signed(&vault, &["--rekey"]);
    next.is_installed(&works);
    let reissued = until("the next generation signs", || {
        let request = Request::new("behind", "press-2");
        let answer = station.ask(&request);
        (answer.status == 201).then(|| request.holder(&answer.body))
    });
    has_list(&works, "works");
    has_list(&works, "hall");
    works.wait_in_sync();
    judged(&works, &vault, &reissued).unwrap();
    is_assigned(&works.emulator, &reissued);
}

/// Verifies: a rollover of the authority takes the same way; the certificate that the list revokes
/// before it was installed is refused on each way; an alarm says that the list ends, and that it
/// has ended, until the next one is brought.
#[test]
fn a_list_is_brought_again_before_it_ends() {
    let (vault, works) = (vault(), TestEnv::new().with_a_movable_clock());
    works.configure(&works_configuration(&works));
    let works = works.started();
    ceremony(&works);
    let stick = answered(&vault, &works, "stick", &[]);
    stick.is_installed(&works);
    ceremony(&works);

    let roll = start(&works, "works", "expiry", &[]);
    until("the next key asks", || {
        let next = works.hallmark(&["authority", "csr", "works"]);
        (next.code == Some(0)).then_some(())
    });
    let revoked = answered(&vault, &works, "revoked", &["--rekey"]);
    let serial = text(&revoked.parsed("answers.json")["certificates"][0]["serial"]).to_owned();
    vault.run(&["certificate", "revoke", &serial, "--reason", "superseded"]);
    let list = Stick::on(&works, "list");
    list.is_signed(&vault, &[]);
    list.is_installed(&works);
    let chain = revoked.0.join("works-2.pem");
    let command = ["authority", "install", "works", chain.to_str().unwrap()];
    is_refused(&works.hallmark(&command), "install_revoked", &serial);
    works.run(&["roll", "abort", roll.trim()]);
    let status = works.json(&["status"]);
    assert!(
        !status["alarms"].to_string().contains("Offline Root"),
        "{status:#}"
    );

    works.passes(Duration::days(151));
    has_alarm(&works, "issuer_crl_ends");
    works.passes(Duration::days(30));
    has_alarm(&works, "issuer_crl_ended");
    // The other machine's clock has not moved, so its list has ended here, too.
    let late = Stick::on(&works, "late");
    late.is_signed(&vault, &[]);
    is_refused(&late.install(&works), "issuer_crl_unusable", "not now");
}

fn has_alarm(env: &TestEnv, code: &str) {
    let status = env.json(&["status"]);
    let alarms = status["alarm_details"].as_array().unwrap();
    let found = alarms.iter().any(|it| it["code"] == code);
    assert!(found, "{code}: {alarms:#?}");
}
