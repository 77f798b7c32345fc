//! Proofs: by which leaf each hub knows a device, and since when.
//!
//! Seen, never concluded: a device is on its new leaf when its hub identity carries that leaf's
//! thumbprint, and not before. One row per service and device, with the last look.

use super::{Store, StoreError};
use crate::enrollment::thumbprint::Thumbprint;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// What a look at a device in its hub has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The provisioning service.
    pub provisioning: String,
    /// The device.
    pub device: String,
    /// The leaf by which the hub knows it; `None` if the hub has no such identity.
    pub certificate: Option<Thumbprint>,
    /// The status of its registration record, as `assigned`.
    pub registration: Option<String>,
    /// Unix seconds since when it looks so.
    pub since: i64,
    /// Unix seconds of the last look.
    pub seen_at: i64,
}

impl Store {
    /// Keeps what a look has shown.
    pub fn record_proof(&self, proof: Proof) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO proof (provisioning, device, certificate, registration, since,
                         seen_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (provisioning, device) DO UPDATE SET
                         since = CASE WHEN certificate IS excluded.certificate THEN since
                                      ELSE excluded.since END,
                         certificate = excluded.certificate,
                         registration = excluded.registration, seen_at = excluded.seen_at",
                )?
                .execute(params![
                    proof.provisioning,
                    proof.device,
                    proof.certificate.as_ref().map(Thumbprint::as_bytes),
                    proof.registration,
                    proof.since,
                    proof.seen_at
                ])?;
            Ok(())
        })
    }

    /// What the last look at a device has shown.
    pub fn proof(&self, provisioning: &str, device: &str) -> Result<Option<Proof>, StoreError> {
        self.read(|connection| proof(connection, provisioning, device))
    }

    /// Devices whose leaf is being rolled at this service and that were not looked at since
    /// `before` (Unix seconds), those that wait longest first, at most `limit`.
    pub fn devices_to_prove(
        &self,
        provisioning: &str,
        before: i64,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT e.name FROM roll r JOIN enrollment e ON e.id = r.enrollment
                 LEFT JOIN proof p ON p.provisioning = e.provisioning AND p.device = e.name
                 WHERE r.state NOT IN ('done', 'aborted') AND e.provisioning = ?1
                   AND coalesce(p.seen_at, 0) <= ?2
                 ORDER BY coalesce(p.seen_at, 0) LIMIT ?3",
            )?;
            let devices =
                statement.query_map(params![provisioning, before, limit], |row| row.get(0))?;
            Ok(devices.collect::<Result<_, _>>()?)
        })
    }
}

fn proof(
    connection: &Connection,
    provisioning: &str,
    device: &str,
) -> Result<Option<Proof>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT provisioning, device, certificate, registration, since, seen_at FROM proof
             WHERE provisioning = ?1 AND device = ?2",
        )?
        .query_row([provisioning, device], from_row)
        .optional()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Proof> {
    Ok(Proof {
        provisioning: row.get(0)?,
        device: row.get(1)?,
        certificate: row
            .get::<_, Option<[u8; 32]>>(2)?
            .map(Thumbprint::from_bytes),
        registration: row.get(3)?,
        since: row.get(4)?,
        seen_at: row.get(5)?,
    })
}
