//! Routes of EST, and of what is published.

use super::super::examples::{OCSP_REQUEST, est_request};
use super::Routes;
use super::certificates::LEAF;
use crate::api::{est, ocsp, published};
use axum::http::StatusCode;

/// Codes of requests over EST.
const BY_EST: &str = "csr_without_common_name csr_used_up est_label_required answer_unencodable";

const IF_NONE_MATCH: &str = "The `ETag` of the file that the client has: it then gets 304.";
const ENTITY_TAG: &str = "\"7a0f\"";

/// RFC 7030. Each operation also has an address with a label, which is a profile.
pub(super) fn est(routes: &mut Routes<'_>) {
    routes.tag = "EST (RFC 7030)";
    for base in ["/.well-known/est", "/.well-known/est/{label}"] {
        let path = |operation: &str| format!("{base}/{operation}");
        routes
            .get(path("cacerts"), est::authorities)
            .does(
                "Returns the certificates from the profile's authority up to its root, and the \
                 cross-certificates of a root that was rolled.",
            )
            .codes("profile_unknown est_label_required authority_absent authority_waiting")
            .codes("issuer_revoked answer_unencodable")
            .writes_media(est::AUTHORITIES);
        routes
            .get(path("csrattrs"), est::attributes)
            .does("Returns what a CSR for the profile has to hold.")
            .codes("profile_unknown est_label_required answer_unencodable")
            .writes_media(est::CSR_ATTRIBUTES);
        routes
            .post(path("simpleenroll"), est::enroll)
            .does("Issues a leaf for the common name of the CSR.")
            .codes(LEAF)
            .codes(BY_EST)
            .reads_media(est::REQUEST)
            .example(est_request())
            .writes_media(est::ISSUED);
        routes
            .post(path("serverkeygen"), est::generate)
            .does("Makes a key pair, issues a leaf for it, and returns both (multipart).")
            .without_credential()
            .codes(LEAF)
            .codes(BY_EST)
            .codes("key_generation_forbidden key_generation_invalid")
            .reads_media(est::REQUEST)
            .example(est_request())
            .writes_media(est::WITH_KEY);
        routes
            .post(path("simplereenroll"), est::reenroll)
            .does("Issues the next leaf for the holder of the client certificate.")
            .without_credential()
            .codes(LEAF)
            .codes(BY_EST)
            .codes("nothing_to_renew")
            .reads_media(est::REQUEST)
            .example(est_request())
            .writes_media(est::ISSUED);
    }
}

/// RFC 5280, section 4.2.1.13, RFC 2585 and RFC 6960, appendix A.
pub(super) fn files(routes: &mut Routes<'_>) {
    routes.tag = "Published files";
    routes
        .get("/crl/{file}", published::crl)
        .does(
            "Returns a current revocation list, DER: `AUTHORITY.crl` or \
             `AUTHORITY-GENERATION.crl`; of partitions `NAME.3of8.crl`, and delta lists \
             `NAME.delta.crl`; and the list of an offline root that was brought here. 304 to a \
             client that has it.",
        )
        .codes("not_published crl_absent crl_withheld")
        .header("If-None-Match", IF_NONE_MATCH, ENTITY_TAG)
        .writes_bytes("application/pkix-crl")
        .writes_nothing(StatusCode::NOT_MODIFIED);
    routes
        .post("/ocsp/{authority}", ocsp::by_post)
        .does(
            "Answers the OCSP request in the body (`application/ocsp-request`); errors of OCSP \
             have status 200, too.",
        )
        .codes("not_published")
        .reads_media("application/ocsp-request")
        .example(OCSP_REQUEST.into())
        .writes_bytes("application/ocsp-response");
    routes
        .get("/ocsp/{authority}/{*request}", ocsp::by_get)
        .does("Answers the OCSP request in the address: base64, encoded by percent signs.")
        .codes("not_published")
        .header("If-None-Match", IF_NONE_MATCH, ENTITY_TAG)
        .writes_bytes("application/ocsp-response")
        .writes_nothing(StatusCode::NOT_MODIFIED);
    routes
        .get("/ca/{file}", published::certificate)
        .does(
            "Returns the certificate of an authority, DER: `AUTHORITY.cer` or \
             `AUTHORITY-GENERATION.cer`; of a root that was rolled also the cross-certificates, \
             `root-2-by-root-1.cer` and `root-1-by-root-2.cer`.",
        )
        .codes("not_published")
        .header("If-None-Match", IF_NONE_MATCH, ENTITY_TAG)
        .writes_bytes("application/pkix-cert")
        .writes_nothing(StatusCode::NOT_MODIFIED);
}
