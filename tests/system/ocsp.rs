//! Tests OCSP: `openssl ocsp`, `ocsptool` and `curl --cert-status` ask and judge, at plain HTTP and
//! at HTTPS.

use crate::authority_roll::{comes_to, second_signs, start};
use crate::process::{CommandOutput, until};
use crate::relying_party::{Relying, pem};
use crate::request::{Holder, Request, der};
use crate::test_env::{PUBLIC_HTTP, TestEnv};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs;
use std::process::Command;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

pub(crate) const TABLE: &str = "\n[ocsp]\nauthorities = [\"line-1\", \"operations\"]\n";

/// An environment in which two authorities answer.
pub(crate) fn configured(more: &str) -> TestEnv {
    let env = TestEnv::new();
    env.configure(&(env.configuration() + TABLE + more));
    env
}

fn running() -> TestEnv {
    let env = configured("").started();
    wait_for_responders(&env, 2);
    env
}

pub(crate) fn responders(env: &TestEnv) -> Vec<Value> {
    env.json(&["status"])["ocsp"].as_array().unwrap().clone()
}

pub(crate) fn wait_for_responders(env: &TestEnv, count: usize) {
    until("every responder has its certificate", || {
        let found = responders(env);
        let certified = |it: &&Value| it["certificate_not_after"].is_string();
        (found.iter().filter(certified).count() == count).then_some(())
    });
}

/// A client of OCSP, which trusts the root alone.
pub(crate) struct Client<'a> {
    env: &'a TestEnv,
    pub(crate) base: String,
}

impl<'a> Client<'a> {
    pub(crate) fn of(env: &'a TestEnv) -> Self {
        env.write("root.pem", &env.authority("root"));
        let above = ["plant", "line-1", "operations"].map(|it| env.authority(it));
        env.write("above.pem", &above.concat());
        let base = Relying::on(env).base;
        Self { env, base }
    }

    /// Asks `openssl ocsp` by POST about a serial number of the authority `issuer` (a file).
    fn openssl(&self, issuer: &str, serial: &str, more: &[&str]) -> CommandOutput {
        let mut command = Command::new("openssl");
        let authority = issuer.trim_end_matches(".pem").trim_end_matches("-2");
        let url = format!("{}/ocsp/{authority}", self.base);
        command.args(["ocsp"]).args(more);
        command.args([
            "-issuer",
            issuer,
            "-serial",
            &format!("0x{serial}"),
            "-url",
            &url,
        ]);
        command.args(["-CAfile", "root.pem", "-verify_other", "above.pem"]);
        command.args(["-respout", "answer.der", "-resp_text"]);
        CommandOutput::of(command.current_dir(self.env.path("")))
    }

    /// The status of a certificate by line-1, as OpenSSL verified it.
    pub(crate) fn status(&self, serial: &str) -> String {
        self.status_by("line-1.pem", serial)
    }

    fn status_by(&self, issuer: &str, serial: &str) -> String {
        let output = self.openssl(issuer, serial, &["-nonce"]);
        assert!(output.error.contains("Response verify OK"), "{output:?}");
        assert!(!output.error.contains("no nonce"), "{output:?}");
        keep(self.env, "answer.der");
        status_in(&output, serial)
    }

    /// The answer to a GET without a nonce: the body and its headers.
    fn by_get(&self, serial: &str) -> (Vec<u8>, reqwest::header::HeaderMap) {
        let output = Command::new("openssl")
            .args(["ocsp", "-no_nonce", "-issuer", "line-1.pem", "-serial"])
            .args([&format!("0x{serial}"), "-reqout", "request.der"])
            .current_dir(self.env.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let request = fs::read(self.env.path("request.der")).unwrap();
        let encoded = STANDARD.encode(request);
        let encoded = encoded
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        let answer = Relying::on(self.env).get(&format!("/ocsp/line-1/{encoded}"));
        assert_eq!(answer.status(), 200);
        let headers = answer.headers().clone();
        (answer.bytes().unwrap().to_vec(), headers)
    }
}

fn status_in(output: &CommandOutput, serial: &str) -> String {
    let line = format!("0x{serial}: ");
    let mut lines = output.out.lines();
    let said = lines.find_map(|it| it.strip_prefix(&line));
    let said = said.unwrap_or_else(|| panic!("{output:?}"));
    let reason = output
        .out
        .lines()
        .find_map(|it| it.trim().strip_prefix("Reason: "));
    reason.map_or(said.to_owned(), |reason| format!("{said} {reason}"))
}

pub(crate) fn revoke(env: &TestEnv, serial: &str, reason: &str) {
    env.run(&["certificate", "revoke", serial, "--reason", reason]);
}

/// Keeps an answer for pkilint.
fn keep(env: &TestEnv, name: &str) {
    crate::kept::keep_answer(&fs::read(env.path(name)).unwrap());
}

pub(crate) fn with_issuers(env: &TestEnv) -> Client<'_> {
    for name in ["line-1", "operations"] {
        env.write(&format!("{name}.pem"), &env.authority(name));
    }
    Client::of(env)
}

