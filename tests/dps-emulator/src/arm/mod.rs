//! The resource manager: CA certificates of the DPS, and the DPS itself (contract section 11).

pub(crate) mod authority;
pub(crate) mod certificates;
mod proof;

use serde_json::json;

use crate::cloud::Cloud;
use crate::entra::{self, Scope};
use crate::operation::Operation;
use crate::plane::DEVICE_HOST;
use crate::wire::{Call, Reply};

pub(crate) const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";
/// The one resource group.
pub(crate) const RESOURCE_GROUP: &str = "hallmark";

const BODY_LENGTH_MAX: usize = 64 * 1024;

/// Versions that clients use (contract section 1).
const API_VERSIONS: [&str; 9] = [
    "2018-01-22",
    "2020-01-01",
    "2020-03-01",
    "2021-10-15",
    "2022-02-05",
    "2022-12-12",
    "2023-03-01-preview",
    "2025-02-01-preview",
    "2026-11-01",
];

/// How the resource manager says no: `ErrorDetails` (contract section 11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArmRefusal {
    status: u16,
    code: &'static str,
    message: String,
}

impl ArmRefusal {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    fn not_found() -> Self {
        Self::new(404, "ResourceNotFound", "The resource was not found.")
    }

    /// The SDK reads the members at the top or below `error`: both are written.
    pub(crate) fn reply(&self) -> Reply {
        let details = json!({
            "code": self.code,
            "httpStatusCode": self.status.to_string(),
            "message": self.message,
            "details": "",
        });
        let mut body = details.clone();
        body["error"] = details;
        Reply::json(self.status, body)
    }
}

/// Answer a call that leads to this plane.
pub(crate) fn answer(cloud: &Cloud, operation: Option<Operation>, call: &Call) -> Reply {
    served(cloud, operation, call).unwrap_or_else(|refusal| refusal.reply())
}

fn served(cloud: &Cloud, operation: Option<Operation>, call: &Call) -> Result<Reply, ArmRefusal> {
    authorize(cloud, call)?;
    let operation = operation.ok_or_else(ArmRefusal::not_found)?;
    check_address(cloud, call)?;
    if call.body.len() > BODY_LENGTH_MAX {
        return Err(ArmRefusal::bad_request("the body is too long"));
    }
    let name = call.segment(9);
    match operation {
        Operation::ResourceGet => Ok(resource(cloud)),
        Operation::AuthorityList => Ok(certificates::list(cloud)),
        Operation::AuthorityGet => certificates::get(cloud, name, call),
        Operation::AuthorityPut => certificates::put(cloud, name, call),
        Operation::AuthorityDelete => certificates::delete(cloud, name, call),
        Operation::AuthorityCode => proof::generate_code(cloud, name, call),
        Operation::AuthorityVerify => proof::verify(cloud, name, call),
        _ => Err(ArmRefusal::not_found()),
    }
}

fn authorize(cloud: &Cloud, call: &Call) -> Result<(), ArmRefusal> {
    let token = call
        .header("authorization")
        .and_then(|header| header.strip_prefix("Bearer "));
    match token.is_some_and(|token| entra::opens(cloud, token, Scope::Arm)) {
        true => Ok(()),
        false => Err(ArmRefusal::new(
            401,
            "AuthenticationFailed",
            "Authentication failed.",
        )),
    }
}

fn check_address(cloud: &Cloud, call: &Call) -> Result<(), ArmRefusal> {
    match call.query.get("api-version") {
        Some(version) if API_VERSIONS.contains(&version.as_str()) => {}
        _ => {
            return Err(ArmRefusal::new(
                400,
                "InvalidApiVersionParameter",
                "The api-version is invalid.",
            ));
        }
    }
    let is = |index: usize, wanted: &str| call.segment(index).eq_ignore_ascii_case(wanted);
    match is(1, SUBSCRIPTION) && is(3, RESOURCE_GROUP) && is(7, &cloud.name) {
        true => Ok(()),
        false => Err(ArmRefusal::not_found()),
    }
}

/// The path of the DPS.
pub(crate) fn resource_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}\
         /providers/Microsoft.Devices/provisioningServices/{name}"
    )
}

/// The DPS itself: where a client learns id scope and host names.
fn resource(cloud: &Cloud) -> Reply {
    let hubs: Vec<_> = cloud
        .hosts
        .hubs
        .iter()
        .map(|hub| json!({ "name": hub }))
        .collect();
    let id_scope = cloud.read(|world| world.id_scope.clone());
    Reply::json(
        200,
        json!({
            "id": resource_id(&cloud.name),
            "name": cloud.name,
            "type": "Microsoft.Devices/provisioningServices",
            "location": "westeurope",
            "sku": { "name": "S1", "capacity": 1 },
            "properties": {
                "state": "Active",
                "provisioningState": "Succeeded",
                "allocationPolicy": "Hashed",
                "iotHubs": hubs,
                "idScope": id_scope,
                "serviceOperationsHostName": cloud.hosts.service,
                "deviceProvisioningHostName": DEVICE_HOST,
            },
        }),
    )
}
