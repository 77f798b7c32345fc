//! `hallmarkd`: the daemon (`serve`), its token workers (`token`), the configuration check, and the
//! commands that put credential keys into a token.

use anyhow::Context;
use clap::{Parser, Subcommand};
use hallmarkd::check;
use hallmarkd::config::Configuration;
use hallmarkd::credentials::assertion_key::{NewKey, make_key};
use hallmarkd::credentials::import::{Import, import_secret};
use hallmarkd::service;
use hallmarkd::token::configuration::TokenFile;
use hallmarkd::token::initialize::{self, InitializeOptions, Initialized};
use hallmarkd::token::probe;
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
    /// Put the key of a connection string into a token, for credentials of kind "token-hmac".
    ImportSecret {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The token's name in the configuration.
        #[arg(long)]
        token: String,
        /// What the key shall be called: the credential's `key`.
        #[arg(long)]
        label: String,
        /// The file with the connection string.
        #[arg(long)]
        file: PathBuf,
    },
    /// Make a key in a token, for credentials of kind "entra-client-assertion".
    MakeCredentialKey {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The token's name in the configuration.
        #[arg(long)]
        token: String,
        /// What the key shall be called: the credential's `key`.
        #[arg(long)]
        label: String,
        /// Where to write the certificate that Entra ID shall have.
        #[arg(long)]
        out: PathBuf,
        /// How long the certificate is valid.
        #[arg(long, default_value_t = 365)]
        days: u16,
    },
    /// Say what a PKCS#11 module shows without login, as JSON; the daemon asks it for `token list`.
    #[command(hide = true)]
    ProbeModule {
        /// The module's family (pkcs11-config/); its variables are taken from the environment.
        #[arg(long)]
        fragment: Option<String>,
        /// The module, if it has no family.
        #[arg(long)]
        module: Option<PathBuf>,
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
        Command::ImportSecret {
            config,
            token,
            label: key,
            file,
        } => {
            let import = Import { token, key, file };
            import_secret(&read(&config)?, &import, &mut std::io::stdout())?;
        }
        Command::MakeCredentialKey {
            config,
            token,
            label: key,
            out,
            days,
        } => {
            let new = NewKey {
                token,
                key,
                out,
                days,
            };
            make_key(&read(&config)?, &new, &mut std::io::stdout())?;
        }
        Command::ProbeModule { fragment, module } => {
            let family = probe::family(fragment.as_deref(), module.as_deref())?;
            probe::answer(&family, &mut std::io::stdout())?;
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
/// name for as an error, and tss-esapi every response code that we report ourselves.
fn log_filter() -> EnvFilter {
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,cryptoki::mechanism=off,tss_esapi=off"))
}
