//! Tests the commands by which two people agree, signatures that OpenSSL makes and verifies, and
//! the configuration.

use crate::approvals::{Guarded, backup, post};
use crate::caller::{Answer, Caller};
use crate::process::CommandOutput;
use crate::runbook_text::Runbook;
use crate::terminal::Terminal;
use crate::test_env::{HALLMARK, TestEnv};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Verifies: OpenSSL signs what the daemon writes, for the command and over HTTPS in the name of
/// the approver; and OpenSSL verifies the approval from an export of the journal alone.
#[test]
fn openssl_signs_an_approval_and_verifies_it_from_the_journal() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let key = guarded.file_of(&guarded.approver, "key");
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        let output = CommandOutput::of(command.args(arguments));
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
    };
    let path = |name: &str| env.path(name).display().to_string();
    let sign = |id: i64| {
        env.run(&[
            "approval",
            "show",
            &id.to_string(),
            "--file",
            &path("document"),
        ]);
        let (key, signature) = (key.display().to_string(), path("signature"));
        let from = path("document");
        openssl(&["dgst", "-sha256", "-sign", &key, "-out", &signature, &from]);
    };
    let id = guarded.waits(&backup());
    sign(id);
    let certificate = guarded.file_of(&guarded.approver, "pem");
    let id = id.to_string();
    env.run(&[
        "approve",
        &id,
        "--signature",
        &path("signature"),
        "--certificate",
        certificate.to_str().unwrap(),
    ]);
    let (status, _) = guarded.ask(&backup(), id.parse().ok());
    assert_eq!(status, 200);

    let id = guarded.waits(&post("/v1/clock/accept", &json!({})));
    sign(id);
    let signature = fs::read(env.path("signature")).unwrap();
    let approver: Caller = env.caller(&guarded.approver);
    let read = approver.get(&format!("/v1/approvals/{id}"));
    assert_eq!(read.body["state"], "waiting", "{read:?}");
    let send = approver.post_to(&format!("/v1/approvals/{id}/signature"));
    let send = send.json(&json!({ "signature": STANDARD.encode(signature) }));
    let answer = Answer::read(send.send().unwrap()).unwrap();
    assert_eq!(answer.body["approved_by"], "approver bob", "{answer:?}");

    let journal = env.run(&["audit", "export"]);
    let entries = journal
        .lines()
        .map(|it| serde_json::from_str::<Value>(it).unwrap());
    let mut used = entries.filter(|it| it["action"] == "approval.used");
    let detail = used.next().unwrap()["detail"].clone();
    let bytes = |name: &str| STANDARD.decode(detail[name].as_str().unwrap()).unwrap();
    let document = format!(
        "hallmark approval 1\n{}",
        detail["document"].as_str().unwrap()
    );
    fs::write(env.path("exported.txt"), document).unwrap();
    fs::write(env.path("exported.cer"), bytes("certificate")).unwrap();
    fs::write(env.path("exported.sig"), bytes("signature")).unwrap();
    let (cer, public) = (path("exported.cer"), path("exported.pub"));
    openssl(&[
        "x509", "-inform", "DER", "-in", &cer, "-noout", "-pubkey", "-out", &public,
    ]);
    let (signature, document) = (path("exported.sig"), path("exported.txt"));
    openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        &public,
        "-signature",
        &signature,
        &document,
    ]);
}

