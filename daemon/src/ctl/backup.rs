//! `hallmark backup`.

use super::Show;
use super::client::{Client, Failure};
use super::command::BackupCommand;
use crate::commands::restore;
use serde_json::json;
use std::path::Path;

pub(super) fn run(client: &Client, show: &Show, command: &BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::Create { to } => create(client, show, to.as_deref()),
        BackupCommand::Verify { file } => {
            let manifest = restore::verify(file).map_err(|error| refused(&error.into()))?;
            show.record(&json!(manifest))
        }
        BackupCommand::Restore { file, config } => {
            let restored = restore::restore(file, config).map_err(|error| refused(&error))?;
            match show.json {
                true => show.record(&json!(restored)),
                false => show.text(&restored.to_text()),
            }
        }
    }
}

fn create(client: &Client, show: &Show, to: Option<&Path>) -> Result<(), Failure> {
    let mut made = client.post("/v1/backups", &json!({}))?;
    if let (Some(folder), Some(file)) = (to, made["file"].as_str()) {
        let copied =
            restore::copy_backup(Path::new(file), folder).map_err(|error| refused(&error))?;
        made["copied"] = json!(copied);
    }
    show.record(&made)
}

fn refused(error: &anyhow::Error) -> Failure {
    Failure::Refused(format!("{error:#}"))
}
