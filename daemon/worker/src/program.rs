//! Runs `hallmark-token`, which `hallmarkd` becomes for commands that need the library of a token.
//!
//! It is the only program that loads such a library or holds a PIN. It knows no database and no
//! HTTP.

use crate::initialize::{self, Initialized};
use crate::listing;
use crate::process::{self, HandedOver, WorkerOptions};
use anyhow::Context;
use hallmark_base::notify::Systemd;
use hallmark_base::printable;
use hallmark_protocol::arguments::{
    InitializeArguments, TokenArguments, TokenCommand, WorkerArguments,
};
use hallmark_protocol::configuration::TokenConfigurationError;
use hallmark_protocol::token_file::{TokenFile, TokenFileError};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs the program.
pub fn main() -> ExitCode {
    hallmark_base::program::main(run, is_configuration_error)
}

/// Returns true for an error that a restart cannot correct.
fn is_configuration_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<TokenConfigurationError>()
            || cause.is::<TokenFileError>()
            || cause.is::<HandedOver>()
    })
}

fn run() -> anyhow::Result<ExitCode> {
    match printable::arguments::<TokenArguments>().command {
        TokenCommand::Token(arguments) => run_worker(arguments)?,
        TokenCommand::ProbeModule { fragment, module } => {
            initialize::leave_root()?;
            let family = listing::family(fragment.as_deref(), module.as_deref())?;
            listing::answer(&family, &mut printable::exact_out())?;
        }
        TokenCommand::InitToken(arguments) => initialize_token(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_worker(arguments: WorkerArguments) -> anyhow::Result<()> {
    let WorkerArguments {
        name,
        config,
        socket,
        supervised,
    } = arguments;
    let file = TokenFile::read(&config)?;
    process::run(WorkerOptions {
        configuration: file.token(&name)?,
        rules: file.rules(&name)?,
        socket,
        usual_socket: file.socket(&name),
        state_directory: file.state_directory().to_owned(),
        supervised,
        file: config,
        service_manager: Systemd::here().map(|it| Arc::new(it) as _),
    })
}

fn initialize_token(arguments: &InitializeArguments) -> anyhow::Result<()> {
    let label = &arguments.label;
    let line = match initialize::initialize(arguments)? {
        Initialized::New(serial) => format!("made token {label:?}, serial {serial}"),
        Initialized::AlreadyThere(serial) => {
            format!("token {label:?} is there, serial {serial}: nothing done")
        }
    };
    writeln!(printable::out(), "{}", printable::line(&line)).context("cannot write")
}
