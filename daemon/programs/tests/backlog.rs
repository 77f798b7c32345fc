//! A fleet that waits: 10,000 individual enrollments, pushed within the service's quota.
//!
//! Real store, real reconciler, the emulator over TLS. The clock is compressed sixty times: what
//! the service allows in a minute it allows here in a second, on both sides. No token is needed:
//! the leaves are a fixture, recorded as if they had been issued.
#![allow(
    clippy::print_stderr,
    reason = "the number of operations is what is shown"
)]

use dps_emulator::{Emulator, Kind, Options};
use hallmarkd::ca::services::Services;
use hallmarkd::ca::{Callbacks, CertificateAuthority, Config, IssuerSettings, Settings};
use hallmarkd::enrollment::plan::DriftPolicy;
use hallmarkd::enrollment::role::Role;
use hallmarkd::enrollment::slots::Slots;
use hallmarkd::ids::{EnrollmentId, GenerationId};
use hallmarkd::provisioning::configuration::ProvisioningConfiguration;
use hallmarkd::provisioning::credential::keys::TokenKeys;
use hallmarkd::provisioning::reconcile::Reconciler;
use hallmarkd::store::{
    AuditEntry, EnrollmentKind, Intent, Moves, NewEnrollment, OnIssued, PlannedGeneration, Purpose,
    Store,
};
use hallmarkd::unix_seconds::UnixSeconds;
use hallmarkd::x509::certificate::Certificate;
use hallmarkd::x509::key::KeyType;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Devices, unless [`FLEET`] names another number.
const DEVICES: usize = 10_000;
/// The environment variable by which `tests/bench/run fleet` asks for another number.
const FLEET: &str = "HALLMARK_FLEET";
/// Enrollments in one bulk call of the service.
const BULK: u64 = 10;
/// Azure's 1,000 operations a minute, sixty minutes in one.
const OPERATIONS_PER_MINUTE: u32 = 60_000;
const WRITERS: usize = 8;

