//! Makes parked marks due again for an operator who has removed the cause, and has what another
//! program has changed observed again. An enrollment that a restore has made doubtful is written
//! again only if the operator names it: it may admit what was excluded in the lost period.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::json::to_json;
use super::mark::{self, MarkSubject};
use super::possession::by_id;
use super::{Store, StoreError, UnixSeconds};
use crate::ids::CaCertificateId;

impl Store {
    /// Makes waiting and parked marks due now, and marks what has drifted: all, or those of one
    /// enrollment or CA certificate name. A parked proof of possession starts again. So does that
    /// of a drifted CA certificate which is named, and a deleted one that is there again is
    /// deleted: the operator wants that, whatever policy says about drift. Of what is named, the
    /// record counts again as before a restore. Returns how many marks.
    pub fn retry_marks(
        &self,
        name: Option<String>,
        entry: AuditEntry,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| {
            restart_parked(tx, name.as_deref())?;
            mark_drifted(tx, name.as_deref(), None, entry.at)?;
            for sql in [
                "UPDATE ca_certificate SET drift = NULL WHERE removed = 1 AND name = ?1",
                "UPDATE ca_certificate SET restored = 0 WHERE name = ?1",
                "UPDATE enrollment SET restored = 0 WHERE name = ?1",
            ] {
                tx.execute(sql, params![name])?;
            }
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

    /// Marks what has drifted at a service, because policy repairs it from now on. Returns how many
    /// were marked.
    pub fn mark_drifted(&self, provisioning: String, at: UnixSeconds) -> Result<usize, StoreError> {
        self.write(move |tx| mark_drifted(tx, None, Some(&provisioning), at))
    }
}

/// Marks drifted enrollments and CA certificates: all, those of this name, or those of this
/// service.
fn mark_drifted(
    tx: &Tx<'_>,
    name: Option<&str>,
    provisioning: Option<&str>,
    at: UnixSeconds,
) -> Result<usize, StoreError> {
    let mut drifted = Vec::new();
    for table in ["enrollment", "ca_certificate"] {
        let sql = format!(
            "SELECT id FROM {table} s WHERE drift IS NOT NULL
                 AND (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR provisioning = ?2)
                 AND NOT EXISTS (SELECT 1 FROM mark WHERE {table} = s.id)"
        );
        let subjects: Vec<MarkSubject> =
            tx.query_all(&sql, params![name, provisioning], |row| {
                Ok(match table {
                    "enrollment" => MarkSubject::Enrollment(row.get(0)?),
                    _ => MarkSubject::CaCertificate(row.get(0)?),
                })
            })?;
        drifted.extend(subjects);
    }
    for subject in &drifted {
        mark::raise(tx, *subject, "changed by another program", at)?;
    }
    Ok(drifted.len())
}

/// Restarts parked proofs of possession: all, or those of this name, also where it has drifted.
fn restart_parked(tx: &Tx<'_>, name: Option<&str>) -> Result<(), StoreError> {
    let parked: Vec<CaCertificateId> = tx.query_all(
        "SELECT a.id FROM ca_certificate a LEFT JOIN mark m ON m.ca_certificate = a.id
         WHERE a.removed = 0 AND (m.parked = 1 AND (?1 IS NULL OR a.name = ?1)
            OR a.drift IS NOT NULL AND a.name = ?1)",
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
