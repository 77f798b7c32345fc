//! Runs `hallmark audit`: shows, verifies and exports the audit journal.

use super::audit_export;
use super::client::{ApiClient, segment};
use super::command::{AuditCommand, ShowAudit, VerifyAudit};
use super::failure::Failure;
use super::render;
use super::show::Show;
use hallmark_base::files;
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;
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
        AuditCommand::Verify(of) => verify(client, show, of),
        AuditCommand::Export { file } => export(client, show, file.as_deref()),
        AuditCommand::Key => {
            let keys = client.get("/v1/audit/keys")?;
            if show.json {
                return show.record(&keys);
            }
            for key in keys.as_array().into_iter().flatten() {
                for line in key["pem"].as_str().unwrap_or_default().lines() {
                    show.line(line)?;
                }
            }
            Ok(())
        }
        AuditCommand::Accept { reason } => {
            let body = json!({ "reason": reason });
            show.record(&client.post("/v1/audit/accept", &body)?)
        }
    }
}

fn verify(client: &ApiClient, show: &Show, of: &VerifyAudit) -> Result<(), Failure> {
    let verdict = match (&of.export, &of.key) {
        (Some(export), Some(key)) => audit_export::verify(export, key, of.expect.as_deref())?,
        _ => client.get("/v1/audit/verification")?,
    };
    show.record(&verdict)?;
    let Some(finding) = verdict["finding"].as_object() else {
        return Ok(());
    };
    let text = finding.get("text").and_then(Value::as_str);
    Err(Failure::Failed(format!(
        "the journal is broken at entry {}: {}; compare it with a copy, and treat the machine as \
         compromised",
        verdict["broken_at"],
        text.unwrap_or_default()
    )))
}

/// Prints or writes every entry, then every checkpoint.
fn export(client: &ApiClient, show: &Show, file: Option<&Path>) -> Result<(), Failure> {
    let mut lines = match file {
        None => None,
        Some(path) => {
            let made = files::create_new(path, 0o600);
            Some((
                path,
                BufWriter::new(made.map_err(|it| Failure::file(path, &it))?),
            ))
        }
    };
    // The checkpoints last: each is about an entry that is printed already or comes later, and one
    // that is signed during this export is left out with the entries after it.
    for (route, number) in [
        ("/v1/audit", "sequence"),
        ("/v1/audit/checkpoints", "number"),
    ] {
        let mut after = 0;
        loop {
            let page = client.get(&format!("{route}?after={after}&limit=1000"))?;
            let rows = page.as_array().map(Vec::as_slice).unwrap_or_default();
            let Some(last) = rows.last() else {
                break;
            };
            after = last[number].as_i64().unwrap_or(i64::MAX);
            for row in rows {
                match &mut lines {
                    None => show.exact_line(row)?,
                    Some((path, to)) => {
                        writeln!(to, "{row}").map_err(|it| Failure::file(path, &it))?;
                    }
                }
            }
        }
    }
    match lines {
        None => Ok(()),
        Some((path, mut to)) => to.flush().map_err(|it| Failure::file(path, &it)),
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
