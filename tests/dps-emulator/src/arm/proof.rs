//! Proof of possession: a code, and a certificate that carries it, signed by the CA's key (contract
//! section 11). Each step changes the ETag.

use serde_json::Value;

use super::ArmRefusal;
use super::authority::Authority;
use super::certificates::{check_version, if_match, required};
use crate::certificate::Certificate;
use crate::cloud::Cloud;
use crate::ids;
use crate::wire::{Call, Reply};
use crate::world::World;

pub(super) fn generate_code(cloud: &Cloud, name: &str, call: &Call) -> Result<Reply, ArmRefusal> {
    let if_match = if_match(call)?;
    required(&if_match)?;
    cloud.change(|world| {
        let mut authority = copy(world, name)?;
        check_version(&authority, &if_match)?;
        let code = authority.fresh_code();
        let mut shown = store(cloud, world, authority);
        shown["properties"]["verificationCode"] = code.into();
        Ok(Reply::json(200, shown))
    })
}

pub(super) fn verify(cloud: &Cloud, name: &str, call: &Call) -> Result<Reply, ArmRefusal> {
    let if_match = if_match(call)?;
    required(&if_match)?;
    let proof = sent_proof(call)?;
    cloud.change(|world| {
        let mut authority = copy(world, name)?;
        check_version(&authority, &if_match)?;
        check_proof(&authority, &proof)?;
        authority.verified = true;
        authority.code = None;
        Ok(Reply::json(200, store(cloud, world, authority)))
    })
}

/// The common name is the code and the CA's key signed it: nothing else is required. DPS's own code
/// for a failure is UNCONFIRMED.
fn check_proof(authority: &Authority, proof: &Certificate) -> Result<(), ArmRefusal> {
    let named = authority.code.is_some() && proof.common_name() == authority.code.as_deref();
    match named && proof.is_signed_by(&authority.certificate) {
        true => Ok(()),
        false => Err(ArmRefusal::new(
            400,
            "400000",
            "Proof-Of-Possession failed: the verification certificate does not match.",
        )),
    }
}

fn sent_proof(call: &Call) -> Result<Certificate, ArmRefusal> {
    let body = call.json_object();
    let body = body.ok_or_else(|| ArmRefusal::bad_request("The body is not a JSON object."))?;
    let text = body.get("certificate").and_then(Value::as_str);
    let text = text.ok_or_else(|| ArmRefusal::bad_request("certificate is missing."))?;
    Certificate::from_text(text).map_err(|error| ArmRefusal::bad_request(error.to_string()))
}

fn copy(world: &World, name: &str) -> Result<Authority, ArmRefusal> {
    world
        .authority(name)
        .cloned()
        .ok_or_else(ArmRefusal::not_found)
}

fn store(cloud: &Cloud, world: &mut World, mut authority: Authority) -> Value {
    authority.touch(world.next_etag(), cloud.now());
    let shown = authority.shown(&cloud.name);
    world
        .authorities
        .insert(ids::key(&authority.name), authority);
    shown
}
