//! Says what the compromise of a device or a generation would change, for the one who decides.

use super::Exclusions;
use crate::ca::hierarchy::Generation;
use crate::ca::{Code, Error};
use crate::enrollment::roll::HubPolicy;
use crate::enrollment::slots::SlotName;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::GenerationNumber;
use crate::store::{Cause, Excluded, Exclusion, PlannedExclusion};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// The changes that a compromise would make now.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CompromisePlan {
    /// The device or authority, as on record.
    pub name: String,
    /// Of an authority: the compromised generation.
    pub generation: Option<GenerationNumber>,
    /// Hexadecimal digits: SHA-256 of its certificate, of a device the current one. None of a
    /// device without a certificate on record.
    pub certificate: Option<String>,
    /// Whether that certificate is revoked already.
    pub is_revoked: bool,
    #[serde(flatten)]
    pub changes: PlannedExclusion,
}

impl Exclusions {
    /// Plans the compromise of a device.
    pub fn plan_of_device(&self, registration_id: &str) -> Result<CompromisePlan, Error> {
        let device = self.named_device(registration_id)?;
        let row = self.store.device(&device)?;
        let thumbprint = row.map(|it| it.certificate);
        let leaf = thumbprint.map(|it| self.store.certificate_by_sha256(it.as_bytes()));
        let leaf = leaf.transpose()?.flatten();
        Ok(CompromisePlan {
            changes: self.planned(Excluded::Device(device.clone()))?,
            name: device,
            generation: None,
            certificate: thumbprint.map(|it| it.to_string()),
            is_revoked: leaf.is_some_and(|it| it.revoked_at.is_some()),
        })
    }

    /// Plans the compromise of a generation, by default the one that serves.
    pub fn plan_of_authority(
        &self,
        authority: &str,
        generation: Option<GenerationNumber>,
    ) -> Result<CompromisePlan, Error> {
        let found = self.generation_or_serving(authority, generation)?;
        let subject = Excluded::Generation(found.authority.clone(), found.number);
        Ok(CompromisePlan {
            changes: self.planned(subject)?,
            name: found.authority.clone(),
            generation: Some(found.number),
            certificate: Some(Thumbprint::of(found.certificate.der()).to_string()),
            is_revoked: found.revoked_at.is_some(),
        })
    }

    /// Finds the generation with this number, or the one that serves.
    pub(in crate::ca) fn generation_or_serving(
        &self,
        authority: &str,
        number: Option<GenerationNumber>,
    ) -> Result<Arc<Generation>, Error> {
        if let Some(number) = number {
            return self.generation_named(authority, number);
        }
        let hierarchy = self.issuer.hierarchy();
        hierarchy.serving(authority).cloned().ok_or_else(|| {
            let message = format!(
                "nothing is excluded: there is no authority {authority:?} that signs; `hallmark \
                 authority list` has all"
            );
            Error::missing(Code::AuthorityUnknown, message)
        })
    }

    fn planned(&self, subject: Excluded) -> Result<PlannedExclusion, Error> {
        let asked = Exclusion {
            subject,
            services: self.services.names.clone(),
            hub: HubPolicy::Delete,
            cause: Cause::Compromise {
                slots: SlotName::BOTH.into(),
                detail: Value::Null,
            },
            placeholder: None,
        };
        Ok(self.store.planned_exclusion(&asked, self.issuer.now())?)
    }
}
