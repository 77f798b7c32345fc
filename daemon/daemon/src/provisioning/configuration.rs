//! Reads and checks the configuration of one provisioning service.
//!
//! Two stages: [`ProvisioningConfiguration`] is the text, [`Provisioning`] its meaning, with every
//! contradiction refused and the reason given. Neither reads a file that the text names:
//! credentials appear and disappear while the daemon runs.

mod one_or_several;
#[cfg(test)]
mod tests;

use super::arm::{ArmClient, ResourcePath};
use super::budget::{Budget, OPERATIONS_PER_MINUTE_DEFAULT};
use super::credential::access_token::Audience;
use super::credential::configuration::{
    CredentialConfiguration, CredentialInvalid, CredentialSettings,
};
use super::credential::keys::TokenKeys;
use super::credential::{Credential, CredentialError};
use super::device::DeviceClient;
use super::dps::DpsClient;
use super::endpoint::{EndpointInvalid, Endpoints};
use super::http::{Plane, PlaneError, PlaneKind, PlaneSettings};
use super::hub::{HubClient, Hubs};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The device plane of Azure's public cloud.
const DEVICE_ENDPOINT_DEFAULT: &str = "https://global.azure-devices-provisioning.net";

/// Azure Resource Manager of the public cloud.
const ARM_ENDPOINT_DEFAULT: &str = "https://management.azure.com";

/// The limit of the smallest paid hub (S1, one unit) for its identities; others allow more.
const HUB_OPERATIONS_PER_MINUTE_DEFAULT: u32 = 100;

/// Fewer would not even observe; more than this no service sells.
const OPERATIONS_PER_MINUTE: std::ops::RangeInclusive<u32> = 10..=100_000;

/// `[[provisioning]]`, as it is raw.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProvisioningConfiguration {
    /// The name of the service in status and commands.
    pub name: String,
    /// Host of the service plane, with or without `https://`.
    pub endpoint: String,
    /// `ip:port` to connect to instead of what the DNS says.
    pub address: Option<String>,
    /// Host of the device plane.
    #[serde(default = "device_endpoint_default")]
    pub device_endpoint: String,
    /// `ip:port` of the device plane.
    pub device_address: Option<String>,
    /// The ID scope of the service, which devices name.
    pub id_scope: String,
    /// PEM file with the only authorities to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// `http://host:port`; the environment is not asked.
    pub proxy: Option<String>,
    /// The credential of the service plane; a string is a file with a connection string.
    pub credential: CredentialConfiguration,
    /// The limit of the service.
    #[serde(default = "operations_per_minute_default")]
    pub operations_per_minute: u32,
    /// Authorities whose certificates this service is to verify.
    #[serde(default)]
    pub verified: Vec<String>,
    /// How many CA certificates the service holds at most.
    #[serde(default = "ca_certificates_max_default")]
    pub ca_certificates_max: u32,
    /// How many enrollment groups by X.509 the service holds at most.
    #[serde(default = "groups_max_default")]
    pub groups_max: u32,
    /// Azure Resource Manager, for CA certificates.
    pub arm: Option<ArmConfiguration>,
    /// The IoT Hubs that devices are provisioned to: one table, or several.
    #[serde(default, deserialize_with = "one_or_several::deserialize")]
    pub hub: Vec<HubConfiguration>,
}

/// `[provisioning.arm]`, as it is raw.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmConfiguration {
    /// Host of Azure Resource Manager.
    #[serde(default = "arm_endpoint_default")]
    pub endpoint: String,
    /// `ip:port` to connect to instead of what the DNS says.
    pub address: Option<String>,
    /// PEM file with the only authorities to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// The subscription of the service.
    pub subscription: String,
    /// Its resource group.
    pub resource_group: String,
    /// Name of the provisioning service there.
    pub name: String,
    /// The credential; a string is a file with a bearer token.
    pub credential: CredentialConfiguration,
}

/// `[provisioning.hub]`, or one of `[[provisioning.hub]]`, as it is raw.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubConfiguration {
    /// Host of the hub, with or without `https://`.
    pub endpoint: String,
    /// `ip:port` to connect to instead of what the DNS says.
    pub address: Option<String>,
    /// PEM file with the only authorities to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// The credential of the hub; a string is a file with a connection string.
    pub credential: CredentialConfiguration,
    /// The limit of the hub.
    #[serde(default = "hub_operations_per_minute_default")]
    pub operations_per_minute: u32,
}

fn device_endpoint_default() -> String {
    DEVICE_ENDPOINT_DEFAULT.to_owned()
}

fn arm_endpoint_default() -> String {
    ARM_ENDPOINT_DEFAULT.to_owned()
}

fn hub_operations_per_minute_default() -> u32 {
    HUB_OPERATIONS_PER_MINUTE_DEFAULT
}

fn ca_certificates_max_default() -> u32 {
    25
}

fn groups_max_default() -> u32 {
    100
}

fn operations_per_minute_default() -> u32 {
    OPERATIONS_PER_MINUTE_DEFAULT
}

