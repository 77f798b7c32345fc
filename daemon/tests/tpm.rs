//! TPMs end to end: real software TPMs, real worker processes, the client.
//!
//! Each test has its own swtpm, folder, socket and worker, and tells one story. A missing swtpm or
//! tpm2-tools fails them: `softhsm-setup/install` brings both.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected shall stop there"
)]

#[path = "../../tests/system/software_tpm.rs"]
mod software_tpm;

use hallmarkd::token::bench;
use hallmarkd::token::client::{TokenClient, TokenHealth};
use hallmarkd::token::configuration::TokenFile;
use hallmarkd::token::contract::{self, Check, Verdict};
use hallmarkd::token::supervisor::{Supervisor, WorkerCommand};
use hallmarkd::token::worker::health::TokenState;
use hallmarkd::token::{KeyDescription, KeyReference, KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use rustix::process::{Pid, Signal, kill_process};
use software_tpm::SoftwareTpm;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HALLMARKD: &str = env!("CARGO_BIN_EXE_hallmarkd");
const CREDENTIAL: &str = "2c7c1f0e9b6d4a5f8e3b7a1d";
const SOON: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(5);
const KEY_TYPES: [KeyType; 4] = [
    KeyType::P256,
    KeyType::P384,
    KeyType::Rsa2048,
    KeyType::Rsa3072,
];

/// A folder with a TPM, its credential and a configuration.
struct Stage {
    tpm: SoftwareTpm,
    folder: tempfile::TempDir,
}

/// A worker kept running, and its client.
struct Running {
    client: TokenClient,
    _supervisor: Supervisor,
}

impl Stage {
    fn new() -> Self {
        Self::with("")
    }

    /// With more in the configuration of its token.
    fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage {
            tpm: SoftwareTpm::start(folder.path().join("tpm")),
            folder,
        };
        stage.write_credential(CREDENTIAL);
        stage.configure(more);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, more: &str) {
        let (state, credential) = (self.path(""), self.path("credential"));
        let tcti = self.tpm.tcti();
        let text = format!(
            "state_dir = {state:?}\n[[token]]\nname = \"gate\"\nkind = \"tpm\"\ntcti = {tcti:?}\n\
             credential = {credential:?}\n{more}\n"
        );
        fs::write(self.path("hallmark.toml"), text).unwrap();
    }

    fn write_credential(&self, text: &str) {
        let path = self.path("credential");
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn start(&self) -> Running {
        self.start_on("gate.sock")
    }

    fn start_on(&self, socket: &str) -> Running {
        let socket = self.path(socket);
        let client = TokenClient::new("gate", socket.clone());
        let configuration = self.path("hallmark.toml").into_os_string();
        let command = WorkerCommand {
            program: HALLMARKD.into(),
            arguments: vec![
                "token".into(),
                "gate".into(),
                "--config".into(),
                configuration,
            ],
            socket,
            environment: Default::default(),
        };
        let _supervisor = Supervisor::start(client.clone(), command);
        Running {
            client,
            _supervisor,
        }
    }

    /// `kill -9` for the worker, found as an operator would: by its command line.
    fn kill_worker(&self) {
        let socket = self.path("gate.sock").display().to_string();
        let worker = fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let ours = arguments.split('\0').any(|argument| argument == socket);
            ours.then(|| Pid::from_raw(pid))?
        });
        kill_process(worker.expect("a worker runs"), Signal::KILL).unwrap();
    }
}

impl Running {
    fn wait_for(&self, state: TokenState) -> TokenHealth {
        self.wait_until(|health| health.state == state)
    }

