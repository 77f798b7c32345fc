//! The settings of an emulator, and the switches for behaviour that no source settles.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::entra::EntraClient;

/// How to start an emulator. [`Options::new`] is right for a test.
#[derive(Clone, Debug)]
pub struct Options {
    /// HTTPS: service plane, device plane, resource manager, hub, token endpoint.
    pub listen: SocketAddr,
    /// MQTT over TLS: device plane and hub.
    pub mqtt_listen: SocketAddr,
    /// Plain HTTP for the test's own hand: clock, faults, log. Keep it on loopback.
    pub control_listen: SocketAddr,
    /// Folder of the TLS server's identity; made if it is empty, used again if it is not.
    pub tls_dir: PathBuf,
    /// File that keeps the world over a restart; in memory only without it.
    pub state: Option<PathBuf>,
    /// Name of the provisioning service, first label of its host name.
    pub name: String,
    /// Host names of the linked hubs. The first is the one that connection strings name; none at
    /// all makes every registration fail.
    pub linked_hubs: Vec<String>,
    /// Applications that may ask the token endpoint.
    pub entra_clients: Vec<EntraClient>,
    /// Behaviour that the sources leave open.
    pub switches: Switches,
}

impl Options {
    /// Loopback, port 0 everywhere, one hub, nothing kept.
    pub fn new(tls_dir: impl Into<PathBuf>) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: loopback,
            mqtt_listen: loopback,
            control_listen: loopback,
            tls_dir: tls_dir.into(),
            state: None,
            name: "hallmark".to_owned(),
            linked_hubs: vec!["hallmark.azure-devices.net".to_owned()],
            entra_clients: Vec::new(),
            switches: Switches::default(),
        }
    }
}

/// Behaviour that the contract marks UNCONFIRMED, quotas, and the pace of the device plane.
///
/// Defaults are what the contract chooses. All of it can be changed while the emulator runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// A device must present a verified authority; off: the service finds the root itself (section
    /// 10).
    pub verified_authority_presented: bool,
    /// A leaf of an individual enrollment that is not self-signed needs a verified authority in its
    /// chain (section 10).
    pub individual_chain_verified: bool,
    /// A certificate that already is in another entry is refused with 409 (section 6).
    pub certificate_in_one_entry: bool,
    /// Bulk answers name every item with code 200 when all went well (section 7).
    pub bulk_lists_successes: bool,
    /// An id may not begin with a special character (section 6).
    pub id_starts_alphanumeric: bool,
    /// A device whose disabled individual enrollment does not hold its certificate gets 401 instead
    /// of the status `disabled` (section 10).
    pub disabled_stranger_unauthorized: bool,
    /// Deleting an individual enrollment deletes its registration record (section 15).
    pub individual_delete_takes_registration: bool,
    /// `secondaryThumbprint` in the hub equals the primary; off: it is null (section 9).
    pub hub_secondary_thumbprint: bool,
    /// A CA certificate that a record references cannot be deleted (section 11).
    pub referenced_authority_kept: bool,
    /// Thumbprints in `info` are upper case (section 3).
    pub info_thumbprints_upper: bool,
    /// Items on a page when the client does not say (section 7).
    pub page_size_default: usize,
    /// A query does not show yet the results of a job's devices (section 12).
    pub job_results_late: bool,
    /// Seconds in `Retry-After` of the device plane (section 9).
    pub retry_after_seconds: u32,
    /// How many polls are answered `assigning` before the final one.
    pub assigning_polls: u32,
    /// Quotas and the rate limit of section 5 are enforced.
    pub quotas: Quotas,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            verified_authority_presented: true,
            individual_chain_verified: true,
            certificate_in_one_entry: true,
            bulk_lists_successes: false,
            id_starts_alphanumeric: false,
            disabled_stranger_unauthorized: false,
            individual_delete_takes_registration: true,
            hub_secondary_thumbprint: true,
            referenced_authority_kept: false,
            info_thumbprints_upper: true,
            page_size_default: 100,
            job_results_late: false,
            retry_after_seconds: 3,
            assigning_polls: 0,
            quotas: Quotas::default(),
        }
    }
}

/// Limits of one DPS (contract section 5); `None` is unlimited, which is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// CA certificates; Azure: 25.
    pub authorities: Option<usize>,
    /// X.509 groups; Azure: 100.
    pub groups: Option<usize>,
    /// Operations of the service plane in a minute; Azure: 1,000.
    pub service_operations_a_minute: Option<u32>,
    /// Registrations of devices in a minute; Azure: 1,000.
    pub device_registrations_a_minute: Option<u32>,
}

impl Quotas {
    /// Azure's own numbers.
    pub fn azure() -> Self {
        Self {
            authorities: Some(25),
            groups: Some(100),
            service_operations_a_minute: Some(1000),
            device_registrations_a_minute: Some(1000),
        }
    }
}
