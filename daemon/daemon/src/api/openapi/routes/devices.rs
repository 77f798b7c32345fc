//! Routes for devices, enrollments, rollovers and blocks.

use super::Routes;
use crate::api::{authority_rolls, blocks, compromises, device_credentials, devices};
use crate::api::{enrollments, push, rolls};
use axum::http::StatusCode;
use serde_json::json;

pub(super) fn devices_and_enrollments(routes: &mut Routes<'_>) {
    routes.tag = "Devices and enrollments";
    routes
        .get("/v1/device-credentials", device_credentials::list)
        .does("Lists one-time credentials without their secrets, in pages.");
    routes
        .post("/v1/device-credentials", device_credentials::make)
        .does(
            "Makes a one-time credential, by stations within their tables; `secret` is in this \
             answer alone. 201.",
        )
        .codes(
            "credential_invalid profile_unknown registration_id_invalid registration_id_reserved \
             role_forbidden station_not_bound station_profile_forbidden station_id_forbidden \
             clock_not_sane",
        )
        .example(json!({ "registration_id": "press-7", "profile": "device", "expires": "24h" }));
    routes
        .delete("/v1/device-credentials/{id}", device_credentials::revoke)
        .does("Revokes the one-time credential of this registration id that was not used. 204.")
        .codes("credential_unknown")
        .writes_nothing(StatusCode::NO_CONTENT);
    routes
        .get("/v1/devices", devices::list)
        .does("Lists the devices, in pages.");
    routes
        .get("/v1/devices/{id}", devices::show)
        .does("Returns one device with its leaf and its enrollments.")
        .codes("device_unknown");
    routes
        .get("/v1/devices/{id}/compromise", compromises::of_device)
        .does("Says what a compromise of this device would change, and changes nothing.")
        .codes("device_unknown registration_id_invalid registration_id_reserved");
    routes.get("/v1/enrollments", enrollments::list).does(
        "Lists the enrollments, in pages; with `?unknown=true` those at the services that \
             have no record here, with `?groups=true` groups alone.",
    );
    routes
        .post("/v1/enrollments", enrollments::add)
        .does("Adds an individual enrollment or a group. 201.")
        .codes(
            "enrollment_invalid enrollment_group_id_invalid registration_id_invalid \
             registration_id_reserved provisioning_unknown authority_unknown device_blocked \
             group_blocked issuer_revoked",
        )
        .example(json!({ "kind": "individual", "name": "press-7" }));
    routes
        .get("/v1/enrollments/{name}", enrollments::show)
        .does("Returns the enrollments of this name, with the difference where they drifted.")
        .codes("enrollment_unknown");
    routes
        .delete("/v1/enrollments/{kind}/{name}", enrollments::remove)
        .does("Marks an enrollment for removal at its service; `?override=` gives a reason. 202.")
        .codes(
            "enrollment_unknown enrollment_excludes provisioning_unknown device_blocked \
             group_blocked",
        )
        .writes_nothing(StatusCode::ACCEPTED);
    routes
        .post("/v1/enrollments/{kind}/{name}/adoption", enrollments::adopt)
        .does("Takes over an unknown enrollment that a scan has found at the service. 201.")
        .codes(
            "enrollment_unknown enrollment_invalid enrollment_excludes provisioning_unknown \
             certificate_revoked device_blocked group_blocked issuer_revoked",
        )
        .example(json!({ "provisioning": "dps" }));
    routes
        .get("/v1/push", push::list)
        .does("Lists the changes that wait for a provisioning service.");
    routes
        .post("/v1/push/retry", push::retry)
        .does("Makes waiting and parked changes due: all, or those with one name.")
        .codes("enrollment_unknown")
        .example(json!({ "name": "press-7" }));
}

pub(super) fn rollovers(routes: &mut Routes<'_>) {
    routes.tag = "Rollovers";
    routes
        .get("/v1/rolls", rolls::list)
        .does("Lists the rollovers, newest first, in pages.");
    routes
        .post("/v1/rolls", rolls::start)
        .does("Starts the rollover of a leaf, for expiry or compromise. 201.")
        .codes(
            "enrollment_unknown device_unknown device_blocked group_blocked roll_under_way \
             roll_slot_invalid slots_",
        )
        .example(json!({ "registration_id": "press-7", "reason": "expiry" }));
    routes
        .get("/v1/rolls/{id}", rolls::show)
        .does("Returns one rollover, and what it waits for.")
        .codes("not_found");
    routes
        .get("/v1/rolls/{id}/report", authority_rolls::report)
        .does(
            "Lists devices below a rolled authority that have no new leaf yet, and those that \
             could not be notified, 1,000 at most. `null` for a leaf's rollover.",
        )
        .codes("not_found");
    routes
        .post("/v1/rolls/{id}/approve", authority_rolls::approve)
        .does("Approves the next step of an authority's rollover.")
        .codes("not_found roll_not_approvable slots_")
        .example(json!({}));
    routes
        .post("/v1/rolls/{id}/abort", rolls::abort)
        .does("Aborts a rollover: the serving certificate stays.")
        .codes("not_found roll_old_certificate_dead roll_device_not_seen slots_")
        .example(json!({ "override": "the device was scrapped" }));
}

pub(super) fn blocks(routes: &mut Routes<'_>) {
    routes.tag = "Blocks";
    routes.get("/v1/blocks", blocks::list).does(
        "Lists what is blocked, in pages, without receipts; with `?all=true` lifted blocks, \
             too.",
    );
    routes
        .post("/v1/blocks", blocks::start)
        .does("Blocks a device, group or generation, and answers with a receipt. 201.")
        .codes("block_invalid reason_too_long device_unknown enrollment_unknown authority_unknown")
        .example(json!({ "kind": "device", "name": "press-7", "reason": "stolen" }));
    routes
        .get("/v1/blocks/{kind}/{name}", blocks::show)
        .does("Returns one block with its receipt.")
        .codes("block_unknown block_invalid");
    routes
        .delete("/v1/blocks/{kind}/{name}", blocks::lift)
        .does("Lifts a block.")
        .codes("block_unknown block_invalid");
}