    fn wait_until(&self, wanted: impl Fn(&TokenHealth) -> bool) -> TokenHealth {
        let begun = Instant::now();
        loop {
            let health = self.client.health();
            if wanted(&health) {
                return health;
            }
            assert!(begun.elapsed() < SOON, "still {health:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn key(&self) -> KeyDescription {
        self.key_of(KeyType::P256)
    }

    fn key_of(&self, key_type: KeyType) -> KeyDescription {
        self.wait_for(TokenState::Ready);
        let specification = KeySpecification {
            key_type,
            label: "ca".into(),
            id: vec![7; 16],
        };
        self.client.generate(&specification, DEADLINE).unwrap()
    }

    /// Asks again and again, as issuance does for its callers, until a signature verifies.
    fn signs_again(&self, key: &KeyDescription) {
        let begun = Instant::now();
        while let Err(error) = self.client.prove(key, DEADLINE) {
            assert!(begun.elapsed() < SOON, "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Why the TPM does not sign with this key.
    fn lacks(&self, key: &KeyReference) -> String {
        match self.client.find(key, DEADLINE) {
            Err(TokenError::Key { reason, .. }) => reason,
            outcome => panic!("{outcome:?}"),
        }
    }
}

#[test]
fn a_tpm_keeps_the_contract_through_its_worker() {
    let stage = Stage::new();
    let running = stage.start();
    running.wait_for(TokenState::Ready);
    let checks = contract::check_client(&running.client, &KEY_TYPES);
    for Check { name, verdict } in checks {
        // Its keys are kept outside; it has no place for secrets; it makes no credential keys.
        let lacks = [
            "an id that is taken",
            "a secret is imported",
            "a credential key",
        ];
        match lacks.iter().any(|it| name.starts_with(it)) {
            true => assert!(
                matches!(verdict, Verdict::NotSupported(_)),
                "{name}: {verdict:?}"
            ),
            false => assert_eq!(verdict, Verdict::Passed, "{name}"),
        }
    }
    let rungs = running.client.health().rungs;
    let climbed = (rungs.sessions, rungs.logins, rungs.initializations);
    assert_eq!(climbed, (0, 1, 1), "never climbed");
    assert!(stage.tpm.transient_objects() <= 2);
}

#[test]
fn keys_of_every_kind_sign_from_many_threads_though_there_are_three_slots() {
    let stage = Stage::new();
    let running = stage.start();
    let keys = KEY_TYPES.map(|key_type| running.key_of(key_type));
    std::thread::scope(|scope| {
        for key in keys.iter().chain(&keys) {
            let client = &running.client;
            scope.spawn(move || {
                for _ in 0..8 {
                    client.prove(key, DEADLINE).unwrap();
                }
            });
        }
    });
    assert!(stage.tpm.transient_objects() <= 2, "primary and one key");
    drop(running);
    assert_eq!(stage.tpm.transient_objects(), 0, "nothing is left behind");
}

#[test]
fn a_killed_worker_leaves_nothing_in_the_slots_and_touches_nothing_of_others() {
    let stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    assert_eq!(stage.tpm.transient_objects(), 2, "primary and key");
    // tpm2-tools leave the primary loaded when there is no resource manager.
    let others = ["-C", "o", "-G", "ecc", "-c", "others.ctx"];
    stage.tpm.tool("tpm2_createprimary", &others);
    assert_eq!(stage.tpm.transient_objects(), 3, "the slots are full");
    stage.kill_worker();
    running.signs_again(&key);
    assert_eq!(running.client.health().restarts, 1);
    assert_eq!(
        stage.tpm.transient_objects(),
        3,
        "ours, and somebody else's"
    );
    drop(running);
    assert_eq!(stage.tpm.transient_objects(), 1, "somebody else's");
}

/// Whoever flushes everything flushes ours as well; what he loads next gets our handles.
#[test]
fn somebody_who_flushes_everything_costs_a_recovery_and_keeps_what_he_loads() {
    let stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    for round in 1..=3 {
        stage.tpm.tool("tpm2_flushcontext", &["-t"]);
        let others = ["-C", "o", "-G", "ecc", "-c", "others.ctx"];
        stage.tpm.tool("tpm2_createprimary", &others);
        running.signs_again(&key);
        assert_eq!(stage.tpm.transient_objects(), 3, "round {round}");
    }
    let properties = stage.tpm.tool("tpm2_getcap", &["properties-variable"]);
    assert!(
        properties.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0"),
        "{properties}"
    );
}

#[test]
fn a_tpm_that_goes_away_and_comes_back_heals_without_a_restart() {
    let mut stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();

    stage.tpm.kill();
    // Nobody asks for anything, and the state says so all the same.
    let health = running.wait_for(TokenState::Unavailable);
    assert!(health.reason.contains("not reached"), "{health:?}");
    let error = running
        .client
        .prove(&key, DEADLINE)
        .expect_err("it is gone");
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error:?}");

    stage.tpm.start_again();
    let health = running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
    assert_eq!((health.restarts, &*health.reason), (0, ""));
}

#[test]
fn a_tpm_restarted_under_load_costs_answers_and_no_key() {
    let mut stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    let (client, key) = (&running.client, &key);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Whatever comes back verifies, or says that the TPM is away.
                    match client.prove(key, DEADLINE) {
                        Ok(()) => {}
                        Err(TokenError::Unavailable { .. }) => {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for _ in 0..3 {
            stage.tpm.kill();
            running.wait_for(TokenState::Unavailable);
            stage.tpm.start_again();
            running.signs_again(key);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(running.client.health().restarts, 0);
}

#[test]
fn a_tpm_absent_at_the_start_is_waited_for() {
    let mut stage = Stage::new();
    stage.tpm.kill();
    let running = stage.start();
    running.wait_for(TokenState::Unavailable);
    stage.tpm.start_again();
    running.wait_for(TokenState::Ready);
    let description = running.client.describe(DEADLINE).unwrap();
    assert_eq!(
        (description.label.as_str(), description.serial.len()),
        ("gate", 32)
    );
    assert!(description.interface.contains("TPM 2.0"), "{description:?}");
}

#[test]
fn a_wrong_credential_is_tried_once_and_counts_nowhere() {
    let stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    drop(running);

    stage.write_credential("another credential of 16 bytes or more");
    let running = stage.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("BadAuth"), "{health:?}");
    let error = running.client.prove(&key, DEADLINE).expect_err("parked");
    assert!(matches!(error, TokenError::Parked { .. }), "{error:?}");
    stage.kill_worker();
    running.wait_for(TokenState::Unavailable);
    let health = running.wait_for(TokenState::Parked);
    assert_eq!(health.rungs.logins, 0, "the next worker has not tried it");
    let properties = stage.tpm.tool("tpm2_getcap", &["properties-variable"]);
    assert!(
        properties.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0"),
        "{properties}"
    );

    stage.write_credential(CREDENTIAL);
    running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
}

#[test]
fn a_credential_that_can_be_guessed_is_not_taken() {
    let stage = Stage::new();
    stage.write_credential("1234");
    let running = stage.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("at random"), "{health:?}");
    assert!(!stage.path("token-gate.tpm").exists());
}

#[test]
fn a_key_whose_label_was_altered_on_record_is_refused_by_the_tpm() {
    let stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    let mut altered = key.clone();
    let wrapped = altered.wrapped.as_mut().unwrap();
    let at = wrapped.windows(2).position(|bytes| bytes == b"ca").unwrap();
    wrapped[at..at + 2].copy_from_slice(b"cb");
    for _ in 0..2 {
        let reason = match running.client.prove(&altered, DEADLINE) {
            Err(TokenError::Key { reason, .. }) => reason,
            outcome => panic!("{outcome:?}"),
        };
        assert!(reason.contains("authorization value"), "{reason}");
    }
    assert_eq!(running.client.health().state, TokenState::Ready);
}

#[test]
fn a_cleared_tpm_parks_and_its_keys_are_gone_for_good() {
    let stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    stage.tpm.tool("tpm2_clear", &[]);
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("cleared or exchanged"), "{health:?}");
    assert!(health.reason.contains("token-gate.tpm"), "{health:?}");
    assert_eq!(
        stage.tpm.transient_objects(),
        0,
        "nothing is made in its place"
    );

    // The operator takes it as it is.
    fs::remove_file(stage.path("token-gate.tpm")).unwrap();
    running.wait_until(|health| health.state == TokenState::Ready);
    let reason = running.lacks(&key.reference());
    assert!(reason.contains("gone for good"), "{reason}");
    let health = running.client.health();
    assert!(health.reason.contains("keys not found: ca"), "{health:?}");
    running.client.prove(&running.key(), DEADLINE).unwrap();
}

#[test]
fn an_exchanged_tpm_parks_until_the_old_one_is_back() {
    let mut stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    let serial = running.client.describe(DEADLINE).unwrap().serial;
    stage.tpm.exchange(stage.path("another-tpm"));
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains(&serial), "{health:?}");
    stage.tpm.exchange(stage.path("tpm"));
    running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
    drop(running);

    // Named in the configuration, it is known without the file that remembers it.
    fs::remove_file(stage.path("token-gate.tpm")).unwrap();
    stage.tpm.exchange(stage.path("another-tpm"));
    stage.configure(&format!("serial = {serial:?}"));
    let health = stage.start().wait_for(TokenState::Parked);
    assert!(health.reason.contains("another one"), "{health:?}");
}

#[test]
fn a_lockout_that_others_provoked_is_told_and_stops_nothing() {
    let stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    stage.tpm.provoke_lockout();
    let health = running.wait_until(|health| health.reason.contains("lockout"));
    assert_eq!(health.state, TokenState::Ready, "{health:?}");
    assert!(health.reason.contains("for at most"), "{health:?}");
    running.signs_again(&key);
    drop(running);
    let running = stage.start();
    running.wait_for(TokenState::Ready);
    running
        .client
        .prove(&key, DEADLINE)
        .expect("and after a restart");
    stage
        .tpm
        .tool("tpm2_dictionarylockout", &["--clear-lockout"]);
    running.wait_until(|health| health.state == TokenState::Ready && health.reason.is_empty());
}

#[test]
fn a_primary_key_that_is_persistent_is_made_once_and_takes_no_slot() {
    let mut stage = Stage::with("primary_handle = 0x81000101");
    let running = stage.start();
    let key = running.key();
    running.client.prove(&key, DEADLINE).unwrap();
    assert_eq!(stage.tpm.transient_objects(), 1, "the key");
    let listed = stage.tpm.tool("tpm2_getcap", &["handles-persistent"]);
    assert!(listed.to_lowercase().contains("0x81000101"), "{listed}");
    stage.tpm.kill();
    running.wait_for(TokenState::Unavailable);
    stage.tpm.start_again();
    running.signs_again(&key);
    drop(running);

    // It is the same key as the transient one: where it is kept can be changed.
    stage.configure("");
    let running = stage.start();
    running.wait_for(TokenState::Ready);
    running.client.prove(&key, DEADLINE).unwrap();
}

#[test]
fn a_persistent_handle_that_holds_something_else_is_not_touched() {
    let stage = Stage::with("primary_handle = 0x81000101");
    let tools = &stage.tpm;
    tools.tool(
        "tpm2_createprimary",
        &["-C", "o", "-G", "ecc", "-c", "others.ctx"],
    );
    tools.tool(
        "tpm2_evictcontrol",
        &["-C", "o", "-c", "others.ctx", "0x81000101"],
    );
    tools.tool("tpm2_flushcontext", &["-t"]);
    let before = tools.tool("tpm2_readpublic", &["-c", "0x81000101"]);
    let running = stage.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("holds another object"), "{health:?}");
    assert_eq!(before, tools.tool("tpm2_readpublic", &["-c", "0x81000101"]));
}

/// The template is public, so that the primary key can be made without this program.
#[test]
fn the_primary_key_can_be_derived_with_tpm2_tools() {
    let stage = Stage::new();
    let running = stage.start();
    running.wait_for(TokenState::Ready);
    let serial = running.client.describe(DEADLINE).unwrap().serial;
    drop(running);
    // As `-u` wants a point: twice a size and a buffer of 128 bytes, as they stand in memory.
    let mut unique = vec![0; 2 * (2 + 128)];
    unique[0] = 32;
    unique[2..10].copy_from_slice(b"Hallmark");
    unique[2 + 128] = 32;
    fs::write(stage.path("tpm/unique"), unique).unwrap();
    let attributes =
        "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let create = [
        "-C",
        "o",
        "-g",
        "sha256",
        "-G",
        "ecc256:aes128cfb",
        "-a",
        attributes,
    ];
    let create = [&create[..], &["-u", "unique", "-c", "primary.ctx"]].concat();
    stage.tpm.tool("tpm2_createprimary", &create);
    stage
        .tpm
        .tool("tpm2_readpublic", &["-c", "primary.ctx", "-n", "name"]);
    let name = fs::read(stage.path("tpm/name")).unwrap();
    let name: String = name[2..18]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(name, serial);
}

#[test]
fn an_owner_with_an_authorization_value_is_told_what_to_do_and_not_guessed_at() {
    let stage = Stage::new();
    stage.tpm.tool("tpm2_changeauth", &["-c", "owner", "mine"]);
    let running = stage.start();
    let health = running.wait_for(TokenState::Parked);
    assert!(health.reason.contains("primary_handle"), "{health:?}");
}

#[test]
fn a_second_worker_of_one_tpm_without_resource_manager_is_refused() {
    let stage = Stage::new();
    let running = stage.start();
    let key = running.key();
    let second = stage.start_on("second.sock");
    let health = second.wait_until(|health| health.reason.contains("another worker"));
    assert_eq!(health.state, TokenState::Unavailable);
    running.client.prove(&key, DEADLINE).unwrap();
    drop(running);
    second.wait_for(TokenState::Ready);
    second.client.prove(&key, DEADLINE).unwrap();
}

/// A session's context may be saved so often before the TPM wants it back (`TPM_RC_CONTEXT_GAP`, at
/// 65,535 on many); passwords need no session. Prints how many it was and how fast.
#[test]
#[ignore = "takes minutes: tests/run --long"]
fn more_signatures_than_the_context_gap_in_one_run() {
    const SIGNATURES: usize = 70_001;
    let stage = Stage::new();
    let running = stage.start();
    let (first, second) = (running.key(), running.key_of(KeyType::P384));
    let begun = Instant::now();
    let (client, keys) = (&running.client, [&first, &second]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in (thread..SIGNATURES).step_by(4) {
                    // Now and then the other key, so that they are loaded and flushed as well.
                    client
                        .prove(keys[usize::from(number % 100 == 99)], DEADLINE)
                        .unwrap();
                }
            });
        }
    });
    let rate = SIGNATURES as f64 / begun.elapsed().as_secs_f64();
    writeln!(
        std::io::stderr(),
        "{SIGNATURES} signatures, {rate:.0} a second"
    )
    .unwrap();
    let rungs = client.health().rungs;
    let climbed = (rungs.sessions, rungs.logins, rungs.initializations);
    assert_eq!(climbed, (0, 1, 1), "never climbed");
}

