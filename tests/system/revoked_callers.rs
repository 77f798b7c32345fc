//! Tests revocation of stations, operators, auditors, devices and the listener: one command revokes
//! the certificate, and its holder is refused at its next request, on every connection.

use crate::keepalive::KeepAlive;
use crate::process::CommandOutput;
use crate::relying_party::Relying;
use crate::request::{Holder, Request, der};
use crate::roles::with_operators;
use crate::test_env::TestEnv;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

const REVOKED: (u16, &str) = (401, "client_certificate_revoked");
/// A path that answers 403 to some roles, and 401 to strangers.
pub(crate) const SOMEWHERE: &str = "/v1/devices";

pub(crate) fn revoke(env: &TestEnv, arguments: &[&str]) -> Value {
    env.json(&[&["certificate", "revoke"], arguments].concat())
}

/// Asserts that the command is refused with this code and says all of this.
fn is_refused(env: &TestEnv, arguments: &[&str], code: &str, words: &[&str]) {
    let output = env.hallmark(&[&["certificate", "revoke"], arguments].concat());
    assert_eq!(output.code, Some(1), "{arguments:?}: {output:?}");
    for word in [&[code], words].concat() {
        assert!(output.error.contains(word), "{arguments:?}: {output:?}");
    }
}

pub(crate) fn is_identified(output: &(u16, String)) {
    assert!(matches!(output.0, 200 | 403), "{output:?}");
}

fn is_out(output: (u16, String)) {
    assert_eq!((output.0, output.1.as_str()), REVOKED);
}

fn reason_on_list(relying: &Relying, authority: &str, serial: &str) -> Option<u8> {
    relying.listed(authority).1.get(serial).copied()
}

/// Each role, each way to name a certificate. Verifies: the holder is refused at the next request
/// on a kept-alive connection and on a new one; the others are not; list and journal say why; a
/// repeated command changes nothing and says since when.
#[test]
fn a_revoked_caller_is_refused_whatever_its_role() {
    let env = with_operators();
    let relying = Relying::on(&env);
    let witness = env.enlist("operator", "operator-9");
    let mut witness = KeepAlive::secured(&env, &witness);
    for (role, authority, reason, code) in [
        ("station", "operations", "keyCompromise", 1),
        ("operator", "operations", "cessationOfOperation", 5),
        ("auditor", "operations", "privilege-withdrawn", 9),
        ("device", "line-1", "superseded", 4),
    ] {
        let holder = env.enlist(role, &format!("{role}-1"));
        let other = env.enlist(role, &format!("{role}-2"));
        let mut kept = KeepAlive::secured(&env, &holder);
        is_identified(&kept.asks(SOMEWHERE));
        let chain = holder.certificate.clone() + &holder.chain.concat();
        let pem = env.write("its.pem", &chain);
        let binary = env.path("its.der");
        fs::write(&binary, der(&holder.certificate)).unwrap();
        let colons = holder.serial.to_lowercase().into_bytes();
        let colons: Vec<_> = colons
            .chunks(2)
            .map(|it| str::from_utf8(it).unwrap())
            .collect();
        let named: &[&str] = match role {
            "station" => &[&holder.serial],
            "operator" => &["--file", pem.to_str().unwrap()],
            "auditor" => &["--file", binary.to_str().unwrap()],
            _ => &[&holder.thumbprint],
        };
        let why = ["--reason", reason, "--cause", "its laptop is gone"];
        let output = revoke(&env, &[named, &why].concat());
        is_out(kept.asks(SOMEWHERE));
        is_out(KeepAlive::secured(&env, &holder).asks(SOMEWHERE));
        is_identified(&KeepAlive::secured(&env, &other).asks(SOMEWHERE));
        is_identified(&witness.asks(SOMEWHERE));
        assert_eq!(
            (&output["role"], &output["serial"]),
            (&json!(role), &json!(holder.serial))
        );
        assert_eq!(output["already_revoked"], false);
        assert_eq!(output["receipt"]["complete"], true, "{output}");
        assert_eq!(
            reason_on_list(&relying, authority, &holder.serial),
            Some(code)
        );

        let again = [
            &colons.join(":"),
            "--authority",
            authority,
            "--reason",
            "keyCompromise",
        ];
        let again = revoke(&env, &again);
        assert_eq!(again["already_revoked"], true);
        for member in ["revoked_at", "reason"] {
            assert_eq!(again[member], output[member]);
        }
        let entry = "audit WHERE action = 'certificate.revoked' AND actor LIKE 'local uid %'
                     AND detail ->> 'cause' = 'its laptop is gone' AND detail ->> 'serial'";
        assert_eq!(env.count(&format!("{entry} = '{}'", holder.serial)), 1);
    }
}

