//! Checks the limits of provisioning services before a rollover starts.

use super::Rollovers;
use crate::ca::{Code, Error};
use crate::enrollment::roll::RollReason;
use crate::ids::GenerationId;
use crate::store::RollRow;
use std::collections::BTreeSet;

impl Rollovers {
    /// Fails if a service has no room for the CA certificates that the rollover of `authority`
    /// adds: its own, and those of the authorities below it.
    pub(super) fn within_limits(&self, authority: &str) -> Result<(), Error> {
        for provisioning in self.services.verified.keys() {
            let added = self.ca_certificates_added(provisioning, authority);
            let (held, _) = self.store.service_load(provisioning)?;
            let most = self
                .authority_policy
                .limits_of(provisioning)
                .ca_certificates;
            if added > 0 && held + added > most {
                let message = format!(
                    "{provisioning} holds {held} of at most {most} CA certificates, and this roll \
                     adds {added}: delete some there first"
                );
                return Err(Error::conflict(Code::ServiceLimit, message));
            }
        }
        Ok(())
    }

    /// Returns an error if a service has no room for the blocking groups that a compromise adds,
    /// one for each group. It refuses no exclusion: the operator reads it with the receipt.
    pub(super) fn groups_within_limits(&self, authorities: &[String]) -> Result<(), Error> {
        for provisioning in self.services.verified.keys() {
            let mut added = 0;
            for authority in authorities {
                let groups = self.store.groups_of(authority)?;
                let here = |it: &&crate::store::EnrollmentRow| it.provisioning == *provisioning;
                added += groups.iter().filter(here).count() as i64;
            }
            let (_, held) = self.store.service_load(provisioning)?;
            let most = self.authority_policy.limits_of(provisioning).groups;
            if added > 0 && held + added > most {
                let message = format!(
                    "{provisioning} holds {held} of at most {most} groups, and blocking the \
                     compromised certificates adds {added}: the successors wait for room; delete \
                     others there, then `hallmark reload`"
                );
                return Err(Error::conflict(Code::ServiceLimit, message));
            }
        }
        Ok(())
    }

    /// In a compromise, returns the services that have no room for a group which blocks the
    /// compromised certificate, hold it in a group of the authority alone, and have a group above
    /// that would admit it.
    pub(super) fn without_room(
        &self,
        roll: &RollRow,
        old: GenerationId,
    ) -> Result<Vec<String>, Error> {
        if roll.reason != RollReason::Compromise {
            return Ok(Vec::new());
        }
        let hierarchy = self.issuer.hierarchy();
        let above = hierarchy.upwards(old).skip(1);
        let above: BTreeSet<&str> = above.map(|it| it.authority.as_str()).collect();
        let groups = self.store.groups()?;
        let mut services = Vec::new();
        for service in &self.services.names {
            let here = || groups.iter().filter(|it| it.provisioning == *service);
            let has_above =
                here().any(|it| it.authority.as_deref().is_some_and(|it| above.contains(it)));
            let mut holding = here().filter(|it| it.slots.held().contains(&roll.old_certificate));
            let leaves_it = holding
                .clone()
                .any(|it| it.overlay_of.is_none() && !it.by_reference);
            let is_blocked = holding.any(|it| it.overlay_of.is_some());
            if !has_above || !leaves_it || is_blocked {
                continue;
            }
            let (_, held) = self.store.service_load(service)?;
            if held >= self.authority_policy.limits_of(service).groups {
                services.push(service.clone());
            }
        }
        Ok(services)
    }

    fn ca_certificates_added(&self, provisioning: &str, authority: &str) -> i64 {
        let hierarchy = self.issuer.hierarchy();
        let own = i64::from(self.services.verifies(provisioning, authority));
        let below = hierarchy.children(authority).into_iter();
        own + below
            .map(|it| self.ca_certificates_added(provisioning, &it.authority))
            .sum::<i64>()
    }
}
