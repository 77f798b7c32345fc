//! Forgets what no question of the product needs any more about revocations: who revoked a
//! certificate that ended long ago, and which lists were signed before any change that is still
//! shown. The audit journal keeps all of it.

use super::audit::{self, AuditEntry};
use super::engine::params;
use super::{Store, StoreError, UnixSeconds};
use serde_json::json;

/// How many rows one call has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForgottenRevocations {
    /// Changes of the revocation of a certificate.
    pub changes: usize,
    /// Records of signed lists.
    pub lists: usize,
}

/// Changes of certificates that ended before `?1`.
const CHANGES: &str = "DELETE FROM revocation_event WHERE id IN (
     SELECT id FROM revocation_event WHERE ends_at < ?1 ORDER BY ends_at LIMIT ?2)";

/// Lists that were signed before `?1`, and before the oldest change that is left of their
/// generation, except the last complete one of that time: the first list with a change is found by
/// the one before it.
const LISTS: &str = "DELETE FROM signed_crl WHERE (generation, part, number) IN (
     SELECT s.generation, s.part, s.number FROM signed_crl s
     JOIN signed_crl newer ON newer.generation = s.generation AND newer.part = s.part
         AND newer.number = (SELECT max(n.number) FROM signed_crl n
             WHERE n.generation = s.generation AND n.part = s.part AND n.is_delta = 0
               AND n.this_update < ?1 AND n.this_update < coalesce((
                   SELECT min(e.at) FROM revocation_event e WHERE e.issuer = n.generation), ?1))
     WHERE s.number < newer.number LIMIT ?2)";

impl Store {
    /// Deletes at most `limit` rows of each kind that are older than `before`, with an entry that
    /// counts them. Returns how many; all are gone when both are fewer than `limit`.
    pub fn forget_revocations(
        &self,
        before: UnixSeconds,
        limit: u32,
        mut entry: AuditEntry,
    ) -> Result<ForgottenRevocations, StoreError> {
        self.write(move |tx| {
            let changes = tx.execute(CHANGES, params![before, limit])?;
            let lists = tx.execute(LISTS, params![before, limit])?;
            if changes + lists > 0 {
                entry.detail["changes"] = json!(changes);
                entry.detail["lists"] = json!(lists);
                audit::append(tx, &entry)?;
            }
            Ok(ForgottenRevocations { changes, lists })
        })
    }
}
