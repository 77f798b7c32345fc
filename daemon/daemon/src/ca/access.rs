//! Shows of each device what an operator asks first: is its leaf valid, which enrollment admits it,
//! and is it blocked.
//!
//! A page of devices takes as many queries as one device. An exclusion never uses these answers:
//! the store reads again in its own transaction.

use super::exclusion::block::ActiveBlock;
use super::{CertificateAuthority, Error};
use crate::ids::GenerationId;
use crate::store::{BlockKind, BlockRow, CertificateState, DeviceRow, EnrollmentRow};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A device, and what it may do.
#[derive(Clone, Debug)]
pub struct DeviceOverview {
    pub device: DeviceRow,
    /// The state of its current leaf.
    pub state: CertificateState,
    /// Whole days until its current leaf ends; negative once it has ended.
    pub days_left: i64,
    /// The enrollment of each provisioning service by which it registers.
    pub access: Vec<Access>,
    /// The block that excludes it: its own, or that of a generation or a group above it.
    pub blocked: Option<ActiveBlock>,
}

/// The enrollment by which a provisioning service decides about a device: its own, or the group
/// that is next above its leaf (docs/dps-contract.md, section 10).
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Access {
    pub provisioning: String,
    /// `individual` or `group`.
    pub kind: &'static str,
    pub name: String,
    /// The desired `provisioningStatus`: a disabled enrollment admits nothing.
    pub status: &'static str,
    /// The state of its slots, as desired.
    pub slots: &'static str,
    /// Whether the service was observed to have it as desired.
    pub state: &'static str,
    /// For an individual enrollment of an exclusion: the group whose device it excludes.
    pub overlay_of: Option<String>,
}

impl From<&EnrollmentRow> for Access {
    fn from(row: &EnrollmentRow) -> Self {
        Self {
            provisioning: row.provisioning.clone(),
            kind: row.kind.name(),
            name: row.name.clone(),
            status: if row.enabled { "enabled" } else { "disabled" },
            slots: row.slots.state(),
            state: row.state(),
            overlay_of: row.overlay_of.clone(),
        }
    }
}

/// The rows that all devices of a page have in common.
struct Fleet<'a> {
    ca: &'a CertificateAuthority,
    groups: Vec<EnrollmentRow>,
    /// Blocks of groups and generations.
    blocks: Vec<BlockRow>,
    /// The groups that admit the leaves of each issuer, one for each service.
    of_issuer: BTreeMap<GenerationId, Vec<Access>>,
}

impl CertificateAuthority {
    /// Returns the devices after registration id `after`, at most `limit`.
    pub fn devices(&self, after: &str, limit: u32) -> Result<Vec<DeviceOverview>, Error> {
        let devices = self.store().devices(after, limit)?;
        let Some(last) = devices.last() else {
            return Ok(Vec::new());
        };
        let last = &last.registration_id;
        let individuals = self.store().individuals_between(after, last)?;
        let individuals = by_name(&individuals, |it| &it.name);
        let blocks = self.store().device_blocks_between(after, last)?;
        let blocks = by_name(&blocks, |it| &it.name);
        let mut fleet = self.fleet()?;
        let devices = devices.into_iter().map(|device| {
            let name = device.registration_id.to_ascii_lowercase();
            let own = individuals.get(&name).map(Vec::as_slice);
            let block = blocks.get(&name).and_then(|it| it.first().copied());
            fleet.overview(device, own.unwrap_or_default(), block)
        });
        Ok(devices.collect())
    }

    /// Returns one device as [`devices`](Self::devices) does.
    pub fn device_overview(&self, device: DeviceRow) -> Result<DeviceOverview, Error> {
        let name = &device.registration_id;
        let named = self.store().enrollments_named(name)?;
        let own = named.iter().filter(|it| it.kind.name() == "individual");
        let own: Vec<_> = own.collect();
        let block = self.store().active_block(BlockKind::Device, name, None)?;
        Ok(self.fleet()?.overview(device, &own, block.as_ref()))
    }

    fn fleet(&self) -> Result<Fleet<'_>, Error> {
        Ok(Fleet {
            ca: self,
            groups: self.store().groups()?,
            blocks: self.store().blocks_of_many_devices()?,
            of_issuer: BTreeMap::new(),
        })
    }
}

/// Returns the rows by their names in lower case: names of enrollments and blocks have no case.
fn by_name<T>(rows: &[T], name: impl Fn(&T) -> &String) -> BTreeMap<String, Vec<&T>> {
    let mut named: BTreeMap<String, Vec<&T>> = BTreeMap::new();
    for row in rows {
        let name = name(row).to_ascii_lowercase();
        named.entry(name).or_default().push(row);
    }
    named
}

impl Fleet<'_> {
    fn overview(
        &mut self,
        device: DeviceRow,
        own: &[&EnrollmentRow],
        block: Option<&BlockRow>,
    ) -> DeviceOverview {
        let now = self.ca.now();
        let mut access: Vec<Access> = own.iter().map(|it| Access::from(*it)).collect();
        let groups = self.groups_of(device.issuer);
        let other = groups.iter().filter(|group| {
            let mut own = own.iter();
            !own.any(|it| it.provisioning == group.provisioning)
        });
        access.extend(other.cloned());
        let below_revoked = self.ca.hierarchy().revoked_above(device.issuer).is_some();
        let ends = device.not_after;
        let block = block.or_else(|| self.block_above(device.issuer, &access));
        DeviceOverview {
            state: CertificateState::of(device.revoked, ends, now, below_revoked),
            days_left: ends.seconds_since(now).div_euclid(DAY),
            blocked: block.map(|it| it.clone().into()),
            access,
            device,
        }
    }

    /// Returns for each service the group next above the leaves of an issuer. Of two groups with
    /// one certificate the disabled one decides.
    fn groups_of(&mut self, issuer: GenerationId) -> Vec<Access> {
        let groups = &self.groups;
        let of_issuer = self.of_issuer.entry(issuer).or_insert_with(|| {
            let mut found: Vec<Access> = Vec::new();
            for above in self.ca.hierarchy().upwards(issuer) {
                let certificate = above.thumbprint();
                let holding = groups
                    .iter()
                    .filter(|it| it.slots.held().contains(&certificate));
                let mut holding: Vec<_> = holding.collect();
                holding.sort_by_key(|it| it.enabled);
                for group in holding {
                    if found.iter().all(|it| it.provisioning != group.provisioning) {
                        found.push(group.into());
                    }
                }
            }
            found
        });
        of_issuer.clone()
    }

    /// Returns the block of a generation above the leaf, or of a group of the device.
    fn block_above(&self, issuer: GenerationId, access: &[Access]) -> Option<&BlockRow> {
        let hierarchy = self.ca.hierarchy();
        let concerns = |block: &&BlockRow| match block.generation {
            Some(number) => hierarchy
                .upwards(issuer)
                .any(|it| it.number == number && it.authority == block.name),
            None => access.iter().any(|it| {
                let groups = [
                    Some(&it.name).filter(|_| it.kind == "group"),
                    it.overlay_of.as_ref(),
                ];
                let mut groups = groups.into_iter().flatten();
                groups.any(|group| group.eq_ignore_ascii_case(&block.name))
            }),
        };
        self.blocks.iter().find(concerns)
    }
}