/// The address of OCSP in a certificate.
fn named_in(holder: &Holder) -> Option<String> {
    let der = der(&holder.certificate);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    certificate.extensions().iter().find_map(|it| {
        let ParsedExtension::AuthorityInfoAccess(access) = it.parsed_extension() else {
            return None;
        };
        let mut described = access.accessdescs.iter();
        described.find_map(
            |it| match (&it.access_location, it.access_method.to_id_string()) {
                (GeneralName::URI(uri), method) if method == "1.3.6.1.5.5.7.48.1" => {
                    Some((*uri).to_owned())
                }
                _ => None,
            },
        )
    })
}

/// Verifies: a leaf names its responder; `good`, `revoked` with the reason, on hold and released,
/// and `unknown`, each at once; the answer to a GET is that to a POST, and may be cached; the
/// signatures are in the journal, and the responder's key is shown.
#[test]
fn openssl_gets_every_status_at_once() {
    let env = running();
    let client = with_issuers(&env);
    let station = env.station();
    let [first, second] = ["press-1", "press-2"].map(|id| station.obtain(&Request::device(id)));
    let named = named_in(&first);
    assert_eq!(
        named.as_deref(),
        Some(&*format!("{PUBLIC_HTTP}/ocsp/line-1"))
    );
    assert_eq!(client.status(&first.serial), "good");
    assert_eq!(client.status("4001020304050607"), "unknown");

    let (answer, headers) = client.by_get(&first.serial);
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/ocsp-response");
    assert!(header("cache-control").starts_with("max-age=3600, public"));
    assert!(headers.contains_key("expires") && headers.contains_key("last-modified"));
    assert_eq!(client.by_get(&first.serial).0, answer, "it is kept");

    env.run(&["certificate", "hold", &first.serial]);
    assert_eq!(client.status(&first.serial), "revoked certificateHold");
    assert_ne!(
        client.by_get(&first.serial).0,
        answer,
        "the kept answer is not sent"
    );
    env.run(&["certificate", "release", &first.serial]);
    assert_eq!(client.status(&first.serial), "good");
    revoke(&env, &first.serial, "keyCompromise");
    assert_eq!(client.status(&first.serial), "revoked keyCompromise");
    assert_eq!(client.status(&second.serial), "good");

    // By SHA-256, and by HTTPS.
    let by_sha256 = client.openssl("line-1.pem", &second.serial, &["-sha256", "-nonce"]);
    assert_eq!(status_in(&by_sha256, &second.serial), "good");
    let answer = env.stranger().post_to("/ocsp/line-1");
    let answer = answer
        .header("content-type", "application/ocsp-request")
        .body(fs::read(env.path("request.der")).unwrap())
        .send()
        .unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/ocsp-response"
    );

    until("the journal has the signatures", || {
        let counted =
            "audit WHERE action = 'key.used' AND json_array_length(detail, '$.answers') > 0";
        (env.count(counted) > 0).then_some(())
    });
    let shown = env.json(&["token", "show", "factory"]);
    let mut keys = shown["keys"].as_array().unwrap().iter();
    let key = keys.find(|it| it["label"] == "hallmark-ocsp line-1-1");
    assert_eq!(key.unwrap()["purpose"], "OCSP responder", "{shown:#}");
}

