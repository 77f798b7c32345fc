//! Checks the rules of the tree by reading its text: the rows of `lib.rs`, one foreign library for
//! each adapter, names (here), which crate lists which (`crates`), and plain words (`prose`).

mod cases;
mod crates;
mod documents;
mod prose;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, by the prefix of their files here, and their source folders. The parts that one
/// crate may use of another is in its `Cargo.toml`.
const CRATES: &[(&str, &str)] = &[
    ("", "../daemon/src"),
    ("base/", "../base/src"),
    ("cli/", "../cli/src"),
    ("pki/", "../pki/src"),
    ("programs/", "src"),
    ("protocol/", "../protocol/src"),
    ("worker/", "../worker/src"),
];

/// A row of the house, by path prefix. The first that fits counts.
struct Room {
    prefix: &'static str,
    /// Modules of the crate that it may use, besides itself.
    may_use: &'static [&'static str],
    /// Foreign crates that are its business.
    libraries: &'static [&'static str],
}

/// Modules of the crates below the daemon, which its `lib.rs` re-exports. Cargo keeps these crates
/// from using the daemon, so every module of the daemon may use them.
const CRATES_BELOW: &[&str] = &[
    "crl_number",
    "der_bytes",
    "enrollment",
    "error_code",
    "files",
    "ids",
    "moment",
    "notify",
    "printable",
    "socket_path",
    "toml_error",
    "unix_seconds",
    "x509",
];

const ROOMS: &[Room] = &[
    // `codes!` is a macro, so it is at the root of its crate.
    Room {
        prefix: "pki/error_code",
        may_use: &["codes"],
        libraries: &[],
    },
    Room {
        prefix: "pki/moment",
        may_use: &["unix_seconds", "x509"],
        libraries: &[],
    },
    Room {
        prefix: "pki/x509",
        may_use: &["crl_number", "der_bytes", "error_code", "unix_seconds"],
        libraries: &["der", "spki"],
    },
    Room {
        prefix: "pki/enrollment",
        may_use: &["der_bytes", "error_code", "ids", "unix_seconds"],
        libraries: &["der"],
    },
    Room {
        prefix: "base/notify",
        may_use: &["printable"],
        libraries: &["systemd"],
    },
    Room {
        prefix: "base/probe",
        may_use: &["fragment", "notify"],
        libraries: &[],
    },
    Room {
        prefix: "base/program",
        may_use: &["notify", "printable", "process_memory"],
        libraries: &["fail"],
    },
    Room {
        prefix: "base/",
        may_use: &[],
        libraries: &[],
    },
    Room {
        prefix: "store",
        may_use: &[],
        libraries: &["rusqlite", "rusqlite_migration"],
    },
    // Daemon and worker share it, so it knows neither.
    Room {
        prefix: "protocol/",
        may_use: &[
            "configuration",
            "credential",
            "health",
            "inventory",
            "message",
            "operation",
            "tcti",
            "KeyDescription",
            "KeyReference",
            "KeySpecification",
            "TokenDescription",
            "TokenError",
        ],
        libraries: &["postcard", "spki"],
    },
    // A token accepts what the store has recorded, and that is a type (docs/decisions.md).
    Room {
        prefix: "token",
        may_use: &["store::Recorded"],
        // Many wait for one test signature (`client::trust`), on whatever executor.
        libraries: &["hallmark_protocol", "futures_util"],
    },
    // A backend knows no message and no thread of the worker.
    Room {
        prefix: "worker/pkcs11",
        may_use: &["backend", "encoding", "fault"],
        libraries: &["cryptoki", "cryptoki_sys", "hallmark_protocol"],
    },
    Room {
        prefix: "worker/tpm",
        may_use: &["backend", "encoding", "fault", "pin::PIN_FILE_BYTES_MAX"],
        libraries: &["tss_esapi", "postcard", "hallmark_protocol"],
    },
    Room {
        prefix: "worker/encoding",
        may_use: &["fault"],
        libraries: &["der", "spki"],
    },
    Room {
        prefix: "worker/listing",
        may_use: &["pkcs11"],
        libraries: &["cryptoki"],
    },
    Room {
        prefix: "worker/initialize",
        may_use: &["pin", "pkcs11"],
        libraries: &["cryptoki", "hallmark_protocol"],
    },
    Room {
        prefix: "worker/process",
        may_use: &["backend", "initialize", "memory", "pin", "pkcs11", "tpm"],
        libraries: &["hallmark_protocol"],
    },
    Room {
        prefix: "worker/program",
        may_use: &["initialize", "listing", "process"],
        libraries: &["hallmark_protocol"],
    },
    Room {
        prefix: "worker/",
        may_use: &["backend", "fault"],
        libraries: &["hallmark_protocol"],
    },
    Room {
        prefix: "programs/bin/hallmark-token",
        may_use: &[],
        libraries: &["hallmark_worker"],
    },
    Room {
        prefix: "provisioning/reconcile",
        may_use: &["ca", "provisioning", "store"],
        // The canary's key is made where it is used, and kept nowhere.
        libraries: &["tokio", "futures_util", "rcgen"],
    },
    Room {
        prefix: "provisioning",
        may_use: &[],
        libraries: &["reqwest", "tokio", "hyper", "axum"],
    },
    Room {
        prefix: "ca",
        may_use: &["store", "token"],
        // The key of a placeholder is made where its certificate is, and dropped.
        libraries: &["fail", "rcgen"],
    },
    Room {
        prefix: "api",
        may_use: &["ca", "store"],
        libraries: &[
            "axum",
            "tokio",
            "tokio_rustls",
            "rustls",
            "hyper",
            "hyper_util",
            "rcgen",
            "futures_util",
        ],
    },
    Room {
        prefix: "cli/ctl",
        may_use: &["setup"],
        libraries: &["reqwest"],
    },
    // It works through `hallmark`, `hallmarkd` and systemd's programs, as an operator would.
    Room {
        prefix: "cli/setup",
        may_use: &[],
        libraries: &[],
    },
    // The certificate of a credential key is issued by no authority (docs/decisions.md).
    Room {
        prefix: "commands",
        may_use: &["ca", "config", "provisioning", "service", "store", "token"],
        libraries: &["rcgen"],
    },
    Room {
        prefix: "",
        may_use: &[
            "api",
            "ca",
            "commands",
            "config",
            "provisioning",
            "service",
            "store",
            "token",
        ],
        libraries: &["tokio", "fail"],
    },
];