#[test]
#[ignore = "measures: run it alone, in release"]
fn how_fast_a_software_tpm_signs_through_its_worker() {
    let stage = Stage::new();
    let running = stage.start();
    for key_type in KEY_TYPES {
        let key = running.key_of(key_type);
        let measured = bench::run(&running.client, &key, 4, Duration::from_secs(4)).unwrap();
        let (rate, median) = (measured.rate(), measured.median);
        writeln!(
            std::io::stderr(),
            "{key_type:?}: {rate:.0}/s, p50 {median:?}"
        )
        .unwrap();
    }
}

/// tpm2-abrmd on a bus of its own, before the stage's TPM. Ends with its test.
struct ResourceManager {
    bus: Child,
    manager: Child,
    bus_address: String,
}

impl ResourceManager {
    fn start(tpm: &SoftwareTpm) -> Self {
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon: tests/install-modules brings it");
        let mut address = String::new();
        let mut told = BufReader::new(bus.stdout.take().unwrap());
        told.read_line(&mut address).unwrap();
        let bus_address = address.trim().to_owned();
        let manager = Command::new("tpm2-abrmd")
            .args(["--session", "--allow-root", "--flush-all"])
            .arg(format!("--tcti={}", tpm.tcti()))
            .env("DBUS_SESSION_BUS_ADDRESS", &bus_address)
            .env("G_MESSAGES_DEBUG", "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tpm2-abrmd: tests/install-modules brings it");
        Self {
            bus,
            manager,
            bus_address,
        }
    }
}

