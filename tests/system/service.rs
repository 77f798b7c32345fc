//! Tests the daemon and its worker as services of systemd.

use crate::process::{Process, signal, until};
use crate::service_manager::{ServiceManager, hand_over};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WATCHDOG: Duration = Duration::from_secs(2);
/// A status line later than this came from the clock, not from a change.
const LATE: Duration = Duration::from_secs(5);
/// `RestartPreventExitStatus=` of the units.
const WRONG_CONFIGURATION: i32 = 78;

/// The daemon reports ready when it serves and not before, reports its state, and reports its stop.
#[test]
fn systemd_hears_when_it_serves_and_how_it_is() {
    let mut env = TestEnv::new();
    let systemd = ServiceManager::new(&env.path(""), "notify");
    let mut command = env.serve(&[]);
    systemd.looks_after(&mut command, None);
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    systemd.hears("READY=1");
    let answer = ask(UnixStream::connect(env.path("state/admin.sock")).unwrap());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    env.attend(daemon);
    systemd.hears("no ceremony yet");
    env.run_ceremony();
    let status = systemd.hears("1 of 1 tokens ready");
    assert!(status.contains("https 127.0.0.1:"), "{status}");
    env.run(&["reload"]);
    systemd.hears("RELOADING=1");
    systemd.hears("READY=1");
    let stopped = env.daemon();
    env.stop();
    systemd.hears("STOPPING=1");
    assert!(!fs::exists(format!("/proc/{stopped}")).unwrap());
    env.start();
}

/// The status line changes with a ceremony, and with a token that goes or comes back.
#[test]
fn the_status_line_shows_a_change_at_once() {
    let mut env = TestEnv::new();
    let systemd = ServiceManager::new(&env.path(""), "notify");
    let mut command = env.serve(&[]);
    systemd.looks_after(&mut command, None);
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    env.attend(daemon);
    systemd.hears("1 of 1 tokens ready; no ceremony yet");
    env.run_ceremony();
    let ceremony = Instant::now();
    until("the status line has heard of the ceremony", || {
        let output = systemd.hears("1 of 1 tokens ready");
        (!output.contains("no ceremony yet")).then_some(())
    });
    assert!(ceremony.elapsed() < LATE, "{:?}", ceremony.elapsed());
    for _ in 0..2 {
        fs::rename(env.path("tokens"), env.path("away")).unwrap();
        let gone = Instant::now();
        signal(env.worker().unwrap(), Signal::KILL);
        systemd.hears("0 of 1 tokens ready");
        assert!(gone.elapsed() < LATE, "{:?}", gone.elapsed());
        fs::rename(env.path("away"), env.path("tokens")).unwrap();
        env.wait_ready();
        let ready = Instant::now();
        systemd.hears("1 of 1 tokens ready");
        assert!(ready.elapsed() < LATE, "{:?}", ready.elapsed());
    }
}

/// The watchdog is fed while all parts make progress, and not when the database, a reconciler or
/// the whole process is stuck.
#[test]
fn the_watchdog_is_fed_only_while_all_make_progress() {
    let mut env = TestEnv::new();
    let systemd = ServiceManager::new(&env.path(""), "notify");
    let mut command = env.serve(&["overdue=return((turn))".into()]);
    systemd.looks_after(&mut command, Some(WATCHDOG));
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    env.attend(daemon);
    env.run_ceremony();
    systemd.hears("WATCHDOG=1");

    let database = rusqlite::Connection::open(env.database()).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    systemd.misses_the_watchdog_for(WATCHDOG);
    database.execute_batch("ROLLBACK").unwrap();
    systemd.hears("WATCHDOG=1");

    signal(env.daemon(), Signal::STOP);
    systemd.misses_the_watchdog_for(WATCHDOG);
    signal(env.daemon(), Signal::CONT);
    systemd.hears("WATCHDOG=1");

    // A pass that waits for an answer without a heartbeat.
    let slow = Action::Latency {
        milliseconds: 3 * WATCHDOG.as_millis() as u64,
    };
    let slow = Fault::on("group.put", slow);
    env.emulator.inject(slow).unwrap();
    env.add_group("line-1", "line-1");
    systemd.misses_the_watchdog_for(WATCHDOG);
    let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
    assert!(log.contains("(turn) takes longer than it may"), "{log}");
    systemd.hears("WATCHDOG=1");
    env.wait_in_sync();
}

/// A restart refuses no connection: systemd keeps the sockets, and a client that connects in
/// between waits.
#[test]
fn a_restart_on_sockets_that_systemd_keeps_refuses_no_client() {
    let mut env = TestEnv::new();
    let kept = KeepAlive::new(&mut env);
    env.attend(kept.hand_over(&env));
    env.run_ceremony();
    let inode = fs::metadata(kept.admin()).unwrap().ino();
    let done = AtomicBool::new(false);
    let over_http = || ask(TcpStream::connect(kept.address()).unwrap());
    let over_admin = || ask(UnixStream::connect(kept.admin()).unwrap());
    let clients: [&(dyn Fn() -> String + Sync); 2] = [&over_http, &over_admin];
    std::thread::scope(|scope| {
        for client in clients {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let answer = client();
                    assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
                }
            });
        }
        for _ in 0..3 {
            env.stop();
            env.attend(kept.hand_over(&env));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::metadata(kept.admin()).unwrap().ino(), inode);
    env.wait_ready();
}

