//! Shows rollovers: how far each is, what it waits for, and what is left to do.

use super::components::{self, At, Part, Sentence};
use super::refused::Refused;
use super::table::{PAGE_ROWS, query};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// `all`, or only those under way.
    show: String,
    after: String,
}

#[derive(Deserialize)]
pub(super) struct Roll {
    pub(super) id: i64,
    provisioning: Option<String>,
    registration_id: Option<String>,
    authority: Option<String>,
    reason: String,
    state: String,
    pub(super) waits_for: String,
    estimate: Option<String>,
    hub_progress: Option<String>,
    device_seen: Option<String>,
    old_certificate: String,
    old_not_after: At,
    new_certificate: Option<String>,
    started_by: String,
    started_at: At,
    changed_at: At,
    receipt: Option<Receipt>,
}

/// The answer of each place to an exclusion.
#[derive(Deserialize)]
pub(super) struct Receipt {
    pub(super) complete: bool,
    pub(super) places: Vec<Place>,
}

#[derive(Deserialize)]
pub(super) struct Place {
    pub(super) place: String,
    pub(super) state: String,
    pub(super) answer: String,
}

impl Place {
    /// The severity of its state.
    pub(super) fn severity(&self) -> &'static str {
        match self.state.as_str() {
            "done" => "good",
            "pending" => "attention",
            _ => "critical",
        }
    }
}

/// The devices of a rolled authority.
#[derive(Deserialize)]
struct Report {
    leaves_under_the_old: i64,
    devices_on_the_old: i64,
    devices_on_the_new: i64,
    devices_seen_on_the_new: i64,
    devices_silent: i64,
    expiring_before_retirement: i64,
    reissue: Vec<Reissue>,
    not_reached: Vec<String>,
}

#[derive(Deserialize)]
struct Reissue {
    registration_id: String,
    not_after: At,
}

/// Devices that a page names.
const DEVICES_SHOWN: usize = 100;

impl Report {
    /// How many of a hundred devices have a new leaf.
    fn percent(&self) -> i64 {
        let all = self.devices_on_the_old + self.devices_on_the_new;
        self.devices_on_the_new * 100 / all.max(1)
    }
}

/// The steps of a rollover by expiry and by compromise, in their order.
const EXPIRY: &[&str] = &["requested", "staged", "draining", "done"];
const COMPROMISE: &[&str] = &["excluding", "clearing", "reissuing", "draining", "done"];

impl Roll {
    pub(super) fn subject(&self) -> &str {
        let subject = self.authority.as_ref().or(self.registration_id.as_ref());
        subject.map_or("", String::as_str)
    }

    pub(super) fn kind(&self) -> &'static str {
        if self.authority.is_some() {
            "authority"
        } else {
            "device"
        }
    }

    fn severity(&self) -> &'static str {
        match (self.state.as_str(), self.reason.as_str()) {
            ("done", _) => "good",
            ("aborted", _) => "",
            (_, "compromise") => "critical",
            _ => "attention",
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "aborted")
    }

    /// Each step, and whether it is past (`past`), taken now (`now`) or to come.
    fn steps(&self) -> Vec<(&'static str, &'static str)> {
        let steps = if self.reason == "compromise" {
            COMPROMISE
        } else {
            EXPIRY
        };
        let at = steps.iter().position(|it| *it == self.state);
        let shown = |(index, step): (usize, &&'static str)| {
            let class = match at {
                Some(at) if index < at || self.state == "done" => "past",
                Some(at) if index == at => "now",
                _ => "",
            };
            (*step, class)
        };
        (0..).zip(steps).map(shown).collect()
    }
}

#[derive(Template)]
#[template(path = "rolls.html")]
struct List {
    frame: Frame,
    all: bool,
    rows: Vec<Roll>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "roll.html")]
struct One {
    frame: Frame,
    roll: Roll,
    report: Option<Report>,
}

/// Shows a page of the list.
pub(super) async fn list(visit: Visit, Query(which): Query<Which>) -> Result<Response, Refused> {
    let all = which.show == "all";
    let after = query(&[("after", &which.after)]);
    let path = format!("/v1/rolls?open={}&limit={PAGE_ROWS}&{after}", !all);
    let (rows, next) = visit.list(&path).await?;
    page(&List {
        frame: visit.frame("Rolls"),
        all,
        rows,
        next: next.map(|it| query(&[("show", &which.show), ("after", &it)])),
    })
}

/// Shows one rollover.
pub(super) async fn show(visit: Visit, Path(id): Path<i64>) -> Result<Response, Refused> {
    let roll = visit.get(&format!("/v1/rolls/{id}")).await?;
    let report = visit.get(&format!("/v1/rolls/{id}/report")).await?;
    page(&One {
        frame: visit.frame("Rolls"),
        roll,
        report,
    })
}
