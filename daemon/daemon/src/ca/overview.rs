//! Answers the four questions of an operator who looks for five seconds: is it safe, is it issuing,
//! are the provisioning services in step, what needs an operator and by when.
//!
//! Each alarm belongs to one of the first three questions and has a severity, so an answer is as
//! bad as its worst alarm. `hallmark status` prints the answers and exits by the worst of them.

use super::alarm::{Alarm, AlarmCode};
use super::coded::Coded;
use super::crl::CrlStatus;
use super::exclusion::unfinished::OpenReceipt;
use super::roll::WaitCode;
use super::status::{NotReady, PushStatus};
use super::{CertificateAuthority, Error};
use crate::error_code::codes;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;

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
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Answer {
    pub question: Question,
    pub severity: Severity,
    /// One sentence, about the worst that was found.
    pub text: String,
    /// Every sentence of the question that no alarm has, such as a roll that waits for approval.
    pub remarks: Vec<String>,
}

/// A state that spoils an answer and is no alarm: it may be wanted, or end by itself.
struct Remark {
    question: Question,
    severity: Severity,
    text: String,
}

impl Remark {
    fn attention(question: Question, text: String) -> Self {
        Self {
            question,
            severity: Severity::Attention,
            text,
        }
    }
}

/// The numbers behind the answers.
pub(super) struct Facts<'a> {
    pub(super) not_ready: &'a [Coded<NotReady>],
    pub(super) alarms: &'a [Alarm],
    pub(super) push: &'a PushStatus,
    pub(super) crls: &'a [CrlStatus],
    pub(super) open_receipts: &'a [OpenReceipt],
    pub(super) certificates: i64,
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
            | Self::ExclusionPending
            | Self::IssuerCrlAbsent
            | Self::IssuerCrlEnded
            | Self::IssuerCrlEnds
            | Self::OcspResponderNotRenewed => Question::Safe,
            Self::CaCertificateDrifted
            | Self::CanaryNotTried
            | Self::CanaryRefused
            | Self::ChangesParked
            | Self::ChangesWaiting
            | Self::EnrollmentsDrifted
            | Self::PossessionNotProven => Question::Services,
            Self::AdminSocketMissing
            | Self::AuditBroken
            | Self::AuditNotCheckpointed
            | Self::AuthorityWaiting
            | Self::CertificatesExpiring
            | Self::ClockNotSane
            | Self::HttpsCertificateEnded
            | Self::HttpsCertificateNotRenewed
            | Self::KeyUnusable
            | Self::LeavesRefusedByVerifiers
            | Self::ProfileMissing
            | Self::ProfileOutlivesAuthority
            | Self::RolloverFailed
            | Self::RolloverUnreadable
            | Self::SigningWindowEnds
            | Self::StandbyKeyNotShown
            | Self::StandbyOtherIssuer
            | Self::StandbySigns
            | Self::StandbyWithoutKey
            | Self::StoreNotWritable
            | Self::SubordinateEnds
            | Self::TokenParked
            | Self::TokenRemark
            | Self::TokenUnavailable => Question::Issuing,
            Self::WorkerRefused => Question::Safe,
        }
    }

    /// Critical is what refuses honest devices or admits excluded ones while it lasts, and what
    /// hides such a state. A missing token is not: a standby may sign, and if none does, the
    /// conditions of readiness are critical.
    pub fn severity(self) -> Severity {
        match self {
            Self::AlarmsUnreadable
            | Self::AuditBroken
            | Self::CaCertificateDrifted
            | Self::ClockNotSane
            | Self::CrlEnded
            | Self::CrlWithheld
            | Self::ExclusionPending
            | Self::HttpsCertificateEnded
            | Self::IssuerCrlEnded
            | Self::LeavesRefusedByVerifiers
            | Self::StoreNotWritable => Severity::Critical,
            _ => Severity::Attention,
        }
    }
}

