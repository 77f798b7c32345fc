//! Counts what a monitoring system reads at each scrape and no other part of the daemon needs.

use super::engine::params;
use super::{Store, StoreError};

/// Counts for monitoring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitored {
    /// The rolls that have not ended, by state.
    pub rolls: Vec<(String, i64)>,
    /// Enrollments that another program has changed.
    pub drifted_enrollments: i64,
    /// CA certificates that another program has changed.
    pub drifted_ca_certificates: i64,
    /// Entries of the audit journal.
    pub audit_entries: i64,
}

impl Store {
    /// Reads the counts, each from an index.
    pub fn monitored(&self) -> Result<Monitored, StoreError> {
        self.read(|tx| {
            let rolls = tx.query_all(
                "SELECT state, count(*) FROM roll WHERE state NOT IN ('done', 'aborted')
                 GROUP BY state",
                params![],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            tx.query_one(
                "SELECT (SELECT count(*) FROM enrollment WHERE drift IS NOT NULL),
                 (SELECT count(*) FROM ca_certificate WHERE drift IS NOT NULL),
                 (SELECT coalesce(max(sequence), 0) FROM audit)",
                params![],
                |row| {
                    Ok(Monitored {
                        rolls,
                        drifted_enrollments: row.get(0)?,
                        drifted_ca_certificates: row.get(1)?,
                        audit_entries: row.get(2)?,
                    })
                },
            )
        })
    }
}
