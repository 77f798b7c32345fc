//! Shows the first page: whether all is well, in four sentences, and what to do if it is not.

use super::components::{At, Part, Sentence};
use super::refused::Refused;
use super::tokens::Token;
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::response::Response;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub(super) struct Status {
    now: At,
    overview: Vec<Answer>,
    alarm_details: Vec<Alarm>,
    issued: Issued,
    certificates: i64,
    tokens: BTreeMap<String, Token>,
    push: Push,
    blocked: i64,
}

#[derive(Deserialize)]
struct Answer {
    question: String,
    severity: String,
    text: String,
    remarks: Vec<String>,
}

#[derive(Deserialize)]
struct Alarm {
    code: String,
    severity: String,
    text: String,
    remedy: String,
}

#[derive(Deserialize)]
struct Issued {
    last_hour: i64,
    last_day: i64,
}

#[derive(Deserialize)]
struct Push {
    waiting: i64,
    parked: i64,
    since: Option<At>,
}

/// A generation, as the list of authorities has it. While it waits for its certificate it has no
/// end.
#[derive(Deserialize)]
struct Generation {
    name: String,
    #[serde(default)]
    serving: bool,
    not_after: Option<At>,
}

/// The authority that ends next.
struct Ending {
    name: String,
    at: At,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    frame: Frame,
    status: Status,
    ending: Option<Ending>,
}

impl Answer {
    fn in_words(&self) -> &'static str {
        match self.question.as_str() {
            "safe" => "Is it safe?",
            "issuing" => "Is it issuing?",
            "services" => "Is the cloud in step?",
            _ => "What needs me, and by when?",
        }
    }

    /// The sentence without the command that shows what this page shows below.
    fn sentence(&self) -> Sentence<'_> {
        let tail = "; `hallmark status --verbose` name";
        Sentence(self.text.split_once(tail).map_or(&self.text, |it| it.0))
    }

    /// The remarks that the sentence does not say.
    fn further(&self) -> impl Iterator<Item = Sentence<'_>> {
        let said = self.text.as_str();
        let further = self.remarks.iter().filter(move |it| !said.starts_with(*it));
        further.map(|it| Sentence(it))
    }
}

impl Status {
    fn tokens_ready(&self) -> usize {
        let is_ready = |it: &&Token| it.state == "ready";
        self.tokens.values().filter(is_ready).count()
    }
}

/// Shows the page.
pub(super) async fn show(visit: Visit) -> Result<Response, Refused> {
    let status: Status = visit.get("/v1/status").await?;
    let generations: Vec<Generation> = visit.get("/v1/authorities").await?;
    let serving = generations.into_iter().filter(|it| it.serving);
    let ends = serving.filter_map(|it| Some((it.not_after?, it.name)));
    let ending = ends.min().map(|(at, name)| Ending { name, at });
    page(&Page {
        frame: visit.frame("Overview"),
        status,
        ending,
    })
}
