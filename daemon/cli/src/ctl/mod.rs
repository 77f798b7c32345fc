//! Runs the command `hallmark`: sends requests to the daemon's admin socket, and shows the answers.
//!
//! The command decides nothing and stores nothing. Exit codes: 0 done, 1 refused or failed, 2
//! usage, 3 daemon unreachable. `--json` prints one object: the daemon's answer unchanged, or the
//! failure ([`failure`]).

mod backup;
mod batch;
mod block;
mod certificate;
mod client;
mod command;
mod failure;
mod output;
mod render;
mod roll;
mod token;

use crate::setup;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use client::{ApiClient, StepsBody};
use command::{
    AuditCommand, AuthorityCommand, CaCertificateCommand, CeremonyCommand, ClockCommand, Command,
    DeviceCommand, EnrollmentCommand, PushCommand,
};
use failure::Failure;
use hallmark_base::files;
use hallmark_base::printable;
use output::Output;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use command::Arguments;

/// Longest input file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs the command line, and returns the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return wrong_arguments(&error),
    };
    let show = Show::new(arguments.json);
    let outcome = run(&arguments, &show).and_then(|()| show.finish());
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    failed(&failure, show)
}

/// Prints a failure, and returns the exit code. Standard error may be closed; the code remains.
fn failed(failure: &Failure, show: Show) -> ExitCode {
    let line = format!("hallmark: {failure}");
    let _ = writeln!(printable::err(), "{}", printable::line(&line));
    if show.json {
        let object = failure.to_json(show.answer.take());
        let _ = writeln!(printable::exact_out(), "{object:#}");
    }
    ExitCode::from(failure.exit_code())
}

/// Prints what is wrong with the command line; or the help, which is no failure.
fn wrong_arguments(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        error.exit();
    }
    let text = error.render().to_string();
    let _ = printable::err().write_all(text.as_bytes());
    let mut arguments = std::env::args_os().take_while(|it| it != "--");
    if arguments.any(|it| it == "--json") {
        let object = Failure::of_arguments(&text).to_json(None);
        let _ = writeln!(printable::exact_out(), "{object:#}");
    }
    ExitCode::from(Failure::USAGE)
}

