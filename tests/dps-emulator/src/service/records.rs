//! Create, read, replace and delete enrollments of both kinds (contract sections 2 to 4 and 6).

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{if_match, json_object};
use crate::cloud::Cloud;
use crate::enrollment::draft::{Draft, Surroundings};
use crate::enrollment::{Attestation, Entry, Kind, Record};
use crate::etag::IfMatch;
use crate::ids;
use crate::options::Switches;
use crate::refusal::Refusal;
use crate::registration::Registration;
use crate::wire::{Call, Reply};
use crate::world::World;

pub(super) fn get(cloud: &Cloud, kind: Kind, id: &str) -> Result<Reply, Refusal> {
    let switches = cloud.switches();
    cloud.read(|world| {
        Ok(Reply::json(
            200,
            shown(world, kind, found(world, kind, id)?, &switches),
        ))
    })
}

pub(super) fn mechanism(cloud: &Cloud, kind: Kind, id: &str) -> Result<Reply, Refusal> {
    cloud.read(|world| Ok(Reply::json(200, found(world, kind, id)?.mechanism())))
}

pub(super) fn put(cloud: &Cloud, kind: Kind, id: &str, call: &Call) -> Result<Reply, Refusal> {
    let if_match = if_match(call)?;
    let body = json_object(call)?;
    let write = Write::new(cloud);
    cloud.change(|world| {
        write.put(world, kind, id, &if_match, body)?;
        Ok(Reply::json(
            200,
            shown(world, kind, found(world, kind, id)?, &write.switches),
        ))
    })
}

pub(super) fn delete(cloud: &Cloud, kind: Kind, id: &str, call: &Call) -> Result<Reply, Refusal> {
    let if_match = if_match(call)?;
    let write = Write::new(cloud);
    cloud.change(|world| write.delete(world, kind, id, &if_match))?;
    Ok(Reply::empty())
}

/// A record as this service shows it.
pub(crate) fn shown(world: &World, kind: Kind, record: &Record, switches: &Switches) -> Value {
    let mut shown = world.show(kind, record);
    if !switches.info_thumbprints_upper {
        lower_thumbprints(&mut shown);
    }
    shown
}

fn lower_thumbprints(value: &mut Value) {
    let members = value.as_object_mut().into_iter().flatten();
    for (name, member) in members {
        match member {
            Value::String(text) if name.ends_with("Thumbprint") => text.make_ascii_lowercase(),
            member => lower_thumbprints(member),
        }
    }
}

pub(super) fn found<'a>(world: &'a World, kind: Kind, id: &str) -> Result<&'a Record, Refusal> {
    let missing = || Refusal::new(kind.not_found(), "Not Found.");
    world.records(kind).find(id).ok_or_else(missing)
}

/// A change to the records, as single requests and bulk items make it.
pub(crate) struct Write<'a> {
    cloud: &'a Cloud,
    pub(crate) switches: Switches,
    now: OffsetDateTime,
}

impl<'a> Write<'a> {
    /// A change that happens now. Takes no lock later: the world is locked by then.
    pub(crate) fn new(cloud: &'a Cloud) -> Self {
        Self {
            cloud,
            switches: cloud.switches(),
            now: cloud.now(),
        }
    }

    /// Create or replace; `if_match` says which of the two the client means (contract section 4).
    pub(crate) fn put(
        &self,
        world: &mut World,
        kind: Kind,
        id: &str,
        if_match: &IfMatch,
        body: Map<String, Value>,
    ) -> Result<(), Refusal> {
        let old = world.records(kind).find(id);
        check_version(kind, old, if_match)?;
        let draft = self.draft(world, kind, id, body)?;
        self.check_certificates(world, kind, &draft)?;
        if world.records(kind).find(id).is_none() {
            self.check_quota(world, kind, &draft)?;
            self.begin_registration(world, kind, id);
        }
        world.records_mut(kind).put(draft, self.now);
        Ok(())
    }