/// Verifies: the receipt names DPS and hub, which read no list, with the command that excludes the
/// device there; for a holder without a leaf at a service it names neither.
#[test]
fn the_receipt_says_what_a_revocation_does_not_reach() {
    let env = TestEnv::running();
    let device = env.enlist("device", "press-7");
    let output = revoke(&env, &[&device.serial, "--reason", "keyCompromise"]);
    let notices = output["notices"].to_string();
    for word in [
        "the device's current leaf",
        "hallmark roll start press-7 --reason compromise",
        "hallmark device block press-7",
    ] {
        assert!(notices.contains(word), "{notices}");
    }
    let output = env.run(&[
        "certificate",
        "revoke",
        &device.serial,
        "--reason",
        "superseded",
    ]);
    assert!(
        output.contains("DPS and its hub read no revocation list"),
        "{output}"
    );
    let station = env.enlist("station", "press-7");
    let output = revoke(&env, &[&station.serial, "--reason", "superseded"]);
    assert_eq!(output["notices"], json!([]));
    let next = env.enlist("device", "press-7");
    is_identified(&KeepAlive::secured(&env, &next).asks(SOMEWHERE));
    let request = Request::device("press-7");
    let station = env.enlist("station", "station-1");
    env.caller(&station).obtain(&request);
}

