//! Measures how far a rollover has come, for the estimate of its rest.
//!
//! Nothing is stored for it: each estimate is from the records of the last hour, or of the time
//! since the rollover's last step, if that is shorter.

use super::Rollovers;
use crate::ca::Error;
use crate::ca::coded::Coded;
use crate::enrollment::authority_roll::{Evidence, Wait};
use crate::enrollment::estimate::{Estimate, Measured, WINDOW_SECONDS};
use crate::enrollment::refusal::Reason;
use crate::error_code::codes;
use crate::ids::GenerationId;
use crate::store::{HubCause, RollRow, RollState, RollSubject};
use crate::unix_seconds::UnixSeconds;
use serde_json::json;

codes! {
    /// The source of an estimate.
    EstimateCode {
        AtLeast => "at_least",
        AtRate => "at_rate",
        NoProgress => "no_progress",
        NotBefore => "not_before",
    }
}

/// How long the rest of a rollover takes.
pub type EstimatedRest = Coded<EstimateCode>;

fn coded(estimate: Estimate) -> EstimatedRest {
    let (code, parameters) = match estimate {
        Estimate::AtRate { seconds, measured } => (
            EstimateCode::AtRate,
            json!({ "seconds": seconds, "measured_seconds": measured }),
        ),
        Estimate::NoProgress { measured } => (
            EstimateCode::NoProgress,
            json!({ "measured_seconds": measured }),
        ),
        Estimate::AtLeast {
            seconds,
            per_minute,
        } => (
            EstimateCode::AtLeast,
            json!({ "seconds": seconds, "operations_per_minute": per_minute }),
        ),
        Estimate::NotBefore(until) => (
            EstimateCode::NotBefore,
            json!({ "until": until.to_string() }),
        ),
    };
    EstimatedRest::new(code, parameters, estimate.text())
}

/// The time that is measured.
struct Window {
    since: UnixSeconds,
    seconds: i64,
}

impl Window {
    fn of(roll: &RollRow, now: UnixSeconds) -> Self {
        let since = roll.changed_at.max(now - WINDOW_SECONDS);
        Self {
            since,
            seconds: now.seconds_since(since).max(0),
        }
    }
}

impl Rollovers {
    /// Estimates the rest of a leaf's rollover. It is one device, so there is no rate.
    pub(super) fn rest_of_leaf(
        &self,
        roll: &RollRow,
        provisioning: &str,
    ) -> Result<Option<EstimatedRest>, Error> {
        let estimate = match roll.state {
            RollState::Draining if !self.rolling.retire_proven => {
                Some(Estimate::NotBefore(roll.old_not_after))
            }
            RollState::Staged | RollState::Excluding => {
                self.at_services([provisioning].into_iter())?
            }
            _ => None,
        };
        Ok(estimate.map(coded))
    }

    /// Estimates the rest of an authority's rollover, which waits for `wait`.
    pub(super) fn rest_of_authority(
        &self,
        roll: &RollRow,
        evidence: &Evidence,
        wait: &Wait,
    ) -> Result<Option<EstimatedRest>, Error> {
        let window = Window::of(roll, self.issuer.now());
        let estimate = match wait {
            Wait::Retirement(Reason::NotExpired { until }) => Some(Estimate::NotBefore(*until)),
            Wait::Retirement(Reason::DevicesUnproven { unproven }) => {
                let [old, _] = self.generations_of(roll)?;
                let done = self.store.devices_proven_since(&old, window.since)?;
                window.measured(*unproven, done, None)
            }
            Wait::Reissue(devices) => {
                let [_, new] = self.generations_of(roll)?;
                let done = self.store.devices_renewed_since(&new, window.since)?;
                window.measured(*devices, done, None)
            }
            Wait::Hub(open) => {
                let cause = HubCause::Roll(roll.id);
                let done = self.store.hub_tasks_done_since(cause, window.since)?;
                window.measured(*open, done, self.services.hubs.values().min().copied())
            }
            Wait::Service(_) => {
                let late = evidence.groups.iter().filter(|it| !it.in_step);
                self.at_services(late.map(|it| it.provisioning.as_str()))?
            }
            Wait::Verification(services) => {
                self.at_services(services.iter().map(String::as_str))?
            }
            _ => None,
        };
        Ok(estimate.map(coded))
    }

    /// Returns the least time of the changes that wait at these services, the longest of them.
    fn at_services<'a>(
        &self,
        services: impl Iterator<Item = &'a str>,
    ) -> Result<Option<Estimate>, Error> {
        let mut longest = None;
        for service in services {
            let measured = Measured {
                open: self.store.waiting_marks(service)?,
                per_minute: self.services.rates.get(service).copied(),
                ..Measured::default()
            };
            let Some(estimate @ Estimate::AtLeast { seconds, .. }) = measured.estimate() else {
                continue;
            };
            if longest.is_none_or(|(other, _)| seconds > other) {
                longest = Some((seconds, estimate));
            }
        }
        Ok(longest.map(|(_, estimate)| estimate))
    }

    /// The generations below the old one of an authority's rollover, and those below its next one.
    pub(super) fn generations_of(&self, roll: &RollRow) -> Result<[Vec<GenerationId>; 2], Error> {
        let RollSubject::Authority {
            name,
            old_generation,
            new_generation,
        } = &roll.subject
        else {
            return Ok([Vec::new(), Vec::new()]);
        };
        let hierarchy = self.issuer.hierarchy();
        let below = |id: GenerationId| Vec::from_iter(hierarchy.subtree(id));
        let new = new_generation.or_else(|| Some(hierarchy.serving(name)?.id));
        let new = new.filter(|id| id != old_generation);
        let mut old = below(*old_generation);
        old.extend(self.to_replace(roll)?);
        Ok([old, new.map(below).unwrap_or_default()])
    }
}

impl Window {
    fn measured(&self, open: u64, done: u64, per_minute: Option<u32>) -> Option<Estimate> {
        let measured = Measured {
            open,
            done,
            seconds: self.seconds,
            per_minute,
        };
        measured.estimate()
    }
}
