//! `POST /v1/reload`, on the admin socket: the configuration is read anew.
//!
//! The wiring does it, one at a time; here is only who may ask, and what is answered. It must never take
//! a configuration by parts.

use super::asks::{Asks, Right};
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::{Code, Error};
use axum::Json;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Reloads that may wait for the one under way.
pub const RELOADS_WAITING_MAX: usize = 8;

/// Asks the wiring for a reload.
pub type Reloads = mpsc::Sender<ReloadRequest>;

/// A reload that somebody waits for.
pub struct ReloadRequest {
    /// Who asks, for the audit journal.
    pub actor: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Reloaded, Error>>,
}

/// What a reload has changed.
#[derive(Clone, Debug, Serialize)]
pub struct Reloaded {
    /// What is another in the file; empty if nothing is.
    pub changes: Vec<Change>,
    /// What a person has to do or to know, in words.
    pub notices: Vec<String>,
}

/// One thing in the configuration that is another now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The table, or the key outside all tables.
    pub table: String,
    /// The name of the entry, or the key within the table.
    pub name: Option<String>,
    /// What happened to it.
    pub change: ChangeKind,
}

/// What happened to a part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Changed,
}

/// Permission to reload the configuration.
pub(super) struct Reload;

impl Right for Reload {
    type Permission = Operate;

    const LOCAL_ONLY: Option<(Code, &'static str)> =
        Some((Code::ReloadNotLocal, "the configuration is reloaded"));

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

pub(super) async fn reload(
    Asks {
        api, permission, ..
    }: Asks<Reload>,
) -> Result<Json<Reloaded>, Problem> {
    let (answer, reloaded) = oneshot::channel();
    let request = ReloadRequest {
        actor: permission.caller().to_string(),
        answer,
    };
    let asked = api.shared.reloads.try_send(request);
    asked.map_err(|_| Error::later(1, Code::ReloadUnderWay, "others are reloading; come back"))?;
    let reloaded = reloaded.await;
    let reloaded = reloaded.map_err(|_| Error::later(1, Code::Stopping, "the daemon stops"))?;
    Ok(Json(reloaded?))
}
