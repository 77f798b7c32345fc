//! Checks everything that an operator would check at night, in one command, each with its remedy.
//!
//! `hallmark doctor` runs the whole list of [`check`] in the daemon. `hallmarkd check` runs those
//! of the same list that need no daemon, with the same functions. A check changes nothing, here or
//! at a service: it reads, makes one test signature for each key, and writes one file that it
//! removes. Each is bounded in time, and one run is under way at a time, beside issuance.

pub mod check;
pub mod finding;
pub mod machine;
pub mod records;
pub mod services;
pub mod tokens;

use super::alarm::Alarm;
use super::authorize::{Authorized, Operate};
use super::{CertificateAuthority, Code, Error};
use check::{Check, Verdict};
use finding::Finding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use services::PlaneObservation;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// The parameters of a run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DoctorRequest {
    /// The names of the checks; all, if none is named.
    #[serde(default)]
    pub only: Vec<String>,
    /// The version of the program that asks.
    pub client: Option<String>,
}

/// The answer for `hallmark doctor`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DoctorReport {
    /// The version of this daemon.
    pub version: &'static str,
    /// RFC 3339.
    pub at: String,
    /// The worst verdict; `ok` if nothing is open.
    pub verdict: Verdict,
    pub summary: Summary,
    pub findings: Vec<Finding>,
}

/// How many findings have each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "DoctorSummary")]
pub struct Summary {
    pub ok: usize,
    pub attention: usize,
    pub failed: usize,
    pub unknown: usize,
    pub not_applicable: usize,
}

/// The facts that only the wiring of the daemon can find out.
pub trait Surroundings: Send + Sync {
    /// Runs one of the checks of the configuration: its file, the modes of files, credentials.
    fn check(&self, check: Check) -> Vec<Finding>;

    /// Reads something at each plane of each provisioning service, within a bounded time.
    fn planes(&self) -> Vec<PlaneObservation>;
}

/// The surroundings, once they are there.
pub(super) type Surrounded = OnceLock<Arc<dyn Surroundings>>;