/// One provisioning service, as it is checked.
#[derive(Clone, Debug)]
pub struct Provisioning {
    /// The name in the configuration.
    pub name: String,
    pub id_scope: String,
    /// Authorities whose certificates it is to verify.
    pub verified: BTreeSet<String>,
    /// CA certificates and groups that it holds at most.
    pub limits: (i64, i64),
    /// The limit of the service.
    pub operations_per_minute: u32,
    service: Access,
    device: PlaneSettings,
    arm: Option<(Access, ResourcePath)>,
    hubs: Vec<Access>,
}

/// One plane: where it is, what opens it, and how often it may be called.
#[derive(Clone, Debug)]
struct Access {
    settings: PlaneSettings,
    credential: CredentialSettings,
    operations_per_minute: u32,
}

/// The clients of one service.
#[derive(Clone, Debug)]
pub struct Clients {
    pub dps: DpsClient,
    /// CA certificates, if there is access to them.
    pub arm: Option<ArmClient>,
    /// Device identities, at the hubs to which there is access.
    pub hubs: Hubs,
    /// The way in of devices.
    pub device: DevicePlane,
}

/// The device plane, for calls with a device's certificate.
#[derive(Clone, Debug)]
pub struct DevicePlane {
    settings: PlaneSettings,
    id_scope: String,
    budget: Arc<Budget>,
}

impl DevicePlane {
    /// A client that registers as the device with this key, leaf and chain (PEM).
    pub fn client(&self, identity_pem: &SecretString) -> Result<DeviceClient, PlaneError> {
        let budget = self.budget.clone();
        let plane = Plane::with_client_certificate(&self.settings, identity_pem, budget)?;
        Ok(DeviceClient::new(plane, self.id_scope.clone()))
    }

    /// A plane that presents no certificate: it answers, and does nothing.
    pub(super) fn without_certificate(&self) -> Result<Plane, PlaneError> {
        let budget = self.budget.clone();
        Plane::new(PlaneKind::Device, &self.settings, Credential::None, budget)
    }
}

impl ProvisioningConfiguration {
    /// Checks the text. `credentials` is `$CREDENTIALS_DIRECTORY` of systemd, if there is one.
    pub fn check(self, credentials: Option<&Path>) -> Result<Provisioning, ConfigurationError> {
        let name = self.name.clone();
        let checked = self.checked(credentials);
        checked.map_err(|reason| ConfigurationError { name, reason })
    }

    fn checked(self, credentials: Option<&Path>) -> Result<Provisioning, Reason> {
        check_name(&self.name)?;
        check_id_scope(&self.id_scope)?;
        check_operations_per_minute(self.operations_per_minute)?;
        if !self.verified.is_empty() && self.arm.is_none() {
            return Err(Reason::VerifiedWithoutArm);
        }
        let endpoints = Endpoints {
            ca_bundle: self.ca_bundle,
            proxy: self.proxy,
            credentials,
        };
        let budget = self.operations_per_minute;
        let service = endpoints.plane(&self.endpoint, self.address.as_deref(), None)?;
        let audience = Audience::ProvisioningService;
        let service = Access::new(service, &self.credential, audience, budget, &endpoints)?;
        let device =
            endpoints.plane(&self.device_endpoint, self.device_address.as_deref(), None)?;
        let arm = self.arm.map(|arm| arm.checked(&endpoints, budget));
        let hubs = self.hub.into_iter().map(|hub| hub.checked(&endpoints));
        let hubs: Vec<Access> = hubs.collect::<Result<_, _>>()?;
        check_hubs_differ(&hubs)?;
        Ok(Provisioning {
            name: self.name,
            id_scope: self.id_scope,
            verified: self.verified.into_iter().collect(),
            limits: (self.ca_certificates_max.into(), self.groups_max.into()),
            operations_per_minute: budget,
            service,
            device,
            arm: arm.transpose()?,
            hubs,
        })
    }
}

impl ArmConfiguration {
    fn checked(
        self,
        endpoints: &Endpoints<'_>,
        operations_per_minute: u32,
    ) -> Result<(Access, ResourcePath), Reason> {
        let address = self.address.as_deref();
        let ca_bundle = self.ca_bundle.as_deref();
        let access = Access::new(
            endpoints.plane(&self.endpoint, address, ca_bundle)?,
            &self.credential,
            Audience::ResourceManager,
            operations_per_minute,
            endpoints,
        )?;
        let path = ResourcePath {
            subscription: self.subscription,
            resource_group: self.resource_group,
            name: self.name,
        };
        Ok((access, path))
    }
}

impl HubConfiguration {
    fn checked(self, endpoints: &Endpoints<'_>) -> Result<Access, Reason> {
        check_operations_per_minute(self.operations_per_minute)?;
        let address = self.address.as_deref();
        let ca_bundle = self.ca_bundle.as_deref();
        Access::new(
            endpoints.plane(&self.endpoint, address, ca_bundle)?,
            &self.credential,
            Audience::Hub,
            self.operations_per_minute,
            endpoints,
        )
    }
}

