//! Runs `hallmark audit`: shows, verifies and exports the audit journal.

use super::client::{ApiClient, segment};
use super::command::{AuditCommand, ShowAudit};
use super::failure::Failure;
use super::render;
use super::show::Show;
use serde_json::Value;
use std::thread;

const COLUMNS: [&str; 6] = ["sequence", "at", "actor", "action", "subject", "detail"];

pub(super) fn run(client: &ApiClient, show: &Show, command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Show(wanted) if wanted.follow => follow(client, show, wanted),
        AuditCommand::Show(wanted) => {
            let which = match (wanted.after, wanted.before) {
                (Some(after), _) => format!("after={after}&limit={}", wanted.limit),
                (None, Some(before)) => format!("last={}&before={before}", wanted.limit),
                (None, None) => format!("last={}", wanted.limit),
            };
            let entries = page(client, &which, wanted)?;
            if show.json {
                return show.record(&entries);
            }
            let mut rows = render::journal(&entries);
            if wanted.after.is_none()
                && let Some(rows) = rows.as_array_mut()
            {
                rows.reverse();
            }
            show.table(&rows, &COLUMNS)?;
            if let Some(oldest) = more(&rows, wanted).filter(|_| show.is_on_terminal()) {
                show.remark(&format!(
                    "there may be older ones: repeat the command with --before {oldest}"
                ))?;
            }
            Ok(())
        }
        AuditCommand::Verify => {
            let verdict = client.get("/v1/audit/verification")?;
            show.record(&verdict)?;
            match verdict["broken_at"].as_i64() {
                None => Ok(()),
                Some(sequence) => Err(Failure::Failed(format!(
                    "the journal is broken at entry {sequence}; compare it with a copy, and treat \
                     the machine as compromised"
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

/// Returns the oldest shown entry if the page of the newest ones is full.
fn more(rows: &Value, wanted: &ShowAudit) -> Option<i64> {
    let rows = rows.as_array().filter(|_| wanted.after.is_none())?;
    let is_full = rows.len() >= usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    rows.last()
        .filter(|_| is_full)
        .map(sequence)
        .filter(|it| *it > 1)
}

/// Returns a page of the entries that `wanted` names.
fn page(client: &ApiClient, which: &str, wanted: &ShowAudit) -> Result<Value, Failure> {
    let criteria = [
        ("device", &wanted.device),
        ("authority", &wanted.authority),
        ("caller", &wanted.caller),
        ("since", &wanted.since),
    ];
    let named = criteria
        .iter()
        .filter_map(|(name, value)| Some(format!("&{name}={}", segment(value.as_ref()?))));
    client.get(&format!("/v1/audit?{which}{}", named.collect::<String>()))
}

/// Prints the newest entries and then each new one, oldest first, one line each.
fn follow(client: &ApiClient, show: &Show, wanted: &ShowAudit) -> Result<(), Failure> {
    let mut which = format!("last={}", wanted.limit);
    loop {
        // Read before the page: what comes after it is asked for the next time.
        let end = end_of_journal(client)?;
        let entries = page(client, &which, wanted)?;
        let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
        for entry in entries {
            if show.json {
                show.exact_line(entry)?;
            } else {
                show.line(&render::journal_line(entry))?;
            }
        }
        let last = entries.last().map_or(0, sequence);
        let is_full = entries.len() >= usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        // The daemon does not read again what no entry was found in.
        let seen = if is_full { last } else { last.max(end) };
        which = format!("after={seen}&limit={}", wanted.limit);
        if !is_full {
            thread::sleep(super::FOLLOW_EVERY);
        }
    }
}

fn end_of_journal(client: &ApiClient) -> Result<i64, Failure> {
    let newest = client.get("/v1/audit?last=1")?;
    Ok(newest
        .as_array()
        .and_then(|it| it.last())
        .map_or(0, sequence))
}

fn sequence(entry: &Value) -> i64 {
    entry["sequence"].as_i64().unwrap_or(0)
}
