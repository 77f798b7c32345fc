//! Starts the rolls of a compromised leaf: excludes the leaf first, and readmits its device second.

use crate::ca::Code;
use crate::ca::authorize::{Authorized, Issue, Operate};
use crate::ca::issue::{IssueRequest, Issued};
use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::roll::{HubPolicy, LeafDetail};
use crate::enrollment::slots::SlotName;
use crate::store::{Cause, Excluded, IntentRefusal, RollRow};
use crate::x509::certificate::Certificate;
use crate::x509::csr::Csr;
use crate::x509::key::PublicKey;
use serde_json::json;
use std::collections::BTreeSet;

/// A report that a device's leaf is compromised.
#[derive(Clone, Debug)]
pub struct LeafCompromise {
    /// The device.
    pub registration_id: String,
    /// Which slots; both, unless the report says which.
    pub slots: Vec<SlotName>,
    /// The fate of the hub identity.
    pub hub: HubPolicy,
    /// The request for the new leaf, if there is one.
    pub request: Option<IssueRequest>,
}

/// A device whose leaf was excluded.
#[derive(Debug)]
pub struct CompromisedDevice {
    /// The device, in the spelling on record.
    pub registration_id: String,
    /// One roll for each service that admits the device.
    pub rolls: Vec<RollRow>,
    /// The new leaf, or why there is none although it was asked for.
    pub issued: Option<Result<Issued, Error>>,
}

impl CertificateAuthority {
    /// Excludes a compromised leaf, and issues the new one if its request is there. The compromised
    /// leaf stays excluded if the new one cannot be issued.
    pub fn start_leaf_compromise(
        &self,
        permission: &Authorized<Operate>,
        compromise: LeafCompromise,
    ) -> Result<CompromisedDevice, Error> {
        let device = self.known_device(&compromise.registration_id)?;
        if let Some(request) = &compromise.request {
            self.check_new_leaf(&device, request)?;
        }
        let hubs = match compromise.hub {
            HubPolicy::Reprovision => BTreeSet::new(),
            HubPolicy::Delete => self.hubs.keys().cloned().collect(),
        };
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
        let cause = Cause::Compromise {
            slots: compromise.slots,
            detail: json!(detail),
        };
        let subject = Excluded::Device(device.clone());
        let rolls = self.exclude(subject, cause, hubs, entry)?.rolls;
        let issued = compromise.request.map(|request| {
            let permission = Authorized::<Issue>::to_issue(permission.caller().clone())?;
            pollster::block_on(self.issuer.issue_audited(&permission, &request))
        });
        Ok(CompromisedDevice {
            registration_id: device,
            rolls,
            issued,
        })
    }

    /// Returns the registration id in the spelling on record.
    pub(in super::super) fn known_device(&self, registration_id: &str) -> Result<String, Error> {
        let device = self.store.device(registration_id)?.ok_or_else(|| {
            let message = format!(
                "there is no device {registration_id:?}; `hallmark device list` has all that ever \
                 got a leaf"
            );
            Error::missing(Code::DeviceUnknown, message)
        })?;
        Ok(device.registration_id)
    }

    /// Refuses a request that could not be met, before anything changes.
    fn check_new_leaf(&self, device: &str, request: &IssueRequest) -> Result<(), Error> {
        let profile = self.issuer.profile(&request.profile)?;
        self.refuse_other_profile(device, &profile.name)?;
        let csr = Csr::parse(&request.csr).map_err(|r| Error::mend(r.code(), r.to_string()))?;
        for leaf in self.living_leaves(&request.registration_id)? {
            refuse_same_key(&leaf.der, csr.public_key())?;
        }
        let key = csr.public_key().spki_der();
        let id = &request.registration_id;
        let in_the_way = self.store.key_refusal(key, id, profile.shared_keys)?;
        match in_the_way {
            Some(reason) => Err(IntentRefusal::Key(reason).into()),
            None => Ok(()),
        }
    }
}

impl CertificateAuthority {
    /// Refuses another profile: a compromise moves no device.
    fn refuse_other_profile(&self, device: &str, asked: &str) -> Result<(), Error> {
        let registered = self.store.device(device)?.map(|it| it.profile);
        match registered {
            Some(registered) if registered != asked => Err(Error::forbidden(
                Code::DeviceMoves,
                format!(
                    "{device} is registered with profile {registered:?}; ask for its new leaf by \
                     that, or without one, and move it then with `hallmark issue --move`"
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn refuse_same_key(der: &[u8], key: &PublicKey) -> Result<(), Error> {
    let known = Certificate::parse(der)
        .ok()
        .and_then(|it| it.public_key().ok());
    match known {
        Some(known) if known == *key => Err(Error::mend(
            Code::KeyCompromised,
            "the CSR carries the key of a leaf that is reported as compromised; have the device \
             make a new key",
        )),
        _ => Ok(()),
    }
}