/// Verifies: each reason of RFC 5280 for a leaf is accepted; a hold can be made final, and nothing
/// else changes; a certificate of another issuer, of an authority, or without a name is refused,
/// and the answer says what to do.
#[test]
fn reasons_and_names_are_judged() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let serial = station.serial.as_str();
    let output = revoke(&env, &[serial, "--reason", "certificateHold"]);
    let since = &output["revoked_at"];
    is_out(KeepAlive::secured(&env, &station).asks(SOMEWHERE));
    for (reason, stands) in [
        ("certificateHold", "certificateHold"),
        ("KEY_COMPROMISE", "keyCompromise"),
        ("superseded", "keyCompromise"),
    ] {
        let output = revoke(&env, &[serial, "--reason", reason]);
        assert_eq!(
            (&output["revoked_at"], &output["reason"]),
            (since, &json!(stands))
        );
    }
    let key = env.write("key.pem", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n");
    let key = key.to_str().unwrap();
    let refused = [
        "certificate",
        "revoke",
        "--file",
        key,
        "--reason",
        "superseded",
    ];
    let output = env.hallmark(&refused);
    assert!(output.error.contains("nothing was sent"), "{output:?}");
    for reason in [
        "unspecified",
        "keyCompromise",
        "affiliationChanged",
        "superseded",
        "cessationOfOperation",
        "certificateHold",
        "privilegeWithdrawn",
    ] {
        let holder = env.enlist("auditor", "auditor-1");
        let output = revoke(&env, &[&holder.serial, "--reason", reason]);
        assert_eq!(output["reason"], reason);
    }
    let good = ["--reason", "superseded"];
    let file = |name: &str, text: &str| env.write(name, text).to_str().unwrap().to_owned();
    let foreign = rcgen::generate_simple_self_signed(["x.example".to_owned()]).unwrap();
    let foreign = file("foreign.pem", &foreign.cert.pem());
    let csr = file("some.csr", &Request::device("press-9").csr);
    let root = file("root.pem", &env.authority("root"));
    let operations = env.json(&["authority", "show", "operations"])[0]["serial"].clone();
    let long = "x".repeat(1_025);
    for (arguments, code, words) in [
        (
            &["0abc", good[0], good[1]][..],
            "certificate_unknown",
            &[][..],
        ),
        (
            &[serial, "--authority", "line-1", good[0], good[1]],
            "certificate_unknown",
            &["line-1"],
        ),
        (
            &["--file", &foreign, good[0], good[1]],
            "certificate_unknown",
            &["SHA-256"],
        ),
        (
            &[&"ab".repeat(32), good[0], good[1]],
            "certificate_unknown",
            &["SHA-256"],
        ),
        (
            &["press-7", good[0], good[1]],
            "serial_invalid",
            &["hexadecimal"],
        ),
        (
            &["--file", &csr, good[0], good[1]],
            "certificate_malformed",
            &["PEM"],
        ),
        (
            &[serial, "--reason", "removeFromCRL"],
            "reason_invalid",
            &["keyCompromise"],
        ),
        (
            &[serial, "--reason", "cACompromise"],
            "reason_invalid",
            &["keyCompromise"],
        ),
        (
            &[serial, "--reason", "aACompromise"],
            "reason_invalid",
            &["keyCompromise"],
        ),
        (
            &[serial, "--reason", "superseded", "--everywhere"],
            "reason_invalid",
            &["nothing was revoked", "hallmark device block"],
        ),
        (
            &[serial, "--reason", "stolen"],
            "reason_invalid",
            &["keyCompromise"],
        ),
        (
            &[serial, good[0], good[1], "--cause", &long],
            "cause_too_long",
            &["1024"],
        ),
        (
            &["--file", &root, good[0], good[1]],
            "certificate_of_authority",
            &[
                "roll start --authority root --generation 1 --reason compromise",
                "authority block",
            ],
        ),
        (
            &[operations.as_str().unwrap(), good[0], good[1]],
            "certificate_of_authority",
            &[],
        ),
    ] {
        is_refused(&env, arguments, code, words);
    }
    for usage in [
        &["certificate", "revoke", "--reason", "superseded"][..],
        &["certificate", "revoke", serial],
        &[
            "certificate",
            "revoke",
            serial,
            "--file",
            &root,
            good[0],
            good[1],
        ],
    ] {
        assert_eq!(env.hallmark(usage).code, Some(2), "{usage:?}");
    }
    let missing = [
        "certificate",
        "revoke",
        "--file",
        "/nonexistent",
        good[0],
        good[1],
    ];
    assert_eq!(env.hallmark(&missing).code, Some(1));
}

fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// An operator revokes its own certificate, and has sent its next request already. Verifies:
/// stations and auditors may not revoke; the operator's next request is refused, although it was
/// sent before the answer; the admin socket still works.
#[test]
fn a_request_that_was_sent_beside_the_revocation_is_refused() {
    const ADDRESS: &str = "/v1/certificates/revocations";
    let env = with_operators();
    let operator = env.enlist("operator", "operator-1");
    let body = json!({ "serial": operator.serial, "reason": "keyCompromise" });
    for role in ["station", "auditor"] {
        let mut caller = KeepAlive::secured(&env, &env.enlist(role, role));
        caller.send(&request(ADDRESS, &body));
        assert_eq!(
            caller.answer(),
            (403, "role_forbidden".to_owned()),
            "{role}"
        );
    }
    let mut kept = KeepAlive::secured(&env, &operator);
    for body in [
        json!({ "reason": "keyCompromise" }),
        json!({ "serial": "0a", "sha256": "0b", "reason": "keyCompromise" }),
    ] {
        kept.send(&request(ADDRESS, &body));
        assert_eq!(kept.answer(), (400, "certificate_not_named".to_owned()));
    }
    kept.send(&request(ADDRESS, &json!({ "serial": operator.serial })));
    assert_eq!(kept.answer().0, 422, "no reason is given");
    let next = "GET /v1/devices HTTP/1.1\r\nhost: localhost\r\n\r\n";
    kept.send(&(request(ADDRESS, &body) + next + next));
    assert_eq!(kept.answer().0, 200);
    is_out(kept.answer());
    kept.wait_closed();
    let output = revoke(&env, &[&operator.serial, "--reason", "superseded"]);
    assert_eq!(output["already_revoked"], true, "the admin socket is open");
}

