//! Judges the policies along a chain as relying parties do (RFC 5280 6.1.3 (d) to (f), 6.1.4 (h) to
//! (j), 6.1.5).
//!
//! A certificate above may require that each path below it has a policy that is valid in all of its
//! certificates. Relying parties that apply policies refuse a leaf without one then, also if they
//! ask for no policy themselves. Policies are not mapped here, so the valid ones are those that
//! every certificate names, or lets through by anyPolicy. The policies of a self-signed certificate
//! do not count: it is trusted as it is.

use super::certificate::Certificate;
use super::oid;
use super::profile::{CertificatePolicy, PolicyLimits, Profile};
use der::asn1::ObjectIdentifier;
use std::collections::BTreeSet;

/// The state of a path on its way down.
#[derive(Clone, Debug, Default)]
struct State {
    /// How many certificates may follow without a valid policy.
    explicit: Option<u8>,
    /// How many certificates may follow with anyPolicy.
    any: Option<u8>,
    /// The policies that are valid so far; `None` while all are.
    valid: Option<BTreeSet<ObjectIdentifier>>,
    /// The subject of the certificate that required a policy.
    required_by: String,
}

impl State {
    fn pass(&mut self, policies: &[ObjectIdentifier]) {
        if policies.contains(&oid::ANY_POLICY) && self.any != Some(0) {
            return;
        }
        let named = policies.iter().copied().filter(|it| *it != oid::ANY_POLICY);
        let mut named: BTreeSet<ObjectIdentifier> = named.collect();
        if let Some(valid) = &self.valid {
            named.retain(|it| valid.contains(it));
        }
        self.valid = Some(named);
    }

    /// Counts a certificate that is not self-issued.
    fn count(&mut self) {
        for left in [&mut self.explicit, &mut self.any].into_iter().flatten() {
            *left = left.saturating_sub(1);
        }
    }

    fn limit(&mut self, limits: PolicyLimits, subject: String) {
        let narrower = |own: Option<u8>, new: Option<u8>| match (own, new) {
            (Some(own), Some(new)) => Some(own.min(new)),
            (own, new) => own.or(new),
        };
        let explicit = limits.constraints.and_then(|it| it.require_explicit_policy);
        if explicit.is_some() && narrower(self.explicit, explicit) != self.explicit {
            self.required_by = subject;
        }
        self.explicit = narrower(self.explicit, explicit);
        self.any = narrower(self.any, limits.inhibit_any_policy);
    }

    /// Returns true if a path is refused that ends after so many more certificates.
    fn is_refused(&self, left: u8) -> bool {
        let is_required = self.explicit.is_some_and(|it| it <= left);
        is_required && self.valid.as_ref().is_some_and(BTreeSet::is_empty)
    }
}

/// Returns why relying parties refuse every certificate by one of `profiles` below a chain, if they
/// do. The chain begins with the issuer; its last certificate may be self-signed.
pub fn objection<'a>(
    chain: impl IntoIterator<Item = &'a Certificate>,
    profiles: &[&Profile],
) -> Option<String> {
    let mut downwards: Vec<&Certificate> = chain.into_iter().collect();
    downwards.reverse();
    let mut state = State::default();
    for (place, certificate) in downwards.into_iter().enumerate() {
        let subject = certificate.subject();
        let Some(limits) = certificate.policy_limits() else {
            return Some(format!(
                "the policy constraints of the certificate of {subject:?} cannot be read; have it \
                 issued with others, or without"
            ));
        };
        let is_anchor = place == 0 && certificate.is_self_issued();
        if !is_anchor {
            state.pass(&certificate.policy_ids());
            if state.is_refused(0) {
                return Some(refusal(
                    &state,
                    &format!("the certificate of {subject:?} has none"),
                ));
            }
            if !certificate.is_self_issued() {
                state.count();
            }
        }
        state.limit(limits, subject);
    }
    profiles.iter().find_map(|profile| {
        let mut end = state.clone();
        let policies = &profile.certificate_policies;
        let policies: Vec<_> = policies.iter().map(CertificatePolicy::id).collect();
        end.pass(&policies);
        end.is_refused(1).then(|| {
            let why = "a profile has none; add it to its certificate_policies";
            refusal(&end, why)
        })
    })
}

fn refusal(state: &State, why: &str) -> String {
    format!(
        "the certificate of {:?} requires a policy that every certificate below it names, and \
         {why}",
        state.required_by
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::profile::PolicyConstraints;

    const ONE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.32473.1");
    const TWO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.32473.2");

    fn limits(explicit: Option<u8>, any: Option<u8>) -> PolicyLimits {
        PolicyLimits {
            constraints: explicit.map(|it| PolicyConstraints {
                require_explicit_policy: Some(it),
                inhibit_policy_mapping: None,
            }),
            inhibit_any_policy: any,
        }
    }

    /// Whether a leaf is refused below certificates with these policies and limits.
    fn is_refused(
        above: &[(&[ObjectIdentifier], PolicyLimits)],
        leaf: &[ObjectIdentifier],
    ) -> bool {
        let mut state = State::default();
        for (policies, limits) in above {
            state.pass(policies);
            if state.is_refused(0) {
                return true;
            }
            state.count();
            state.limit(*limits, String::new());
        }
        state.pass(leaf);
        state.is_refused(1)
    }

    #[test]
    fn a_required_policy_has_to_be_in_every_certificate() {
        let none = limits(None, None);
        let required = limits(Some(0), None);
        let any = [oid::ANY_POLICY];
        for (above, leaf, refused) in [
            (vec![(&[][..], none)], &[][..], false),
            (vec![(&[ONE][..], required)], &[ONE][..], false),
            (vec![(&[ONE][..], required)], &[TWO][..], true),
            (vec![(&[ONE][..], required)], &[][..], true),
            (vec![(&[][..], required)], &[ONE][..], true),
            (vec![(&any[..], required)], &[TWO][..], false),
            (vec![(&any[..], limits(Some(0), Some(0)))], &any[..], true),
            (vec![(&any[..], limits(Some(3), None))], &[][..], false),
            (vec![(&any[..], limits(Some(1), None))], &[][..], true),
            (
                vec![(&any[..], limits(Some(0), Some(1))), (&any[..], none)],
                &[ONE][..],
                false,
            ),
            (
                vec![(&any[..], limits(Some(0), Some(0))), (&any[..], none)],
                &[ONE][..],
                true,
            ),
            (
                vec![(&[ONE][..], required), (&[][..], none)],
                &[ONE][..],
                true,
            ),
        ] {
            assert_eq!(is_refused(&above, leaf), refused, "{above:?} {leaf:?}");
        }
    }
}
