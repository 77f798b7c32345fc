//! Register, poll and look up, whatever the transport (contract section 9).

use std::time::Instant;

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

use super::assign::Assignment;
use super::judge::{Case, Verdict};
use super::operations::RegisterOperation;
use crate::certificate::Certificate;
use crate::cloud::Cloud;
use crate::ids;
use crate::options::Switches;
use crate::refusal::Refusal;
use crate::registration::{Registration, Status};
use crate::world::World;

/// Longest body (contract section 5: message 96 KB).
const BODY_LENGTH_MAX: usize = 96 * 1024;

/// The caller: the parts of the address and of the TLS handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device<'a> {
    pub(crate) id_scope: &'a str,
    pub(crate) registration_id: &'a str,
    pub(crate) api_version: &'a str,
    pub(crate) presented: &'a [Certificate],
}

/// The progress of a registration.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Assigning {
        /// The operation id to ask for.
        operation_id: String,
    },
    /// Done, with any status.
    Final(Value),
}

impl Outcome {
    pub(crate) fn body(&self) -> Value {
        match self {
            Self::Assigning { operation_id } => {
                json!({ "operationId": operation_id, "status": "assigning" })
            }
            Self::Final(body) => body.clone(),
        }
    }
}

/// Take one registration of the rate limit, or say how many seconds to wait.
pub(crate) fn take_rate(cloud: &Cloud) -> Result<(), u64> {
    let limit = cloud.switches().quotas.device_registrations_a_minute;
    cloud.rates.registrations.take(limit, Instant::now())
}

/// Begin a registration. All is decided here; a poll only returns it.
pub(crate) fn register(
    cloud: &Cloud,
    device: &Device<'_>,
    body: &[u8],
) -> Result<Outcome, Refusal> {
    check_body(device, body)?;
    let (switches, now) = (cloud.switches(), cloud.now());
    cloud.change(|world| {
        let verdict = judge(cloud, world, &switches, device)?;
        let assignment = Assignment {
            device,
            verdict: &verdict,
            linked_hubs: &cloud.hosts.hubs,
            switches: &switches,
            now,
        };
        let registration = assignment.apply(world);
        let operation_id = operation_id(device.registration_id);
        let operation = RegisterOperation {
            key: ids::key(device.registration_id),
            leaf: leaf_thumbprint(device),
            assigning_polls: switches.assigning_polls,
            result: final_body(&operation_id, &registration, &verdict),
        };
        world.operations.add(operation_id.clone(), operation);
        Ok(Outcome::Assigning { operation_id })
    })
}

/// Returns the state of a registration. Only the device that began it may ask; an unknown operation
/// is 404 (UNCONFIRMED).
pub(crate) fn poll(
    cloud: &Cloud,
    device: &Device<'_>,
    operation_id: &str,
) -> Result<Outcome, Refusal> {
    let leaf = leaf_thumbprint(device);
    cloud.change(|world| {
        check_scope(world, device)?;
        let key = ids::key(device.registration_id);
        let found = world.operations.find_mut(operation_id, &key, &leaf);
        let operation = found.ok_or_else(|| Refusal::new(404_208, "Operation not found."))?;
        if operation.assigning_polls == 0 {
            return Ok(Outcome::Final(operation.result.clone()));
        }
        operation.assigning_polls -= 1;
        Ok(Outcome::Assigning {
            operation_id: operation_id.to_owned(),
        })
    })
}

/// The registration record of a device that may come in.
pub(crate) fn lookup(cloud: &Cloud, device: &Device<'_>) -> Result<Value, Refusal> {
    let switches = cloud.switches();
    cloud.read(|world| {
        let verdict = judge(cloud, world, &switches, device)?;
        let registration = world.registrations.get(&ids::key(device.registration_id));
        let missing = || Refusal::new(404_202, "Not Found.");
        Ok(state(registration.ok_or_else(missing)?, &verdict).into())
    })
}

fn judge(
    cloud: &Cloud,
    world: &World,
    switches: &Switches,
    device: &Device<'_>,
) -> Result<Verdict, Refusal> {
    check_scope(world, device)?;
    if !ids::is_registration_id(device.registration_id, switches.id_starts_alphanumeric) {
        return Err(Refusal::bad_registration_id());
    }
    let case = Case {
        world,
        switches,
        now: cloud.now(),
        id: device.registration_id,
        presented: device.presented,
    };
    case.judge()
}

/// 404 for another scope is UNCONFIRMED (contract section 10).
fn check_scope(world: &World, device: &Device<'_>) -> Result<(), Refusal> {
    match world.id_scope.eq_ignore_ascii_case(device.id_scope) {
        true => Ok(()),
        false => Err(Refusal::new(404_203, "Id scope not found.")),
    }
}

fn check_body(device: &Device<'_>, body: &[u8]) -> Result<(), Refusal> {
    if body.len() > BODY_LENGTH_MAX {
        return Err(Refusal::bad_request("the message is longer than 96 KB"));
    }
    let body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|_| Refusal::bad_request("the body is not a JSON object"))?;
    let named = body.get("registrationId").and_then(Value::as_str);
    match named.is_some_and(|named| named.eq_ignore_ascii_case(device.registration_id)) {
        true => Ok(()),
        false => Err(Refusal::bad_request(
            "registrationId must be the id in the address",
        )),
    }
}

fn leaf_thumbprint(device: &Device<'_>) -> String {
    device
        .presented
        .first()
        .map(Certificate::sha256)
        .unwrap_or_default()
}

/// `<digit>.<16 hex>.<guid>` (contract section 9).
fn operation_id(registration_id: &str) -> String {
    let digest = digest::digest(&digest::SHA256, registration_id.as_bytes());
    let hash = hex::encode(&digest.as_ref()[..8]);
    format!("5.{hash}.{}", uuid::Uuid::new_v4())
}

fn final_body(operation_id: &str, registration: &Registration, verdict: &Verdict) -> Value {
    json!({
        "operationId": operation_id,
        "status": registration.status,
        "registrationState": state(registration, verdict),
    })
}

/// The device plane's view of a registration: with `x509` (contract section 9).
fn state(registration: &Registration, verdict: &Verdict) -> Map<String, Value> {
    let x509 = match &verdict.signer {
        Some((group, signer)) if registration.status != Status::Unassigned => json!({
            "enrollmentGroupId": group,
            "signingCertificateInfo": signer.info(),
        }),
        _ => json!({}),
    };
    let mut state = Map::from_iter([("x509".to_owned(), x509)]);
    state.extend(registration.shown());
    state
}
