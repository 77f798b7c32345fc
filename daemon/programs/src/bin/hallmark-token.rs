//! `hallmark-token`: the worker of one token, which `hallmarkd token` becomes. The only program
//! that loads a token's library and holds a PIN; it knows no database and no HTTP.

use clap::Parser;
use hallmark_base::notify::Systemd;
use hallmark_base::printable;
use hallmarkd::commands::arguments::WorkerArguments;
use hallmarkd::commands::program;
use hallmarkd::token::configuration::TokenFile;
use hallmarkd::token::worker::{self, WorkerOptions};
use std::process::ExitCode;
use std::sync::Arc;

/// The worker of one token; `hallmarkd token` becomes it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    worker: WorkerArguments,
}

fn main() -> ExitCode {
    program::main(run)
}

fn run() -> anyhow::Result<ExitCode> {
    let WorkerArguments {
        name,
        config,
        socket,
        supervised,
    } = printable::arguments::<Arguments>().worker;
    let file = TokenFile::read(&config)?;
    worker::run(WorkerOptions {
        configuration: file.token(&name)?,
        socket,
        usual_socket: file.socket(&name),
        state_directory: file.state_directory().to_owned(),
        supervised,
        service_manager: Systemd::here().map(|it| Arc::new(it) as _),
    })?;
    Ok(ExitCode::SUCCESS)
}
