//! Judges and counts grants: what lets a device without a valid leaf request one.
//!
//! Both are part of step 7 of the issuance cycle, so of two requests by one grant that arrive
//! together the second finds the use of the first; step 10 judges again. An intent that ended
//! without a certificate counts no more: a repeat after a crash works.

use super::certified_key::KeyRefusal;
use super::client;
use super::engine::{Tx, params};
use super::intent::{IntentError, Requester};
use super::{Store, StoreError, UnixSeconds, device_credential};
use crate::ids::{DeviceCredentialId, GenerationId, IntentId};
use serde_json::{Value, json};
use std::sync::Arc;

/// The reason for which a device without a valid leaf may request one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Its newest leaf, which has ended.
    LateRenewal(Requester),
    /// A one-time credential.
    Credential(DeviceCredentialId),
    /// The certificate of its manufacturer.
    Birth(Arc<BirthGrant>),
}

/// The certificate of a device's manufacturer, and what the configuration gives for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BirthGrant {
    /// The name of the `[[birth]]`.
    pub birth: String,
    pub registration_id: String,
    /// How many leaves the device may have by it.
    pub times: i64,
    /// The serial number of the manufacturer's certificate.
    pub serial: String,
    /// Its issuer, as text.
    pub issuer: String,
    /// The provisioning service that gets an individual enrollment.
    pub enroll: Option<String>,
}

/// The grant by which a certificate was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantUse {
    LateRenewal,
    /// By the row id of the credential.
    Credential(String),
    /// By the name of the `[[birth]]`.
    Birth(String),
}

impl Store {
    /// Returns the grant by which this certificate was requested, if there was one.
    pub fn grant_used_by(&self, intent: IntentId) -> Result<Option<GrantUse>, StoreError> {
        let used: Option<(String, String)> = self.read(|tx| {
            tx.query_optional(
                "SELECT kind, name FROM grant_use WHERE intent = ?1",
                params![intent],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })?;
        Ok(used.and_then(|(kind, name)| match kind.as_str() {
            "late_renewal" => Some(GrantUse::LateRenewal),
            "credential" => Some(GrantUse::Credential(name)),
            // A registration id has no slash.
            "birth" => {
                let birth = name.rsplit_once('/').map_or(&*name, |(birth, _)| birth);
                Some(GrantUse::Birth(birth.to_owned()))
            }
            _ => None,
        }))
    }
}

impl Grant {
    /// Returns its kind, as the audit journal and the table of uses name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Grant::LateRenewal(_) => "late_renewal",
            Grant::Credential(_) => "credential",
            Grant::Birth(_) => "birth",
        }
    }

    /// Returns the provisioning service that gets an individual enrollment of the device.
    pub fn enroll(&self) -> Option<&str> {
        match self {
            Grant::Birth(birth) => birth.enroll.as_deref(),
            Grant::LateRenewal(_) | Grant::Credential(_) => None,
        }
    }

    /// Adds to the detail of an audit entry by what the device requested its leaf.
    pub fn describe(&self, detail: &mut Value) {
        detail["grant"] = self.kind().into();
        match self {
            // The serial number of the ended leaf is there already.
            Grant::LateRenewal(_) => {}
            Grant::Credential(id) => detail["credential"] = json!(id),
            Grant::Birth(birth) => {
                detail["birth"] = json!({
                    "name": birth.birth, "serial": birth.serial, "issuer": birth.issuer,
                });
            }
        }
    }

    /// Returns its name among those of its kind.
    fn name(&self) -> String {
        match self {
            Grant::LateRenewal(requester) => hex::encode(requester.sha256),
            Grant::Credential(id) => id.to_string(),
            Grant::Birth(it) => format!("{}/{}", it.birth, it.registration_id),
        }
    }
}

/// Step 7: checks that the grant still lets `device` have a leaf.
pub(super) fn admit(tx: &Tx<'_>, grant: &Grant, device: &str) -> Result<(), IntentError> {
    let asked = Asked {
        grant,
        device,
        intent: None,
    };
    asked.is_admitted(tx)
}

/// Step 10: checks the same once more for an intent that uses the grant, because what lets the
/// device have a leaf may have ended while the token signed.
pub(super) fn still_admits(tx: &Tx<'_>, grant: &Grant, intent: IntentId) -> Result<(), StoreError> {
    let device: String = tx.query_one(
        "SELECT subject FROM intent WHERE id = ?1",
        params![intent],
        |row| row.get(0),
    )?;
    let asked = Asked {
        grant,
        device: &device,
        intent: Some(intent),
    };
    asked.is_admitted(tx).map_err(|refused| match refused {
        IntentError::Store(error) => error,
        refused => StoreError::GrantEnded(Box::new(refused)),
    })
}

/// A request by a grant.
struct Asked<'a> {
    grant: &'a Grant,
    device: &'a str,
    /// The intent that uses the grant already.
    intent: Option<IntentId>,
}

