//! Looks for every secret that a running system was given, in every place that must not have it.

use crate::configured::station_table;
use crate::process::{CommandOutput, signal};
use crate::request::Request;
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::json;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const PASSWORD: &str = "correct horse battery 7";
/// The name of the listener's key, the one file of the daemon that has a secret.
const KEY_FILE: &str = "server.key";
/// No shorter text is looked for: others would be there by chance.
const BYTES_MIN: usize = 8;

/// A place where secrets are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    StateFolder,
    KeyFile,
    Backup,
    Log,
    Answers,
    DaemonStart,
    WorkerStart,
    DaemonMemory,
    WorkerMemory,
}

/// A secret, the forms that it may have, and the places that need it.
struct Secret {
    name: &'static str,
    forms: Vec<Vec<u8>>,
    needed: &'static [Place],
}

impl Secret {
    /// A text, as it is and encoded; `raw` are the octets that it stands for.
    fn text(name: &'static str, text: &str, needed: &'static [Place]) -> Self {
        let mut forms = vec![text.as_bytes().to_vec()];
        forms.push(STANDARD.encode(text).trim_end_matches('=').into());
        if let Ok(raw) = STANDARD.decode(text) {
            forms.extend(encoded(&raw));
        }
        Self {
            name,
            forms,
            needed,
        }
    }

    /// A private key of P-256.
    fn key(name: &'static str, pem: &str, needed: &'static [Place]) -> Self {
        let mut forms = encoded(&scalar(pem));
        let lines = pem.lines().filter(|it| !it.starts_with("---"));
        forms.push(lines.max_by_key(|it| it.len()).unwrap().into());
        Self {
            name,
            forms,
            needed,
        }
    }
}

/// Octets as they are, and in hexadecimal digits. A line ends at a line feed, so the longest part
/// without one stands for the whole.
fn encoded(raw: &[u8]) -> Vec<Vec<u8>> {
    let part = raw.split(|it| *it == b'\n').max_by_key(|it| it.len());
    let part = part.unwrap_or_default().to_vec();
    let digits = hex::encode(&part);
    vec![digits.to_uppercase().into(), digits.into(), part]
}

/// The octets of a P-256 key that make it private: 32 after the octets `02 01 01 04 20` (RFC 5915).
fn scalar(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|it| !it.starts_with("---")).collect();
    let pkcs8 = STANDARD.decode(base64).unwrap();
    let start = [2, 1, 1, 4, 32];
    let at = pkcs8.windows(start.len()).position(|it| it == start);
    let at = at.expect("an ECPrivateKey") + start.len();
    pkcs8[at..at + 32].to_vec()
}

/// Returns the names of the secrets that are in a file.
fn found(secrets: &[Secret], file: &Path) -> Vec<&'static str> {
    let found = secrets.iter().filter(|it| is_in(it, file));
    found.map(|it| it.name).collect()
}

/// Whether a file has a form of a secret. grep is many times faster than a loop of a test.
fn is_in(secret: &Secret, file: &Path) -> bool {
    let octets = |form: &Vec<u8>| -> String {
        assert!(form.len() >= BYTES_MIN, "{}: {form:?}", secret.name);
        form.iter().map(|it| format!("\\x{it:02X}")).collect()
    };
    let forms: Vec<_> = secret.forms.iter().map(octets).collect();
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-q", "-a", "-P", "-e"]);
    let output = CommandOutput::of(grep.arg(forms.join("|")).arg(file));
    assert!(matches!(output.code, Some(0 | 1)), "{output:?}");
    output.code == Some(0)
}

/// Writes the readable memory of a process into a file.
fn dump(env: &TestEnv, pid: u32) -> PathBuf {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let path = env.path(&format!("memory-{pid}"));
    let mut dump = File::create(&path).unwrap();
    let mut length = 0;
    for line in maps.lines() {
        let mut words = line.split(' ');
        let range = words.next().unwrap();
        let mode = words.next().unwrap();
        // Pages of the kernel cannot be read, and code of a file is no memory of the process.
        let is_ours = mode.starts_with("rw") || (mode.starts_with('r') && !line.contains('/'));
        if !is_ours || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|it| u64::from_str_radix(it, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        memory.seek(SeekFrom::Start(start)).unwrap();
        if memory.read_exact(&mut bytes).is_ok() {
            dump.write_all(&bytes).unwrap();
            length += bytes.len();
        }
    }
    assert!(length > 1024 * 1024, "{length} bytes of {pid} were read");
    path
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap().file_type() {
            it if it.is_dir() => files_below(&path, found),
            it if it.is_file() => found.push(path),
            _ => {}
        }
    }
}

/// The value of a member of a connection string.
fn shared_access_key(connection_string: &str) -> &str {
    let key = connection_string.split("SharedAccessKey=").nth(1).unwrap();
    key.split(';').next().unwrap().trim()
}

