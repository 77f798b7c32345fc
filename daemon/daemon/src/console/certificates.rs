//! Lists certificates with filters, writes the list as CSV, and shows one certificate.

use super::components::{self, At, Part, Sentence, segment};
use super::refused::Refused;
use super::table::{File, PAGE_ROWS, csv_line, query};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use serde::{Deserialize, Serialize};

/// The criteria of the list, as the form has them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    subject: String,
    serial: String,
    profile: String,
    authority: String,
    state: String,
    expiring: String,
    issued_since: String,
    after: String,
}

impl Filter {
    /// The criteria without the page.
    fn query(&self) -> String {
        let is_thumbprint = self.serial.trim().len() == 64;
        let digits = if is_thumbprint { "sha256" } else { "serial" };
        query(&[
            ("subject", self.subject.trim()),
            (digits, self.serial.trim()),
            ("profile", self.profile.trim()),
            ("authority", &self.authority),
            ("state", &self.state),
            ("expiring", &self.expiring),
            ("issued_since", &self.issued_since),
        ])
    }

    /// The same for the form, which has one field for both digits.
    fn own_query(&self) -> String {
        self.query().replacen("sha256=", "serial=", 1)
    }
}

/// A certificate in the list, or an intent without one. Of a certificate from before an adoption
/// the serial number may be all that is known.
#[derive(Deserialize, Serialize)]
pub(super) struct Row {
    number: Option<i64>,
    pub(super) serial: String,
    pub(super) thumbprint: Option<String>,
    subject: Option<String>,
    role: Option<String>,
    profile: Option<String>,
    authority: Option<String>,
    generation: Option<i64>,
    pub(super) state: String,
    not_before: Option<String>,
    pub(super) not_after: Option<String>,
    issued_at: Option<String>,
    revoked_at: Option<String>,
    revocation_reason: Option<String>,
    #[serde(default)]
    pub(super) asked_by: Option<String>,
}

impl Row {
    /// Its state as a severity.
    pub(super) fn severity(&self) -> &'static str {
        severity(&self.state)
    }

    /// Its state in words.
    pub(super) fn words(&self) -> &str {
        words(&self.state)
    }

    /// When it ends.
    pub(super) fn ends(&self) -> Option<At> {
        At::read(self.not_after.as_deref()?)
    }

    /// When it was issued.
    pub(super) fn issued(&self) -> Option<At> {
        At::read(self.issued_at.as_deref()?)
    }

    /// From when it is valid.
    pub(super) fn begins(&self) -> Option<At> {
        At::read(self.not_before.as_deref()?)
    }

    /// The issuer with its generation.
    pub(super) fn issuer(&self) -> String {
        match (&self.authority, self.generation) {
            (Some(name), Some(number)) => format!("{name} {number}"),
            _ => "elsewhere".into(),
        }
    }

    fn csv(&self) -> String {
        let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
        let number = |value: Option<i64>| value.map_or_else(String::new, |it| it.to_string());
        csv_line(&[
            &number(self.number),
            &text(&self.subject),
            &text(&self.role),
            &text(&self.profile),
            &self.serial,
            &text(&self.thumbprint),
            &text(&self.authority),
            &number(self.generation),
            &self.state,
            &text(&self.not_before),
            &text(&self.not_after),
            &text(&self.issued_at),
            &text(&self.revoked_at),
            &text(&self.revocation_reason),
            &text(&self.asked_by),
        ])
    }
}

const CSV_HEAD: &str = "number,subject,role,profile,serial,sha256,authority,generation,state,\
                        not_before,not_after,issued_at,revoked_at,revocation_reason,asked_by\r\n";

/// The severity that a certificate's state is shown with.
pub(super) fn severity(state: &str) -> &'static str {
    match state {
        "valid" => "good",
        "on_hold" => "attention",
        "revoked" | "issuer_revoked" => "critical",
        _ => "",
    }
}

/// The words of a certificate's state.
pub(super) fn words(state: &str) -> &str {
    let found = STATES.iter().find(|(name, _)| *name == state);
    found.map_or(state, |(_, words)| words)
}

/// The states of a list, with their words.
const STATES: &[(&str, &str)] = &[
    ("", "any state"),
    ("valid", "valid"),
    ("expired", "expired"),
    ("revoked", "revoked"),
    ("on_hold", "on hold"),
    ("issuer_revoked", "issuer revoked"),
    ("abandoned", "abandoned"),
];
const ENDS: &[(&str, &str)] = &[
    ("", "at any time"),
    ("7d", "within 7 days"),
    ("30d", "within 30 days"),
    ("90d", "within 90 days"),
];
const SINCE: &[(&str, &str)] = &[
    ("", "at any time"),
    ("1h", "in the last hour"),
    ("1d", "in the last day"),
    ("7d", "in the last 7 days"),
    ("30d", "in the last 30 days"),
];

