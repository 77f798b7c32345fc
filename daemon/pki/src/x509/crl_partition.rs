//! Splits the revocation list of a generation into partitions by serial number (RFC 5280 5.2.5).

use super::serial::SerialNumber;
use serde::{Deserialize, Serialize};

/// The most partitions: one for each last octet of a serial number.
pub const PARTITIONS_MAX: u16 = 256;

/// The partitions of a generation's list. Certificates name the one that covers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrlPartitions {
    /// A power of two, so that random serial numbers fill all alike.
    pub count: u16,
    /// The address of each, up to the number of the partition.
    pub address: String,
}

impl CrlPartitions {
    /// Returns the partition with a serial number, counted from 1.
    pub fn part_of(&self, serial: &SerialNumber) -> u16 {
        part_of(self.count, serial.as_bytes())
    }

    /// Returns the address of the list with a serial number.
    pub fn url_of(&self, serial: &SerialNumber) -> String {
        self.url(self.part_of(serial))
    }

    /// Returns the address of a partition's list.
    pub fn url(&self, part: u16) -> String {
        format!("{}.{}.crl", self.address, partition_name(part, self.count))
    }
}

/// Returns the name of a partition in the name of its list's file.
pub fn partition_name(part: u16, count: u16) -> String {
    format!("{part}of{count}")
}

/// Returns which of `count` partitions has the serial number with these octets, counted from 1.
pub fn part_of(count: u16, serial: &[u8]) -> u16 {
    let last = serial.last().copied().unwrap_or(0);
    u16::from(last) % count.max(1) + 1
}

/// Returns true if a list can be split into so many partitions.
pub fn is_count(count: u16) -> bool {
    count.is_power_of_two() && count <= PARTITIONS_MAX
}
