//! The one list of checks, of `hallmark doctor` and of `hallmarkd check`, each with its remedy.

use crate::ca::alarm::AlarmCode;
use crate::error_code::codes;

codes! {
    /// A check, in the order in which they run.
    Check {
        Configuration => "configuration",
        Versions => "versions",
        Clock => "clock",
        Disk => "disk",
        Files => "files",
        Database => "database",
        Audit => "audit",
        Backups => "backups",
        Tokens => "tokens",
        Pin => "pin",
        Keys => "keys",
        Lists => "lists",
        Ports => "ports",
        Listener => "listener",
        Unit => "unit",
        Credentials => "credentials",
        Planes => "planes",
        Skew => "skew",
        CaCertificates => "ca-certificates",
        Possession => "possession",
        Alarms => "alarms",
    }
}

codes! {
    /// The result of a check. The order is that of urgency.
    Verdict {
        Ok => "ok",
        NotApplicable => "not_applicable",
        Unknown => "unknown",
        Attention => "attention",
        Failed => "failed",
    }
}

impl Check {
    /// Returns true if `hallmarkd check` runs it, too: it needs no daemon and changes nothing.
    pub fn runs_without_daemon(self) -> bool {
        matches!(
            self,
            Self::Configuration
                | Self::Disk
                | Self::Files
                | Self::Database
                | Self::Audit
                | Self::Backups
                | Self::Tokens
                | Self::Pin
                | Self::Keys
                | Self::Credentials
        )
    }

    /// Returns what to do when it is not ok. docs/operations.md has the same text, which a test
    /// compares.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Configuration => {
                "Correct the file as the error says; then `hallmark reload`, or a restart for \
                 what only a start applies."
            }
            Self::Versions => {
                "Install `hallmark`, `hallmarkd` and `hallmark-token` from one package; then \
                 `systemctl restart hallmarkd.service 'hallmark-token@*'`."
            }
            Self::Clock => {
                "Start the time service, or correct the clock; if the clock is right, `hallmark \
                 clock accept`."
            }
            Self::Disk => {
                "Make room on the disk of `state_dir`, or move it to a larger or faster one."
            }
            Self::Files => "Do what it names; renew a secret that was open.",
            Self::Database => {
                "Stop the daemon and restore the newest good backup, as \"Backups\" says."
            }
            Self::Audit => {
                "Compare with an exported copy, and treat the machine as compromised until the \
                 change is explained."
            }
            Self::Backups => {
                "`hallmark backup create`, and `systemctl enable --now hallmark-backup.timer`."
            }
            Self::Tokens => "As the reason says; \"A token stays unavailable\" has the causes.",
            Self::Pin => {
                "Correct the credential file; after a refused PIN also find out which program \
                 tries PINs, before the token locks."
            }
            Self::Keys => {
                "Restore the key by the token's own tool, or roll the authority; if the token is \
                 another one, correct its `[[token]]`."
            }
            Self::Lists => "Bring the token back; it signs the next list.",
            Self::Ports => {
                "Look at the interfaces and the firewall of this machine (`ip address`, `ss \
                 -tln`); then restart the daemon."
            }
            Self::Listener => {
                "Correct what the reason names: `[listen] names` and `profile`, that profile, its \
                 authority, the folder `tls`; then `hallmark reload`."
            }
            Self::Unit => {
                "Compare the drop-ins with the packaged unit (`systemctl cat hallmarkd.service`), \
                 and remove what weakens it."
            }
            Self::Credentials => "Correct the credential file or the setting that it names.",
            Self::Planes => {
                "If there is no answer: network, proxy, `endpoint` and `address`. If it is \
                 refused: the key, role or policy of the credential."
            }
            Self::Skew => {
                "Synchronise this machine's clock: a service refuses credentials that are dated \
                 wrongly."
            }
            Self::CaCertificates => {
                "`hallmark push retry NAME` uploads and verifies it again; find out who changed \
                 it there."
            }
            Self::Possession => "Fix what the reason names; each proof is tried again by itself.",
            Self::Alarms => "As the table of alarms says for the code.",
        }
    }
}

impl AlarmCode {
    /// The check that reports the alarm.
    pub fn check(self) -> Check {
        match self {
            Self::AdminSocketMissing => Check::Ports,
            Self::CaCertificateDrifted => Check::CaCertificates,
            Self::ClockNotSane => Check::Clock,
            Self::CrlEnded
            | Self::CrlNotSigned
            | Self::CrlWithheld
            | Self::IssuerCrlAbsent
            | Self::IssuerCrlEnded
            | Self::IssuerCrlEnds => Check::Lists,
            Self::HttpsCertificateEnded | Self::HttpsCertificateNotRenewed => Check::Listener,
            Self::KeyUnusable => Check::Keys,
            Self::PossessionNotProven => Check::Possession,
            Self::StoreNotWritable => Check::Disk,
            Self::TokenParked
            | Self::TokenRemark
            | Self::TokenUnavailable
            | Self::WorkerRefused => Check::Tokens,
            Self::AuditBroken | Self::AuditNotCheckpointed => Check::Audit,
            Self::AlarmsUnreadable
            | Self::AuthorityWaiting
            | Self::CanaryNotTried
            | Self::CanaryRefused
            | Self::CertificatesExpiring
            | Self::ChangesParked
            | Self::ChangesWaiting
            | Self::EnrollmentsDrifted
            | Self::EnrollmentsUnknown
            | Self::ExclusionPending
            | Self::LeavesRefusedByVerifiers
            | Self::OcspResponderNotRenewed
            | Self::ProfileMissing
            | Self::ProfileOutlivesAuthority
            | Self::RolloverFailed
            | Self::RolloverUnreadable
            | Self::SigningWindowEnds
            | Self::StandbyKeyNotShown
            | Self::StandbyOtherIssuer
            | Self::StandbySigns
            | Self::StandbyWithoutKey
            | Self::SubordinateEnds => Check::Alarms,
        }
    }
}
