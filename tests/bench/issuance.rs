//! Measures certificates per second against the signatures of the token.
//!
//! Run it with `cargo bench -p hallmarkd --bench issuance`; it takes about 40 seconds.
//!
//! A SoftHSM token, the real daemon with its worker process, a ceremony (P-256 everywhere), and a
//! station that requests leaves for devices over mutual TLS. Each round measures, on an otherwise
//! idle machine and one after the other:
//!
//! * `raw`: one thread that calls `C_SignInit` and `C_Sign` (`CKM_ECDSA`, 32 bytes) on the
//!   authority's own key, with its handle at hand: what the token gives to a program that does
//!   nothing else;
//! * `issued`: certificates over 64 kept-alive HTTP/1.1 connections, each request with a key, a
//!   registration id and an idempotency key of its own;
//! * `alone`: the same over one connection, where latency is what counts.
//!
//! The load comes from the same machine and is paid for by the same cores. The ratio is the median
//! over the rounds of `issued / raw`. A slow machine slows both; one that is busy with something
//! else takes more from `issued`, which needs all cores, than from `raw`, which needs one: so the
//! table says how busy it was. A slow run is no failure. A run fails if an answer is not 201, if a
//! certificate does not verify or differs from its request, and if the database has another number
//! of them.

mod load;
mod plant;
mod raw;

use anyhow::{Context, ensure};
use clap::Parser;
use load::{Load, Taken};
use plant::{CpuTime, Plant};
use raw::RawSigner;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Connections that a full load keeps busy.
const CONNECTIONS: usize = 64;
/// Requests that bring caches, connections and the clock of the processor up to speed.
const WARM_UP_REQUESTS: usize = 1_000;
/// Certificates that the measured rounds may carry at most: each waits in memory, with its request.
const REQUESTS_MAX: usize = 100_000;

#[derive(Parser)]
#[command(about = "Issued certificates per second, against the raw signing rate of the token")]
struct Arguments {
    /// Print JSON to standard output, and the table to standard error.
    #[arg(long)]
    json: bool,
    /// Two seconds, to see that everything still fits together. The numbers mean nothing.
    #[arg(long)]
    smoke: bool,
    /// How many rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only 64 connections, for so many seconds in one round: something to hold a profiler to.
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    /// `cargo bench` says so; without it (`cargo test --all-targets`) only the smoke test runs.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the raw signer, a process of its own: the module reads its environment when it is loaded.
    #[arg(long, hide = true, num_args = 3, value_names = ["MODULE", "PIN_FILE", "KEY_ID"])]
    raw: Option<Vec<String>>,
}

/// How much is measured.
struct Extent {
    rounds: usize,
    raw: Duration,
    issued: Duration,
    alone: Duration,
}

impl Extent {
    fn of(arguments: &Arguments) -> Self {
        let milliseconds = Duration::from_millis;
        if arguments.smoke || !arguments.bench {
            return Extent {
                rounds: 1,
                raw: milliseconds(100),
                issued: milliseconds(200),
                alone: milliseconds(50),
            };
        }
        match arguments.soak {
            Some(seconds) => Extent {
                rounds: 1,
                raw: milliseconds(1_000),
                issued: Duration::from_secs(seconds),
                alone: milliseconds(50),
            },
            None => Extent {
                rounds: arguments.rounds.max(1),
                raw: milliseconds(1_200),
                issued: milliseconds(2_000),
                alone: milliseconds(800),
            },
        }
    }
}

