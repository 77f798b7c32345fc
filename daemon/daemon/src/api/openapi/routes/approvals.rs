//! Routes for the approvals of a second person.

use super::Routes;
use crate::api::approvals;
use serde_json::json;

pub(super) fn approvals(routes: &mut Routes<'_>) {
    routes.tag = "Approvals";
    routes.get("/v1/approvals", approvals::list).does(
        "Lists requests for approvals, newest first, in pages; with `?waiting=true` those \
               that wait.",
    );
    routes
        .get("/v1/approvals/{id}", approvals::show)
        .does("Returns one request with its document and signature.")
        .codes("not_found");
    routes
        .get("/v1/approvals/{id}/document", approvals::document)
        .does("Returns the bytes that an approver signs (text).")
        .codes("not_found");
    routes
        .post("/v1/approvals/{id}/signature", approvals::sign)
        .does("Approves a request by a signature over its document.")
        .codes(
            "not_found approval_decided approval_expired approval_invalid approval_own \
             approval_signature approver_refused certificate_malformed",
        )
        .example(json!({ "signature": "MEUCIQ==" }));
    routes
        .post("/v1/approvals/{id}/rejection", approvals::reject)
        .does("Rejects a request.")
        .codes("not_found approval_decided")
        .example(json!({}));
}
