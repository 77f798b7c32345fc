//! `hallmarkd check`: says what is wrong with a configuration before the daemon is started with it.
//!
//! It runs the checks of `ca::doctor` that need no daemon. It starts a worker of its own for each
//! token, on a socket of its own, and changes nothing: the database is opened for reading alone. A
//! wrong PIN costs one try, as always, and is remembered where the daemon remembers it.

use super::private_worker::{PrivateWorker, READY_DEADLINE};
use crate::ca::backup;
use crate::ca::doctor::check::{Check, Verdict};
use crate::ca::doctor::finding::Finding;
use crate::ca::doctor::records::{self, INSPECTION_BOUND};
use crate::ca::doctor::{machine, tokens};
use crate::ca::hierarchy::{Hierarchy, Published};
use crate::config::{Configuration, ConfigurationError};
use crate::files::{as_owner, is_there, owner_of};
use crate::printable;
use crate::service::{check_files, credentials, token_keys};
use crate::store::inspection::{unchanged_journal, unchanged_pages};
use crate::store::{GenerationRow, ReadOnly, Store};
use crate::unix_seconds::UnixSeconds;
use anyhow::Context;
use std::io::{self, Write};
use std::path::Path;
use time::OffsetDateTime;

/// Runs every check that needs no daemon, in the order of the list.
pub fn check(configuration: &Configuration) -> anyhow::Result<Vec<Finding>> {
    let mut workers = Vec::new();
    for name in configuration.tokens.keys() {
        workers.push(PrivateWorker::start(configuration, name)?);
    }
    for worker in &workers {
        worker.client.wait_ready(READY_DEADLINE);
    }
    let mut findings = Vec::new();
    let checks = Check::ALL.iter().filter(|it| it.runs_without_daemon());
    for check in checks {
        findings.extend(run(*check, configuration, &workers)?);
    }
    Ok(findings)
}

fn run(
    check: Check,
    configuration: &Configuration,
    workers: &[PrivateWorker],
) -> anyhow::Result<Vec<Finding>> {
    let clients = workers.iter().map(|it| &it.client);
    Ok(match check {
        Check::Configuration => vec![Finding::ok(
            check,
            format!("{} is understood", configuration.file.display()),
        )],
        Check::Disk => vec![machine::room(&configuration.state_dir)],
        Check::Files => check_files(configuration),
        Check::Database => vec![of_database(check, configuration, |path| {
            records::pages(unchanged_pages(path, INSPECTION_BOUND))
        })],
        Check::Audit => vec![of_database(check, configuration, |path| {
            records::journal(unchanged_journal(path, INSPECTION_BOUND))
        })],
        Check::Backups => vec![of_database(check, configuration, |path| {
            records::backups(&backup::folder_beside(path), now())
        })],
        Check::Tokens => clients.map(|it| tokens::token(it.name(), it)).collect(),
        Check::Pin => clients.map(|it| tokens::pin(it.name(), it)).collect(),
        Check::Keys => keys(configuration, workers),
        Check::Credentials => credential_findings(configuration, workers),
        _ => Vec::new(),
    })
}

/// Prints the findings; returns whether nothing has failed.
pub fn report(findings: &[Finding], out: &mut impl Write) -> io::Result<bool> {
    for finding in findings {
        let subject = finding.subject.as_ref();
        let subject = subject.map_or_else(String::new, |it| format!("{it}: "));
        let verdict = match finding.verdict {
            Verdict::NotApplicable => "not applicable",
            other => other.name(),
        };
        let check = finding.check.name();
        let line = format!("{verdict:<14}  {check:<15}  {subject}{}", finding.text);
        writeln!(out, "{}", printable::line(&line))?;
        if let Some(remedy) = finding.remedy {
            let line = format!("{:<14}  {:<15}  -> {remedy}", "", "");
            writeln!(out, "{}", printable::line(&line))?;
        }
    }
    Ok(findings.iter().all(|it| it.verdict != Verdict::Failed))
}

/// Returns the finding of a configuration that is refused.
pub fn refused(error: &ConfigurationError) -> Finding {
    Finding::failed(Check::Configuration, error.to_string())
}

/// Judges a database that exists, with the rights of its folder's owner, and without a change.
fn of_database(
    check: Check,
    configuration: &Configuration,
    judge: impl FnOnce(&Path) -> Finding + Send,
) -> Finding {
    let path = configuration.state_dir.join("hallmark.db");
    let judged = owner_of(&configuration.state_dir).and_then(|owner| {
        as_owner(owner, || match is_there(&path) {
            Ok(true) => judge(&path),
            _ => Finding::not_applicable(check, "there is no database yet"),
        })
    });
    judged.unwrap_or_else(|error| Finding::failed(check, format!("{}: {error}", path.display())))
}

fn now() -> UnixSeconds {
    UnixSeconds::new(OffsetDateTime::now_utc().unix_timestamp())
}

fn keys(configuration: &Configuration, workers: &[PrivateWorker]) -> Vec<Finding> {
    let check = Check::Keys;
    let rows = match generations(configuration) {
        Ok(OnRecord::Generations(rows)) => rows,
        Ok(OnRecord::Nothing) => {
            return vec![Finding::not_applicable(
                check,
                "no ceremony has been run yet",
            )];
        }
        Ok(OnRecord::Older) => {
            let text = "the database is from an earlier version, and the next start of the daemon \
                        changes it; authorities were not looked at";
            return vec![Finding::not_applicable(check, text)];
        }
        Err(error) => return vec![Finding::failed(check, format!("{error:#}")).of("hierarchy")],
    };
    let hierarchy = match Hierarchy::load(rows, &Published::default()) {
        Ok(hierarchy) => hierarchy,
        Err(error) => return vec![Finding::failed(check, error.to_string()).of("hierarchy")],
    };
    let client = |name: &str| {
        let mut clients = workers.iter().map(|it| &it.client);
        clients.find(|it| it.name() == name)
    };
    let serving = hierarchy.iter().filter(|it| it.serving);
    serving
        .map(|it| tokens::key(&configuration.issuer, it, client))
        .collect()
}

/// Also judges whether the settings and the tokens that they name fit together.
fn credential_findings(configuration: &Configuration, workers: &[PrivateWorker]) -> Vec<Finding> {
    let keys = token_keys(workers.iter().map(|it| &it.client));
    let services = configuration.provisioning.values();
    let unusable: Vec<Finding> = services
        .filter_map(|service| {
            let error = service.clients(&keys).err()?;
            let text = format!("{:#}", anyhow::Error::from(error));
            Some(Finding::failed(Check::Credentials, text).of(&service.name))
        })
        .collect();
    if !unusable.is_empty() {
        return unusable;
    }
    credentials(configuration.provisioning.values())
}

/// The generations that the database has on record.
enum OnRecord {
    /// There is no database.
    Nothing,
    /// The database has an older schema, and was not read.
    Older,
    Generations(Vec<GenerationRow>),
}

/// Reads the database with the rights of its folder's owner.
fn generations(configuration: &Configuration) -> anyhow::Result<OnRecord> {
    let path = configuration.state_dir.join("hallmark.db");
    let owner = owner_of(&configuration.state_dir)?;
    let rows = as_owner(owner, || match is_there(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(OnRecord::Nothing),
        Ok(false) => Ok(OnRecord::Nothing),
        Err(error) => Err(error.into()),
        Ok(true) => match Store::open_read_only(&path)? {
            ReadOnly::Current(store) => Ok(OnRecord::Generations(store.generations()?)),
            ReadOnly::Older => Ok(OnRecord::Older),
        },
    });
    rows.with_context(|| path.display().to_string())?
}
