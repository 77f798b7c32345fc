//! Checks whether a token keeps the contract, and measures how fast it is.
//!
//! Check and bench make throw-away keys and delete them; they must never touch another key. One of
//! them runs at a time, beside issuance.

use super::authorize::{Authorized, Operate};
use super::{Code, Error, Issuer};
use crate::printable::Page;
use crate::store::AuditEntry;
use crate::token::TokenDescription;
use crate::token::bench::{self, Plan};
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::contract::{self, Scope, Verdict};
use crate::x509::key::KeyType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long one measurement of the bench may take, in seconds.
pub const BENCH_SECONDS: RangeInclusive<u32> = 1..=20;

/// The parameters of a measurement.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchRequest {
    /// Kinds of key; all, if none is named.
    #[serde(default)]
    pub key_types: Vec<KeyType>,
    /// How long each measurement takes.
    pub seconds: u32,
}

/// A report of the check or the bench, for people and for machines.
#[derive(Clone, Debug, Serialize)]
pub struct DiagnosticsReport {
    /// The token's name in the configuration.
    pub token: String,
    pub at: String,
    /// The version of this daemon.
    pub hallmark: &'static str,
    /// The token's description of itself.
    pub description: TokenDescription,
    /// Whether nothing failed and nothing was left behind.
    pub good: bool,
    /// The contents that were read.
    #[serde(flatten)]
    pub found: Diagnostics,
}

/// The contents that were read.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Diagnostics {
    Check(contract::Report),
    Bench(bench::Report),
}

/// Runs checks and benches of tokens.
pub struct TokenDiagnostics {
    issuer: Arc<Issuer>,
    /// One check or bench at a time.
    running: Arc<Mutex<()>>,
}

impl TokenDiagnostics {
    pub(super) fn new(issuer: Arc<Issuer>, running: Arc<Mutex<()>>) -> Self {
        Self { issuer, running }
    }

    /// Runs the contract on the token `name`, and reports each check to `progress`.
    pub fn check(
        &self,
        permission: &Authorized<Operate>,
        name: &str,
        progress: &dyn Fn(String),
    ) -> Result<DiagnosticsReport, Error> {
        let token = self.issuer.known_token(name)?;
        let _alone = self.alone()?;
        let description = token.client.describe(LOOKUP_DEADLINE)?;
        let scope = Scope {
            key_types: &KeyType::ALL,
            tells_local: token.traits.tells_local,
        };
        let mut report_line = |check: &contract::Check| progress(line_of(check));
        let report = contract::check_client(&token.client, scope, &mut report_line);
        let good = report.is_good();
        self.record_diagnostics(permission, "token.checked", name, &report.left_behind, good)?;
        Ok(self.report(name, description, good, Diagnostics::Check(report)))
    }

    /// Measures the token `name`, and reports each measurement to `progress`.
    pub fn bench(
        &self,
        permission: &Authorized<Operate>,
        name: &str,
        request: BenchRequest,
        progress: &dyn Fn(String),
    ) -> Result<DiagnosticsReport, Error> {
        if !BENCH_SECONDS.contains(&request.seconds) {
            let least = BENCH_SECONDS.start();
            let most = BENCH_SECONDS.end();
            let message = format!("`seconds` must be {least} to {most}");
            return Err(Error::invalid(Code::BenchInvalid, message));
        }
        let token = self.issuer.known_token(name)?;
        let _alone = self.alone()?;
        let description = token.client.describe(LOOKUP_DEADLINE)?;
        let mut key_types = request.key_types;
        key_types.sort_unstable();
        key_types.dedup();
        if key_types.is_empty() {
            key_types = KeyType::ALL.to_vec();
        }
        let plan = Plan {
            key_types,
            sessions: token.traits.sessions,
            duration: Duration::from_secs(request.seconds.into()),
        };
        let mut report_line = |row: &bench::Row| progress(meaning_of(row));
        let report = bench::measure(&token.client, &plan, &mut report_line);
        let good = report.left_behind.is_empty() && !report.rows.is_empty();
        self.record_diagnostics(permission, "token.benched", name, &report.left_behind, good)?;
        Ok(self.report(name, description, good, Diagnostics::Bench(report)))
    }

