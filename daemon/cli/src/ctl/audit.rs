//! Runs `hallmark audit`: shows, verifies and exports the audit journal.

use super::client::ApiClient;
use super::command::AuditCommand;
use super::failure::Failure;
use super::render;
use super::show::Show;

pub(super) fn run(client: &ApiClient, show: &Show, command: &AuditCommand) -> Result<(), Failure> {
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
