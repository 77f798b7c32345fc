//! Tests 10,000 devices below a line whose authority is being rolled: the real daemon answers an
//! operator's questions correctly. The time is printed, not judged; `docs/performance.md` has the
//! numbers, and `store/tests/asked.rs` counts the database's work.

use crate::authority_roll::{comes_to, start};
use crate::test_env::TestEnv;
use hallmarkd::enrollment::role::Role;
use hallmarkd::enrollment::slots::Slots;
use hallmarkd::enrollment::thumbprint::Thumbprint;
use hallmarkd::ids::GenerationId;
use hallmarkd::store::{
    AuditEntry, EnrollmentKind, HubObservation, Intent, Moves, NewEnrollment, OnIssued, Purpose,
    Store,
};
use hallmarkd::unix_seconds::UnixSeconds;
use hallmarkd::x509::certificate::Certificate;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use time::OffsetDateTime;

const DEVICES: usize = 10_000;
/// This many also have a leaf by the new generation.
const MOVED: usize = 2_500;
/// Of these, this many were observed in the hub with it.
const SEEN: usize = 1_000;
/// This many of the others were last observed a hundred days ago.
const SILENT: usize = 500;
/// Sixteen octets; the first one is neither zero nor a sign.
const FIRST_SERIAL: u128 = 0x40 << 120;
const DAY: i64 = 86_400;
/// Parallel writers; they share commits.
const WRITERS: usize = 16;

/// Records leaves as if they had been issued. They are real certificates, but signed by a key of
/// the test's own: nothing here verifies them, and 12,500 signatures of a token would add nothing
/// to the test.
struct Recorder {
    store: Store,
    issuer: Issuer<'static, KeyPair>,
    now: UnixSeconds,
    recorded: AtomicUsize,
}

impl Recorder {
    fn new(env: &TestEnv) -> Self {
        let mut parameters = CertificateParams::default();
        let name = "Example Works Line 1";
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        Self {
            store: Store::open(&env.database()).unwrap(),
            issuer: Issuer::new(parameters, KeyPair::generate().unwrap()),
            now: UnixSeconds::new(OffsetDateTime::now_utc().unix_timestamp()),
            recorded: AtomicUsize::new(0),
        }
    }

    /// A leaf that was issued `age` ago, in seconds, and is good for 90 days more.
    fn leaf(&self, generation: GenerationId, id: &str, age: i64) -> Thumbprint {
        let at = self.now - age;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, id);
        let time = |moment: UnixSeconds| moment.date().unwrap();
        (parameters.not_before, parameters.not_after) = (time(at), time(self.now + 90 * DAY));
        let serial = FIRST_SERIAL + self.recorded.fetch_add(1, Ordering::Relaxed) as u128;
        parameters.serial_number = Some(serial.to_be_bytes().to_vec().into());
        let key = KeyPair::generate().unwrap();
        let leaf = parameters.signed_by(&key, &self.issuer).unwrap();
        let certificate = Certificate::parse(leaf.der()).unwrap();
        let intent = Intent {
            serial: certificate.serial().as_bytes().to_vec(),
            issuer: generation,
            purpose: Purpose::Leaf,
            profile: "device".into(),
            subject: id.into(),
            tbs: certificate.tbs_bytes().into(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            role: Some(Role::Device),
            caller: "fixture".into(),
            requester: None,
            idempotency: None,
            public_key: certificate.spki_der().clone(),
            shared_key: false,
            is_device: false,
            moves: Moves::Never,
            grant: None,
            at,
        };
        let entry = AuditEntry {
            at,
            actor: "fixture".into(),
            action: "certificate.issued",
            subject: id.into(),
            detail: json!({ "serial": certificate.serial().to_string(), "profile": "device" }),
        };
        let on_issued = OnIssued::Device {
            registration_id: id.into(),
            profile: "device".into(),
        };
        let recorded = pollster::block_on(self.store.record_intent(intent)).unwrap();
        let done =
            self.store
                .record_certificate(&recorded, leaf.der().as_ref().into(), on_issued, entry);
        pollster::block_on(done).unwrap();
        Thumbprint::of(leaf.der())
    }

    /// The device with this number, in the state that the counts at the top give it.
    fn device(&self, number: usize, [old, new]: [GenerationId; 2]) {
        let id = format!("press-{number:05}");
        let is_silent = number >= DEVICES - SILENT;
        let age = if is_silent { 100 * DAY } else { DAY };
        self.leaf(old, &id, age);
        if number >= MOVED {
            return;
        }
        let leaf = self.leaf(new, &id, 0);
        if number < SEEN {
            let observed = HubObservation {
                provisioning: "dps".into(),
                device: id,
                certificate: Some(leaf),
                registration: Some("assigned".into()),
                elsewhere: None,
                since: self.now,
                seen_at: self.now,
            };
            self.store.record_hub_observation(observed).unwrap();
        }
    }

