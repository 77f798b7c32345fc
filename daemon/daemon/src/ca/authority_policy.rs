//! Policy of authorities: the start of rollovers, their approvals, and the signing window.
//!
//! An authority signs leaves for a window that ends before it does: at the latest when the longest
//! of its leaves would outlive it. Pure values; the configuration makes them.

use super::hierarchy::Generation;
use super::profile::IssuanceProfile;
use crate::unix_seconds::UnixSeconds;
use crate::x509::profile::End;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A step of an authority's rollover that may need an operator's approval.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStep {
    /// The new generation signs.
    CutOver,
    /// The old certificate leaves its slots.
    Retire,
}

impl ApprovalStep {
    /// As the configuration and the API have it.
    pub fn name(self) -> &'static str {
        match self {
            ApprovalStep::CutOver => "cut_over",
            ApprovalStep::Retire => "retire",
        }
    }
}

/// The limits of a provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    pub ca_certificates: i64,
    /// Enrollment groups by X.509.
    pub groups: i64,
}

impl Default for ServiceLimits {
    /// The limits that Azure documents.
    fn default() -> Self {
        Self {
            ca_certificates: 25,
            groups: 100,
        }
    }
}

/// The configuration's settings for rollovers of authorities.
#[derive(Clone, Debug)]
pub struct AuthorityPolicy {
    /// How long each authority signs leaves from its making on, in seconds, where it is said.
    pub signing_windows: BTreeMap<String, i64>,
    /// Whether the daemon starts a roll by itself when the window nears its end.
    pub start: bool,
    /// How long before its end a window is near it, in seconds.
    pub notice_seconds: i64,
    /// The steps that wait for an operator's approval.
    pub approve: BTreeSet<ApprovalStep>,
    /// A device that was not seen for so long is called silent, in seconds.
    pub silent_seconds: i64,
    /// Limits by provisioning service.
    pub limits: BTreeMap<String, ServiceLimits>,
}

impl Default for AuthorityPolicy {
    fn default() -> Self {
        Self {
            signing_windows: BTreeMap::new(),
            start: false,
            notice_seconds: 30 * 86_400,
            approve: BTreeSet::new(),
            silent_seconds: 7 * 86_400,
            limits: BTreeMap::new(),
        }
    }
}

impl AuthorityPolicy {
    /// When `generation` stops signing leaves, in Unix seconds: as configured, and never so late
    /// that a leaf of `profiles` would outlive it. A profile whose fixed end is later than the
    /// generation's gives no leaf at any time, and does not count.
    pub fn window_end<'a>(
        &self,
        generation: &Generation,
        profiles: impl Iterator<Item = &'a IssuanceProfile>,
    ) -> UnixSeconds {
        let end = generation.certificate.not_after();
        let lasts = profiles
            .filter(|profile| profile.authority == generation.authority)
            .filter(|profile| !outlives(profile, generation))
            .map(|profile| {
                let longest = profile.certificate.longest_seconds();
                end.saturating_sub_unsigned(longest.unwrap_or(0))
            });
        let last = lasts.min().unwrap_or(end);
        match self.signing_windows.get(&generation.authority) {
            Some(window) => last.min(generation.certified_at.saturating_add(*window)),
            None => last,
        }
    }

    /// The limits of a service.
    pub fn limits_of(&self, provisioning: &str) -> ServiceLimits {
        self.limits.get(provisioning).copied().unwrap_or_default()
    }
}

/// Returns true if every leaf of the profile would outlive `generation`: such a leaf is refused.
pub(super) fn outlives(profile: &IssuanceProfile, generation: &Generation) -> bool {
    let end = generation.certificate.not_after();
    matches!(profile.certificate.end, End::At(fixed) if fixed > end)
}
