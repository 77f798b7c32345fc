//! Tests the faults of a gateway: a disk that is full or slow, a root that is read-only, weeks
//! offline.

use crate::doctor::finds;
use crate::process::{Process, until};
use crate::provisioned::below_line_1;
use crate::request::Request;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use time::Duration;

/// Set in a test that has a mount namespace of its own.
const INSIDE: &str = "HALLMARK_TEST_IN_MOUNT_NAMESPACE";

/// Runs this test again, in a mount namespace that goes when it ends; true inside.
fn is_in_mount_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(
        status.success(),
        "in a mount namespace (are you root?): {status}"
    );
    false
}

/// Writes to the last byte of the disk.
fn fill(path: &Path) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    let mut piece = 64 * 1024;
    while piece > 0 {
        if file.write_all(&vec![0; piece]).is_err() {
            piece /= 2;
        }
    }
}

/// Asserts that requests that need no write are served.
fn reads_are_served(env: &TestEnv) {
    env.run(&["status", "--verbose"]);
    env.run(&["audit", "verify"]);
    assert_eq!(env.plain_http().get("/crl/line-1.crl").status, 200);
}

/// An environment whose state folder is a small file system of its own.
fn on_a_small_disk() -> TestEnv {
    let env = TestEnv::new();
    let state = env.path("state");
    fs::create_dir(&state).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs"]);
    assert!(mount.arg(&state).status().unwrap().success());
    env
}

/// Asserts that status, alarm, probe and metrics report a store that cannot write.
fn is_unwritable(env: &TestEnv, cause: &str) {
    until("the state tells that the store cannot write", || {
        (env.json(&["status"])["ready"] == false).then_some(())
    });
    let status = env.json(&["status"]);
    let alarms = status["alarms"].to_string();
    assert!(
        alarms.contains("the store cannot write since") && alarms.contains(cause),
        "{status:#}"
    );
    assert_eq!(status["store"]["writable"], false, "{status:#}");
    assert_eq!(status["store"]["reason_code"], "store_not_writable");
    for list in ["alarm_details", "not_ready"] {
        let list = status[list].as_array().unwrap();
        let it = list.iter().find(|it| it["code"] == "store_not_writable");
        let reason = it.unwrap()["parameters"]["reason"].as_str().unwrap();
        assert!(reason.contains(cause), "{status:#}");
    }
    assert_eq!(env.stranger().get("/readyz").status, 503);
    assert_eq!(env.stranger().get("/healthz").status, 200);
    let metrics = env.metrics();
    assert!(metrics.contains("hallmark_store_writable 0"), "{metrics}");
    assert!(metrics.contains("hallmark_ready 0"), "{metrics}");
}

/// Waits until they no longer report it.
fn is_writable_again(env: &TestEnv) {
    until("the alarm is over", || {
        let status = env.json(&["status"]);
        let alarms = status["alarms"].to_string();
        (status["ready"] == true && !alarms.contains("cannot write")).then_some(())
    });
    assert_eq!(env.stranger().get("/readyz").status, 200);
    assert!(env.metrics().contains("hallmark_store_writable 1"));
}

/// Verifies, on a partition of the state's own that is filled to the last byte: a request is
/// answered 503 `store_unavailable` with `Retry-After`; status, alarm, probe and metrics report it;
/// lists are served; a refused request leaves no row; when there is room again the alarm ends and
/// the same request is answered, by the same process. (The invariants check that no intent is
/// open.)
#[test]
fn a_full_disk_is_said_and_survived() {
    if !is_in_mount_namespace("gateway::a_full_disk_is_said_and_survived") {
        return;
    }
    let env = on_a_small_disk().started();
    let state = env.path("state");
    let (line, daemon) = (env.station(), env.daemon());
    line.obtain(&Request::device("press-0"));
    finds(&env, "disk", "attention", "MiB are free");

    fill(&state.join("filler"));
    let refused = until("the disk is felt", || {
        // The log of the database may have room for a few more.
        fill(&state.join("filler"));
        let request = Request::device("press-1");
        let answer = line.ask(&request);
        (answer.status != 201).then_some((request, answer))
    });
    let (request, answer) = refused;
    assert_eq!(
        (answer.status, answer.code()),
        (503, "store_unavailable"),
        "{answer:?}"
    );
    assert!(answer.retry_after.is_some());
    reads_are_served(&env);
    is_unwritable(&env, "the disk is full: make room");
    finds(&env, "disk", "failed", "the store cannot write since");
    let issued = env.count("intent_state WHERE state = 'issued'");
    assert_eq!(line.ask(&request).status, 503);
    assert_eq!(env.count("intent_state WHERE state = 'issued'"), issued);
    assert_eq!(env.count("certificate"), issued);

    fs::remove_file(state.join("filler")).unwrap();
    is_writable_again(&env);
    let device = request.holder(&line.ask(&request).body);
    device.is_accepted_by_openssl(&env.authority("root"));
    assert_eq!(env.daemon(), daemon);
}

