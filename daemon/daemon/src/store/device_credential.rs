//! Stores one-time credentials of devices: a salted hash of each secret, and how it ended.
//!
//! The newest credential of a registration id is the only one that works. Its use is a row of
//! `grant_use`, written with the intent; wrong secrets are counted until the credential is locked.

use super::audit::{self, AuditEntry};
use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds};
use crate::ids::DeviceCredentialId;
use serde_json::json;

/// The intent by which the credential `$id` has given a certificate. An open intent may fail, so
/// it is no use yet.
macro_rules! its_use {
    ($id:literal) => {
        concat!(
            "FROM grant_use g JOIN intent i ON i.id = g.intent
             WHERE g.kind = 'credential' AND g.name = CAST(",
            $id,
            " AS TEXT) AND i.ended IS NULL
               AND NOT EXISTS (SELECT 1 FROM open_intent o WHERE o.intent = i.id)"
        )
    };
}

/// So many wrong secrets lock a credential.
pub const FAILURES_MAX: i64 = 10;

/// A one-time credential to store.
#[derive(Clone, Debug)]
pub struct NewDeviceCredential {
    pub registration_id: String,
    /// The profile of the leaf that it is for.
    pub profile: String,
    pub salt: [u8; 16],
    /// SHA-256 of salt and secret.
    pub secret_sha256: [u8; 32],
    pub expires_at: UnixSeconds,
}

/// A one-time credential on record.
#[derive(Clone, Debug)]
pub struct DeviceCredentialRow {
    pub id: DeviceCredentialId,
    pub registration_id: String,
    /// The profile of the leaf that it is for.
    pub profile: String,
    pub salt: [u8; 16],
    /// SHA-256 of salt and secret.
    pub secret_sha256: [u8; 32],
    pub made_by: String,
    pub made_at: UnixSeconds,
    pub expires_at: UnixSeconds,
    /// Wrong secrets that were sent for it.
    pub failures: i64,
    pub revoked_at: Option<UnixSeconds>,
    /// When the certificate that it gave was requested.
    pub used_at: Option<UnixSeconds>,
}

const SELECT: &str = concat!(
    "SELECT c.id, c.registration_id, c.profile, c.salt, c.secret_sha256,
         c.made_by, c.made_at, c.expires_at, c.failures, c.revoked_at,
         (SELECT i.recorded_at ",
    its_use!("c.id"),
    ") FROM device_credential c"
);

/// The state of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    Revoked,
    /// By wrong secrets, also after its use.
    Locked,
    /// It has given a certificate, and answers a repeat of that request alone.
    Used,
    Expired,
    /// A device may use it, or is using it.
    Open,
}

impl DeviceCredentialRow {
    /// Returns the state at `now`.
    pub fn state(&self, now: UnixSeconds) -> CredentialState {
        match self {
            it if it.revoked_at.is_some() => CredentialState::Revoked,
            it if it.failures >= FAILURES_MAX => CredentialState::Locked,
            it if it.used_at.is_some() => CredentialState::Used,
            it if it.expires_at < now => CredentialState::Expired,
            _ => CredentialState::Open,
        }
    }
}

impl CredentialState {
    /// Returns the name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Locked => "locked",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Open => "open",
        }
    }
}

/// Credentials that ended before `?1`.
pub(super) const FORGET: &str = "DELETE FROM device_credential WHERE id IN (
     SELECT id FROM device_credential WHERE expires_at < ?1
       AND id < (SELECT max(id) FROM device_credential)
     ORDER BY expires_at LIMIT ?2)";