/// One round.
struct Round {
    raw_rate: f64,
    issued: Taken,
    alone: Taken,
    /// Of the daemon, the worker and this process, while `issued` was measured.
    cpu: CpuTime,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.issued.rate() / self.raw_rate
    }

    /// The part of all processor time that went to other programs while `issued` was measured.
    fn elsewhere(&self) -> f64 {
        let all =
            self.issued.elapsed() * thread::available_parallelism().map_or(1, |it| it.get() as u32);
        self.cpu.elsewhere().as_secs_f64() / all.as_secs_f64()
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some([module, pin_file, key_id]) = arguments.raw.as_deref() {
        raw::serve(module, pin_file, key_id)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rounds = measure(&Extent::of(&arguments))?;
    let mut out = std::io::stdout();
    if arguments.json {
        write_table(&mut std::io::stderr(), &rounds)?;
        writeln!(out, "{:#}", as_json(&rounds))?;
    } else {
        write_table(&mut out, &rounds)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(extent: &Extent) -> anyhow::Result<Vec<Round>> {
    say("token, daemon, ceremony, station");
    let plant = Plant::build()?;
    let mut signer = RawSigner::start(&plant)?;
    let mut load = Load::new(&plant)?;
    let mut expected_rate = warm_up(&mut load)?;
    let mut rounds = Vec::new();
    for number in 1..=extent.rounds {
        let round = measure_round(extent, &plant, &mut signer, &mut load, expected_rate)?;
        expected_rate = (round.issued.rate(), round.alone.rate());
        say(&format!(
            "round {number} of {}: raw {:.0}/s, issued {:.0}/s, ratio {:.2}",
            extent.rounds,
            round.raw_rate,
            round.issued.rate(),
            round.ratio()
        ));
        rounds.push(round);
    }
    drop(signer);
    let recorded = plant.stop()?;
    let issued = load.issued();
    ensure!(
        recorded == issued,
        "{issued} requests were answered with a certificate, the database has {recorded}"
    );
    say(&format!(
        "{issued} certificates verified, as many in the database"
    ));
    Ok(rounds)
}

/// Rates to expect, of 64 connections and of one.
fn warm_up(load: &mut Load) -> anyhow::Result<(f64, f64)> {
    let full = load.take(WARM_UP_REQUESTS, CONNECTIONS)?;
    let alone = load.take(WARM_UP_REQUESTS / 10, 1)?;
    Ok((full.rate(), alone.rate()))
}

fn measure_round(
    extent: &Extent,
    plant: &Plant,
    signer: &mut RawSigner,
    load: &mut Load,
    expected_rate: (f64, f64),
) -> anyhow::Result<Round> {
    let requests =
        |rate: f64, time: Duration| ((rate * time.as_secs_f64()) as usize).clamp(1, REQUESTS_MAX);
    let raw_rate = signer.rate(extent.raw)?;
    let prepared = load.prepare(requests(expected_rate.0, extent.issued))?;
    let before = plant.cpu_time()?;
    let answered = load.run(prepared, CONNECTIONS)?;
    let cpu = plant.cpu_time()?.since(&before);
    Ok(Round {
        raw_rate,
        issued: load.verified(answered)?,
        alone: load.take(requests(expected_rate.1, extent.alone), 1)?,
        cpu,
    })
}

fn write_table(out: &mut impl Write, rounds: &[Round]) -> anyhow::Result<()> {
    let rate = |of: fn(&Round) -> f64| median(rounds.iter().map(of));
    let time = |of: fn(&Round) -> Duration| median(rounds.iter().map(|it| milliseconds(of(it))));
    let cores = thread::available_parallelism()?;
    writeln!(
        out,
        "issuance, P-256, SoftHSM, {cores} cores, load from the same machine"
    )?;
    writeln!(out, "                        per second   p50 ms   p99 ms")?;
    writeln!(
        out,
        "C_Sign, one thread       {:>9.0}",
        rate(|it| it.raw_rate)
    )?;
    writeln!(
        out,
        "issued, {CONNECTIONS} connections   {:>9.0}   {:>6.2}   {:>6.2}",
        rate(|it| it.issued.rate()),
        time(|it| it.issued.percentile(50)),
        time(|it| it.issued.percentile(99)),
    )?;
    writeln!(
        out,
        "issued, 1 connection     {:>9.0}   {:>6.2}   {:>6.2}",
        rate(|it| it.alone.rate()),
        time(|it| it.alone.percentile(50)),
        time(|it| it.alone.percentile(99)),
    )?;
    let [daemon, worker, load] = cpu_per_certificate(rounds);
    writeln!(
        out,
        "CPU per certificate: daemon {daemon:.0} us, worker {worker:.0} us, load {load:.0} us"
    )?;
    writeln!(
        out,
        "Other programs took {:.0} % of the processors meanwhile",
        100.0 * median(rounds.iter().map(Round::elsewhere))
    )?;
    let ratios: Vec<_> = rounds.iter().map(Round::ratio).collect();
    let spread = ratios.iter().map(|ratio| format!("{ratio:.2}"));
    writeln!(
        out,
        "ratio issued / C_Sign: {:.2}   (rounds: {})",
        median(ratios.iter().copied()),
        spread.collect::<Vec<_>>().join(" ")
    )?;
    Ok(())
}

fn as_json(rounds: &[Round]) -> serde_json::Value {
    let rate = |of: fn(&Round) -> f64| median(rounds.iter().map(of));
    let time = |of: fn(&Round) -> Duration| median(rounds.iter().map(|it| milliseconds(of(it))));
    let [daemon, worker, load] = cpu_per_certificate(rounds);
    json!({
        "raw_sign_per_second": rate(|it| it.raw_rate),
        "connections": CONNECTIONS,
        "issued_per_second": rate(|it| it.issued.rate()),
        "issued_p50_ms": time(|it| it.issued.percentile(50)),
        "issued_p99_ms": time(|it| it.issued.percentile(99)),
        "alone_per_second": rate(|it| it.alone.rate()),
        "alone_p50_ms": time(|it| it.alone.percentile(50)),
        "alone_p99_ms": time(|it| it.alone.percentile(99)),
        "cpu_us_per_certificate": { "daemon": daemon, "worker": worker, "load": load },
        "cpu_elsewhere": rate(Round::elsewhere),
        "ratio": rate(Round::ratio),
        "ratios": rounds.iter().map(Round::ratio).collect::<Vec<_>>(),
    })
}

/// Microseconds of the daemon, the worker and the load generator.
fn cpu_per_certificate(rounds: &[Round]) -> [f64; 3] {
    let parts: [fn(&CpuTime) -> Duration; 3] = [|it| it.daemon, |it| it.worker, |it| it.load];
    parts.map(|part| {
        let each = |round: &Round| part(&round.cpu).as_secs_f64() / round.issued.count() as f64;
        1e6 * median(rounds.iter().map(each))
    })
}

fn milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Progress, for a waiting user.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "issuance: {what}");
}

/// A folder on the disk that holds the build: what lies in memory costs nothing to make durable.
fn scratch_folder() -> anyhow::Result<tempfile::TempDir> {
    let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(&parent).with_context(|| format!("no folder below {}", parent.display()))
}