#[derive(Deserialize)]
struct Generation {
    name: String,
}

#[derive(Template)]
#[template(path = "certificates.html")]
struct List {
    frame: Frame,
    filter: Filter,
    authorities: Vec<String>,
    rows: Vec<Row>,
    /// Why there are none, in the words of the API.
    why_none: String,
    next: Option<String>,
}

impl List {
    fn states(&self) -> &'static [(&'static str, &'static str)] {
        STATES
    }

    fn ends(&self) -> &'static [(&'static str, &'static str)] {
        ENDS
    }

    fn since(&self) -> &'static [(&'static str, &'static str)] {
        SINCE
    }
}

/// Shows a page of the list.
pub(super) async fn list(visit: Visit, Query(filter): Query<Filter>) -> Result<Response, Refused> {
    let criteria = filter.query();
    let after = query(&[("after", &filter.after)]);
    let path = format!("/v1/certificates?limit={PAGE_ROWS}&{criteria}&{after}");
    let (rows, next, why_none) = match visit.list::<Row>(&path).await {
        Ok((rows, next)) => (rows, next, String::new()),
        Err(refused) if refused.is_of_input() => (Vec::new(), None, refused.detail()),
        Err(refused) => return Err(refused),
    };
    let generations: Vec<Generation> = visit.get("/v1/authorities").await?;
    let mut authorities: Vec<String> = generations.into_iter().map(|it| it.name).collect();
    authorities.sort();
    authorities.dedup();
    let own = filter.own_query();
    page(&List {
        frame: visit.frame("Certificates"),
        next: next.map(|after| format!("?{own}&after={after}")),
        filter,
        authorities,
        rows,
        why_none,
    })
}

/// Writes the whole list as CSV.
pub(super) async fn csv(visit: Visit, Query(filter): Query<Filter>) -> Result<Response, Refused> {
    let file = File::<Row> {
        name: "certificates.csv",
        content_type: "text/csv; charset=utf-8",
        head: CSV_HEAD,
        path: format!("/v1/certificates?{}", filter.query()),
        line: Row::csv,
        // Rows without a number are on the last page.
        after: |row| row.number.unwrap_or_default().to_string(),
    };
    file.write(visit).await
}

/// A certificate, and what is on record of it.
#[derive(Deserialize)]
pub(super) struct Found {
    subject: Option<String>,
    profile: Option<String>,
    role: Option<String>,
    serial: String,
    thumbprint: Option<String>,
    authority: Option<String>,
    generation: Option<i64>,
    not_before: Option<At>,
    not_after: Option<At>,
    certificate: Option<String>,
    pub(super) record: Option<Explanation>,
    #[serde(default)]
    notices: Vec<String>,
}

/// The record of a certificate besides its bytes.
#[derive(Deserialize)]
pub(super) struct Explanation {
    state: String,
    asked_by: String,
    permission: String,
    issued_at: Option<At>,
    signed_by: Option<SignedBy>,
    revoked_above: Option<String>,
    pub(super) in_force: Vec<InForce>,
    revocations: Vec<Revocation>,
}

#[derive(Deserialize)]
struct SignedBy {
    token: String,
    key: String,
}

/// A place that accepts a certificate, as far as it was observed.
#[derive(Deserialize)]
pub(super) struct InForce {
    pub(super) place: String,
    pub(super) observed_at: Option<At>,
    pub(super) answer: String,
}

#[derive(Deserialize)]
struct Revocation {
    at: At,
    by: String,
    reason: Option<String>,
    cause: String,
    first_list: Option<String>,
}

impl Found {
    /// Whether it is a device's.
    pub(super) fn device(&self) -> Option<&str> {
        let is_device = self.role.as_deref() == Some("device");
        self.subject.as_deref().filter(|_| is_device)
    }
}

#[derive(Template)]
#[template(path = "certificate.html")]
struct One {
    frame: Frame,
    found: Found,
}

/// Shows one certificate by its serial number or thumbprint.
pub(super) async fn show(visit: Visit, Path(digits): Path<String>) -> Result<Response, Refused> {
    let path = format!("/v1/certificates/{}", segment(&digits));
    page(&One {
        found: visit.get(&path).await?,
        frame: visit.frame("Certificates"),
    })
}
