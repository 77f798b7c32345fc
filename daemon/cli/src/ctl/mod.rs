//! Runs the command `hallmark`: sends requests to the daemon's admin socket, and shows the answers.
//!
//! The command decides nothing and stores nothing. Exit codes: 0 done, 1 refused or failed, 2
//! usage, 3 daemon unreachable; `hallmark status` has its own ([`status`]). `--json` prints one
//! object: the daemon's answer unchanged, or the failure ([`failure`]). Lists fit the terminal
//! ([`table`]).

mod approval;
mod audit;
mod audit_export;
mod authority;
mod backup;
mod batch;
mod block;
mod ceremony;
mod certificate;
mod client;
mod command;
mod console;
mod credential;
mod custodian;
mod device;
mod doctor;
mod enrollment;
mod failure;
mod issue;
mod output;
mod profile;
mod progress;
mod push;
mod render;
mod roll;
mod show;
mod state;
mod status;
mod table;
mod token;

use crate::setup;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use client::{ApiClient, StepsBody};
use command::{CaCertificateCommand, ClockCommand, Command};
use failure::Failure;
use hallmark_base::files;
use hallmark_base::printable;
use progress::Progress;
use serde_json::{Value, json};
use show::Show;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub use command::{Arguments, FIRST_REQUESTS, FirstRequest, Form, ON_THE_MACHINE};

/// How often `--follow` asks for what is new.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Longest input file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs the command line, and returns the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return wrong_arguments(&error),
    };
    state::follow_environment();
    let show = Show::new(arguments.json(), arguments.output == Some(Form::Wide));
    let outcome = run(&arguments, &show).and_then(|()| show.finish());
    let Err(failure) = outcome else {
        return ExitCode::from(show.exit_code.get().unwrap_or(0));
    };
    failed(&failure, show)
}

/// Prints a failure, and returns the exit code. Standard error may be closed; the code remains.
fn failed(failure: &Failure, show: Show) -> ExitCode {
    if matches!(failure, Failure::ReaderGone) {
        return ExitCode::from(failure.exit_code());
    }
    let line = format!("hallmark: {failure}");
    let _ = writeln!(printable::err(), "{}", printable::line(&line));
    if let Some(remedy) = failure.unsaid_remedy() {
        let _ = writeln!(printable::err(), "{}", printable::line(&remedy));
    }
    if show.json {
        let object = failure.to_json(show.answer.take());
        let _ = writeln!(printable::exact_out(), "{object:#}");
    }
    let has_own = show.exit_code.get().is_some();
    ExitCode::from(if has_own {
        status::NO_ANSWER
    } else {
        failure.exit_code()
    })
}

/// Prints what is wrong with the command line; or the help, which is no failure.
fn wrong_arguments(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        error.exit();
    }
    let text = error.render().to_string();
    let _ = printable::err().write_all(text.as_bytes());
    let arguments = std::env::args_os().take_while(|it| it != "--");
    let arguments: Vec<_> = arguments.collect();
    if is_json(&arguments) {
        let object = Failure::of_arguments(&text).to_json(None);
        let _ = writeln!(printable::exact_out(), "{object:#}");
    }
    ExitCode::from(Failure::USAGE)
}

/// Whether arguments that cannot be parsed ask for JSON.
fn is_json(arguments: &[OsString]) -> bool {
    let one = |it: &OsString| {
        ["--json", "-ojson", "-o=json", "--output=json"]
            .iter()
            .any(|json| it == json)
    };
    let two = |it: &[OsString]| (it[0] == "-o" || it[0] == "--output") && it[1] == "json";
    arguments.iter().any(one) || arguments.windows(2).any(two)
}

