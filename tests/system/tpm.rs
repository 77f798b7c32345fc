//! Tests authorities whose keys are in a TPM, beside others in SoftHSM.

use crate::process::until;
use crate::relying_party::Relying;
use crate::request::{Holder, Request};
use crate::software_tpm::SoftwareTpm;
use crate::test_env::TestEnv;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CLIENTS: usize = 4;
const DEVICES_EACH: usize = 20;

/// The environment, with a TPM "gate" beside SoftHSM's "factory". Dropped in this order.
struct Gateway {
    env: TestEnv,
    tpm: SoftwareTpm,
}

impl Gateway {
    /// Puts the keys of `in_tpm` in the TPM, those of the other authorities in SoftHSM.
    fn set(in_tpm: &[&str]) -> Self {
        let env = TestEnv::new();
        let tpm = SoftwareTpm::start(env.path("tpm"));
        env.write_secret("gate-secret", "7f1c0de5a9b84c3e9d2b6f40");
        let token = format!(
            "[[token]]\nname = \"gate\"\nkind = \"tpm\"\ntcti = {:?}\ncredential = {:?}\n",
            tpm.tcti(),
            env.path("gate-secret"),
        );
        let mut configuration = env.configuration();
        for authority in in_tpm {
            let said = format!("name = \"{authority}\"\ntoken = \"factory\"");
            assert!(configuration.contains(&said), "{authority}");
            configuration = configuration.replace(&said, &said.replace("factory", "gate"));
        }
        let first = configuration.find("[[authority]]").unwrap();
        configuration.insert_str(first, &token);
        env.configure(&configuration);
        Self { env, tpm }
    }

    fn up(in_tpm: &[&str]) -> Self {
        let mut gateway = Self::set(in_tpm);
        gateway.env.start();
        gateway.env.run_ceremony();
        gateway
    }

    fn token(&self) -> serde_json::Value {
        self.env.json(&["status"])["tokens"]["gate"].clone()
    }

    fn alarms(&self) -> String {
        self.env.json(&["status"])["alarms"].to_string()
    }
}

/// Checks every list and certificate from the leaf up to the root with OpenSSL.
fn is_good(env: &TestEnv, device: &Holder) {
    let root = env.authority("root");
    device.is_accepted_by_openssl(&root);
    assert_eq!(Relying::on(env).judge(device, &root), Ok(()));
}

/// Verifies: certificates and revocation lists of a hierarchy in two kinds of token satisfy
/// `openssl verify -x509_strict -crl_check_all`, also after a restart; the ceremony's transcript
/// says that the key cannot leave.
fn is_one_hierarchy(in_tpm: &[&str]) -> Gateway {
    let mut gateway = Gateway::up(in_tpm);
    let device = gateway.env.station().obtain(&Request::device("press-1"));
    is_good(&gateway.env, &device);
    for authority in ["root", "plant", "line-1", "operations"] {
        let outside = format!(
            "generation WHERE authority = '{authority}' AND key_wrapped IS NOT NULL \
             AND token = 'gate'"
        );
        let wrapped = gateway.env.count(&outside) == 1;
        assert_eq!(wrapped, in_tpm.contains(&authority), "{authority}");
    }
    gateway.env.restart();
    let device = gateway.env.station().obtain(&Request::device("press-2"));
    is_good(&gateway.env, &device);
    gateway
}