/// Verifies: the status names what waits, the list has it, and a command that is repeated with the
/// number of its approval does its work.
#[test]
fn a_command_says_what_it_waits_for_and_goes_on_with_the_approval() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let output = env.hallmark(&["--json", "backup", "create"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let failure: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(failure["code"], "approval_required", "{failure}");
    let id = failure["approval"]["id"].as_i64().unwrap();
    let status = env.hallmark(&["status"]);
    assert_eq!(status.code, Some(1), "attention: {status:?}");
    assert!(status.out.contains("waits for an approval"), "{status:?}");
    let listed = env.json(&["approval", "list", "--waiting"]);
    assert_eq!(listed[0]["id"], id, "{listed}");
    let shown = env.run(&["approval", "show", &id.to_string()]);
    for words in [
        "hallmark approval 1",
        "backup.create",
        "/v1/backups",
        "\"nonce\"",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let key = guarded.file_of(&guarded.approver, "key");
    let certificate = guarded.file_of(&guarded.approver, "pem");
    let [key, certificate] = [&key, &certificate].map(|it| it.to_str().unwrap());
    let number = id.to_string();
    let unasked = [
        "approve",
        &number,
        "--key",
        key,
        "--certificate",
        certificate,
    ];
    let output = env.hallmark(&unasked);
    assert_eq!(output.code, Some(2), "no terminal, no --yes: {output:?}");
    assert!(
        output.out.contains("/v1/backups"),
        "it was shown: {output:?}"
    );
    guarded.approve(id);
    env.run(&["--approval", &number, "backup", "create"]);
    assert_eq!(env.hallmark(&["status"]).code, Some(0));
}

/// Verifies: `check` refuses an unknown action, a rule that one operator could go round, and one
/// that no person could follow.
#[test]
fn a_rule_that_does_not_hold_is_refused() {
    let env = TestEnv::new();
    let free = env.configuration();
    let without_roles = free
        .replace("role = \"operator\"", "role = \"auditor\"")
        .replace("role = \"approver\"", "role = \"auditor\"");
    let table = |actions: &str| format!("\n[approval]\nactions = [{actions}]\n");
    for (base, actions, words) in [
        (
            &free,
            "\"backup.make\"",
            "\"backup.make\" is no action; there are authority.create",
        ),
        (&free, "\"backup.create\"", "needs \"role.change\""),
        (&without_roles, "\"role.change\"", "role \"approver\""),
    ] {
        env.configure(&(base.clone() + &table(actions)));
        let output = env.check();
        assert_eq!(output.code, Some(1), "{actions}: {output:?}");
        assert!(output.out.contains(words), "{words}: {output:?}");
    }
}

/// Follows the page: the operator asks, the approver signs with the key and then by OpenSSL, and
/// the operator repeats the command.
#[test]
fn two_people_follow_the_page() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    fs::rename(
        guarded.file_of(&guarded.approver, "key"),
        env.path("bob.key"),
    )
    .unwrap();
    fs::rename(
        guarded.file_of(&guarded.approver, "pem"),
        env.path("bob.pem"),
    )
    .unwrap();
    let mut page = Runbook::of("Two people agree");
    let output = page.line(&[]).run(env);
    assert!(output.error.contains("approval_required"), "{output:?}");
    assert!(page.text(env).contains("backup.create"));
    let own = |number: &'static str| [("7", number)];
    let mut line = page.line(&own("1"));
    line.0.push("--yes".into());
    line.text(env);
    let other = post("/v1/clock/accept", &json!({}));
    assert_eq!(guarded.waits(&other), 2);
    for _ in 0..3 {
        page.line(&own("2")).text(env);
    }
    page.line(&own("1")).text(env);
    assert_eq!(guarded.ask(&other, Some(2)).0, 200);
}

/// Verifies: on a terminal the command shows what is signed and asks; a no signs nothing.
#[test]
fn an_approver_is_asked_on_a_terminal() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let id = guarded.waits(&backup());
    let key = guarded.file_of(&guarded.approver, "key");
    let certificate = guarded.file_of(&guarded.approver, "pem");
    let line = format!(
        "{HALLMARK} --admin-socket {} approve {id} --key {} --certificate {}",
        env.path(env.admin).display(),
        key.display(),
        certificate.display()
    );
    for (typed, code, state) in [("n", 1, "waiting"), ("y", 0, "approved")] {
        let mut terminal = Terminal::open(&line);
        terminal.shows("/v1/backups");
        terminal.answer("Approve this?", typed);
        assert_eq!(terminal.code(), Some(code), "{typed}");
        let shown = env.json(&["approval", "show", &id.to_string()]);
        assert_eq!(shown["state"], state, "{shown}");
    }
}

/// Verifies: the compromise of an authority excludes nothing while it waits, and everything below
/// once it is approved.
#[test]
fn an_authority_is_excluded_by_two_people() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let start = ["roll", "start", "--authority", "line-1"];
    let start = [&start[..], &["--reason", "compromise"]].concat();
    let output = env.hallmark(&[&["--json"], &start[..]].concat());
    let failure: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(failure["code"], "approval_required", "{failure}");
    let id = failure["approval"]["id"].as_i64().unwrap();
    let revoked = "certificate WHERE revoked_at IS NOT NULL";
    guarded.approve(id);
    assert_eq!(env.count(revoked), 0, "the approval alone excludes nothing");
    let started = env.json(&[&["--approval", &id.to_string()], &start[..]].concat());
    assert_eq!(started["rolls"][0]["authority"], "line-1", "{started}");
    assert_eq!(env.count(revoked), 1);
    env.wait_in_sync();
}
