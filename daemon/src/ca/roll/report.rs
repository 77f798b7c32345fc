//! A roll in words: what it waits for, and what is left to do.

use super::super::{CertificateAuthority, Error, rfc3339};
use crate::store::{RollRow, RollState, RollSubject};

impl CertificateAuthority {
    /// In words, what a roll waits for.
    pub fn roll_waits_for(&self, roll: &RollRow) -> Result<String, Error> {
        let RollSubject::Enrollment {
            provisioning, name, ..
        } = &roll.subject
        else {
            return Ok(format!("the next step of {}", roll.subject.name()));
        };
        Ok(match roll.state {
            RollState::Requested | RollState::Reissuing => {
                format!("a request for a certificate of {name} with a new key")
            }
            RollState::Staged => format!("{provisioning} to be seen holding both certificates"),
            RollState::Draining => {
                let end = rfc3339(roll.old_not_after);
                format!("the old certificate to expire at {end}")
            }
            RollState::ShuttingOut => {
                format!("{provisioning} to be seen without the breached certificate")
            }
            RollState::Clearing => format!("the hub of {provisioning} to delete {name}"),
            RollState::Done | RollState::Aborted => "nothing".into(),
        })
    }
}