    /// The whole fleet, below these generations.
    fn fleet(&self, generations: [GenerationId; 2]) {
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    for number in (writer..DEVICES).step_by(WRITERS) {
                        self.device(number, generations);
                    }
                });
            }
        });
    }
}

/// An environment with the fleet, and the number of the open rollover of `line-1`.
fn with_fleet() -> (TestEnv, String) {
    let mut env = TestEnv::running();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    env.wait_in_sync();
    env.stop();
    let id = "SELECT id FROM generation WHERE authority = 'line-1' AND number = ?1";
    let database = crate::invariants::open(&env.database());
    let id = |number: i64| {
        let id = database.query_row(id, [number], |row| row.get(0));
        GenerationId::new(id.unwrap())
    };
    timed("the fleet is recorded", || {
        Recorder::new(&env).fleet([id(1), id(2)]);
    });
    // The hub knows none of the devices: the daemon must not ask it about recorded proofs.
    let configuration = env.configuration();
    let (without_hub, _) = configuration.split_once("[provisioning.hub]").unwrap();
    env.configure(without_hub);
    env.start();
    env.wait_ready();
    (env, roll)
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    eprintln!("{what}: {:?}", begun.elapsed());
    done
}

/// A command as text and as JSON.
fn asked(env: &TestEnv, command: &[&str]) -> (String, Value) {
    let what = command.join(" ");
    let text = timed(&what, || env.run(command));
    let json = timed(&format!("{what} --json"), || env.json(command));
    (text, json)
}

/// Verifies: `roll show` counts and lists what was recorded; list, status and devices are whole.
#[test]
fn a_fleet_of_ten_thousand_is_shown_as_it_is() {
    let (env, roll) = with_fleet();
    let (text, shown) = asked(&env, &["roll", "show", &roll]);
    let report = &shown["report"];
    let expected = [
        ("leaves_under_the_old", DEVICES),
        ("devices_on_the_old", DEVICES - MOVED),
        ("devices_on_the_new", MOVED),
        ("devices_seen_on_the_new", SEEN),
        ("devices_silent", SILENT),
        ("expiring_before_retirement", DEVICES),
    ];
    for (name, count) in expected {
        assert_eq!(report[name], count, "{name}");
        assert!(text.contains(&format!("{name}: {count}")), "{name}: {text}");
    }
    let reissue = report["reissue"].as_array().unwrap();
    assert_eq!(reissue.len(), 1_000, "a page of those that need a new leaf");
    assert_eq!(reissue[0]["registration_id"], "press-02500");

    let (text, rolls) = asked(&env, &["roll", "list"]);
    assert_eq!(rolls.as_array().unwrap().len(), 1);
    assert!(text.contains("draining"), "{text}");
    let (_, status) = asked(&env, &["status", "--verbose"]);
    assert_eq!(status["alarms"], json!([]));
    assert!(status["certificates"].as_i64().unwrap() > (DEVICES + MOVED) as i64);
    let (text, devices) = asked(&env, &["device", "list"]);
    assert_eq!(devices.as_array().unwrap().len(), DEVICES);
    assert_eq!(text.matches("press-").count(), DEVICES);
}

/// More enrollments than an answer carries. Verifies: the command lists them all, each once.
#[test]
fn more_enrollments_than_a_page_are_listed() {
    const ENROLLMENTS: usize = 1_100;
    let mut env = TestEnv::running();
    env.stop();
    let configuration = env.configuration();
    // The daemon must not write these enrollments to the service.
    let (alone, _) = configuration.split_once("[[provisioning]]").unwrap();
    env.configure(alone);
    let store = Store::open(&env.database()).unwrap();
    for number in 0..ENROLLMENTS {
        let new = NewEnrollment {
            provisioning: "dps".into(),
            kind: EnrollmentKind::Individual,
            name: format!("press-{number:05}"),
            authority: None,
            by_reference: false,
            slots: Slots::Empty,
        };
        let entry = AuditEntry {
            at: UnixSeconds::new(0),
            actor: "fixture".into(),
            action: "enrollment.added",
            subject: new.name.clone(),
            detail: json!({}),
        };
        store.add_enrollment(new, entry).unwrap();
    }
    drop(store);
    env.start();
    let (text, listed) = asked(&env, &["enrollment", "list"]);
    let listed = listed.as_array().unwrap().iter();
    let names: BTreeSet<_> = listed.map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), ENROLLMENTS);
    assert_eq!(text.matches("press-").count(), ENROLLMENTS);
}
