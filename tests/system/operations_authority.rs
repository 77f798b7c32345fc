//! The authority of stations, operators, auditors and of the listener is compromised or blocked, or
//! the one above it is: only devices below it may connect, to renew.

use crate::authority_roll::second_signs;
use crate::keepalive::KeepAlive;
use crate::process::{SOON, until};
use crate::request::{Holder, Request};
use crate::roles::OPERATOR;
use crate::test_env::TestEnv;
use serde_json::json;
use std::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

const SOMEWHERE: &str = "/v1/devices";
const REVOKED: (u16, &str) = (401, "client_certificate_revoked");

/// Devices whose leaves are by the authority of stations.
const GATEWAY: &str = r#"
[[profile]]
name = "gateway"
authority = "operations"
role = "device"
[profile.certificate]
kind = "leaf"
validity = "90d"
key_types = ["p256"]
key_usage = ["digital_signature"]
extended_key_usage = ["client_auth"]
"#;

/// A stage with operators and gateways. The listener's certificate is by `listener`.
fn begun(listener: &str) -> TestEnv {
    let env = TestEnv::new();
    let server = "name = \"server\"\nauthority = ";
    let configuration = env.configuration() + OPERATOR + GATEWAY;
    let configuration = configuration.replace(
        &format!("{server}\"operations\""),
        &format!("{server}{listener:?}"),
    );
    env.configure(&configuration);
    env.started()
}

/// The callers below `operations`, each with a connection that is kept.
struct Callers {
    holders: Vec<Holder>,
    kept: Vec<KeepAlive>,
    gateway: Holder,
    kept_gateway: KeepAlive,
}

impl Callers {
    fn of(env: &TestEnv) -> Self {
        let roles = ["station", "operator", "auditor"];
        let holders = roles.map(|role| env.enlist(role, &format!("{role}-1")));
        let kept = holders.iter().map(|it| KeepAlive::secured(env, it));
        let gateway = env.enlist("gateway", "gateway-1");
        let mut callers = Self {
            kept: kept.collect(),
            holders: holders.into(),
            kept_gateway: KeepAlive::secured(env, &gateway),
            gateway,
        };
        callers.are_identified();
        callers
    }

    fn are_identified(&mut self) {
        for (holder, kept) in self.holders.iter().zip(&mut self.kept) {
            let output = kept.asks(SOMEWHERE);
            assert!(matches!(output.0, 200 | 403), "{}: {output:?}", holder.id);
        }
        assert_eq!(self.kept_gateway.asks(SOMEWHERE).0, 403);
    }

    /// On the connections that were kept, which end with the refusal.
    fn are_out(&mut self) {
        for (holder, mut kept) in self.holders.iter().zip(self.kept.drain(..)) {
            let (status, code) = kept.asks(SOMEWHERE);
            assert_eq!((status, code.as_str()), REVOKED, "{}", holder.id);
            kept.wait_closed();
        }
    }

    fn reconnect(&mut self, env: &TestEnv) {
        let kept = self.holders.iter().map(|it| KeepAlive::secured(env, it));
        self.kept = kept.collect();
    }

    /// On new connections.
    fn stay_out(&self, env: &TestEnv) {
        for holder in &self.holders {
            let (status, code) = KeepAlive::secured(env, holder).asks(SOMEWHERE);
            assert_eq!((status, code.as_str()), REVOKED, "{}", holder.id);
        }
    }
}

fn serial_of(der: &[u8]) -> String {
    let (_, parsed) = X509Certificate::from_der(der).unwrap();
    hex::encode_upper(parsed.tbs_certificate.serial.to_bytes_be())
}

/// Which generation of `operations` issued this certificate.
fn issuer_of(env: &TestEnv, der: &[u8]) -> i64 {
    let rows = "SELECT g.number FROM intent i JOIN generation g ON g.id = i.issuer \
                WHERE hex(i.serial) = ?1";
    let database = crate::invariants::open(&stage.database());
    let found = database.query_row(rows, [serial_of(der)], |row| row.get(0));
    found.unwrap()
}

fn compromise(stage: &Stage, authority: &str) {
    let report = ["roll", "start", "--authority", authority];
    stage.json(&[&report[..], &["--reason", "compromise"]].concat());
}

/// As bytes: clients of a compromised root would have to be told of the next one.
fn post(request: &Request) -> String {
    let body = request.body().to_string();
    format!(
        "POST /v1/certificates HTTP/1.1\r\nhost: localhost\r\nidempotency-key: {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        request.idempotency_key,
        body.len()
    )
}

/// The first connection that the daemon takes after the authority was excluded.
fn first_connection(stage: &Stage, holder: &Holder) -> Kept {
    let begun = Instant::now();
    loop {
        if let Ok(connection) = Kept::try_secured(stage, holder) {
            return connection;
        }
        assert!(begun.elapsed() < SOON, "HTTPS does not come back");
    }
}