/// Verifies the number of attempts while the disk is full: changes for the provisioning service
/// wait, and neither the service nor the log gets more than a few attempts in ten seconds.
#[test]
fn a_full_disk_makes_nothing_spin() {
    if !is_in_mount_namespace("gateway::a_full_disk_makes_nothing_spin") {
        return;
    }
    let env = on_a_small_disk().started();
    let away = Fault::on("individual.get", Action::ResetBefore).times(u32::MAX);
    env.emulator.inject(away).unwrap();
    let state = env.path("state");
    let mut number = 0;
    until("the disk is felt", || {
        number += 1;
        let device = format!("pump-{number}");
        env.hallmark(&["enrollment", "add", "--individual", &device]);
        fill(&state.join("filler"));
        (env.json(&["status"])["store"]["writable"] == false).then_some(())
    });
    // The service answers again, and its answer cannot be recorded.
    env.emulator.clear_faults();
    let failures = || {
        let status = env.json(&["status"]);
        status["store"]["failures"].as_i64().unwrap()
    };
    let lines = || {
        let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
        log.lines().count()
    };
    let (failed, logged) = (failures(), lines());
    std::thread::sleep(std::time::Duration::from_secs(10));
    let (failed, logged) = (failures() - failed, lines() - logged);
    assert!(failed <= 20, "{failed} writes were tried in ten seconds");
    assert!(logged <= 40, "{logged} lines were logged in ten seconds");
    fs::remove_file(state.join("filler")).unwrap();
    is_writable_again(&env);
    env.wait_in_sync();
}

/// Verifies: while every write takes seconds, because another process holds the database, requests
/// wait and are answered, or refused with `Retry-After`; reads are not delayed.
#[test]
fn a_slow_disk_does_not_delay_reads() {
    let (env, _) = below_line_1(&["press-0"]);
    let line = env.station();
    let other = rusqlite::Connection::open(env.database()).unwrap();
    for round in 0..3 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let request = Request::device(&format!("press-{round}-slow"));
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| line.ask(&request));
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_secs(2) {
                reads_are_served(&env);
            }
            assert!(!asked.is_finished(), "nothing can have been written");
            other.execute_batch("COMMIT").unwrap();
            asked.join().unwrap()
        });
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let request = Request::device("press-9");
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = line.ask(&request);
    assert_eq!(
        (answer.status, answer.code()),
        (503, "store_unavailable"),
        "{answer:?}"
    );
    other.execute_batch("COMMIT").unwrap();
    until("the disk is itself again", || {
        (line.ask(&request).status == 201).then_some(())
    });
}

/// Verifies: with everything read-only except the state folder (and SoftHSM's, which keeps its
/// tokens in files), the daemon starts, runs a ceremony, issues, and starts again.
#[test]
fn a_root_that_is_read_only_is_enough() {
    let env = TestEnv::new().in_namespace(
        "mkdir -p state
         for folder in state tokens; do mount --bind $folder $folder; done
         for at in / \"$(findmnt -nro TARGET -T .)\"; do mount -o remount,bind,ro \"$at\"; done
         if touch probe 2>/dev/null; then exit 1; fi
         touch state/probe",
    );
    let mut env = env.started();
    let device = env.station().obtain(&Request::device("press-1"));
    device.is_accepted_by_openssl(&env.authority("root"));
    env.restart();
    env.enlist("station", "station-2");
    let outside = format!("/proc/{}/root{}", env.daemon(), env.path("x").display());
    assert!(File::create(outside).is_err(), "it is not read-only");
}

/// Verifies: thirty days without the provisioning service. Certificates are issued and renewed, the
/// queue holds one entry for each enrollment however often it changes, an alarm says how long it
/// waits, revocation lists stay good; when the service answers again, all changes are made.
#[test]
fn weeks_without_the_provisioning_service_are_caught_up_with() {
    let env = TestEnv::new().with_a_movable_clock();
    // TLS checks clients' certificates by the machine's clock: the line asks over the admin socket.
    let env = env.started();
    for id in ["pump-1", "pump-2"] {
        env.run(&["enrollment", "add", "--individual", id]);
        env.enlist("device", id);
    }
    env.wait_in_sync();
    for operation in [
        "individual.get",
        "individual.put",
        "bulk.post",
        "individual.query",
    ] {
        let away = Fault::on(operation, Action::ResetBefore).times(u32::MAX);
        env.emulator.inject(away).unwrap();
    }

    let renewed = env.enlist("device", "pump-1");
    env.run(&["enrollment", "add", "--individual", "pump-3"]);
    let new = env.enlist("device", "pump-3");
    for _ in 0..15 {
        env.passes(Duration::days(2));
        let queue = env.json(&["push", "list"]);
        assert_eq!(queue.as_array().unwrap().len(), 2, "{queue}");
    }
    let status = env.json(&["status"]);
    assert!(
        status["alarms"].to_string().contains("have been waiting"),
        "{status}"
    );
    until("lists are good", || {
        let lists = env.json(&["status"])["crls"].clone();
        let now = env.json(&["status"])["now"].as_str().unwrap().to_owned();
        let good = |list: &serde_json::Value| list["next_update"].as_str().unwrap() > now.as_str();
        lists.as_array().unwrap().iter().all(good).then_some(())
    });

    env.emulator.clear_faults();
    env.run(&["push", "retry"]);
    env.wait_in_sync();
    for device in [&renewed, &new] {
        let record = env.emulator.individual(&device.id).unwrap();
        assert!(
            record
                .to_string()
                .contains(&device.thumbprint.to_uppercase())
                || record.to_string().contains(&device.thumbprint),
            "{record}"
        );
    }
}