impl Drop for ResourceManager {
    fn drop(&mut self) {
        for process in [&mut self.manager, &mut self.bus] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Behind a resource manager everybody has three slots of his own, and what a killed worker left is
/// taken back for it: two workers side by side, and nothing to clean up.
#[test]
fn behind_a_resource_manager_the_contract_holds_for_two_workers_at_once() {
    let stage = Stage::new();
    let manager = ResourceManager::start(&stage.tpm);
    let configuration = fs::read_to_string(stage.path("hallmark.toml")).unwrap();
    let configuration = configuration.replace(&stage.tpm.tcti(), "tabrmd:bus_type=session")
        + &format!(
            "[token.environment]\nDBUS_SESSION_BUS_ADDRESS = {:?}\n",
            manager.bus_address
        );
    fs::write(stage.path("hallmark.toml"), configuration).unwrap();
    let (first, second) = (stage.start(), stage.start_on("second.sock"));
    let key = first.key();
    second.wait_for(TokenState::Ready);
    std::thread::scope(|scope| {
        let (client, key) = (&second.client, &key);
        scope.spawn(move || {
            for _ in 0..50 {
                client.prove(key, DEADLINE).unwrap();
            }
        });
        for Check { name, verdict } in contract::check_client(&first.client, &[KeyType::P256]) {
            let holds = matches!(verdict, Verdict::Passed | Verdict::NotSupported(_));
            assert!(holds, "{name}: {verdict:?}");
        }
    });
    stage.kill_worker();
    first.signs_again(&key);
    second.client.prove(&key, DEADLINE).unwrap();
}

/// What `new-tpm` left running in a folder, until the test is over.
struct LeftRunning(PathBuf);

impl LeftRunning {
    fn pid(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.0.join("pid")).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }
}

impl Drop for LeftRunning {
    fn drop(&mut self) {
        // It fails only when there is none.
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

#[test]
fn new_tpm_leaves_one_running_and_prints_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = LeftRunning(folder.path().join("tpm"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../softhsm-setup/new-tpm");
    let run = || {
        let command = &mut Command::new(&script);
        let output = command.arg(&tpm.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let pid = || tpm.pid().unwrap();
    let (text, first) = (run(), pid());
    assert_eq!(
        (run(), pid()),
        (text.clone(), first),
        "it runs, and is found"
    );
    kill_process(first, Signal::TERM).unwrap();
    let begun = Instant::now();
    let stat = format!("/proc/{}/stat", first.as_raw_nonzero());
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(begun.elapsed() < SOON, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(run(), text, "started again, where it was");

    let file = folder.path().join("hallmark.toml");
    fs::write(&file, format!("state_dir = \"/nowhere\"\n{text}")).unwrap();
    let file = TokenFile::read(&file).unwrap();
    file.token("gate").unwrap().resolve(None).unwrap();
}
