//! What an operator says of one provisioning service, and what it means.
//!
//! Two stages: [`ProvisioningConfiguration`] is the text, [`Provisioning`] is what it means, with
//! every contradiction refused and its reason told. Neither reads a file that the text names:
//! credentials come and go while the daemon runs.

use super::arm::{ArmClient, ResourcePath};
use super::budget::{Budget, OPERATIONS_PER_MINUTE_DEFAULT};
use super::credential::Credential;
use super::device::DeviceClient;
use super::dps::DpsClient;
use super::http::{Plane, PlaneError, PlaneSettings};
use super::hub::HubClient;
use secrecy::SecretString;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The device plane of Azure's public cloud.
const DEVICE_ENDPOINT_DEFAULT: &str = "https://global.azure-devices-provisioning.net";

/// Azure Resource Manager of the public cloud.
const ARM_ENDPOINT_DEFAULT: &str = "https://management.azure.com";

/// What the smallest paid hub (S1, one unit) allows for its identities; others allow more.
const HUB_OPERATIONS_PER_MINUTE_DEFAULT: u32 = 100;

/// Fewer would not even observe; more than this no service sells.
const OPERATIONS_PER_MINUTE: std::ops::RangeInclusive<u32> = 10..=100_000;

/// `[[provisioning]]`, as it is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvisioningConfiguration {
    /// What this service is called in status and commands.
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
    /// Id scope.
    pub id_scope: String,
    /// PEM file with the only authorities to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// `http://host:port`; the environment is not asked.
    pub proxy: Option<String>,
    /// File with the service's connection string; a bare name is one of systemd's credentials.
    pub credential: PathBuf,
    /// What the service allows.
    #[serde(default = "operations_per_minute_default")]
    pub operations_per_minute: u32,
    /// Authorities whose certificates this service shall hold verified.
    #[serde(default)]
    pub verified: Vec<String>,
    /// Azure Resource Manager, for CA certificates.
    pub arm: Option<ArmConfiguration>,
    /// The IoT Hub that devices are provisioned to.
    pub hub: Option<HubConfiguration>,
}

/// `[provisioning.arm]`, as it is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmConfiguration {
    /// Host of Azure Resource Manager.
    #[serde(default = "arm_endpoint_default")]
    pub endpoint: String,
    /// `ip:port` to connect to instead of what the DNS says.
    pub address: Option<String>,
    /// PEM file with the only authorities to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// Subscription id.
    pub subscription: String,
    /// Resource group.
    pub resource_group: String,
    /// Name of the provisioning service there.
    pub name: String,
    /// File with a bearer token; a bare name is one of systemd's credentials.
    pub credential: PathBuf,
}

/// `[provisioning.hub]`, as it is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfiguration {
    /// Host of the hub, with or without `https://`.
    pub endpoint: String,
    /// `ip:port` to connect to instead of what the DNS says.
    pub address: Option<String>,
    /// PEM file with the only authorities to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// File with the hub's connection string; a bare name is one of systemd's credentials.
    pub credential: PathBuf,
    /// What the hub allows.
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

fn operations_per_minute_default() -> u32 {
    OPERATIONS_PER_MINUTE_DEFAULT
}

/// One provisioning service, as it is meant.
#[derive(Clone, Debug)]
pub struct Provisioning {
    /// What it is called.
    pub name: String,
    /// Id scope.
    pub id_scope: String,
    /// Authorities whose certificates it shall hold verified.
    pub verified: BTreeSet<String>,
    /// What it allows.
    pub operations_per_minute: u32,
    service: Access,
    device: PlaneSettings,
    arm: Option<(Access, ResourcePath)>,
    hub: Option<Access>,
}

/// One plane: where it is, what opens it, and how often it may be called.
#[derive(Clone, Debug)]
struct Access {
    settings: PlaneSettings,
    credential: Credential,
    operations_per_minute: u32,
}

/// The clients of one service.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Enrollments and registrations.
    pub dps: DpsClient,
    /// CA certificates, if there is access to them.
    pub arm: Option<ArmClient>,
    /// Device identities, if there is access to them.
    pub hub: Option<HubClient>,
}

