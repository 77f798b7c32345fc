//! Tests how often an idle daemon and its worker wake, and how much memory they occupy.
//!
//! Gateways run on batteries and behind small processors. The test counts how often a thread gave
//! up its processor by itself, so each sleep is one wake-up. `tests/footprint` measures the release
//! build with the same code.

use crate::process::until;
use crate::request::Request;
use crate::software_tpm::SoftwareTpm;
use crate::test_env::{ANOTHER_BUILD, TestEnv};
use dps_emulator::{Action, Fault};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// How long an idle daemon is watched, in seconds; `HALLMARK_WATCH_SECONDS` overrides it.
const WATCH_SECONDS: u64 = 20;
/// Wake-ups that one thread may have in each of these seconds.
const WAKE_UPS_PER_SECOND_MAX: f64 = 1.0;
/// Wake-ups that all threads of a process may have together: a full pass, once or twice a minute,
/// wakes some fifty times.
const WAKE_UPS_TOGETHER_MAX: f64 = 2.0;
/// Memory of daemon and worker together with a TPM, in KiB; only a release build must keep it.
const RESIDENT_KIB_MAX: u64 = 30 * 1024;
/// The same with SoftHSM, whose OpenSSL and C++ libraries take more than the worker's own code.
const RESIDENT_WITH_SOFTHSM_KIB_MAX: u64 = 36 * 1024;

/// Both processes, over the time that they were watched.
struct Footprint {
    daemon: Process,
    worker: Process,
}

struct Process {
    /// By thread, those that woke at all.
    wake_ups: BTreeMap<String, u64>,
    seconds: f64,
    resident_kib: u64,
    proportional_kib: u64,
}

impl Process {
    fn rate(&self) -> f64 {
        self.wake_ups.values().sum::<u64>() as f64 / self.seconds
    }
}

/// Wake-ups so far, by thread.
fn wake_ups(pid: u32) -> BTreeMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let counted = threads.filter_map(|thread| {
        let path = thread.ok()?.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let number = field(&path.join("status"), "voluntary_ctxt_switches:")?;
        let id = path.file_name()?.to_str()?.to_owned();
        Some((format!("{} {id}", name.trim()), number))
    });
    counted.collect()
}

