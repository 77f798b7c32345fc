//! Identifies a device by the certificates that it presents (contract section 10).
//!
//! Order: an individual enrollment of that id decides alone; else the group of the first authority
//! above the leaf, then of the next, up to the root. The first entry found decides.

use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::chain::Path;
use crate::enrollment::{Attestation, Entry, Kind, Record};
use crate::ids;
use crate::options::Switches;
use crate::refusal::Refusal;
use crate::world::World;

/// The answer of the entry that applies to the device.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The entry that decided.
    pub(crate) entry: Entry,
    /// Enabled: the device is accepted. Disabled is no error, but a status.
    pub(crate) enabled: bool,
    /// For a group: its id as it was written, and its certificate in the device's chain.
    pub(crate) signer: Option<(String, Certificate)>,
}

/// The device, and the rules for it.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) world: &'a World,
    pub(crate) switches: &'a Switches,
    pub(crate) now: OffsetDateTime,
    pub(crate) id: &'a str,
    pub(crate) presented: &'a [Certificate],
}

fn invalid_certificate() -> Refusal {
    Refusal::device_unauthorized("Invalid certificate.")
}

fn authority_not_found() -> Refusal {
    Refusal::device_unauthorized("CA certificate not found.")
}

fn unauthorized() -> Refusal {
    Refusal::device_unauthorized("Unauthorized")
}

impl<'a> Case<'a> {
    /// Decide. A refusal is always 401002, with the sentence of section 10's table.
    pub(crate) fn judge(self) -> Result<Verdict, Refusal> {
        let leaf = self.leaf()?;
        let path = self.path();
        match self.world.individuals.find(self.id) {
            Some(record) => self.judge_individual(record, leaf, &path),
            None => self.judge_group(&path),
        }
    }

    /// Returns the leaf, if it is this device's, in time, and in no disabled entry of another
    /// device. Codes for a wrong common name and for the validity are UNCONFIRMED.
    fn leaf(&self) -> Result<&'a Certificate, Refusal> {
        let leaf = self.presented.first().ok_or_else(unauthorized)?;
        let is_named = leaf
            .common_name()
            .is_some_and(|name| name.eq_ignore_ascii_case(self.id));
        if !is_named || !leaf.is_valid_at(self.now) {
            return Err(invalid_certificate());
        }
        let mut holders = self.world.individuals.holders(&leaf.sha256());
        let is_blocked =
            holders.any(|holder| !holder.is_enabled() && !holder.id.eq_ignore_ascii_case(self.id));
        match is_blocked {
            true => Err(unauthorized()),
            false => Ok(leaf),
        }
    }

    fn path(&self) -> Path {
        let authorities = self.world.authorities.values();
        let verified = authorities
            .filter(|ca| ca.verified)
            .map(|ca| &ca.certificate);
        let complete = !self.switches.verified_authority_presented;
        Path::follow(self.presented, verified, self.now, complete)
    }

    fn judge_individual(
        &self,
        record: &Record,
        leaf: &Certificate,
        path: &Path,
    ) -> Result<Verdict, Refusal> {
        let accepted = self.accepted_by_individual(record, leaf, path);
        // A disabled entry blocks the id, whatever the device presents; the form is UNCONFIRMED.
        if record.is_enabled() || self.switches.disabled_stranger_unauthorized {
            accepted?;
        }
        Ok(verdict(Kind::Individual, record, None))
    }

    fn accepted_by_individual(
        &self,
        record: &Record,
        leaf: &Certificate,
        path: &Path,
    ) -> Result<(), Refusal> {
        match &record.attestation {
            Attestation::Client(slots) if !slots.iter().any(|own| own == leaf) => {
                Err(invalid_certificate())
            }
            Attestation::Client(_) => {
                let needs_authority =
                    self.switches.individual_chain_verified && !leaf.is_self_issued();
                match needs_authority && !path.is_anchored() {
                    true => Err(authority_not_found()),
                    false => Ok(()),
                }
            }
            Attestation::References(_) => {
                let mut authorities = path.authorities();
                match authorities.any(|(_, own)| self.references(record, own)) {
                    true => Ok(()),
                    false => Err(authority_not_found()),
                }
            }
            _ => Err(unauthorized()),
        }
    }

    fn judge_group(&self, path: &Path) -> Result<Verdict, Refusal> {
        if !path.is_anchored() {
            return Err(authority_not_found());
        }
        for (index, authority) in path.authorities() {
            let Some(group) = self.group_of(authority) else {
                continue;
            };
            // The verified certificate is the group's own or one above it.
            if !path.is_anchored_at_or_above(index) {
                return Err(authority_not_found());
            }
            let signer = (group.id.clone(), authority.clone());
            return Ok(verdict(Kind::Group, group, Some(signer)));
        }
        Err(self.no_group())
    }

    /// The group that holds or references this authority. If several do, a disabled one: a
    /// certificate in a disabled entry fails even if an enabled entry has it too (contract section
    /// 13).
    fn group_of(&self, authority: &Certificate) -> Option<&'a Record> {
        let holders = self.world.groups.holders(&authority.sha256());
        let referrers = self
            .world
            .groups
            .iter()
            .filter(|group| self.references(group, authority));
        holders
            .chain(referrers)
            .min_by_key(|group| group.is_enabled())
    }

    fn references(&self, record: &Record, authority: &Certificate) -> bool {
        let mut named = record
            .attestation
            .references()
            .filter_map(|name| self.world.authority(name));
        named.any(|ca| ca.verified && ca.certificate == *authority)
    }

    /// A device whose group still exists but has other certificates gets that reason; any other one
    /// is only not authorized.
    fn no_group(&self) -> Refusal {
        let registration = self.world.registrations.get(&ids::key(self.id));
        let remembered = registration
            .filter(|own| own.entry.kind == Kind::Group)
            .and_then(|own| self.world.groups.find(&own.entry.key));
        match remembered {
            Some(_) => Refusal::device_unauthorized(
                "Signing certificate info did not match chain elements",
            ),
            None => unauthorized(),
        }
    }
}

fn verdict(kind: Kind, record: &Record, signer: Option<(String, Certificate)>) -> Verdict {
    let key = ids::key(&record.id);
    Verdict {
        entry: Entry { kind, key },
        enabled: record.is_enabled(),
        signer,
    }
}
