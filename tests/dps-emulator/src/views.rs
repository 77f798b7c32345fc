//! The world as a test looks at it, and the edits it makes behind the clients' backs.

use serde_json::{Map, Value, json};

use crate::cloud::Cloud;
use crate::enrollment::Kind;
use crate::etag::IfMatch;
use crate::ids;
use crate::service::records::{Write, shown};

/// Everything, in the shapes of the planes.
pub(crate) fn world(cloud: &Cloud) -> Value {
    let hubs: Map<String, Value> = cloud
        .hosts
        .hubs
        .iter()
        .map(|hub| (hub.clone(), identities(cloud, hub).into()))
        .collect();
    json!({
        "enrollments": records(cloud, Kind::Individual),
        "enrollmentGroups": records(cloud, Kind::Group),
        "registrations": registrations(cloud),
        "certificates": authorities(cloud),
        "hubs": hubs,
    })
}

/// All records of a kind.
pub(crate) fn records(cloud: &Cloud, kind: Kind) -> Vec<Value> {
    let switches = cloud.switches();
    cloud.read(|world| {
        let all = world.records(kind).iter();
        all.map(|record| shown(world, kind, record, &switches))
            .collect()
    })
}

pub(crate) fn record(cloud: &Cloud, kind: Kind, id: &str) -> Option<Value> {
    let switches = cloud.switches();
    cloud.read(|world| {
        let record = world.records(kind).find(id)?;
        Some(shown(world, kind, record, &switches))
    })
}

pub(crate) fn registrations(cloud: &Cloud) -> Vec<Value> {
    cloud.read(|world| {
        let all = world.registrations.values();
        all.map(|registration| registration.shown().into())
            .collect()
    })
}

pub(crate) fn registration(cloud: &Cloud, id: &str) -> Option<Value> {
    cloud.read(|world| Some(world.registrations.get(&ids::key(id))?.shown().into()))
}

pub(crate) fn authorities(cloud: &Cloud) -> Vec<Value> {
    cloud.read(|world| {
        let all = world.authorities.values();
        all.map(|authority| authority.shown(&cloud.name)).collect()
    })
}

/// All identities of a hub.
pub(crate) fn identities(cloud: &Cloud, hub: &str) -> Vec<Value> {
    cloud.read(|world| {
        let all = world.hubs.get(hub).into_iter().flat_map(|hub| hub.iter());
        all.map(|identity| identity.shown()).collect()
    })
}

/// One identity of a hub.
pub(crate) fn identity(cloud: &Cloud, hub: &str, device_id: &str) -> Option<Value> {
    cloud.read(|world| Some(world.hubs.get(hub)?.find(device_id)?.shown()))
}

/// Set members of a record as another client would.
pub(crate) fn edit(
    cloud: &Cloud,
    kind: Kind,
    id: &str,
    merge: Map<String, Value>,
) -> Result<Value, String> {
    let write = Write::new(cloud);
    let result = cloud.change(|world| write.edit(world, kind, id, merge));
    result.map_err(|refusal| refusal.message().to_owned())?;
    record(cloud, kind, id).ok_or_else(|| "the record is gone".to_owned())
}

/// Create a record as another client would.
pub(crate) fn create(
    cloud: &Cloud,
    kind: Kind,
    id: &str,
    body: Map<String, Value>,
) -> Result<(), String> {
    let write = Write::new(cloud);
    let result = cloud.change(|world| write.put(world, kind, id, &IfMatch::Absent, body));
    result.map_err(|refusal| refusal.message().to_owned())
}

/// Delete a record as another client would.
pub(crate) fn delete(cloud: &Cloud, kind: Kind, id: &str) -> Result<(), String> {
    let write = Write::new(cloud);
    let result = cloud.change(|world| write.delete(world, kind, id, &IfMatch::Any));
    result.map_err(|refusal| refusal.message().to_owned())
}
