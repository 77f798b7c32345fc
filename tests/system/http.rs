//! Tests what any client of HTTP meets at the listeners, with curl and OpenSSL as clients: versions
//! of HTTP, ALPN, HEAD, and requests that no route takes, which say what to do instead.

use crate::process::CommandOutput;
use crate::test_env::TestEnv;
use serde_json::Value;
use std::process::{Command, Stdio};

/// An answer: its head in small letters, and its body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn code(&self) -> String {
        let document: Value = serde_json::from_str(&self.body).unwrap_or_default();
        document["code"].as_str().unwrap_or_default().to_owned()
    }

    fn detail(&self) -> String {
        let document: Value = serde_json::from_str(&self.body).unwrap_or_default();
        document["detail"].as_str().unwrap_or_default().to_owned()
    }
}

fn curl(arguments: &[&str], url: &str) -> Answer {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--include"]);
    let output = CommandOutput::of(command.args(arguments).arg(url));
    assert_eq!(output.code, Some(0), "{arguments:?} {url}: {output:?}");
    let (head, body) = output.out.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// Clients that speak HTTP/1.0, or name it by ALPN, are served; one that names only protocols that
/// the daemon does not speak is refused in the handshake, with the alert for that.
#[test]
fn every_client_of_http_1_is_served() {
    let env = TestEnv::running();
    let base = env.https();
    let cacerts = format!("{base}/.well-known/est/device/cacerts");
    let usual = curl(&[], &cacerts);
    for version in [
        &["--http1.0"][..],
        &["--http1.0", "--no-alpn"],
        &["--http1.1"],
        &["--http1.1", "--no-alpn"],
        &["--http2"],
        &["--http1.0", "--header", "host:"],
    ] {
        let answer = curl(version, &cacerts);
        assert_eq!(answer.status, 200, "{version:?}: {}", answer.head);
        assert_eq!(answer.body, usual.body, "{version:?}");
    }
    let address = base.trim_start_matches("https://");
    let shaken = |protocols: &str| {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", address, "-alpn", protocols]);
        let output = CommandOutput::of(client.stdin(Stdio::null()));
        output.out + &output.error
    };
    for (protocols, chosen) in [
        ("http/1.0", "http/1.0"),
        ("http/1.0,http/1.1", "http/1.1"),
        ("h2,http/1.1", "http/1.1"),
        ("spdy/3,foo,http/1.0", "http/1.0"),
    ] {
        let shown = shaken(protocols);
        let line = format!("ALPN protocol: {chosen}");
        assert!(shown.contains(&line), "{protocols}: {shown}");
    }
    for protocols in ["h2", "mqtt,foo"] {
        let shown = shaken(protocols);
        assert!(shown.contains("no application protocol"), "{shown}");
    }
}

/// A method that an address does not take is refused with those that it takes, in the header and in
/// words; HEAD is answered like GET, without the body.
#[test]
fn another_method_is_refused_with_those_that_the_address_takes() {
    let env = TestEnv::running();
    let base = env.https();
    for (method, path, allow) in [
        ("POST", "/.well-known/est/device/cacerts", "get,head"),
        ("GET", "/.well-known/est/device/simpleenroll", "post"),
        ("PUT", "/.well-known/est/simplereenroll/", "post"),
        ("PUT", "/v1/certificates", "get,head,post"),
        ("PATCH", "/v1/rolls", "get,head,post"),
        ("OPTIONS", "/v1/devices/press-7", "get,head"),
        ("PUT", "/v1/blocks/device/press-7", "get,head,delete"),
        ("DELETE", "/healthz", "get,head"),
    ] {
        let answer = curl(&["--request", method], &format!("{base}{path}"));
        assert_eq!(answer.status, 405, "{method} {path}: {}", answer.head);
        let header = format!("\r\nallow: {allow}");
        assert!(answer.head.contains(&header), "{}", answer.head);
        let kind = "\r\ncontent-type: application/problem+json";
        assert!(answer.head.contains(kind), "{}", answer.head);
        assert_eq!(answer.code(), "method_not_allowed", "{}", answer.body);
        let detail = answer.detail();
        for word in [method, &allow.to_uppercase().replace(',', ", ")] {
            assert!(detail.contains(word), "{detail}");
        }
    }
    let plain = env.json(&["status"])["http"].as_str().unwrap().to_owned();
    let answer = curl(
        &["--request", "POST"],
        &format!("http://{plain}/crl/root.crl"),
    );
    assert_eq!(
        (answer.status, answer.code()),
        (405, "method_not_allowed".into())
    );

    let whole = curl(&[], &format!("{base}/.well-known/est/device/cacerts"));
    let length = format!("\r\ncontent-length: {}", whole.body.len());
    for (path, header) in [
        ("/.well-known/est/device/cacerts", length.as_str()),
        ("/crl/root.crl", "\r\ncontent-type: application/pkix-crl"),
        ("/healthz", ""),
    ] {
        let answer = curl(&["--head"], &format!("{base}{path}"));
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
        assert!(answer.head.contains(header), "{}", answer.head);
    }
    let answer = curl(&["--head"], &format!("{base}/v1/reload"));
    assert_eq!((answer.status, answer.body.as_str()), (405, ""));
}

/// EST takes a slash at the end; every other address that nothing is at says what to do.
#[test]
fn an_address_that_nothing_is_at_says_what_to_do() {
    let env = TestEnv::running();
    let base = env.https();
    for path in ["device/cacerts", "device/csrattrs"] {
        let exact = curl(&[], &format!("{base}/.well-known/est/{path}"));
        let answer = curl(&[], &format!("{base}/.well-known/est/{path}/"));
        assert_eq!((answer.status, answer.body), (200, exact.body), "{path}");
    }
    for path in ["device/simpleenroll/", "simplereenroll/"] {
        let answer = curl(&["--data", "x"], &format!("{base}/.well-known/est/{path}"));
        assert_eq!(answer.code(), "client_certificate_required", "{path}");
    }
    for (path, words) in [
        ("/v1/status/", "leave that slash out"),
        ("/v1/certificates/", "leave that slash out"),
        ("/healthz/", "leave that slash out"),
        ("/v1//status", "between two slashes is empty"),
        ("/.well-known/est/device/fullcmc", "no other operation"),
        ("/.well-known/est/", "leave that slash out"),
        ("/.well-known/est", "simpleenroll"),
        ("/v2/status", "docs/operations.md"),
        ("/", "docs/operations.md"),
    ] {
        let answer = curl(&["--path-as-is"], &format!("{base}{path}"));
        assert_eq!(
            (answer.status, answer.code()),
            (404, "route_unknown".into()),
            "{path}"
        );
        assert!(
            answer.detail().contains(words),
            "{path}: {}",
            answer.detail()
        );
    }
    // Two slashes name no profile, and no default is configured.
    let answer = curl(&[], &format!("{base}/.well-known/est//cacerts"));
    assert_eq!(answer.code(), "est_label_required", "{}", answer.body);
    let plain = env.json(&["status"])["http"].as_str().unwrap().to_owned();
    for path in ["/v1/status", "/.well-known/est/device/cacerts"] {
        let answer = curl(&[], &format!("http://{plain}{path}"));
        assert_eq!(
            (answer.status, answer.code()),
            (404, "route_unknown".into()),
            "{path}"
        );
        assert!(
            answer.detail().contains("HTTPS listener"),
            "{}",
            answer.detail()
        );
    }
}
