//! Tests keys that get no certificate, over every interface: keys whose private key can be
//! computed, keys of another holder, and keys that were reported as compromised.

use crate::caller::{Answer, Caller};
use crate::configured::Profile;
use crate::process::CommandOutput;
use crate::request::{Request, der};
use crate::test_env::TestEnv;
use crate::weak_key::Weakness;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::fs;
use std::path::Path;
use std::thread;

/// Devices that cannot make a key of their own, and share one.
const SENSOR: Profile<'_> = Profile {
    name: "sensor",
    authority: "line-1",
    role: "device",
    validity: "90d",
    more: "shared_keys = true",
};

fn env() -> TestEnv {
    let env = TestEnv::new();
    let configuration = env.configuration() + &SENSOR.toml();
    let stations = configuration.replace("\"device-20s\"]", "\"device-20s\", \"sensor\"]");
    env.configure(&stations);
    env.started()
}

/// A new request by `profile` for `id`, with this key (PEM).
fn with_key(profile: &str, id: &str, key: &str) -> Request {
    let pair = KeyPair::from_pem(key).unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, id);
    let csr = parameters.serialize_request(&pair).unwrap().pem().unwrap();
    Request::of(profile, id, csr, key.to_owned())
}

fn enroll(caller: &Caller, request: &Request) -> Answer {
    let body = STANDARD.encode(der(&request.csr));
    let address = format!("/.well-known/est/{}/simpleenroll", request.profile);
    let post = caller
        .post_to(&address)
        .header("content-type", "application/pkcs10");
    Answer::read(post.body(body).send().unwrap()).unwrap()
}

fn refuses(answer: &Answer, code: &str, reason: &str) {
    assert_eq!((answer.status, answer.code()), (400, code), "{answer:?}");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains(reason), "{detail}");
    assert!(detail.contains("make a new key"), "{detail}");
}

/// `hallmark issue` by an operator on the machine.
fn at_the_machine(env: &TestEnv, request: &Request) -> String {
    let csr = env.write("at-the-machine.csr", &request.csr);
    let ask = ["issue", "--profile", &request.profile, "--id", &request.id];
    let output = env.hallmark(&[&ask[..], &["--csr", csr.to_str().unwrap()]].concat());
    assert_ne!(output.code, Some(0), "{output:?}");
    output.error
}

/// The device's key is reported as compromised, with the request for its next leaf at hand.
fn compromise(env: &TestEnv, id: &str, csr: &Path) -> CommandOutput {
    let report = ["roll", "start", id, "--reason", "compromise"];
    let next = ["--profile", "device", "--csr", csr.to_str().unwrap()];
    env.hallmark(&[&report[..], &next[..]].concat())
}

/// Verifies: RSA keys with close primes, a small factor, or of the ROCA generator are refused over
/// the API, over EST, at the machine, and as the new key after a compromise, which excludes the
/// device all the same; no intent is recorded.
#[test]
fn a_key_that_can_be_computed_gets_no_certificate() {
    let env = env();
    let station = env.station();
    station.obtain(&Request::device("press-7"));
    let intents = env.count("intent");
    for weakness in Weakness::ALL {
        let reason = match weakness {
            Weakness::ClosePrimes => "too close",
            Weakness::SmallFactor => "divisible by 751",
            Weakness::Roca => "ROCA",
        };
        let request = weakness.request("press-7", &env.path(""));
        refuses(&station.ask(&request), "csr_weak_key", reason);
        refuses(&enroll(&station, &request), "csr_weak_key", reason);
        let output = at_the_machine(&env, &request);
        assert!(
            output.contains("csr_weak_key") && output.contains(reason),
            "{output}"
        );
        let csr = env.write("weak.csr", &request.csr);
        let output = compromise(&env, "press-7", &csr);
        assert!(output.error.contains("csr_weak_key"), "{output:?}");
    }
    assert_eq!(env.count("intent"), intents);
    assert_eq!(env.count("roll"), 0);
}

/// Verifies: a device renews with its own key; a second device and a station with that key are
/// refused, and so is a device with the key of a station or of the listener; a profile that says so
/// lets devices share one; of twenty devices that ask with one key at a time, one gets a
/// certificate.
#[test]
fn one_key_is_for_one_holder() {
    let env = env();
    let station = env.station();
    let first = station.obtain(&Request::device("press-7"));
    let again = station.obtain(&with_key("device", "press-7", &first.key));
    assert_ne!(again.serial, first.serial);

    let other = with_key("device", "press-8", &first.key);
    refuses(&station.ask(&other), "key_in_use", "press-7");
    refuses(&enroll(&station, &other), "key_in_use", "press-7");
    let output = at_the_machine(&env, &with_key("station", "station-9", &first.key));
    assert!(output.contains("key_in_use"), "{output}");
    let station_key = env.enlist("station", "station-3").key;
    let as_device = with_key("device", "press-9", &station_key);
    refuses(&station.ask(&as_device), "key_in_use", "station-3");
    let listener = fs::read_to_string(env.path("state/tls/server.key")).unwrap();
    let as_listener = with_key("device", "press-9", &listener);
    refuses(&station.ask(&as_listener), "key_in_use", "localhost");

    let shared = KeyPair::generate().unwrap().serialize_pem();
    for id in ["sensor-1", "sensor-2", "sensor-3"] {
        station.obtain(&with_key("sensor", id, &shared));
    }
    one_of_many_wins(&station);
}

fn one_of_many_wins(station: &Caller) {
    let copied = KeyPair::generate().unwrap().serialize_pem();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let ask = |number: usize| {
            let request = with_key("device", &format!("copy-{number}"), &copied);
            scope.spawn(move || station.ask(&request))
        };
        let asking: Vec<_> = (0..20).map(ask).collect();
        asking.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let issued = answers.iter().filter(|it| it.status == 201).count();
    assert_eq!(issued, 1, "{answers:?}");
    let refused = answers.iter().filter(|it| it.code() == "key_in_use");
    assert_eq!(refused.count(), 19, "{answers:?}");
}

/// Verifies: the key of a compromised device is refused for another device, for the same one, by a
/// profile that shares keys, for a station, over EST, and as the new key after another device's
/// compromise; also after a restart.
#[test]
fn a_compromised_key_is_refused_for_everybody() {
    let mut env = env();
    let station = env.station();
    let stolen = station.obtain(&Request::device("press-7"));
    station.obtain(&Request::device("press-8"));
    env.run(&["roll", "start", "press-7", "--reason", "compromise"]);
    let is_refused = |env: &TestEnv, station: &Caller| {
        for (profile, id) in [
            ("device", "press-7"),
            ("device", "press-9"),
            ("sensor", "press-9"),
        ] {
            let request = with_key(profile, id, &stolen.key);
            refuses(&station.ask(&request), "key_compromised", "compromised");
            refuses(&enroll(station, &request), "key_compromised", "compromised");
        }
        let output = at_the_machine(env, &with_key("station", "station-9", &stolen.key));
        assert!(output.contains("key_compromised"), "{output}");
    };
    is_refused(&env, &station);
    let csr = with_key("device", "press-8", &stolen.key).csr;
    let csr = env.write("stolen.csr", &csr);
    let output = compromise(&env, "press-8", &csr);
    assert!(output.error.contains("key_compromised"), "{output:?}");
    let revoked = "certificate WHERE revoked_at IS NOT NULL";
    assert_eq!(
        env.count(revoked),
        2,
        "the leaf of press-8 is excluded first"
    );

    env.restart();
    is_refused(&env, &env.station_called("station-4"));
}
