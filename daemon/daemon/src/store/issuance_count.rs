//! Counts intents and certificates without reading all of them each time.

use super::engine::params;
use super::{Store, StoreError};
use std::sync::PoisonError;

impl Store {
    /// Returns how many intents are open, certificates issued and intents abandoned. Does not count
    /// a certificate again once no intent before it is open: none is ever deleted.
    pub fn issuance_counts(&self) -> Result<(i64, i64, i64), StoreError> {
        let (settled, under_way, abandoned) = self.read(|tx| {
            tx.query_one(
                "SELECT coalesce((SELECT min(intent) - 1 FROM open_intent),
                          (SELECT max(id) FROM intent), 0),
                 (SELECT count(*) FROM open_intent),
                 (SELECT count(*) FROM intent WHERE ended = 'abandoned')",
                params![],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
        })?;
        Ok((under_way, self.certificate_count(settled)?, abandoned))
    }

    /// Counts the certificates. No intent up to `settled` is open.
    fn certificate_count(&self, settled: i64) -> Result<i64, StoreError> {
        let counted = self.certificates_counted.lock();
        let mut counted = counted.unwrap_or_else(PoisonError::into_inner);
        // Nothing is recorded between the two counts of one statement. Without a condition SQLite
        // reads an index, which is shorter than the table.
        let sql = match counted.up_to {
            0 => {
                "SELECT (SELECT count(*) FROM certificate),
                 (SELECT count(*) FROM certificate WHERE intent > ?2), ?1"
            }
            _ => {
                "SELECT (SELECT count(*) FROM certificate WHERE intent > ?1),
                 (SELECT count(*) FROM certificate WHERE intent > ?2), ?1"
            }
        };
        let (more, open): (i64, i64) = self.read(|tx| {
            let bounds = params![counted.up_to, settled];
            tx.query_one(sql, bounds, |row| Ok((row.get(0)?, row.get(1)?)))
        })?;
        let certificates = counted.certificates + more;
        if settled > counted.up_to {
            counted.up_to = settled;
            counted.certificates = certificates - open;
        }
        Ok(certificates)
    }
}

/// The number of certificates whose intents are up to `up_to`, none of which is open.
#[derive(Debug, Default)]
pub(super) struct CertificatesCounted {
    up_to: i64,
    certificates: i64,
}
