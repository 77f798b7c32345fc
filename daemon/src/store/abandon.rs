//! Intents that end without a certificate. An abandoned one's serial number is listed as revoked,
//! because the token may have signed; a withdrawn one was sent to no worker, so its serial number
//! is used up and nothing else.

use super::audit::{self, AuditEntry};
use super::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

/// The reason on record of an intent that a crash left open.
pub const FOUND_AT_START: &str = "found without a certificate at start";

impl Store {
    /// Abandons one intent: the token refused, or may have signed without our knowing. One that is
    /// settled already stays as it is.
    pub async fn abandon_intent(
        &self,
        intent: i64,
        reason: String,
        at: i64,
    ) -> Result<(), StoreError> {
        let abandoned = self
            .writer
            .run(move |connection| abandon(connection, intent, &reason, at));
        abandoned.await
    }

    /// Withdraws one intent: its request was sent to no worker, so nothing was signed. One that is
    /// settled already stays as it is.
    pub async fn withdraw_intent(
        &self,
        intent: i64,
        reason: String,
        at: i64,
    ) -> Result<(), StoreError> {
        let withdrawn = self
            .writer
            .run(move |connection| end(connection, intent, End::Withdrawn, &reason, at));
        withdrawn.await
    }

    /// Abandons every intent without a certificate: what a crash left. Returns how many.
    pub fn abandon_open_intents(&self, at: i64) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let open = open_intents(connection)?;
            for intent in &open {
                abandon(connection, *intent, FOUND_AT_START, at)?;
            }
            Ok(open.len())
        })
    }

    /// Intents without a certificate, oldest first.
    pub fn open_intents(&self) -> Result<Vec<i64>, StoreError> {
        self.read(open_intents)
    }
}

fn open_intents(connection: &Connection) -> Result<Vec<i64>, StoreError> {
    let mut statement =
        connection.prepare("SELECT id FROM intent WHERE state = 'intended' ORDER BY id")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Abandons what is being signed for this device at the moment: its certificate will not be recorded.
pub(super) fn abandon_leaves(
    connection: &Connection,
    subject: &str,
    reason: &str,
    at: i64,
) -> Result<(), StoreError> {
    let open: Vec<i64> = connection
        .prepare_cached(
            "SELECT id FROM intent
             WHERE role = 'device' AND subject = ?1 AND state = 'intended'",
        )?
        .query_map([subject], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for intent in open {
        abandon(connection, intent, reason, at)?;
    }
    Ok(())
}

/// A leaf that is being signed at this moment.
pub(super) struct OpenLeaf {
    pub(super) intent: i64,
    pub(super) issuer: i64,
    pub(super) subject: String,
}

/// The leaves of devices that are being signed at this moment.
pub(super) fn open_leaves(connection: &Connection) -> Result<Vec<OpenLeaf>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, issuer, subject FROM intent WHERE role = 'device' AND state = 'intended'",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(OpenLeaf {
            intent: row.get(0)?,
            issuer: row.get(1)?,
            subject: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Abandons one intent, unless it is settled, within the caller's transaction.
pub(super) fn abandon(
    connection: &Connection,
    intent: i64,
    reason: &str,
    at: i64,
) -> Result<(), StoreError> {
    end(connection, intent, End::Abandoned, reason, at)
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
    connection: &Connection,
    intent: i64,
    end: End,
    reason: &str,
    at: i64,
) -> Result<(), StoreError> {
    let open: Option<(Vec<u8>, String)> = connection
        .prepare_cached(
            "UPDATE intent SET state = ?3, abandoned_at = iif(?3 = 'abandoned', ?2, NULL),
                 idempotency_key = NULL, request_sha256 = NULL
             WHERE id = ?1 AND state = 'intended' RETURNING serial, subject",
        )?
        .query_row(params![intent, at, end.state()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
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
    audit::append(connection, &entry)
}