/// Verifies: GnuTLS reads the requests' answers and verifies them, and curl the answer that the
/// HTTPS listener presents with its own certificate.
#[test]
fn ocsptool_and_curl_accept_the_answers() {
    let env = running();
    let client = with_issuers(&env);
    let leaf = env.station().obtain(&Request::device("press-1"));
    env.write("leaf.pem", &leaf.certificate);
    let ask = |words: &str| {
        let url = format!("{}/ocsp/line-1", client.base);
        let mut command = Command::new("ocsptool");
        command.args([
            &format!("--ask={url}"),
            "--nonce",
            "--load-cert",
            "leaf.pem",
        ]);
        command.args(["--load-issuer", "line-1.pem", "--load-trust", "line-1.pem"]);
        command.args(["--outder", "--outfile", "answer.der"]);
        let output = CommandOutput::of(command.current_dir(env.path("")));
        let said = output.out.clone() + &output.error;
        assert!(said.contains("Success"), "{output:?}");
        let mut command = Command::new("ocsptool");
        command.args(["--response-info", "--infile", "answer.der"]);
        let shown = CommandOutput::of(command.current_dir(env.path("")));
        assert!(shown.out.contains(words), "{shown:?}");
    };
    ask("Certificate Status: good");
    revoke(&env, &leaf.serial, "superseded");
    ask("Certificate Status: revoked");
    keep(&env, "answer.der");

    let https = env.https().replace("127.0.0.1", "localhost");
    let curl = || {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--cert-status",
            "--cacert",
            "root.pem",
        ]);
        command.args(["--noproxy", "*", &format!("{https}/healthz")]);
        CommandOutput::of(command.current_dir(env.path("")))
    };
    until("curl accepts the presented answer", || {
        (curl().code == Some(0)).then_some(())
    });
}

/// Verifies: one answer has the status of each certificate of a request, and no cache keeps it; it
/// is for one issuer, and for 16 certificates at most.
#[test]
fn one_answer_has_the_status_of_several_certificates() {
    let env = running();
    let client = with_issuers(&env);
    let station = env.station();
    let [first, second] = ["press-1", "press-2"].map(|id| station.obtain(&Request::device(id)));
    revoke(&env, &second.serial, "superseded");
    let unknown = "4001020304050607";
    let of_line_1 = |serial: &str| ["-issuer", "line-1.pem", "-serial", serial].join(" ");
    let ask = |more: &str| {
        let more: Vec<&str> = more.split(' ').collect();
        client.openssl("line-1.pem", unknown, &more)
    };
    let [good, revoked] = [&first, &second].map(|it| of_line_1(&format!("0x{}", it.serial)));
    let several = ask(&format!("-nonce {good} {revoked}"));
    assert!(several.error.contains("Response verify OK"), "{several:?}");
    for (serial, status) in [
        (&*first.serial, "good"),
        (&*second.serial, "revoked"),
        (unknown, "unknown"),
    ] {
        assert!(
            status_in(&several, serial).starts_with(status),
            "{several:?}"
        );
    }
    keep(&env, "answer.der");

    let again = ask(&format!("-no_nonce {good} {revoked} -reqout request.der"));
    assert!(again.error.contains("Response verify OK"), "{again:?}");
    let relying = Relying::on(&env);
    let asked = relying.http.post(format!("{}/ocsp/line-1", client.base));
    let asked = asked.header("content-type", "application/ocsp-request");
    let request = fs::read(env.path("request.der")).unwrap();
    let answer = asked.body(request).send().unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");

    let foreign = ask(&format!(
        "-issuer operations.pem -serial 0x{}",
        first.serial
    ));
    assert!(foreign.out.contains("unauthorized"), "{foreign:?}");
    let serial = format!(" {good}");
    let full = ask(&format!("-nonce{}", serial.repeat(15)));
    assert!(full.error.contains("Response verify OK"), "{full:?}");
    let over = ask(&format!("-nonce{}", serial.repeat(16)));
    assert!(over.out.contains("malformedrequest"), "{over:?}");
}

/// Verifies: requests with errors get the answers of RFC 6960, and refusals of HTTP their codes;
/// nothing of that is written.
#[test]
fn each_wrong_request_gets_its_answer() {
    let env = running();
    let client = with_issuers(&env);
    let before = env.entries();
    let relying = Relying::on(&env);
    let post = |path: &str, kind: &str, body: &[u8]| {
        let url = format!("{}{path}", relying.base);
        let asked = relying.http.post(url).header("content-type", kind);
        let answer = asked.body(body.to_vec()).send().unwrap();
        (answer.status().as_u16(), answer.bytes().unwrap().to_vec())
    };
    let ocsp = "application/ocsp-request";
    let malformed = b"\x30\x03\x0a\x01\x01".to_vec();
    assert_eq!(
        post("/ocsp/line-1", ocsp, b"no request"),
        (200, malformed.clone())
    );
    let get = relying.get("/ocsp/line-1/%21%21");
    assert_eq!(
        (get.status().as_u16(), get.bytes().unwrap().to_vec()),
        (200, malformed)
    );
    assert_eq!(post("/ocsp/line-1", ocsp, &[0x30; 5_000]).0, 413);
    assert_eq!(post("/ocsp/line-1", "text/plain", b"x").0, 415);
    assert_eq!(post("/ocsp/root", ocsp, b"x").0, 404);
    assert_eq!(relying.get("/ocsp/line-1").status(), 405);
    // The issuer is another one than in the address.
    let url = format!("{}/ocsp/operations", client.base);
    let mut command = Command::new("openssl");
    command.args([
        "ocsp",
        "-issuer",
        "line-1.pem",
        "-serial",
        "0x4001020304050607",
    ]);
    command.args(["-url", &url, "-noverify"]);
    let other = CommandOutput::of(command.current_dir(env.path("")));
    assert!(other.out.contains("unauthorized"), "{other:?}");
    assert_eq!(env.entries(), before);
}

