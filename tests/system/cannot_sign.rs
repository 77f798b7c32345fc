//! Tests that nothing is recorded while nothing can be signed: no serial number is used, no
//! revocation list grows, and the journal does not change, however often and by which source a
//! signature is requested.
//!
//! Each test has one cause: the token is unavailable, its PIN is locked, its keys do not sign, or
//! it misses every deadline. All sources ask at once: the API, EST, the admin socket, the daemon's
//! own listener, a rollover, a proof of possession, a revocation list and a canary.

use crate::est_client::EstClient;
use crate::process::until;
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use crate::token_faults::env_with_faults;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dps_emulator as emulator;
use hallmarkd::store::{Revocation, RevocationTarget, Store};
use hallmarkd::unix_seconds::UnixSeconds;
use hallmarkd::x509::revocation::RevocationReason;
use hallmarkd::x509::serial::SerialNumber;
use pkcs11_fault::plan::{Action, Fault, Plan};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CKR_DEVICE_ERROR: u64 = 0x30;
const CKR_GENERAL_ERROR: u64 = 0x05;
const CKR_KEY_FUNCTION_NOT_PERMITTED: u64 = 0x68;
const CKR_PIN_LOCKED: u64 = 0xa4;
const CKR_USER_NOT_LOGGED_IN: u64 = 0x101;

/// More than one turn of the daemon, in which each key fails at its deadline of a second.
const SETTLING: Duration = Duration::from_secs(9);
/// How long signatures are then requested.
const ASKING: Duration = Duration::from_secs(12);
/// Most serial numbers that all sources together may cost until the cause is known: one for each
/// request in hand, and one for each key.
const BEFORE_IT_IS_KNOWN: i64 = 12;

/// A daemon with something to sign for every source except the API's callers.
struct Scene {
    env: TestEnv,
    plan: Plan,
    station: Holder,
    answered: Request,
    revoked: Holder,
}

/// Counts of recorded signatures and attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OnRecord {
    intents: i64,
    abandoned: i64,
    lists: i64,
    entries: i64,
}

impl Scene {
    fn set() -> Self {
        let (env, plan) = env_with_faults(&[]);
        let station = env.enlist("station", "station-1");
        let revoked = env.caller(&station).obtain(&Request::device("press-1"));
        let answered = Request::device("press-3");
        env.caller(&station).obtain(&answered);
        env.add_group("line-1", "line-1");
        env.wait_in_sync();
        let scene = Self {
            env,
            plan,
            station,
            answered,
            revoked,
        };
        scene.has_a_canary_that_never_passes();
        scene
    }

    /// The next generation of `line-1` is staged, and DPS refuses its canary.
    fn has_a_canary_that_never_passes(&self) {
        let refused = emulator::Fault::on("device.register", emulator::Action::status(500));
        let aim = emulator::Aim {
            path_contains: Some("hallmark-canary-".into()),
            ..refused.aim
        };
        let refused = emulator::Fault {
            aim,
            times: u32::MAX,
            ..refused
        };
        self.env.emulator.inject(refused).unwrap();
        self.roll("line-1");
        until("a canary was signed", || {
            (self.env.count("intent WHERE profile = 'canary'") > 0).then_some(())
        });
    }

    fn roll(&self, authority: &str) {
        let roll = ["roll", "start", "--authority", authority];
        self.env.run(&[&roll[..], &["--reason", "expiry"]].concat());
    }

    /// Gives every internal source something to have signed.
    fn everything_is_due(&self) {
        fs::remove_file(self.listener()).unwrap();
        self.revoke();
        self.roll("operations");
        let configuration = fs::read_to_string(self.env.path("hallmark.toml")).unwrap();
        let verified =
            configuration.replace("verified = [\"root\"]", "verified = [\"root\", \"plant\"]");
        assert_ne!(verified, configuration);
        self.env.configure(&verified);
        self.env.run(&["reload"]);
    }

    fn listener(&self) -> PathBuf {
        self.env.path("state/tls/server.pem")
    }

    /// Revokes beside the daemon, so that the list of `line-1` is due.
    fn revoke(&self) {
        let serial: SerialNumber = self.revoked.serial.parse().unwrap();
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let revocation = Revocation {
            target: RevocationTarget::Serial(serial.as_bytes().to_vec()),
            at: UnixSeconds::new(since.as_secs().cast_signed()),
            actor: "test".into(),
            cause: "a test".into(),
        };
        let store = Store::open(&self.env.database()).unwrap();
        store
            .revoke(revocation, RevocationReason::Superseded)
            .unwrap();
    }

    fn on_record(&self) -> OnRecord {
        let tried = "('intent.abandoned', 'intent.withdrawn', 'crl.recorded', 'request.recorded')";
        OnRecord {
            intents: self.env.count("intent"),
            abandoned: self.env.count("intent_state WHERE state = 'abandoned'"),
            lists: self.env.count("crl"),
            entries: self.env.count(&format!("audit WHERE action IN {tried}")),
        }
    }