impl CertificateAuthority {
    /// Answers the four questions in their order.
    pub(super) fn overview(&self, facts: &Facts<'_>) -> Result<Vec<Answer>, Error> {
        let (signing, mut remarks) = self.signing_remarks();
        remarks.extend(facts.list_remarks());
        remarks.extend(facts.receipt_remarks());
        remarks.extend(self.service_remarks()?);
        remarks.extend(self.approval_remarks()?);
        let judged = Judged { facts, remarks };
        Ok(vec![
            judged.safe(),
            judged.issuing(signing),
            judged.services(self.ca_certificates()?.len()),
            judged.operator(self.next_deadline()),
        ])
    }

    /// Counts the authorities that sign, and names the others with the reason.
    fn signing_remarks(&self) -> (usize, Vec<Remark>) {
        let hierarchy = self.hierarchy();
        let now = self.now();
        let mut signing = 0;
        let mut remarks = Vec::new();
        for name in self.issuer.authorities().keys() {
            let generation = match hierarchy.signing(name) {
                Ok(generation) => generation,
                Err(error) => {
                    remarks.push(Remark::attention(Question::Issuing, error.message));
                    continue;
                }
            };
            let end = self.rollovers.window_end(generation);
            if end > now {
                signing += 1;
                continue;
            }
            remarks.push(Remark {
                question: Question::Issuing,
                severity: Severity::Critical,
                text: format!(
                    "authority {name} has signed leaves until {end}; finish its roll, or start it \
                     by `hallmark roll start --authority {name} --reason expiry`"
                ),
            });
        }
        (signing, remarks)
    }

    /// Names the services whose last comparison with the record is old. Until the next one it is
    /// not known what other programs have changed there.
    fn service_remarks(&self) -> Result<Vec<Remark>, Error> {
        let services = self.exclusions.services();
        let oldest = self.now() - services.scan_seconds.saturating_mul(2);
        let mut remarks = Vec::new();
        for name in &services.names {
            if !self.store.is_compared_since_restore(name)? {
                let text = format!("{name} was not compared with the record since the restore");
                remarks.push(Remark::attention(Question::Safe, text));
            }
            if let Some(last) = self.store.last_scan(name)?
                && last < oldest
            {
                let text = format!(
                    "{name} was last compared with the record at {last}; the log says why no scan \
                     has ended since"
                );
                remarks.push(Remark::attention(Question::Services, text));
            }
        }
        Ok(remarks)
    }

    /// Names the rolls of authorities that wait for an operator, and requests that wait for an
    /// approval.
    fn approval_remarks(&self) -> Result<Vec<Remark>, Error> {
        let mut remarks = Vec::new();
        for roll in self.store.open_authority_rolls()? {
            // A roll that cannot be read has an alarm of its own.
            let waits = self.rollovers.roll_waits_for(&roll);
            if waits.is_ok_and(|it| it.code == WaitCode::Approval) {
                let id = roll.id;
                let name = roll.subject.name();
                let text = format!("roll {id} of {name} waits for `hallmark roll approve {id}`");
                remarks.push(Remark::attention(Question::Operator, text));
            }
        }
        for request in self.approvals.waiting()? {
            let text = format!(
                "request {id} of {} ({}) waits for an approval: `hallmark approval show {id}`",
                request.asked_by,
                request.action,
                id = request.id
            );
            remarks.push(Remark::attention(Question::Operator, text));
        }
        Ok(remarks)
    }

    /// When the next authority stops to sign leaves: its name and RFC 3339.
    fn next_deadline(&self) -> Option<(String, String)> {
        let hierarchy = self.hierarchy();
        let now = self.now();
        let serving = hierarchy.iter().filter(|it| it.serving);
        let ends = serving.map(|it| (self.rollovers.window_end(it), &it.authority));
        let next = ends.filter(|(end, _)| *end > now).min();
        next.map(|(end, name)| (name.clone(), end.to_string()))
    }
}

impl Facts<'_> {
    /// Names the lists that lack revocations.
    fn list_remarks(&self) -> impl Iterator<Item = Remark> {
        let late = self.crls.iter().filter(|it| !it.up_to_date);
        // Of a generation with several lists, once.
        let late: BTreeSet<String> = late
            .map(|it| {
                format!(
                    "the list of {}, generation {}, does not have every revocation yet",
                    it.authority, it.generation
                )
            })
            .collect();
        late.into_iter()
            .map(|text| Remark::attention(Question::Safe, text))
    }

    /// Names the exclusions with open places. Places that the daemon cannot observe stay open
    /// after the operator has acted, so they are named and do not count.
    fn receipt_remarks(&self) -> impl Iterator<Item = Remark> {
        self.open_receipts.iter().map(|it| Remark {
            question: Question::Safe,
            severity: if it.can_be_finished() {
                Severity::Attention
            } else {
                Severity::Good
            },
            text: it.in_words(),
        })
    }
}