/// The client decides how long its body takes. Verifies: an operator that is revoked, or whose
/// authority is blocked, after the head of its request came, has no effect by the rest of it.
#[test]
fn a_request_whose_body_comes_after_the_exclusion_is_refused() {
    let env = with_operators();
    let body = json!({ "reason": "compromise" }).to_string();
    let compromise = request(
        "/v1/authorities/line-1/rolls",
        &json!({ "reason": "compromise" }),
    );
    let (head, rest) = compromise.split_at(compromise.len() - body.len() + 3);
    let first = env.enlist("operator", "operator-1");
    let second = env.enlist("operator", "operator-2");
    let mut revoked = KeepAlive::secured(&env, &first);
    let mut blocked = KeepAlive::secured(&env, &second);
    revoked.send(head);
    blocked.send(head);
    revoke(&env, &[&first.serial, "--reason", "keyCompromise"]);
    revoked.send(rest);
    is_out(revoked.answer());
    env.run(&["authority", "block", "operations", "--generation", "1"]);
    blocked.send(rest);
    is_out(blocked.answer());
    assert_eq!(env.count("roll"), 0);
}

/// The output of `openssl s_client` on a connection that may resume the session in a file, and
/// stores the next session there.
fn s_client(env: &TestEnv, version: &str, holder: &Holder, resumes: bool) -> CommandOutput {
    let file = |name: &str, text: &str| env.write(name, text);
    let session = env.path(&format!("session{version}"));
    let mut command = Command::new("openssl");
    command.args(["s_client", version, "-ign_eof", "-connect"]);
    command.arg(env.https().replace("https://", ""));
    command
        .arg("-CAfile")
        .arg(file("s-root.pem", &env.authority("root")));
    command
        .arg("-cert")
        .arg(file("s-client.pem", &holder.certificate));
    command.arg("-key").arg(file("s-client.key", &holder.key));
    command.arg("-sess_out").arg(&session);
    if resumes {
        command.arg("-sess_in").arg(&session);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let request = "GET /v1/devices HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(request.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    CommandOutput {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A resumed session presents no certificate: the daemon remembers it. Verifies, in TLS 1.2 and
/// 1.3: the holder is identified in a resumed session, and refused there once its certificate is
/// revoked.
#[test]
fn a_resumed_session_of_a_revoked_caller_is_refused() {
    let env = TestEnv::running();
    for version in ["-tls1_2", "-tls1_3"] {
        let station = env.enlist("station", &format!("station{version}"));
        let says = |resumes: bool, words: [&str; 2]| {
            let output = s_client(&env, version, &station, resumes);
            for word in words {
                assert!(output.out.contains(word), "{version} {word}: {output:?}");
            }
        };
        says(false, ["New, TLS", "role_forbidden"]);
        says(true, ["Reused, TLS", "role_forbidden"]);
        revoke(&env, &[&station.serial, "--reason", "keyCompromise"]);
        says(true, ["Reused, TLS", "client_certificate_revoked"]);
        says(true, ["Reused, TLS", "client_certificate_revoked"]);
    }
}
