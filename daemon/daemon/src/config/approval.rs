//! Reads `[approval]`: which actions need the approval of a second person.

use super::ConfigurationError;
use crate::ca::approval::{Action, ApprovalPolicy};
use crate::x509::profile::human_seconds;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The shortest and the longest time for which a request stands, in seconds.
const VALID_SECONDS: std::ops::RangeInclusive<u64> = 60..=30 * 86_400;

/// The table as it is written. Without it no action needs an approval.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    /// The actions that need it; `role.change` must be among them.
    actions: BTreeSet<Action>,
    /// How long a request for an approval stands, and with it the approval.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "valid_for_default")]
    valid_for: u64,
}

fn valid_for_default() -> u64 {
    24 * 3_600
}

impl Approval {
    pub(super) fn policy(self) -> Result<ApprovalPolicy, ConfigurationError> {
        if !VALID_SECONDS.contains(&self.valid_for) {
            let message = "[approval] valid_for must be 1m to 30d".to_owned();
            return Err(ConfigurationError::Contradiction(message));
        }
        Ok(ApprovalPolicy {
            actions: self.actions,
            valid_seconds: i64::try_from(self.valid_for).unwrap_or(i64::MAX),
        })
    }
}
