//! Raises an alarm for each exclusion that is not observed at every place yet.
//!
//! It is raised at once: an attacker uses the time until a place has answered, and the operator may
//! have closed the receipt.

use super::Exclusions;
use crate::ca::Error;
use crate::ca::alarm::{Alarm, AlarmCode, unreadable};
use crate::store::{BlockRow, RollRow};
use serde_json::json;

/// The most alarms for compromises, and for blocks. The others follow when these have ended.
const ALARMS_MAX: u32 = 20;

impl Exclusions {
    /// Returns an alarm for each compromise and each block that waits for a place.
    pub(in crate::ca) fn exclusion_alarms(&self) -> Vec<Alarm> {
        let pending = || -> Result<Vec<Alarm>, Error> {
            let rolls = self.store.pending_compromises(ALARMS_MAX)?;
            let blocks = self.store.pending_blocks(ALARMS_MAX)?;
            let alarms = rolls.iter().map(of_compromise);
            Ok(alarms.chain(blocks.iter().map(of_block)).collect())
        };
        pending().unwrap_or_else(|error| vec![unreadable("exclusions cannot be read", &error)])
    }
}

fn of_compromise(roll: &RollRow) -> Alarm {
    let id = roll.id;
    let subject = roll.subject.name();
    let since = roll.started_at.to_string();
    let text = format!(
        "the compromise of {subject} is not excluded at every place since {since}: `hallmark roll \
         show {id}` names the places"
    );
    let parameters = json!({ "roll": id, "subject": subject, "since": since });
    Alarm::new(AlarmCode::ExclusionPending, parameters, text)
}

fn of_block(block: &BlockRow) -> Alarm {
    let kind = block.kind.name();
    let subject = &block.name;
    let since = block.blocked_at.to_string();
    let generation = block
        .generation
        .map_or(String::new(), |number| format!(" --generation {number}"));
    let text = format!(
        "the block of {kind} {subject} is not in place everywhere since {since}: `hallmark block \
         show {kind} {subject}{generation}` names the places"
    );
    let parameters = json!({ "block": block.id, "subject": subject, "since": since });
    Alarm::new(AlarmCode::ExclusionPending, parameters, text)
}