impl Provisioning {
    /// The clients for the service, its CA plane and its hub; nothing is sent yet. Make them once
    /// and clone them: the clones share their budgets and access tokens. `keys` are the tokens that
    /// hold keys of credentials.
    pub fn clients(&self, keys: &TokenKeys) -> Result<Clients, PlaneError> {
        let arm = self.arm.as_ref().map(|(access, path)| {
            let plane = access.plane(PlaneKind::Arm, keys)?;
            Ok(ArmClient::new(plane, path))
        });
        let hub = |access: &Access| {
            Ok(HubClient::new(
                access.plane(PlaneKind::Hub, keys)?,
                access.settings.host.clone(),
            ))
        };
        Ok(Clients {
            dps: DpsClient::new(self.service.plane(PlaneKind::Dps, keys)?),
            arm: arm.transpose()?,
            hubs: self.hubs.iter().map(hub).collect::<Result<_, _>>()?,
            device: self.device_plane(),
        })
    }

    /// The device plane. Registrations are counted apart from the operations of the service plane.
    pub fn device_plane(&self) -> DevicePlane {
        DevicePlane {
            settings: self.device.clone(),
            id_scope: self.id_scope.clone(),
            budget: Arc::new(Budget::new(self.operations_per_minute)),
        }
    }

    /// How many operations a minute the slowest of its hubs allows, if there is access to one.
    pub fn hub_operations_per_minute(&self) -> Option<u32> {
        self.hubs.iter().map(|hub| hub.operations_per_minute).min()
    }

    /// The keys of its credentials that are in tokens: token and name.
    pub fn token_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.accesses()
            .filter_map(|access| access.credential.token_key())
    }

    /// The files that hold secrets of its credentials.
    pub fn credential_files(&self) -> impl Iterator<Item = &Path> {
        self.accesses()
            .filter_map(|access| access.credential.file())
    }

    /// Reads its credentials that are files; the first that cannot be used.
    pub fn check_credential_files(&self) -> Result<(), CredentialError> {
        let mut accesses = self.accesses();
        accesses.try_for_each(|access| access.credential.check_file())
    }

    fn accesses(&self) -> impl Iterator<Item = &Access> {
        let arm = self.arm.as_ref().map(|(access, _)| access);
        [Some(&self.service), arm]
            .into_iter()
            .flatten()
            .chain(&self.hubs)
    }
}

impl Access {
    fn new(
        settings: PlaneSettings,
        credential: &CredentialConfiguration,
        audience: Audience,
        operations_per_minute: u32,
        endpoints: &Endpoints<'_>,
    ) -> Result<Self, Reason> {
        Ok(Self {
            credential: credential.resolve(audience, &settings.host, endpoints)?,
            settings,
            operations_per_minute,
        })
    }

    /// Each plane counts and throttles for itself: when Azure Resource Manager is busy, a block on
    /// the service plane must not wait for it.
    fn plane(&self, kind: PlaneKind, keys: &TokenKeys) -> Result<Plane, PlaneError> {
        let budget = Arc::new(Budget::new(self.operations_per_minute));
        let credential = self.credential.credential(keys)?;
        Plane::new(kind, &self.settings, credential, budget)
    }
}

fn check_name(name: &str) -> Result<(), Reason> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(Reason::Name);
    }
    Ok(())
}

fn check_id_scope(id_scope: &str) -> Result<(), Reason> {
    let alphanumeric = id_scope.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if id_scope.is_empty() || !alphanumeric {
        return Err(Reason::IdScope);
    }
    Ok(())
}

fn check_operations_per_minute(operations: u32) -> Result<(), Reason> {
    if !OPERATIONS_PER_MINUTE.contains(&operations) {
        return Err(Reason::OperationsPerMinute(operations));
    }
    Ok(())
}

/// Two tables of one hub would have two budgets, and it would be called twice as often as allowed.
fn check_hubs_differ(hubs: &[Access]) -> Result<(), Reason> {
    let mut hosts = BTreeSet::new();
    match hubs.iter().find(|it| !hosts.insert(&it.settings.host)) {
        Some(again) => Err(Reason::HubTwice(again.settings.host.clone())),
        None => Ok(()),
    }
}

/// A configuration that contradicts itself, or says what cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("[[provisioning]] {name:?}: {reason}")]
pub struct ConfigurationError {
    name: String,
    reason: Reason,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("name must be 1 to 64 letters, digits, - or _")]
    Name,
    #[error("id_scope must be letters and digits, as the service shows it (0ne…)")]
    IdScope,
    #[error(transparent)]
    Endpoints(#[from] EndpointInvalid),
    #[error(transparent)]
    Credential(#[from] CredentialInvalid),
    #[error("operations_per_minute is {0}; give 10 to 100000 (DPS allows 1000)")]
    OperationsPerMinute(u32),
    #[error("verified names authorities, but there is no [provisioning.arm] to verify them with")]
    VerifiedWithoutArm,
    #[error("two [[provisioning.hub]] have the endpoint {0}; drop one")]
    HubTwice(String),
}
