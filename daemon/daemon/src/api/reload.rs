//! Serves `POST /v1/reload` on the admin socket: reads the configuration again.
//!
//! `service::reload` does the work, one reload at a time; this file has permission and answer. A
//! configuration must never be applied in part.

use super::asks::{Asks, RoutePermission};
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::{Code, Error};
use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Reloads that may wait for the one under way.
pub const RELOADS_WAITING_MAX: usize = 8;

/// Asks the wiring for a reload.
pub type Reloads = mpsc::Sender<ReloadRequest>;

/// A reload whose caller waits for the answer.
pub struct ReloadRequest {
    /// The caller, for the audit journal.
    pub actor: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Reloaded, Error>>,
}

/// The answer of a reload.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Reloaded {
    /// The differences between both files; may be empty.
    pub changes: Vec<Change>,
    /// Sentences for the operator.
    pub notices: Vec<String>,
}

/// One thing in the configuration that is another now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ConfigurationChange")]
pub struct Change {
    /// The table, or the key outside all tables.
    pub table: String,
    /// The name of the entry, or the key within the table.
    pub name: Option<String>,
    /// Added, removed or changed.
    pub change: ChangeKind,
}

/// How a part of the configuration differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Removed,
    /// It says something else.
    Changed,
}

/// Permission to reload the configuration.
pub(super) struct Reload;

impl RoutePermission for Reload {
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
    asked.map_err(|_| {
        Error::later(
            1,
            Code::ReloadUnderWay,
            "another reload is running; repeat the command",
        )
    })?;
    let reloaded = reloaded.await;
    let reloaded = reloaded.map_err(|_| Error::later(1, Code::Stopping, "the daemon stops"))?;
    Ok(Json(reloaded?))
}
