//! One running emulator: start, look, interfere, stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::arm::certificates;
use crate::clock::Clock;
use crate::cloud::Cloud;
use crate::enrollment::Kind;
use crate::entra::EntraClient;
use crate::etag::IfMatch;
use crate::faults::{Fault, TooManyFaults};
use crate::hub::presence::MethodAnswer;
use crate::journal::{Count, LoggedRequest};
use crate::options::{Options, Switches};
use crate::plane::{ARM_HOST, DEVICE_HOST, ENTRA_HOST};
use crate::running::{Addresses, Running};
use crate::sas::Policy;
use crate::service::registrations;
use crate::tls::Identity;
use crate::{arm, views};

/// A running emulator. It runs on threads of its own, so a test may block, and stops when dropped.
#[derive(Debug)]
pub struct Emulator {
    cloud: Arc<Cloud>,
    addresses: Addresses,
    ca_file: PathBuf,
    /// Serves until it is dropped.
    _running: Running,
}

/// The settings for a client of the resource manager.
#[derive(Clone, Debug)]
pub struct ArmAccess {
    pub subscription: String,
    pub resource_group: String,
    /// Name of the DPS resource.
    pub name: String,
    /// A bearer token that never expires.
    pub token: String,
}

impl Emulator {
    /// Start. All listeners are open when this returns.
    pub fn start(options: Options) -> Result<Self> {
        let cloud = Arc::new(Cloud::new(&options)?);
        let identity = Identity::load_or_make(&options.tls_dir, &cloud.hosts.all())?;
        let ca_file = identity.ca_file();
        let (running, addresses) = Running::start(options, Arc::clone(&cloud), identity)?;
        Ok(Self {
            cloud,
            addresses,
            ca_file,
            _running: running,
        })
    }

    /// The HTTPS listener.
    pub fn addr(&self) -> SocketAddr {
        self.addresses.https
    }

    /// The MQTT listener.
    pub fn mqtt_addr(&self) -> SocketAddr {
        self.addresses.mqtt
    }