    /// Requests as many signatures as fit into `time`. Each must be refused with one of these
    /// codes.
    fn asks_for(&self, time: Duration, codes: &[&str]) -> usize {
        let begun = Instant::now();
        let env = &self.env;
        let mut asked = 0;
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|client| scope.spawn(move || self.ask_api(client, begun + time, codes)))
                .collect();
            while begun.elapsed() < time {
                self.ask_est(codes);
                let by_operator = Request::new("station", "station-2");
                assert!(env.try_to_issue(&by_operator).is_none());
                // This wakes every loop of the daemon.
                env.run(&["push", "retry"]);
                asked += 2;
            }
            for client in clients {
                asked += client.join().unwrap();
            }
        });
        asked
    }

    fn ask_api(&self, client: usize, until: Instant, codes: &[&str]) -> usize {
        let caller = self.env.caller(&self.station);
        let mut asked = 0;
        while Instant::now() < until {
            let request = Request::device(&format!("pump-{client}-{asked}"));
            let answer = caller.ask(&request);
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.retry_after.is_some(), "{answer:?}");
            let is_expected = codes.is_empty() || codes.contains(&answer.code());
            assert!(is_expected, "{answer:?}");
            asked += 1;
        }
        asked
    }

    fn ask_est(&self, codes: &[&str]) {
        let client = EstClient::of(&self.env, &self.station);
        let csr = STANDARD.encode(der(&Request::device("pump-est").csr));
        let answer = client.post("device/simpleenroll", csr.as_bytes());
        assert_eq!(answer.status, "503", "{answer:?}");
        let code = answer.code();
        let is_expected = codes.is_empty() || codes.contains(&code.as_str());
        assert!(is_expected, "{answer:?}");
    }

    /// The test of one cause.
    fn nothing_is_recorded(&self, faults: &[Fault], codes: &[&str]) {
        let before = self.on_record();
        self.plan.set(faults).unwrap();
        self.everything_is_due();
        let mut known = before.clone();
        // On a busy machine the last key fails for the first time in a later turn of the daemon.
        loop {
            self.asks_for(SETTLING, &[]);
            let now = self.on_record();
            let cost = now.abandoned - before.abandoned;
            assert!(cost <= BEFORE_IT_IS_KNOWN, "{before:?}, {now:?}");
            if now == known {
                break;
            }
            known = now;
        }

        let asked = self.asks_for(ASKING, codes);
        assert_eq!(self.on_record(), known, "after {asked} more requests");
        assert!(asked >= 20, "{asked}");
        assert!(!self.listener().exists());
        // An answer that was recorded needs no signature.
        let again = self.env.caller(&self.station).ask(&self.answered);
        assert_eq!(again.status, 201, "{again:?}");
        assert_eq!(self.on_record(), known);
    }

    /// The cause has ended, and every source gets its signature.
    fn everything_is_signed(&self) {
        let env = &self.env;
        self.plan.set(&[]).unwrap();
        env.emulator.clear_faults();
        until("the line is served", || {
            let caller = env.caller(&self.station);
            let answer = caller.ask(&Request::device("press-2"));
            (answer.status == 201).then_some(())
        });
        env.run(&["push", "retry"]);
        until("the listener has its certificate", || {
            self.listener().exists().then_some(())
        });
        until("the plant is verified", || {
            let held = env.emulator.authorities();
            let verified =
                |it: &Value| it["name"] == "plant-1" && it["properties"]["isVerified"] == true;
            held.iter().any(verified).then_some(())
        });
        until("the list is signed", || {
            let crls = env.json(&["status"])["crls"].clone();
            let mut lists = crls.as_array().unwrap().iter();
            lists.all(|it| it["up_to_date"] == true).then_some(())
        });
        until("the next generations are made", || {
            let made = "generation WHERE number = 2 AND certificate IS NOT NULL";
            (env.count(made) == 2).then_some(())
        });
        env.wait_in_sync();
    }
}

#[test]
fn nothing_is_recorded_while_the_token_is_unavailable() {
    let scene = Scene::set();
    let gone = [
        Fault::from("C_SignInit", 1, Action::Return(CKR_DEVICE_ERROR)),
        Fault::from("C_Initialize", 1, Action::Return(CKR_GENERAL_ERROR)),
    ];
    scene.nothing_is_recorded(&gone, &["token_unavailable"]);
    scene.everything_is_signed();
}

/// (Another PIN ends this cause; see `modules`.)
#[test]
fn nothing_is_recorded_while_the_token_is_parked() {
    let scene = Scene::set();
    let parked = [
        Fault::from("C_SignInit", 1, Action::Return(CKR_USER_NOT_LOGGED_IN)),
        Fault::from("C_Login", 1, Action::Return(CKR_PIN_LOCKED)),
    ];
    scene.nothing_is_recorded(&parked, &["token_parked"]);
    scene.env.emulator.clear_faults();
}

#[test]
fn nothing_is_recorded_while_no_key_signs() {
    let scene = Scene::set();
    let refused = Action::Return(CKR_KEY_FUNCTION_NOT_PERMITTED);
    let unusable = [
        Fault::from("C_SignInit", 1, refused),
        Fault::from("C_GenerateKeyPair", 1, Action::Delay(0)),
    ];
    scene.nothing_is_recorded(&unusable, &["token_key"]);
    let came = scene.plan.came();
    let pairs = came.iter().filter(|it| it.starts_with("C_GenerateKeyPair"));
    let pairs = pairs.count();
    assert!((1..=12).contains(&pairs), "two rollovers made {pairs} keys");
    let alarms = scene.env.json(&["status"])["alarms"].to_string();
    assert!(alarms.contains("keys that do not sign"), "{alarms}");
    scene.everything_is_signed();
    until("the alarm is over", || {
        let alarms = scene.env.json(&["status"])["alarms"].to_string();
        (!alarms.contains("keys that do not sign")).then_some(())
    });
}

/// The deadline in this environment is one second, and cryptoki calls `C_Sign` twice for each
/// signature. A worker that is a second late counts as hung and is replaced.
#[test]
fn nothing_is_recorded_while_every_deadline_is_missed() {
    let scene = Scene::set();
    let slow = [Fault::from("C_Sign", 1, Action::Delay(700))];
    scene.nothing_is_recorded(&slow, &["token_deadline", "token_unavailable"]);
    scene.everything_is_signed();
}
