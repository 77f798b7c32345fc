//! Defines the command line of `dps-emulator`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::options::{Options, Quotas, Switches};

/// Azure's Device Provisioning Service, its CA plane and an IoT Hub on loopback, for tests.
///
/// Prints one line of JSON when it is ready: addresses, host names, id scope, connection strings
/// and the CA file that clients must trust. Stops at SIGINT or SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "dps-emulator", version)]
pub struct Arguments {
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
    /// File for the line of JSON, besides standard output; it appears when it is whole.
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
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
    /// Returns how to start the emulator.
    pub fn options(self) -> Options {
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
