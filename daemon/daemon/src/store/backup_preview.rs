//! Compares a backup with the database that it would replace, for `hallmark backup restore`.
//!
//! Both are read without a daemon, and neither is changed.

use super::backup::{IssuedLater, issued_after, open};
use super::database_file;
use super::engine::{Tx, params};
use super::{StoreError, UnixSeconds};
use serde::Serialize;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

/// The most revocations that are listed.
pub const REVOCATIONS_MAX: usize = 1_000;

/// Names the generations of authorities.
const GENERATIONS: &str = "SELECT authority || ' ' || number FROM generation";

/// The holder of a valid certificate that is not a device's: what the restored daemon will accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestoredCaller {
    /// Hex.
    pub serial: String,
    /// Hex SHA-256 of the certificate.
    pub sha256: String,
    pub role: String,
    pub subject: String,
    pub not_after: UnixSeconds,
    /// Its state in the replaced database: `valid`, `revoked`, `unknown`; absent without one.
    pub replaced: Option<&'static str>,
}

/// A certificate that the replaced database has revoked, and the backup has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostRevocation {
    /// Hex.
    pub serial: String,
    pub subject: String,
    pub revoked_at: UnixSeconds,
}

/// The rows that only the replaced database has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub certificates: Vec<IssuedLater>,
    /// Of certificates that the backup has; the first [`REVOCATIONS_MAX`].
    pub revocations: Vec<LostRevocation>,
    /// Whether there are more of them.
    pub more_revocations: bool,
    /// Standing blocks: kind and name.
    pub blocks: Vec<String>,
    /// Generations of authorities: name and number.
    pub generations: Vec<String>,
    /// Generations that only the backup has.
    pub generations_of_backup: Vec<String>,
}

/// Returns the valid callers of a backup, each with its state in the database `replaced`.
pub fn callers(
    backup: &Path,
    replaced: Option<&Path>,
    now: UnixSeconds,
) -> Result<Vec<RestoredCaller>, StoreError> {
    let connection = database_file::connect_unchanging(backup)?;
    let mut callers = Tx::new(&connection).query_all(
        "SELECT hex(i.serial), hex(c.sha256), i.role, i.subject, i.not_after
         FROM intent i JOIN certificate c ON c.intent = i.id
         WHERE i.role IS NOT NULL AND i.role <> 'device' AND i.role <> 'server'
           AND i.not_after > ?1
           AND c.revoked_at IS NULL
         ORDER BY i.role, i.subject, i.id",
        params![now],
        |row| {
            Ok(RestoredCaller {
                serial: row.get(0)?,
                sha256: row.get(1)?,
                role: row.get(2)?,
                subject: row.get(3)?,
                not_after: row.get(4)?,
                replaced: None,
            })
        },
    )?;
    let Some(replaced) = replaced else {
        return Ok(callers);
    };
    let connection = open(replaced)?;
    let tx = Tx::new(&connection);
    for caller in &mut callers {
        let revoked: Option<bool> = tx.query_optional(
            "SELECT c.revoked_at IS NOT NULL FROM intent i JOIN certificate c ON c.intent = i.id
             WHERE c.sha256 = unhex(?1) AND i.role = ?2",
            params![caller.sha256, caller.role],
            |row| row.get(0),
        )?;
        caller.replaced = Some(match revoked {
            None => "unknown",
            Some(true) => "revoked",
            Some(false) => "valid",
        });
    }
    Ok(callers)
}

/// Returns what only the database `replaced` has; `intents` is the count of the backup.
pub fn missing(backup: &Path, replaced: &Path, intents: i64) -> Result<Missing, StoreError> {
    let old = database_file::connect_unchanging(backup)?;
    let old = Tx::new(&old);
    let connection = open(replaced)?;
    let tx = Tx::new(&connection);
    let revoked = old.query_all(
        "SELECT intent FROM certificate WHERE revoked_at IS NOT NULL",
        params![],
        |row| row.get::<i64>(0),
    )?;
    let (revocations, more_revocations) =
        revoked_since(&tx, &revoked.into_iter().collect(), intents)?;
    Ok(Missing {
        certificates: issued_after(replaced, intents)?,
        revocations,
        more_revocations,
        blocks: only_in(
            &tx,
            &old,
            "SELECT kind || ' ' || name FROM block WHERE lifted_at IS NULL",
        )?,
        generations: only_in(&tx, &old, GENERATIONS)?,
        generations_of_backup: only_in(&old, &tx, GENERATIONS)?,
    })
}

fn revoked_since(
    tx: &Tx<'_>,
    before: &BTreeSet<i64>,
    intents: i64,
) -> Result<(Vec<LostRevocation>, bool), StoreError> {
    let mut lost = Vec::new();
    let mut more = false;
    let sql = "SELECT c.intent, hex(i.serial), i.subject, c.revoked_at
               FROM certificate c JOIN intent i ON i.id = c.intent
               WHERE c.revoked_at IS NOT NULL AND c.intent <= ?1 ORDER BY c.revoked_at";
    tx.for_each(sql, params![intents], |row| {
        if before.contains(&row.get(0)?) {
            return Ok(ControlFlow::Continue(()));
        }
        if lost.len() == REVOCATIONS_MAX {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        lost.push(LostRevocation {
            serial: row.get(1)?,
            subject: row.get(2)?,
            revoked_at: row.get(3)?,
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((lost, more))
}

/// Returns the texts that `sql` finds in one database and not in the other.
fn only_in(tx: &Tx<'_>, other: &Tx<'_>, sql: &str) -> Result<Vec<String>, StoreError> {
    let texts = |tx: &Tx<'_>| tx.query_all(sql, params![], |row| row.get::<String>(0));
    let known: BTreeSet<String> = texts(other)?.into_iter().collect();
    let mut found = texts(tx)?;
    found.retain(|it| !known.contains(it));
    Ok(found)
}
