//! What the daemon's program and the worker's have in common: their log, and how they fail. It must
//! need nothing that only one of them links.

use crate::config::ConfigurationError;
use crate::notify::journal;
use crate::printable::{self, Page};
use crate::provisioning::http::PlaneError;
use crate::token::configuration::{TokenConfigurationError, TokenFileError};
use crate::token::process_memory;
use crate::token::worker::HandedOver;
use rustix::fs::Mode;
use std::io::Write;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// `EX_CONFIG` of `sysexits.h`: starting it again as it is does not help, and the units say so to
/// systemd (`RestartPreventExitStatus=`).
const WRONG_CONFIGURATION: u8 = 78;

/// Runs `body` as a whole program: begins the log, and says why it failed, once.
pub fn main(body: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    // A file is for its owner alone; one that others may read says so itself.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    journal::log(log_filter());
    if let Err(error) = process_memory::keep_private() {
        tracing::warn!(%error, "memory may be dumped");
    }
    // Crash points for the fault tests; nothing without the feature `failpoints`.
    let _crash_points = fail::FailScenario::setup();
    let error = match body() {
        Ok(code) => return code,
        Err(error) => error,
    };
    if journal::is_ours() {
        tracing::error!("{error:#}");
    } else {
        // When standard error is closed, there is nowhere to say so.
        let _ = printable::err().write_all(causes(&error).as_bytes());
    }
    match is_wrong_configuration(&error) {
        true => ExitCode::from(WRONG_CONFIGURATION),
        false => ExitCode::FAILURE,
    }
}

/// The error and what caused it, a line each.
fn causes(error: &anyhow::Error) -> String {
    let mut page = Page::default();
    page.line(&format!("Error: {error}"));
    let causes = error.chain().skip(1).enumerate();
    page.lines(causes.map(|(depth, cause)| format!("    {depth}: {cause}")));
    page.into_text()
}

fn is_wrong_configuration(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigurationError>()
            || cause.is::<TokenConfigurationError>()
            || cause.is::<TokenFileError>()
            || cause.is::<HandedOver>()
            || cause.is::<PlaneError>()
    })
}

/// `RUST_LOG` (`info`, `info,hallmarkd=debug`), or what an operator wants to see. cryptoki reports
/// every mechanism that it has no name for as an error, and tss-esapi every response code that we
/// report ourselves.
fn log_filter() -> Targets {
    let said = std::env::var("RUST_LOG").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or_else(|| {
        Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("cryptoki::mechanism", LevelFilter::OFF)
            .with_target("tss_esapi", LevelFilter::OFF)
    })
}
