//! Gives the answer of a place to an exclusion a stable code, a state and parameters.
//!
//! The code decides the state, so no answer can call a place done under a code that means
//! something else. docs/operations.md has the cause and the remedy of each code.

use crate::error_code::codes;
use crate::store::{EnrollmentRow, RestrictedEnrollment};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

codes! {
    /// The code of a place's answer.
    PlaceCode {
        AuthorityAdmitted => "authority_admitted",
        AuthorityExcluded => "authority_excluded",
        AuthorityExclusionPending => "authority_exclusion_pending",
        CaCertificateParked => "ca_certificate_parked",
        CrlNotSigned => "crl_not_signed",
        CrlSigned => "crl_signed",
        DevicesRemaining => "devices_remaining",
        EnrollmentDeleted => "enrollment_deleted",
        EnrollmentDisabled => "enrollment_disabled",
        EnrollmentDrifted => "enrollment_drifted",
        EnrollmentGood => "enrollment_good",
        EnrollmentParked => "enrollment_parked",
        EnrollmentPending => "enrollment_pending",
        EnrollmentsNotCompared => "enrollments_not_compared",
        EnrollmentsUnknown => "enrollments_unknown",
        HubNotConfigured => "hub_not_configured",
        IdentitiesAfterService => "identities_after_service",
        IdentitiesDeleted => "identities_deleted",
        IdentitiesPending => "identities_pending",
        IdentitiesUnknown => "identities_unknown",
        IdentityKept => "identity_kept",
        IndividualsPending => "individuals_pending",
        IndividualsSettled => "individuals_settled",
        IssuerElsewhere => "issuer_elsewhere",
        IssuerRevoked => "issuer_revoked",
        LeafAdmitted => "leaf_admitted",
        LeavesUnknown => "leaves_unknown",
        RegistrationsPending => "registrations_pending",
        RootRevoked => "root_revoked",
        ServiceNotConfigured => "service_not_configured",
    }
}

impl PlaceCode {
    /// Returns the state that the code means.
    pub fn state(self) -> PlaceState {
        match self {
            PlaceCode::AuthorityExcluded
            | PlaceCode::CrlSigned
            | PlaceCode::EnrollmentDeleted
            | PlaceCode::EnrollmentDisabled
            | PlaceCode::EnrollmentGood
            | PlaceCode::IdentitiesDeleted
            | PlaceCode::IndividualsSettled
            | PlaceCode::IssuerRevoked
            | PlaceCode::RootRevoked => PlaceState::Done,
            PlaceCode::AuthorityExclusionPending
            | PlaceCode::CrlNotSigned
            | PlaceCode::DevicesRemaining
            | PlaceCode::EnrollmentPending
            | PlaceCode::EnrollmentsNotCompared
            | PlaceCode::IdentitiesAfterService
            | PlaceCode::IdentitiesPending
            | PlaceCode::IndividualsPending
            | PlaceCode::RegistrationsPending => PlaceState::Pending,
            PlaceCode::AuthorityAdmitted
            | PlaceCode::CaCertificateParked
            | PlaceCode::EnrollmentDrifted
            | PlaceCode::EnrollmentParked
            | PlaceCode::EnrollmentsUnknown
            | PlaceCode::HubNotConfigured
            | PlaceCode::IdentitiesUnknown
            | PlaceCode::IdentityKept
            | PlaceCode::IssuerElsewhere
            | PlaceCode::LeafAdmitted
            | PlaceCode::LeavesUnknown
            | PlaceCode::ServiceNotConfigured => PlaceState::Open,
        }
    }

    /// Returns true if the daemon observes the end of an open place. A place out of its reach
    /// stays open in the receipt after the operator has acted.
    pub fn is_observed(self) -> bool {
        !matches!(
            self,
            PlaceCode::HubNotConfigured
                | PlaceCode::IdentitiesUnknown
                | PlaceCode::IdentityKept
                | PlaceCode::IssuerElsewhere
                | PlaceCode::LeavesUnknown
                | PlaceCode::ServiceNotConfigured
        )
    }
}

/// The state of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlaceState {
    /// Observed in the desired state.
    Done,
    /// Not observed yet; the daemon goes on by itself.
    Pending,
    /// The daemon does not go on by itself: the operator must do what the answer says.
    Open,
}

impl PlaceState {
    /// Returns the name in the API.
    pub fn name(self) -> &'static str {
        match self {
            PlaceState::Done => "done",
            PlaceState::Pending => "pending",
            PlaceState::Open => "open",
        }
    }
}

/// One place, and its answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Place {
    /// `crl`, `dps: NAME`, `hub: NAME` or `issuer: NAME`.
    pub place: String,
    /// The state that the code means.
    pub state: PlaceState,
    pub code: PlaceCode,
    /// The parameters of the answer: a JSON object.
    pub parameters: Value,
    /// The answer as a sentence.
    pub answer: String,
}