/// The number behind `name` in a file of `/proc`.
fn field(path: &std::path::Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn watch(env: &TestEnv) -> Footprint {
    let seconds = std::env::var("HALLMARK_WATCH_SECONDS").ok();
    let seconds = seconds.map_or(WATCH_SECONDS, |it| it.parse().unwrap());
    let pids = [env.daemon(), until("a worker runs", || env.worker())];
    let before = pids.map(wake_ups);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let seconds = begun.elapsed().as_secs_f64();
    let [daemon, worker] = [0, 1].map(|at| {
        let proc = std::path::PathBuf::from(format!("/proc/{}", pids[at]));
        let mut woken = wake_ups(pids[at]);
        for (thread, count) in &mut woken {
            *count -= before[at].get(thread).unwrap_or(&0);
        }
        woken.retain(|_, count| *count > 0);
        Process {
            wake_ups: woken,
            seconds,
            resident_kib: field(&proc.join("status"), "VmRSS:").unwrap(),
            proportional_kib: field(&proc.join("smaps_rollup"), "Pss:").unwrap(),
        }
    });
    Footprint { daemon, worker }
}

/// Earlier work is over: kept-alive connections, and threads that waited for more work.
fn comes_to_rest(env: &TestEnv) {
    let mut last = wake_ups(env.daemon());
    until("the daemon comes to rest", || {
        std::thread::sleep(Duration::from_secs(3));
        let now = wake_ups(env.daemon());
        let woken: u64 = now
            .iter()
            .map(|(thread, count)| count - last.get(thread).unwrap_or(&0))
            .sum();
        last = now;
        (woken <= 3).then_some(())
    });
}

fn is_small(what: &str, env: &TestEnv, resident_kib_max: u64) {
    comes_to_rest(env);
    let footprint = watch(env);
    eprintln!("| {what} | wake-ups a second | resident KiB | proportional KiB |");
    let mut resident = 0;
    for (name, process) in [("serve", &footprint.daemon), ("worker", &footprint.worker)] {
        eprintln!(
            "| {name} | {:.2} | {} | {} | {:?}",
            process.rate(),
            process.resident_kib,
            process.proportional_kib,
            process.wake_ups
        );
        let most = process.wake_ups.values().max().map_or(0.0, |it| *it as f64);
        assert!(
            most / process.seconds <= WAKE_UPS_PER_SECOND_MAX,
            "{name}: a thread"
        );
        assert!(
            process.rate() <= WAKE_UPS_TOGETHER_MAX,
            "{name}: all threads"
        );
        resident += process.resident_kib;
    }
    eprintln!("| both | | {resident} | |");
    if !cfg!(debug_assertions) || std::env::var_os(ANOTHER_BUILD).is_some() {
        assert!(resident <= resident_kib_max, "{resident} KiB");
    }
}

/// Verifies: an idle daemon with a SoftHSM token, a provisioning service and listeners, and its
/// worker: no thread wakes more often than once a second.
#[test]
fn an_idle_daemon_sleeps() {
    is_small(
        "SoftHSM",
        &TestEnv::running(),
        RESIDENT_WITH_SOFTHSM_KIB_MAX,
    );
}

/// The same with a TPM.
#[test]
fn an_idle_daemon_sleeps_beside_a_tpm() {
    let env = TestEnv::new();
    let tpm = SoftwareTpm::start(env.path("tpm"));
    env.write_secret("gate-secret", "7f1c0de5a9b84c3e9d2b6f40");
    let configuration = env.configuration();
    let (begin, end) = (
        configuration.find("[[token]]").unwrap(),
        configuration.find("[[authority]]").unwrap(),
    );
    let token = format!(
        "[[token]]\nname = \"factory\"\nkind = \"tpm\"\ntcti = {:?}\ncredential = {:?}\n",
        tpm.tcti(),
        env.path("gate-secret"),
    );
    env.configure(&format!(
        "{}{token}{}",
        &configuration[..begin],
        &configuration[end..]
    ));
    let env = env.started();
    is_small("TPM", &env, RESIDENT_KIB_MAX);
    drop(env);
    drop(tpm);
}

/// Eight clients send requests that are answered, refused and far too large, while DPS fails and
/// hangs.
fn suffers_faults(env: &TestEnv, seconds: u64) {
    for (operation, action) in [
        ("individual.put", Action::status(500)),
        ("individual.get", Action::Hang),
        ("individual.put", Action::ResetAfter),
    ] {
        env.emulator
            .inject(Fault::on(operation, action).times(300))
            .unwrap();
    }
    let station = env.enlist("station", "station-9");
    let begun = Instant::now();
    let over = || begun.elapsed() > Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let caller = env.caller(&station);
            let over = &over;
            scope.spawn(move || {
                for number in 0.. {
                    if over() {
                        return;
                    }
                    let id = format!("pump-{client}-{number}");
                    if number % 10 == 0 {
                        env.hallmark(&["enrollment", "add", "--individual", &id]);
                    }
                    caller.ask(&Request::device(&id));
                    let large = "x".repeat(60_000);
                    caller.ask(&Request::of("device", &id, large, String::new()));
                    env.stranger().try_get("/v1/devices").ok();
                    caller.get("/v1/devices");
                }
            });
        }
    });
    env.emulator.clear_faults();
}

/// How much more memory of its own a daemon may occupy after faults, in KiB: the caches of its
/// database, and what the allocator keeps.
const KEPT_KIB_MAX: u64 = 24 * 1024;

/// Verifies: a daemon that met faults keeps little memory. With `HALLMARK_FAULT_SECONDS` there are
/// four rounds of that time together; `docs/performance.md` has the numbers.
#[test]
fn a_daemon_keeps_little_memory_after_faults() {
    let env = TestEnv::running();
    let seconds = std::env::var("HALLMARK_FAULT_SECONDS").ok();
    let seconds = seconds.map(|it| it.parse::<u64>().unwrap());
    let rounds = if seconds.is_some() { 4 } else { 1 };
    let status = std::path::PathBuf::from(format!("/proc/{}/status", env.daemon()));
    let own = || field(&status, "RssAnon:").unwrap();
    let before = own();
    for round in 1..=rounds {
        suffers_faults(&env, seconds.unwrap_or(12) / 4);
        // Threads that waited for more work end after ten seconds.
        std::thread::sleep(Duration::from_secs(12));
        eprintln!(
            "| faults, round {round} | {before} KiB before | {} KiB after |",
            own()
        );
    }
    let kept = own().saturating_sub(before);
    assert!(kept <= KEPT_KIB_MAX, "{kept} KiB");
}