fn run(arguments: &Arguments, show: &Show) -> Result<(), Failure> {
    if let Command::Setup(command) = &arguments.command {
        let options = setup::Options {
            answers: command.answers.clone(),
            root: command.root.clone(),
            quiet: arguments.json,
        };
        setup::run(&options)?;
        return if show.json {
            show.record(&json!({ "setup": "done" }))
        } else {
            Ok(())
        };
    }
    let client = ApiClient::new(&arguments.admin_socket)?;
    match &arguments.command {
        Command::Setup(_) => unreachable!("it needs no daemon, and was run above"),
        Command::Status => show.record(&client.get("/v1/status")?),
        Command::Reload => reload(&client, show),
        Command::Ceremony(CeremonyCommand::Run { file, transcript }) => {
            run_ceremony(&client, show, file, transcript.as_deref())
        }
        Command::Authority(command) => authority(&client, show, command),
        Command::Issue(issue) => self::issue(&client, show, issue),
        Command::IssueBatch(command) => batch::run(&client, show, command),
        Command::Certificate(command) => certificate::run(&client, show, command),
        Command::Device(DeviceCommand::List) => show.table(
            &client.pages("/v1/devices", "registration_id")?,
            &["registration_id", "profile", "serial", "not_after"],
        ),
        Command::Device(DeviceCommand::Show { id }) => {
            show.record(&client.get(&format!("/v1/devices/{}", client::segment(id)))?)
        }
        Command::Device(DeviceCommand::Block(of)) => {
            block::start(&client, show, "device", &of.id, None, &of.cause.reason)
        }
        Command::Device(DeviceCommand::Unblock(of)) => {
            block::lift(&client, show, "device", &of.id, None, &of.cause.reason)
        }
        Command::Enrollment(command) => enrollment(&client, show, command),
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
        Command::Roll(command) => roll::run(&client, show, command),
        Command::Push(PushCommand::List) => show.table(
            &client.get("/v1/push")?,
            &[
                "provisioning",
                "name",
                "cause",
                "since",
                "due_at",
                "attempts",
                "parked",
                "last_error",
            ],
        ),
        Command::Push(PushCommand::Retry { name }) => {
            show.record(&client.post("/v1/push/retry", &json!({ "name": name }))?)
        }
        Command::Clock(ClockCommand::Accept) => {
            show.record(&client.post("/v1/clock/accept", &json!({}))?)
        }
        Command::Token(command) => token::run(&client, show, command),
        Command::Backup(command) => backup::run(&client, show, command),
        Command::Audit(command) => audit(&client, show, command),
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

fn authority(client: &ApiClient, show: &Show, command: &AuthorityCommand) -> Result<(), Failure> {
    match command {
        AuthorityCommand::List => show.table(
            &client.get("/v1/authorities")?,
            &[
                "name",
                "generation",
                "state",
                "subject",
                "not_after",
                "token",
                "key_type",
                "crl_number",
                "crl_next_update",
            ],
        ),
        AuthorityCommand::Block(of) => {
            let name = &of.name;
            let number = Some(of.generation);
            block::start(client, show, "generation", name, number, &of.cause.reason)
        }
        AuthorityCommand::Unblock(of) => {
            let name = &of.name;
            let number = Some(of.generation);
            block::lift(client, show, "generation", name, number, &of.cause.reason)
        }
        AuthorityCommand::Csr { name, out } => {
            let output = Output::prepare(out.as_deref())?;
            let path = format!("/v1/authorities/{}/request", client::segment(name));
            let answer = client.post(&path, &json!({}))?;
            let csr = answer["csr"].as_str().unwrap_or_default();
            if out.is_none() && !show.json {
                return show.text(csr);
            }
            if show.json {
                show.record(&answer)?;
            }
            output.write(csr)
        }
        AuthorityCommand::Install { name, file } => {
            let path = format!("/v1/authorities/{}/certificate", client::segment(name));
            let certificates = certificate::read(file)?;
            show.record(&client.post(&path, &json!({ "certificates": certificates }))?)
        }
        AuthorityCommand::Import(files) => import(client, show, files),
        AuthorityCommand::Show { name, pem: true } => {
            let generations = client.get(&format!("/v1/authorities/{}", client::segment(name)))?;
            for generation in generations.as_array().into_iter().flatten() {
                show.text(generation["certificate"].as_str().unwrap_or_default())?;
            }
            Ok(())
        }
        AuthorityCommand::Show { name, pem: false } => {
            show.record(&client.get(&format!("/v1/authorities/{}", client::segment(name)))?)
        }
    }
}

/// The daemon reads the files; a relative path is one of this program's folder.
fn import(client: &ApiClient, show: &Show, files: &command::Import) -> Result<(), Failure> {
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_deref();
        path.map(|it| std::path::absolute(it).map_err(|error| Failure::file(it, &error)))
            .transpose()
    };
    let body = json!({
        "index": absolute(&files.index)?,
        "certificates": absolute(&files.certificates)?,
        "crl": absolute(&files.crl)?,
        "profile": files.profile,
    });
    let path = format!("/v1/authorities/{}/imports", client::segment(&files.name));
    let outcome = steps(client, &path, StepsBody::Json(body))?;
    show.record(&outcome["report"])
}

fn issue(client: &ApiClient, show: &Show, issue: &command::Issue) -> Result<(), Failure> {
    let csr = pem_or_base64(&issue.csr, FILE_BYTES_MAX, "the request")?;
    // Nothing is issued that could not be written afterwards.
    let out = Output::prepare(issue.out.as_deref())?;
    let body = json!({
        "profile": issue.profile, "registration_id": issue.id, "csr": csr, "move": issue.moves,
    });
    let answer = client.post("/v1/certificates", &body)?;
    let written = out.write_chain(&answer);
    show.record(&answer)?;
    written
}

fn enrollment(client: &ApiClient, show: &Show, command: &EnrollmentCommand) -> Result<(), Failure> {
    match command {
        EnrollmentCommand::List { unknown: true } => show.table(
            &client.pages("/v1/enrollments?unknown=true", "id")?,
            &[
                "provisioning",
                "kind",
                "name",
                "status",
                "primary",
                "secondary",
                "observed_at",
            ],
        ),
        EnrollmentCommand::List { unknown: false } => show.table(
            &client.pages("/v1/enrollments", "id")?,
            &[
                "provisioning",
                "kind",
                "name",
                "authority",
                "status",
                "state",
                "primary",
                "secondary",
            ],
        ),
        EnrollmentCommand::Show { name } => {
            show.record(&client.get(&format!("/v1/enrollments/{}", client::segment(name)))?)
        }
        EnrollmentCommand::Add(new) => {
            let (kind, name) = new.which.kind_and_name();
            let body = json!({
                "kind": kind, "name": name, "authority": new.authority,
                "provisioning": new.service.provisioning,
            });
            show.record(&client.post("/v1/enrollments", &body)?)
        }
        EnrollmentCommand::Adopt {
            which,
            provisioning,
        } => {
            let (kind, name) = which.kind_and_name();
            let path = format!("/v1/enrollments/{kind}/{}/adoption", client::segment(name));
            show.record(&client.post(&path, &json!({ "provisioning": provisioning }))?)
        }
        EnrollmentCommand::Block(of) => {
            block::start(client, show, "group", &of.group, None, &of.cause.reason)
        }
        EnrollmentCommand::Unblock(of) => {
            block::lift(client, show, "group", &of.group, None, &of.cause.reason)
        }
        EnrollmentCommand::Remove {
            which,
            service,
            r#override,
        } => {
            let (kind, name) = which.kind_and_name();
            let given = [
                ("provisioning", &service.provisioning),
                ("override", r#override),
            ];
            let query: Vec<String> = given
                .into_iter()
                .filter_map(|(name, value)| {
                    Some(format!("{name}={}", client::segment(value.as_ref()?)))
                })
                .collect();
            client.delete(&format!(
                "/v1/enrollments/{kind}/{}?{}",
                client::segment(name),
                query.join("&")
            ))?;
            let mut answer = json!({ "removing": name });
            if kind == "group" {
                answer["stay"] =
                    json!(beside_group(client, name, service.provisioning.as_deref())?);
            }
            show.record(&answer)
        }
    }
}

/// Returns the registration ids of the individual enrollments that excluded a device from a group.
/// They stay when the group is removed, and admit their devices by new leaves.
fn beside_group(
    client: &ApiClient,
    group: &str,
    provisioning: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let all = client.pages("/v1/enrollments", "id")?;
    let is_beside = |it: &&Value| {
        let of = it["overlay_of"].as_str();
        it["kind"] == "individual"
            && it["state"] != "being removed"
            && of.is_some_and(|of| of.eq_ignore_ascii_case(group))
            && provisioning.is_none_or(|service| it["provisioning"] == service)
    };
    let beside = all.as_array().into_iter().flatten().filter(is_beside);
    let names = beside.filter_map(|it| it["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

fn audit(client: &ApiClient, show: &Show, command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Show {
            after,
            before,
            limit,
        } => {
            let which = match (after, before) {
                (Some(after), _) => format!("after={after}&limit={limit}"),
                (None, Some(before)) => format!("last={limit}&before={before}"),
                (None, None) => format!("last={limit}"),
            };
            let entries = client.get(&format!("/v1/audit?{which}"))?;
            if show.json {
                return show.record(&entries);
            }
            let rows = render::journal(&entries);
            let columns = ["sequence", "at", "actor", "action", "subject", "detail"];
            show.table(&rows, &columns)
        }
        AuditCommand::Verify => {
            let verdict = client.get("/v1/audit/verification")?;
            show.record(&verdict)?;
            match verdict["broken_at"].as_i64() {
                None => Ok(()),
                Some(sequence) => Err(Failure::Failed(format!(
                    "the journal is broken at entry {sequence}"
                ))),
            }
        }
        AuditCommand::Export => {
            let mut after = 0;
            loop {
                let page = client.get(&format!("/v1/audit?after={after}"))?;
                let entries = page.as_array().map(Vec::as_slice).unwrap_or_default();
                let Some(last) = entries.last() else {
                    return Ok(());
                };
                after = last["sequence"].as_i64().unwrap_or(i64::MAX);
                for entry in entries {
                    show.exact_line(entry)?;
                }
            }
        }
    }
}

fn run_ceremony(
    client: &ApiClient,
    show: &Show,
    file: &Path,
    folder: Option<&Path>,
) -> Result<(), Failure> {
    let ceremony = read(file)?;
    if let Some(folder) = folder {
        files::make_folder(folder, 0o755).map_err(|error| Failure::file(folder, &error))?;
    }
    let transcript = |name| folder.map(|folder| folder.join(name));
    let [as_text, as_json] = ["transcript.txt", "transcript.json"].map(transcript);
    let as_text = Output::prepare(as_text.as_deref())?;
    let as_json = Output::prepare(as_json.as_deref())?;
    let outcome = steps(client, "/v1/ceremonies", StepsBody::Text(ceremony))?;
    let text = outcome["text"].as_str().unwrap_or_default();
    if show.json {
        show.record(&outcome["transcript"])?;
    } else {
        show.text(text)?;
    }
    as_text.write(text)?;
    as_json.write(&format!("{:#}\n", outcome["transcript"]))
}

/// Sends a request that reports progress. The steps go to standard error; the result is returned.
fn steps(client: &ApiClient, path: &str, body: StepsBody) -> Result<Value, Failure> {
    let mut outcome = None;
    client.stream(path, body, |line| {
        if let Some(step) = line["progress"].as_str() {
            // Progress must not become part of the answer.
            let _ = writeln!(printable::err(), "{}", printable::line(step));
        } else {
            outcome = Some(line);
        }
    })?;
    let outcome = outcome.ok_or_else(|| Failure::Unreachable("the daemon hung up".into()))?;
    match outcome.get("problem") {
        Some(problem) => Err(Failure::of_problem(problem)),
        None => Ok(outcome),
    }
}

/// The format of answers.
struct Show {
    json: bool,
    /// The answer of a command with `--json`, until the command has succeeded: a failure prints one
    /// object, which includes it.
    answer: RefCell<Option<Value>>,
}

impl Show {
    fn new(json: bool) -> Self {
        let answer = RefCell::default();
        Self { json, answer }
    }

    /// Prints the answer that `--json` has kept back.
    fn finish(&self) -> Result<(), Failure> {
        let answer = self.answer.take();
        answer.map_or(Ok(()), |value| {
            written(writeln!(printable::exact_out(), "{value:#}"))
        })
    }

    fn record(&self, value: &Value) -> Result<(), Failure> {
        if self.json {
            self.exact(value)
        } else {
            self.text(&render::record(value))
        }
    }

    fn table(&self, rows: &Value, columns: &[&str]) -> Result<(), Failure> {
        if self.json {
            self.exact(rows)
        } else {
            self.text(&render::table(rows, columns))
        }
    }

    /// Prints one line of text.
    fn line(&self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{}\n", printable::line(text)))
    }

    /// Prints lines of text, such as PEM or a transcript.
    fn text(&self, text: &str) -> Result<(), Failure> {
        written(printable::out().write_all(text.as_bytes()))
    }

    /// Keeps an answer back until the command ends. Prints the one before it, if there is one.
    fn exact(&self, value: &Value) -> Result<(), Failure> {
        let earlier = self.answer.replace(Some(value.clone()));
        earlier.map_or(Ok(()), |earlier| {
            written(writeln!(printable::exact_out(), "{earlier:#}"))
        })
    }

    /// Prints JSON unchanged on one line.
    fn exact_line(&self, value: &Value) -> Result<(), Failure> {
        written(writeln!(printable::exact_out(), "{value}"))
    }
}

fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::Failed(format!("standard output: {error}")))
}

/// Shows the answer of each place, and what follows from places that are not done.
fn receipt(show: &Show, receipt: &Value) -> Result<(), Failure> {
    let places = &receipt["places"];
    show.table(places, &["place", "state", "code", "answer"])?;
    let count = |state: &str| {
        let places = places.as_array().into_iter().flatten();
        places.filter(|it| it["state"] == state).count()
    };
    let pending = count("pending");
    if pending > 0 {
        show.line(&format!(
            "{pending} pending: the daemon goes on by itself; `hallmark push list` shows the \
             changes that wait"
        ))?;
    }
    let open = count("open");
    if open > 0 {
        show.line(&format!(
            "{open} open: the daemon does not go on there; do what the answer says"
        ))?;
    }
    Ok(())
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
