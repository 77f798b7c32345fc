//! Records who revoked a certificate, held it or lifted a hold, and finds the lists that say so.
//!
//! The audit journal has the same facts, and no index by certificate. A list has every change that
//! `generation.revocations` had counted when its entries were read.

use super::engine::{Row, Tx, params};
use super::revocation::Revocation;
use super::{Store, StoreError, UnixSeconds};
use crate::crl_number::CrlNumber;
use crate::ids::{GenerationId, IntentId};
use crate::x509::crl_partition::part_of;
use crate::x509::revocation::RevocationReason;

/// The most events of one certificate that are shown.
const SHOWN_MAX: u32 = 20;

/// A change of a certificate's revocation.
#[derive(Clone, Debug)]
pub struct RevocationEvent {
    pub at: UnixSeconds,
    pub actor: String,
    /// The new reason; `None` if a hold was lifted.
    pub reason: Option<RevocationReason>,
    pub cause: String,
    /// The first and the last signed list with the entry; `None` if there is none.
    pub lists: Option<(CrlNumber, CrlNumber)>,
}

impl Store {
    /// Returns the changes of a certificate's revocation, the newest first.
    pub fn revocation_events(
        &self,
        certificate: IntentId,
    ) -> Result<Vec<RevocationEvent>, StoreError> {
        self.read(|tx| events(tx, certificate))
    }

    /// Returns the same for the certificate with this SHA-256.
    pub fn revocation_events_of(
        &self,
        sha256: &[u8; 32],
    ) -> Result<Vec<RevocationEvent>, StoreError> {
        let sql = "SELECT intent FROM certificate WHERE sha256 = ?1";
        let found = self.read(|tx| tx.query_optional(sql, params![sha256], |row| row.get(0)))?;
        found.map_or(Ok(Vec::new()), |it| self.revocation_events(it))
    }
}

/// Records a change that `change` has made within the same transaction.
pub(super) fn record(
    tx: &Tx<'_>,
    certificate: IntentId,
    revocation: &Revocation,
    reason: Option<RevocationReason>,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO revocation_event
             (certificate, at, actor, reason, cause, revocations, issuer, ends_at)
         SELECT ?1, ?2, ?3, ?4, ?5, g.revocations, i.issuer, max(i.not_after, ?2)
         FROM intent i JOIN generation g ON g.id = i.issuer WHERE i.id = ?1",
        params![
            certificate,
            revocation.at,
            revocation.actor,
            reason.map(RevocationReason::code),
            revocation.cause
        ],
    )?;
    Ok(())
}

/// An event with its generation, and the range of `generation.revocations` in which it counts.
struct Counted {
    event: RevocationEvent,
    generation: GenerationId,
    /// Which partition of the generation's list has it.
    part: u16,
    from: i64,
    until: Option<i64>,
    /// An entry stays until it was on a list that was made after this.
    listed_until: UnixSeconds,
}

fn events(tx: &Tx<'_>, certificate: IntentId) -> Result<Vec<RevocationEvent>, StoreError> {
    let found = tx.query_all(
        "SELECT e.at, e.actor, e.reason, e.cause, i.issuer, e.revocations,
                (SELECT min(n.revocations) FROM revocation_event n
                 WHERE n.certificate = e.certificate AND n.id > e.id),
                max(i.not_after, coalesce(c.revoked_at, 0)), i.serial, g.crl_parts
         FROM revocation_event e JOIN intent i ON i.id = e.certificate
         JOIN certificate c ON c.intent = e.certificate JOIN generation g ON g.id = i.issuer
         WHERE e.certificate = ?1 ORDER BY e.id DESC LIMIT ?2",
        params![certificate, SHOWN_MAX],
        from_row,
    )?;
    let with_lists = |it: Counted| {
        let lists = match it.event.reason {
            Some(_) => lists(tx, &it)?,
            None => None,
        };
        Ok(RevocationEvent { lists, ..it.event })
    };
    found.into_iter().map(with_lists).collect()
}

fn lists(tx: &Tx<'_>, it: &Counted) -> Result<Option<(CrlNumber, CrlNumber)>, StoreError> {
    let list = |order: &str, kinds: &str| -> Result<Option<CrlNumber>, StoreError> {
        let sql = format!(
            "SELECT s.number FROM signed_crl s
             WHERE s.generation = ?1 AND s.part = ?5 AND s.revocations >= ?2
               AND s.is_delta IN {kinds} AND (?3 IS NULL OR s.revocations < ?3)
               AND coalesce((SELECT p.this_update FROM signed_crl p
                             WHERE p.generation = s.generation AND p.part = s.part
                               AND p.is_delta = 0 AND p.number < s.number
                             ORDER BY p.number DESC LIMIT 1), 0) <= ?4
             ORDER BY s.number {order} LIMIT 1"
        );
        let values = params![it.generation, it.from, it.until, it.listed_until, it.part];
        tx.query_optional(&sql, values, |row| row.get(0))
    };
    // A change is on a delta list first. Once a complete list has it, delta lists do not repeat it.
    let last = list("DESC", "(0)")?;
    let last = last.map_or_else(|| list("DESC", "(1)"), |it| Ok(Some(it)))?;
    Ok(list("ASC", "(0, 1)")?.zip(last))
}

fn from_row(row: &Row<'_>) -> Result<Counted, StoreError> {
    Ok(Counted {
        event: RevocationEvent {
            at: row.get(0)?,
            actor: row.get(1)?,
            reason: row.get(2)?,
            cause: row.get(3)?,
            lists: None,
        },
        generation: row.get(4)?,
        from: row.get(5)?,
        until: row.get(6)?,
        listed_until: row.get(7)?,
        part: part_of(row.get(9)?, &row.get::<Vec<u8>>(8)?),
    })
}
