//! Checks whether an issuer's name constraints, policy constraints or extended key usages would
//! make verifiers reject all leaves of one of our profiles, or an authority below. Whether the
//! names of a single leaf fit is decided when it is built (`x509::tbs`).
//!
//! An authority with such an issuer is refused when it is made, adopted or installed. If a later
//! configuration causes it, it is an alarm: verifiers reject those leaves, the daemon does not.

use super::Issuer;
use crate::ca::alarm::{Alarm, AlarmCode};
use crate::ca::{Code, Error};
use crate::x509::certificate::Certificate;
use crate::x509::constraints::objection;
use crate::x509::path;
use crate::x509::policy_path;
use crate::x509::profile::Profile;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

impl Issuer {
    /// Returns why verifiers would reject leaves of `authority` and of the authorities below it,
    /// for `certificates`: its own and all above. The self-signed one counts, because some
    /// verifiers apply its constraints, too (RFC 5280, section 6.2).
    pub(in crate::ca) fn constraint<'a>(
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
        let profiles = self.profiles_of(|name| name == authority || below.contains(name));
        let authorities = hierarchy.iter().filter(|it| {
            it.serving && it.authority != authority && below.contains(it.authority.as_str())
        });
        let authorities: Vec<&Certificate> = authorities.map(|it| &it.certificate).collect();
        let certificates: Vec<&Certificate> = certificates.into_iter().collect();
        let limit = certificates.iter().find_map(|certificate| {
            let limit = limit_of(certificate, &profiles);
            limit.or_else(|| path::objection_by_names(&authorities, certificate))
        });
        limit.or_else(|| policy_path::objection(certificates, &profiles))
    }

    /// Refuses the authority `name` below `issuer` if verifiers would reject its leaves.
    pub(in crate::ca) fn check_constraints(&self, issuer: &str, name: &str) -> Result<(), Error> {
        let hierarchy = self.hierarchy();
        let id = hierarchy.signing(issuer)?.id;
        // RFC 5280 6.1.4 (m): path lengths count along the whole chain, and this one is below.
        let limit = path::objection(hierarchy.certificates_above(id), 1)
            .or_else(|| self.constraint(name, hierarchy.certificates_above(id)));
        limit.map_or(Ok(()), |limit| {
            let message = format!("authority {name} cannot be below {issuer}: {limit}");
            Err(Error::invalid(Code::AuthorityLimited, message))
        })
    }

    /// Returns an alarm for each constraint that makes verifiers reject leaves.
    pub(in crate::ca) fn constraint_alarms(&self) -> Vec<Alarm> {
        let hierarchy = self.hierarchy();
        let mut limited: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for it in hierarchy.iter().filter(|it| it.serving) {
            let profiles = self.profiles_of(|name| name == it.authority);
            if profiles.is_empty() {
                continue;
            }
            let mut above = hierarchy.certificates_above(it.id);
            let limit = above
                .find_map(|it| limit_of(it, &profiles))
                .or_else(|| path::objection(hierarchy.certificates_above(it.id), 0))
                .or_else(|| policy_path::objection(hierarchy.certificates_above(it.id), &profiles));
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

    /// Returns the profiles of these authorities, and of the authorities that they are a standby
    /// for.
    fn profiles_of(&self, is_one: impl Fn(&str) -> bool) -> Vec<&Profile> {
        let standby = |name: &str| self.settings.failover.standby.get(name);
        let concerned = |name: &str| is_one(name) || standby(name).is_some_and(|it| is_one(it));
        self.profiles()
            .values()
            .filter(|it| concerned(&it.authority))
            .map(|it| &it.certificate)
            .collect()
    }
}

fn limit_of(certificate: &Certificate, profiles: &[&Profile]) -> Option<String> {
    let limit = objection(certificate, profiles);
    // Verifiers cannot read it either.
    let limit = limit.unwrap_or_else(|error| Some(error.to_string()))?;
    Some(format!(
        "the certificate of {:?}: {limit}",
        certificate.subject()
    ))
}
