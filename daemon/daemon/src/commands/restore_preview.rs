//! Says what a restore brings back and what it loses, before it acts.

use crate::ca::backup::Manifest;
use crate::files;
use crate::printable::line;
use crate::store::backup_preview::{
    LostRevocation, Missing, REVOCATIONS_MAX, RestoredCaller, callers, missing,
};
use crate::unix_seconds::UnixSeconds;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// The most lines of one list in the text; the JSON has all.
const LINES_MAX: usize = 20;

/// The effects that a restore would have.
#[derive(Debug, Serialize)]
pub(super) struct Preview {
    manifest: Manifest,
    /// The stations, operators and other callers that the restored daemon will accept.
    callers: Vec<RestoredCaller>,
    /// The rows that only the replaced database has; absent if there is none that can be read.
    missing: Option<Missing>,
}

impl Preview {
    /// Compares the database of a backup with the one that it would replace.
    pub(super) fn of(
        manifest: Manifest,
        backup: &Path,
        database: &Path,
        now: UnixSeconds,
    ) -> anyhow::Result<Self> {
        let intents = manifest.contents.intents;
        let is_there = files::is_there(database)?;
        // A damaged database may be the cause of the restore.
        let missing = is_there
            .then(|| missing(backup, database, intents).ok())
            .flatten();
        let replaced = missing.is_some().then_some(database);
        Ok(Self {
            callers: callers(backup, replaced, now)?,
            manifest,
            missing,
        })
    }

    /// Returns the same for an operator.
    pub(super) fn to_text(&self) -> String {
        let contents = &self.manifest.contents;
        let mut text = format!(
            "This restore puts the state of {} in the place of the database: {} certificates, {} \
             entries in the journal.\n\n",
            self.manifest.made_at, contents.certificates, contents.audit_entries
        );
        text += "Callers that will be accepted; revoke those that you do not know or that were \
                 revoked since:\n";
        let (marked, good): (Vec<_>, Vec<_>) =
            self.callers.iter().partition(|it| mark(it).is_some());
        for it in &marked {
            let _ = writeln!(text, "  {}", line(&caller(it)));
        }
        let good: Vec<_> = good.into_iter().map(caller).collect();
        if marked.is_empty() || !good.is_empty() {
            list(&mut text, &good);
        }
        let Some(missing) = &self.missing else {
            text += "\nThere is no database to compare it with, so what it lacks is not known.\n";
            return text;
        };
        text += "\nWhat the present database has, and this backup has not:\n";
        for (what, count) in [
            ("certificates", missing.certificates.len()),
            ("revocations", missing.revocations.len()),
            ("blocks", missing.blocks.len()),
            ("generations of authorities", missing.generations.len()),
        ] {
            let more = what == "revocations" && missing.more_revocations;
            let more = if more { " or more" } else { "" };
            let _ = writeln!(text, "  {count}{more} {what}");
        }
        for generation in &missing.generations_of_backup {
            let generation = line(generation);
            let _ = writeln!(
                text,
                "  NOT IN THE PRESENT DATABASE: authority {generation}"
            );
        }
        let lost = lost(missing);
        if !lost.is_empty() {
            list(&mut text, &lost);
        }
        text
    }
}

/// Marks a caller that the present database does not accept. Such lines are never left out.
fn mark(caller: &RestoredCaller) -> Option<&'static str> {
    match caller.replaced {
        Some("unknown") => Some(", NOT IN THE PRESENT DATABASE"),
        Some("revoked") => Some(", REVOKED SINCE"),
        _ => None,
    }
}

fn caller(caller: &RestoredCaller) -> String {
    let state = mark(caller).unwrap_or_default();
    let RestoredCaller {
        serial,
        role,
        subject,
        not_after,
        ..
    } = caller;
    format!("{role:<9} {subject}, serial {serial}, until {not_after}{state}")
}

/// The lines of blocks, generations and revocations.
fn lost(missing: &Missing) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(missing.blocks.iter().map(|it| format!("blocked   {it}")));
    lines.extend(
        missing
            .generations
            .iter()
            .map(|it| format!("made      {it}")),
    );
    for LostRevocation {
        serial, subject, ..
    } in &missing.revocations
    {
        lines.push(format!("revoked   {serial} {subject}"));
    }
    lines
}

/// Appends the first lines, and how many more there are.
fn list(text: &mut String, lines: &[String]) {
    for entry in lines.iter().take(LINES_MAX) {
        let _ = writeln!(text, "  {}", line(entry));
    }
    if lines.is_empty() {
        text.push_str("  none\n");
    } else if lines.len() > LINES_MAX {
        let _ = writeln!(
            text,
            "  … and {} more, in `--json`",
            lines.len() - LINES_MAX
        );
    }
}

const _: () = assert!(LINES_MAX < REVOCATIONS_MAX);