impl Asked<'_> {
    fn is_admitted(&self, tx: &Tx<'_>) -> Result<(), IntentError> {
        match self.grant {
            Grant::LateRenewal(requester) => admit_late(tx, self, requester),
            Grant::Credential(id) => admit_credential(tx, self, *id),
            Grant::Birth(birth) => {
                if newest_revoked_at(tx, self.device)?.is_some() {
                    return Err(IntentError::NewestRevoked(self.device.to_owned()));
                }
                let used = IntentError::BirthUsed {
                    device: self.device.to_owned(),
                    times: birth.times,
                };
                refuse_used(tx, self, birth.times, used)
            }
        }
    }
}

fn admit_credential(
    tx: &Tx<'_>,
    asked: &Asked<'_>,
    id: DeviceCredentialId,
) -> Result<(), IntentError> {
    let device = asked.device;
    let (is_revoked, made_at) = device_credential::revoked_and_made(tx, id)?;
    if is_revoked {
        return Err(IntentError::CredentialRevoked);
    }
    refuse_used(tx, asked, 1, IntentError::CredentialUsed)?;
    // A credential that was made since brings the device back on purpose.
    if newest_revoked_at(tx, device)?.is_some_and(|it| it >= made_at) {
        return Err(IntentError::NewestRevoked(device.to_owned()));
    }
    Ok(())
}

/// Returns since when the newest leaf of a device is revoked or on hold.
fn newest_revoked_at(tx: &Tx<'_>, device: &str) -> Result<Option<UnixSeconds>, StoreError> {
    let found = tx.query_optional(
        "SELECT c.revoked_at FROM device d JOIN certificate c ON c.intent = d.certificate
         WHERE d.registration_id = ?1",
        params![device],
        |row| row.get(0),
    )?;
    Ok(found.flatten())
}

/// Records that `intent` uses the grant.
pub(super) fn record_use(tx: &Tx<'_>, grant: &Grant, intent: IntentId) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO grant_use (kind, name, intent) VALUES (?1, ?2, ?3)",
        params![grant.kind(), grant.name(), intent],
    )?;
    Ok(())
}

/// Fails with `used` if the grant has given `times` other certificates. While one of them is being
/// signed that is not certain yet: a signature that fails gives the use back.
fn refuse_used(
    tx: &Tx<'_>,
    asked: &Asked<'_>,
    times: i64,
    used: IntentError,
) -> Result<(), IntentError> {
    let grant = asked.grant;
    let (uses, is_under_way): (i64, bool) = tx.query_one(
        "SELECT count(*), count(o.intent) > 0
         FROM grant_use g JOIN intent i ON i.id = g.intent
              LEFT JOIN open_intent o ON o.intent = i.id
         WHERE g.kind = ?1 AND g.name = ?2 AND i.ended IS NULL
           AND (?3 IS NULL OR g.intent <> ?3)",
        params![grant.kind(), grant.name(), asked.intent],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if uses < times {
        return Ok(());
    }
    Err(if is_under_way {
        IntentError::UnderWay(asked.device.to_owned())
    } else {
        used
    })
}

/// The leaf that has ended, as it is on record now.
struct EndedLeaf {
    is_revoked: bool,
    issuer: GenerationId,
    has_compromised_key: bool,
    is_current: bool,
}

fn admit_late(tx: &Tx<'_>, asked: &Asked<'_>, requester: &Requester) -> Result<(), IntentError> {
    let leaf = tx.query_optional(
        "SELECT c.revoked_at IS NOT NULL, i.issuer,
                EXISTS (SELECT 1 FROM compromised_key k WHERE k.key_sha256 = i.key_sha256),
                EXISTS (SELECT 1 FROM device d
                        WHERE d.registration_id = i.subject AND d.certificate = c.intent)
         FROM certificate c JOIN intent i ON i.id = c.intent WHERE c.sha256 = ?1",
        params![requester.sha256],
        |row| {
            Ok(EndedLeaf {
                is_revoked: row.get(0)?,
                issuer: row.get(1)?,
                has_compromised_key: row.get(2)?,
                is_current: row.get(3)?,
            })
        },
    )?;
    // A revoked generation above ends the leaf, too: its holder has no valid leaf to show.
    let leaf = leaf.filter(|it| !it.is_revoked);
    let Some(leaf) = leaf else {
        return Err(IntentError::RequesterRevoked);
    };
    if client::revoked_above(tx, leaf.issuer)?.is_some() {
        return Err(IntentError::RequesterRevoked);
    }
    if leaf.has_compromised_key {
        return Err(IntentError::Key(KeyRefusal::Compromised));
    }
    refuse_used(tx, asked, 1, IntentError::LateRenewalUsed)?;
    if !leaf.is_current {
        let device = asked.device.to_owned();
        return Err(IntentError::LateRenewalSuperseded(device));
    }
    Ok(())
}
