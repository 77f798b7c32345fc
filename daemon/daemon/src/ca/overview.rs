//! Answers the four questions of an operator who looks for five seconds: is it safe, is it issuing,
//! are the provisioning services in step, what needs an operator and by when.
//!
//! Each alarm belongs to one of the first three questions and has a severity, so an answer is as
//! bad as its worst alarm. `hallmark status` prints the answers and exits by the worst of them.

use super::alarm::{Alarm, AlarmCode};
use super::coded::Coded;
use super::status::{NotReady, PushStatus};
use super::{CertificateAuthority, Error};
use crate::error_code::codes;
use serde::Serialize;

codes! {
    /// A question that the overview answers.
    Question {
        Safe => "safe",
        Issuing => "issuing",
        Services => "services",
        Operator => "operator",
    }
}

codes! {
    /// How urgent an answer is. The order is that of urgency.
    Severity {
        Good => "good",
        Attention => "attention",
        Critical => "critical",
    }
}

/// The answer to one question.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    pub question: Question,
    pub severity: Severity,
    /// One sentence; the whole of it is in the alarms.
    pub text: String,
}

/// The numbers behind the answers.
pub(super) struct Facts<'a> {
    pub(super) not_ready: &'a [Coded<NotReady>],
    pub(super) alarms: &'a [Alarm],
    pub(super) push: &'a PushStatus,
    pub(super) certificates: i64,
    pub(super) authorities: usize,
    pub(super) blocked: i64,
}

impl AlarmCode {
    /// The question whose answer the alarm spoils.
    pub fn question(self) -> Question {
        match self {
            Self::AlarmsUnreadable
            | Self::CrlEnded
            | Self::CrlNotSigned
            | Self::CrlWithheld
            | Self::EnrollmentsUnknown
            | Self::ExclusionPending => Question::Safe,
            Self::CaCertificateDrifted
            | Self::CanaryNotTried
            | Self::CanaryRefused
            | Self::ChangesParked
            | Self::ChangesWaiting
            | Self::EnrollmentsDrifted
            | Self::PossessionNotProven => Question::Services,
            Self::AdminSocketMissing
            | Self::AuthorityWaiting
            | Self::CertificatesExpiring
            | Self::ClockNotSane
            | Self::HttpsCertificateEnded
            | Self::HttpsCertificateNotRenewed
            | Self::KeyUnusable
            | Self::LeavesRefusedByVerifiers
            | Self::ProfileMissing
            | Self::RolloverFailed
            | Self::RolloverUnreadable
            | Self::SigningWindowEnds
            | Self::StandbyKeyNotShown
            | Self::StandbyOtherIssuer
            | Self::StandbySigns
            | Self::StandbyWithoutKey
            | Self::StoreNotWritable
            | Self::TokenParked
            | Self::TokenRemark
            | Self::TokenUnavailable => Question::Issuing,
        }
    }

    /// Critical is what refuses honest devices or admits excluded ones while it lasts, and what
    /// hides such a state. A missing token is not: a standby may sign, and if none does, the
    /// conditions of readiness are critical.
    pub fn severity(self) -> Severity {
        match self {
            Self::AlarmsUnreadable
            | Self::CaCertificateDrifted
            | Self::ClockNotSane
            | Self::CrlEnded
            | Self::CrlWithheld
            | Self::ExclusionPending
            | Self::HttpsCertificateEnded
            | Self::LeavesRefusedByVerifiers
            | Self::StoreNotWritable => Severity::Critical,
            _ => Severity::Attention,
        }
    }
}

impl CertificateAuthority {
    /// Answers the four questions in their order.
    pub(super) fn overview(&self, facts: &Facts<'_>) -> Result<Vec<Answer>, Error> {
        Ok(vec![
            facts.safe(),
            facts.issuing(),
            facts.services(self.ca_certificates()?.len()),
            facts.operator(self.next_deadline()),
        ])
    }

    /// When the next authority stops to sign leaves: its name and RFC 3339.
    fn next_deadline(&self) -> Option<(String, String)> {
        let hierarchy = self.hierarchy();
        let serving = hierarchy.iter().filter(|it| it.serving);
        let ends = serving.map(|it| (self.rollovers.window_end(it), &it.authority));
        ends.min()
            .map(|(end, name)| (name.clone(), end.to_string()))
    }
}

impl Facts<'_> {
    fn safe(&self) -> Answer {
        let good = match self.blocked {
            0 => "nothing is blocked, no exclusion is open, each list is signed".to_owned(),
            blocks => format!("{blocks} blocked, no exclusion is open, each list is signed"),
        };
        self.answer(Question::Safe, good)
    }

    /// Missing conditions of readiness come before the alarms, which name their causes.
    fn issuing(&self) -> Answer {
        if let Some(missing) = self.not_ready.first() {
            return Answer {
                question: Question::Issuing,
                severity: Severity::Critical,
                text: missing.text.clone(),
            };
        }
        let good = format!(
            "{} authorities sign, {} certificates issued so far",
            self.authorities, self.certificates
        );
        self.answer(Question::Issuing, good)
    }

    fn services(&self, ca_certificates: usize) -> Answer {
        let waiting = self.push.waiting;
        let good = match (waiting, ca_certificates) {
            (0, 0) => "no CA certificate is at a provisioning service".to_owned(),
            (0, count) => format!("no change waits, {count} CA certificates as they must be"),
            _ => format!("{waiting} changes are on their way"),
        };
        self.answer(Question::Services, good)
    }

    fn operator(&self, deadline: Option<(String, String)>) -> Answer {
        // A missing condition mostly has an alarm too.
        let alarms = self.alarms.len().max(self.not_ready.len());
        let text = match (alarms, deadline) {
            (0, None) => "nothing".to_owned(),
            (0, Some((name, end))) => {
                format!("nothing; authority {name} is the next to end, it signs until {end}")
            }
            (1, _) => "1 matter; `hallmark status --verbose` names it".to_owned(),
            (count, _) => format!("{count} matters; `hallmark status --verbose` names them"),
        };
        let worst = self.alarms.iter().map(|it| it.code.severity()).max();
        let missing = self.not_ready.first().map(|_| Severity::Critical);
        Answer {
            question: Question::Operator,
            severity: worst.max(missing).unwrap_or(Severity::Good),
            text,
        }
    }

    /// Answers with the worst alarm of the question, the earlier of two that are as bad; or with
    /// `good` if there is none.
    fn answer(&self, question: Question, good: String) -> Answer {
        let of_question = |it: &&Alarm| it.code.question() == question;
        let alarms: Vec<_> = self.alarms.iter().filter(of_question).collect();
        let worst = alarms.iter().rev().max_by_key(|it| it.code.severity());
        let Some(worst) = worst else {
            return Answer {
                question,
                severity: Severity::Good,
                text: good,
            };
        };
        let text = match alarms.len() - 1 {
            0 => worst.text.clone(),
            others => format!("{} (and {others} more)", worst.text),
        };
        Answer {
            question,
            severity: worst.code.severity(),
            text,
        }
    }
}
