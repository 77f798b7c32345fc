//! Tests faults of the token while the line is at work: every level of recovery on a real token,
//! and what follows when no level is left.
//!
//! In each test `serve` is never restarted, status and revocation lists are served throughout,
//! issuance is back within [`BACK`] of the token's return, no serial number is used twice, and
//! every intent is explained at the end (`load`, `invariants`).

use crate::load::Load;
use crate::process::{Process, signal, until};
use crate::test_env::{MODULE, TestEnv};
use pkcs11_fault::plan::{Action, Fault, Plan};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How soon after the token's return the line is served.
const BACK: Duration = Duration::from_secs(5);

/// The same where a process is replaced first: the deadline, the grace after it, the start.
const REPLACED: Duration = Duration::from_secs(30);

const CKR_GENERAL_ERROR: u64 = 0x05;
const CKR_DEVICE_ERROR: u64 = 0x30;

/// An environment whose token is behind the module with faults, after the ceremony.
pub(crate) fn env_with_faults(faults: &[Fault]) -> (TestEnv, Plan) {
    let (env, plan) = new_with_faults(faults);
    (env.started(), plan)
}

/// The same before its daemon is started.
pub(crate) fn new_with_faults(faults: &[Fault]) -> (TestEnv, Plan) {
    let env = TestEnv::new();
    let plan = Plan::new(env.path("faults"));
    plan.set(faults).unwrap();
    let module = env.path("libpkcs11_fault.so");
    // Cargo leaves the library beside the tests that depend on it.
    let built = std::env::current_exe().unwrap();
    let built = built.parent().unwrap().join("libpkcs11_fault.so");
    std::os::unix::fs::symlink(&built, &module).unwrap();
    assert!(built.exists(), "{} is not built", built.display());
    let environment = format!(
        "[token.environment]\nPKCS11_FAULT_MODULE = {MODULE:?}\nPKCS11_FAULT_PLAN = {:?}",
        plan.path()
    );
    let by_module = format!("module = {module:?}\nsign_deadline_ms = 1000");
    let configuration = env
        .configuration()
        .replace("fragment = \"softhsm2\"", &by_module)
        .replace("[token.environment]", &environment);
    env.configure(&configuration);
    (env, plan)
}

/// Sets the faults, and waits until they came and the line is served again.
fn survives(load: &Load, plan: &Plan, faults: &[Fault]) {
    plan.set(faults).unwrap();
    until("the faults come", || {
        (plan.came().len() >= faults.len()).then_some(())
    });
    load.served_within(BACK);
    load.wait_for_status();
}

/// How often a level of recovery was used.
fn recoveries(env: &TestEnv, level: &str) -> u64 {
    let metrics = env.metrics();
    let line = format!("hallmark_token_recoveries_total{{token=\"factory\",level=\"{level}\"}} ");
    let count = metrics.lines().find_map(|it| it.strip_prefix(&line));
    count.map_or(0, |count| count.parse().unwrap())
}

/// Verifies that the line notices no more than a pause: a session closed behind our back costs a
/// new session; a logout by another program, and stale handles, a login; a device error an
/// initialisation.
#[test]
fn sessions_logins_and_handles_lost_under_load_are_renewed() {
    let (env, plan) = env_with_faults(&[]);
    let worker = env.worker();
    Load::during(&env, |load| {
        for (level, faults) in [
            (
                "session",
                vec![Fault::at("C_SignInit", 3, Action::CloseSession)],
            ),
            ("login", vec![Fault::at("C_SignInit", 5, Action::Logout)]),
            // CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID
            (
                "login",
                vec![Fault::at("C_SignInit", 3, Action::Return(0x82))],
            ),
            (
                "login",
                vec![Fault::at("C_SignInit", 1, Action::Return(0x60))],
            ),
            (
                "initialize",
                vec![Fault::at("C_Sign", 7, Action::Return(CKR_DEVICE_ERROR))],
            ),
            // The next initialisation fails once, too.
            (
                "initialize",
                vec![
                    Fault::at("C_Sign", 2, Action::Return(CKR_DEVICE_ERROR)),
                    Fault::at("C_Initialize", 1, Action::Return(CKR_GENERAL_ERROR)),
                ],
            ),
        ] {
            let before = recoveries(&env, level);
            survives(load, &plan, &faults);
            until("the recovery is counted", || {
                (recoveries(&env, level) > before).then_some(())
            });
        }
    });
    assert_eq!(env.worker(), worker, "the worker did not have to end");
}

