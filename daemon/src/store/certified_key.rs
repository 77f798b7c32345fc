//! Certified keys: which key each certificate is for, and which keys were reported as compromised.
//!
//! A key belongs to one holder, unless a profile lets holders share one: two devices with one key
//! can pass for each other, and usually come from a copied disk image. A compromised key is refused
//! for every holder and for ever, because the thief can ask under any name. Both questions are
//! asked in the transaction that records the intent, so two requests at a time cannot both pass.

use super::issuance::{Intent, Purpose, sha256};
use super::{Store, StoreError, abandon};
use rusqlite::{Connection, OptionalExtension, params};

/// Why a key gets no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyInTheWay {
    /// It is the key of a certificate that was revoked because of its key.
    #[error(
        "this key was reported as compromised and gets no certificate, under any name; make a new \
         key"
    )]
    Compromised,
    /// It is the key of another holder.
    #[error(
        "this key is that of {0} already, and each holder needs its own; make a new key, or set \
         `shared_keys = true` in the profile if its holders are meant to share one"
    )]
    OfAnother(String),
    /// It is the key of an authority here.
    #[error("this key is that of an authority, which needs it for itself; make a new key")]
    OfAnAuthority,
}

impl KeyInTheWay {
    /// The stable code under which the API reports it.
    pub fn code(&self) -> &'static str {
        match self {
            KeyInTheWay::Compromised => "key_compromised",
            KeyInTheWay::OfAnother(_) | KeyInTheWay::OfAnAuthority => "key_in_use",
        }
    }
}

impl Store {
    /// Tells why a leaf for this key (DER SubjectPublicKeyInfo) would be refused at this moment.
    pub fn key_in_the_way(
        &self,
        public_key: &[u8],
        subject: &str,
        shared: bool,
    ) -> Result<Option<KeyInTheWay>, StoreError> {
        self.read(|connection| of_leaf(connection, public_key, subject, shared))
    }
}

/// Step 7: why the intent's key gets no certificate.
pub(super) fn in_the_way(
    connection: &Connection,
    intent: &Intent,
) -> Result<Option<KeyInTheWay>, StoreError> {
    let key = &intent.public_key;
    match intent.purpose {
        Purpose::Leaf => of_leaf(connection, key, &intent.subject, intent.shared_key),
        Purpose::Authority => of_authority(connection, key),
        // It proves an authority's own key.
        Purpose::Possession => Ok(None),
    }
}

fn of_leaf(
    connection: &Connection,
    public_key: &[u8],
    subject: &str,
    shared: bool,
) -> Result<Option<KeyInTheWay>, StoreError> {
    let key_sha256 = sha256(public_key);
    if is_compromised(connection, &key_sha256)? {
        return Ok(Some(KeyInTheWay::Compromised));
    }
    if is_of_an_authority(connection, public_key)? {
        return Ok(Some(KeyInTheWay::OfAnAuthority));
    }
    if shared {
        return Ok(None);
    }
    let holder = other_holder(connection, &key_sha256, subject)?;
    Ok(holder.map(KeyInTheWay::OfAnother))
}

/// The same for an authority's certificate: its key may be on no leaf.
pub(super) fn of_authority(
    connection: &Connection,
    public_key: &[u8],
) -> Result<Option<KeyInTheWay>, StoreError> {
    let key_sha256 = sha256(public_key);
    if is_compromised(connection, &key_sha256)? {
        return Ok(Some(KeyInTheWay::Compromised));
    }
    // A leaf's subject is never empty, so every holder is another one.
    let holder = other_holder(connection, &key_sha256, "")?;
    Ok(holder.map(KeyInTheWay::OfAnother))
}

fn is_compromised(connection: &Connection, key_sha256: &[u8; 32]) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM compromised_key WHERE key_sha256 = ?1)")?
        .query_row([key_sha256], |row| row.get(0))?)
}

fn is_of_an_authority(connection: &Connection, public_key: &[u8]) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM generation WHERE spki = ?1)")?
        .query_row([public_key], |row| row.get(0))?)
}

/// Another subject that has, had or is getting a leaf with this key. An abandoned intent came to
/// nothing, and its key may be asked for under another name.
fn other_holder(
    connection: &Connection,
    key_sha256: &[u8; 32],
    subject: &str,
) -> Result<Option<String>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT subject FROM intent
             WHERE key_sha256 = ?1 AND purpose = 'leaf' AND subject <> ?2 AND state <> 'abandoned'
               AND state <> 'withdrawn'
             LIMIT 1",
        )?
        .query_row(params![key_sha256, subject], |row| row.get(0))
        .optional()?)
}

/// Records the key of a certificate that is revoked because of its key, within the caller's
/// transaction. Leaves that are being signed for the same key are abandoned: their requests passed
/// before the report.
pub(super) fn record_compromised(
    connection: &Connection,
    intent: i64,
    at: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO compromised_key (key_sha256, intent, reported_at)
             SELECT key_sha256, id, ?2 FROM intent WHERE id = ?1 ON CONFLICT DO NOTHING",
        )?
        .execute([intent, at])?;
    let open: Vec<i64> = connection
        .prepare_cached(
            "SELECT id FROM intent
             WHERE key_sha256 = (SELECT key_sha256 FROM intent WHERE id = ?1)
               AND purpose = 'leaf' AND state = 'intended'",
        )?
        .query_map([intent], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for intent in open {
        let reason = "its key was reported as compromised";
        abandon::abandon(connection, intent, reason, at)?;
    }
    Ok(())
}
