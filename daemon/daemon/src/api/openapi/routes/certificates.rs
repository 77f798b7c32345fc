//! Routes for leaves and profiles.

use super::super::examples::{CSR, NEXT_CSR};
use super::Routes;
use crate::api::{
    batch, certificate_export, certificate_list, certificates, generated_keys, holds, profiles,
    revocations,
};
use axum::http::StatusCode;
use serde_json::json;

/// An idempotency key of an example.
pub(super) const EXAMPLE_KEY: &str = "7d3f7a52-9a0f-4b0e-8d0e-0d9f6f1c2a41";
pub(super) const IDEMPOTENCY_KEY: &str =
    "The caller's own name for the request, a UUID. Needed over the network.";
const SERIAL: &str = "4F2A9C0E5B7D81C36A0E";

/// Codes of a request for a leaf.
pub(super) const LEAF: &str = "\
    csr_malformed csr_too_large csr_not_canonical csr_bad_signature csr_weak_key \
    csr_unsupported_key csr_unsupported_algorithm csr_bad_name csr_without_names \
    csr_other_common_name csr_other_names registration_id_invalid registration_id_reserved \
    registration_id_spelling name_invalid name_constraints key_type_forbidden key_in_use \
    key_compromised outlives_issuer issuer_not_yet_valid issuers_name validity_out_of_range \
    not_encodable template_refused idempotency_key_required idempotency_key_invalid \
    idempotency_key_reused certificate_revoked late_renewal_ credential_refused \
    credential_expired credential_locked credential_revoked credential_used birth_ station_ \
    renewal_ device_profile_forbidden device_moves device_blocked group_blocked device_revoked \
    profile_unknown profile_shape roll_under_way token_unavailable token_unknown token_deadline \
    token_parked token_key token_refused signing_window_closed signing_paused authority_absent \
    authority_waiting issuer_revoked issuer_replaced issuance_under_way request_under_way \
    not_recorded clock_not_sane random_source lint_failed serial_exists signature_wrong";

/// Codes of a request for a leaf whose key the daemon makes.
pub(super) const GENERATED: &str =
    "key_generation_invalid key_generation_forbidden generated_key_gone";

/// Codes of a request that names a certificate.
const NAMED: &str = "\
    certificate_unknown certificate_ambiguous certificate_malformed certificate_not_named \
    certificate_of_authority serial_invalid sha256_invalid";

pub(super) fn certificates(routes: &mut Routes<'_>) {
    routes.tag = "Certificates";
    routes
        .post("/v1/certificates", certificates::issue)
        .does(
            "Issues a leaf for a CSR: the path of a CSR; with `generate` also makes its key. 201.",
        )
        .codes(LEAF)
        .codes(GENERATED)
        .header("Idempotency-Key", IDEMPOTENCY_KEY, EXAMPLE_KEY)
        .reads::<certificates::Ask>()
        .example(json!({ "profile": "device", "registration_id": "press-7", "csr": CSR }))
        .writes_either::<certificates::Answer, generated_keys::AnswerWithKey<'_>>(
            StatusCode::CREATED,
        );
    routes
        .post("/v1/certificates:batch", batch::issue)
        .does(
            "Issues leaves for 1 to 256 CSRs in a body of at most 1 MiB; 200 with the status, and \
             answer or problem, of each.",
        )
        .codes("batch_empty batch_too_large idempotency_key_reused")
        .without_grants()
        .reads::<batch::Batch<'_>>()
        .example(json!({ "items": [{
            "profile": "device",
            "registration_id": "press-8",
            "csr": NEXT_CSR,
            "idempotency_key": EXAMPLE_KEY,
        }] }))
        .writes::<batch::BatchAnswer<'_>>();
    routes
        .get("/v1/certificates", certificate_list::list)
        .does(
            "Lists certificates and abandoned intents, newest first, in pages: find a \
             certificate.",
        )
        .codes("certificate_unknown authority_unknown serial_invalid sha256_invalid");
    routes
        .get("/v1/certificates/{serial}", certificates::show)
        .does(
            "Returns one certificate by serial number or SHA-256, and for callers that may fetch \
             all `record`, which explains it; `?authority=` where several authorities have the \
             number.",
        )
        .codes("certificate_unknown certificate_ambiguous serial_invalid");
    routes
        .get(
            "/v1/certificates/{serial}/export",
            certificate_export::export,
        )
        .does(
            "Returns the certificate as a file: `?format=pem`, `der`, or `chain` (PEM with its \
             issuers).",
        )
        .codes("certificate_unknown certificate_ambiguous serial_invalid")
        .writes_media("application/pem-certificate-chain")
        .writes_bytes("application/pkix-cert");
    routes
        .post("/v1/certificates/holds", holds::hold)
        .does(
            "Holds a leaf, named by serial number, SHA-256 or certificate, and answers with a \
             receipt.",
        )
        .codes(NAMED)
        .codes("cause_too_long certificate_revoked")
        .example(json!({ "serial": SERIAL, "cause": "lost on its way to the plant" }));
    routes
        .post("/v1/certificates/releases", holds::release)
        .does("Lifts an operator's hold of a leaf, and answers with a receipt.")
        .codes(NAMED)
        .codes("cause_too_long certificate_revoked hold_of_block")
        .example(json!({ "serial": SERIAL, "cause": "found again" }));
    routes
        .post("/v1/certificates/revocations", revocations::revoke)
        .does(
            "Revokes a leaf, named by serial number, SHA-256 or certificate, and answers with a \
             receipt; with `everywhere` it is excluded at DPS and hub, too.",
        )
        .codes(NAMED)
        .codes("cause_too_long reason_invalid")
        .example(json!({
            "serial": SERIAL,
            "reason": "keyCompromise",
            "cause": "key found in a log",
            "everywhere": true,
        }));
}

pub(super) fn profiles(routes: &mut Routes<'_>) {
    routes.tag = "Profiles";
    routes
        .get("/v1/profiles", profiles::list)
        .does("Lists the configured profiles, then the presets, each with its complete table.");
    routes
        .get("/v1/profiles/{name}", profiles::show)
        .does(
            "Returns one profile, or the preset without a profile of this name; `?preset=true` \
             the preset, `?example=true` with a certificate that is not issued.",
        )
        .codes("profile_unknown");
}
