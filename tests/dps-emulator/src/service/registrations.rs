//! Registration records, read and deleted by back ends (contract section 2).

use crate::cloud::Cloud;
use crate::enrollment::{Entry, Kind};
use crate::etag::IfMatch;
use crate::ids;
use crate::refusal::Refusal;
use crate::registration::Registration;
use crate::wire::{Call, Reply};

/// Codes of a missing registration are UNCONFIRMED: 404202 (contract section 4).
fn missing() -> Refusal {
    Refusal::new(404_202, "Not Found.")
}

pub(super) fn get(cloud: &Cloud, id: &str) -> Result<Reply, Refusal> {
    cloud.read(|world| {
        let registration = world.registrations.get(&ids::key(id)).ok_or_else(missing)?;
        Ok(Reply::json(200, registration.shown()))
    })
}

/// A deleted record is gone; that of an individual enrollment begins again as `unassigned`.
///
/// A registration's tag has no quotes of its own, and SDKs send it back as they read it.
pub(super) fn delete(cloud: &Cloud, id: &str, call: &Call) -> Result<Reply, Refusal> {
    let if_match = IfMatch::lenient(call.header("if-match"))
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    remove(cloud, id, &if_match)?;
    Ok(Reply::empty())
}

pub(crate) fn remove(cloud: &Cloud, id: &str, if_match: &IfMatch) -> Result<(), Refusal> {
    let now = cloud.now();
    cloud.change(|world| {
        let key = ids::key(id);
        let old = world.registrations.get(&key).ok_or_else(missing)?;
        if !if_match.allows(&old.etag) {
            return Err(Refusal::precondition_failed());
        }
        world.registrations.remove(&key);
        if let Some(record) = world.individuals.find(id) {
            let entry = Entry {
                kind: Kind::Individual,
                key: key.clone(),
            };
            let fresh = Registration::unassigned(&record.id, entry, now);
            world.registrations.insert(key, fresh);
        }
        Ok(())
    })
}
