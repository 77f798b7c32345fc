//! `hallmarkd`: the daemon (`serve`), its token workers (`token`) and the configuration check.

use anyhow::Context;
use clap::{Parser, Subcommand};
use hallmarkd::check;
use hallmarkd::config::Configuration;
use hallmarkd::service;
use hallmarkd::token::configuration::TokenFile;
use hallmarkd::token::initialize::{self, InitializeOptions, Initialized};
use hallmarkd::token::worker::{self, WorkerOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon.
    Serve {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Say what is wrong with a configuration, its tokens and its chains.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
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

fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(log_filter())
        .init();
    // Crash points for the fault tests; nothing without the feature `failpoints`.
    let _crash_points = fail::FailScenario::setup();
    match Arguments::parse().command {
        Command::Serve { config } => service::serve(read(&config)?)?,
        Command::Check { config } => return check_configuration(&config),
        Command::Token {
            name,
            config,
            socket,
            supervised,
        } => {
            let file = TokenFile::read(&config)?;
            worker::run(WorkerOptions {
                configuration: file.token(&name)?,
                socket: socket.unwrap_or_else(|| file.socket(&name)),
                state_directory: file.state_dir,
                supervised,
            })?;
        }
        Command::InitToken {
            module,
            label,
            pin_file,
            so_pin_file,
        } => init_token(&InitializeOptions {
            module,
            label,
            pin_file,
            so_pin_file,
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read(config: &Path) -> anyhow::Result<Configuration> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Ok(Configuration::read(config, credentials.as_deref())?)
}

fn check_configuration(config: &Path) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let configuration = match read(config) {
        Ok(configuration) => configuration,
        Err(error) => {
            writeln!(out, "WRONG configuration: {error:#}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    writeln!(out, "good  configuration: {}", config.display())?;
    let good = check::report(&check::check(&configuration)?, &mut out)?;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn init_token(options: &InitializeOptions) -> anyhow::Result<()> {
    let line = match initialize::initialize(options)? {
        Initialized::New(serial) => format!("made token {:?}, serial {serial}", options.label),
        Initialized::AlreadyThere(serial) => {
            format!(
                "token {:?} is there, serial {serial}: nothing done",
                options.label
            )
        }
    };
    writeln!(std::io::stdout(), "{line}").context("cannot write")
}

/// `RUST_LOG`, or what an operator wants to see. cryptoki reports every mechanism that it has no
/// name for as an error.
fn log_filter() -> EnvFilter {
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,cryptoki::mechanism=off"))
}
