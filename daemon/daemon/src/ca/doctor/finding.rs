//! The result of one check: its verdict, one sentence, and what to do.

use super::check::{Check, Verdict};
use crate::ca::alarm::Alarm;
use crate::ca::overview::Severity;
use schemars::JsonSchema;
use serde::Serialize;

/// The result of one check, or of one of its subjects.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Finding {
    pub check: Check,
    /// Which of several: a token, an authority, a plane of a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub verdict: Verdict,
    pub text: String,
    /// The next step, if something is to be done. Commands are between backquotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Finding {
    fn new(check: Check, verdict: Verdict, text: impl Into<String>) -> Self {
        let is_open = matches!(verdict, Verdict::Attention | Verdict::Failed);
        Self {
            check,
            subject: None,
            verdict,
            text: text.into(),
            remedy: is_open.then(|| check.remedy()),
        }
    }

    /// It is as it should be.
    pub fn ok(check: Check, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, text)
    }

    /// Nothing can be checked here; `text` says why.
    pub fn not_applicable(check: Check, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::NotApplicable, text)
    }

    /// Nothing wrong was found, and not everything could be found out; `text` says why.
    pub fn unknown(check: Check, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, text)
    }

    /// It works, and may stop to work.
    pub fn attention(check: Check, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Attention, text)
    }

    /// It does not work.
    pub fn failed(check: Check, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Failed, text)
    }

    /// Ok, or failed for a reason.
    pub fn from_result(check: Check, result: Result<String, String>) -> Self {
        match result {
            Ok(text) => Self::ok(check, text),
            Err(text) => Self::failed(check, text),
        }
    }

    /// Reports an alarm, with its own remedy.
    pub(super) fn from_alarm(alarm: &Alarm) -> Self {
        let verdict = match alarm.code.severity() {
            Severity::Critical => Verdict::Failed,
            _ => Verdict::Attention,
        };
        Self {
            remedy: Some(alarm.code.remedy()),
            ..Self::new(alarm.code.check(), verdict, alarm.text.clone())
        }
    }

    /// Names the one of several that was checked.
    #[must_use]
    pub fn of(self, subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..self
        }
    }
}
