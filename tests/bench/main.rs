//! Measures Hallmark beside its token and its peers, in interleaved rounds of one run.
//!
//! `tests/bench/run [NAME…]` builds what ships, fetches the peers, and starts this program. All of
//! it listens on loopback, and the load comes from the same cores. A slow machine is no failure. A
//! run fails if an answer is no certificate for its request, if a serial number comes twice, if a
//! database does not have exactly the certificates that were answered, or if the chain of the
//! journal is broken.

mod crl;
mod hallmark;
mod http;
mod load;
mod names;
mod peers;
mod process;
mod raw;
mod report;
mod rounds;
mod target;

use anyhow::Context;
use clap::Parser;
use names::Name;
use rounds::Extent;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Measure certificates per second against the token and other certificate authorities.
#[derive(Parser)]
struct Arguments {
    /// Measure these only. Without a name: headline, batch, est and rsa4096.
    names: Vec<Name>,
    /// Some seconds, to test that everything still fits together. The numbers mean nothing.
    #[arg(long)]
    smoke: bool,
    /// Rounds in which no measurement is dropped.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Print JSON to standard output instead of the table.
    #[arg(long)]
    json: bool,
    /// Write performance.md, bench.json and ratios.svg into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only 64 connections, for this many seconds: time for a profiler.
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    /// `cargo bench` adds it. Without it (`cargo test --all-targets`) only the smoke test runs.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the raw signer, a process of its own: a module reads its environment when it is loaded.
    #[arg(long, hide = true, num_args = 4)]
    #[arg(value_names = ["MODULE", "PIN_FILE", "KEY_ID", "THREADS"])]
    raw: Option<Vec<String>>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some([module, pin_file, key_id, threads]) = arguments.raw.as_deref() {
        return raw::serve(module, pin_file, key_id, threads);
    }
    let is_smoke = arguments.smoke || !arguments.bench;
    if let Some(seconds) = arguments.soak {
        return names::soak(Duration::from_secs(seconds));
    }
    let milliseconds = Duration::from_millis;
    let extent = if is_smoke {
        Extent {
            rounds: 1,
            tries: 1,
            raw: milliseconds(100),
            load: milliseconds(200),
        }
    } else {
        Extent {
            rounds: arguments.rounds.max(1),
            tries: 2 * arguments.rounds.max(1),
            raw: milliseconds(800),
            load: milliseconds(2_000),
        }
    };
    let mut names = arguments.names;
    if names.is_empty() {
        names = vec![Name::Headline, Name::Batch, Name::Est, Name::Rsa4096];
    }
    let mut parts = Vec::new();
    for name in names {
        say(&format!("{name:?}"));
        parts.push(
            name.measure(&extent, is_smoke)
                .with_context(|| format!("{name:?}"))?,
        );
        // A later name may fail, and this one took minutes.
        if let Some(folder) = &arguments.out {
            report::write(folder, &parts)?;
        }
    }
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{:#}", report::json(&parts)?)?;
    } else {
        write!(out, "{}", report::text(&parts)?)?;
    }
    Ok(())
}

/// Progress, for a waiting user.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}

/// A folder on the disk that holds the build: a folder in memory costs nothing to make durable.
fn scratch_folder() -> anyhow::Result<tempfile::TempDir> {
    let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(&parent).with_context(|| format!("no folder below {}", parent.display()))
}
