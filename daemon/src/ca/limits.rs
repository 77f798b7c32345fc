//! What an authority's certificate, or one above it, demands of everything below: measured by what the
//! profiles let it sign.
//!
//! An authority that is taken over, certified elsewhere or made below one that is limited so is refused for it. A
//! configuration may ask for more later on; then it is an alarm, for verifiers refuse those leaves and not we.

use super::alarm::{Alarm, AlarmCode};
use super::hierarchy::Hierarchy;
use super::{CertificateAuthority, Code, Error};
use crate::x509::certificate::Certificate;
use crate::x509::constraints::objection;
use crate::x509::profile::ExtendedKeyUsage;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

impl CertificateAuthority {
    /// Why verifiers would refuse leaves of `authority`, or below it, for `certificates`: its own and all
    /// above, in words. The self-signed one counts, too: verifiers differ in what they take from it.
    pub(super) fn limit<'a>(
        &self,
        authority: &str,
        certificates: impl IntoIterator<Item = &'a Certificate>,
    ) -> Option<String> {
        let hierarchy = self.hierarchy();
        let below = hierarchy.iter().filter(|it| {
            let mut above = hierarchy.upwards(it.id);
            it.serving && above.any(|it| it.authority == authority)
        });
        let below: BTreeSet<&str> = below.map(|it| it.authority.as_str()).collect();
        let purposes = self.purposes_of(|name| name == authority || below.contains(name));
        first_limit(certificates, &purposes)
    }

    /// Refuses the authority `name` below `issuer` if verifiers would refuse its leaves.
    pub(super) fn check_limits(&self, issuer: &str, name: &str) -> Result<(), Error> {
        let hierarchy = self.hierarchy();
        let id = hierarchy.signing(issuer)?.id;
        let limit = self.limit(name, certificates_above(&hierarchy, id));
        limit.map_or(Ok(()), |limit| {
            let message = format!("authority {name} cannot stand below {issuer}: {limit}");
            Err(Error::mend(Code::AuthorityLimited, message))
        })
    }

    /// Limits that verifiers refuse leaves for, with the authorities that sign those.
    pub(super) fn limit_alarms(&self) -> Vec<Alarm> {
        let hierarchy = self.hierarchy();
        let mut limited: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for it in hierarchy.iter().filter(|it| it.serving) {
            let purposes = self.purposes_of(|name| name == it.authority);
            if purposes.is_empty() {
                continue;
            }
            let limit = first_limit(certificates_above(&hierarchy, it.id), &purposes);
            if let Some(limit) = limit {
                limited.entry(limit).or_default().push(&it.authority);
            }
        }
        let alarms = limited.into_iter();
        alarms
            .map(|(limit, them)| {
                let text = format!("verifiers refuse leaves of {}: {limit}", them.join(", "));
                let parameters = json!({ "authorities": them, "reason": limit });
                Alarm::new(AlarmCode::LeavesRefusedByVerifiers, parameters, text)
            })
            .collect()
    }

    /// What leaves are for by the profiles of these authorities, and of those that they stand in for.
    fn purposes_of(&self, is_one: impl Fn(&str) -> bool) -> BTreeSet<ExtendedKeyUsage> {
        let standby = |name: &str| self.failover.standby.get(name);
        let concerned = |name: &str| is_one(name) || standby(name).is_some_and(|it| is_one(it));
        let profiles = self.profiles.values().filter(|it| concerned(&it.authority));
        let purposes = profiles.flat_map(|it| &it.certificate.extended_key_usage);
        purposes.copied().collect()
    }
}

fn first_limit<'a>(
    certificates: impl IntoIterator<Item = &'a Certificate>,
    purposes: &BTreeSet<ExtendedKeyUsage>,
) -> Option<String> {
    certificates.into_iter().find_map(|certificate| {
        let limit = objection(certificate, purposes);
        // What cannot be read is no better for verifiers.
        let limit = limit.unwrap_or_else(|error| Some(error.to_string()))?;
        Some(format!(
            "the certificate of {:?}: {limit}",
            certificate.subject()
        ))
    })
}

/// The certificate of the generation `id` and all above it, also those from elsewhere.
fn certificates_above(hierarchy: &Hierarchy, id: i64) -> impl Iterator<Item = &Certificate> {
    hierarchy.upwards(id).flat_map(|it| {
        let foreign = it.foreign.iter().map(|link| &link.certificate);
        std::iter::once(&it.certificate).chain(foreign)
    })
}
