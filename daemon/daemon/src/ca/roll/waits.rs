//! Gives what a rollover waits for a stable code, beside the sentence.

use super::super::Error;
use super::super::coded::Coded;
use super::evidence::CanaryFailure;
use crate::enrollment::authority_roll::Wait;
use crate::error_code::codes;
use serde_json::{Value, json};

codes! {
    /// The reason why a rollover waits.
    WaitCode {
        Approval => "approval",
        AuthoritiesBelow => "authorities_below",
        BlockLifted => "block_lifted",
        BlockingGroup => "blocking_group",
        BothSlotsObserved => "both_slots_observed",
        CaCertificateDeleted => "ca_certificate_deleted",
        CanaryNotTried => "canary_not_tried",
        CertificateRequested => "certificate_requested",
        DevicesReissued => "devices_reissued",
        Group => "group",
        GroupRoom => "group_room",
        HubIdentitiesDeleted => "hub_identities_deleted",
        NewGeneration => "new_generation",
        NextStep => "next_step",
        Nothing => "nothing",
        OldCertificateExpired => "old_certificate_expired",
        ParentExcluded => "parent_excluded",
        Retirement => "retirement",
        ServiceExcludes => "service_excludes",
        ServiceInStep => "service_in_step",
        Unreadable => "unreadable",
        Verification => "verification",
    }
}

/// The reason why a rollover waits.
pub type Waits = Coded<WaitCode>;

impl Waits {
    /// The rollover is over.
    pub(super) fn nothing() -> Self {
        Self::new(WaitCode::Nothing, json!({}), "nothing")
    }

    /// The daemon's own step, which is due, or failed at the last attempt.
    pub(super) fn step(code: WaitCode, failure: Option<&str>) -> Self {
        let (what, due) = match code {
            WaitCode::NewGeneration => ("a new key and certificate", ""),
            _ => ("its next step", ", which is due"),
        };
        let text = failure.map_or(format!("{what}{due}"), |failure| {
            format!("{what}; the last attempt failed: {failure}")
        });
        Self::new(code, json!({ "failure": failure }), text)
    }

    /// The canary of a group could not be tried.
    pub(super) fn canary(provisioning: &str, group: &str, failure: &CanaryFailure) -> Self {
        let reason = &failure.reason;
        let since = failure.since.to_string();
        let parameters = json!({ "provisioning": provisioning, "group": group,
            "reason": reason, "since": since });
        let text = format!(
            "the canary at {provisioning} for group {group}, which could not be tried since \
             {since}: {reason}"
        );
        Self::new(WaitCode::CanaryNotTried, parameters, text)
    }

    /// The state of the rollover cannot be read.
    pub fn unreadable(error: &Error) -> Self {
        let parameters = json!({ "reason_code": error.code, "reason": error.message });
        Self::new(WaitCode::Unreadable, parameters, error.message.as_str())
    }

    /// Appends to the sentence.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.text.push_str(more);
        self
    }
}

/// Returns code and parameters of what the rollover of an authority waits for.
pub(super) fn coded(wait: &Wait) -> Waits {
    let (code, parameters): (_, Value) = match wait {
        Wait::Verification(services) => {
            (WaitCode::Verification, json!({ "provisioning": services }))
        }
        Wait::Group {
            provisioning,
            name,
            reason,
        } => {
            let reason_code = reason.code();
            let reason = reason.to_string();
            (
                WaitCode::Group,
                json!({ "provisioning": provisioning, "group": name,
                    "reason_code": reason_code, "reason": reason }),
            )
        }
        Wait::Service(groups) => (WaitCode::ServiceInStep, json!({ "groups": groups })),
        Wait::Approval(step) => (WaitCode::Approval, json!({ "step": step })),
        Wait::Retirement(reason) => {
            let reason_code = reason.code();
            let parameters = json!({ "reason_code": reason_code, "reason": reason.to_string() });
            (WaitCode::Retirement, parameters)
        }
        Wait::Below(names) => (WaitCode::AuthoritiesBelow, json!({ "authorities": names })),
        Wait::Above => (WaitCode::ParentExcluded, json!({})),
        Wait::Deletion => (WaitCode::CaCertificateDeleted, json!({})),
        Wait::Hub(open) => (
            WaitCode::HubIdentitiesDeleted,
            json!({ "identities": open }),
        ),
        Wait::Reissue(devices) => (WaitCode::DevicesReissued, json!({ "devices": devices })),
        Wait::Block => (WaitCode::BlockingGroup, json!({})),
        Wait::GroupRoom(services) => (WaitCode::GroupRoom, json!({ "provisioning": services })),
        Wait::BlockLifted => (WaitCode::BlockLifted, json!({})),
        Wait::Nothing => (WaitCode::Nothing, json!({})),
    };
    Waits::new(code, parameters, wait.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::refusal::Reason;

    #[test]
    fn a_wait_has_a_code_and_parameters_beside_its_sentence() {
        let group = Wait::Group {
            provisioning: "factory".into(),
            name: "line-1".into(),
            reason: Reason::CanaryPending,
        };
        let waits = coded(&group);
        assert_eq!(waits.code.name(), "group");
        assert_eq!(waits.text, group.to_string());
        let parameters = json!({ "provisioning": "factory", "group": "line-1",
            "reason_code": "slots_canary_pending", "reason": Reason::CanaryPending.to_string() });
        assert_eq!(waits.parameters, parameters);

        let failed = Waits::step(WaitCode::NewGeneration, Some("no such luck"));
        assert_eq!(failed.parameters, json!({ "failure": "no such luck" }));
        assert_eq!(
            failed.text,
            "a new key and certificate; the last attempt failed: no such luck"
        );
    }
}
