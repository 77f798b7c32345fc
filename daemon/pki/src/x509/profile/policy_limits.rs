//! Limits of an authority for the policies of certificates below it: policyConstraints and
//! inhibitAnyPolicy (RFC 5280 4.2.1.11 and 4.2.1.14).
//!
//! Each number says how many certificates may follow before the limit holds. Relying parties that
//! do not ask for a policy obey them all the same: below a required policy, a path without one is
//! refused.

use crate::x509::ber::{Element, INTEGER, SEQUENCE};
use serde::{Deserialize, Serialize};

/// The members of `policyConstraints`, in their order.
const REQUIRE_EXPLICIT_POLICY: u8 = 0x80;
const INHIBIT_POLICY_MAPPING: u8 = 0x81;

/// `policyConstraints` as a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConstraints {
    /// How many certificates below may do without a policy that is valid along the whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_explicit_policy: Option<u8>,
    /// How many certificates below may map policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inhibit_policy_mapping: Option<u8>,
}

/// All limits of one certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyLimits {
    pub constraints: Option<PolicyConstraints>,
    /// How many certificates below may use anyPolicy.
    pub inhibit_any_policy: Option<u8>,
}

impl PolicyConstraints {
    /// Returns true if it says nothing: RFC 5280 4.2.1.11 forbids an empty one.
    pub fn is_empty(self) -> bool {
        self == PolicyConstraints::default()
    }

    fn read(value: &[u8]) -> Option<PolicyConstraints> {
        let (value, rest) = Element::first(value)?;
        let known = [REQUIRE_EXPLICIT_POLICY, INHIBIT_POLICY_MAPPING];
        let is_known = value.children().all(|it| known.contains(&it.tag));
        if value.tag != SEQUENCE || !rest.is_empty() || !is_known {
            return None;
        }
        let member = |tag| value.child(tag).map(|it| number(it.contents));
        let read = PolicyConstraints {
            require_explicit_policy: member(REQUIRE_EXPLICIT_POLICY),
            inhibit_policy_mapping: member(INHIBIT_POLICY_MAPPING),
        };
        (!read.is_empty()).then_some(read)
    }
}

impl PolicyLimits {
    /// Reads the values of the two extensions. Returns `None` if one cannot be read.
    pub(crate) fn read(
        constraints: Option<&[u8]>,
        inhibit_any_policy: Option<&[u8]>,
    ) -> Option<PolicyLimits> {
        let inhibit = |value: &[u8]| match Element::first(value) {
            Some((it, [])) if it.tag == INTEGER => Some(number(it.contents)),
            _ => None,
        };
        Some(PolicyLimits {
            constraints: match constraints {
                Some(value) => Some(PolicyConstraints::read(value)?),
                None => None,
            },
            inhibit_any_policy: match inhibit_any_policy {
                Some(value) => Some(inhibit(value)?),
                None => None,
            },
        })
    }

    /// Returns true if it limits nothing.
    pub fn is_none(self) -> bool {
        self == PolicyLimits::default()
    }
}

/// A negative one is read as 0, which is the narrowest, and a greater one than 255 as 255.
fn number(contents: &[u8]) -> u8 {
    match contents {
        [0x80..=0xff, ..] => 0,
        [number] | [0, number] => *number,
        _ => u8::MAX,
    }
}
