//! Which service an address belongs to.
//!
//! One listener serves them all. The `Host` header decides, as it does in Azure; for `localhost`
//! and bare addresses, where it cannot, the path does.

use serde::{Deserialize, Serialize};

/// The services that share the HTTPS listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// DPS for back ends: enrollments, registrations.
    Service,
    Device,
    /// Azure Resource Manager: CA certificates.
    Arm,
    Hub,
    /// The token endpoint of Entra ID.
    Entra,
}

/// Host of the device plane, for every DPS (contract section 9).
pub(crate) const DEVICE_HOST: &str = "global.azure-devices-provisioning.net";
/// Host of the resource manager (contract section 11).
pub(crate) const ARM_HOST: &str = "management.azure.com";
/// Host of the token endpoint (contract section 8.2).
pub(crate) const ENTRA_HOST: &str = "login.microsoftonline.com";

/// The host names of this emulator.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    pub(crate) service: String,
    pub(crate) hubs: Vec<String>,
}

impl Hosts {
    /// The host names for a DPS of this name with these hubs.
    pub(crate) fn new(name: &str, hubs: &[String]) -> Self {
        Self {
            service: format!("{name}.azure-devices-provisioning.net").to_ascii_lowercase(),
            hubs: hubs.iter().map(|hub| hub.to_ascii_lowercase()).collect(),
        }
    }

    /// The hub that connection strings name.
    pub(crate) fn first_hub(&self) -> &str {
        self.hubs
            .first()
            .map_or("hallmark.azure-devices.net", String::as_str)
    }

    /// All names, for the server's certificate.
    pub(crate) fn all(&self) -> Vec<String> {
        let fixed =
            [DEVICE_HOST, ARM_HOST, ENTRA_HOST, "localhost", "127.0.0.1"].map(str::to_owned);
        let mut all = vec![self.service.clone(), self.first_hub().to_owned()];
        all.extend(self.hubs.iter().skip(1).cloned());
        all.extend(fixed);
        all
    }

    /// The plane that `host` (without port, lower case) and the path's lower-case parts lead to.
    pub(crate) fn plane(&self, host: &str, shape: &[String]) -> Option<Plane> {
        match host {
            DEVICE_HOST => Some(Plane::Device),
            ARM_HOST => Some(Plane::Arm),
            ENTRA_HOST => Some(Plane::Entra),
            // The DPS's own host serves devices too (contract section 9).
            _ if host == self.service => {
                by_path(shape).filter(|plane| matches!(plane, Plane::Service | Plane::Device))
            }
            _ if host == self.first_hub() || self.hubs.iter().any(|hub| hub == host) => {
                Some(Plane::Hub)
            }
            "localhost" | "127.0.0.1" | "[::1]" => by_path(shape),
            _ => None,
        }
    }

    /// The hub that `host` names, or the first one where the host says nothing.
    pub(crate) fn hub<'a>(&'a self, host: &'a str) -> &'a str {
        match self.hubs.iter().find(|hub| *hub == host) {
            Some(hub) => hub,
            None => self.first_hub(),
        }
    }
}

fn by_path(shape: &[String]) -> Option<Plane> {
    let parts: Vec<&str> = shape.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["subscriptions", ..] => Some(Plane::Arm),
        [_, "oauth2", ..] | [_, "v2.0", ..] => Some(Plane::Entra),
        ["enrollments" | "enrollmentgroups" | "registrations", ..] => Some(Plane::Service),
        ["devices" | "twins" | "jobs" | "statistics", ..] => Some(Plane::Hub),
        [_, "registrations", ..] => Some(Plane::Device),
        _ => None,
    }
}

/// A `Host` header without its port, lower case.
pub(crate) fn host_without_port(header: &str) -> String {
    let host = match header.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => header,
    };
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(host: &str, path: &str) -> Option<Plane> {
        let hosts = Hosts::new("hallmark", &["hallmark.azure-devices.net".to_owned()]);
        let shape = crate::wire::segments(path).unwrap();
        hosts.plane(&host_without_port(host), &shape)
    }

    #[test]
    fn the_host_decides_and_its_port_does_not_matter() {
        let service = "hallmark.azure-devices-provisioning.net:4443";
        assert_eq!(plane(service, "/enrollments/a"), Some(Plane::Service));
        assert_eq!(
            plane(service, "/0ne/registrations/a/register"),
            Some(Plane::Device)
        );
        assert_eq!(
            plane("Management.Azure.com", "/subscriptions/s"),
            Some(Plane::Arm)
        );
        assert_eq!(
            plane("hallmark.azure-devices.net", "/devices/a"),
            Some(Plane::Hub)
        );
        assert_eq!(plane("example.net", "/devices/a"), None);
    }

    #[test]
    fn for_localhost_the_path_decides() {
        assert_eq!(plane("localhost:1", "/devices/a"), Some(Plane::Hub));
        assert_eq!(
            plane("127.0.0.1:1", "/t/oauth2/v2.0/token"),
            Some(Plane::Entra)
        );
        assert_eq!(plane("[::1]:443", "/registrations/a"), Some(Plane::Service));
    }
}