    /// Base address of the control API.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.addresses.control)
    }

    /// Host name of the service plane.
    pub fn service_host(&self) -> &str {
        &self.cloud.hosts.service
    }

    /// Host name of the device plane.
    pub fn device_host(&self) -> &str {
        DEVICE_HOST
    }

    /// Host name of the first linked hub.
    pub fn hub_host(&self) -> &str {
        self.cloud.hosts.first_hub()
    }

    /// Host name of the resource manager.
    pub fn arm_host(&self) -> &str {
        ARM_HOST
    }

    /// Host name of the token endpoint.
    pub fn entra_host(&self) -> &str {
        ENTRA_HOST
    }

    /// The certificate that clients must trust.
    pub fn ca_file(&self) -> PathBuf {
        self.ca_file.clone()
    }

    /// The DPS's id scope.
    pub fn id_scope(&self) -> String {
        self.cloud.read(|world| world.id_scope.clone())
    }

    /// Connection string of the service plane.
    pub fn service_connection_string(&self) -> String {
        self.cloud
            .read(|world| connection_string(self.service_host(), &world.service_policy))
    }

    /// Connection string of the first hub.
    pub fn hub_connection_string(&self) -> String {
        self.cloud
            .read(|world| connection_string(self.hub_host(), &world.hub_policy))
    }

    /// Host names of all linked hubs.
    pub fn hub_hosts(&self) -> &[String] {
        &self.cloud.hosts.hubs
    }

    /// Connection string of this hub. All hubs have the same keys.
    pub fn connection_string_of(&self, hub: &str) -> String {
        self.cloud
            .read(|world| connection_string(hub, &world.hub_policy))
    }

    /// How to reach the CA certificates.
    pub fn arm(&self) -> ArmAccess {
        ArmAccess {
            subscription: arm::SUBSCRIPTION.to_owned(),
            resource_group: arm::RESOURCE_GROUP.to_owned(),
            name: self.cloud.name.clone(),
            token: self.cloud.read(|world| world.arm_token.clone()),
        }
    }

    /// The line that the program prints when it is ready.
    pub fn ready_line(&self) -> Value {
        let arm = self.arm();
        json!({
            "service_host": self.service_host(),
            "device_host": self.device_host(),
            "hub_host": self.hub_host(),
            "arm_host": self.arm_host(),
            "entra_host": self.entra_host(),
            "addr": self.addr().to_string(),
            "mqtt_addr": self.mqtt_addr().to_string(),
            "control_url": self.control_url(),
            "ca_file": self.ca_file(),
            "id_scope": self.id_scope(),
            "service_connection_string": self.service_connection_string(),
            "hub_connection_string": self.hub_connection_string(),
            "hub_connection_strings": self.hub_hosts().iter()
                .map(|hub| (hub.clone(), self.connection_string_of(hub).into()))
                .collect::<Map<String, Value>>(),
            "arm": {
                "subscription": arm.subscription,
                "resource_group": arm.resource_group,
                "name": arm.name,
                "token": arm.token,
            },
        })
    }

    /// The clock that certificates are judged by.
    pub fn clock(&self) -> &Clock {
        &self.cloud.clock
    }

    /// Change switches while it runs.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        self.cloud.switch(change);
    }

    /// All requests so far, oldest first.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.cloud.journal.since(0)
    }

    /// Requests of one operation, e.g. `individual.put`.
    pub fn requests_of(&self, operation: &str) -> Vec<LoggedRequest> {
        let mut requests = self.requests();
        requests.retain(|request| request.operation == operation);
        requests
    }

    /// How often each operation was asked for.
    pub fn counters(&self) -> BTreeMap<&'static str, Count> {
        self.cloud.journal.counts()
    }

    /// Forget requests and counters.
    pub fn clear_requests(&self) {
        self.cloud.journal.clear();
    }

    /// Let a fault wait for its request.
    pub fn inject(&self, fault: Fault) -> Result<(), TooManyFaults> {
        self.cloud.faults.add(fault)
    }

    /// Faults that still wait.
    pub fn faults(&self) -> Vec<Fault> {
        self.cloud.faults.waiting()
    }

    /// Forget all faults that wait.
    pub fn clear_faults(&self) {
        self.cloud.faults.clear();
    }

    /// An individual enrollment as the service plane shows it.
    pub fn individual(&self, id: &str) -> Option<Value> {
        views::record(&self.cloud, Kind::Individual, id)
    }

    /// A group as the service plane shows it.
    pub fn group(&self, id: &str) -> Option<Value> {
        views::record(&self.cloud, Kind::Group, id)
    }

    /// All records of a kind.
    pub fn records(&self, kind: Kind) -> Vec<Value> {
        views::records(&self.cloud, kind)
    }

    /// A registration record.
    pub fn registration(&self, id: &str) -> Option<Value> {
        views::registration(&self.cloud, id)
    }

    /// Delete a registration record as another client would. Returns whether it was there.
    pub fn delete_registration(&self, id: &str) -> bool {
        registrations::remove(&self.cloud, id, &IfMatch::Any).is_ok()
    }

    /// All CA certificates, as the resource manager shows them.
    pub fn authorities(&self) -> Vec<Value> {
        views::authorities(&self.cloud)
    }

    /// An identity of the first hub.
    pub fn hub_identity(&self, device_id: &str) -> Option<Value> {
        self.identity_at(self.hub_host(), device_id)
    }

    /// An identity of this hub.
    pub fn identity_at(&self, hub: &str, device_id: &str) -> Option<Value> {
        views::identity(&self.cloud, hub, device_id)
    }

    /// The hubs that have an identity with this id.
    pub fn hubs_with(&self, device_id: &str) -> Vec<&str> {
        let hubs = self.hub_hosts().iter().map(String::as_str);
        hubs.filter(|hub| self.identity_at(hub, device_id).is_some())
            .collect()
    }

    /// Let an application ask the token endpoint.
    pub fn register_entra_client(&self, client: EntraClient) -> Result<()> {
        let registered = self.cloud.change(|world| world.directory.register(client));
        registered.context("the certificate of the application")
    }

    /// Let a device of the first hub be online, with this answer to whatever method it is asked.
    pub fn simulate_device(&self, device_id: &str, answer: MethodAnswer) {
        self.simulate_device_at(self.hub_host(), device_id, answer);
    }

    /// Let a device of this hub be online.
    pub fn simulate_device_at(&self, hub: &str, device_id: &str, answer: MethodAnswer) {
        self.cloud.presence.simulate(hub, device_id, answer);
    }

    /// Let a simulated device of the first hub be offline again.
    pub fn forget_device(&self, device_id: &str) {
        self.cloud.presence.remove(self.hub_host(), device_id);
    }

    /// Everything at once.
    pub fn world(&self) -> Value {
        views::world(&self.cloud)
    }

    /// Edit a record behind the clients' backs: members are set, the ETag changes.
    pub fn edit_record(&self, kind: Kind, id: &str, merge: Map<String, Value>) -> Result<Value> {
        views::edit(&self.cloud, kind, id, merge).map_err(anyhow::Error::msg)
    }

    /// Upload a CA certificate (PEM) as another client would, over whatever has the name.
    pub fn upload_authority(&self, name: &str, certificate: &str, verified: bool) -> Result<()> {
        let uploaded = certificates::upload(&self.cloud, name, certificate, verified);
        uploaded.map_err(anyhow::Error::msg)
    }

    /// Delete a CA certificate as another client would. Returns whether it was there.
    pub fn delete_authority(&self, name: &str) -> bool {
        certificates::remove(&self.cloud, name)
    }

    /// Create a record as another client would.
    pub fn create_record(&self, kind: Kind, id: &str, body: Map<String, Value>) -> Result<()> {
        views::create(&self.cloud, kind, id, body).map_err(anyhow::Error::msg)
    }

    /// Delete a record as another client would.
    pub fn delete_record(&self, kind: Kind, id: &str) -> Result<()> {
        views::delete(&self.cloud, kind, id).map_err(anyhow::Error::msg)
    }
}

fn connection_string(host: &str, policy: &Policy) -> String {
    let Policy { name, primary, .. } = policy;
    format!("HostName={host};SharedAccessKeyName={name};SharedAccessKey={primary}")
}
