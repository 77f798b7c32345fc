//! Runs `hallmarkd`: the daemon (`serve`), the configuration check, and the commands that put
//! credential keys into a token. Commands that need the library of a token are those of
//! `hallmark-token`, which this program becomes.

use hallmark_base::printable;
use hallmarkd::commands::arguments::{Arguments, Command};
use hallmarkd::commands::credential_key::{NewKey, make_key};
use hallmarkd::commands::import_secret::{Import, import_secret};
use hallmarkd::commands::{check, check_documents, program, restore};
use hallmarkd::config::Configuration;
use hallmarkd::service;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

/// The worker's program, in the folder of this program.
const WORKER: &str = "hallmark-token";

fn main() -> ExitCode {
    program::main(run)
}

fn run() -> anyhow::Result<ExitCode> {
    match printable::arguments::<Arguments>().command {
        Command::Serve { config, workers } => service::serve(read(&config)?, workers)?,
        Command::Check { config } => return check_configuration(&config),
        Command::Token(_) => return Err(become_worker()),
        Command::ImportSecret {
            config,
            token,
            label: key,
            file,
        } => {
            let import = Import { token, key, file };
            import_secret(&read(&config)?, &import, &mut printable::out())?;
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
            make_key(&read(&config)?, &new, &mut printable::out())?;
        }
        Command::Backup(command) => restore::answer(&command, &mut printable::exact_out())?,
        Command::CheckDocuments => {
            check_documents::answer(std::io::stdin().lock(), &mut printable::exact_out())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by the worker's program, with the same arguments. Only that program loads
/// the libraries of a token. Returns only if it cannot be started.
fn become_worker() -> anyhow::Error {
    let worker = match std::env::current_exe() {
        Ok(own) => own.with_file_name(WORKER),
        Err(error) => return anyhow::Error::from(error).context("cannot find this program"),
    };
    let arguments = std::env::args_os().skip(1);
    let error = std::process::Command::new(&worker).args(arguments).exec();
    let worker = worker.display();
    anyhow::Error::from(error).context(format!(
        "cannot start {worker}: install it beside hallmarkd, from the same package"
    ))
}

fn read(config: &Path) -> anyhow::Result<Configuration> {
    Ok(service::read(config)?)
}

fn check_configuration(config: &Path) -> anyhow::Result<ExitCode> {
    let mut out = printable::out();
    let configuration = match service::read(config) {
        Ok(configuration) => configuration,
        Err(error) => {
            check::report(&[check::refused(&error)], &mut out)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let good = check::report(&check::check(&configuration)?, &mut out)?;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
