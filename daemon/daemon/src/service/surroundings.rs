//! Finds out for `hallmark doctor` what only the wiring knows: the configuration's file, the files
//! that it names, and the planes of provisioning services.

use super::private_files::check_files;
use super::reload::read;
use crate::ca::doctor::Surroundings;
use crate::ca::doctor::check::Check;
use crate::ca::doctor::finding::Finding;
use crate::ca::doctor::services::{PlaneFault, PlaneObservation};
use crate::config::{Configuration, ConfigurationError};
use crate::provisioning::arm::NamedCaCertificate;
use crate::provisioning::configuration::{Clients, Provisioning};
use crate::provisioning::failure::CallError;
use crate::provisioning::planes::PlaneAnswer;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::runtime::Handle;

/// The surroundings of one configuration.
pub(super) struct DaemonSurroundings {
    file: PathBuf,
    /// The configuration that is applied.
    applied: toml::Table,
    clients: BTreeMap<String, Clients>,
    runtime: Handle,
}

impl DaemonSurroundings {
    /// MUST be called inside the runtime.
    pub(super) fn new(configuration: &Configuration, clients: BTreeMap<String, Clients>) -> Self {
        Self {
            file: configuration.file.clone(),
            applied: configuration.raw.clone(),
            clients,
            runtime: Handle::current(),
        }
    }

    /// Judges the file: a restart reads it.
    fn of_file(&self, configuration: &Configuration) -> Finding {
        let file = self.file.display();
        if configuration.raw == self.applied {
            return Finding::ok(Check::Configuration, format!("{file} is applied"));
        }
        let text = format!("{file} has changed, and `hallmark reload` has not applied it");
        Finding::attention(Check::Configuration, text)
    }
}

impl Surroundings for DaemonSurroundings {
    fn check(&self, check: Check) -> Vec<Finding> {
        let configuration = match read(&self.file) {
            Ok(configuration) => configuration,
            Err(error) => return vec![unreadable(check, &error)],
        };
        match check {
            Check::Files => check_files(&configuration),
            Check::Credentials => credentials(configuration.provisioning.values()),
            _ => vec![self.of_file(&configuration)],
        }
    }

    fn planes(&self) -> Vec<PlaneObservation> {
        let read = async {
            let mut observed = Vec::new();
            for (service, clients) in &self.clients {
                let answers = clients.read_planes().await;
                observed.extend(answers.into_iter().map(|it| observation(service, it)));
            }
            observed
        };
        self.runtime.block_on(read)
    }
}

/// A file that cannot be read is a failure of its own check alone.
fn unreadable(check: Check, error: &ConfigurationError) -> Finding {
    match check {
        Check::Configuration => Finding::failed(check, format!("{error:#}")),
        _ => Finding::not_applicable(check, "the configuration is refused: see `configuration`"),
    }
}

/// Judges the credential files of each service; nothing is sent.
pub fn credentials<'a>(services: impl Iterator<Item = &'a Provisioning>) -> Vec<Finding> {
    let check = Check::Credentials;
    let findings = services.map(|service| {
        let read = service.check_credential_files();
        let judged = read.map(|()| "each can be read and understood".to_owned());
        let judged = judged.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        Finding::from_result(check, judged).of(&service.name)
    });
    let findings: Vec<Finding> = findings.collect();
    if findings.is_empty() {
        return vec![Finding::not_applicable(
            check,
            "the configuration has no [[provisioning]]",
        )];
    }
    findings
}

fn observation(service: &str, answer: PlaneAnswer) -> PlaneObservation {
    let named = |it: NamedCaCertificate| (it.name, it.certificate);
    let certificates = answer.ca_certificates;
    PlaneObservation {
        service: service.to_owned(),
        plane: answer.plane,
        host: answer.host,
        fault: answer.error.map(|error| fault(&error)),
        skew_seconds: answer.skew_seconds,
        ca_certificates: certificates.map(|it| it.into_iter().map(named).collect()),
    }
}

fn fault(error: &CallError) -> PlaneFault {
    match error {
        CallError::Transient { .. } | CallError::Conflict { .. } => {
            PlaneFault::Unavailable(error.to_string())
        }
        CallError::Rejected { .. }
        | CallError::Unsendable { .. }
        | CallError::Unauthorized { .. } => PlaneFault::Refused(error.to_string()),
    }
}