/// All secrets of the system, after each was used.
fn given(env: &TestEnv) -> Vec<Secret> {
    use Place::{DaemonMemory, KeyFile, WorkerMemory};
    let read = |name: &str| {
        fs::read_to_string(env.path(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    let credential = |id: &str| {
        let made = env.json(&["device", "credential", "make", id, "--profile", "device"]);
        made["secret"].as_str().unwrap().to_owned()
    };
    let unused = credential("press-1");
    let used = credential("press-2");
    let first = Request::device("press-2");
    let post = env.stranger().post().basic_auth("press-2", Some(&used));
    let post = post.header("idempotency-key", "first").json(&first.body());
    assert_eq!(post.send().unwrap().status(), 201);

    let station = env.station();
    let mut asked = json!({ "profile": "made", "registration_id": "press-3" });
    let mut generate = |format: &serde_json::Value, key: &str| {
        asked["generate"] = format.clone();
        let post = station.post().header("idempotency-key", key).json(&asked);
        let answer = post.send().unwrap();
        assert_eq!(answer.status(), 201);
        answer.json::<serde_json::Value>().unwrap()
    };
    let clear = generate(&json!({ "format": "pkcs8", "unencrypted": true }), "clear");
    let generated = clear["key"]["content"].as_str().unwrap().to_owned();
    generate(
        &json!({ "format": "pkcs12", "password": PASSWORD }),
        "locked",
    );

    let service = read("connection-string");
    let hub = read("hub-connection-string");
    let listener = read("state/tls/server.key");
    let of_daemon = &[DaemonMemory];
    vec![
        Secret::text("PIN", &read("pin"), &[WorkerMemory]),
        Secret::text("PIN of the security officer", &read("so-pin"), &[]),
        Secret::text("key of DPS", shared_access_key(&service), of_daemon),
        Secret::text("key of the hub", shared_access_key(&hub), of_daemon),
        Secret::text("token of Azure", &read("arm-token"), of_daemon),
        Secret::text("one-time credential", &unused, of_daemon),
        Secret::text("used credential", &used, of_daemon),
        Secret::text("password of a key", PASSWORD, of_daemon),
        Secret::key("generated key", &generated, of_daemon),
        Secret::key("key of the listener", &listener, &[DaemonMemory, KeyFile]),
    ]
}

/// Answers of the daemon about itself, to those who may ask.
fn answers(env: &TestEnv) -> PathBuf {
    let mut said = String::new();
    for command in [
        &["audit", "export"][..],
        &["--json", "status", "--verbose"],
        &["--json", "doctor"],
        &["--json", "device", "credential", "list"],
        &["--json", "device", "show", "press-3"],
        &["--json", "enrollment", "list"],
        &["--json", "token", "show", "factory"],
        &["--json", "profile", "show", "made"],
    ] {
        let output = env.hallmark(command);
        assert!(output.out.len() > 20, "{command:?}: {output:?}");
        said += &output.out;
        said += &output.error;
    }
    writeln!(said, "{}", env.metrics()).unwrap();
    said += &env.get("/v1/certificates");
    env.write("answers", &said)
}

/// A daemon has used each of its secrets. Verifies, for each secret and each place: only the places
/// that need a secret have it. `serve` has no PIN, and the worker nothing but the PIN. After a
/// crash of both there is no core dump.
#[test]
fn no_place_has_a_secret_that_it_does_not_need() {
    let mut env = TestEnv::new();
    let profile = "\n[[profile]]\nname = \"made\"\nauthority = \"line-1\"\nrole = \"device\"\n\
                   generate_keys = true\n[profile.certificate]\npreset = \"device\"\n\
                   key_types = [\"p256\"]\n";
    let station = station_table("station-1", &["made"], &["press-*"]);
    env.configure(&(env.configuration() + profile + &station));
    env = env.started();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let secrets = given(&env);
    fs::create_dir(env.path("copies")).unwrap();
    env.run(&[
        "backup",
        "create",
        "--to",
        env.path("copies").to_str().unwrap(),
    ]);

    let mut places = vec![
        (Place::Log, env.path("hallmarkd.log")),
        (Place::Answers, answers(&env)),
    ];
    for (folder, place) in [("state", Place::StateFolder), ("copies", Place::Backup)] {
        let mut files = Vec::new();
        files_below(&env.path(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no files");
        places.extend(files.into_iter().map(|file| {
            let of_key = Some(Place::KeyFile).filter(|_| file.ends_with(KEY_FILE));
            (of_key.unwrap_or(place), file)
        }));
    }
    let worker = env.worker().expect("a worker runs");
    for (pid, start, memory) in [
        (env.daemon(), Place::DaemonStart, Place::DaemonMemory),
        (worker, Place::WorkerStart, Place::WorkerMemory),
    ] {
        for name in ["cmdline", "environ"] {
            places.push((start, PathBuf::from(format!("/proc/{pid}/{name}"))));
        }
        places.push((memory, dump(&env, pid)));
    }
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for (place, file) in &places {
        for name in found(&secrets, file) {
            seen.push((name, *place));
            let secret = secrets.iter().find(|it| it.name == name).unwrap();
            if !secret.needed.contains(place) {
                wrong.push(format!("{place:?} has the {name}: {}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // The search finds what is there.
    for there in [
        ("key of the listener", Place::KeyFile),
        ("PIN", Place::WorkerMemory),
    ] {
        assert!(seen.contains(&there), "{there:?} was not found: {seen:?}");
    }

    let folders = [env.path(""), std::env::current_dir().unwrap()];
    for pid in [worker, env.daemon()] {
        signal(pid, Signal::ABORT);
    }
    env.kill();
    for folder in folders {
        let mut names = fs::read_dir(&folder).unwrap();
        let core = names.find(|it| {
            let name = it.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("core")
        });
        assert!(core.is_none(), "{core:?} in {}", folder.display());
    }
    env.start();
}