/// Verifies: a crash of the module, `kill -9`, and a process that is stopped as a whole or inside a
/// call cost a worker each, and nothing else.
#[test]
fn a_worker_that_crashes_hangs_or_is_killed_under_load_is_replaced() {
    let (env, plan) = env_with_faults(&[]);
    let replaced = |load: &Load, what: &str, harm: &dyn Fn(u32)| {
        let worker = until("a worker runs", || env.worker());
        harm(worker);
        load.wait_for_refusal();
        until(what, || env.worker().filter(|now| *now != worker));
        load.served_within(REPLACED);
        load.wait_for_status();
    };
    Load::during(&env, |load| {
        replaced(load, "killed", &|worker| signal(worker, Signal::KILL));
        replaced(load, "crashed", &|_| {
            plan.set(&[Fault::at("C_Sign", 4, Action::Crash)]).unwrap();
            until("it crashes", || (!plan.came().is_empty()).then_some(()));
            plan.set(&[]).unwrap();
        });
        replaced(load, "hung in a call", &|_| {
            plan.set(&[Fault::at("C_Sign", 4, Action::Hang)]).unwrap();
            until("it hangs", || (!plan.came().is_empty()).then_some(()));
            plan.set(&[]).unwrap();
        });
        replaced(load, "stopped", &|worker| signal(worker, Signal::STOP));
    });
    assert!(env.json(&["status"])["tokens"]["factory"]["restarts"].as_u64() >= Some(4));
}

/// Verifies: a module that cannot be initialised a second time in one process recovers in another
/// process, which is then left alone.
#[test]
fn a_module_that_initialises_only_once_is_given_a_new_process() {
    let (env, plan) = env_with_faults(&[
        Fault::from("C_Initialize", 2, Action::Return(CKR_GENERAL_ERROR)),
        Fault::at("C_Sign", 200, Action::Return(CKR_DEVICE_ERROR)),
    ]);
    let worker = until("a worker runs", || env.worker());
    Load::during(&env, |load| {
        until("the token is gone", || {
            (!plan.came().is_empty()).then_some(())
        });
        load.wait_for_refusal();
        load.wait_for_status();
        until("another process", || {
            env.worker().filter(|now| *now != worker)
        });
        plan.set(&[]).unwrap();
        load.served_within(REPLACED);
    });
    assert_eq!(env.json(&["status"])["tokens"]["factory"]["restarts"], 1);
}

/// Verifies: the daemon waits for a token that only became slow, and does not recover it.
#[test]
fn a_slow_token_is_not_a_broken_one() {
    let (env, plan) = env_with_faults(&[]);
    let worker = env.worker();
    Load::during(&env, |load| {
        plan.set(&[Fault::from("C_Sign", 1, Action::Delay(150))])
            .unwrap();
        for _ in 0..3 {
            load.served_within(BACK);
        }
    });
    assert_eq!(env.worker(), worker);
    assert_eq!(
        (recoveries(&env, "session"), recoveries(&env, "login")),
        (0, 1)
    );
}

/// Verifies: while the folder is away the line gets `Retry-After`; when the folder is back, the
/// line is served.
#[test]
fn a_token_folder_moved_away_under_load_and_put_back() {
    let env = TestEnv::running();
    let (here, away) = (env.path("tokens"), env.path("tokens.away"));
    Load::during(&env, |load| {
        for _ in 0..2 {
            fs::rename(&here, &away).unwrap();
            load.wait_for_refusal();
            load.wait_for_status();
            fs::rename(&away, &here).unwrap();
            load.served_within(BACK);
        }
    });
    assert_eq!(env.json(&["status"])["tokens"]["factory"]["restarts"], 0);
}

/// SoftHSM behind p11-kit's server, which is killed as a network HSM is unplugged.
struct Remote {
    process: Option<Process>,
    env_folder: PathBuf,
}

impl Remote {
    fn start(&mut self) {
        let socket = self.env_folder.join("p11-kit.sock");
        let _ = fs::remove_file(&socket);
        let mut command = Command::new("p11-kit");
        command
            .args(["server", "-f", "--provider", MODULE, "-n"])
            .arg(&socket)
            .arg("pkcs11:")
            .env("SOFTHSM2_CONF", self.env_folder.join("softhsm2.conf"))
            .process_group(0);
        let log = self.env_folder.join("p11-kit.log");
        self.process = Some(Process::start(&mut command, log));
        until("p11-kit's server listens", || socket.exists().then_some(()));
    }

    /// Kills the server and those of its children that serve a connection.
    fn unplug(&mut self) {
        if let Some(process) = self.process.take() {
            let group = Pid::from_raw(process.id().cast_signed()).unwrap();
            kill_process_group(group, Signal::KILL).unwrap();
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// Verifies: p11-kit's server is killed and started again, as an HSM is unplugged and plugged in.
#[test]
fn an_hsm_unplugged_under_load_and_plugged_in_again() {
    let env = TestEnv::new();
    let mut remote = Remote {
        process: None,
        env_folder: env.path(""),
    };
    remote.start();
    let environment = format!(
        "[token.environment]\nP11_KIT_SERVER_ADDRESS = \"unix:path={}\"",
        env.path("p11-kit.sock").display()
    );
    let configuration = env
        .configuration()
        .replace("fragment = \"softhsm2\"", "fragment = \"p11-kit\"")
        .replace("[token.environment]", &environment);
    env.configure(&configuration);
    let env = env.started();
    let worker = env.worker();
    Load::during(&env, |load| {
        remote.unplug();
        load.wait_for_refusal();
        load.wait_for_status();
        remote.start();
        load.served_within(BACK);
    });
    assert_eq!(env.worker(), worker, "no new process was needed");
}