fn run(arguments: &Arguments, show: &Show) -> Result<(), Failure> {
    if let Command::Setup(command) = &arguments.command {
        let options = setup::Options {
            answers: command.answers.clone(),
            root: command.root.clone(),
            quiet: arguments.json(),
        };
        setup::run(&options)?;
        return if show.json {
            show.record(&json!({ "setup": "done" }))
        } else {
            Ok(())
        };
    }
    if let Command::Console(of) = &arguments.command {
        return console::run(&arguments.admin_socket, show, of.port);
    }
    if let Command::Custodian(command) = &arguments.command {
        return custodian::run(show, command);
    }
    let client = ApiClient::new(&arguments.admin_socket, arguments.approval)?;
    match &arguments.command {
        Command::Setup(_) | Command::Console(_) | Command::Custodian(_) => {
            unreachable!("it was run above")
        }
        Command::Caller => show.record(&client.get("/v1/caller")?),
        Command::Status(options) => status::run(&client, show, options),
        Command::Doctor(options) => doctor::run(&client, show, options),
        Command::Reload => reload(&client, show),
        Command::Ceremony(command) => ceremony::run(&client, show, command),
        Command::Authority(command) => authority::run(&client, show, command),
        Command::Issue(command) => issue::run(&client, show, command),
        Command::IssueBatch(command) => batch::run(&client, show, command),
        Command::Certificate(command) => certificate::run(&client, show, command),
        Command::Profile(command) => profile::run(&client, show, command),
        Command::Device(command) => device::run(&client, show, command),
        Command::Enrollment(command) => enrollment::run(&client, show, command),
        Command::CaCertificate(CaCertificateCommand::List) => show.table(
            &client.get("/v1/ca-certificates")?,
            &[
                "provisioning",
                "name",
                "state",
                "verified",
                "observed_at",
                "reason",
            ],
        ),
        Command::Block(command) => block::run(&client, show, command),
        Command::Approve(with) => approval::approve(&client, show, with),
        Command::Approval(command) => approval::run(&client, show, command),
        Command::Roll(command) => roll::run(&client, show, command),
        Command::Push(command) => push::run(&client, show, command),
        Command::Clock(ClockCommand::Accept) => {
            show.record(&client.post("/v1/clock/accept", &json!({}))?)
        }
        Command::Token(command) => token::run(&client, show, command),
        Command::Backup(command) => backup::run(&client, show, command),
        Command::Audit(command) => audit::run(&client, show, command),
    }
}

fn reload(client: &ApiClient, show: &Show) -> Result<(), Failure> {
    let reloaded = client.post("/v1/reload", &json!({}))?;
    if show.json {
        return show.record(&reloaded);
    }
    show.table(&reloaded["changes"], &["table", "name", "change"])?;
    for notice in reloaded["notices"].as_array().into_iter().flatten() {
        show.line(notice.as_str().unwrap_or_default())?;
    }
    Ok(())
}

/// Sends a request that reports progress, which goes to standard error; the result is returned.
fn steps(
    client: &ApiClient,
    what: &'static str,
    path: &str,
    body: StepsBody,
) -> Result<Value, Failure> {
    let progress = Progress::new(what);
    let mut outcome = None;
    client.stream(path, body, |line| {
        if line["progress"].is_string() {
            progress.show(&line);
        } else {
            outcome = Some(line);
        }
    })?;
    progress.end();
    let hung_up = "the daemon hung up; look at its log, and repeat the command";
    let outcome = outcome.ok_or_else(|| Failure::Unreachable(hung_up.into()))?;
    match outcome.get("problem") {
        Some(problem) => Err(Failure::of_problem(problem)),
        None => Ok(outcome),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    files::read_text(path, FILE_BYTES_MAX).map_err(|error| Failure::file(path, &error))
}

/// Reads text as it is, and DER or text in another encoding as base64. A private key is refused
/// here: it must not leave its file.
fn pem_or_base64(path: &Path, limit: u64, what: &str) -> Result<String, Failure> {
    let bytes = files::read(path, limit).map_err(|error| Failure::file(path, &error))?;
    if bytes
        .windows(certificate::PRIVATE_KEY.len())
        .any(|it| it == certificate::PRIVATE_KEY)
    {
        let message =
            format!("it holds a private key, and nothing was sent; name a file of {what}");
        let error = io::Error::new(io::ErrorKind::InvalidData, message);
        return Err(Failure::file(path, &error));
    }
    let is_text = |text: &String| {
        !text
            .chars()
            .any(|it| it.is_control() && !it.is_ascii_whitespace())
    };
    let text = String::from_utf8(bytes.clone()).ok().filter(is_text);
    Ok(text.unwrap_or_else(|| STANDARD.encode(bytes)))
}
