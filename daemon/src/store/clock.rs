//! Which dates on record the machine's clock is held against.

use super::audit::{self, AuditEntry};
use super::{Store, StoreError};
use rusqlite::params;

/// A bound on what is read: dates rise with row ids, but for corrections of a minute.
const LAST: &str = "ORDER BY 1 DESC LIMIT 64";

impl Store {
    /// The newest date of a certificate or revocation list, in Unix seconds, since an operator has
    /// vouched for the clock.
    pub fn newest_date(&self) -> Result<Option<i64>, StoreError> {
        self.read(|connection| {
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
            Ok(connection.query_row(&sql, [], |row| row.get(0))?)
        })
    }

    /// From now on the clock is held against nothing that is on record by now.
    pub fn accept_clock(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection.execute(
                "INSERT INTO accepted_clock (only, at, intent, crl)
                 VALUES (1, ?1, coalesce((SELECT max(id) FROM intent), 0),
                         coalesce((SELECT max(id) FROM crl), 0))
                 ON CONFLICT (only) DO UPDATE
                 SET at = excluded.at, intent = excluded.intent, crl = excluded.crl",
                params![entry.at],
            )?;
            audit::append(connection, &entry)
        })
    }
}
