//! `hallmarkd`: the daemon (`serve`), its token workers (`token`) and the configuration check.

use anyhow::Context;
use clap::{Parser, Subcommand};
use hallmarkd::token::configuration::TokenFile;
use hallmarkd::token::initialize::{self, InitializeOptions, Initialized};
use hallmarkd::token::worker::{self, WorkerOptions};
use std::io::Write;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the worker of one token.
    Token {
        /// The token's name in the configuration.
        name: String,
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// Where to listen, instead of where the configuration says.
        #[arg(long)]
        socket: Option<PathBuf>,
        /// End when standard input ends.
        #[arg(long, hide = true)]
        supervised: bool,
    },
    /// Make a new token through its PKCS#11 module.
    #[command(hide = true)]
    InitToken {
        /// The PKCS#11 module.
        #[arg(long)]
        module: PathBuf,
        /// The token's label.
        #[arg(long)]
        label: String,
        /// File of the user PIN; made if it does not exist.
        #[arg(long)]
        pin_file: PathBuf,
        /// File of the security officer's PIN; made if it does not exist.
        #[arg(long)]
        so_pin_file: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(log_filter())
        .init();
    match Arguments::parse().command {
        Command::Token {
            name,
            config,
            socket,
            supervised,
        } => {
            let file = TokenFile::read(&config)?;
            let configuration = file.token(&name)?;
            let socket = socket.unwrap_or_else(|| file.socket(&name));
            let state_directory = file.state_dir;
            worker::run(WorkerOptions {
                configuration,
                socket,
                state_directory,
                supervised,
            })
        }
        Command::InitToken {
            module,
            label,
            pin_file,
            so_pin_file,
        } => {
            let options = InitializeOptions {
                module,
                label,
                pin_file,
                so_pin_file,
            };
            let line = match initialize::initialize(&options)? {
                Initialized::New(serial) => {
                    format!("made token {:?}, serial {serial}", options.label)
                }
                Initialized::AlreadyThere(serial) => {
                    format!(
                        "token {:?} is there, serial {serial}: nothing done",
                        options.label
                    )
                }
            };
            writeln!(std::io::stdout(), "{line}").context("cannot write")
        }
    }
}

/// `RUST_LOG`, or what an operator wants to see. cryptoki reports every mechanism that it has no
/// name for as an error.
fn log_filter() -> EnvFilter {
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,cryptoki::mechanism=off"))
}