impl ProvisioningConfiguration {
    /// What it means. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`, if there is one.
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
        let around = Surroundings {
            ca_bundle: self.ca_bundle,
            proxy: self.proxy,
            credentials,
        };
        let service = around.plane(&self.endpoint, self.address.as_deref(), None)?;
        let device = around.plane(&self.device_endpoint, self.device_address.as_deref(), None)?;
        let arm = self
            .arm
            .map(|arm| arm.checked(&around, self.operations_per_minute));
        let hub = self.hub.map(|hub| hub.checked(&around));
        Ok(Provisioning {
            name: self.name,
            id_scope: self.id_scope,
            verified: self.verified.into_iter().collect(),
            operations_per_minute: self.operations_per_minute,
            service: Access {
                credential: Credential::ConnectionString {
                    path: around.credential_path(&self.credential)?,
                    host: service.host.clone(),
                },
                settings: service,
                operations_per_minute: self.operations_per_minute,
            },
            device,
            arm: arm.transpose()?,
            hub: hub.transpose()?,
        })
    }
}

impl ArmConfiguration {
    fn checked(
        self,
        around: &Surroundings<'_>,
        operations_per_minute: u32,
    ) -> Result<(Access, ResourcePath), Reason> {
        let access = Access {
            settings: around.plane(&self.endpoint, self.address.as_deref(), self.ca_bundle)?,
            credential: Credential::BearerToken {
                path: around.credential_path(&self.credential)?,
            },
            operations_per_minute,
        };
        let path = ResourcePath {
            subscription: self.subscription,
            resource_group: self.resource_group,
            name: self.name,
        };
        Ok((access, path))
    }
}

impl HubConfiguration {
    fn checked(self, around: &Surroundings<'_>) -> Result<Access, Reason> {
        check_operations_per_minute(self.operations_per_minute)?;
        let settings = around.plane(&self.endpoint, self.address.as_deref(), self.ca_bundle)?;
        Ok(Access {
            credential: Credential::ConnectionString {
                path: around.credential_path(&self.credential)?,
                host: settings.host.clone(),
            },
            settings,
            operations_per_minute: self.operations_per_minute,
        })
    }
}

impl Provisioning {
    /// The clients for the service, its CA plane and its hub; nothing is sent yet. Make them once
    /// and clone them: the clones share their budgets.
    pub fn clients(&self) -> Result<Clients, PlaneError> {
        let arm = self.arm.as_ref().map(|(access, path)| {
            let plane = access.plane()?;
            Ok(ArmClient::new(plane, path))
        });
        let hub = self
            .hub
            .as_ref()
            .map(|access| access.plane().map(HubClient::new));
        Ok(Clients {
            dps: DpsClient::new(self.service.plane()?),
            arm: arm.transpose()?,
            hub: hub.transpose()?,
        })
    }

    /// A client that registers as the device with this key, leaf and chain (PEM). Registrations
    /// are counted apart from the operations of the service plane.
    pub fn device_client(&self, identity_pem: &SecretString) -> Result<DeviceClient, PlaneError> {
        let budget = Arc::new(Budget::new(self.operations_per_minute));
        let plane = Plane::with_client_certificate(&self.device, identity_pem, budget)?;
        Ok(DeviceClient::new(plane, self.id_scope.clone()))
    }
}

impl Access {
    /// Each plane counts and throttles for itself: when Azure Resource Manager is busy, a block on
    /// the service plane must not wait for it.
    fn plane(&self) -> Result<Plane, PlaneError> {
        let budget = Arc::new(Budget::new(self.operations_per_minute));
        Plane::new(&self.settings, self.credential.clone(), budget)
    }
}

fn check_name(name: &str) -> Result<(), Reason> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match !name.is_empty() && name.len() <= 64 && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(Reason::Name),
    }
}

fn check_id_scope(id_scope: &str) -> Result<(), Reason> {
    let alphanumeric = id_scope.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match !id_scope.is_empty() && alphanumeric {
        true => Ok(()),
        false => Err(Reason::IdScope),
    }
}

fn check_operations_per_minute(operations: u32) -> Result<(), Reason> {
    match OPERATIONS_PER_MINUTE.contains(&operations) {
        true => Ok(()),
        false => Err(Reason::OperationsPerMinute(operations)),
    }
}

/// What all planes of one service have in common.
struct Surroundings<'a> {
    ca_bundle: Option<PathBuf>,
    proxy: Option<String>,
    /// Systemd's `$CREDENTIALS_DIRECTORY`.
    credentials: Option<&'a Path>,
}

