//! Runs `hallmark backup`.
//!
//! The daemon makes a backup. The `hallmarkd` beside this program reads and restores one, because
//! that needs the database and no daemon may run.

use super::client::{ApiClient, StepsBody};
use super::command::BackupCommand;
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use super::show::Show;
use super::steps;
use crate::setup::machine::follow_hallmarkd;
use dialoguer::Confirm;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;

pub(super) fn run(client: &ApiClient, show: &Show, command: &BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::Create { to } => create(client, show, to.as_deref()),
        BackupCommand::Verify { file, identity } => {
            let answer = ask(&["verify".as_ref()], identity.as_deref(), file)?;
            show.record(&answer["done"])
        }
        BackupCommand::Restore {
            file,
            config,
            identity,
            preview,
            yes,
        } => {
            let ask_for = |command: &str| {
                let command = [command.as_ref(), "--config".as_ref(), config.as_ref()];
                ask(&command, identity.as_deref(), file)
            };
            if !yes {
                say(show, &ask_for("preview")?)?;
                if *preview {
                    return Ok(());
                }
                confirm(show)?;
            }
            say(show, &ask_for("restore")?)
        }
    }
}

fn say(show: &Show, answer: &Value) -> Result<(), Failure> {
    if show.json {
        show.record(&answer["done"])
    } else {
        show.text(answer["text"].as_str().unwrap_or_default())
    }
}

/// Asks on the terminal. Without one nothing is restored.
fn confirm(show: &Show) -> Result<(), Failure> {
    let remedy = "nothing was changed; repeat it with `--yes`, or with `--preview` to look only";
    if !show.is_on_terminal() || show.json {
        return Err(Failure::Usage(format!("no terminal to ask at: {remedy}")));
    }
    let asked = Confirm::new().with_prompt("Replace the database?");
    match asked.default(false).interact() {
        Ok(true) => Ok(()),
        _ => Err(Failure::Failed(remedy.into())),
    }
}

fn create(client: &ApiClient, show: &Show, to: Option<&Path>) -> Result<(), Failure> {
    let trial = to.map(|folder| folder.join("hallmark.db.new"));
    Output::prepare(trial.as_deref())?;
    let body = StepsBody::Json(json!({}));
    let mut made = steps(client, "backup", "/v1/backups", body)?;
    if let (Some(folder), Some(file)) = (to, made["file"].as_str()) {
        let arguments = [
            "copy".as_ref(),
            "--".as_ref(),
            file.as_ref(),
            folder.as_ref(),
        ];
        let mut answer = ask_program(&arguments)?;
        made["copied"] = answer["done"].take();
    }
    show.record(&made)
}

fn ask(command: &[&OsStr], identity: Option<&Path>, file: &Path) -> Result<Value, Failure> {
    let mut arguments = command.to_vec();
    if let Some(identity) = identity {
        arguments.extend(["--identity".as_ref(), identity.as_os_str()]);
    }
    arguments.extend(["--".as_ref(), file.as_os_str()]);
    ask_program(&arguments)
}

fn ask_program(arguments: &[&OsStr]) -> Result<Value, Failure> {
    // Removed when the answer is there.
    let progress = Progress::new("backup");
    progress.busy("the backup is read whole");
    let arguments = [&["backup".as_ref()], arguments].concat();
    follow_hallmarkd(&arguments, |line| progress.show(line))
        .map_err(|error| Failure::Failed(format!("{error:#}")))
}
