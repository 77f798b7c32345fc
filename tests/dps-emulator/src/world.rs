//! Everything the emulator remembers, in one value.
//!
//! All planes work on it under one lock, so a request either happened as a whole or not at all.
//! With a state file it is written after every change, next to the file and then renamed over it: a
//! crash leaves the world as it was after some change, never half of one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::arm::authority::Authority;
use crate::device::operations::Operations;
use crate::enrollment::attestation::fresh_key;
use crate::enrollment::{Kind, Record, Records};
use crate::entra::Directory;
use crate::hub::Hub;
use crate::ids;
use crate::registration::Registration;
use crate::sas::Policy;

/// The state of all planes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) id_scope: String,
    pub(crate) service_policy: Policy,
    pub(crate) hub_policy: Policy,
    /// The bearer token that always opens the resource manager.
    pub(crate) arm_token: String,
    pub(crate) individuals: Records,
    pub(crate) groups: Records,
    /// By key of the registration id.
    pub(crate) registrations: BTreeMap<String, Registration>,
    pub(crate) operations: Operations,
    /// CA certificates by lower-case name.
    pub(crate) authorities: BTreeMap<String, Authority>,
    /// Applications and their tokens.
    #[serde(default)]
    pub(crate) directory: Directory,
    pub(crate) hubs: BTreeMap<String, Hub>,
    /// Source of the ETags of resource manager and hub.
    etags: u64,
}

impl World {
    /// An empty service with fresh keys.
    pub(crate) fn new(hubs: &[String]) -> Self {
        let policy = |name: &str| Policy {
            name: name.to_owned(),
            primary: fresh_key(),
            secondary: fresh_key(),
        };
        Self {
            id_scope: "0ne00A1B2C3".to_owned(),
            service_policy: policy("provisioningserviceowner"),
            hub_policy: policy("iothubowner"),
            arm_token: format!("arm.{}", uuid::Uuid::new_v4().simple()),
            individuals: Records::default(),
            groups: Records::default(),
            registrations: BTreeMap::new(),
            operations: Operations::default(),
            authorities: BTreeMap::new(),
            directory: Directory::default(),
            hubs: hubs
                .iter()
                .map(|hub| (hub.clone(), Hub::default()))
                .collect(),
            etags: 0,
        }
    }

    /// The world that `file` keeps, or a new one if there is no file yet.
    pub(crate) fn load(file: &Path, hubs: &[String]) -> io::Result<Self> {
        let mut world = match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::new(hubs),
            Err(error) => return Err(error),
        };
        for hub in hubs {
            world.hubs.entry(hub.clone()).or_default();
        }
        Ok(world)
    }

    /// Replace `file` by this world.
    pub(crate) fn save(&self, file: &Path) -> io::Result<()> {
        let next = file.with_extension("next");
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(&next, file)
    }

    /// The entries of one kind.
    pub(crate) fn records(&self, kind: Kind) -> &Records {
        match kind {
            Kind::Individual => &self.individuals,
            Kind::Group => &self.groups,
        }
    }

    /// The entries of one kind, to change them.
    pub(crate) fn records_mut(&mut self, kind: Kind) -> &mut Records {
        match kind {
            Kind::Individual => &mut self.individuals,
            Kind::Group => &mut self.groups,
        }
    }

    /// A record as answers show it; an individual one with its `registrationState`.
    pub(crate) fn show(&self, kind: Kind, record: &Record) -> serde_json::Value {
        let mut shown = record.shown(kind);
        if kind == Kind::Individual
            && let Some(registration) = self.registrations.get(&ids::key(&record.id))
        {
            shown.insert("registrationState".to_owned(), registration.shown().into());
        }
        shown.into()
    }

    /// The CA certificate of this name, in whatever case.
    pub(crate) fn authority(&self, name: &str) -> Option<&Authority> {
        self.authorities.get(&ids::key(name))
    }

    /// A tag that no resource had before.
    pub(crate) fn next_etag(&mut self) -> String {
        self.etags += 1;
        crate::etag::from_counter(self.etags)
    }
}
