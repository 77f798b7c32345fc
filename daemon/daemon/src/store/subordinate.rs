//! Finds the certificates of authorities elsewhere. They are few, and have an index of their own.

use super::certificate::{CertificateRow, SELECT, from_row};
use super::engine::dialect::values_of_1;
use super::engine::params;
use super::fleet_queries::{count, list};
use super::{Store, StoreError, UnixSeconds};
use crate::ids::GenerationId;

/// The certificates that end at `?1` or later, newest first.
pub(super) const LIVING: &str = "WHERE i.purpose = 'subordinate' AND i.not_after >= ?1
     ORDER BY i.not_before DESC, i.id DESC";

/// Counts those by the generations `?1` that end at `?2` or later and are not revoked.
pub(super) const VALID: &str = concat!(
    "SELECT count(*) FROM intent i JOIN certificate c ON c.intent = i.id
     WHERE i.purpose = 'subordinate' AND i.not_after >= ?2 AND c.revoked_at IS NULL
       AND i.issuer IN ",
    values_of_1!()
);

impl Store {
    /// Returns the subordinate certificates that end at `since` or later, newest first.
    pub fn subordinates(&self, since: UnixSeconds) -> Result<Vec<CertificateRow>, StoreError> {
        self.read(|tx| tx.query_all(&format!("{SELECT} {LIVING}"), params![since], from_row))
    }

    /// Returns the subordinate certificates that were valid when the one with this SHA-256 was
    /// recorded, newest first. A hold that was lifted since is not seen.
    pub fn subordinates_before(
        &self,
        sha256: &[u8; 32],
    ) -> Result<Vec<CertificateRow>, StoreError> {
        let before =
            "JOIN intent its ON its.id = (SELECT intent FROM certificate WHERE sha256 = ?1)
             WHERE i.purpose = 'subordinate' AND i.id < its.id AND i.not_after >= its.recorded_at
               AND (c.revoked_at IS NULL OR c.revoked_at >= its.recorded_at)
             ORDER BY i.not_before DESC, i.id DESC";
        self.read(|tx| tx.query_all(&format!("{SELECT} {before}"), params![sha256], from_row))
    }

    /// Counts the subordinate certificates by these generations that have neither ended nor been
    /// revoked. The devices below them need these generations.
    pub fn count_subordinates(
        &self,
        generations: &[GenerationId],
        now: UnixSeconds,
    ) -> Result<u64, StoreError> {
        self.read(|tx| count(tx, VALID, params![list(generations), now]))
    }

    /// Returns true if the certificate with this SHA-256 is that of an authority elsewhere.
    pub fn is_subordinate(&self, sha256: &[u8; 32]) -> Result<bool, StoreError> {
        self.read(|tx| {
            let sql = "SELECT EXISTS (SELECT 1 FROM certificate c JOIN intent i ON i.id = c.intent
                       WHERE c.sha256 = ?1 AND i.purpose = 'subordinate')";
            tx.query_one(sql, params![sha256], |row| row.get(0))
        })
    }
}