impl Surroundings<'_> {
    fn plane(
        &self,
        endpoint: &str,
        address: Option<&str>,
        ca_bundle: Option<PathBuf>,
    ) -> Result<PlaneSettings, Reason> {
        let host = host(endpoint).ok_or_else(|| Reason::Endpoint(endpoint.to_owned()))?;
        let address = address.map(|text| {
            let parsed: Result<SocketAddr, _> = text.parse();
            parsed.map_err(|_| Reason::Address(text.to_owned()))
        });
        if address.is_some() && self.proxy.is_some() {
            return Err(Reason::AddressAndProxy(host));
        }
        let is_other = |proxy: &&String| !proxy.starts_with("http://");
        if let Some(proxy) = self.proxy.as_ref().filter(is_other) {
            return Err(Reason::Proxy(proxy.to_owned()));
        }
        Ok(PlaneSettings {
            host,
            address: address.transpose()?,
            ca_bundle: ca_bundle.or_else(|| self.ca_bundle.clone()),
            proxy: self.proxy.clone(),
        })
    }

    fn credential_path(&self, path: &Path) -> Result<PathBuf, Reason> {
        let is_bare = path.components().count() == 1 && path.is_relative();
        match (is_bare, self.credentials) {
            (false, _) => Ok(path.to_owned()),
            (true, Some(folder)) => Ok(folder.join(path)),
            (true, None) => Err(Reason::Credential(path.to_owned())),
        }
    }
}

/// The host name of an endpoint, in lower case: nothing else may stand in one.
fn host(endpoint: &str) -> Option<String> {
    let host = endpoint.strip_prefix("https://").unwrap_or(endpoint);
    let host = host.strip_suffix('/').unwrap_or(host);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let is_name = !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed);
    is_name.then(|| host.to_ascii_lowercase())
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
    #[error("{0:?} is not a host name; give https://HOST without port and path")]
    Endpoint(String),
    #[error("{0:?} is not an address; give IP:PORT")]
    Address(String),
    #[error("{0:?} is not a proxy; give http://HOST:PORT")]
    Proxy(String),
    #[error("an address for {0} and a proxy contradict each other: drop one")]
    AddressAndProxy(String),
    #[error("operations_per_minute is {0}; give 10 to 100000 (DPS allows 1000)")]
    OperationsPerMinute(u32),
    #[error("verified names authorities, but there is no [provisioning.arm] to verify them with")]
    VerifiedWithoutArm,
    #[error(
        "credential {} is a bare name, but $CREDENTIALS_DIRECTORY is not set: \
         start by systemd with LoadCredential=, or give a path",
        .0.display()
    )]
    Credential(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"
        name = "line"
        endpoint = "https://Line.azure-devices-provisioning.net"
        id_scope = "0ne0012ABCD"
        credential = "/run/keys/dps"
    "#;

    fn check(more: &str) -> Result<Provisioning, String> {
        let text = format!("{SAID}{more}");
        let said: ProvisioningConfiguration =
            toml::from_str(&text).map_err(|error| error.to_string())?;
        said.check(None).map_err(|error| error.to_string())
    }

    #[test]
    fn little_needs_to_be_said() {
        let meant = check("").unwrap();
        assert_eq!(
            meant.service.settings.host,
            "line.azure-devices-provisioning.net"
        );
        assert_eq!(meant.device.host, "global.azure-devices-provisioning.net");
        assert_eq!(meant.operations_per_minute, 1000);
        assert!(meant.clients().unwrap().arm.is_none());
    }

    #[test]
    fn contradictions_are_refused_with_the_reason() {
        for (more, reason) in [
            ("verified = [\"root\"]", "no [provisioning.arm]"),
            ("operations_per_minute = 0", "operations_per_minute is 0"),
            ("address = \"localhost\"", "give IP:PORT"),
            ("device_endpoint = \"http://x\"", "not a host name"),
            ("device_endpoint = \"x:443\"", "not a host name"),
            ("proxy = \"socks5://x\"", "not a proxy"),
            (
                "address = \"127.0.0.1:1\"\nproxy = \"http://x:1\"",
                "contradict",
            ),
            ("hub = {}", "missing field"),
            ("hubs = {}", "unknown field"),
        ] {
            let refused = check(more).unwrap_err();
            assert!(refused.contains(reason), "{more}: {refused}");
        }
    }

    #[test]
    fn a_bare_name_is_one_of_systemds_credentials() {
        let said = SAID.replace("/run/keys/dps", "dps");
        let said: ProvisioningConfiguration = toml::from_str(&said).unwrap();
        assert!(said.clone().check(None).is_err());
        let meant = said.check(Some(Path::new("/run/credentials/x"))).unwrap();
        let Credential::ConnectionString { path, .. } = meant.service.credential else {
            panic!("not a connection string");
        };
        assert_eq!(path, Path::new("/run/credentials/x/dps"));
    }
}
