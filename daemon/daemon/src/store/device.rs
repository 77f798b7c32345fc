//! Finds registered devices with their profile and current leaf.

use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds};
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::GenerationId;
use crate::x509::revocation::RevocationReason;

/// A registered device.
#[derive(Clone, Debug)]
pub struct DeviceRow {
    /// The registration id in the spelling on record.
    pub registration_id: String,
    /// The profile of its current leaf.
    pub profile: String,
    /// SHA-256 of its current leaf.
    pub certificate: Thumbprint,
    /// The serial number of its current leaf, upper hex.
    pub serial: String,
    /// The end of its current leaf.
    pub not_after: UnixSeconds,
    /// The issuer of its current leaf.
    pub issuer: GenerationId,
    /// When and why its current leaf was revoked or put on hold.
    pub revoked: Option<(UnixSeconds, RevocationReason)>,
    /// When its first leaf was issued.
    pub created_at: UnixSeconds,
}

const SELECT_DEVICE: &str = "SELECT d.registration_id, d.profile, c.sha256, i.serial, i.not_after, \
     d.created_at, i.issuer, c.revoked_at, c.revocation_reason FROM device d \
     JOIN certificate c ON c.intent = d.certificate JOIN intent i ON i.id = d.certificate";

impl Store {
    /// Returns the devices after registration id `after`, at most `limit`.
    pub fn devices(&self, after: &str, limit: u32) -> Result<Vec<DeviceRow>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT_DEVICE} WHERE d.registration_id > ?1 ORDER BY d.registration_id LIMIT ?2"
            );
            tx.query_all(&select, params![after, limit], device_from_row)
        })
    }

    /// Returns one device.
    pub fn device(&self, registration_id: &str) -> Result<Option<DeviceRow>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT_DEVICE} WHERE d.registration_id = ?1");
            tx.query_optional(&select, params![registration_id], device_from_row)
        })
    }

    /// Returns the profiles with which devices are registered. Reads one row per profile, not per
    /// device.
    pub fn registered_profiles(&self) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "WITH RECURSIVE registered (profile) AS (
                     SELECT min(profile) FROM device
                     UNION ALL
                     SELECT (SELECT min(profile) FROM device WHERE profile > registered.profile)
                     FROM registered WHERE profile IS NOT NULL)
                 SELECT profile FROM registered WHERE profile IS NOT NULL",
                params![],
                |row| row.get(0),
            )
        })
    }

    /// Returns how many devices are registered with this profile.
    pub fn registered_count(&self, profile: &str) -> Result<i64, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT count(*) FROM device WHERE profile = ?1",
                params![profile],
                |row| row.get(0),
            )
        })
    }
}

/// Returns slots that serve a device's current leaf; empty slots if it has none.
pub(super) fn current_leaf(tx: &Tx<'_>, registration_id: &str) -> Result<Slots, StoreError> {
    let leaf: Option<[u8; 32]> = tx.query_optional(
        "SELECT c.sha256 FROM device d JOIN certificate c ON c.intent = d.certificate
         WHERE d.registration_id = ?1",
        params![registration_id],
        |row| row.get(0),
    )?;
    match leaf {
        Some(leaf) => Slots::Empty
            .serve(Thumbprint::from_bytes(leaf))
            .map_err(|refusal| StoreError::Conflict(refusal.to_string())),
        None => Ok(Slots::Empty),
    }
}

fn device_from_row(row: &Row<'_>) -> Result<DeviceRow, StoreError> {
    // A date without a reason is unreadable, never good.
    let revoked = match row.get::<Option<UnixSeconds>>(7)? {
        Some(since) => Some((since, row.get(8)?)),
        None => None,
    };
    Ok(DeviceRow {
        registration_id: row.get(0)?,
        profile: row.get(1)?,
        certificate: Thumbprint::from_bytes(row.get::<[u8; 32]>(2)?),
        serial: hex::encode_upper(row.get::<Vec<u8>>(3)?),
        not_after: row.get(4)?,
        created_at: row.get(5)?,
        issuer: row.get(6)?,
        revoked,
    })
}
