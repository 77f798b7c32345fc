//! Tests hostile clients: over a thousand connections of every cheap kind, from one address, while
//! an honest station at the same address goes on issuing.

use crate::caller::Caller;
use crate::keepalive::KeepAlive;
use crate::process::{SOON, until};
use crate::raw_tls::{RawTls, Tls, WRITE_TIMEOUT};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections of each kind.
const HOSTILE: usize = 1_100;
/// Requests that one of them sends, without reading an answer.
const ANSWERS: usize = 20;
/// Threads that open the connections.
const OPENERS: usize = 16;
/// Certificates that the station asks for after each flood.
const ISSUED: usize = 5;
/// How long one request of the station may take, on a busy machine.
const ISSUED_WITHIN: Duration = Duration::from_secs(15);
/// Memory of the daemon for each connection, in bytes: a quarter of what it took when heads were
/// not limited.
const BYTES_PER_CONNECTION_MAX: u64 = 100 * 1024;
/// Most descriptors of an idle daemon.
const DESCRIPTORS_IDLE: usize = 80;

/// A connection of any kind that is kept open.
trait Open: Send {}
impl Open for TcpStream {}
impl Open for UnixStream {}
impl Open for Tls {}

type Opened = std::io::Result<Box<dyn Open>>;

/// How a hostile client opens a connection.
type Opens = Box<dyn Fn() -> Opened + Sync>;

/// Opens [`HOSTILE`] connections. The daemon cuts some while they are opened.
fn flood(opens: &Opens) -> Vec<Box<dyn Open>> {
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let openers = (0..OPENERS).map(|opener| {
            scope.spawn(move || {
                let numbers = (opener..HOSTILE).step_by(OPENERS);
                numbers.filter_map(|_| opens().ok()).collect::<Vec<_>>()
            })
        });
        let openers: Vec<_> = openers.collect();
        for opener in openers {
            all.extend(opener.join().unwrap());
        }
    });
    all
}

/// An honest station: one kept-alive connection, and a new one each time.
struct Station<'a> {
    env: &'a TestEnv,
    holder: Holder,
    kept: Caller,
    count: usize,
}

impl<'a> Station<'a> {
    fn of(env: &'a TestEnv) -> Self {
        let holder = env.enlist("station", "station-1");
        let kept = env.caller(&holder);
        let mut station = Self {
            env,
            holder,
            kept,
            count: 0,
        };
        station.issues("nothing");
        station
    }

    /// Asserts that the station is served soon over both connections.
    fn issues(&mut self, against: &str) {
        let mut taken = Vec::new();
        for _ in 0..ISSUED {
            let fresh = self.env.caller(&self.holder);
            for caller in [&self.kept, &fresh] {
                self.count += 1;
                let request = Request::device(&format!("device-{}", self.count));
                let begun = Instant::now();
                let answer = caller.try_ask(&request);
                let answer = answer.unwrap_or_else(|error| panic!("against {against}: {error:?}"));
                assert_eq!(answer.status, 201, "against {against}: {answer:?}");
                taken.push(begun.elapsed());
            }
        }
        taken.sort_unstable();
        let (median, most) = (taken[taken.len() / 2], taken[taken.len() - 1]);
        println!("against {against}: median {median:?}, most {most:?}");
        assert!(most < ISSUED_WITHIN, "against {against}: {taken:?}");
    }
}

fn descriptors(env: &TestEnv) -> usize {
    let folder = fs::read_dir(format!("/proc/{}/fd", env.daemon()));
    folder.unwrap().count()
}

/// Resident memory of the daemon, in bytes.
fn resident(env: &TestEnv) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", env.daemon())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

fn everything_is_released(env: &TestEnv, after: &str) {
    until(&format!("connections are released after {after}"), || {
        (descriptors(env) < DESCRIPTORS_IDLE).then_some(())
    });
}

/// A test may have more sockets than a shell allows by default.
fn raise_descriptor_limit() {
    let limits = getrlimit(Resource::Nofile);
    let started = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, started).unwrap();
}

