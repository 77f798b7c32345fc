//! Names the remedy of each alarm, for the console and for programs.

use super::alarm::{Alarm, AlarmCode};
use super::overview::{Question, Severity};
use schemars::JsonSchema;
use serde::Serialize;

/// An alarm with what an operator needs to deal with it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExplainedAlarm {
    #[serde(flatten)]
    pub alarm: Alarm,
    /// The question of the overview whose answer it spoils.
    pub question: Question,
    pub severity: Severity,
    /// The step that ends it, in Markdown: commands are between backquotes.
    pub remedy: &'static str,
}

impl From<Alarm> for ExplainedAlarm {
    fn from(alarm: Alarm) -> Self {
        Self {
            question: alarm.code.question(),
            severity: alarm.code.severity(),
            remedy: alarm.code.remedy(),
            alarm,
        }
    }
}

impl AlarmCode {
    /// Returns what ends the alarm. docs/operations.md has the same text, which a test compares.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::AdminSocketMissing => "Make room, or remount the disk.",
            Self::AlarmsUnreadable => "Fix the disk as the reason says.",
            Self::AuditBroken => {
                "As \"The audit journal is broken\" says: find out who changed the database, then \
                 `hallmark audit accept --reason TEXT`."
            }
            Self::AuditNotCheckpointed => {
                "Bring the token of `[audit] checkpoints` back, or make room for `[audit] \
                 copy_to`, as the reason says; it is tried again within five seconds."
            }
            Self::AuthorityWaiting => {
                "Have `hallmark authority csr NAME` signed, then `hallmark authority install \
                 NAME FILE`."
            }
            Self::CaCertificateDrifted => {
                "As \"A CA certificate was deleted at the service\" says: `hallmark push retry \
                 NAME`, or `[policy] drift = \"repair\"`."
            }
            Self::CanaryNotTried => {
                "Fix what the reason names; the canary is tried again by itself. Or `hallmark \
                 roll approve N --override REASON`."
            }
            Self::CanaryRefused => "Fix what the reason names; the canary is tried again.",
            Self::CertificatesExpiring => {
                "Renew or revoke them; `hallmark status --verbose` shows the next one under \
                 `expiry`."
            }
            Self::ChangesParked => {
                "Fix what `hallmark push list` says, then `hallmark push retry NAME`."
            }
            Self::ChangesWaiting => "Look at `hallmark push list`, and at the network.",
            Self::ClockNotSane => {
                "Correct the clock; if the clock is right, `hallmark clock accept`."
            }
            Self::CrlEnded => "Bring the token back; it signs the next CRL.",
            Self::CrlNotSigned => {
                "Fix the token as the reason says; it is tried again within five minutes."
            }
            Self::CrlWithheld => "Bring the token back; it signs the next CRL.",
            Self::EnrollmentsDrifted => {
                "Look at `hallmark enrollment show NAME`; change it back, or set `[policy] drift \
                 = \"repair\"`. With `restored`, as \"After a restore\" says."
            }
            Self::EnrollmentsUnknown => {
                "`hallmark enrollment list --unknown`; adopt or remove each, or compromise or \
                 block its device by its name."
            }
            Self::ExclusionPending => {
                "Read its receipt: `hallmark roll show N`, or `hallmark block show group NAME`; \
                 `hallmark push list` has the services that have not answered. With \
                 `provisioning`, fix what `reason` names: the deletion is tried again by itself."
            }
            Self::HttpsCertificateEnded => {
                "Look at the log for why it was not renewed; then `hallmark reload`."
            }
            Self::HttpsCertificateNotRenewed => {
                "Correct what the reason names: `[listen] names` and `profile`, that profile, \
                 its authority, the folder `tls`; then `hallmark reload`."
            }
            Self::IssuerCrlAbsent | Self::IssuerCrlEnded | Self::IssuerCrlEnds => {
                "As \"An offline root\" says: `hallmark ceremony sign FOLDER` there, `hallmark \
                 ceremony install FOLDER` here."
            }
            Self::KeyUnusable => "Restore the key by the token's own tool, or roll the authority.",
            Self::LeavesRefusedByVerifiers => {
                "Change the profiles, or roll to an issuer without these constraints."
            }
            Self::OcspResponderNotRenewed => {
                "Fix what the reason names; it is tried again within five minutes."
            }
            Self::PossessionNotProven => {
                "Fix what the reason names; each proof is tried again by itself, at the latest \
                 after five minutes."
            }
            Self::ProfileMissing => {
                "Restore the profile, or move each device with `hallmark issue --move`."
            }
            Self::ProfileOutlivesAuthority => {
                "Set an earlier `not_after` and reload, or roll the authority."
            }
            Self::RolloverFailed => "Fix what the reason names.",
            Self::RolloverUnreadable => "Run the version that wrote it, or abort the rollover.",
            Self::SigningWindowEnds => "`hallmark roll start --authority NAME --reason expiry`.",
            Self::StandbyKeyNotShown => {
                "Put the key on that token, or remove the token from `also_on`."
            }
            Self::StandbyOtherIssuer => "Make a standby below the same issuer.",
            Self::StandbySigns => "Bring the token back.",
            Self::StandbyWithoutKey => "Run the ceremony for it.",
            Self::StoreNotWritable => {
                "Make room, remount or fix the disk of `state_dir`; the alarm ends automatically."
            }
            Self::SubordinateEnds => {
                "Have its holder send the next request, and sign it (`hallmark authority sign`); \
                 revoke the certificate if it is used no more."
            }
            Self::TokenParked => {
                "Correct the credential file; the worker tries the changed PIN. After two \
                 refused PINs in a row also remove the park file that the message names."
            }
            Self::TokenRemark => "As the reason says; see the next section.",
            Self::TokenUnavailable => "Bring the token back.",
            Self::WorkerRefused => {
                "As the reason says, if you know the request: change `[token.limits]` or the \
                 profiles, and restart the worker. Otherwise the daemon may not be yours any \
                 more: see \"A worker refuses\"."
            }
        }
    }
}
