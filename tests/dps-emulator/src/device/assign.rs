//! Changes of a registration: the registration record and the hub (contract sections 6 and 9).

use aws_lc_rs::digest;
use serde_json::Value;
use time::OffsetDateTime;

use super::judge::Verdict;
use super::requests::Device;
use crate::enrollment::{Kind, Record};
use crate::hub::Thumbprints;
use crate::ids;
use crate::options::Switches;
use crate::registration::{Registration, Status};
use crate::world::World;

/// A verdict about a device, to be carried out.
#[derive(Clone, Copy)]
pub(super) struct Assignment<'a> {
    pub(super) device: &'a Device<'a>,
    pub(super) verdict: &'a Verdict,
    pub(super) linked_hubs: &'a [String],
    pub(super) switches: &'a Switches,
    pub(super) now: OffsetDateTime,
}

/// Where a device goes, decided from its record and where it was.
#[derive(Debug)]
struct Placement {
    hub: String,
    left: Option<String>,
    device_id: String,
    migrate: bool,
    edge: bool,
    initial_twin: Option<Value>,
}

impl Assignment<'_> {
    /// Write record and hub; returns the registration as it is now.
    pub(super) fn apply(&self, world: &mut World) -> Registration {
        let key = ids::key(self.device.registration_id);
        let known = world.registrations.get(&key).cloned();
        let entry = self.verdict.entry.clone();
        let fresh =
            || Registration::unassigned(self.device.registration_id, entry.clone(), self.now);
        let mut registration = known.unwrap_or_else(fresh);
        registration.entry = entry.clone();
        registration.error = None;
        match self.verdict.enabled {
            true => self.provision(world, &mut registration),
            false => registration.status = Status::Disabled,
        }
        registration.touch(self.now);
        world.registrations.insert(key, registration.clone());
        registration
    }

    fn provision(&self, world: &mut World, registration: &mut Registration) {
        let entry = &self.verdict.entry;
        let record = world.records(entry.kind).find(&entry.key);
        let record = record.expect("the verdict was made under the same lock");
        let Some(place) = self.place(record, registration) else {
            registration.status = Status::Failed;
            registration.error = Some((400_209, "No IoT hub is linked.".to_owned()));
            return;
        };
        let substatus = self.substatus(registration, &place);
        self.write_hub(world, &place);
        registration.status = Status::Assigned;
        registration.substatus = Some(substatus.to_owned());
        registration.assigned_hub = Some(place.hub);
        registration.device_id = Some(place.device_id);
    }

    /// Reprovisioning (contract section 6): a device stays where it is while its hub is still
    /// allowed, or while the policy forbids to move it.
    fn place(&self, record: &Record, registration: &Registration) -> Option<Placement> {
        let allowed = allowed_hubs(record, self.linked_hubs);
        let policy = |member: &str| {
            record.fields["reprovisionPolicy"][member]
                .as_bool()
                .unwrap_or(true)
        };
        let may_move = policy("updateHubAssignment");
        let current = registration.assigned_hub.clone();
        let stays = current
            .clone()
            .filter(|hub| !may_move || allowed.contains(hub));
        let hub = stays.or_else(|| chosen_hub(record, self.device.registration_id, &allowed))?;
        let device_id = match self.verdict.entry.kind {
            Kind::Individual => record.text("deviceId").unwrap_or(&record.id),
            Kind::Group => self.device.registration_id,
        };
        Some(Placement {
            left: current.filter(|old| *old != hub),
            hub,
            device_id: device_id.to_owned(),
            migrate: policy("migrateDeviceData"),
            edge: record.fields["capabilities"]["iotEdge"]
                .as_bool()
                .unwrap_or(false),
            initial_twin: record.fields.get("initialTwin").cloned(),
        })
    }

    /// On a repeat the answer depends on the API version: our inference, as the contract says.
    fn substatus(&self, registration: &Registration, place: &Placement) -> &'static str {
        let knows_reprovisioning = self.device.api_version > "2019-03-31";
        match (&registration.assigned_hub, &place.left) {
            (Some(_), Some(_)) if place.migrate => "deviceDataMigrated",
            (Some(_), Some(_)) => "deviceDataReset",
            (Some(_), None) if knows_reprovisioning => "reprovisionedToInitialAssignment",
            _ => "initialAssignment",
        }
    }

    /// The identity in the hub gets the thumbprint of the leaf that was just presented. A changed
    /// device id leaves the old identity there (contract section 9); a changed hub does not.
    fn write_hub(&self, world: &mut World, place: &Placement) {
        let twin = place.left.as_ref().and_then(|left| {
            let old = world.hubs.get_mut(left)?.remove(&place.device_id)?;
            place.migrate.then_some(old.twin)
        });
        let leaf = self
            .device
            .presented
            .first()
            .expect("the judge refuses an empty chain");
        let primary = leaf.sha256();
        let thumbprints = Thumbprints {
            secondary: self
                .switches
                .hub_secondary_thumbprint
                .then(|| primary.clone()),
            primary,
        };
        let etag = world.next_etag();
        let hub = world.hubs.entry(place.hub.clone()).or_default();
        let identity = hub.provision(&place.device_id, &thumbprints, place.edge, etag, self.now);
        match (twin, &place.initial_twin) {
            (Some(twin), _) => identity.twin = twin,
            (None, Some(initial)) if identity.twin.is_null() => identity.twin = initial.clone(),
            _ => {}
        }
    }
}

/// `iotHubs`, else the one of the older `iotHubHostName`, else all that are linked.
fn allowed_hubs(record: &Record, linked: &[String]) -> Vec<String> {
    let named = record.fields.get("iotHubs").and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(Value::as_str);
    let mut allowed: Vec<String> = named.map(str::to_owned).collect();
    if allowed.is_empty() {
        allowed.extend(record.text("iotHubHostName").map(str::to_owned));
    }
    match allowed.is_empty() {
        true => linked.to_vec(),
        false => allowed,
    }
}

/// `hashed`, the default, spreads the devices evenly, those of one group too. The other policies
/// take the first hub: latency and weights mean nothing here, and custom functions are not called.
fn chosen_hub(record: &Record, registration_id: &str, allowed: &[String]) -> Option<String> {
    let index = match record.text("allocationPolicy").unwrap_or("hashed") {
        "hashed" => {
            let digest = digest::digest(&digest::SHA256, ids::key(registration_id).as_bytes());
            usize::from(digest.as_ref()[0]) % allowed.len().max(1)
        }
        _ => 0,
    };
    allowed.get(index).cloned()
}