fn devices() -> usize {
    let named = std::env::var(FLEET).ok();
    named.map_or(DEVICES, |it| it.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_enrollments_are_pushed_within_the_quota_and_no_operation_is_wasted() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut options = Options::new(folder.path());
    options.switches.quotas.service_operations_a_minute = Some(OPERATIONS_PER_MINUTE);
    let emulator = Emulator::start(options).expect("the emulator starts");
    let store = Store::open(&folder.path().join("hallmark.db")).expect("a database");
    fill(&store);
    let reconciler = reconciler(folder.path(), &emulator, store.clone());

    let begun = Instant::now();
    reconciler.pass().await.expect("the work can be read");
    let elapsed = begun.elapsed();

    let (waiting, parked, _) = store.mark_counts().expect("counts");
    assert_eq!((waiting, parked), (0, 0), "nothing is left to do");
    let records = emulator.records(Kind::Individual);
    let devices = devices();
    assert_eq!(records.len(), devices);
    for row in store.enrollments(EnrollmentId::START, 1_000).expect("rows") {
        let desired = row.slots.serving().expect("a leaf").to_string();
        let held = emulator.individual(&row.name).expect("a record");
        let held =
            held.pointer("/attestation/x509/clientCertificates/primary/info/sha256Thumbprint");
        assert!(
            held.and_then(|it| it.as_str())
                .is_some_and(|it| it.eq_ignore_ascii_case(&desired))
        );
    }
    let counters = emulator.counters();
    let requests: u64 = counters.values().map(|count| count.total).sum();
    let refused: u64 = counters.values().map(|count| count.refused).sum();
    // The service counts each enrollment of a bulk call.
    let fewest = devices as u64;
    let operations = requests - fewest.div_ceil(BULK) + fewest;
    eprintln!(
        "{operations} operations, {:.3} times the fewest",
        operations as f64 / fewest as f64
    );
    eprintln!(
        "{devices} enrollments in {elapsed:.1?} of compressed time ({:.1} minutes of the \
         service's): {requests} requests, {refused} refused",
        elapsed.as_secs_f64()
    );
    assert_eq!(refused, 0, "the budget kept within the quota");
    assert!(requests < fewest / 5, "{requests} requests");
    let at_least = Duration::from_secs_f64(devices as f64 / 1_000.0 - 1.0);
    assert!(
        elapsed >= at_least,
        "an enrollment counts as an operation, in bulk or not"
    );
}

fn reconciler(folder: &Path, emulator: &Emulator, store: Store) -> Reconciler {
    let credential = folder.join("connection-string");
    std::fs::write(&credential, emulator.service_connection_string()).expect("writable");
    std::fs::set_permissions(&credential, Permissions::from_mode(0o600)).expect("ours");
    let said: ProvisioningConfiguration = toml::from_str(&format!(
        "name = \"dps\"\nendpoint = \"https://{}\"\naddress = \"{}\"\nid_scope = \"{}\"\n\
         ca_bundle = {:?}\ncredential = {credential:?}\n\
         operations_per_minute = {OPERATIONS_PER_MINUTE}\n",
        emulator.service_host(),
        emulator.addr(),
        emulator.id_scope(),
        emulator.ca_file(),
    ))
    .expect("a configuration");
    let ca = CertificateAuthority::start(Config {
        store,
        tokens: std::collections::BTreeMap::new(),
        issuer: IssuerSettings::default(),
        callbacks: Callbacks {
            desired_changed: Box::new(|| {}),
            crl_due: Box::new(|| {}),
        },
        settings: Settings {
            services: Services {
                names: vec!["dps".into()],
                ..Services::default()
            },
            push_age_alarm_seconds: 3_600,
            ..Settings::default()
        },
    })
    .expect("an authority");
    Reconciler {
        name: "dps".into(),
        ca: Arc::new(ca),
        clients: said
            .check(None)
            .expect("meant")
            .clients(&TokenKeys::new())
            .expect("clients"),
        drift: DriftPolicy::Report,
        scan_interval: Duration::from_secs(3_600),
        wake: Arc::new(Notify::new()),
        canary_wake: Arc::new(Notify::new()),
        hub_wake: Arc::new(Notify::new()),
        observed: Arc::new(Notify::new()),
    }
}

/// One root, and a leaf and an enrollment for each device.
fn fill(store: &Store) {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
        .distinguished_name
        .push(DnType::CommonName, "Fixture Root");
    let root = parameters.self_signed(&key).expect("a root");
    let spki = Certificate::parse(root.der())
        .expect("readable")
        .spki_der()
        .to_vec();
    let generation = store
        .plan_generation(PlannedGeneration {
            authority: "root".into(),
            parent: None,
            token: "none".into(),
            key_type: KeyType::P256,
            key_id: vec![1],
        })
        .expect("planned")
        .id;
    store
        .record_key(generation, spki.into(), None)
        .expect("recorded");
    record(
        store,
        generation,
        root.der(),
        Purpose::Authority,
        OnIssued::Authority { generation },
    );
    let issuer = Issuer::new(parameters, key);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let issuer = &issuer;
            scope.spawn(move || {
                for number in (writer..devices()).step_by(WRITERS) {
                    enroll(store, generation, issuer, &format!("device-{number:07}"));
                }
            });
        }
    });
}

fn enroll(store: &Store, generation: GenerationId, issuer: &Issuer<'_, KeyPair>, id: &str) {
    let new = NewEnrollment {
        provisioning: "dps".into(),
        kind: EnrollmentKind::Individual,
        name: id.into(),
        authority: None,
        by_reference: false,
        slots: Slots::Empty,
    };
    store.add_enrollment(new, entry(id)).expect("added");
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, id);
    let leaf = parameters.signed_by(&key, issuer).expect("a leaf");
    let on_issued = OnIssued::Device {
        registration_id: id.into(),
        profile: "device".into(),
    };
    record(store, generation, leaf.der(), Purpose::Leaf, on_issued);
}

fn record(store: &Store, issuer: GenerationId, der: &[u8], purpose: Purpose, on_issued: OnIssued) {
    let certificate = Certificate::parse(der).expect("readable");
    let intent = Intent {
        serial: certificate.serial().as_bytes().to_vec(),
        issuer,
        purpose,
        profile: "device".into(),
        subject: certificate.common_name().expect("a name"),
        tbs: certificate.tbs_bytes().into(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        role: (purpose == Purpose::Leaf).then_some(Role::Device),
        caller: "fixture".into(),
        requester: None,
        idempotency: None,
        public_key: certificate.spki_der().clone(),
        shared_key: false,
        is_device: false,
        moves: Moves::Never,
        grant: None,
        at: UnixSeconds::new(0),
    };
    let recorded = pollster::block_on(store.record_intent(intent)).expect("recorded");
    let entry = entry("fixture");
    pollster::block_on(store.record_certificate(&recorded, der.into(), on_issued, entry))
        .expect("recorded");
}

fn entry(subject: &str) -> AuditEntry {
    AuditEntry {
        at: UnixSeconds::new(0),
        actor: "fixture".into(),
        action: "fixture.made",
        subject: subject.into(),
        detail: json!({}),
    }
}
