//! Finds the newest recorded date, with which the machine's clock is compared.

use super::audit::{self, AuditEntry};
use super::engine::params;
use super::{Store, StoreError};
use crate::unix_seconds::UnixSeconds;

/// Bounds what is read: dates rise with row ids, except for clock corrections of a minute.
const LAST: &str = "ORDER BY 1 DESC LIMIT 64";

impl Store {
    /// Returns the newest date of a certificate or revocation list since an operator has accepted
    /// the clock.
    pub fn newest_date(&self) -> Result<Option<UnixSeconds>, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "WITH accepted AS (
                     SELECT coalesce(max(intent), 0) AS intent, coalesce(max(crl), 0) AS crl
                     FROM accepted_clock
                 )
                 SELECT max(at) FROM (
                     SELECT at FROM accepted_clock
                     UNION ALL
                     SELECT max(issued_at) FROM (
                         SELECT intent, issued_at FROM certificate
                         WHERE intent > (SELECT intent FROM accepted) {LAST})
                     UNION ALL
                     SELECT max(this_update) FROM (
                         SELECT id, this_update FROM crl
                         WHERE id > (SELECT crl FROM accepted) {LAST})
                 )"
            );
            tx.query_one(&sql, params![], |row| row.get(0))
        })
    }

    /// Accepts the clock: rows that are on record now are compared with it no more.
    pub fn accept_clock(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO accepted_clock (only, at, intent, crl)
                 VALUES (1, ?1, coalesce((SELECT max(id) FROM intent), 0),
                         coalesce((SELECT max(id) FROM crl), 0))
                 ON CONFLICT (only) DO UPDATE
                 SET at = excluded.at, intent = excluded.intent, crl = excluded.crl",
                params![entry.at],
            )?;
            audit::append(tx, &entry)
        })
    }
}
