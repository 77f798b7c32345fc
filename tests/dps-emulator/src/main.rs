//! The program `dps-emulator`: starts, prints one line, serves until a signal stops it.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use dps_emulator::{Emulator, Options, Quotas, Switches};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Azure's Device Provisioning Service, its CA plane and an IoT Hub on loopback, for tests.
///
/// Prints one line of JSON when it is ready: addresses, host names, id scope, connection strings
/// and the CA file that clients must trust. Stops at SIGINT or SIGTERM.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// HTTPS: service plane, device plane, resource manager, hub.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// MQTT over TLS: device plane and hub.
    #[arg(long, default_value = "127.0.0.1:0")]
    mqtt_listen: SocketAddr,
    /// Plain HTTP: clock, faults, request log. No authentication.
    #[arg(long, default_value = "127.0.0.1:0")]
    control_listen: SocketAddr,
    /// Folder of the TLS identity; made if it is empty.
    #[arg(long)]
    tls_dir: PathBuf,
    /// File that keeps the state over a restart.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Name of the DPS.
    #[arg(long, default_value = "hallmark")]
    name: String,
    /// Host name of a linked hub; may be given several times.
    #[arg(long = "hub", default_value = "hallmark.azure-devices.net")]
    hubs: Vec<String>,
    /// Seconds in the device plane's Retry-After.
    #[arg(long, default_value_t = 3)]
    retry_after: u32,
    /// Enforce Azure's quotas and rate limits.
    #[arg(long)]
    quotas: bool,
}

impl Arguments {
    fn options(self) -> Options {
        let switches = Switches {
            retry_after_seconds: self.retry_after,
            quotas: if self.quotas {
                Quotas::azure()
            } else {
                Quotas::default()
            },
            ..Switches::default()
        };
        Options {
            listen: self.listen,
            mqtt_listen: self.mqtt_listen,
            control_listen: self.control_listen,
            tls_dir: self.tls_dir,
            state: self.state,
            name: self.name,
            linked_hubs: self.hubs,
            // The control address registers them.
            entra_clients: Vec::new(),
            switches,
        }
    }
}

fn main() -> Result<()> {
    let said = std::env::var("RUST_LOG").ok();
    let filter = said.and_then(|said| said.parse::<Targets>().ok());
    tracing_subscriber::registry()
        .with(filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::ERROR)))
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr))
        .init();
    let emulator = Emulator::start(Arguments::parse().options())?;
    writeln!(io::stdout(), "{}", emulator.ready_line())?;
    io::stdout().flush()?;
    wait_for_signal()
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