impl Place {
    fn new(place: String, code: PlaceCode, parameters: Value, answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self {
            place,
            state: code.state(),
            code,
            parameters,
            answer,
        }
    }

    /// Returns the provisioning service of the place, or the one of the hub.
    pub fn service_name(&self) -> Option<&str> {
        self.parameters["provisioning"].as_str()
    }

    /// The answer of the revocation lists.
    pub fn crl(code: PlaceCode, parameters: Value, answer: impl Into<String>) -> Self {
        Self::new("crl".into(), code, parameters, answer)
    }

    /// The answer of a provisioning service.
    pub fn service(
        name: &str,
        code: PlaceCode,
        mut parameters: Value,
        answer: impl Into<String>,
    ) -> Self {
        parameters["provisioning"] = json!(name);
        Self::new(format!("dps: {name}"), code, parameters, answer)
    }

    /// The answer of the hub of a provisioning service.
    pub fn hub(
        service: &str,
        code: PlaceCode,
        mut parameters: Value,
        answer: impl Into<String>,
    ) -> Self {
        parameters["provisioning"] = json!(service);
        Self::new(format!("hub: {service}"), code, parameters, answer)
    }

    /// The open answer for one hub of a provisioning service that is not configured.
    pub fn hub_named(
        hub: &str,
        service: &str,
        mut parameters: Value,
        answer: impl Into<String>,
    ) -> Self {
        parameters["provisioning"] = json!(service);
        let code = PlaceCode::HubNotConfigured;
        Self::new(format!("hub: {hub}"), code, parameters, answer)
    }

    /// The answer of an issuer that is not an authority of this hierarchy.
    pub fn issuer(
        name: &str,
        code: PlaceCode,
        parameters: Value,
        answer: impl Into<String>,
    ) -> Self {
        Self::new(format!("issuer: {name}"), code, parameters, answer)
    }

    /// The answer of the service about one enrollment, as last observed. `is_configured` is whether
    /// the daemon writes to that service.
    pub fn enrollment(row: &EnrollmentRow, is_configured: bool) -> Self {
        let service = &row.provisioning;
        let kind = row.kind.name();
        let name = &row.name;
        let mut parameters = json!({ "kind": kind, "name": name });
        if !is_configured {
            let answer = format!(
                "{service} is not configured, so nothing is written or observed there: disable \
                 {kind} enrollment {name} at the service, or configure the service again"
            );
            return Self::service(service, PlaceCode::ServiceNotConfigured, parameters, answer);
        }
        if let Some(mark) = &row.mark {
            let why = mark.last_error.as_deref().unwrap_or("not answered yet");
            let change = if row.leaving {
                format!("the removal of {kind} enrollment {name}")
            } else {
                format!("{kind} enrollment {name}")
            };
            parameters["reason"] = json!(mark.last_error);
            if mark.parked {
                let answer = format!(
                    "{change} was rejected: {why}; fix the cause, then `hallmark push retry {name}`"
                );
                return Self::service(service, PlaceCode::EnrollmentParked, parameters, answer);
            }
            let answer = format!("{change} is on its way: {why}");
            return Self::service(service, PlaceCode::EnrollmentPending, parameters, answer);
        }
        if let Some(drift) = &row.drift {
            parameters["drift"] = drift.clone();
            let answer = if row.restored {
                format!(
                    "{kind} enrollment {name} differs since a restore: {drift}; repeat what was \
                     excluded after the backup, or have the record written with `hallmark push \
                     retry {name}`"
                )
            } else {
                format!(
                    "another client has changed {kind} enrollment {name}: {drift}; change it back \
                     there, or set `[policy] drift = \"repair\"`"
                )
            };
            return Self::service(service, PlaceCode::EnrollmentDrifted, parameters, answer);
        }
        let Some(observed) = row.observed_at.map(|it| it.to_string()) else {
            let answer = format!("{kind} enrollment {name} was not observed yet");
            return Self::service(service, PlaceCode::EnrollmentPending, parameters, answer);
        };
        parameters["observed_at"] = json!(observed);
        if row.enabled {
            let answer = format!(
                "{kind} enrollment {name} holds good certificates only, observed {observed}"
            );
            return Self::service(service, PlaceCode::EnrollmentGood, parameters, answer);
        }
        let answer = format!("{kind} enrollment {name} is disabled, observed {observed}");
        Self::service(service, PlaceCode::EnrollmentDisabled, parameters, answer)
    }

    /// The answer of the service about an enrollment that was observed to be deleted.
    pub fn deleted_enrollment(it: &RestrictedEnrollment) -> Self {
        let kind = it.kind.name();
        let name = &it.name;
        let parameters = json!({ "kind": kind, "name": name });
        let answer = format!("{kind} enrollment {name} is deleted");
        let code = PlaceCode::EnrollmentDeleted;
        Self::service(&it.provisioning, code, parameters, answer)
    }
}
