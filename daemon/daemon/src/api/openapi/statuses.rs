//! Which statuses each code comes with.

use crate::ca::Code;

/// Returns the statuses of the answers that have this code, as docs/operations.md lists them; none
/// if it is only in the log, the journal or the members of an answer.
pub(super) fn statuses(code: Code) -> &'static [u16] {
    match code {
        Code::RollSlotInvalid => &[],
        Code::AdoptionRefused
        | Code::ApprovalInvalid
        | Code::ApprovalSignature
        | Code::AuthorityLimited
        | Code::BatchEmpty
        | Code::BenchInvalid
        | Code::BlockInvalid
        | Code::CauseTooLong
        | Code::CeremonyInvalid
        | Code::CheckUnknown
        | Code::CertificateMalformed
        | Code::CertificateNotNamed
        | Code::ConfigurationRefused
        | Code::CredentialInvalid
        | Code::CsrBadName
        | Code::CsrBadSignature
        | Code::CsrConflictsProfile
        | Code::CsrMalformed
        | Code::CsrNotCanonical
        | Code::CsrOtherCommonName
        | Code::CsrOtherNames
        | Code::CsrTooLarge
        | Code::CsrUnsupportedAlgorithm
        | Code::CsrUnsupportedKey
        | Code::CsrWeakKey
        | Code::CsrWithoutCommonName
        | Code::CsrWithoutNames
        | Code::DaysOutOfRange
        | Code::DeviceRegistryRefuses
        | Code::EnrollmentGroupIdInvalid
        | Code::IdempotencyKeyInvalid
        | Code::IdempotencyKeyRequired
        | Code::InstallChainIncomplete
        | Code::InstallKeyIdentifier
        | Code::InstallLimits
        | Code::InstallMalformed
        | Code::InstallNotAnAuthority
        | Code::InstallNotLater
        | Code::InstallNotValid
        | Code::InstallOtherKey
        | Code::InstallOtherName
        | Code::InstallOutlivesIssuer
        | Code::InstallPathLength
        | Code::InstallRevoked
        | Code::IssuerCrlOther
        | Code::IssuerCrlUnusable
        | Code::InstallSignature
        | Code::KeyCompromised
        | Code::KeyGenerationInvalid
        | Code::KeyInUse
        | Code::KeyTypeForbidden
        | Code::NameConstraints
        | Code::NameInvalid
        | Code::OutlivesIssuer
        | Code::PathInvalid
        | Code::ProvisioningUnknown
        | Code::QueryInvalid
        | Code::ReasonInvalid
        | Code::ReasonTooLong
        | Code::RegistrationIdInvalid
        | Code::RegistrationIdReserved
        | Code::RenewalSameKey
        | Code::SerialInvalid
        | Code::Sha256Invalid
        | Code::TemplateRefused
        | Code::TransferFileDiffers
        | Code::TransferOtherRequest
        | Code::TransferOtherTranscript
        | Code::TransferUnreadable => &[400],
        Code::AuthorityUnknown => &[400, 404],
        Code::EnrollmentInvalid | Code::ImportRefused | Code::RollNotApprovable => &[400, 409],
        Code::BodyInvalid => &[400, 422],
        Code::IssuerNotYetValid
        | Code::IssuersName
        | Code::NotEncodable
        | Code::NotSelfSigned
        | Code::PathLength
        | Code::ValidityOutOfRange => &[400, 500],
        Code::BirthExpired
        | Code::BirthNotForClients
        | Code::BirthRevoked
        | Code::ClientCertificateExpired
        | Code::ClientCertificateInvalid
        | Code::ClientCertificateRequired
        | Code::ClientCertificateRevoked
        | Code::ClientCertificateUnknown
        | Code::CredentialExpired
        | Code::CredentialLocked
        | Code::CredentialRefused
        | Code::CredentialRevoked
        | Code::LateRenewalOver => &[401],
        Code::BackupNotLocal
        | Code::BirthCrlUnusable
        | Code::BirthIdInvalid
        | Code::CeremonyNotLocal
        | Code::CrossSiteRequest
        | Code::DeviceMoves
        | Code::DeviceProfileForbidden
        | Code::DeviceRevoked
        | Code::ImportNotLocal
        | Code::KeyGenerationForbidden
        | Code::ReloadNotLocal
        | Code::RenewalForbidden
        | Code::RenewalRoleChanged
        | Code::RoleForbidden
        | Code::StationIdForbidden
        | Code::StationNotBound
        | Code::StationProfileForbidden
        | Code::TrialNotLocal
        | Code::UserNotAdmitted => &[403],
        Code::DeviceBlocked | Code::GroupBlocked => &[403, 409],
        Code::BlockUnknown
        | Code::CertificateUnknown
        | Code::CredentialUnknown
        | Code::DeviceUnknown
        | Code::EnrollmentUnknown
        | Code::EstLabelRequired
        | Code::NotFound
        | Code::NotPublished
        | Code::ProfileUnknown
        | Code::RouteUnknown => &[404],
        Code::TokenUnknown => &[404, 500],
        Code::MethodNotAllowed => &[405],
        Code::BodyTooSlow => &[408],
        Code::ApprovalDecided
        | Code::ApprovalDiffers
        | Code::ApprovalExpired
        | Code::ApprovalLimit
        | Code::ApprovalOwn
        | Code::ApprovalRejected
        | Code::ApprovalRequired
        | Code::ApprovalUsed
        | Code::ApproverRefused
        | Code::AuditIntact
        | Code::AuthorityBlocked
        | Code::AuthorityExists
        | Code::AuthorityNotWaiting
        | Code::BackupUnderWay
        | Code::BirthUsed
        | Code::CertificateAmbiguous
        | Code::CertificateOfAuthority
        | Code::CertificateRevoked
        | Code::CredentialUsed
        | Code::CsrUsedUp
        | Code::EnrollmentExcludes
        | Code::GeneratedKeyGone
        | Code::HoldOfBlock
        | Code::IdempotencyKeyReused
        | Code::InstallEnrolled
        | Code::LateRenewalSuperseded
        | Code::LateRenewalUsed
        | Code::NothingToRenew
        | Code::RegistrationIdSpelling
        | Code::RenewalLimit
        | Code::RenewalTooEarly
        | Code::RestartRequired
        | Code::RollDeviceNotSeen
        | Code::RollGenerationRequired
        | Code::RollOldCertificateDead
        | Code::RollUnderWay
        | Code::ServiceLimit
        | Code::SlotsCanaryFailed
        | Code::SlotsCanaryPending
        | Code::SlotsCertificateAlreadyThere
        | Code::SlotsCertificateNotThere
        | Code::SlotsDevicesUnproven
        | Code::SlotsEarlyRetirementForbidden
        | Code::SlotsNotExpired
        | Code::SlotsNotObserved
        | Code::SlotsState
        | Code::StateConflict
        | Code::IssuerCrlOlder
        | Code::SubjectOfAuthority
        | Code::SubordinateOnHold
        | Code::SubordinateOtherKey
        | Code::TrialUnderWay => &[409],
        Code::CeremonyUnderWay | Code::IssuerRevoked => &[409, 503],
        Code::BatchTooLarge | Code::BodyTooLarge => &[413],
        Code::ContentTypeUnsupported => &[415],
        Code::AnswerUnencodable
        | Code::AuditBroken
        | Code::Canary
        | Code::CeremonyFailed
        | Code::HierarchyBroken
        | Code::HierarchyUnreadable
        | Code::Internal
        | Code::LintFailed
        | Code::PossessionRefused
        | Code::ProfileShape
        | Code::RandomSource
        | Code::SerialExists
        | Code::SignatureWrong
        | Code::StoreUnreadable
        | Code::TokenKeyAttributes
        | Code::TokenRefused
        | Code::VerificationCode => &[500],
        Code::BackupFailed | Code::TlsIdentity | Code::TokenKey => &[500, 503],
        Code::AuditNotCheckpointed
        | Code::AuthorityAbsent
        | Code::AuthorityWaiting
        | Code::BackupExists
        | Code::ClockNotSane
        | Code::CrlAbsent
        | Code::CrlWithheld
        | Code::IssuanceUnderWay
        | Code::IssuerReplaced
        | Code::LookUnderWay
        | Code::NotReady
        | Code::NotRecorded
        | Code::ReloadUnderWay
        | Code::RequestUnderWay
        | Code::SigningPaused
        | Code::SigningWindowClosed
        | Code::Stopping
        | Code::StoreUnavailable
        | Code::TokenDeadline
        | Code::TokenParked
        | Code::TokenUnavailable
        | Code::TooManyRequestsInFlight => &[503],
    }
}
