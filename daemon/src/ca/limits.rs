//! What an authority's certificate, or one above it, demands of everything below: measured by what the
//! profiles let it sign.
//!
//! An authority that is taken over or certified elsewhere is refused for it. A configuration may ask for
//! more later on; then it is an alarm, for verifiers refuse those leaves and not we.

use super::CertificateAuthority;
use super::hierarchy::Hierarchy;
use crate::x509::certificate::{Certificate, CertificateRefusal};
use crate::x509::limits;
use crate::x509::profile::ExtendedKeyUsage;
use std::collections::BTreeSet;

impl CertificateAuthority {
    /// Why verifiers would refuse what `authority` signs below `certificates`, its own and all above, in
    /// words. The self-signed one counts, too: verifiers differ in what they take from it.
    pub(super) fn limit<'a>(
        &self,
        authority: &str,
        certificates: impl IntoIterator<Item = &'a Certificate>,
    ) -> Result<Option<String>, CertificateRefusal> {
        let purposes = self.purposes_of(authority);
        for certificate in certificates {
            if let Some(limit) = limits::limit(certificate, &purposes)? {
                let subject = certificate.subject();
                return Ok(Some(format!("the certificate of {subject:?}: {limit}")));
            }
        }
        Ok(None)
    }

    /// Authorities that serve, and whose leaves verifiers refuse, in words.
    pub(super) fn limit_alarms(&self) -> Vec<String> {
        let hierarchy = self.hierarchy();
        let serving = hierarchy.iter().filter(|it| it.serving);
        let alarms = serving.filter_map(|it| {
            let limit = self.limit(&it.authority, certificates_above(&hierarchy, it.id));
            let limit = limit.unwrap_or_else(|error| Some(error.to_string()))?;
            let name = &it.authority;
            Some(format!("verifiers refuse what {name} signs: {limit}"))
        });
        alarms.collect()
    }

    /// What leaves are for that `authority` signs, or that stand below it: by its own profiles, by those
    /// of whom it stands in for, and by those of authorities below.
    fn purposes_of(&self, authority: &str) -> BTreeSet<ExtendedKeyUsage> {
        let hierarchy = self.hierarchy();
        let is_below = |name: &str| {
            let serving = hierarchy.serving(name);
            serving.is_some_and(|it| {
                let mut above = hierarchy.upwards(it.id);
                above.any(|it| it.authority == authority)
            })
        };
        let concerned = |name: &str| {
            let standby = self.failover.standby.get(name);
            name == authority || standby.is_some_and(|it| it == authority) || is_below(name)
        };
        let profiles = self.profiles.values().filter(|it| concerned(&it.authority));
        let purposes = profiles.flat_map(|it| &it.certificate.extended_key_usage);
        purposes.copied().collect()
    }
}

/// The certificate of the generation `id` and all above it, also those from elsewhere.
pub(super) fn certificates_above(
    hierarchy: &Hierarchy,
    id: i64,
) -> impl Iterator<Item = &Certificate> {
    hierarchy.upwards(id).flat_map(|it| {
        let foreign = it.foreign.iter().map(|link| &link.certificate);
        std::iter::once(&it.certificate).chain(foreign)
    })
}