    /// Holds off other checks, benches and runs of the doctor.
    pub(super) fn alone(&self) -> Result<MutexGuard<'_, ()>, Error> {
        self.running.try_lock().map_err(|_| {
            let message = "another check, bench or doctor is under way; wait for it";
            Error::conflict(Code::TrialUnderWay, message)
        })
    }

    fn record_diagnostics(
        &self,
        permission: &Authorized<Operate>,
        action: &'static str,
        name: &str,
        left_behind: &[String],
        good: bool,
    ) -> Result<(), Error> {
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action,
            subject: name.to_owned(),
            detail: json!({ "good": good, "left_behind": left_behind }),
        };
        Ok(pollster::block_on(self.issuer.store().record_audit(entry))?)
    }

    fn report(
        &self,
        name: &str,
        description: TokenDescription,
        good: bool,
        found: Diagnostics,
    ) -> DiagnosticsReport {
        DiagnosticsReport {
            token: name.to_owned(),
            at: self.issuer.now().to_string(),
            hallmark: env!("CARGO_PKG_VERSION"),
            description,
            good,
            found,
        }
    }
}

impl DiagnosticsReport {
    /// The report as text, for people and for the token's vendor.
    pub fn to_text(&self) -> String {
        let token = &self.description;
        let mut page = Page::default();
        page.lines([
            format!(
                "Token     {}: label {}, serial {}",
                self.token, token.label, token.serial
            ),
            format!(
                "Made by   {} {}, firmware {}",
                token.manufacturer, token.model, token.firmware
            ),
            format!("Module    {}", token.interface),
            format!("Hallmark  {}, {}", self.hallmark, self.at),
            String::new(),
        ]);
        let left_behind = match &self.found {
            Diagnostics::Check(report) => {
                write_check(&mut page, report);
                &report.left_behind
            }
            Diagnostics::Bench(report) => {
                write_bench(&mut page, report);
                &report.left_behind
            }
        };
        let line = |left: &String| format!("LEFT BEHIND, delete it with the vendor's tool: {left}");
        page.lines(left_behind.iter().map(line));
        page.into_text()
    }
}

fn write_check(page: &mut Page, report: &contract::Report) {
    page.lines(report.checks.iter().map(line_of));
    let count =
        |is: fn(&Verdict) -> bool| report.checks.iter().filter(|it| is(&it.verdict)).count();
    page.line("");
    page.line(&format!(
        "{} passed, {} failed, {} not supported",
        count(|it| *it == Verdict::Passed),
        count(|it| matches!(it, Verdict::Failed(_))),
        count(|it| matches!(it, Verdict::NotSupported(_)))
    ));
}

/// One check in one line.
fn line_of(check: &contract::Check) -> String {
    let key_type = check.key_type.map_or("-", KeyType::name);
    let (verdict, reason) = match &check.verdict {
        Verdict::Passed => ("passed", ""),
        Verdict::Failed(reason) => ("FAILED", reason.as_str()),
        Verdict::NotSupported(reason) => ("not supported", reason.as_str()),
    };
    let line = format!("{verdict:14} {key_type:8} {}", check.operation);
    if reason.is_empty() {
        return line;
    }
    format!("{line}: {reason}")
}

fn write_bench(page: &mut Page, report: &bench::Report) {
    page.lines(report.rows.iter().map(meaning_of));
    let line = |reason: &String| format!("not measured  {reason}");
    page.lines(report.not_measured.iter().map(line));
}

/// One measurement in one line, and what it means.
fn meaning_of(row: &bench::Row) -> String {
    format!(
        "{:8} {:3} at a time, sessions at work {:2}: {:6} signatures/s, half within {:.1} ms, 99 % \
         within {:.1} ms: at most {} leaves an hour",
        row.key_type.name(),
        row.in_flight,
        row.sessions,
        row.signatures_per_second,
        row.median_us as f64 / 1e3,
        row.percentile_99_us as f64 / 1e3,
        grouped(row.leaves_per_hour)
    )
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped_by_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_200, "1,200"),
            (61_200_000, "61,200,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