/// Makes the kernel refuse every write below the state folder, or allow them again.
fn remount(env: &TestEnv, option: &str) {
    // A worker that ends may hold a file for a moment.
    until("the file system is remounted", || {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{option}")]);
        let output = mount.arg(env.path("state")).output().unwrap();
        output.status.success().then_some(())
    });
}

/// The state of the disk when the daemon starts, and its repair.
struct Disk {
    spoil: fn(&TestEnv),
    fix: fn(&TestEnv),
    cause: &'static str,
}

const FULL: Disk = Disk {
    spoil: |env| fill(&env.path("state/filler")),
    fix: |env| fs::remove_file(env.path("state/filler")).unwrap(),
    cause: "is full",
};
const READ_ONLY: Disk = Disk {
    spoil: |env| remount(env, "ro"),
    fix: |env| remount(env, "rw"),
    cause: "read-only",
};

/// The sockets lie elsewhere: they could not be made.
fn sockets_elsewhere(env: &TestEnv) {
    let folder = env.path("run");
    fs::create_dir(&folder).unwrap();
    let runtime = format!("runtime_dir = {folder:?}\nstate_dir");
    env.configure(&env.configuration().replacen("state_dir", &runtime, 1));
}

/// The daemon starts on such a disk, after an orderly stop and after a crash: it serves lists and
/// state, refuses to issue and says why; when the disk is repaired it is ready again, and never
/// ends.
fn starts_on(disk: &Disk) {
    let env = on_a_small_disk();
    sockets_elsewhere(&env);
    let mut env = env.with_admin_socket("run/admin.sock").started();
    let station = env.enlist("station", "station-1");
    for crashes in [false, true] {
        if crashes {
            env.kill();
        } else {
            env.stop();
        }
        (disk.spoil)(&env);
        env.start();
        let daemon = env.daemon();
        reads_are_served(&env);
        is_unwritable(&env, disk.cause);
        until("the token is ready", || {
            let tokens = &env.json(&["status"])["tokens"];
            (tokens["factory"]["state"] == "ready").then_some(())
        });
        let line = env.caller(&station);
        let request = Request::device(&format!("press-{crashes}"));
        let answer = line.ask(&request);
        assert_eq!(
            (answer.status, answer.code()),
            (503, "store_unavailable"),
            "{answer:?}"
        );
        assert!(answer.retry_after.is_some());
        (disk.fix)(&env);
        is_writable_again(&env);
        assert_eq!(line.ask(&request).status, 201);
        assert_eq!(env.daemon(), daemon);
    }
}

#[test]
fn a_start_on_a_full_disk_serves_what_it_can() {
    if is_in_mount_namespace("gateway::a_start_on_a_full_disk_serves_what_it_can") {
        starts_on(&FULL);
    }
}

#[test]
fn a_start_on_a_read_only_disk_serves_what_it_can() {
    if is_in_mount_namespace("gateway::a_start_on_a_read_only_disk_serves_what_it_can") {
        starts_on(&READ_ONLY);
    }
}

/// Verifies, with everything in the state folder: lists are served without an admin socket, which
/// is made when the disk is writable; before the first ceremony the state is shown.
#[test]
fn a_socket_that_cannot_be_made_yet_is_made_later() {
    if !is_in_mount_namespace("gateway::a_socket_that_cannot_be_made_yet_is_made_later") {
        return;
    }
    let mut env = on_a_small_disk();
    let http = free_port();
    let configuration = env.configuration();
    let said = format!("http = \"127.0.0.1:{http}\"");
    env.configure(&configuration.replacen("http = \"127.0.0.1:0\"", &said, 1));
    remount(&env, "ro");
    let mut command = env.serve(&[]);
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    until("plain HTTP answers", || {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ])
            .arg(format!("http://127.0.0.1:{http}/crl/line-1.crl"))
            .output()
            .unwrap();
        (output.stdout == b"404").then_some(())
    });
    assert_eq!(env.hallmark(&["status"]).code, Some(3));
    remount(&env, "rw");
    env.attend(daemon);
    env.run_ceremony();
    assert_eq!(env.json(&["status"])["alarms"], serde_json::json!([]));
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
