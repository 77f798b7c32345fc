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
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;

pub(super) fn run(client: &ApiClient, show: &Show, command: &BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::Create { to } => create(client, show, to.as_deref()),
        BackupCommand::Verify { file } => {
            let answer = ask(&["verify".as_ref(), "--".as_ref(), file.as_ref()])?;
            show.record(&answer["done"])
        }
        BackupCommand::Restore { file, config } => {
            let answer = ask(&[
                "restore".as_ref(),
                "--config".as_ref(),
                config.as_ref(),
                "--".as_ref(),
                file.as_ref(),
            ])?;
            if show.json {
                show.record(&answer["done"])
            } else {
                show.text(answer["text"].as_str().unwrap_or_default())
            }
        }
    }
}

fn create(client: &ApiClient, show: &Show, to: Option<&Path>) -> Result<(), Failure> {
    let trial = to.map(|folder| folder.join("hallmark.db.new"));
    Output::prepare(trial.as_deref())?;
    let body = StepsBody::Json(json!({}));
    let mut made = steps(client, "backup", "/v1/backups", body)?;
    if let (Some(folder), Some(file)) = (to, made["file"].as_str()) {
        let mut answer = ask(&[
            "copy".as_ref(),
            "--".as_ref(),
            file.as_ref(),
            folder.as_ref(),
        ])?;
        made["copied"] = answer["done"].take();
    }
    show.record(&made)
}

fn ask(arguments: &[&OsStr]) -> Result<Value, Failure> {
    // Removed when the answer is there.
    let progress = Progress::new("backup");
    progress.busy("the backup is read whole");
    let arguments = [&["backup".as_ref()], arguments].concat();
    follow_hallmarkd(&arguments, |line| progress.show(line))
        .map_err(|error| Failure::Failed(format!("{error:#}")))
}
