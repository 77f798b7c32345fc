//! Checks the key of a new certificate: it must not be compromised, nor belong to another holder.
//!
//! A key belongs to one holder, unless a profile lets holders share keys: two devices with one key
//! can pass for each other, and usually come from a copied disk image. A compromised key is refused
//! for every holder and for ever, because the thief can ask under any name. Both checks are in the
//! transaction that records the intent, so two concurrent requests cannot both pass.

use super::digest::sha256;
use super::engine::{Tx, params};
use super::intent::Purpose;
use super::{Store, StoreError, UnixSeconds, abandon};
use crate::error_code::Code;
use crate::ids::IntentId;

/// Why a key gets no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// A certificate for this key was revoked because of its key.
    #[error(
        "this key was reported as compromised and gets no certificate, under any name; make a new \
         key"
    )]
    Compromised,
    /// Another holder has a certificate for this key.
    #[error(
        "this key is that of {0} already, and each holder needs its own; make a new key, or set \
         `shared_keys = true` in the profile if its holders are meant to share one"
    )]
    OfAnother(String),
    /// It is the key of an authority.
    #[error("this key is that of an authority, which needs it for itself; make a new key")]
    OfAnAuthority,
}

impl KeyRefusal {
    /// The stable code under which the API reports it.
    pub fn code(&self) -> Code {
        match self {
            KeyRefusal::Compromised => Code::KeyCompromised,
            KeyRefusal::OfAnother(_) | KeyRefusal::OfAnAuthority => Code::KeyInUse,
        }
    }
}

impl Store {
    /// Returns why a leaf for this key (DER SubjectPublicKeyInfo) would be refused at present.
    pub fn key_refusal(
        &self,
        public_key: &[u8],
        subject: &str,
        shared: bool,
    ) -> Result<Option<KeyRefusal>, StoreError> {
        self.read(|tx| of_leaf(tx, public_key, subject, shared))
    }
}

pub(super) fn of_leaf(
    tx: &Tx<'_>,
    public_key: &[u8],
    subject: &str,
    shared: bool,
) -> Result<Option<KeyRefusal>, StoreError> {
    refusal(tx, public_key, (subject, Purpose::Leaf), shared)
}

fn refusal(
    tx: &Tx<'_>,
    public_key: &[u8],
    (subject, purpose): (&str, Purpose),
    shared: bool,
) -> Result<Option<KeyRefusal>, StoreError> {
    let asked = params![
        sha256(public_key),
        subject,
        public_key,
        !shared,
        purpose.name()
    ];
    tx.query_one(FINDINGS, asked, |row| {
        Ok(match (row.get(0)?, row.get(1)?, row.get(2)?) {
            (true, _, _) => Some(KeyRefusal::Compromised),
            (_, true, _) => Some(KeyRefusal::OfAnAuthority),
            (_, _, Some(holder)) => Some(KeyRefusal::OfAnother(holder)),
            (false, false, None) => None,
        })
    })
}

/// Why the certificate of an authority elsewhere gets no such key. One key has one subject.
pub(super) fn of_subordinate(
    tx: &Tx<'_>,
    public_key: &[u8],
    subject: &str,
) -> Result<Option<KeyRefusal>, StoreError> {
    refusal(tx, public_key, (subject, Purpose::Subordinate), false)
}

/// Why an authority's certificate gets no such key: it may be on no leaf.
pub(super) fn of_authority(
    tx: &Tx<'_>,
    public_key: &[u8],
) -> Result<Option<KeyRefusal>, StoreError> {
    // A leaf's subject is never empty, so every holder is another one. No authority is looked for.
    let asked = params![sha256(public_key), "", "", true, ""];
    tx.query_one(FINDINGS, asked, |row| {
        if row.get(0)? {
            return Ok(Some(KeyRefusal::Compromised));
        }
        Ok(row.get::<Option<String>>(2)?.map(KeyRefusal::OfAnother))
    })
}

/// Returns whether the key with the digest `?1` is compromised; whether it is the
/// SubjectPublicKeyInfo `?3` of an authority; and another holder than the subject `?2` of the
/// purpose `?5` that has, had or is getting a certificate with it: an authority elsewhere, or, if
/// `?4`, a leaf. An abandoned intent gave no certificate, so its key may be used under another
/// name.
pub(super) const FINDINGS: &str =
    "SELECT EXISTS (SELECT 1 FROM compromised_key WHERE key_sha256 = ?1),
     EXISTS (SELECT 1 FROM generation WHERE spki = ?3),
     (SELECT subject FROM intent
      WHERE key_sha256 = ?1 AND (purpose = 'subordinate' OR purpose = 'leaf' AND ?4)
        AND (subject <> ?2 OR purpose <> ?5) AND ended IS NULL
      LIMIT 1)";

/// Records the key of a certificate that is revoked because of its key. Abandons open intents for
/// the same key, whose checks passed before the report. Returns true if the key was not recorded.
pub(super) fn record_compromised(
    tx: &Tx<'_>,
    intent: IntentId,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let recorded = tx.execute(
        "INSERT INTO compromised_key (key_sha256, intent, reported_at)
         SELECT key_sha256, id, ?2 FROM intent WHERE id = ?1 ON CONFLICT DO NOTHING",
        params![intent, at],
    )?;
    let open: Vec<IntentId> = tx.query_all(
        "SELECT o.intent FROM open_intent o JOIN intent i ON i.id = o.intent
         WHERE i.key_sha256 = (SELECT key_sha256 FROM intent WHERE id = ?1)
           AND o.purpose IN ('leaf', 'subordinate')",
        params![intent],
        |row| row.get(0),
    )?;
    for intent in open {
        let reason = "its key was reported as compromised";
        abandon::abandon(tx, intent, reason, at)?;
    }
    Ok(recorded > 0)
}