/// Verifies: while the token is away a kept answer is sent, without a nonce, but none that a
/// revocation has made wrong; after a restart without the token `tryLater`; with it the same
/// responder answers.
#[test]
fn kept_answers_outlast_the_token_and_never_a_revocation() {
    let mut env = running();
    let station = env.station();
    let [first, second] = ["press-1", "press-2"].map(|id| station.obtain(&Request::device(id)));
    let kept = with_issuers(&env).by_get(&first.serial).0;
    with_issuers(&env).by_get(&second.serial);
    let key = responder_key(&env);
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    until("the token is away", || {
        let state = env.json(&["status"])["tokens"]["factory"]["state"].clone();
        if state == "ready" {
            // The loss shows when something is signed.
            with_issuers(&env).openssl("line-1.pem", "4001020304050607", &["-no_nonce"]);
        }
        (state != "ready").then_some(())
    });
    revoke(&env, &second.serial, "superseded");
    let client = with_issuers(&env);
    assert_eq!(client.by_get(&first.serial).0, kept);
    let without = client.openssl("line-1.pem", &first.serial, &["-nonce"]);
    assert!(
        without.error.contains("no nonce in response"),
        "{without:?}"
    );
    assert_eq!(status_in(&without, &first.serial), "good");
    let try_later = |serial: &str| {
        let output = with_issuers(&env).openssl("line-1.pem", serial, &["-no_nonce"]);
        assert!(output.out.contains("trylater"), "{output:?}");
    };
    try_later(&second.serial);
    try_later("4001020304050607");

    env.stop();
    env.start();
    let again = with_issuers(&env).openssl("line-1.pem", &first.serial, &["-no_nonce"]);
    assert!(again.out.contains("trylater"), "{again:?}");
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    env.wait_ready();
    let client = with_issuers(&env);
    until("the responder answers again", || {
        let output = client.openssl("line-1.pem", &second.serial, &["-no_nonce"]);
        output.out.contains(": revoked").then_some(())
    });
    assert_eq!(responder_key(&env), key);
}

/// The key of line-1's responder.
pub(crate) fn responder_key(env: &TestEnv) -> Vec<u8> {
    let store = crate::invariants::open(&env.database());
    let sql = "SELECT r.spki FROM responder r JOIN generation g ON g.id = r.generation \
               WHERE g.authority = 'line-1' AND g.number = 1";
    store.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Verifies: after a rollover both generations answer, each for what it has issued.
#[test]
fn both_generations_of_a_rolled_authority_answer() {
    let env = running();
    let client = with_issuers(&env);
    let old = env.station().obtain(&Request::device("press-1"));
    let roll = start(&env, "line-1", "expiry", &[]);
    until("the second generation signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    comes_to(&env, &roll, "draining");
    wait_for_responders(&env, 3);
    let new = env
        .station_called("station-2")
        .obtain(&Request::device("press-2"));
    let second = Relying::on(&env).fetch(&format!("{PUBLIC_HTTP}/ca/line-1-2.cer"));
    let second = pem("x509", &second);
    env.write("line-1-2.pem", &second);
    let above = fs::read_to_string(env.path("above.pem")).unwrap();
    env.write("above.pem", &(above + &second));
    assert_eq!(client.status_by("line-1.pem", &old.serial), "good");
    assert_eq!(client.status_by("line-1-2.pem", &new.serial), "good");
    assert_eq!(client.status_by("line-1-2.pem", &old.serial), "unknown");
    revoke(&env, &old.serial, "superseded");
    assert!(
        client
            .status_by("line-1.pem", &old.serial)
            .starts_with("revoked")
    );

    // A generation that is excluded gives no answers, and its certificates are refused by their
    // chain.
    env.run(&["authority", "block", "line-1", "--generation", "1"]);
    let blocked = client.openssl("line-1.pem", &old.serial, &["-no_nonce"]);
    assert!(blocked.out.contains("unauthorized"), "{blocked:?}");
    env.run(&["authority", "unblock", "line-1", "--generation", "1"]);
}
