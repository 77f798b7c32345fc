//! Runs the main function of a program: starts the log, prints the error, chooses the exit code.

use crate::notify::journal;
use crate::printable::{self, Page};
use crate::process_memory;
use rustix::fs::Mode;
use std::io::Write;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// `EX_CONFIG` of `sysexits.h`: a restart does not help. The units pass this to systemd
/// (`RestartPreventExitStatus=`).
const WRONG_CONFIGURATION: u8 = 78;

/// Runs `body` as a whole program, and reports its error once. `is_configuration_error` decides
/// whether the exit code makes systemd leave the program stopped.
pub fn main(
    body: impl FnOnce() -> anyhow::Result<ExitCode>,
    is_configuration_error: fn(&anyhow::Error) -> bool,
) -> ExitCode {
    // A new file is for its owner alone, unless it is made with another mode.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    journal::log(log_filter());
    if let Err(error) = process_memory::keep_private() {
        tracing::warn!(%error, "memory may be dumped");
    }
    // Crash points of the fault tests, which need the feature `failpoints`.
    let _crash_points = fail::FailScenario::setup();
    let error = match body() {
        Ok(code) => return code,
        Err(error) => error,
    };
    if journal::is_ours() {
        tracing::error!(error = %format_args!("{error:#}"), "program failed");
    } else {
        // Standard error may be closed; the exit code remains.
        let _ = printable::err().write_all(causes(&error).as_bytes());
    }
    if is_configuration_error(&error) {
        ExitCode::from(WRONG_CONFIGURATION)
    } else {
        ExitCode::FAILURE
    }
}

/// Returns the error and its causes, one line each.
fn causes(error: &anyhow::Error) -> String {
    let mut page = Page::default();
    page.line(&format!("Error: {error}"));
    let causes = error.chain().skip(1).enumerate();
    page.lines(causes.map(|(depth, cause)| format!("    {depth}: {cause}")));
    page.into_text()
}

/// Returns the filter of `RUST_LOG` (`info`, `info,hallmark_worker=debug`), or the default. The
/// default leaves out cryptoki's errors about unknown mechanisms, and the response codes of
/// tss-esapi, which our own messages contain.
fn log_filter() -> Targets {
    let said = std::env::var("RUST_LOG").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or_else(|| {
        Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("cryptoki::mechanism", LevelFilter::OFF)
            .with_target("tss_esapi", LevelFilter::OFF)
    })
}
