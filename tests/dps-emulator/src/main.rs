//! The program `dps-emulator`: starts, prints one line, serves until a signal stops it.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Result;
use clap::Parser as _;
use dps_emulator::Emulator;
use dps_emulator::arguments::Arguments;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> Result<()> {
    let said = std::env::var("RUST_LOG").ok();
    let filter = said.and_then(|said| said.parse::<Targets>().ok());
    tracing_subscriber::registry()
        .with(filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::ERROR)))
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr))
        .init();
    let arguments = Arguments::parse();
    let ready_file = arguments.ready_file.clone();
    let emulator = Emulator::start(arguments.options())?;
    let line = format!("{}\n", emulator.ready_line());
    if let Some(file) = ready_file {
        write_whole(&file, &line)?;
    }
    io::stdout().write_all(line.as_bytes())?;
    io::stdout().flush()?;
    wait_for_signal()
}

/// Writes a file that appears with its whole content: a test waits for it.
fn write_whole(file: &Path, text: &str) -> Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    Ok(std::fs::rename(beside, file)?)
}

#[tokio::main(flavor = "current_thread")]
async fn wait_for_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => Ok(result?),
    }
}