impl Store {
    /// Stores a credential, and ends earlier ones of the same registration id that were not used.
    pub fn make_device_credential(
        &self,
        new: NewDeviceCredential,
        entry: AuditEntry,
    ) -> Result<DeviceCredentialRow, StoreError> {
        self.write(move |tx| {
            revoke(tx, &new.registration_id, &entry)?;
            let id: DeviceCredentialId = tx.insert(
                "INSERT INTO device_credential
                     (registration_id, profile, salt, secret_sha256, made_by, made_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
                params![
                    new.registration_id,
                    new.profile,
                    new.salt,
                    new.secret_sha256,
                    entry.actor,
                    entry.at,
                    new.expires_at
                ],
            )?;
            audit::append(tx, &entry)?;
            tx.query_one(&format!("{SELECT} WHERE c.id = ?1"), params![id], from_row)
        })
    }

    /// Returns the newest credential of a registration id.
    pub fn device_credential(
        &self,
        registration_id: &str,
    ) -> Result<Option<DeviceCredentialRow>, StoreError> {
        self.read(|tx| {
            let newest =
                format!("{SELECT} WHERE c.registration_id = ?1 ORDER BY c.id DESC LIMIT 1");
            tx.query_optional(&newest, params![registration_id], from_row)
        })
    }

    /// Returns the credentials after row id `after`, at most `limit`.
    pub fn device_credentials(
        &self,
        after: DeviceCredentialId,
        limit: u32,
    ) -> Result<Vec<DeviceCredentialRow>, StoreError> {
        self.read(|tx| {
            let page = format!("{SELECT} WHERE c.id > ?1 ORDER BY c.id LIMIT ?2");
            tx.query_all(&page, params![after, limit], from_row)
        })
    }

    /// Revokes the credentials of a registration id that were not used. Returns how many; without
    /// one nothing is written.
    pub fn revoke_device_credentials(
        &self,
        registration_id: String,
        entry: AuditEntry,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| {
            let revoked = revoke(tx, &registration_id, &entry)?;
            if revoked > 0 {
                audit::append(tx, &entry)?;
            }
            Ok(revoked)
        })
    }

    /// Deletes at most `limit` credentials that ended before `before`, with an entry that counts
    /// them. Returns how many. The newest stays, so that no row id is given twice: uses name it.
    pub fn forget_device_credentials(
        &self,
        before: UnixSeconds,
        limit: u32,
        mut entry: AuditEntry,
    ) -> Result<usize, StoreError> {
        self.write(move |tx| {
            let forgotten = tx.execute(FORGET, params![before, limit])?;
            if forgotten > 0 {
                entry.detail["credentials"] = json!(forgotten);
                audit::append(tx, &entry)?;
            }
            Ok(forgotten)
        })
    }

    /// Counts a wrong secret for a credential, up to the number that locks it. `locked` is the
    /// audit entry of that moment.
    pub fn count_wrong_secret(
        &self,
        id: DeviceCredentialId,
        locked: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let failures: Option<i64> = tx.query_optional(
                "UPDATE device_credential SET failures = failures + 1
                 WHERE id = ?1 AND failures < ?2 RETURNING failures",
                params![id, FAILURES_MAX],
                |row| row.get(0),
            )?;
            if failures == Some(FAILURES_MAX) {
                audit::append(tx, &locked)?;
            }
            Ok(())
        })
    }
}

fn revoke(tx: &Tx<'_>, registration_id: &str, entry: &AuditEntry) -> Result<usize, StoreError> {
    tx.execute(
        concat!(
            "UPDATE device_credential SET revoked_at = ?2, revoked_by = ?3
             WHERE registration_id = ?1 AND revoked_at IS NULL AND NOT EXISTS (SELECT 1 ",
            its_use!("device_credential.id"),
            ")"
        ),
        params![registration_id, entry.at, entry.actor],
    )
}

/// Returns whether the credential is revoked, and when it was made.
pub(super) fn revoked_and_made(
    tx: &Tx<'_>,
    id: DeviceCredentialId,
) -> Result<(bool, UnixSeconds), StoreError> {
    tx.query_one(
        "SELECT revoked_at IS NOT NULL, made_at FROM device_credential WHERE id = ?1",
        params![id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

fn from_row(row: &Row<'_>) -> Result<DeviceCredentialRow, StoreError> {
    Ok(DeviceCredentialRow {
        id: row.get(0)?,
        registration_id: row.get(1)?,
        profile: row.get(2)?,
        salt: row.get(3)?,
        secret_sha256: row.get(4)?,
        made_by: row.get(5)?,
        made_at: row.get(6)?,
        expires_at: row.get(7)?,
        failures: row.get(8)?,
        revoked_at: row.get(9)?,
        used_at: row.get(10)?,
    })
}
