//! Routes for authorities.

use super::super::examples::AUTHORITY_CSR;
use super::Routes;
use super::certificates::{EXAMPLE_KEY, IDEMPOTENCY_KEY};
use crate::api::{
    authorities, authority_rolls, ca_certificates, ceremonies, compromises, imports, subordinates,
    transfers,
};
use serde_json::json;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n";
/// A ceremony file: one root.
const CEREMONY: &str = "\
name = \"a new root\"
[[authority]]
name = \"root\"
key_type = \"p384\"
subject = { country = \"DE\", organization = \"Example Works\", common_name = \"Device Root\" }
validity = \"20y\"
path_length = 2
";

/// Codes of a certificate for a CSR, about its key, its bytes and its signature.
const SIGNING: &str = "\
    csr_malformed csr_too_large csr_not_canonical csr_bad_signature csr_weak_key \
    csr_unsupported_key csr_unsupported_algorithm csr_bad_name name_invalid name_constraints \
    key_type_forbidden key_in_use key_compromised outlives_issuer issuer_not_yet_valid \
    issuers_name validity_out_of_range not_encodable template_refused idempotency_key_required \
    idempotency_key_invalid idempotency_key_reused certificate_revoked profile_shape \
    token_unavailable token_deadline token_parked token_key token_refused signing_window_closed \
    signing_paused authority_absent authority_waiting issuer_revoked issuer_replaced \
    issuance_under_way request_under_way not_recorded clock_not_sane random_source lint_failed \
    serial_exists signature_wrong";

pub(super) fn authorities(routes: &mut Routes<'_>) {
    routes.tag = "Authorities";
    routes
        .post("/v1/ceremonies", ceremonies::run)
        .does("Runs a ceremony file (text): makes or adopts authorities. Answers in steps.")
        .codes(
            "ceremony_not_local ceremony_invalid ceremony_under_way ceremony_failed \
             authority_exists authority_unknown authority_limited adoption_refused",
        )
        .example(CEREMONY.into())
        .writes_steps();
    transfers(routes);
    routes
        .get("/v1/authorities", authorities::list)
        .does("Lists the authorities and their generations.");
    routes
        .get("/v1/authorities/{name}", authorities::show)
        .does("Returns one authority with its generations, certificates and chain.")
        .codes("authority_unknown");
    routes
        .post("/v1/authorities/{name}/request", authorities::request)
        .does("Signs a CSR for an authority whose issuer is elsewhere, and returns it.")
        .codes(
            "authority_unknown authority_not_waiting clock_not_sane signing_paused \
             token_unavailable",
        );
    routes
        .post("/v1/authorities/{name}/certificate", authorities::install)
        .does("Installs the certificate that the external issuer made.")
        .codes(
            "authority_unknown authority_not_waiting install_malformed install_other_key \
             install_other_name install_limits install_chain_incomplete install_enrolled \
             install_key_identifier install_not_an_authority install_not_later \
             install_not_valid install_outlives_issuer install_path_length install_revoked \
             install_signature issuer_revoked",
        )
        .example(json!({ "certificates": CERTIFICATE }));
    routes
        .get("/v1/authorities/{name}/subordinates", subordinates::list)
        .does(
            "Lists the certificates of authorities elsewhere that this one has signed, newest \
             first.",
        )
        .codes("authority_unknown");
    routes
        .post("/v1/authorities/{name}/subordinates", subordinates::sign)
        .does(
            "Signs the certificate of an authority elsewhere for its CSR: certify an authority \
             elsewhere. 201.",
        )
        .codes(
            "authority_unknown authority_limited profile_unknown csr_conflicts_profile \
             csr_other_common_name subject_of_authority subordinate_on_hold \
             subordinate_other_key days_out_of_range device_registry_refuses path_length",
        )
        .codes(SIGNING)
        .header("Idempotency-Key", IDEMPOTENCY_KEY, EXAMPLE_KEY)
        .example(
            json!({ "profile": "intermediate", "days": 365, "csr": AUTHORITY_CSR,
            "common_name": "Plant 7", }),
        );
    routes
        .post("/v1/authorities/{name}/imports", imports::run)
        .does("Records what an adopted authority issued and revoked before. Answers in steps.")
        .codes("import_not_local import_refused ceremony_under_way authority_unknown")
        .example(json!({ "index": "/srv/old-ca/index.txt", "crl": "/srv/old-ca/ca.crl" }))
        .writes_steps();
    routes
        .post("/v1/authorities/{name}/rolls", authority_rolls::start)
        .does("Starts the rollover of an authority. 201.")
        .codes(
            "authority_unknown authority_absent authority_waiting authority_blocked roll_under_way \
             roll_generation_required service_limit issuer_revoked ceremony_under_way \
             clock_not_sane key_type_forbidden validity_out_of_range outlives_issuer \
             path_length hierarchy_broken",
        )
        .example(json!({ "reason": "expiry" }));
    routes
        .get(
            "/v1/authorities/{name}/compromise",
            compromises::of_authority,
        )
        .does(
            "Says what a compromise of the serving generation, or with `?generation=` of another \
             one, would change, and changes nothing.",
        )
        .codes("authority_unknown");
    routes
        .get("/v1/ca-certificates", ca_certificates::list)
        .does("Lists the CA certificates at the provisioning services, as observed.");
}

fn transfers(routes: &mut Routes<'_>) {
    let sha256 = "9c01e3a4f0b35a6fd2f7c0a4f8b5e0c1b2d3a4958677889900aabbccddeeff00";
    routes
        .post("/v1/transfers/requests", transfers::request)
        .does(
            "Makes the requests of all authorities that wait for a certificate, with their \
             transcript, for an offline root.",
        )
        .codes(
            "ceremony_not_local authority_not_waiting clock_not_sane signing_paused \
             token_unavailable",
        );
    routes
        .post("/v1/transfers/answers", transfers::sign)
        .does(
            "Signs, at an offline root, what the requests ask for, and its revocation lists. \
             Answers in steps.",
        )
        .codes(
            "ceremony_not_local ceremony_invalid transfer_unreadable transfer_other_transcript \
             transfer_file_differs authority_unknown authority_limited profile_unknown \
             csr_conflicts_profile csr_other_common_name subject_of_authority \
             subordinate_other_key days_out_of_range device_registry_refuses path_length",
        )
        .codes(SIGNING)
        .reads::<transfers::ToSign>()
        .example(json!({ "authority": "vault", "profile": "intermediate" }))
        .writes_steps();
    routes
        .post("/v1/transfers/installations", transfers::install)
        .does(
            "Installs certificates and lists of an offline root, and excludes what the lists \
             revoke.",
        )
        .codes(
            "ceremony_not_local transfer_unreadable transfer_other_transcript \
             transfer_file_differs transfer_other_request install_malformed install_other_key \
             install_other_name install_limits install_chain_incomplete install_key_identifier \
             install_not_an_authority install_not_valid install_outlives_issuer \
             install_path_length install_revoked install_signature issuer_crl_other \
             issuer_crl_older issuer_crl_unusable authority_not_waiting",
        )
        .reads::<transfers::ToInstall>()
        .example(json!({ "answers": "{}", "answers_sha256": sha256, "files": {} }));
}