/// Asserts that the station is served while `kinds` are open, and that everything is released when
/// they are closed.
fn station_is_served_against(env: &TestEnv, kinds: Vec<(&str, Opens)>) {
    let mut station = Station::of(env);
    for (kind, opens) in kinds {
        let before = resident(env);
        let opened = flood(&opens);
        let open = descriptors(env);
        let each = resident(env).saturating_sub(before) / (open as u64);
        println!("{kind}: {open} descriptors, {each} bytes for each");
        assert!(each < BYTES_PER_CONNECTION_MAX, "{kind}: {each} bytes each");
        station.issues(kind);
        assert_eq!(env.hallmark(&["status", "--verbose"]).code, Some(0));
        drop(opened);
        everything_is_released(env, kind);
    }
}

fn over_tls(client: &RawTls, bytes: Vec<u8>) -> Opens {
    let client = client.clone();
    Box::new(move || Ok(Box::new(client.says(&bytes)?)))
}

fn over_tcp(client: &RawTls, bytes: Vec<u8>) -> Opens {
    let client = client.clone();
    Box::new(move || {
        let mut stream = client.connect()?;
        stream.write_all(&bytes)?;
        Ok(Box::new(stream))
    })
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into()
}

/// A head that announces a body.
fn post(path: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: 1");
    let fields = "content-type: application/json\r\ncontent-length: 1000";
    format!("{head}\r\n{fields}\r\n\r\n").into()
}

/// The first `bytes` of a head that is not complete.
fn large_head(bytes: usize) -> Vec<u8> {
    let mut head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-large: ".to_vec();
    head.resize(head.len() + bytes, b'x');
    head
}

/// Verifies: whatever strangers do to the HTTPS listener, the station is served over its kept-alive
/// connection and over new ones, and everything is released when the strangers go.
#[test]
fn strangers_take_nothing_from_a_station() {
    raise_descriptor_limit();
    let env = TestEnv::running();
    let stranger = RawTls::of(&env, None);
    let tls = |bytes| over_tls(&stranger, bytes);
    // A TLS record that announces 512 bytes, and the first of them.
    let half_hello = vec![22, 3, 1, 2, 0, 1, 0];
    let kinds = vec![
        ("silent connections", over_tcp(&stranger, Vec::new())),
        ("half a ClientHello", over_tcp(&stranger, half_hello)),
        ("idle connections", tls(Vec::new())),
        ("half a head", tls(large_head(1))),
        ("heads of 390 KB", tls(large_head(390_000))),
        ("heads without a body", tls(post("/v1/ceremonies"))),
        (
            "lists that are not read",
            tls(get("/crl/line-1.crl").repeat(ANSWERS)),
        ),
        ("pipelined probes", tls(get("/healthz").repeat(ANSWERS))),
        ("pipelined refusals", tls(get("/metrics").repeat(ANSWERS))),
    ];
    station_is_served_against(&env, kinds);
}

/// A hostile client has a device's certificate. Verifies: the client gets its share of the
/// connections, and the station has the others.
#[test]
fn a_device_takes_nothing_from_a_station() {
    raise_descriptor_limit();
    let env = TestEnv::running();
    let device = env.enlist("device", "press-7");
    let device = RawTls::of(&env, Some(&device));
    let tls = |bytes| over_tls(&device, bytes);
    let kinds = vec![
        ("idle connections of a device", tls(Vec::new())),
        ("its heads without a body", tls(post("/v1/certificates"))),
        ("its heads of 390 KB", tls(large_head(390_000))),
        (
            "its lists that are not read",
            tls(get("/crl/line-1.crl").repeat(ANSWERS)),
        ),
    ];
    station_is_served_against(&env, kinds);
}

