//! Routes for tokens and for the daemon itself.

use super::Routes;
use crate::api::{
    audit, backups, clock, doctor, expiry, metrics, openapi, own_caller, reload, status, tokens,
};
use serde_json::json;

pub(super) fn tokens(routes: &mut Routes<'_>) {
    routes.tag = "Tokens";
    routes
        .get("/v1/tokens", tokens::list)
        .does("Lists the tokens that the modules show, with the configured ones.")
        .codes("look_under_way");
    routes
        .get("/v1/tokens/{name}", tokens::show)
        .does("Returns one configured token and its keys.")
        .codes("token_unknown");
    routes
        .post("/v1/tokens/{name}/check", tokens::check)
        .does(
            "Runs the contract of a token with keys that it makes and destroys. Answers in steps.",
        )
        .codes("trial_not_local trial_under_way token_unknown token_unavailable")
        .writes_steps();
    routes
        .post("/v1/doctor", doctor::run)
        .does(
            "Runs every check, or those named in `only`, and returns verdict, text and remedy of \
             each.",
        )
        .codes("trial_not_local trial_under_way check_unknown")
        .example(json!({ "only": ["clock", "disk"] }));
    routes
        .post("/v1/tokens/{name}/bench", tokens::bench)
        .does("Measures signatures of a token with a test key. Answers in steps.")
        .codes("trial_not_local trial_under_way bench_invalid token_unknown token_unavailable")
        .example(json!({ "key_types": ["p256"], "seconds": 1 }))
        .writes_steps();
}

pub(super) fn daemon(routes: &mut Routes<'_>) {
    routes.tag = "The daemon";
    routes
        .get("/healthz", status::healthy)
        .does("Answers 200 while the process works (text).");
    routes
        .get("/readyz", status::ready)
        .does("Answers 200 while certificates can be issued (text).")
        .codes("not_ready");
    routes
        .get("/metrics", metrics::show)
        .does("Returns metrics for Prometheus (text).");
    routes
        .get("/openapi.json", openapi::show)
        .does("Returns this document: every route as OpenAPI 3.1.");
    routes.get("/v1/expiry", expiry::list).does(
        "Counts the current certificates that end on each of the next 90 days, by profile and \
             authority.",
    );
    routes.get("/v1/caller", own_caller::show).does(
        "Returns as which caller the client is known, whether it may read everything and \
             change things, and the time of the daemon.",
    );
    routes
        .get("/v1/status", status::show)
        .does("Returns the state of everything, with alarms and conditions of readiness.");
    routes
        .post("/v1/reload", reload::reload)
        .does("Reads the configuration file again and applies it whole, or not at all.")
        .codes("reload_not_local reload_under_way configuration_refused restart_required");
    routes
        .post("/v1/backups", backups::create)
        .does(
            "Makes a backup of the database, checks it, and deletes the oldest. Answers in steps.",
        )
        .codes("backup_not_local backup_under_way backup_exists backup_failed")
        .writes_steps();
    routes
        .post("/v1/clock/accept", clock::accept)
        .does("Records that the present time of the machine is right.");
    routes.get("/v1/audit", audit::list).does(
        "Lists entries of the audit journal, in pages: from `?after=`, or `?last=` before \
             `?before=`; `device`, `authority`, `caller` and `since` leave out others.",
    );
    routes.get("/v1/audit/verification", audit::verify).does(
        "Verifies the audit journal whole: its hash chain, its checkpoints, their copy and the \
             schema of the database.",
    );
    routes
        .get("/v1/audit/checkpoints", audit::checkpoints)
        .does("Lists the signed checkpoints of the audit journal, in pages: from `?after=`.");
    routes
        .get("/v1/audit/keys", audit::keys)
        .does("Lists the public keys that have signed checkpoints of the audit journal.");
    routes
        .post("/v1/audit/accept", audit::accept)
        .does("Accepts the finding in the audit journal that stops issuance, and returns it.")
        .codes("audit_intact audit_broken reason_invalid reason_too_long token_unavailable")
        .example(json!({ "reason": "the backup of Monday was restored" }));
}