/// Verifies, for the authority itself and for the one above it: from the answer on stations,
/// operators and auditors are refused on kept and new connections; an operator can compromise
/// nothing any more; the listener never presents the old certificate and has a new one at once; a
/// device may renew itself; new stations work.
#[test]
fn a_compromise_excludes_all_callers_but_devices() {
    for compromised in ["operations", "root"] {
        let stage = begun("operations");
        let mut callers = Callers::of(&stage);
        let mut operator = Kept::secured(&stage, &callers.holders[1]);
        assert_eq!(operator.asks(SOMEWHERE).0, 200);
        compromise(&stage, compromised);
        callers.are_out();
        assert_eq!(callers.kept_gateway.asks(SOMEWHERE).0, 403);
        let body = json!({ "reason": "compromise" }).to_string();
        operator.send(&format!(
            "POST /v1/authorities/line-1/rolls HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let (status, code) = operator.answer();
        assert_eq!((status, code.as_str()), REVOKED);

        let first = first_connection(&stage, &callers.gateway);
        assert_eq!(issuer_of(&stage, &first.presented), 2, "{compromised}");
        assert!(second_signs(&stage, "operations"));
        callers.stay_out(&stage);
        let renewed = Request::new("gateway", "gateway-1");
        let mut renewing = Kept::secured(&stage, &callers.gateway);
        renewing.send(&post(&renewed));
        assert_eq!(renewing.answer().0, 201);
        let station = stage.enlist_when_possible("station", "station-2");
        let told = Kept::secured(&stage, &station).asks(SOMEWHERE);
        assert_eq!(told.0, 403, "{output:?}");
    }
}

/// The listener's certificate is by another authority. Verifies: all callers below a blocked
/// authority are refused, devices too, whether the authority itself or the one above it is blocked;
/// all are let back in when the block is lifted.
#[test]
fn a_block_excludes_all_callers_until_it_is_lifted() {
    let stage = begun("line-1");
    let mut callers = Callers::of(&stage);
    let block = |verb| stage.run(&["authority", verb, "operations", "--generation", "1"]);
    block("block");
    callers.are_out();
    callers.stay_out(&stage);
    for mut gateway in [
        callers.kept_gateway,
        Kept::secured(&stage, &callers.gateway),
    ] {
        let (status, code) = gateway.asks(SOMEWHERE);
        assert_eq!((status, code.as_str()), REVOKED);
    }
    callers.kept_gateway = Kept::secured(&stage, &callers.gateway);
    callers.reconnect(&stage);
    block("unblock");
    callers.are_identified();
}

/// The listener's certificate is below the blocked generation. Verifies: it is not presented while
/// the block stands, and kept connections are refused; the admin socket answers; HTTPS is back when
/// the block is lifted, for all callers.
#[test]
fn a_blocked_certificate_of_the_listener_is_not_presented() {
    let mut stage = begun("operations");
    let mut callers = Callers::of(&stage);
    for blocked in ["operations", "root"] {
        let block = ["authority", "block", blocked, "--generation", "1"];
        let lift = ["authority", "unblock", blocked, "--generation", "1"];
        stage.run(&block);
        for _ in 0..3 {
            assert!(Kept::try_secured(&stage, &callers.gateway).is_err());
        }
        callers.are_out();
        stage.run(&lift);
        let after = first_connection(&stage, &callers.gateway);
        assert_eq!(issuer_of(&stage, &after.presented), 1);
        callers.reconnect(&stage);
        callers.are_identified();
    }
    stage.run(&["authority", "block", "operations", "--generation", "1"]);
    stage.stop();
    stage.start();
    assert!(Kept::try_secured(&stage, &callers.gateway).is_err());
    stage.run(&["authority", "unblock", "operations", "--generation", "1"]);
    let after = until("HTTPS answers", || {
        Kept::try_secured(&stage, &callers.gateway).ok()
    });
    assert_eq!(issuer_of(&stage, &after.presented), 1);
}

/// The generation below is compromised, and the one above it blocked afterwards. Verifies: a device
/// that could renew itself until then cannot any more.
#[test]
fn a_block_above_a_compromised_authority_holds_devices_too() {
    let stage = begun("line-1");
    let gateway = stage.enlist("gateway", "gateway-1");
    let mut kept = Kept::secured(&stage, &gateway);
    compromise(&stage, "operations");
    until("its successor signs", || {
        second_signs(&stage, "operations").then_some(())
    });
    assert_eq!(kept.asks(SOMEWHERE).0, 403);
    stage.run(&["authority", "block", "root", "--generation", "1"]);
    let (status, code) = kept.asks(SOMEWHERE);
    assert_eq!((status, code.as_str()), REVOKED);
    kept.comes_to_its_end();
    stage.run(&["authority", "unblock", "root", "--generation", "1"]);
    assert_eq!(first_connection(&env, &gateway).asks(SOMEWHERE).0, 403);
}
