//! Revokes certificates of an adopted authority that are known by their serial number alone: from
//! its index or its last list, without their files.

use super::audit::{self, AuditEntry};
use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds, crl};
use crate::ids::GenerationId;
use crate::x509::revocation::RevocationReason;
use serde_json::json;

/// A certificate without its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerSerial {
    pub generation: GenerationId,
    pub serial: Vec<u8>,
    /// The subject as its index has it. An entry of a list has none.
    pub subject: Option<String>,
    pub not_after: Option<UnixSeconds>,
    /// When and why it was revoked; `None` while it is good.
    pub revoked: Option<(UnixSeconds, RevocationReason)>,
}

/// An operator's revocation of one of them.
#[derive(Clone, Debug)]
pub struct FormerRevocation {
    pub generation: GenerationId,
    pub serial: Vec<u8>,
    pub reason: RevocationReason,
    pub at: UnixSeconds,
    /// The actor in the audit journal.
    pub actor: String,
    /// The cause in the audit journal.
    pub cause: String,
}

impl Store {
    /// Returns those with this serial number, by `authority` if it is named.
    pub fn former_serials(
        &self,
        serial: &[u8],
        authority: Option<&str>,
    ) -> Result<Vec<FormerSerial>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT} WHERE serial = ?2 AND {OF_AUTHORITY}");
            tx.query_all(&select, params![authority, serial], from_row)
        })
    }

    /// Returns those with this subject in any spelling, by `authority` if it is named.
    pub fn former_subjects(
        &self,
        subject: &str,
        authority: Option<&str>,
    ) -> Result<Vec<FormerSerial>, StoreError> {
        self.read(|tx| {
            let select = format!(
                "{SELECT} INDEXED BY former_certificate_subject
                 WHERE subject = ?2 COLLATE NOCASE AND {OF_AUTHORITY}"
            );
            tx.query_all(&select, params![authority, subject], from_row)
        })
    }

    /// Revokes one, and returns its new state and whether that has changed. A repeat keeps the
    /// date, and the reason unless that is a hold which is made final.
    pub fn revoke_former(
        &self,
        revocation: FormerRevocation,
    ) -> Result<(FormerSerial, bool), StoreError> {
        self.write(move |tx| revoke(tx, &revocation))
    }

    /// Lifts the hold of one, and returns its new state and whether that has changed. The reason of
    /// `release` has no effect.
    pub fn release_former(
        &self,
        release: FormerRevocation,
    ) -> Result<(FormerSerial, bool), StoreError> {
        self.write(move |tx| {
            let found = find(tx, &release)?;
            match found.revoked {
                Some((_, reason)) if !reason.is_final() => change(tx, &release, found, None),
                _ => Ok((found, false)),
            }
        })
    }
}

const SELECT: &str = "SELECT generation, serial, subject, not_after, revoked_at, \
     revocation_reason FROM former_certificate";

/// Read through the primary key: one place for each generation.
const OF_AUTHORITY: &str =
    "generation IN (SELECT id FROM generation WHERE ?1 IS NULL OR authority = ?1)";

fn revoke(tx: &Tx<'_>, revocation: &FormerRevocation) -> Result<(FormerSerial, bool), StoreError> {
    let reason = revocation.reason;
    let found = find(tx, revocation)?;
    let since = match found.revoked {
        None => revocation.at,
        Some((since, before)) if !before.is_final() && reason.is_final() => since,
        Some(_) => return Ok((found, false)),
    };
    change(tx, revocation, found, Some((since, reason)))
}

fn find(tx: &Tx<'_>, of: &FormerRevocation) -> Result<FormerSerial, StoreError> {
    let select = format!("{SELECT} WHERE generation = ?1 AND serial = ?2");
    let found = tx.query_optional(&select, params![of.generation, of.serial], from_row)?;
    let digits = hex::encode_upper(&of.serial);
    found.ok_or_else(|| StoreError::Missing(format!("serial number {digits}")))
}

fn change(
    tx: &Tx<'_>,
    change: &FormerRevocation,
    found: FormerSerial,
    revoked: Option<(UnixSeconds, RevocationReason)>,
) -> Result<(FormerSerial, bool), StoreError> {
    tx.execute(
        "UPDATE former_certificate SET revoked_at = ?3, revocation_reason = ?4,
             released_at = iif(?3 IS NULL, ?5, released_at)
         WHERE generation = ?1 AND serial = ?2",
        params![
            change.generation,
            change.serial,
            revoked.map(|(since, _)| since),
            revoked.map(|(_, reason)| reason.code()),
            change.at,
        ],
    )?;
    // Serial numbers have no trigger that counts them.
    crl::count_change(tx, change.generation)?;
    let digits = hex::encode_upper(&change.serial);
    let reason = revoked.or(found.revoked).map(|(_, reason)| reason.name());
    let entry = AuditEntry {
        at: change.at,
        actor: change.actor.clone(),
        action: match revoked {
            Some(_) => "certificate.revoked",
            None => "certificate.unrevoked",
        },
        subject: found.subject.clone().unwrap_or_else(|| digits.clone()),
        detail: json!({ "serial": digits, "reason": reason, "cause": change.cause }),
    };
    audit::append(tx, &entry)?;
    Ok((FormerSerial { revoked, ..found }, true))
}

fn from_row(row: &Row<'_>) -> Result<FormerSerial, StoreError> {
    let revoked = match row.get::<Option<UnixSeconds>>(4)? {
        Some(since) => Some((since, row.get(5)?)),
        None => None,
    };
    Ok(FormerSerial {
        generation: row.get(0)?,
        serial: row.get(1)?,
        subject: row.get(2)?,
        not_after: row.get(3)?,
        revoked,
    })
}
