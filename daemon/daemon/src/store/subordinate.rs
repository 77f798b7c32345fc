//! Finds the certificates of authorities elsewhere. They are few, and have an index of their own.

use super::certificate::{CertificateRow, SELECT, from_row};
use super::engine::params;
use super::{Store, StoreError, UnixSeconds};

/// The certificates that end at `?1` or later, newest first.
pub(super) const LIVING: &str = "WHERE i.purpose = 'subordinate' AND i.not_after >= ?1
     ORDER BY i.not_before DESC, i.id DESC";

impl Store {
    /// Returns the subordinate certificates that end at `since` or later, newest first.
    pub fn subordinates(&self, since: UnixSeconds) -> Result<Vec<CertificateRow>, StoreError> {
        self.read(|tx| tx.query_all(&format!("{SELECT} {LIVING}"), params![since], from_row))
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
