//! Client certificates: what is on record of one, and what excludes its holder.
//!
//! A certificate is excluded by its own revocation, and by that of any generation above it. The
//! same rules stand here for a new request and for one that is in work.

use super::certificate::{CertificateRow, SELECT, from_row};
use super::engine::{Tx, params};
use super::intent::Requester;
use super::{Store, StoreError};
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, GenerationNumber};

/// The generations from `?1` upwards. Row ids of issuers are lower than those of what they sign.
const UPWARDS: &str = "WITH RECURSIVE above (id) AS (
     SELECT ?1 UNION SELECT g.parent FROM generation g JOIN above a ON g.id = a.id
     WHERE g.parent IS NOT NULL)";

/// A client certificate on record.
#[derive(Clone, Debug)]
pub struct ClientRow {
    pub certificate: CertificateRow,
    /// The authority and number of the lowest revoked generation above it.
    pub revoked_above: Option<(String, GenerationNumber)>,
    /// Whether the audit journal has the same role and profile. True for every device, because the
    /// least role needs no confirmation.
    pub is_in_journal: bool,
}

impl Store {
    /// Returns the client certificate with this SHA-256.
    pub fn client(&self, sha256: &[u8; 32]) -> Result<Option<ClientRow>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT} WHERE c.sha256 = ?1");
            let found = tx.query_optional(&select, params![sha256], from_row)?;
            let Some(certificate) = found else {
                return Ok(None);
            };
            Ok(Some(ClientRow {
                revoked_above: revoked_above(tx, certificate.issuer)?,
                is_in_journal: is_in_journal(tx, &certificate)?,
                certificate,
            }))
        })
    }

    /// Returns the lowest generation from `generation` upwards that an operator's block excludes:
    /// its authority and number.
    pub fn blocked_above(
        &self,
        generation: GenerationId,
    ) -> Result<Option<(String, GenerationNumber)>, StoreError> {
        self.read(|tx| blocked_above(tx, generation))
    }
}

/// Returns true if the caller was excluded after it was authorized. `revocations` is the current
/// value of [`Store::revocations`]; while it has not changed, nothing is read.
pub(super) fn is_excluded(
    tx: &Tx<'_>,
    requester: &Requester,
    revocations: u64,
) -> Result<bool, StoreError> {
    if requester.revocations == revocations {
        return Ok(false);
    }
    let found: Option<(bool, GenerationId, Option<String>)> = tx.query_optional(
        "SELECT c.revoked_at IS NOT NULL, i.issuer, i.role
         FROM certificate c JOIN intent i ON i.id = c.intent WHERE c.sha256 = ?1",
        params![requester.sha256],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let Some((is_revoked, issuer, role)) = found else {
        return Ok(true);
    };
    if is_revoked || revoked_above(tx, issuer)?.is_none() {
        return Ok(is_revoked);
    }
    // Devices below a revoked generation come for new certificates, unless a block excludes them.
    let is_device = role.as_deref() == Some(Role::Device.name());
    Ok(!is_device || blocked_above(tx, issuer)?.is_some())
}

fn blocked_above(
    tx: &Tx<'_>,
    generation: GenerationId,
) -> Result<Option<(String, GenerationNumber)>, StoreError> {
    let sql = format!(
        "{UPWARDS} SELECT g.authority, g.number FROM generation g
         JOIN block b ON b.kind = 'generation' AND b.name = g.authority
                     AND b.generation = g.number AND b.lifted_at IS NULL
         WHERE g.id IN (SELECT id FROM above) ORDER BY g.id DESC LIMIT 1"
    );
    tx.query_optional(&sql, params![generation], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

pub(super) fn revoked_above(
    tx: &Tx<'_>,
    generation: GenerationId,
) -> Result<Option<(String, GenerationNumber)>, StoreError> {
    let sql = format!(
        "{UPWARDS} SELECT g.authority, g.number FROM generation g
         JOIN certificate c ON c.intent = g.certificate
         WHERE g.id IN (SELECT id FROM above) AND c.revoked_at IS NOT NULL
         ORDER BY g.id DESC LIMIT 1"
    );
    tx.query_optional(&sql, params![generation], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

fn is_in_journal(tx: &Tx<'_>, certificate: &CertificateRow) -> Result<bool, StoreError> {
    let role = match certificate.role {
        None | Some(Role::Device) => return Ok(true),
        Some(role) => role,
    };
    tx.query_one(
        IN_JOURNAL,
        params![
            hex::encode(certificate.sha256),
            role.name(),
            certificate.profile
        ],
        |row| row.get(0),
    )
}

/// Answered from the index `audit_role`.
pub(super) const IN_JOURNAL: &str = "SELECT EXISTS (
     SELECT 1 FROM audit WHERE action = 'certificate.issued' AND detail ->> 'role' <> 'device'
       AND detail ->> 'sha256' = ?1 AND detail ->> 'role' = ?2 AND detail ->> 'profile' = ?3)";
