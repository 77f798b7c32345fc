//! Shows the tokens: state, keys, and what their workers did to recover them.

use super::components::{self, Part, Sentence, segment};
use super::refused::Refused;
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Status {
    tokens: BTreeMap<String, Token>,
}

/// A token, as the state of everything has it.
#[derive(Deserialize)]
pub(super) struct Token {
    pub(super) state: String,
    reason: Option<String>,
    restarts: u64,
    recoveries: Recoveries,
}

#[derive(Deserialize)]
struct Recoveries {
    sessions: u64,
    logins: u64,
    initializations: u64,
}

/// The token's description of itself, and its keys.
#[derive(Deserialize)]
struct Report {
    family: String,
    label: String,
    serial: String,
    manufacturer: String,
    model: String,
    remarks: Vec<String>,
    pin_bytes: (u64, u64),
    sessions: u64,
    sessions_open: Option<u64>,
    keys: Vec<Key>,
    unusable: Vec<String>,
}

#[derive(Deserialize)]
struct Key {
    label: String,
    key_type: Option<String>,
    purpose: String,
    spki_sha256: String,
    sensitive: bool,
    extractable: bool,
    proofs: i64,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct List {
    frame: Frame,
    tokens: BTreeMap<String, Token>,
}

#[derive(Template)]
#[template(path = "token.html")]
struct One {
    frame: Frame,
    name: String,
    token: Option<Token>,
    /// Why the token does not answer, if it does not.
    report: Result<Report, String>,
}

impl Token {
    /// The severity of its state.
    pub(super) fn severity(&self) -> &'static str {
        match self.state.as_str() {
            "ready" if self.reason.is_none() => "good",
            "parked" => "critical",
            _ => "attention",
        }
    }
}

/// Shows all tokens, without asking one.
pub(super) async fn list(visit: Visit) -> Result<Response, Refused> {
    let Status { tokens } = visit.get("/v1/status").await?;
    page(&List {
        frame: visit.frame("Tokens"),
        tokens,
    })
}

/// Shows one token, which is asked for its keys.
pub(super) async fn show(visit: Visit, Path(name): Path<String>) -> Result<Response, Refused> {
    let Status { mut tokens } = visit.get("/v1/status").await?;
    let report = visit.get(&format!("/v1/tokens/{}", segment(&name))).await;
    let token = tokens.remove(&name);
    let report = match report {
        Ok(report) => Ok(report),
        // A token that is away has a state all the same.
        Err(refused) if token.is_some() => Err(refused.detail()),
        Err(refused) => return Err(refused),
    };
    page(&One {
        frame: visit.frame("Tokens"),
        name,
        token,
        report,
    })
}
