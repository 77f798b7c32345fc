//! Keys that get no certificate: those whose private key can be computed, those of another holder,
//! and those that were reported as compromised. Asked over every way in.

use crate::caller::{Answer, Caller};
use crate::process::Told;
use crate::request::{Request, der};
use crate::stage::Stage;
use crate::weak_key::Weakness;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::fs;
use std::path::Path;
use std::thread;

/// Devices that cannot make a key, and a role that is no device's.
const MORE_PROFILES: &str = r#"
[[profile]]
name = "sensor"
authority = "line-1"
role = "device"
shared_keys = true
[profile.certificate]
kind = "leaf"
validity = "90d"
key_types = ["p256"]
key_usage = ["digital_signature"]
extended_key_usage = ["client_auth"]
"#;

fn stage() -> Stage {
    let stage = Stage::set();
    let configuration = stage.configuration() + MORE_PROFILES;
    let stations = configuration.replace("\"device-20s\"]", "\"device-20s\", \"sensor\"]");
    stage.configure(&stations);
    stage.raised()
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
fn at_the_machine(stage: &Stage, request: &Request) -> String {
    let csr = stage.write("at-the-machine.csr", &request.csr);
    let ask = ["issue", "--profile", &request.profile, "--id", &request.id];
    let told = stage.hallmark(&[&ask[..], &["--csr", csr.to_str().unwrap()]].concat());
    assert_ne!(told.code, Some(0), "{told:?}");
    told.error
}

/// The device's key is reported as compromised, with the request for its next leaf at hand.
fn compromise(stage: &Stage, id: &str, csr: &Path) -> Told {
    let report = ["roll", "start", id, "--reason", "compromise"];
    let next = ["--profile", "device", "--csr", csr.to_str().unwrap()];
    stage.hallmark(&[&report[..], &next[..]].concat())
}

/// Verifies: RSA keys with close primes, a small factor, or of the ROCA generator are refused over
/// the API, over EST, at the machine, and as the new key after a compromise, before that excludes
/// the device; nothing is recorded.
#[test]
fn a_key_that_can_be_computed_gets_no_certificate() {
    let stage = stage();
    let station = stage.station();
    station.obtain(&Request::device("press-7"));
    let intents = stage.count("intent");
    for weakness in Weakness::ALL {
        let reason = match weakness {
            Weakness::ClosePrimes => "too close",
            Weakness::SmallFactor => "divisible by 751",
            Weakness::Roca => "ROCA",
        };
        let request = weakness.request("press-7", &stage.path(""));
        refuses(&station.ask(&request), "csr_weak_key", reason);
        refuses(&enroll(&station, &request), "csr_weak_key", reason);
        let told = at_the_machine(&stage, &request);
        assert!(
            told.contains("csr_weak_key") && told.contains(reason),
            "{told}"
        );
        let csr = stage.write("weak.csr", &request.csr);
        let told = compromise(&stage, "press-7", &csr);
        assert!(told.error.contains("csr_weak_key"), "{told:?}");
    }
    assert_eq!(stage.count("intent"), intents);
    assert_eq!(stage.count("roll"), 0);
}

/// Verifies: a device renews with its own key; a second device and a station with that key are
/// refused, and so is a device with the key of a station or of the listener; a profile that says so
/// lets devices share one; of twenty devices that ask with one key at a time, one gets a certificate.
#[test]
fn one_key_is_for_one_holder() {
    let stage = stage();
    let station = stage.station();
    let first = station.obtain(&Request::device("press-7"));
    let again = station.obtain(&with_key("device", "press-7", &first.key));
    assert_ne!(again.serial, first.serial);

    let other = with_key("device", "press-8", &first.key);
    refuses(&station.ask(&other), "key_in_use", "press-7");
    refuses(&enroll(&station, &other), "key_in_use", "press-7");
    let told = at_the_machine(&stage, &with_key("station", "station-9", &first.key));
    assert!(told.contains("key_in_use"), "{told}");
    let station_key = stage.enlist("station", "station-3").key;
    let as_device = with_key("device", "press-9", &station_key);
    refuses(&station.ask(&as_device), "key_in_use", "station-3");
    let listener = fs::read_to_string(stage.path("state/tls/server.key")).unwrap();
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
    let mut stage = stage();
    let station = stage.station();
    let stolen = station.obtain(&Request::device("press-7"));
    station.obtain(&Request::device("press-8"));
    stage.told(&["roll", "start", "press-7", "--reason", "compromise"]);
    let is_refused = |stage: &Stage, station: &Caller| {
        for (profile, id) in [
            ("device", "press-7"),
            ("device", "press-9"),
            ("sensor", "press-9"),
        ] {
            let request = with_key(profile, id, &stolen.key);
            refuses(&station.ask(&request), "key_compromised", "compromised");
            refuses(&enroll(station, &request), "key_compromised", "compromised");
        }
        let told = at_the_machine(stage, &with_key("station", "station-9", &stolen.key));
        assert!(told.contains("key_compromised"), "{told}");
    };
    is_refused(&stage, &station);
    let csr = with_key("device", "press-8", &stolen.key).csr;
    let csr = stage.write("stolen.csr", &csr);
    let told = compromise(&stage, "press-8", &csr);
    assert!(told.error.contains("key_compromised"), "{told:?}");
    let revoked = "certificate WHERE revoked_at IS NOT NULL";
    assert_eq!(
        stage.count(revoked),
        1,
        "the certificate of press-8 is good"
    );

    stage.restart();
    is_refused(&stage, &stage.station_called("station-4"));
}
