//! Raises an alarm for each exclusion that is not observed at every place yet.
//!
//! It is raised at once: an attacker uses the time until a place has answered, and the operator may
//! have closed the receipt.

use super::Exclusions;
use crate::ca::Error;
use crate::ca::alarm::{Alarm, AlarmCode, unreadable};
use crate::store::{BlockRow, PendingIdentity, RollRow};
use serde_json::json;

/// The most alarms for compromises, for blocks, and for identities. The others follow when these
/// have ended.
const ALARMS_MAX: u32 = 20;

impl Exclusions {
    /// Returns an alarm for each compromise and each block that waits for a place, and for each
    /// identity of a compromised device that no roll deletes.
    pub(in crate::ca) fn exclusion_alarms(&self) -> Vec<Alarm> {
        let pending = || -> Result<Vec<Alarm>, Error> {
            let rolls = self.store.pending_compromises(ALARMS_MAX)?;
            let blocks = self.store.pending_blocks(ALARMS_MAX)?;
            let identities = self.store.pending_identities(ALARMS_MAX)?;
            let alarms = rolls.iter().map(of_compromise);
            let alarms = alarms.chain(blocks.iter().map(of_block));
            Ok(alarms.chain(identities.iter().map(of_identity)).collect())
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

/// The identity of a compromised device at a service that has no roll of it.
fn of_identity(task: &PendingIdentity) -> Alarm {
    let service = &task.provisioning;
    let subject = &task.device;
    let since = task.since.to_string();
    let why = task.last_error.as_deref().unwrap_or("not answered yet");
    let text = format!(
        "the identity of the compromised device {subject} is not deleted at the hub of {service} \
         since {since}: {why}; it is tried again by itself, and `hallmark roll start {subject} \
         --reason compromise` repeats the compromise and names the places"
    );
    let parameters = json!({
        "subject": subject, "provisioning": service, "since": since, "reason": task.last_error,
    });
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