/// The facts, and what is to be said of them besides the alarms.
struct Judged<'a> {
    facts: &'a Facts<'a>,
    remarks: Vec<Remark>,
}

impl Judged<'_> {
    fn safe(&self) -> Answer {
        let good = match self.facts.blocked {
            0 => "nothing is blocked, no exclusion is pending, each list is up to date".to_owned(),
            blocks => {
                format!("{blocks} blocked, no exclusion is pending, each list is up to date")
            }
        };
        self.answer(Question::Safe, good)
    }

    /// Missing conditions of readiness come before the alarms, which name their causes.
    fn issuing(&self, signing: usize) -> Answer {
        if let Some(missing) = self.facts.not_ready.first() {
            let text = missing.text.clone();
            return self.give(Question::Issuing, Severity::Critical, text);
        }
        let good = format!(
            "{signing} authorities sign, {} certificates issued so far",
            self.facts.certificates
        );
        self.answer(Question::Issuing, good)
    }

    fn services(&self, ca_certificates: usize) -> Answer {
        let waiting = self.facts.push.waiting;
        let good = match (waiting, ca_certificates) {
            (0, 0) => "no CA certificate is at a provisioning service".to_owned(),
            (0, count) => format!("no change waits, {count} CA certificates as last observed"),
            _ => format!("{waiting} changes are on their way"),
        };
        self.answer(Question::Services, good)
    }

    /// Counts what an operator must deal with, and says by when something else is due.
    fn operator(&self, deadline: Option<(String, String)>) -> Answer {
        let mut matters = self
            .remarks
            .iter()
            .filter(|it| it.severity > Severity::Good);
        // A missing condition mostly has an alarm too.
        let found = self.facts.alarms.len() + matters.clone().count();
        let text = match found.max(self.facts.not_ready.len()) {
            0 => "nothing".to_owned(),
            1 => match matters.next() {
                Some(remark) => remark.text.clone(),
                None => "1 matter; `hallmark status --verbose` names it".to_owned(),
            },
            count => format!("{count} matters; `hallmark status --verbose` names them"),
        };
        let text = match deadline {
            None => text,
            Some((name, end)) => format!("{text}; authority {name} signs until {end}"),
        };
        let alarms = self.facts.alarms.iter().map(|it| it.code.severity());
        let remarks = self.remarks.iter().map(|it| it.severity);
        let missing = self.facts.not_ready.first().map(|_| Severity::Critical);
        let worst = alarms.chain(remarks).chain(missing).max();
        self.give(Question::Operator, worst.unwrap_or(Severity::Good), text)
    }

    /// Answers with the worst alarm or remark of the question, the earlier of two that are as bad;
    /// or with `good` if there is none.
    fn answer(&self, question: Question, good: String) -> Answer {
        let of_alarms = self
            .facts
            .alarms
            .iter()
            .filter(|it| it.code.question() == question)
            .map(|it| (it.code.severity(), it.text.as_str()));
        let of_remarks = self
            .remarks
            .iter()
            .filter(|it| it.question == question)
            .map(|it| (it.severity, it.text.as_str()));
        let found: Vec<_> = of_alarms.chain(of_remarks).collect();
        let worst = found.iter().rev().max_by_key(|(severity, _)| *severity);
        let Some((severity, text)) = worst else {
            return self.give(question, Severity::Good, good);
        };
        let text = match found.len() - 1 {
            0 => (*text).to_owned(),
            others => format!("{text} (and {others} more)"),
        };
        self.give(question, *severity, text)
    }

    fn give(&self, question: Question, severity: Severity, text: String) -> Answer {
        let remarks = self.remarks.iter().filter(|it| it.question == question);
        Answer {
            question,
            severity,
            text,
            remarks: remarks.map(|it| it.text.clone()).collect(),
        }
    }
}
