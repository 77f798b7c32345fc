//! Starts the rolls of a compromised leaf: excludes the leaf first, and readmits its device second.

use super::Rollovers;
use crate::ca::authorize::{Authorized, Issue, Operate};
use crate::ca::issuer::issue::{IssueRequest, Issued};
use crate::ca::{Code, Error};
use crate::enrollment::roll::{HubPolicy, LeafDetail};
use crate::enrollment::slots::SlotName;
use crate::store::{Cause, Excluded, RollRow};
use serde_json::json;

/// A report that a device's leaf is compromised.
#[derive(Clone, Debug)]
pub struct LeafCompromise {
    pub registration_id: String,
    /// Which slots; both, unless the report says which.
    pub slots: Vec<SlotName>,
    /// The fate of the hub identity.
    pub hub: HubPolicy,
    /// The request for the new leaf, if there is one.
    pub request: Option<NewLeaf>,
}

/// The request for the new leaf of a compromised device. It is judged after the exclusion.
#[derive(Clone, Debug)]
pub struct NewLeaf {
    pub csr: Option<String>,
    /// The profile; by default the one that the device is registered with.
    pub profile: Option<String>,
}

/// A device whose leaf was excluded.
#[derive(Debug)]
pub struct CompromisedDevice {
    /// The device, in the spelling on record.
    pub registration_id: String,
    /// One roll for each service that admits the device.
    pub rolls: Vec<RollRow>,
    /// The parts of the report that could not be used. The exclusion is made.
    pub problems: Vec<Error>,
    /// The new leaf, or why there is none although it was asked for.
    pub issued: Option<Result<Issued, Error>>,
}

impl Rollovers {
    /// Excludes a compromised leaf, and issues the new one if its request is there. The exclusion
    /// comes first, whatever the request is: a request that cannot be used changes nothing about
    /// it.
    pub fn start_leaf_compromise(
        &self,
        permission: &Authorized<Operate>,
        compromise: LeafCompromise,
    ) -> Result<CompromisedDevice, Error> {
        let device = self.exclusions.named_device(&compromise.registration_id)?;
        let detail = LeafDetail {
            hub: Some(compromise.hub),
            ..LeafDetail::default()
        };
        let entry = self.roll_entry(
            permission.caller(),
            "roll.started",
            &device,
            json!({ "reason": "compromise", "slots": compromise.slots, "hub": compromise.hub }),
        );
        let named = compromise.slots.clone();
        let cause = Cause::Compromise {
            slots: compromise.slots,
            detail: json!(detail),
        };
        let subject = Excluded::Device(device.clone());
        let exclusions = &self.exclusions;
        let recorded = exclusions.exclude(subject, cause, compromise.hub, entry)?;
        let mut problems = Vec::new();
        if recorded.slots != named {
            let message = format!(
                "{device} has no leaf of its own in that slot at every service that admits it, so \
                 both slots are excluded"
            );
            problems.push(Error::invalid(Code::RollSlotInvalid, message));
        }
        let request = compromise.request;
        Ok(CompromisedDevice {
            problems,
            issued: request.map(|request| self.reissue(permission, &device, request)),
            registration_id: device,
            rolls: recorded.rolls,
        })
    }

    /// Issues the new leaf of a compromised device. Another profile is refused: a compromise moves
    /// no device.
    fn reissue(
        &self,
        permission: &Authorized<Operate>,
        device: &str,
        new: NewLeaf,
    ) -> Result<Issued, Error> {
        let Some(csr) = new.csr else {
            let message = "a profile was sent without a csr; a new leaf needs a csr";
            return Err(Error::invalid(Code::BodyInvalid, message));
        };
        let registered = || Ok(self.store.device(device)?.map(|it| it.profile));
        let profile = new
            .profile
            .map_or_else(registered, |it| Ok::<_, Error>(Some(it)))?;
        let request = IssueRequest {
            profile: profile.unwrap_or_default(),
            registration_id: device.to_owned(),
            csr: csr.into_bytes(),
            generated: None,
            idempotency_key: None,
            moves: false,
        };
        let permission = Authorized::<Issue>::to_issue(permission.caller().clone());
        pollster::block_on(self.issuer.issue_audited(&permission, &request))
    }
}
