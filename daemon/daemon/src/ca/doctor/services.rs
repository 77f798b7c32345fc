//! Checks provisioning services: each plane, the clock there, CA certificates, proofs of
//! possession. Nothing is written there.

use super::Visit;
use super::check::Check;
use super::finding::Finding;
use crate::enrollment::ca_certificate::ObservedCaCertificate;
use crate::enrollment::desired::SlotCertificate;
use crate::store::CaCertificateRow;

/// A larger difference needs attention, in seconds: a `Date` has whole seconds, and answers take
/// time.
const SKEW_SECONDS_MAX: i64 = 60;
/// With a larger one services refuse credentials, in seconds (Entra ID allows five minutes).
const SKEW_SECONDS_LAST: i64 = 300;

/// A plane of a provisioning service, as it has just answered.
#[derive(Clone, Debug)]
pub struct PlaneObservation {
    /// The service's name in the configuration.
    pub service: String,
    /// Which of its planes.
    pub plane: &'static str,
    pub host: String,
    pub fault: Option<PlaneFault>,
    /// How far the clock there is ahead of this machine's, in seconds, if it has answered.
    pub skew_seconds: Option<i64>,
    /// The CA certificates that it holds, by name, if this plane lists them.
    pub ca_certificates: Option<Vec<(String, ObservedCaCertificate)>>,
}

/// Why a plane cannot be used.
#[derive(Clone, Debug)]
pub enum PlaneFault {
    /// It has not answered, or cannot answer now.
    Unavailable(String),
    /// It refuses the credential or the call.
    Refused(String),
}

impl PlaneObservation {
    fn subject(&self) -> String {
        format!("{} {}", self.service, self.plane)
    }
}

/// Judges whether each plane answers and accepts the credential.
pub(super) fn planes(observed: &[PlaneObservation]) -> Vec<Finding> {
    let check = Check::Planes;
    if observed.is_empty() {
        return vec![without_service(check)];
    }
    let findings = observed.iter().map(|it| {
        let host = &it.host;
        let finding = match &it.fault {
            None => Finding::ok(check, format!("{host} answers")),
            // The service is there, and is busy.
            Some(PlaneFault::Unavailable(reason)) if it.skew_seconds.is_some() => {
                Finding::attention(check, format!("{host}: {reason}"))
            }
            Some(PlaneFault::Unavailable(reason) | PlaneFault::Refused(reason)) => {
                Finding::failed(check, format!("{host}: {reason}"))
            }
        };
        finding.of(it.subject())
    });
    findings.collect()
}

fn without_service(check: Check) -> Finding {
    Finding::not_applicable(check, "the configuration has no [[provisioning]]")
}

/// Judges the difference of this machine's clock from those of the services.
pub(super) fn skew(observed: &[PlaneObservation]) -> Vec<Finding> {
    let check = Check::Skew;
    if observed.is_empty() {
        return vec![without_service(check)];
    }
    let known = observed
        .iter()
        .filter_map(|it| Some((it, it.skew_seconds?)));
    let Some((plane, ahead)) = known.max_by_key(|(_, ahead)| ahead.abs()) else {
        return vec![Finding::not_applicable(
            check,
            "no plane has answered with its time",
        )];
    };
    let place = plane.subject();
    let text = match ahead.abs() {
        0 | 1 => "this clock and those of the services agree".to_owned(),
        seconds => {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            format!("the clock of {place} is {seconds} s {side} this one")
        }
    };
    let finding = match ahead.abs() {
        seconds if seconds > SKEW_SECONDS_LAST => Finding::failed(check, text),
        seconds if seconds > SKEW_SECONDS_MAX => Finding::attention(check, text),
        _ => Finding::ok(check, text),
    };
    vec![finding]
}