    /// Delete; without a header unconditionally (contract section 4).
    pub(crate) fn delete(
        &self,
        world: &mut World,
        kind: Kind,
        id: &str,
        if_match: &IfMatch,
    ) -> Result<(), Refusal> {
        if !if_match.allows(&found(world, kind, id)?.etag) {
            return Err(Refusal::precondition_failed());
        }
        world.records_mut(kind).remove(id);
        if kind == Kind::Individual && self.switches.individual_delete_takes_registration {
            world.registrations.remove(&ids::key(id));
        }
        Ok(())
    }

    /// Set members of a record as another client would: no precondition, a new ETag.
    pub(crate) fn edit(
        &self,
        world: &mut World,
        kind: Kind,
        id: &str,
        merge: Map<String, Value>,
    ) -> Result<(), Refusal> {
        let mut body = found(world, kind, id)?.shown(kind);
        body.extend(merge);
        self.put(world, kind, id, &IfMatch::Any, body)
    }

    fn draft(
        &self,
        world: &World,
        kind: Kind,
        id: &str,
        body: Map<String, Value>,
    ) -> Result<Draft, Refusal> {
        let old: Option<&Attestation> = world.records(kind).find(id).map(|old| &old.attestation);
        let around = Surroundings {
            linked_hubs: &self.cloud.hosts.hubs,
            switches: &self.switches,
            has_authority: &|name| world.authority(name).is_some(),
        };
        Draft::read(kind, id, body, old, around)
    }

    /// One certificate may be in one entry only; both slots of it are fine. Status and code are
    /// UNCONFIRMED (contract section 6).
    fn check_certificates(&self, world: &World, kind: Kind, draft: &Draft) -> Result<(), Refusal> {
        if !self.switches.certificate_in_one_entry {
            return Ok(());
        }
        let is_elsewhere = |sha256: &str| {
            [Kind::Individual, Kind::Group].into_iter().any(|other| {
                let mut holders = world.records(other).holders(sha256);
                holders.any(|holder| other != kind || !holder.id.eq_ignore_ascii_case(&draft.id))
            })
        };
        match draft
            .attestation
            .certificates()
            .any(|own| is_elsewhere(&own.sha256()))
        {
            true => Err(Refusal::new(
                409_205,
                "The certificate is already in another enrollment.",
            )),
            false => Ok(()),
        }
    }

    /// The limit is on X.509 groups (contract section 5); status and code are UNCONFIRMED.
    fn check_quota(&self, world: &World, kind: Kind, draft: &Draft) -> Result<(), Refusal> {
        let is_x509 = |attestation: &Attestation| {
            matches!(
                attestation,
                Attestation::Signing(_) | Attestation::References(_)
            )
        };
        let Some(limit) = self.switches.quotas.groups else {
            return Ok(());
        };
        let groups = world
            .groups
            .iter()
            .filter(|group| is_x509(&group.attestation));
        if kind == Kind::Group && is_x509(&draft.attestation) && groups.count() >= limit {
            return Err(Refusal::new(
                400_005,
                "The quota of enrollment groups is used up.",
            ));
        }
        Ok(())
    }

    /// The registration record of an individual enrollment exists from here on (contract section
    /// 2).
    fn begin_registration(&self, world: &mut World, kind: Kind, id: &str) {
        if kind == Kind::Individual {
            let key = ids::key(id);
            let entry = Entry {
                kind,
                key: key.clone(),
            };
            let fresh = || Registration::unassigned(id, entry, self.now);
            world.registrations.entry(key).or_insert_with(fresh);
        }
    }
}

/// The meaning of `If-Match` for a PUT (contract section 4). On a missing record a tag fails and
/// `*` creates (UNCONFIRMED).
fn check_version(kind: Kind, old: Option<&Record>, if_match: &IfMatch) -> Result<(), Refusal> {
    match (old, if_match) {
        (Some(_), IfMatch::Absent) => Err(Refusal::new(kind.exists(), "Enrollment already exists")),
        (Some(old), if_match) if !if_match.allows(&old.etag) => Err(Refusal::precondition_failed()),
        (None, IfMatch::Tag(_)) => Err(Refusal::precondition_failed()),
        _ => Ok(()),
    }
}
