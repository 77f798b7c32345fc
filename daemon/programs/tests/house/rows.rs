//! Checks that a module uses the rows below its own only, and no foreign library but its own.

use crate::{CRATES, product_lines, sources};

/// A row of modules, by path prefix. The first that fits counts.
struct Row {
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
    "encryption",
    "enrollment",
    "error_code",
    "files",
    "ids",
    "journal",
    "moment",
    "notify",
    "printable",
    "socket_path",
    "toml_error",
    "trace",
    "unix_seconds",
    "x509",
];

const ROWS: &[Row] = &[
    // `codes!` is a macro, so it is at the root of its crate.
    Row {
        prefix: "pki/error_code",
        may_use: &["codes"],
        libraries: &[],
    },
    Row {
        prefix: "pki/moment",
        may_use: &["unix_seconds", "x509"],
        libraries: &[],
    },
    Row {
        prefix: "pki/journal",
        may_use: &["codes", "unix_seconds", "x509"],
        libraries: &[],
    },
    Row {
        prefix: "pki/x509",
        may_use: &["crl_number", "der_bytes", "error_code", "unix_seconds"],
        libraries: &["der", "spki"],
    },
    Row {
        prefix: "pki/enrollment",
        may_use: &["der_bytes", "error_code", "ids", "unix_seconds"],
        libraries: &["der"],
    },
    Row {
        prefix: "base/encryption",
        may_use: &["files"],
        libraries: &[],
    },
    Row {
        prefix: "base/notify",
        may_use: &["printable", "trace"],
        libraries: &["systemd"],
    },
    Row {
        prefix: "base/probe",
        may_use: &["fragment", "notify"],
        libraries: &[],
    },
    Row {
        prefix: "base/program",
        may_use: &["notify", "printable", "process_memory"],
        libraries: &["fail"],
    },
    Row {
        prefix: "base/",
        may_use: &[],
        libraries: &[],
    },
    // Adapters tell it that they answer; it knows none of them.
    Row {
        prefix: "request_task",
        may_use: &[],
        libraries: &["async_task", "futures_util", "tokio"],
    },
    Row {
        prefix: "measured",
        may_use: &[],
        libraries: &[],
    },
    Row {
        prefix: "store",
        may_use: &["measured", "request_task"],
        libraries: &["rusqlite", "rusqlite_migration"],
    },
    // Daemon and worker share it, so it knows neither.
    Row {
        prefix: "protocol/",
        may_use: &[
            "configuration",
            "credential",
            "health",
            "inventory",
            "key_proof",
            "limits",
            "message",
            "operation",
            "signature_count",
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
    Row {
        prefix: "token",
        may_use: &["measured", "request_task", "store::Recorded"],
        // Many wait for one test signature (`client::trust`), on whatever executor.
        libraries: &["hallmark_protocol", "futures_util"],
    },
    // A backend knows no message and no thread of the worker.
    Row {
        prefix: "worker/pkcs11",
        may_use: &["backend", "encoding", "fault"],
        libraries: &["cryptoki", "cryptoki_sys", "hallmark_protocol"],
    },
    Row {
        prefix: "worker/tpm",
        may_use: &["backend", "encoding", "fault", "pin::PIN_FILE_BYTES_MAX"],
        libraries: &["tss_esapi", "postcard", "hallmark_protocol"],
    },
    Row {
        prefix: "worker/encoding",
        may_use: &["fault"],
        libraries: &["der", "spki"],
    },
    Row {
        prefix: "worker/listing",
        may_use: &["pkcs11"],
        libraries: &["cryptoki"],
    },
    Row {
        prefix: "worker/initialize",
        may_use: &["pin", "pkcs11"],
        libraries: &["cryptoki", "hallmark_protocol"],
    },
    Row {
        prefix: "worker/process",
        may_use: &[
            "backend",
            "initialize",
            "memory",
            "pin",
            "pkcs11",
            "tpm",
            "wall",
        ],
        libraries: &["hallmark_protocol"],
    },
    Row {
        prefix: "worker/program",
        may_use: &["initialize", "listing", "process"],
        libraries: &["hallmark_protocol"],
    },
    Row {
        prefix: "worker/",
        may_use: &["backend", "fault"],
        libraries: &["hallmark_protocol"],
    },
    Row {
        prefix: "programs/bin/hallmark-token",
        may_use: &[],
        libraries: &["hallmark_worker"],
    },
    Row {
        prefix: "provisioning/reconcile",
        may_use: &["ca", "measured", "provisioning", "store"],
        // The canary's key is made where it is used, and kept nowhere.
        libraries: &["tokio", "futures_util", "rcgen"],
    },
    Row {
        prefix: "provisioning",
        may_use: &["measured"],
        libraries: &["reqwest", "tokio", "hyper", "axum"],
    },
    // Paths of manufacturers' certificates are validated by the verifier of rustls.
    Row {
        prefix: "ca/birth",
        may_use: &["store", "token"],
        libraries: &["rustls"],
    },
    Row {
        prefix: "ca",
        may_use: &["measured", "request_task", "store", "token"],
        // The key of a placeholder is made where its certificate is, and dropped.
        libraries: &["fail", "rcgen"],
    },
    Row {
        prefix: "api",
        may_use: &["ca", "measured", "request_task", "store"],
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
    // A client of the API within the process: it knows routes, and no application.
    Row {
        prefix: "console",
        may_use: &["api::client"],
        libraries: &[
            "askama",
            "axum",
            "hyper",
            "hyper_util",
            "futures_util",
            "tokio",
        ],
    },
    // It needs no daemon.
    Row {
        prefix: "cli/custodian",
        may_use: &[],
        libraries: &[],
    },
    Row {
        prefix: "cli/ctl",
        may_use: &["custodian", "setup"],
        // The port of `hallmark console`.
        libraries: &["reqwest", "hyper", "hyper_util", "tokio"],
    },
    // It works through `hallmark`, `hallmarkd` and systemd's programs, as an operator would.
    Row {
        prefix: "cli/setup",
        may_use: &[],
        libraries: &[],
    },
    // The certificate of a credential key is issued by no authority (docs/decisions.md).
    Row {
        prefix: "commands",
        may_use: &["ca", "config", "provisioning", "service", "store", "token"],
        libraries: &["rcgen"],
    },
    Row {
        prefix: "",
        may_use: &[
            "api",
            "ca",
            "commands",
            "config",
            "console",
            "measured",
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
    "askama",
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
        let row = row_of(&path);
        for used in uses(&text, "crate::") {
            let mut prefixes = CRATES.iter().filter(|(prefix, _)| !prefix.is_empty());
            let in_crate = prefixes.find_map(|(prefix, _)| path.strip_prefix(prefix));
            let is_daemon = in_crate.is_none();
            let in_crate = in_crate.unwrap_or(&path);
            let own = in_crate.split(['/', '.']).next().unwrap_or_default();
            let home = used.split("::").next().unwrap_or_default();
            let allowed = home == own
                || (is_daemon && CRATES_BELOW.contains(&home))
                || row
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
fn a_foreign_library_stays_in_its_row() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let row = row_of(&path);
        for library in FOREIGN
            .iter()
            .filter(|library| !row.libraries.contains(library))
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

fn row_of(path: &str) -> &'static Row {
    ROWS.iter()
        .find(|row| path.starts_with(row.prefix))
        .expect("the last row takes everything")
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