impl Visit<'_> {
    /// Compares the list of each service with the record.
    pub(super) fn ca_certificates(&self) -> Vec<Finding> {
        let check = Check::CaCertificates;
        let rows = match self.ca.store().ca_certificates() {
            Ok(rows) => rows,
            Err(error) => return vec![Finding::failed(check, error.to_string())],
        };
        let mut findings = Vec::new();
        for plane in self.planes() {
            let Some(held) = &plane.ca_certificates else {
                continue;
            };
            let wanted = |it: &&CaCertificateRow| it.provisioning == plane.service && !it.removed;
            let wanted: Vec<_> = rows.iter().filter(wanted).collect();
            findings.extend(compared(&plane.service, &wanted, held));
        }
        if findings.is_empty() {
            let text = "no service has listed its CA certificates: `planes` says why, or there is \
                        no [provisioning.arm]";
            return self.or_alarms(check, || vec![Finding::not_applicable(check, text)]);
        }
        findings
    }

    /// Judges the record of the proofs; alarms about them come before this.
    pub(super) fn possession(&self) -> Vec<Finding> {
        let check = Check::Possession;
        let certificates = match self.ca.ca_certificates() {
            Ok(certificates) => certificates,
            Err(error) => return vec![Finding::failed(check, error.message)],
        };
        if certificates.is_empty() {
            let text = "no service is to verify a CA certificate";
            return vec![Finding::not_applicable(check, text)];
        }
        let open = certificates
            .iter()
            .find(|it| !it.verified && it.state != "being removed");
        let Some(open) = open else {
            let text = format!("{} CA certificates are verified", certificates.len());
            return vec![Finding::ok(check, text)];
        };
        let reason = open.reason.as_deref().unwrap_or("it is under way");
        let text = format!("{} is {}: {reason}", open.name, open.state);
        vec![Finding::attention(check, text).of(&open.provisioning)]
    }
}

/// Compares the CA certificates of one service with those that it is to hold.
fn compared(
    service: &str,
    wanted: &[&CaCertificateRow],
    held: &[(String, ObservedCaCertificate)],
) -> Vec<Finding> {
    let check = Check::CaCertificates;
    let mut findings = Vec::new();
    for row in wanted {
        let found = held.iter().find(|(name, _)| name == &row.name);
        let ours = SlotCertificate::new(row.certificate.clone());
        let problem = match found {
            None => "the service does not hold it",
            Some((_, it)) if !it.is(&ours) => "the service holds another certificate by this name",
            Some((_, it)) if !it.is_verified => "the service holds it unverified",
            Some(_) => continue,
        };
        let text = format!("{}: {problem}; devices that need it are refused", row.name);
        findings.push(Finding::failed(check, text).of(service));
    }
    if findings.is_empty() {
        let is_ours = |name: &String| wanted.iter().any(|row| row.name == *name);
        let others = held.iter().filter(|(name, _)| !is_ours(name)).count();
        let text = format!(
            "{} verified and ours; {others} others there are not of this daemon",
            wanted.len()
        );
        findings.push(Finding::ok(check, text).of(service));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    fn answered(ahead: i64) -> PlaneObservation {
        PlaneObservation {
            service: "works".into(),
            plane: "service",
            host: "works.azure-devices-provisioning.net".into(),
            fault: None,
            skew_seconds: Some(ahead),
            ca_certificates: None,
        }
    }

    #[test]
    fn the_largest_difference_of_clocks_decides() {
        for (ahead, verdict) in [
            (0, Verdict::Ok),
            (-60, Verdict::Ok),
            (61, Verdict::Attention),
            (-300, Verdict::Attention),
            (301, Verdict::Failed),
        ] {
            let found = skew(&[answered(0), answered(ahead), answered(1)]);
            assert_eq!(found[0].verdict, verdict, "{ahead}");
        }
        assert_eq!(skew(&[])[0].verdict, Verdict::NotApplicable);
    }

    #[test]
    fn a_busy_plane_needs_attention_and_a_silent_one_has_failed() {
        let busy = PlaneObservation {
            fault: Some(PlaneFault::Unavailable("429".into())),
            ..answered(0)
        };
        let silent = PlaneObservation {
            skew_seconds: None,
            ..busy.clone()
        };
        assert_eq!(planes(&[busy])[0].verdict, Verdict::Attention);
        assert_eq!(planes(&[silent])[0].verdict, Verdict::Failed);
    }
}