#[test]
fn a_root_in_a_tpm_has_intermediates_in_softhsm() {
    let mut gateway = is_one_hierarchy(&["root"]);
    let output = gateway.env.check();
    assert_eq!(output.code, Some(1), "the daemon has the TPM: {output:?}");
    assert!(
        output.out.contains("another worker uses this TPM"),
        "{output:?}"
    );
    gateway.env.stop();
    let output = gateway.env.check();
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn intermediates_in_a_tpm_have_their_root_in_softhsm() {
    let gateway = is_one_hierarchy(&["plant", "line-1", "operations"]);
    let shown = gateway.env.json(&["token", "show", "gate"]);
    assert_eq!(shown["family"], "TPM 2.0", "{shown}");
    let remarks = shown["remarks"].to_string();
    assert!(remarks.contains("in the database"), "{remarks}");
    gateway.env.run(&["token", "check", "gate"]);
    makes_only_its_kinds_of_key(&gateway.env);
}

/// A rollover to a key that the TPM cannot make is refused when it is started, and the answer says
/// what to do; one to another key that it can make ends.
fn makes_only_its_kinds_of_key(env: &TestEnv) {
    let roll = |kind: &str| {
        let command = [
            "roll",
            "start",
            "--authority",
            "line-1",
            "--reason",
            "expiry",
        ];
        env.hallmark(&[&command[..], &["--key-type", kind]].concat())
    };
    for kind in ["ed25519", "rsa4096"] {
        let refused = roll(kind);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for words in ["key_type_forbidden", "token gate", "another --key-type"] {
            assert!(refused.error.contains(words), "no {words}: {refused:?}");
        }
    }
    assert_eq!(env.count("roll"), 0);
    let output = roll("rsa2048");
    assert_eq!(output.code, Some(0), "{output:?}");
    until("the successor serves", || {
        let shown = env.json(&["authority", "show", "line-1"]);
        (shown[1]["state"] == "serving").then_some(shown)
    });
    is_good(env, &env.enlist("device", "press-3"));
}

/// Verifies: a client that is not served gets `Retry-After`; every client is served in the end, by
/// the same `serve` and the same worker.
#[test]
fn a_tpm_restarted_under_load_costs_no_client_a_certificate() {
    let mut gateway = Gateway::up(&["line-1"]);
    let (env, tpm) = (&gateway.env, &mut gateway.tpm);
    let (station, serve) = (env.enlist("station", "station-1"), env.daemon());
    let told_to_wait = AtomicUsize::new(0);
    let load = |client: usize| {
        let caller = env.caller(&station);
        for number in 0..DEVICES_EACH {
            let request = Request::device(&format!("device-{client}-{number}"));
            until(&request.id, || {
                let answer = caller.ask(&request);
                if answer.status == 201 {
                    return Some(());
                }
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(answer.retry_after.is_some(), "{answer:?}");
                told_to_wait.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
                None
            });
        }
    };
    std::thread::scope(|scope| {
        let load = &load;
        for client in 0..CLIENTS {
            scope.spawn(move || load(client));
        }
        for served in [10, 40] {
            until("the load is under way", || {
                (env.count("device") >= served).then_some(())
            });
            let before = told_to_wait.load(Ordering::Relaxed);
            tpm.kill();
            until("a client is refused", || {
                (told_to_wait.load(Ordering::Relaxed) > before).then_some(())
            });
            tpm.start_again();
        }
    });
    assert_eq!(env.count("device"), (CLIENTS * DEVICES_EACH) as i64);
    assert_eq!(
        (env.daemon(), &gateway.token()["restarts"]),
        (serve, &0.into())
    );
}

/// Verifies: state, alarm and refusal say that the keys are lost and what to do; no key is made in
/// their place; the other token goes on signing.
#[test]
fn a_cleared_tpm_is_reported_and_no_key_is_made_in_its_place() {
    let gateway = Gateway::up(&["line-1"]);
    let env = &gateway.env;
    let station = env.station();
    station.obtain(&Request::device("press-1"));
    let keys = env.count("generation");
    gateway.tpm.tool("tpm2_clear", &[]);
    until("the status says so", || {
        (gateway.token()["state"] == "parked").then_some(())
    });
    let alarms = gateway.alarms();
    assert!(alarms.contains("cleared or exchanged"), "{alarms}");
    assert!(alarms.contains("roll their authorities"), "{alarms}");
    let answer = station.ask(&Request::device("press-2"));
    assert_eq!(
        (answer.status, answer.code()),
        (503, "token_parked"),
        "{answer:?}"
    );
    env.enlist("station", "station-2");
    assert_eq!(env.count("generation"), keys);
}

/// Verifies: `hallmark status` reports it, and for how long; certificates are issued all the while.
#[test]
fn a_lockout_is_an_alarm_and_stops_nothing() {
    let mut gateway = Gateway::set(&["line-1"]);
    gateway.tpm.make_prey();
    gateway.env.start();
    gateway.env.run_ceremony();
    let station = gateway.env.station();
    gateway.tpm.provoke_lockout();
    until("the status says so", || {
        gateway
            .alarms()
            .contains("lockout for at most")
            .then_some(())
    });
    let reason = gateway.token()["reason"].to_string();
    assert!(reason.contains("lockout for at most"), "{reason}");
    assert_eq!(gateway.env.json(&["status"])["ready"], true);
    station.obtain(&Request::device("press-1"));
}

/// The key is on record, and its certificate is not: the ceremony goes on with that key.
#[test]
fn a_ceremony_that_was_killed_goes_on_with_the_key_that_is_on_record() {
    let mut gateway = Gateway::set(&["root"]);
    let env = &mut gateway.env;
    env.start_to_stay_at(&["cycle-7"]);
    let (client, file) = (env.client(), env.path("ceremony.toml"));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| client.hallmark(&["ceremony", "run", file.to_str().unwrap()]));
        env.stays_at("cycle-7");
        env.kill();
        assert_ne!(run.join().unwrap().code, Some(0));
    });
    let on_record = "generation WHERE authority = 'root' AND key_wrapped IS NOT NULL \
                     AND certificate IS NULL";
    assert_eq!(env.count(on_record), 1);
    let key: Vec<u8> = crate::invariants::open(&env.database())
        .query_row(
            "SELECT spki FROM generation WHERE authority = 'root'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    env.start();
    env.run_ceremony();
    let root = crate::request::der(&env.authority("root"));
    assert!(
        root.windows(key.len()).any(|bytes| bytes == key),
        "another key"
    );
}

/// The authority of a TPM is compromised, and the report asks for a successor with a kind of key
/// that no TPM makes. Verifies: the authority is excluded, the answer says which key its successor
/// has, and the successor signs; a rollover for expiry is refused for the same.
#[test]
fn a_key_type_that_the_token_cannot_make_leaves_no_line_without_an_authority() {
    let gateway = Gateway::up(&["line-1"]);
    let env = &gateway.env;
    let kind = |number: i64| {
        let kind = format!("AND number = {number} AND key_type = 'p256'");
        env.count(&format!("generation WHERE authority = 'line-1' {kind}"))
    };
    assert_eq!(kind(1), 1);
    let of_line = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--key-type",
        "ed25519",
        "--reason",
    ];
    let refused = env.hallmark(&[&of_line[..], &["expiry"]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.error.contains("key_type_forbidden"), "{refused:?}");
    let started = env.json(&[&of_line[..], &["compromise"]].concat());
    let obstacle = started["obstacles"][0].as_str().unwrap_or_default();
    assert!(
        obstacle.contains("its successor has a p256 key"),
        "{started}"
    );
    until("the successor signs", || {
        crate::authority_roll::second_signs(env, "line-1").then_some(())
    });
    assert_eq!(kind(2), 1);
    env.enlist_when_possible("device", "press-1");
}