/// A socket that no listener would answer is a wrong configuration, and the error says how to
/// correct it.
#[test]
fn a_socket_that_listen_does_not_name_is_refused() {
    let mut env = TestEnv::new();
    let kept = KeepAlive::new(&mut env);
    env.configure(&env.configuration());
    let daemon = kept.hand_over(&env);
    assert_eq!(daemon.wait().code(), Some(WRONG_CONFIGURATION));
    let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
    let address = kept.address().to_string();
    assert!(
        log.contains(&address) && log.contains("hallmarkd.socket"),
        "{log}"
    );
    env.configure(&env.configuration().replacen("state_dir", "stat_dir", 1));
    for command in [env.serve(&[]), worker(&env)].iter_mut() {
        let wrong = Process::start(command, env.path("hallmarkd.log"));
        assert_eq!(wrong.wait().code(), Some(WRONG_CONFIGURATION));
    }
}

/// Workers that systemd starts: on a socket that it keeps, ready whatever their token does, killed
/// and started again without the daemon.
#[test]
fn systemd_starts_the_worker_and_the_daemon_finds_it() {
    let mut env = TestEnv::new();
    fs::create_dir(env.path("state")).unwrap();
    let socket = env.path("state/token-factory.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let systemd = ServiceManager::new(&env.path(""), "notify");
    let start = |env: &TestEnv| {
        let mut command = worker(env);
        systemd.looks_after(&mut command, Some(WATCHDOG));
        let kept = listener.try_clone().unwrap().into();
        hand_over(&command, [kept], env.path("worker.log"))
    };
    fs::rename(env.path("tokens"), env.path("away")).unwrap();
    let first = start(&env);
    systemd.hears("READY=1");
    systemd.hears("token factory is unavailable");
    fs::rename(env.path("away"), env.path("tokens")).unwrap();
    systemd.hears("token factory is ready");
    systemd.hears("WATCHDOG=1");
    signal(first.id(), Signal::STOP);
    systemd.misses_the_watchdog_for(WATCHDOG);
    first.kill();
    let second = start(&env);
    let mut command = env.serve(&[]);
    command.args(["--workers", "systemd"]);
    let daemon = Process::start(&mut command, env.path("hallmarkd.log"));
    env.attend(daemon);
    env.run_ceremony();
    second.kill();
    let third = start(&env);
    env.wait_ready();
    env.enlist("station", "station-1");
    env.stop();
    assert!(third.terminate().success());
    assert!(socket.exists(), "systemd's socket stays");
    drop(listener);
    env.start();
}

/// Entries for the journal are not written as lines; all others are.
#[test]
fn the_log_goes_to_the_journal_if_standard_error_is_the_journals() {
    let mut env = TestEnv::new();
    let log = env.path("hallmarkd.log");
    let stream = |file: &PathBuf| {
        let metadata = File::options().append(true).create(true).open(file);
        let metadata = metadata.unwrap().metadata().unwrap();
        format!("{}:{}", metadata.dev(), metadata.ino())
    };
    for (is_journal, named) in [(true, log.clone()), (false, env.path("another.log"))] {
        let mut command = env.serve(&[]);
        command.env("JOURNAL_STREAM", stream(&named));
        let daemon = Process::start(&mut command, log.clone());
        env.attend(daemon);
        env.stop();
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(said.contains("serving"), !is_journal, "{said}");
    }
    env.start();
}

/// Sockets that systemd keeps for the daemon.
struct KeepAlive {
    http: TcpListener,
    admin: UnixListener,
}

impl KeepAlive {
    /// The addresses in the configuration.
    fn new(env: &mut TestEnv) -> Self {
        fs::create_dir(env.path("state")).unwrap();
        let this = Self {
            http: TcpListener::bind("127.0.0.1:0").unwrap(),
            admin: UnixListener::bind(env.path("state/admin.sock")).unwrap(),
        };
        let http = format!("\nhttp = \"{}\"", this.address());
        let configuration = env.configuration();
        env.configure(&configuration.replacen("\nhttp = \"127.0.0.1:0\"", &http, 1));
        this
    }

    fn hand_over(&self, env: &TestEnv) -> Process {
        let http = self.http.try_clone().unwrap().into();
        let admin = self.admin.try_clone().unwrap().into();
        hand_over(&env.serve(&[]), [http, admin], env.path("hallmarkd.log"))
    }

    fn address(&self) -> SocketAddr {
        self.http.local_addr().unwrap()
    }

    fn admin(&self) -> PathBuf {
        let address = self.admin.local_addr().unwrap();
        address.as_pathname().unwrap().to_owned()
    }
}

/// The command of the worker.
fn worker(env: &TestEnv) -> std::process::Command {
    let mut command = env.hallmarkd(&["token", "factory", "--config"]);
    command.arg(env.path("hallmark.toml"));
    command
}

/// Sends one request, and reads the whole answer.
fn ask(mut connection: impl Read + Write) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}
