//! An emulator, and the clients as an operator would configure them.

use crate::pki::Made;
use dps_emulator::{Emulator, Options};
use hallmarkd::enrollment::desired::{Desired, Kind, SlotCertificate, SlotPair, Status};
use hallmarkd::enrollment::history::History;
use hallmarkd::enrollment::id::{EnrollmentGroupId, RegistrationId};
use hallmarkd::enrollment::plan::{DriftPolicy, Plan, plan};
use hallmarkd::provisioning::arm::ArmClient;
use hallmarkd::provisioning::configuration::{Provisioning, ProvisioningConfiguration};
use hallmarkd::provisioning::credential::keys::TokenKeys;
use hallmarkd::provisioning::device::DeviceClient;
use hallmarkd::provisioning::dps::DpsClient;
use hallmarkd::provisioning::failure::CallError;
use hallmarkd::provisioning::hub::HubClient;
use secrecy::SecretString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) struct Plant {
    pub(crate) emulator: Emulator,
    pub(crate) dps: DpsClient,
    pub(crate) arm: ArmClient,
    pub(crate) hub: HubClient,
    provisioning: Provisioning,
    folder: TempDir,
}

impl Plant {
    /// With connection strings and a bearer token in files.
    pub(crate) fn start() -> Self {
        Self::start_with(TokenKeys::new(), |_, said| said)
    }

    /// With a configuration that was changed, and tokens that hold keys of credentials.
    pub(crate) fn start_with(
        keys: TokenKeys,
        change: impl FnOnce(&Emulator, String) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path());
        options.switches.retry_after_seconds = 0;
        let emulator = Emulator::start(options).unwrap();
        let write = |name: &str, text: &str| write_secret(&folder.path().join(name), text);
        write("dps", &emulator.service_connection_string());
        write("arm", &emulator.arm().token);
        write("hub", &emulator.hub_connection_string());
        let said: ProvisioningConfiguration =
            toml::from_str(&change(&emulator, said(&emulator))).unwrap();
        let provisioning = said.check(Some(folder.path())).unwrap();
        let clients = provisioning.clients(&keys).unwrap();
        Self {
            dps: clients.dps,
            arm: clients.arm.unwrap(),
            hub: clients.hubs.only().unwrap().clone(),
            emulator,
            provisioning,
            folder,
        }
    }

    /// A file of this plant: `dps`, `arm` and `hub` are its credentials.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client that presents `device` and the chain `above` it.
    pub(crate) fn device(&self, device: &Made, above: &[&Made]) -> DeviceClient {
        let identity = SecretString::from(device.identity(above));
        self.provisioning.device_plane().client(&identity).unwrap()
    }

    /// One run of the reconciler, as far as this service goes: observe, plan, apply.
    pub(crate) async fn reconcile(
        &self,
        desired: &Desired,
        history: History,
    ) -> Result<History, (History, CallError)> {
        let id = desired.kind.id();
        let observed = self.dps.enrollment(id).await;
        let observed = observed.map_err(|error| (history.clone(), error))?;
        let history = history.observed(observed.as_ref());
        let (wanted, policy) = (Some(desired), DriftPolicy::Report);
        let sending = history.clone().sending(wanted);
        let sent = match plan(wanted, observed.as_ref(), &history, policy) {
            Plan::Settled => Ok(()),
            Plan::Create { record } => self.dps.create(id, &record).await.map(drop),
            Plan::Replace { record, etag, .. } => {
                self.dps.replace(id, &record, &etag).await.map(drop)
            }
            other => panic!("{other:?}"),
        };
        match sent {
            Ok(()) => Ok(History::settled(wanted)),
            Err(error) => Err((sending, error)),
        }
    }
}

fn said(emulator: &Emulator) -> String {
    let arm = emulator.arm();
    format!(
        r#"
        name = "line"
        endpoint = "https://{service}"
        address = "{address}"
        device_endpoint = "https://{device}"
        device_address = "{address}"
        id_scope = "{id_scope}"
        ca_bundle = {ca_bundle:?}
        credential = "dps"
        operations_per_minute = 10000
        verified = ["root"]

        [arm]
        endpoint = "https://{arm_host}"
        address = "{address}"
        subscription = "{subscription}"
        resource_group = "{group}"
        name = "{name}"
        credential = "arm"

        [hub]
        endpoint = "https://{hub_host}"
        address = "{address}"
        credential = "hub"
        operations_per_minute = 10000
        "#,
        service = emulator.service_host(),
        address = emulator.addr(),
        device = emulator.device_host(),
        id_scope = emulator.id_scope(),
        ca_bundle = emulator.ca_file(),
        arm_host = emulator.arm_host(),
        hub_host = emulator.hub_host(),
        subscription = arm.subscription,
        group = arm.resource_group,
        name = arm.name,
    )
}

/// The device of these tests.
pub(crate) fn press() -> RegistrationId {
    RegistrationId::parse("Press-7").unwrap()
}

pub(crate) fn individual(
    primary: Option<&SlotCertificate>,
    secondary: Option<&SlotCertificate>,
) -> Desired {
    wanted(Kind::Individual {
        id: press(),
        device_id: None,
        certificates: SlotPair::new(primary.cloned(), secondary.cloned()).unwrap(),
    })
}

pub(crate) fn group_by_reference(primary: &str) -> Desired {
    wanted(Kind::GroupByReference {
        id: EnrollmentGroupId::parse("line").unwrap(),
        references: SlotPair::new(Some(primary.to_owned()), None).unwrap(),
    })
}

fn wanted(kind: Kind) -> Desired {
    Desired {
        kind,
        status: Status::Enabled,
        reprovision_policy: None,
        hubs: None,
    }
}

/// Writes a file that its owner alone can read, as credentials must be.
pub(crate) fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}
