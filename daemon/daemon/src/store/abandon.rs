//! Ends intents without a certificate: abandons or withdraws them.
//!
//! The serial number of an abandoned intent is listed as revoked, because the token may have
//! signed. A withdrawn intent was sent to no worker, so its serial number is only used up.

use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::{Store, StoreError, UnixSeconds};
use crate::ids::{GenerationId, IntentId};
use serde_json::json;

/// The recorded reason for an intent that a crash left open.
pub const FOUND_AT_START: &str = "found without a certificate at start";

impl Store {
    /// Abandons an intent whose signature failed or got lost. Changes nothing if the intent has
    /// ended already.
    pub async fn abandon_intent(
        &self,
        intent: IntentId,
        reason: String,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        let abandoned = self.writer.run(move |tx| abandon(tx, intent, &reason, at));
        abandoned.await
    }

    /// Withdraws an intent that was sent to no worker, so that nothing was signed. Changes nothing
    /// if the intent has ended already.
    pub async fn withdraw_intent(
        &self,
        intent: IntentId,
        reason: String,
        at: UnixSeconds,
    ) -> Result<(), StoreError> {
        let withdrawn = self
            .writer
            .run(move |tx| end(tx, intent, End::Withdrawn, &reason, at));
        withdrawn.await
    }

    /// Abandons every open intent, all of which a crash has left. Returns how many.
    pub fn abandon_open_intents(&self, at: UnixSeconds) -> Result<usize, StoreError> {
        self.write(move |tx| {
            let open = open_intents(tx)?;
            for intent in &open {
                abandon(tx, *intent, FOUND_AT_START, at)?;
            }
            Ok(open.len())
        })
    }

    /// Returns the open intents, oldest first.
    pub fn open_intents(&self) -> Result<Vec<IntentId>, StoreError> {
        self.read(open_intents)
    }
}

fn open_intents(tx: &Tx<'_>) -> Result<Vec<IntentId>, StoreError> {
    tx.query_all(
        "SELECT intent FROM open_intent ORDER BY intent",
        params![],
        |row| row.get(0),
    )
}

/// Abandons the open intents of this device: their certificates will not be recorded.
pub(super) fn abandon_leaves(
    tx: &Tx<'_>,
    subject: &str,
    reason: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let open: Vec<IntentId> = tx.query_all(
        "SELECT o.intent FROM open_intent o JOIN intent i ON i.id = o.intent
         WHERE o.purpose = 'leaf' AND o.subject = ?1 AND i.role = 'device'",
        params![subject],
        |row| row.get(0),
    )?;
    for intent in open {
        abandon(tx, intent, reason, at)?;
    }
    Ok(())
}

/// A leaf whose intent is open.
pub(super) struct OpenLeaf {
    pub(super) intent: IntentId,
    pub(super) issuer: GenerationId,
    pub(super) subject: String,
}

/// Returns the leaves of devices whose intents are open.
pub(super) fn open_leaves(tx: &Tx<'_>) -> Result<Vec<OpenLeaf>, StoreError> {
    tx.query_all(
        "SELECT i.id, i.issuer, i.subject FROM open_intent o JOIN intent i ON i.id = o.intent
         WHERE i.role = 'device'",
        params![],
        |row| {
            Ok(OpenLeaf {
                intent: row.get(0)?,
                issuer: row.get(1)?,
                subject: row.get(2)?,
            })
        },
    )
}

/// Abandons the open intents of this issuer, whatever is being signed, and for whichever role; and
/// those by other generations for its key.
pub(super) fn abandon_by(
    tx: &Tx<'_>,
    issuer: GenerationId,
    reason: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let open: Vec<IntentId> = tx.query_all(
        "SELECT o.intent FROM open_intent o JOIN intent i ON i.id = o.intent
         WHERE i.issuer = ?1 OR o.purpose = 'cross' AND i.key_sha256 = (
             SELECT own.key_sha256 FROM generation g JOIN intent own ON own.id = g.certificate
             WHERE g.id = ?1)",
        params![issuer],
        |row| row.get(0),
    )?;
    for intent in open {
        abandon(tx, intent, reason, at)?;
    }
    Ok(())
}

/// Abandons one intent within the caller's transaction, unless it has ended.
pub(super) fn abandon(
    tx: &Tx<'_>,
    intent: IntentId,
    reason: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    end(tx, intent, End::Abandoned, reason, at)
}

/// How an intent ends without a certificate.
#[derive(Clone, Copy)]
enum End {
    Abandoned,
    Withdrawn,
}

impl End {
    fn state(self) -> &'static str {
        match self {
            End::Abandoned => "abandoned",
            End::Withdrawn => "withdrawn",
        }
    }

    fn action(self) -> &'static str {
        match self {
            End::Abandoned => "intent.abandoned",
            End::Withdrawn => "intent.withdrawn",
        }
    }
}

fn end(
    tx: &Tx<'_>,
    intent: IntentId,
    end: End,
    reason: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    // The idempotency key is released, so that a repeat is a new request: kept, it would answer
    // 503 for ever, because this intent never gets a certificate.
    let open: Option<(Vec<u8>, String)> = tx.query_optional(
        "UPDATE intent SET ended = ?3, abandoned_at = CASE WHEN ?3 = 'abandoned' THEN ?2 END,
             idempotency_key = NULL, request_sha256 = NULL
         WHERE id = (SELECT intent FROM open_intent WHERE intent = ?1) RETURNING serial, subject",
        params![intent, at, end.state()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    // A block may have ended it while the token signed.
    let Some((serial, subject)) = open else {
        return Ok(());
    };
    let entry = AuditEntry {
        at,
        actor: "hallmarkd".into(),
        action: end.action(),
        subject,
        detail: json!({ "serial": hex::encode_upper(serial), "reason": reason }),
    };
    audit::append(tx, &entry)
}
