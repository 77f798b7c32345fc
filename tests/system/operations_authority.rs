//! Tests the compromise or block of the authority of stations, operators, auditors and the
//! listener, or of the authority above it: only devices below it may connect, to renew.

use crate::authority_roll::second_signs;
use crate::configured::device_profile;
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

/// An environment with operators and gateways. The listener's certificate is by `listener`.
fn begun(listener: &str) -> TestEnv {
    let env = TestEnv::new();
    let server = "name = \"server\"\nauthority = ";
    // Devices whose leaves are by the authority of stations.
    let gateway = device_profile("gateway", "operations", "90d");
    let configuration = env.configuration() + &OPERATOR.toml() + &gateway;
    let configuration = configuration.replace(
        &format!("{server}\"operations\""),
        &format!("{server}{listener:?}"),
    );
    env.configure(&configuration);
    env.started()
}

/// The callers below `operations`, each with a kept-alive connection.
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

    /// Asserts the refusal on the kept-alive connections, which it closes.
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

    /// Asserts the refusal on new connections.
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

/// The generation of `operations` that issued this certificate.
fn issuer_of(env: &TestEnv, der: &[u8]) -> i64 {
    let rows = "SELECT g.number FROM intent i JOIN generation g ON g.id = i.issuer \
                WHERE hex(i.serial) = ?1";
    let database = crate::invariants::open(&env.database());
    let found = database.query_row(rows, [serial_of(der)], |row| row.get(0));
    found.unwrap()
}

fn compromise(env: &TestEnv, authority: &str) {
    let report = ["roll", "start", "--authority", authority];
    env.json(&[&report[..], &["--reason", "compromise"]].concat());
}

/// As bytes: clients of a compromised root need the next one in advance.
fn post(request: &Request) -> String {
    let body = request.body().to_string();
    format!(
        "POST /v1/certificates HTTP/1.1\r\nhost: localhost\r\nidempotency-key: {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        request.idempotency_key,
        body.len()
    )
}

/// The first connection that the daemon accepts after the authority was excluded.
fn first_connection(env: &TestEnv, holder: &Holder) -> KeepAlive {
    let begun = Instant::now();
    loop {
        if let Ok(connection) = KeepAlive::try_secured(env, holder) {
            return connection;
        }
        assert!(begun.elapsed() < SOON, "HTTPS does not come back");
    }
}

/// Verifies, for the authority itself and for the one above it: from the answer on stations,
/// operators and auditors are refused on kept-alive and new connections; an operator can compromise
/// nothing any more; the listener never presents the old certificate and has a new one at once; a
/// device may renew itself; new stations work.
#[test]
fn a_compromise_excludes_all_callers_but_devices() {
    for compromised in ["operations", "root"] {
        let env = begun("operations");
        let mut callers = Callers::of(&env);
        let mut operator = KeepAlive::secured(&env, &callers.holders[1]);
        assert_eq!(operator.asks(SOMEWHERE).0, 200);
        compromise(&env, compromised);
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

        let first = first_connection(&env, &callers.gateway);
        assert_eq!(issuer_of(&env, &first.presented), 2, "{compromised}");
        assert!(second_signs(&env, "operations"));
        callers.stay_out(&env);
        let renewed = Request::new("gateway", "gateway-1");
        let mut renewing = KeepAlive::secured(&env, &callers.gateway);
        renewing.send(&post(&renewed));
        assert_eq!(renewing.answer().0, 201);
        let station = env.enlist_when_possible("station", "station-2");
        let output = KeepAlive::secured(&env, &station).asks(SOMEWHERE);
        assert_eq!(output.0, 403, "{output:?}");
    }
}

/// The listener's certificate is by another authority. Verifies: all callers below a blocked
/// authority are refused, devices too, whether the authority itself or the one above it is blocked;
/// all are accepted again when the block is lifted.
#[test]
fn a_block_excludes_all_callers_until_it_is_lifted() {
    let env = begun("line-1");
    let mut callers = Callers::of(&env);
    let block = |verb| env.run(&["authority", verb, "operations", "--generation", "1"]);
    block("block");
    callers.are_out();
    callers.stay_out(&env);
    for mut gateway in [
        callers.kept_gateway,
        KeepAlive::secured(&env, &callers.gateway),
    ] {
        let (status, code) = gateway.asks(SOMEWHERE);
        assert_eq!((status, code.as_str()), REVOKED);
    }
    callers.kept_gateway = KeepAlive::secured(&env, &callers.gateway);
    callers.reconnect(&env);
    block("unblock");
    callers.are_identified();
}

/// The listener's certificate is below the blocked generation. Verifies: it is not presented during
/// the block, and requests on kept-alive connections are refused; the admin socket answers; HTTPS
/// is back when the block is lifted, for all callers.
#[test]
fn a_blocked_certificate_of_the_listener_is_not_presented() {
    let mut env = begun("operations");
    let mut callers = Callers::of(&env);
    for blocked in ["operations", "root"] {
        let block = ["authority", "block", blocked, "--generation", "1"];
        let lift = ["authority", "unblock", blocked, "--generation", "1"];
        env.run(&block);
        for _ in 0..3 {
            assert!(KeepAlive::try_secured(&env, &callers.gateway).is_err());
        }
        callers.are_out();
        env.run(&lift);
        let after = first_connection(&env, &callers.gateway);
        assert_eq!(issuer_of(&env, &after.presented), 1);
        callers.reconnect(&env);
        callers.are_identified();
    }
    env.run(&["authority", "block", "operations", "--generation", "1"]);
    env.stop();
    env.start();
    assert!(KeepAlive::try_secured(&env, &callers.gateway).is_err());
    env.run(&["authority", "unblock", "operations", "--generation", "1"]);
    let after = until("HTTPS answers", || {
        KeepAlive::try_secured(&env, &callers.gateway).ok()
    });
    assert_eq!(issuer_of(&env, &after.presented), 1);
}

/// The generation below is compromised, and the one above it blocked afterwards. Verifies: a device
/// that could renew itself until then cannot any more.
#[test]
fn a_block_above_a_compromised_authority_holds_devices_too() {
    let env = begun("line-1");
    let gateway = env.enlist("gateway", "gateway-1");
    let mut kept = KeepAlive::secured(&env, &gateway);
    compromise(&env, "operations");
    until("its successor signs", || {
        second_signs(&env, "operations").then_some(())
    });
    assert_eq!(kept.asks(SOMEWHERE).0, 403);
    env.run(&["authority", "block", "root", "--generation", "1"]);
    let (status, code) = kept.asks(SOMEWHERE);
    assert_eq!((status, code.as_str()), REVOKED);
    kept.wait_closed();
    env.run(&["authority", "unblock", "root", "--generation", "1"]);
    assert_eq!(first_connection(&env, &gateway).asks(SOMEWHERE).0, 403);
}
