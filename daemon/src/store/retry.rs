//! Makes parked marks due again for an operator who has removed the cause.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::json::to_json;
use super::possession::by_id;
use super::{Store, StoreError};
use crate::ids::CaCertificateId;

impl Store {
    /// Makes waiting and parked marks due now: all, or those of one enrollment or CA certificate
    /// name. A parked proof of possession starts again. Returns how many marks.
    pub fn retry_marks(
        &self,
        name: Option<String>,
        entry: AuditEntry,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| {
            restart_parked(tx, name.as_deref())?;
            let changed = tx.execute(
                "UPDATE mark SET parked = 0, due_at = ?2, attempts = 0
                 WHERE ?1 IS NULL
                    OR enrollment IN (SELECT id FROM enrollment WHERE name = ?1)
                    OR ca_certificate IN (SELECT id FROM ca_certificate WHERE name = ?1)",
                params![name, entry.at],
            )?;
            audit::append(tx, &entry)?;
            Ok(changed)
        })
    }
}

/// Restarts parked proofs of possession: all, or those of this name.
fn restart_parked(tx: &Tx<'_>, name: Option<&str>) -> Result<(), StoreError> {
    let parked: Vec<CaCertificateId> = tx.query_all(
        "SELECT a.id FROM ca_certificate a JOIN mark m ON m.ca_certificate = a.id
         WHERE m.parked = 1 AND (?1 IS NULL OR a.name = ?1)",
        params![name],
        |row| row.get(0),
    )?;
    for id in parked {
        let proof = by_id(tx, id)?.proof.restart();
        tx.execute(
            "UPDATE ca_certificate SET proof = ?2 WHERE id = ?1",
            params![id, to_json(&proof)?],
        )?;
    }
    Ok(())
}
