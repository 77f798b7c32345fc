//! Shows authorities and their generations as a tree, and when each signs, on one time line.

use super::components::{self, At};
use super::refused::Refused;
use super::slots::{Holder, holding};
use super::timeline::{Bar, Slot, Timeline};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::response::Response;
use serde::Deserialize;

/// A generation. While it waits for its certificate it has its name and state alone.
#[derive(Deserialize)]
struct Generation {
    name: String,
    generation: Option<i64>,
    #[serde(default)]
    serving: bool,
    #[serde(default)]
    state: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    thumbprint: String,
    #[serde(default)]
    key_type: String,
    #[serde(default)]
    token: String,
    not_before: Option<At>,
    not_after: Option<At>,
    signs_until: Option<At>,
    revoked_at: Option<At>,
    blocked: Option<serde_json::Value>,
    crl_next_update: Option<At>,
    /// The slots of groups that hold its certificate.
    #[serde(skip)]
    slots: Vec<Slot>,
}

/// A CA certificate at a provisioning service.
#[derive(Deserialize)]
struct AtService {
    provisioning: String,
    authority: String,
    generation: Option<i64>,
    state: String,
}

/// An authority below another one, or a root.
struct Node {
    name: String,
    depth: usize,
    generations: Vec<Generation>,
}

#[derive(Template)]
#[template(path = "hierarchy.html")]
struct Page {
    frame: Frame,
    nodes: Vec<Node>,
    services: Vec<AtService>,
    windows: Timeline,
    /// The authority whose window ends next, and when.
    next: Option<(String, At)>,
}

impl Generation {
    fn number(&self) -> i64 {
        self.generation.unwrap_or_default()
    }

    /// Whether it has its certificate.
    fn is_certified(&self) -> bool {
        self.generation.is_some() && self.not_after.is_some()
    }

    /// When it stops to sign leaves, if it signs any.
    fn window(&self) -> Option<At> {
        self.signs_until.filter(|_| self.serving)
    }

    /// Its state in one word, and the severity.
    fn shown(&self) -> (&str, &'static str) {
        if self.revoked_at.is_some() {
            return ("revoked", "critical");
        }
        if self.blocked.is_some() {
            return ("blocked", "critical");
        }
        match self.state.as_str() {
            "serving" => ("serving", "good"),
            "staged" | "planned" => (&self.state, "attention"),
            "" => ("waits for its certificate", "attention"),
            other => (other, ""),
        }
    }

    fn bar(&self) -> Option<Bar> {
        Some(Bar {
            label: format!("{} {}", self.name, self.number()),
            state: self.shown().0.to_owned(),
            slots: self.slots.clone(),
            begins: self.not_before?.0,
            ends: self.not_after?.0,
            acts_until: self.signs_until.map(|it| it.0),
            class: match self.shown() {
                (_, "") => "quiet",
                (_, severity) => severity,
            },
        })
    }
}

impl Page {
    /// Where a generation's certificate is held, as last observed.
    fn held<'a>(&'a self, of: &'a Generation) -> impl Iterator<Item = &'a AtService> {
        let is_its =
            move |it: &&AtService| it.authority == of.name && it.generation == of.generation;
        self.services.iter().filter(is_its)
    }
}

/// Shows the page.
pub(super) async fn show(visit: Visit) -> Result<Response, Refused> {
    let mut generations: Vec<Generation> = visit.get("/v1/authorities").await?;
    let groups: Vec<Holder> = visit.get("/v1/enrollments?groups=true&limit=1000").await?;
    for it in &mut generations {
        it.slots = holding(&groups, &it.thumbprint);
    }
    let services = visit.get("/v1/ca-certificates").await?;
    let frame = visit.frame("Hierarchy");
    let serving = generations.iter().filter(|it| it.serving);
    let windows = serving.filter_map(|it| Some((it.signs_until?, it.name.clone())));
    let next = windows.min().map(|(until, name)| (name, until));
    let nodes = tree(generations);
    let all = nodes.iter().flat_map(|it| &it.generations);
    let bars = all.filter_map(Generation::bar).collect();
    page(&Page {
        windows: Timeline::new("Generations and their signing windows", frame.now, bars),
        frame,
        nodes,
        services,
        next,
    })
}

/// Orders authorities as a tree: each below the one that signed its newest generation. An authority
/// whose issuer is elsewhere is at the top.
fn tree(generations: Vec<Generation>) -> Vec<Node> {
    let mut waiting: Vec<Node> = Vec::new();
    for generation in generations {
        let name = generation.name.clone();
        match waiting.iter_mut().find(|it| it.name == name) {
            Some(node) => node.generations.push(generation),
            None => waiting.push(Node {
                name,
                depth: 0,
                generations: vec![generation],
            }),
        }
    }
    let of_issuer = |node: &Node, all: &[Node]| {
        let newest = node.generations.last()?;
        let is_issuer = |it: &&Node| {
            it.name != node.name && it.generations.iter().any(|it| it.subject == newest.issuer)
        };
        all.iter().find(is_issuer).map(|it| it.name.clone())
    };
    let issuers: Vec<_> = waiting.iter().map(|it| of_issuer(it, &waiting)).collect();
    let mut below: Vec<(Option<String>, Node)> = issuers.into_iter().zip(waiting).collect();
    let mut nodes = Vec::new();
    place(None, 0, &mut below, &mut nodes);
    // Two authorities with one subject could name each other.
    nodes.extend(below.into_iter().map(|(_, node)| node));
    nodes
}

fn place(
    issuer: Option<&str>,
    depth: usize,
    left: &mut Vec<(Option<String>, Node)>,
    nodes: &mut Vec<Node>,
) {
    while let Some(at) = left.iter().position(|it| it.0.as_deref() == issuer) {
        let (_, mut node) = left.remove(at);
        node.depth = depth;
        let name = node.name.clone();
        nodes.push(node);
        place(Some(&name), depth + 1, left, nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(name: &str, subject: &str, issuer: &str) -> Generation {
        let json = serde_json::json!({ "name": name, "subject": subject, "issuer": issuer });
        serde_json::from_value(json).expect("a generation")
    }

    #[test]
    fn authorities_are_below_their_issuers() {
        let nodes = tree(vec![
            generation("line-1", "L", "P"),
            generation("root", "R", "R"),
            generation("plant", "P", "R"),
            generation("line-1", "L", "P"),
            generation("elsewhere", "E", "X"),
            generation("twin-a", "A", "B"),
            generation("twin-b", "B", "A"),
        ]);
        let shape = nodes.iter().map(|it| (it.name.as_str(), it.depth));
        let expected = [
            ("root", 0),
            ("plant", 1),
            ("line-1", 2),
            ("elsewhere", 0),
            ("twin-a", 0),
            ("twin-b", 0),
        ];
        assert_eq!(shape.collect::<Vec<_>>(), expected);
    }
}
