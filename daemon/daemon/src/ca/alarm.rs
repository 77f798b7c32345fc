//! Names the conditions that an operator must deal with, for people and for programs.
//!
//! `hallmark status` shows the text of an alarm in `alarms`, and the whole of it in
//! `alarm_details`. docs/operations.md gives the cause and the remedy of each code.

use super::coded::Coded;
use crate::error_code::codes;
use serde_json::json;

codes! {
    /// The code of an alarm.
    AlarmCode {
        AdminSocketMissing => "admin_socket_missing",
        AlarmsUnreadable => "alarms_unreadable",
        AuditBroken => "audit_broken",
        AuditNotCheckpointed => "audit_not_checkpointed",
        AuthorityWaiting => "authority_waiting",
        CaCertificateDrifted => "ca_certificate_drifted",
        CanaryNotTried => "canary_not_tried",
        CanaryRefused => "canary_refused",
        CertificatesExpiring => "certificates_expiring",
        ChangesParked => "changes_parked",
        ChangesWaiting => "changes_waiting",
        ClockNotSane => "clock_not_sane",
        CrlEnded => "crl_ended",
        CrlNotSigned => "crl_not_signed",
        CrlWithheld => "crl_withheld",
        EnrollmentsDrifted => "enrollments_drifted",
        EnrollmentsUnknown => "enrollments_unknown",
        ExclusionPending => "exclusion_pending",
        HttpsCertificateEnded => "https_certificate_ended",
        HttpsCertificateNotRenewed => "https_certificate_not_renewed",
        IssuerCrlAbsent => "issuer_crl_absent",
        IssuerCrlEnded => "issuer_crl_ended",
        IssuerCrlEnds => "issuer_crl_ends",
        KeyUnusable => "key_unusable",
        LeavesRefusedByVerifiers => "leaves_refused_by_verifiers",
        OcspResponderNotRenewed => "ocsp_responder_not_renewed",
        PossessionNotProven => "possession_not_proven",
        ProfileMissing => "profile_missing",
        ProfileOutlivesAuthority => "profile_outlives_authority",
        RolloverFailed => "rollover_failed",
        RolloverUnreadable => "rollover_unreadable",
        SigningWindowEnds => "signing_window_ends",
        StandbyKeyNotShown => "standby_key_not_shown",
        StandbyOtherIssuer => "standby_other_issuer",
        StandbySigns => "standby_signs",
        StandbyWithoutKey => "standby_without_key",
        StoreNotWritable => "store_not_writable",
        SubordinateEnds => "subordinate_ends",
        TokenParked => "token_parked",
        TokenRemark => "token_remark",
        TokenUnavailable => "token_unavailable",
        WorkerRefused => "worker_refused",
    }
}

/// A condition that an operator must deal with.
pub type Alarm = Coded<AlarmCode>;

/// Says that some alarms cannot be judged, because what they depend on cannot be read.
pub fn unreadable(what: &str, error: &impl ToString) -> Alarm {
    let reason = error.to_string();
    let text = format!("{what}: {reason}");
    Alarm::new(
        AlarmCode::AlarmsUnreadable,
        json!({ "reason": reason }),
        text,
    )
}
