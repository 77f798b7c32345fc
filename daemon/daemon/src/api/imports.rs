//! `POST /v1/authorities/{name}/imports`, on the admin socket: the names of files in, a line of
//! JSON for each step out.

use super::asks::{Asks, RoutePermission};
use super::body::JsonBody;
use super::parts::Path;
use super::problem::Problem;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::import::ImportFiles;
use crate::ca::{Code, Error};
use axum::response::Response;
use serde_json::json;

/// Permission to import what an adopted authority issued before. The daemon reads files of its
/// machine for it.
pub(super) struct Import;

impl RoutePermission for Import {
    type Permission = Operate;

    const LOCAL_ONLY: Option<(Code, &'static str)> =
        Some((Code::ImportNotLocal, "an import is made"));

    fn permit(caller: Caller) -> Result<Authorized<Operate>, Error> {
        Authorized::<Operate>::to_operate(caller)
    }
}

pub(super) async fn run(
    Asks {
        api, permission, ..
    }: Asks<Import>,
    Path(name): Path<String>,
    JsonBody(files): JsonBody<ImportFiles>,
) -> Result<Response, Problem> {
    Ok(api.steps(move |ca, steps| {
        let progress = |done, total| steps.count(done, total);
        let ceremonies = ca.ceremonies();
        let report = ceremonies.import(&permission, &name, &files, &progress)?;
        Ok(json!({ "report": report }))
    }))
}
