//! Counts the certificates that were issued since a moment, without an index on their time.
//!
//! Intents are recorded in the order of their numbers, so the first one since a moment is found by
//! halving. After the clock was set back the count may lack certificates, until the times before
//! that are older than the moment.

use super::engine::{Tx, params};
use super::{Store, StoreError, UnixSeconds};

impl Store {
    /// Counts the certificates issued since `moment`. Reads as many rows as it counts.
    pub fn issued_since(&self, moment: UnixSeconds) -> Result<i64, StoreError> {
        self.read(|tx| {
            let first = first_since(tx, moment)?;
            // An import records certificates that were issued long before.
            tx.query_one(
                "SELECT count(*) FROM certificate WHERE intent >= ?1 AND issued_at >= ?2",
                params![first, moment],
                |row| row.get(0),
            )
        })
    }
}

/// Returns the number of the first intent that was recorded since `moment`, or the next free one.
fn first_since(tx: &Tx<'_>, moment: UnixSeconds) -> Result<i64, StoreError> {
    let last: i64 = tx.query_one(
        "SELECT coalesce(max(id), 0) FROM intent",
        params![],
        |row| row.get(0),
    )?;
    let mut before = 0;
    let mut since = last + 1;
    while before + 1 < since {
        let middle = i64::midpoint(before, since);
        let recorded: UnixSeconds = tx.query_one(
            "SELECT recorded_at FROM intent WHERE id >= ?1 ORDER BY id LIMIT 1",
            params![middle],
            |row| row.get(0),
        )?;
        if recorded >= moment {
            since = middle;
        } else {
            before = middle;
        }
    }
    Ok(since)
}