/// Verifies: plain HTTP and the admin socket answer whatever other clients do there.
#[test]
fn plain_http_and_the_admin_socket_go_on_answering() {
    raise_descriptor_limit();
    let env = TestEnv::running();
    let address = env.json(&["status"])["http"].as_str().unwrap().to_owned();
    let socket = env.path("state/admin.sock");
    let over_http = |bytes: Vec<u8>| -> Opens {
        let address = address.clone();
        Box::new(move || {
            let mut stream = TcpStream::connect(&address)?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            let _ = stream.write_all(&bytes);
            Ok(Box::new(stream))
        })
    };
    let over_admin = |bytes: Vec<u8>| -> Opens {
        let socket = socket.clone();
        Box::new(move || {
            let mut stream = UnixStream::connect(&socket)?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            let _ = stream.write_all(&bytes);
            Ok(Box::new(stream))
        })
    };
    let list = get("/crl/line-1.crl");
    let kinds = [
        ("idle over HTTP", over_http(Vec::new())),
        ("half a head over HTTP", over_http(large_head(1))),
        ("lists over HTTP", over_http(list.repeat(ANSWERS))),
        ("idle over the socket", over_admin(Vec::new())),
        (
            "ceremonies without a file",
            over_admin(post("/v1/ceremonies")),
        ),
        ("lists over the socket", over_admin(list.repeat(ANSWERS))),
    ];
    for (kind, opens) in kinds {
        let opened = flood(&opens);
        println!("{kind}: {} descriptors", descriptors(&env));
        for _ in 0..ISSUED {
            assert_eq!(
                KeepAlive::open(&env).get("/crl/line-1.crl").status(),
                200,
                "{kind}"
            );
            assert_eq!(
                env.hallmark(&["status", "--verbose"]).code,
                Some(0),
                "{kind}"
            );
        }
        drop(opened);
        everything_is_released(&env, kind);
    }
}

/// Verifies: on every listener the daemon stops waiting for a body that does not come or comes byte
/// by byte, and cuts a client that does not read its answers.
#[test]
fn a_client_that_does_not_go_on_is_cut() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let station = RawTls::of(&env, Some(&station));
    let socket = env.path("state/admin.sock");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut slow = station.says(&post("/v1/certificates")).unwrap();
            for _ in 0..12 {
                // The last clients may find it closed.
                let _ = slow.write_all(b" ").and_then(|()| slow.flush());
                std::thread::sleep(Duration::from_secs(1));
            }
            is_answered(slow, "408", "body_too_slow");
        });
        for path in ["/v1/ceremonies", "/v1/enrollments"] {
            let mut silent = UnixStream::connect(&socket).unwrap();
            silent.set_read_timeout(Some(SOON)).unwrap();
            silent.write_all(&post(path)).unwrap();
            scope.spawn(move || is_answered(silent, "408", "body_too_slow"));
        }
        scope.spawn(|| {
            let mut deaf = UnixStream::connect(&socket).unwrap();
            deaf.set_write_timeout(Some(WRITE_TIMEOUT)).unwrap();
            let requests = get("/crl/line-1.crl").repeat(100);
            until("a client that does not read is cut", || {
                let sent = deaf.write_all(&requests);
                sent.is_err_and(|it| !would_block(&it)).then_some(())
            });
        });
    });
}

/// Verifies: strangers that request metrics as fast as they are answered are refused, and the
/// station is hardly slower.
#[test]
fn forty_strangers_that_ask_for_metrics_do_not_slow_a_station() {
    const STRANGERS: usize = 40;
    const REQUESTS: usize = 200;
    let mut env = TestEnv::running();
    let holder = env.enlist("station", "station-1");
    env.restart();
    let station = env.caller(&holder);
    let measured = |name: &str| {
        let mut taken: Vec<_> = (0..REQUESTS)
            .map(|number| {
                let request = Request::device(&format!("{name}-{number}"));
                let begun = Instant::now();
                station.obtain(&request);
                begun.elapsed()
            })
            .collect();
        taken.sort_unstable();
        let [median, late] = [50, 99].map(|percent| taken[REQUESTS * percent / 100]);
        println!("{name}: p50 {median:?}, p99 {late:?}");
        late
    };
    measured("alone");
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let late = std::thread::scope(|scope| {
        for _ in 0..STRANGERS {
            let (stranger, done, asked) = (env.stranger(), &done, &asked);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(stranger.get("/metrics").status, 401);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let late = measured("amid-strangers");
        done.store(true, Ordering::Relaxed);
        late
    });
    println!("{} requests of strangers", asked.load(Ordering::Relaxed));
    assert!(late < ISSUED_WITHIN, "{late:?}");
}

fn would_block(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

/// Reads an answer to its end; the daemon hangs up after it.
fn is_answered(mut stream: impl Read, status: &str, code: &str) {
    let mut answer = Vec::new();
    // TLS lacks its own end if the client was sending a body.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    assert!(answer.contains(code), "{answer}");
}