/// Crates that belong to one row or another; the rest (serde, time, tracing …) are everybody's.
const FOREIGN: &[&str] = &[
    "axum",
    "cryptoki",
    "cryptoki_sys",
    "der",
    "fail",
    "futures_util",
    "hallmark_protocol",
    "hallmark_worker",
    "hyper",
    "hyper_util",
    "postcard",
    "rcgen",
    "reqwest",
    "rusqlite",
    "rusqlite_migration",
    "rustls",
    "spki",
    "systemd",
    "tokio",
    "tokio_rustls",
    "tss_esapi",
];

#[test]
fn arrows_point_down_only() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let room = room_of(&path);
        for used in uses(&text, "crate::") {
            let mut prefixes = CRATES.iter().filter(|(prefix, _)| !prefix.is_empty());
            let in_crate = prefixes.find_map(|(prefix, _)| path.strip_prefix(prefix));
            let is_daemon = in_crate.is_none();
            let in_crate = in_crate.unwrap_or(&path);
            let own = in_crate.split(['/', '.']).next().unwrap_or_default();
            let home = used.split("::").next().unwrap_or_default();
            let allowed = home == own
                || (is_daemon && CRATES_BELOW.contains(&home))
                || room
                    .may_use
                    .iter()
                    .any(|it| used == *it || used.starts_with(&format!("{it}::")));
            if !allowed {
                broken.push(format!("{path} uses crate::{used}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_foreign_library_stays_in_its_room() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let room = room_of(&path);
        for library in FOREIGN
            .iter()
            .filter(|library| !room.libraries.contains(library))
        {
            let used = product_lines(&text).any(|line| {
                line.contains(&format!("use {library}::"))
                    || line.contains(&format!(" {library}::"))
            });
            if used {
                broken.push(format!("{path} uses {library}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_backend_knows_no_message() {
    let backends = ["worker/pkcs11", "worker/tpm"];
    for (path, text) in sources() {
        if backends.iter().any(|it| path.starts_with(it)) {
            for used in uses(&text, "hallmark_protocol::") {
                let home = used.split("::").next().unwrap_or_default();
                let is_socket = ["arguments", "frame_writer", "health", "message"].contains(&home);
                assert!(!is_socket, "{path} uses {used}");
            }
        }
    }
}

/// Files of the store that may name rusqlite: the engine, and what opens, copies and writes the
/// file.
const NAMES_RUSQLITE: &[&str] = &[
    "store/backup.rs",
    "store/engine/",
    "store/mod.rs",
    "store/opening.rs",
    "store/database_file.rs",
    "store/probe.rs",
    "store/unchanged.rs",
    "store/writer.rs",
];

#[test]
fn operations_of_the_store_do_not_name_its_library() {
    for (path, text) in sources() {
        let may = NAMES_RUSQLITE.iter().any(|it| path.starts_with(it));
        if path.starts_with("store/") && !may {
            let line = product_lines(&text).find(|line| line.contains("rusqlite"));
            assert_eq!(line, None, "{path}");
        }
    }
}

#[test]
fn the_domain_has_no_clock_and_no_io() {
    let forbidden = [
        "SystemTime",
        "Instant",
        "now_utc",
        "std::fs",
        "std::io",
        "TcpStream",
        "std::env",
    ];
    for (path, text) in sources() {
        if path.starts_with("pki/") {
            for line in product_lines(&text) {
                let found = forbidden.iter().find(|word| line.contains(**word));
                assert!(found.is_none(), "{path}: {line}");
            }
        }
    }
}

/// Text from outside reaches a terminal through `printable` alone; the log's lines escape it, too.
const PRINTS: &[&str] = &["base/notify/journal.rs", "base/printable.rs"];

#[test]
fn text_is_printed_in_one_place() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if PRINTS.contains(&path.as_str()) {
            continue;
        }
        let writes = ["stdout()", "stderr()", "println!", "print!"];
        // Questions about the terminal write nothing.
        let asks = ["is_terminal()", "size_checked()"];
        let line = product_lines(&text).find(|line| {
            let has = |words: &[&str]| words.iter().any(|it| line.contains(it));
            has(&writes) && !has(&asks)
        });
        broken.extend(line.map(|line| format!("{path}: {line}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Where code may be `unsafe`: the calls of a module that go past cryptoki.
const UNSAFE: &[&str] = &["worker/pkcs11/raw.rs"];

#[test]
fn unsafe_code_is_in_one_place() {
    let unsafe_files: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.contains("unsafe_code"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(unsafe_files, UNSAFE);
}

/// Words that open a file or folder by its path, or change one by its path. Root runs our programs
/// over folders that other users can write, so `files` does all of that, link by link.
const BY_PATH: &[&str] = &[
    "File::open(",
    "File::create",
    "OpenOptions",
    "DirBuilder",
    "NamedTempFile",
    "fs::read(",
    "fs::read_to_string(",
    "fs::write(",
    "fs::copy(",
    "fs::rename(",
    "fs::remove_file(",
    "fs::remove_dir",
    "fs::create_dir",
    "fs::hard_link(",
    "set_permissions(",
    "chown(",
    "chmod(",
    "pem_file",
    "Connection::open(",
    "open_with_flags(",
];

/// Files that may: the module itself; the store, which opens for SQLite with the owner's rights;
/// crash points of the fault tests; and what the kernel shows of this machine.
const MAY_OPEN_BY_PATH: &[(&str, &[&str])] = &[
    ("base/files/mod.rs", &["chown(", "chmod("]),
    ("store/database_file.rs", &["open_with_flags("]),
    ("store/unchanged.rs", &["open_with_flags("]),
    // A socket.
    ("token/client/connection_manager.rs", &["Connection::open("]),
    ("ca/mod.rs", &["fs::write(", "fs::read_to_string("]),
    ("cli/setup/interview.rs", &["fs::read_to_string("]),
];

#[test]
fn files_are_opened_by_path_in_one_module() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let allowed = MAY_OPEN_BY_PATH.iter().find(|(file, _)| *file == path);
        let allowed = allowed.map_or(&[][..], |(_, words)| words);
        for line in product_lines(&text) {
            let mut words = BY_PATH.iter().filter(|word| !allowed.contains(word));
            if let Some(word) = words.find(|word| line.contains(**word)) {
                broken.push(format!("{path}: {word} in {}", line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn names_say_something_and_nothing_is_left_open() {
    let empty: BTreeSet<_> = [
        "utils", "util", "common", "helpers", "helper", "manager", "misc",
    ]
    .into();
    for (path, text) in sources() {
        assert!(
            path.split(['/', '.']).all(|part| !empty.contains(part)),
            "{path} says nothing"
        );
        for word in ["TODO", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{path} holds a {word}");
        }
        assert!(
            text.starts_with("//!"),
            "{path} does not say what it is for"
        );
    }
}

fn room_of(path: &str) -> &'static Room {
    ROOMS
        .iter()
        .find(|room| path.starts_with(room.prefix))
        .expect("the last room takes everything")
}

/// The paths after `prefix` in the `use` lines and paths of a file's product part.
fn uses(text: &str, prefix: &str) -> Vec<String> {
    let path = |rest: &str| {
        rest.split(|it: char| !(it.is_alphanumeric() || it == '_' || it == ':'))
            .next()
            .unwrap_or_default()
            .trim_end_matches(':')
            .to_owned()
    };
    product_lines(text)
        .flat_map(|line| line.split(prefix).skip(1).map(path).collect::<Vec<_>>())
        .collect()
}

/// Everything before the tests, without comments: tests may know more.
fn product_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| {
            let line = line.trim_start();
            !line.starts_with("//")
        })
}

/// Every source file that is not a test, by its path below its crate's source folder.
fn sources() -> Vec<(String, String)> {
    let is_test = |path: &str| {
        path.contains("tests") || path.contains("properties") || path.contains("scripted_server")
    };
    let of_crate = |(prefix, folder): &(&str, &str)| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files = Vec::new();
        collect(&root, &mut files);
        let named = files.into_iter().map(|path| {
            let relative = path.strip_prefix(&root).expect("below the folder");
            let name = format!("{prefix}{}", relative.display());
            (name, fs::read_to_string(&path).expect("a source file"))
        });
        named.filter(|(path, _)| !is_test(path)).collect::<Vec<_>>()
    };
    CRATES.iter().flat_map(of_crate).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
}
