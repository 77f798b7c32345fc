//! `hallmarkd check`: says what is wrong with a configuration before the daemon is started with it.
//!
//! It starts a worker of its own for each token, on a socket of its own, and changes nothing: the
//! database is opened for reading alone. A wrong PIN costs one try, as always, and is remembered
//! where the daemon remembers it.

mod files;

use super::private_worker::{PrivateWorker, READY_DEADLINE};
use crate::ca::hierarchy::{Generation, Hierarchy, Published};
use crate::config::Configuration;
use crate::files::{as_owner, is_there, owner_of};
use crate::printable;
use crate::service::token_keys;
use crate::store::{GenerationRow, ReadOnly, Store};
use crate::token::client::{LOOKUP_DEADLINE, TokenClient};
use crate::token::health::TokenState;
use anyhow::Context;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The result of one check.
#[derive(Debug)]
pub struct Finding {
    pub subject: String,
    /// A good state, or the fault and how to fix it.
    pub verdict: Result<String, String>,
}

/// Checks every part, in the order of the configuration.
pub fn check(configuration: &Configuration) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut ready = BTreeMap::new();
    let mut workers = Vec::new();
    for name in configuration.tokens.keys() {
        let worker = PrivateWorker::start(configuration, name)?;
        let verdict = token_verdict(&worker.client);
        if verdict.is_ok() {
            ready.insert(name.clone(), worker.client.clone());
        }
        workers.push(worker);
        findings.push(Finding {
            subject: format!("token {name}"),
            verdict,
        });
    }
    findings.extend(files::check(configuration));
    findings.extend(check_hierarchy(configuration, &ready));
    let keys = token_keys(workers.iter().map(|worker| &worker.client));
    for service in configuration.provisioning.values() {
        let verdict = service
            .clients(&keys)
            .map_err(anyhow::Error::from)
            .and_then(|_| Ok(service.check_credential_files()?))
            .map(|()| "its settings can be used; nothing was sent".to_owned())
            .map_err(|error| format!("{error:#}"));
        findings.push(Finding {
            subject: format!("provisioning {}", service.name),
            verdict,
        });
    }
    Ok(findings)
}

/// Prints the findings; returns whether all is good.
pub fn report(findings: &[Finding], out: &mut impl Write) -> io::Result<bool> {
    for Finding { subject, verdict } in findings {
        let line = match verdict {
            Ok(good) => format!("good  {subject}: {good}"),
            Err(wrong) => format!("WRONG {subject}: {wrong}"),
        };
        writeln!(out, "{}", printable::line(&line))?;
    }
    Ok(findings.iter().all(|finding| finding.verdict.is_ok()))
}

fn token_verdict(client: &TokenClient) -> Result<String, String> {
    let health = client.wait_ready(READY_DEADLINE);
    if health.state != TokenState::Ready {
        return Err(format!("{}: {}", health.state.name(), health.reason));
    }
    let description = client
        .describe(LOOKUP_DEADLINE)
        .map_err(|error| error.to_string())?;
    Ok(format!(
        "{} {}, label {:?}, serial {}",
        description.manufacturer, description.model, description.label, description.serial
    ))
}

fn check_hierarchy(
    configuration: &Configuration,
    tokens: &BTreeMap<String, TokenClient>,
) -> Vec<Finding> {
    let finding = |verdict| {
        vec![Finding {
            subject: "hierarchy".into(),
            verdict,
        }]
    };
    let rows = match generations(configuration) {
        Ok(OnRecord::Generations(rows)) => rows,
        Ok(OnRecord::Nothing) => return finding(Ok("no ceremony has been run yet".into())),
        Ok(OnRecord::Older) => {
            return finding(Ok(
                "the database is from an earlier version, and the next start of the daemon changes \
                 it; authorities were not looked at"
                    .into(),
            ));
        }
        Err(error) => return finding(Err(format!("{error:#}"))),
    };
    let hierarchy = match Hierarchy::load(rows, &Published::default()) {
        Ok(hierarchy) => hierarchy,
        Err(error) => return finding(Err(error.to_string())),
    };
    let generations = hierarchy.iter().filter(|generation| generation.serving);
    generations
        .map(|generation| Finding {
            subject: format!("authority {}", generation.authority),
            verdict: authority_verdict(configuration, tokens, generation),
        })
        .collect()
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

fn authority_verdict(
    configuration: &Configuration,
    tokens: &BTreeMap<String, TokenClient>,
    generation: &Generation,
) -> Result<String, String> {
    if let Some(problem) = configuration.misplaced(&generation.authority, &generation.token) {
        return Err(problem);
    }
    let Some(client) = tokens.get(&generation.token) else {
        return Err(format!(
            "token {} is not ready, so its key was not looked for",
            generation.token
        ));
    };
    let key = client
        .find(&generation.key, LOOKUP_DEADLINE)
        .map_err(|error| error.to_string())?;
    client
        .prove(&key, LOOKUP_DEADLINE)
        .map_err(|error| error.to_string())?;
    for name in configuration
        .issuer
        .failover
        .also_on
        .get(&generation.authority)
        .into_iter()
        .flatten()
    {
        let shown = tokens.get(name).ok_or("it is not ready".to_owned());
        let shown = shown.and_then(|client| {
            let found = client.find(&generation.key, LOOKUP_DEADLINE);
            let shown = found.and_then(|key| client.prove(&key, LOOKUP_DEADLINE));
            shown.map_err(|error| error.to_string())
        });
        shown.map_err(|error| {
            format!("its key is also on token {name}, as is said, but: {error}")
        })?;
    }
    Ok(format!(
        "its certificate verifies, and its key signs ({})",
        generation.certificate.subject()
    ))
}
