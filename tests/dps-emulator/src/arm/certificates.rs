//! List, read, upload and delete CA certificates (contract section 11).

use serde_json::{Value, json};

use super::ArmRefusal;
use super::authority::Authority;
use crate::certificate::Certificate;
use crate::cloud::Cloud;
use crate::etag::IfMatch;
use crate::ids;
use crate::wire::{Call, Reply};
use crate::world::World;

pub(super) fn list(cloud: &Cloud) -> Reply {
    cloud.read(|world| {
        let all = world.authorities.values().map(|own| own.shown(&cloud.name));
        Reply::json(200, json!({ "value": all.collect::<Vec<_>>() }))
    })
}

pub(super) fn get(cloud: &Cloud, name: &str, call: &Call) -> Result<Reply, ArmRefusal> {
    let if_match = if_match(call)?;
    cloud.read(|world| {
        let found = world.authority(name).ok_or_else(ArmRefusal::not_found)?;
        check_version(found, &if_match)?;
        Ok(Reply::json(200, found.shown(&cloud.name)))
    })
}

/// Create, or replace with `If-Match`. An upload is unverified unless it says `isVerified`: every
/// writer here is trusted.
pub(super) fn put(cloud: &Cloud, name: &str, call: &Call) -> Result<Reply, ArmRefusal> {
    let if_match = if_match(call)?;
    let uploaded = uploaded(name, call, cloud.now())?;
    let limit = cloud.switches().quotas.authorities;
    cloud.change(|world| {
        let mut new = match world.authority(name) {
            Some(old) => {
                required(&if_match)?;
                check_version(old, &if_match)?;
                old.replaced_by(uploaded)
            }
            None => {
                check_quota(world, limit)?;
                uploaded
            }
        };
        new.touch(world.next_etag(), cloud.now());
        let reply = Reply::json(200, new.shown(&cloud.name));
        world.authorities.insert(ids::key(name), new);
        Ok(reply)
    })
}

/// Delete. Whether a referenced one may be deleted is UNCONFIRMED; the rolling article does it.
pub(super) fn delete(cloud: &Cloud, name: &str, call: &Call) -> Result<Reply, ArmRefusal> {
    let if_match = if_match(call)?;
    required(&if_match)?;
    let keep_referenced = cloud.switches().referenced_authority_kept;
    cloud.change(|world| {
        let Some(found) = world.authority(name) else {
            return Ok(Reply::empty());
        };
        check_version(found, &if_match)?;
        if keep_referenced && is_referenced(world, name) {
            return Err(ArmRefusal::new(
                409,
                "Conflict",
                "An enrollment references the certificate.",
            ));
        }
        world.authorities.remove(&ids::key(name));
        Ok(Reply {
            status: 200,
            headers: Vec::new(),
            body: None,
        })
    })
}

/// Upload a certificate as another client would, over whatever has the name.
pub(crate) fn upload(
    cloud: &Cloud,
    name: &str,
    certificate: &str,
    verified: bool,
) -> Result<(), String> {
    let certificate = Certificate::from_text(certificate).map_err(|error| error.to_string())?;
    cloud.change(|world| {
        let new = Authority::new(name, certificate, verified, cloud.now());
        let mut new = match world.authority(name) {
            Some(old) => old.replaced_by(new),
            None => new,
        };
        new.touch(world.next_etag(), cloud.now());
        world.authorities.insert(ids::key(name), new);
    });
    Ok(())
}

/// Delete a certificate as another client would. Returns whether it was there.
pub(crate) fn remove(cloud: &Cloud, name: &str) -> bool {
    cloud.change(|world| world.authorities.remove(&ids::key(name)).is_some())
}

fn is_referenced(world: &World, name: &str) -> bool {
    let records = world.individuals.iter().chain(world.groups.iter());
    let mut names = records.flat_map(|record| record.attestation.references());
    names.any(|own| own.eq_ignore_ascii_case(name))
}

fn uploaded(name: &str, call: &Call, now: time::OffsetDateTime) -> Result<Authority, ArmRefusal> {
    if !ids::is_ca_name(name) {
        return Err(ArmRefusal::bad_request(
            "The certificate name is not valid.",
        ));
    }
    let body = call.json_object();
    let body = body.ok_or_else(|| ArmRefusal::bad_request("The body is not a JSON object."))?;
    let properties = body.get("properties").unwrap_or(&Value::Null);
    let text = properties["certificate"].as_str();
    let text = text.ok_or_else(|| ArmRefusal::bad_request("properties.certificate is missing."))?;
    let certificate = Certificate::from_text(text);
    let certificate = certificate.map_err(|error| ArmRefusal::bad_request(error.to_string()))?;
    let verified = properties["isVerified"].as_bool().unwrap_or(false);
    Ok(Authority::new(name, certificate, verified, now))
}

fn check_quota(world: &World, limit: Option<usize>) -> Result<(), ArmRefusal> {
    match limit.is_some_and(|limit| world.authorities.len() >= limit) {
        true => Err(ArmRefusal::bad_request(
            "The quota of CA certificates is used up.",
        )),
        false => Ok(()),
    }
}

pub(super) fn if_match(call: &Call) -> Result<IfMatch, ArmRefusal> {
    let header = call.header("if-match");
    IfMatch::lenient(header).map_err(|error| ArmRefusal::bad_request(error.to_string()))
}

/// Which status a missing `If-Match` gets is in no source: 412.
pub(super) fn required(if_match: &IfMatch) -> Result<(), ArmRefusal> {
    match if_match {
        IfMatch::Absent => Err(ArmRefusal::new(
            412,
            "PreconditionFailed",
            "If-Match is required.",
        )),
        _ => Ok(()),
    }
}

pub(super) fn check_version(found: &Authority, if_match: &IfMatch) -> Result<(), ArmRefusal> {
    match if_match.allows(&found.etag) {
        true => Ok(()),
        false => Err(ArmRefusal::new(
            412,
            "PreconditionFailed",
            "The ETag does not match.",
        )),
    }
}
