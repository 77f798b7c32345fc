//! Names the metrics that are read at each scrape. docs/operations.md has them as a table, which a
//! test compares.

use crate::measured::families;

families! {
    BUILD: GAUGE "hallmark_build_info" ["version"]
        "1, with the version of the daemon.";
    STARTED: GAUGE "process_start_time_seconds" []
        "When the process began, in Unix seconds.";
    READY: GAUGE "hallmark_ready" []
        "1 if certificates can be issued at this moment.";
    ALARMS: GAUGE "hallmark_alarms" ["code", "severity"]
        "Alarms of this code that an operator must deal with.";
    ISSUED: COUNTER "hallmark_certificates_issued_total" []
        "Certificates on record.";
    ABANDONED: COUNTER "hallmark_intents_abandoned_total" []
        "Intents without a certificate that a token may have signed.";
    UNDER_WAY: GAUGE "hallmark_intents_under_way" []
        "Intents whose signature is under way.";
    WRITABLE: GAUGE "hallmark_store_writable" []
        "1 if the database can be written.";
    WRITE_FAILURES: COUNTER "hallmark_store_write_failures_total" []
        "Groups of writes that failed since the process began.";
    WAITING: GAUGE "hallmark_push_waiting" []
        "Changes that wait for a provisioning service.";
    PARKED: GAUGE "hallmark_push_parked" []
        "Changes that a provisioning service rejected.";
    OLDEST: GAUGE "hallmark_push_oldest_age_seconds" []
        "Age of the oldest change that waits or is parked; 0 if there is none.";
    VERIFIED: GAUGE "hallmark_ca_certificate_verified"
        ["provisioning", "name", "authority", "generation"]
        "1 if the service was last observed with this CA certificate verified.";
    OBSERVED: GAUGE "hallmark_ca_certificate_observed_timestamp_seconds"
        ["provisioning", "name", "authority", "generation"]
        "When the CA certificate was last observed at the service.";
    DRIFTED: GAUGE "hallmark_drifted" ["kind"]
        "Enrollments and CA certificates that another program has changed.";
    ROLLS: GAUGE "hallmark_rolls" ["state"]
        "Rolls that have not ended, by state.";
    BLOCKS: GAUGE "hallmark_blocks" []
        "Blocks that stand.";
    TOKEN_READY: GAUGE "hallmark_token_ready" ["token"]
        "1 if the token is ready.";
    RESTARTS: COUNTER "hallmark_token_worker_restarts_total" ["token"]
        "Restarts of the worker of a token since the process began.";
    RECOVERIES: COUNTER "hallmark_token_recoveries_total" ["token", "level"]
        "Steps of recovery by the present worker, the first session and login among them.";
    REFUSALS: COUNTER "hallmark_token_worker_refusals_total" ["token"]
        "Requests that the present worker refused because of its own limits.";
    KEY_USABLE: GAUGE "hallmark_token_key_usable" ["token", "key"]
        "1 if the worker can use the key.";
    KEY_PROOFS: COUNTER "hallmark_token_key_proofs_total" ["token", "key"]
        "Test signatures of the key by the present worker.";
    KEY_CREDENTIALS: COUNTER "hallmark_token_key_credentials_total" ["token", "key"]
        "Assertions and codes for the cloud by the present worker.";
    CRL_NEXT_UPDATE: GAUGE "hallmark_crl_next_update_timestamp_seconds"
        ["authority", "generation", "partition", "kind"]
        "When verifiers begin to refuse the list; kind is delta for a delta list.";
    CRL_THIS_UPDATE: GAUGE "hallmark_crl_this_update_timestamp_seconds"
        ["authority", "generation", "partition", "kind"]
        "When the list was signed.";
    CRL_NUMBER: GAUGE "hallmark_crl_number" ["authority", "generation", "partition", "kind"]
        "The number of the list.";
    CRL_ENTRIES: GAUGE "hallmark_crl_entries" ["authority", "generation", "partition", "kind"]
        "Entries of the list.";
    CRL_UP_TO_DATE: GAUGE "hallmark_crl_up_to_date" ["authority", "generation", "partition", "kind"]
        "1 if every revocation is on the list, or on its delta list.";
    HTTPS_SERVES: GAUGE "hallmark_https_serves" []
        "1 if the HTTPS listener has a valid certificate that could be renewed.";
    HTTPS_NOT_AFTER: GAUGE "hallmark_https_certificate_not_after_timestamp_seconds" []
        "When the certificate of the HTTPS listener ends.";
    CAN_SIGN: GAUGE "hallmark_authority_can_sign" ["authority"]
        "1 if a token can sign for the authority.";
    NOT_AFTER: GAUGE "hallmark_authority_not_after_timestamp_seconds" ["authority"]
        "When the certificate of the serving generation ends.";
    SIGNS_UNTIL: GAUGE "hallmark_authority_signs_until_timestamp_seconds" ["authority"]
        "When the signing window of the serving generation ends.";
    RESPONDER_NOT_AFTER: GAUGE "hallmark_ocsp_responder_not_after_timestamp_seconds"
        ["authority", "generation"]
        "When the certificate of the OCSP responder ends.";
    EXPIRING: GAUGE "hallmark_certificates_expiring" ["role", "profile", "within"]
        "Current certificates that end within 1d, 7d, 30d or the time of the alarm.";
    NEXT_EXPIRY: GAUGE "hallmark_certificates_next_expiry_timestamp_seconds" ["role", "profile"]
        "When the next current certificate ends.";
    AUDIT_ENTRIES: COUNTER "hallmark_audit_entries_total" []
        "Entries of the audit journal.";
    BACKUP: GAUGE "hallmark_backup_timestamp_seconds" []
        "When the newest backup beside the database was made; absent before the first one.";
}