/// Where the daemon listens: the name of each listener, and its address if there is one.
pub type ListenerAddresses = [(&'static str, Option<SocketAddr>)];

impl CertificateAuthority {
    /// Takes the part that knows the configuration's file and the provisioning clients.
    pub fn surround(&self, surroundings: Arc<dyn Surroundings>) {
        self.surroundings.get_or_init(|| surroundings);
    }

    /// Runs the checks that `request` names, in the order of the list.
    pub fn doctor(
        &self,
        _: &Authorized<Operate>,
        request: &DoctorRequest,
        listeners: &ListenerAddresses,
    ) -> Result<DoctorReport, Error> {
        let wanted = named(&request.only)?;
        let _alone = self.diagnostics.alone()?;
        let visit = Visit {
            ca: self,
            alarms: self.alarms()?,
            planes: OnceLock::new(),
            request,
            listeners,
        };
        let checks = Check::ALL.iter().filter(|it| wanted.contains(it));
        let findings: Vec<Finding> = checks.flat_map(|it| visit.run(*it)).collect();
        Ok(DoctorReport {
            version: env!("CARGO_PKG_VERSION"),
            at: self.now().to_string(),
            verdict: worst(&findings),
            summary: Summary::of(&findings),
            findings,
        })
    }
}

/// Returns the checks with these names; all of them, if there are none.
fn named(names: &[String]) -> Result<Vec<Check>, Error> {
    if names.is_empty() {
        return Ok(Check::ALL.to_vec());
    }
    let check = |name: &String| Check::ALL.iter().find(|it| it.name() == name).copied();
    let find = |name| {
        check(name).ok_or_else(|| {
            let known: Vec<_> = Check::ALL.iter().map(|it| it.name()).collect();
            let message = format!(
                "there is no check {name:?}; name one of {}",
                known.join(", ")
            );
            Error::invalid(Code::CheckUnknown, message)
        })
    };
    names.iter().map(find).collect()
}

/// The worst verdict. A check that is not applicable or ran out of time spoils nothing: a large
/// database would need attention each day.
fn worst(findings: &[Finding]) -> Verdict {
    let open = findings.iter().map(|it| it.verdict);
    let open = open.filter(|it| *it >= Verdict::Attention);
    open.max().unwrap_or(Verdict::Ok)
}

impl Summary {
    fn of(findings: &[Finding]) -> Self {
        let count = |verdict| findings.iter().filter(|it| it.verdict == verdict).count();
        Self {
            ok: count(Verdict::Ok),
            attention: count(Verdict::Attention),
            failed: count(Verdict::Failed),
            unknown: count(Verdict::Unknown),
            not_applicable: count(Verdict::NotApplicable),
        }
    }
}

/// One run of the checks.
struct Visit<'a> {
    ca: &'a CertificateAuthority,
    alarms: Vec<Alarm>,
    /// Read once, by the first check that needs them.
    planes: OnceLock<Vec<PlaneObservation>>,
    request: &'a DoctorRequest,
    listeners: &'a ListenerAddresses,
}

impl Visit<'_> {
    fn run(&self, check: Check) -> Vec<Finding> {
        match check {
            Check::Configuration | Check::Files | Check::Credentials => {
                self.of_configuration(check)
            }
            Check::Versions => self.versions(),
            Check::Clock => vec![self.clock()],
            Check::Disk => self.or_alarms(check, || self.disk()),
            Check::Database => vec![self.database()],
            Check::Audit => vec![self.audit()],
            Check::Backups => vec![self.backups()],
            Check::Tokens => self.tokens(),
            Check::Pin => self.pins(),
            Check::Keys => self.keys(),
            Check::Lists => self.or_alarms(check, || self.lists()),
            Check::Ports => self.or_alarms(check, || self.ports()),
            Check::Listener => vec![self.listener()],
            Check::Unit => vec![machine::unit_of_this_process()],
            Check::Planes => services::planes(self.planes()),
            Check::Skew => services::skew(self.planes()),
            Check::CaCertificates => self.ca_certificates(),
            Check::Possession => self.or_alarms(check, || self.possession()),
            Check::Alarms => self.or_alarms(check, || {
                vec![Finding::ok(
                    check,
                    "no alarm that another check does not report",
                )]
            }),
        }
    }

    /// Returns the alarms of a check as its findings, or what `find` returns if there are none.
    fn or_alarms(&self, check: Check, find: impl FnOnce() -> Vec<Finding>) -> Vec<Finding> {
        let alarms = self.alarms.iter().filter(|it| it.code.check() == check);
        let found: Vec<Finding> = alarms.map(Finding::from_alarm).collect();
        if found.is_empty() { find() } else { found }
    }

    fn of_configuration(&self, check: Check) -> Vec<Finding> {
        match self.ca.surroundings.get() {
            Some(surroundings) => surroundings.check(check),
            None => vec![Finding::not_applicable(
                check,
                "the daemon is being started or reloaded",
            )],
        }
    }

    fn planes(&self) -> &[PlaneObservation] {
        self.planes.get_or_init(|| {
            let surroundings = self.ca.surroundings.get();
            surroundings.map(|it| it.planes()).unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_check_is_refused_with_the_list() {
        assert_eq!(named(&["skew".into()]).expect("a check"), [Check::Skew]);
        assert_eq!(named(&[]).expect("all"), Check::ALL);
        let error = named(&["sked".into()]).expect_err("no check");
        assert_eq!(error.code, Code::CheckUnknown);
        assert!(error.message.contains("possession"), "{error}");
    }

    #[test]
    fn what_is_not_applicable_or_unknown_spoils_nothing() {
        let ok = Finding::ok(Check::Clock, "good");
        let none = Finding::not_applicable(Check::Unit, "no service");
        let unknown = Finding::unknown(Check::Database, "not read whole");
        let good = [ok.clone(), none.clone(), unknown.clone()];
        assert_eq!(worst(&good), Verdict::Ok);
        let attention = Finding::attention(Check::Backups, "old");
        assert_eq!(
            worst(&[ok.clone(), attention.clone(), none.clone()]),
            Verdict::Attention
        );
        let failed = Finding::failed(Check::Audit, "broken");
        let all = [failed, attention, unknown, ok, none];
        assert_eq!(worst(&all), Verdict::Failed);
        let one_each = Summary {
            ok: 1,
            attention: 1,
            failed: 1,
            unknown: 1,
            not_applicable: 1,
        };
        assert_eq!(Summary::of(&all), one_each);
    }
}
