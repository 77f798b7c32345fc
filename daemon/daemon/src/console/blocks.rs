//! Shows what is blocked, and the answer of each place.

use super::components::{At, Part, Sentence, segment};
use super::refused::Refused;
use super::rolls::Receipt;
use super::table::{PAGE_ROWS, query};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// `all`, or only those in force.
    show: String,
    after: String,
}

/// The generation of a blocked authority.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Subject {
    generation: String,
}

#[derive(Deserialize)]
struct Block {
    kind: String,
    name: String,
    generation: Option<i64>,
    reason: String,
    blocked_by: String,
    blocked_at: At,
    lifted_by: Option<String>,
    lifted_at: Option<At>,
    receipt: Option<Receipt>,
}

impl Block {
    fn subject(&self) -> String {
        match self.generation {
            Some(number) => format!("{} {number}", self.name),
            None => self.name.clone(),
        }
    }

    fn address(&self) -> String {
        let generation = self
            .generation
            .map_or_else(String::new, |it| it.to_string());
        let criteria = query(&[("generation", &generation)]);
        let mark = if criteria.is_empty() { "" } else { "?" };
        let name = segment(&self.name);
        format!("/console/blocks/{}/{name}{mark}{criteria}", self.kind)
    }
}

#[derive(Template)]
#[template(path = "blocks.html")]
struct List {
    frame: Frame,
    all: bool,
    rows: Vec<Block>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "block.html")]
struct One {
    frame: Frame,
    block: Block,
}

/// Shows a page of the list.
pub(super) async fn list(visit: Visit, Query(which): Query<Which>) -> Result<Response, Refused> {
    let all = which.show == "all";
    let after = query(&[("after", &which.after)]);
    let path = format!("/v1/blocks?all={all}&limit={PAGE_ROWS}&{after}");
    let (rows, next) = visit.list(&path).await?;
    page(&List {
        frame: visit.frame("Blocks"),
        all,
        rows,
        next: next.map(|it| query(&[("show", &which.show), ("after", &it)])),
    })
}

/// Shows one block with its receipt.
pub(super) async fn show(
    visit: Visit,
    Path((kind, name)): Path<(String, String)>,
    Query(subject): Query<Subject>,
) -> Result<Response, Refused> {
    let generation = query(&[("generation", &subject.generation)]);
    let kind = segment(&kind);
    let name = segment(&name);
    let path = format!("/v1/blocks/{kind}/{name}?{generation}");
    page(&One {
        block: visit.get(&path).await?,
        frame: visit.frame("Blocks"),
    })
}
