//! Lists every code under which a request is refused or fails.
//!
//! The names are public and stable: scripts compare them. docs/operations.md gives cause and remedy
//! of each, and a test in `ca::error` compares that table with [`Code::ALL`]. This module lies
//! below all others, because names, CSRs and slots refuse with a code of their own.

/// Declares an enum of stable names, so that variant, name and list cannot differ.
#[macro_export]
macro_rules! codes {
    ($(#[$about:meta])* $codes:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $codes {
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        impl $codes {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the name that answers, the journal and the log show.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $codes {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl schemars::JsonSchema for $codes {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($codes).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let names = Self::ALL.iter().map(|it| it.name());
                let names = names.collect::<Vec<_>>();
                schemars::json_schema!({ "type": "string", "enum": names })
            }
        }

        impl serde::Serialize for $codes {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

pub use crate::codes;

codes! {
    /// The code of a refusal or failure.
    Code {
        AdoptionRefused => "adoption_refused",
        AnswerUnencodable => "answer_unencodable",
        ApprovalDecided => "approval_decided",
        ApprovalDiffers => "approval_differs",
        ApprovalExpired => "approval_expired",
        ApprovalInvalid => "approval_invalid",
        ApprovalLimit => "approval_limit",
        ApprovalOwn => "approval_own",
        ApprovalRejected => "approval_rejected",
        ApprovalRequired => "approval_required",
        ApprovalSignature => "approval_signature",
        ApprovalUsed => "approval_used",
        ApproverRefused => "approver_refused",
        AuditBroken => "audit_broken",
        AuditIntact => "audit_intact",
        AuditNotCheckpointed => "audit_not_checkpointed",
        AuthorityAbsent => "authority_absent",
        AuthorityBlocked => "authority_blocked",
        AuthorityExists => "authority_exists",
        AuthorityLimited => "authority_limited",
        AuthorityNotWaiting => "authority_not_waiting",
        AuthorityUnknown => "authority_unknown",
        AuthorityWaiting => "authority_waiting",
        BackupExists => "backup_exists",
        BackupFailed => "backup_failed",
        BackupNotLocal => "backup_not_local",
        BackupUnderWay => "backup_under_way",
        BatchEmpty => "batch_empty",
        BatchTooLarge => "batch_too_large",
        BenchInvalid => "bench_invalid",
        BirthCrlUnusable => "birth_crl_unusable",
        BirthExpired => "birth_expired",
        BirthIdInvalid => "birth_id_invalid",
        BirthNotForClients => "birth_not_for_clients",
        BirthRevoked => "birth_revoked",
        BirthUsed => "birth_used",
        BlockInvalid => "block_invalid",
        BlockUnknown => "block_unknown",
        BodyInvalid => "body_invalid",
        BodyTooLarge => "body_too_large",
        BodyTooSlow => "body_too_slow",
        Canary => "canary",
        CauseTooLong => "cause_too_long",
        CeremonyFailed => "ceremony_failed",
        CeremonyInvalid => "ceremony_invalid",
        CeremonyNotLocal => "ceremony_not_local",
        CeremonyUnderWay => "ceremony_under_way",
        CertificateAmbiguous => "certificate_ambiguous",
        CertificateMalformed => "certificate_malformed",
        CertificateNotNamed => "certificate_not_named",
        CertificateOfAuthority => "certificate_of_authority",
        CertificateRevoked => "certificate_revoked",
        CertificateUnknown => "certificate_unknown",
        CheckUnknown => "check_unknown",
        ClientCertificateExpired => "client_certificate_expired",
        ClientCertificateInvalid => "client_certificate_invalid",
        ClientCertificateRequired => "client_certificate_required",
        ClientCertificateRevoked => "client_certificate_revoked",
        ClientCertificateUnknown => "client_certificate_unknown",
        ClockNotSane => "clock_not_sane",
        ConfigurationRefused => "configuration_refused",
        ContentTypeUnsupported => "content_type_unsupported",
        CredentialExpired => "credential_expired",
        CredentialInvalid => "credential_invalid",
        CredentialLocked => "credential_locked",
        CredentialRefused => "credential_refused",
        CredentialRevoked => "credential_revoked",
        CredentialUnknown => "credential_unknown",
        CredentialUsed => "credential_used",
        CrlAbsent => "crl_absent",
        CrlWithheld => "crl_withheld",
        CrossSiteRequest => "cross_site_request",
        CsrBadName => "csr_bad_name",
        CsrBadSignature => "csr_bad_signature",
        CsrConflictsProfile => "csr_conflicts_profile",
        CsrMalformed => "csr_malformed",
        CsrNotCanonical => "csr_not_canonical",
        CsrOtherCommonName => "csr_other_common_name",
        CsrOtherNames => "csr_other_names",
        CsrTooLarge => "csr_too_large",
        CsrUnsupportedAlgorithm => "csr_unsupported_algorithm",
        CsrUnsupportedKey => "csr_unsupported_key",
        CsrUsedUp => "csr_used_up",
        CsrWeakKey => "csr_weak_key",
        CsrWithoutCommonName => "csr_without_common_name",
        CsrWithoutNames => "csr_without_names",
        DaysOutOfRange => "days_out_of_range",
        DeviceBlocked => "device_blocked",
        DeviceMoves => "device_moves",
        DeviceProfileForbidden => "device_profile_forbidden",
        DeviceRegistryRefuses => "device_registry_refuses",
        DeviceRevoked => "device_revoked",
        DeviceUnknown => "device_unknown",
        EnrollmentExcludes => "enrollment_excludes",
        EnrollmentGroupIdInvalid => "enrollment_group_id_invalid",
        EnrollmentInvalid => "enrollment_invalid",
        EnrollmentUnknown => "enrollment_unknown",
        EstLabelRequired => "est_label_required",
        GeneratedKeyGone => "generated_key_gone",
        GroupBlocked => "group_blocked",
        HierarchyBroken => "hierarchy_broken",
        HierarchyUnreadable => "hierarchy_unreadable",
        HoldOfBlock => "hold_of_block",
        IdempotencyKeyInvalid => "idempotency_key_invalid",
        IdempotencyKeyRequired => "idempotency_key_required",
        IdempotencyKeyReused => "idempotency_key_reused",
        ImportNotLocal => "import_not_local",
        ImportRefused => "import_refused",
        InstallChainIncomplete => "install_chain_incomplete",
        InstallEnrolled => "install_enrolled",
        InstallKeyIdentifier => "install_key_identifier",
        InstallLimits => "install_limits",
        InstallMalformed => "install_malformed",
        InstallNotAnAuthority => "install_not_an_authority",
        InstallNotLater => "install_not_later",
        InstallNotValid => "install_not_valid",
        InstallOtherKey => "install_other_key",
        InstallOtherName => "install_other_name",
        InstallOutlivesIssuer => "install_outlives_issuer",
        InstallPathLength => "install_path_length",
        InstallRevoked => "install_revoked",
        InstallSignature => "install_signature",
        Internal => "internal",
        IssuanceUnderWay => "issuance_under_way",
        IssuerCrlOlder => "issuer_crl_older",
        IssuerCrlOther => "issuer_crl_other",
        IssuerCrlUnusable => "issuer_crl_unusable",
        IssuerNotYetValid => "issuer_not_yet_valid",
        IssuerReplaced => "issuer_replaced",
        IssuerRevoked => "issuer_revoked",
        IssuersName => "issuers_name",
        KeyCompromised => "key_compromised",
        KeyGenerationForbidden => "key_generation_forbidden",
        KeyGenerationInvalid => "key_generation_invalid",
        KeyInUse => "key_in_use",
        KeyTypeForbidden => "key_type_forbidden",
        LateRenewalOver => "late_renewal_over",
        LateRenewalSuperseded => "late_renewal_superseded",
        LateRenewalUsed => "late_renewal_used",
        LintFailed => "lint_failed",
        LookUnderWay => "look_under_way",
        MethodNotAllowed => "method_not_allowed",
        NameConstraints => "name_constraints",
        NameInvalid => "name_invalid",
        NotEncodable => "not_encodable",
        NotFound => "not_found",
        NotPublished => "not_published",
        NotReady => "not_ready",
        NotRecorded => "not_recorded",
        NotSelfSigned => "not_self_signed",
        NothingToRenew => "nothing_to_renew",
        OutlivesIssuer => "outlives_issuer",
        PathInvalid => "path_invalid",
        PathLength => "path_length",
        PossessionRefused => "possession_refused",
        ProfileShape => "profile_shape",
        ProfileUnknown => "profile_unknown",
        ProvisioningUnknown => "provisioning_unknown",
        QueryInvalid => "query_invalid",
        RandomSource => "random_source",
        ReasonInvalid => "reason_invalid",
        ReasonTooLong => "reason_too_long",
        RegistrationIdInvalid => "registration_id_invalid",
        RegistrationIdReserved => "registration_id_reserved",
        RegistrationIdSpelling => "registration_id_spelling",
        ReloadNotLocal => "reload_not_local",
        ReloadUnderWay => "reload_under_way",
        RenewalForbidden => "renewal_forbidden",
        RenewalLimit => "renewal_limit",
        RenewalRoleChanged => "renewal_role_changed",
        RenewalSameKey => "renewal_same_key",
        RenewalTooEarly => "renewal_too_early",
        RequestUnderWay => "request_under_way",
        RestartRequired => "restart_required",
        RoleForbidden => "role_forbidden",
        RollDeviceNotSeen => "roll_device_not_seen",
        RollGenerationRequired => "roll_generation_required",
        RollNotApprovable => "roll_not_approvable",
        RollOldCertificateDead => "roll_old_certificate_dead",
        RollSlotInvalid => "roll_slot_invalid",
        RollUnderWay => "roll_under_way",
        RouteUnknown => "route_unknown",
        SerialExists => "serial_exists",
        SerialInvalid => "serial_invalid",
        ServiceLimit => "service_limit",
        Sha256Invalid => "sha256_invalid",
        SignatureWrong => "signature_wrong",
        SigningPaused => "signing_paused",
        SigningWindowClosed => "signing_window_closed",
        SlotsCanaryFailed => "slots_canary_failed",
        SlotsCanaryPending => "slots_canary_pending",
        SlotsCertificateAlreadyThere => "slots_certificate_already_there",
        SlotsCertificateNotThere => "slots_certificate_not_there",
        SlotsDevicesUnproven => "slots_devices_unproven",
        SlotsEarlyRetirementForbidden => "slots_early_retirement_forbidden",
        SlotsNotExpired => "slots_not_expired",
        SlotsNotObserved => "slots_not_observed",
        SlotsState => "slots_state",
        StateConflict => "state_conflict",
        StationIdForbidden => "station_id_forbidden",
        StationNotBound => "station_not_bound",
        StationProfileForbidden => "station_profile_forbidden",
        Stopping => "stopping",
        StoreUnavailable => "store_unavailable",
        StoreUnreadable => "store_unreadable",
        SubjectOfAuthority => "subject_of_authority",
        SubordinateOnHold => "subordinate_on_hold",
        SubordinateOtherKey => "subordinate_other_key",
        TemplateRefused => "template_refused",
        TlsIdentity => "tls_identity",
        TokenDeadline => "token_deadline",
        TokenKey => "token_key",
        TokenKeyAttributes => "token_key_attributes",
        TokenParked => "token_parked",
        TokenRefused => "token_refused",
        TokenUnavailable => "token_unavailable",
        TokenUnknown => "token_unknown",
        TooManyRequestsInFlight => "too_many_requests_in_flight",
        TransferFileDiffers => "transfer_file_differs",
        TransferOtherRequest => "transfer_other_request",
        TransferOtherTranscript => "transfer_other_transcript",
        TransferUnreadable => "transfer_unreadable",
        TrialNotLocal => "trial_not_local",
        TrialUnderWay => "trial_under_way",
        UserNotAdmitted => "user_not_admitted",
        ValidityOutOfRange => "validity_out_of_range",
        VerificationCode => "verification_code",
    }
}
