//! Generations of authorities: planned, keyed, certified, serving, retired.
//!
//! An authority has at most one generation that serves and one that is to be the next.

use super::stored_name::Stored;
use super::{Store, StoreError, possession};
use crate::x509::key::KeyType;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerationState {
    /// Shall be made; has a key, perhaps.
    Planned,
    /// Has its certificate, and signs nothing yet but its own canary and proof of possession.
    Staged,
    /// Signs.
    Serving,
    /// Signs no certificates any more. Its certificate stays, for chains and revocation lists.
    Retired,
}

impl GenerationState {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            GenerationState::Planned => "planned",
            GenerationState::Staged => "staged",
            GenerationState::Serving => "serving",
            GenerationState::Retired => "retired",
        }
    }
}

/// A generation that a ceremony or a roll is about to make. Recorded before its key exists.
#[derive(Clone, Debug)]
pub struct PlannedGeneration {
    /// The authority's name.
    pub authority: String,
    /// The generation that signs it; `None` for a self-signed root.
    pub parent: Option<i64>,
    /// The token that shall hold the key, by its name in the configuration.
    pub token: String,
    /// The kind of key.
    pub key_type: KeyType,
    /// `CKA_ID`: random, so that an interrupted ceremony finds exactly its own key again.
    pub key_id: Vec<u8>,
}

/// A generation as it stands.
#[derive(Clone, Debug)]
pub struct GenerationRow {
    /// Row id.
    pub id: i64,
    /// The authority's name.
    pub authority: String,
    /// 1 for the first.
    pub number: i64,
    /// The generation that signed it; `None` for a self-signed root.
    pub parent: Option<i64>,
    /// The token that holds the key.
    pub token: String,
    /// The kind of key.
    pub key_type: KeyType,
    /// `CKA_LABEL`.
    pub key_label: String,
    /// `CKA_ID`.
    pub key_id: Vec<u8>,
    /// DER SubjectPublicKeyInfo, once the key exists.
    pub spki: Option<Vec<u8>>,
    /// The key itself, of a token that keeps its keys outside.
    pub key_wrapped: Option<Vec<u8>>,
    /// DER certificate, once it is recorded.
    pub certificate: Option<Vec<u8>>,
    /// When it was certified, Unix seconds.
    pub certified_at: Option<i64>,
    /// How far it is.
    pub state: GenerationState,
    /// When its certificate was revoked, in Unix seconds: it signs nothing any more.
    pub revoked_at: Option<i64>,
    /// What its issuer is asked, if that is elsewhere.
    pub request: Option<RequestRow>,
}

/// What somebody else is asked to certify.
#[derive(Clone, Debug)]
pub struct RequestRow {
    /// How many authorities must be allowed below.
    pub path_length: Option<u8>,
    /// The request, once it is signed: DER.
    pub der: Option<Vec<u8>>,
    /// The certificates above, once there is one: PEM, its issuer's first.
    pub above: Option<String>,
}

const SELECT: &str = "SELECT g.id, g.authority, g.number, g.parent, g.token, g.key_type, \
     g.key_label, g.key_id, g.spki, c.der, c.issued_at, g.state, c.revoked_at, g.key_wrapped, \
     r.generation, r.path_length, r.der, r.above \
     FROM generation g LEFT JOIN certificate c ON c.intent = g.certificate \
     LEFT JOIN request r ON r.generation = g.id";

impl Store {
    /// Every generation, parents before children.
    pub fn generations(&self) -> Result<Vec<GenerationRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY g.id"))?;
            let rows = statement.query_map([], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Records that a generation shall be made, unless one of this authority is under way or
    /// serving already: then that one is returned, and no second key can come of it.
    pub fn plan_generation(&self, plan: PlannedGeneration) -> Result<GenerationRow, StoreError> {
        self.write(move |connection| {
            let Some(existing) = newest(connection, &plan.authority)? else {
                return insert(connection, 1, &plan);
            };
            let as_planned = (existing.parent, &existing.token, existing.key_type)
                == (plan.parent, &plan.token, plan.key_type);
            if as_planned || existing.number > 1 {
                return Ok(existing);
            }
            // The file was corrected. A key that may exist on the token under the old id is no more
            // looked for.
            let changed = connection.execute(
                "UPDATE generation SET parent = ?2, token = ?3, key_type = ?4, key_id = ?5
                 WHERE id = ?1 AND state = 'planned' AND spki IS NULL",
                params![
                    existing.id,
                    plan.parent,
                    plan.token,
                    plan.key_type.name(),
                    plan.key_id
                ],
            )?;
            match (changed, newest(connection, &plan.authority)?) {
                (1, Some(corrected)) => Ok(corrected),
                _ => Err(StoreError::Conflict(format!(
                    "authority {} was begun on another token, with another kind of key or below \
                     another issuer, and has its key already; write the file as it was",
                    plan.authority
                ))),
            }
        })
    }

    /// Records the public key that the token made for a planned generation, and the key itself if
    /// the token keeps it outside.
    pub fn record_key(
        &self,
        generation: i64,
        spki: Vec<u8>,
        wrapped: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE generation SET spki = ?2, key_wrapped = ?3
                 WHERE id = ?1 AND (spki IS NULL OR (spki = ?2 AND key_wrapped IS ?3))",
                params![generation, spki, wrapped],
            )?;
            match changed {
                1 => Ok(()),
                _ => Err(StoreError::Conflict(format!(
                    "generation {generation} has another key on record"
                ))),
            }
        })
    }
}

impl Store {
    /// The generation by which an authority signs now.
    pub fn serving_generation(&self, authority: &str) -> Result<Option<i64>, StoreError> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT id FROM generation WHERE authority = ?1 AND state = 'serving'",
                )?
                .query_row([authority], |row| row.get(0))
                .optional()?)
        })
    }
}

/// Whether it is the one by which its authority signs now.
pub(super) fn serves(connection: &Connection, generation: i64) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT state = 'serving' FROM generation WHERE id = ?1")?
        .query_row([generation], |row| row.get(0))?)
}

/// The generation whose certificate was just recorded: the first one of its authority serves, any
/// other one is staged.
pub(super) fn certify(
    connection: &Connection,
    generation: i64,
    certificate: i64,
) -> Result<(), StoreError> {
    let changed = connection.execute(
        "UPDATE generation
         SET certificate = ?2, state = CASE number WHEN 1 THEN 'serving' ELSE 'staged' END
         WHERE id = ?1 AND state = 'planned'",
        params![generation, certificate],
    )?;
    match changed {
        1 => Ok(()),
        _ => Err(StoreError::Conflict(format!(
            "generation {generation} is certified already"
        ))),
    }
}

/// Plans the next generation of an authority, or finds the one that an interrupted roll has planned.
pub(super) fn plan_next(
    connection: &Connection,
    plan: &PlannedGeneration,
    at: i64,
) -> Result<GenerationRow, StoreError> {
    let newest = newest(connection, &plan.authority)?
        .ok_or_else(|| StoreError::Missing(format!("generation of {}", plan.authority)))?;
    match newest.state {
        GenerationState::Staged if newest.parent == plan.parent && newest.revoked_at.is_none() => {
            Ok(newest)
        }
        GenerationState::Planned => {
            connection.execute(
                "UPDATE generation SET parent = ?2 WHERE id = ?1",
                params![newest.id, plan.parent],
            )?;
            Ok(GenerationRow {
                parent: plan.parent,
                ..newest
            })
        }
        GenerationState::Staged => {
            // It is revoked, or the one above it is another one by now: nobody will use it.
            possession::remove(connection, newest.id, at)?;
            retire(connection, newest.id)?;
            insert(connection, newest.number + 1, plan)
        }
        _ => insert(connection, newest.number + 1, plan),
    }
}

/// The staged generation signs from now on, and no other of its authority.
pub(super) fn serve(connection: &Connection, generation: i64) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE generation SET state = 'retired' WHERE state = 'serving' AND id <> ?1
           AND authority = (SELECT authority FROM generation WHERE id = ?1)",
        [generation],
    )?;
    let changed = connection.execute(
        "UPDATE generation SET state = 'serving' WHERE id = ?1 AND state = 'staged'",
        [generation],
    )?;
    match changed {
        1 => Ok(()),
        _ => Err(StoreError::Conflict(format!(
            "generation {generation} is not staged"
        ))),
    }
}

/// A generation signs no more, or shall not be made after all.
pub(super) fn retire(connection: &Connection, generation: i64) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE generation SET state = 'retired' WHERE id = ?1",
        [generation],
    )?;
    Ok(())
}

fn insert(
    connection: &Connection,
    number: i64,
    plan: &PlannedGeneration,
) -> Result<GenerationRow, StoreError> {
    let label = format!("hallmark {} {number}", plan.authority);
    insert_with_label(connection, number, plan, &label)
}

/// Plans a generation whose key has this label.
pub(super) fn insert_with_label(
    connection: &Connection,
    number: i64,
    plan: &PlannedGeneration,
    key_label: &str,
) -> Result<GenerationRow, StoreError> {
    connection.execute(
        "INSERT INTO generation
             (authority, number, parent, token, key_type, key_label, key_id, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'planned')",
        params![
            plan.authority,
            number,
            plan.parent,
            plan.token,
            plan.key_type.name(),
            key_label,
            plan.key_id
        ],
    )?;
    newest(connection, &plan.authority)?
        .ok_or_else(|| StoreError::Missing(format!("generation of {}", plan.authority)))
}

pub(super) fn newest(
    connection: &Connection,
    authority: &str,
) -> Result<Option<GenerationRow>, StoreError> {
    let select = format!("{SELECT} WHERE g.authority = ?1 ORDER BY g.number DESC LIMIT 1");
    Ok(connection
        .prepare_cached(&select)?
        .query_row([authority], from_row)
        .optional()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<GenerationRow> {
    Ok(GenerationRow {
        id: row.get(0)?,
        authority: row.get(1)?,
        number: row.get(2)?,
        parent: row.get(3)?,
        token: row.get(4)?,
        key_type: row.get::<_, Stored<_>>(5)?.0,
        key_label: row.get(6)?,
        key_id: row.get(7)?,
        spki: row.get(8)?,
        certificate: row.get(9)?,
        certified_at: row.get(10)?,
        state: row.get(11)?,
        revoked_at: row.get(12)?,
        key_wrapped: row.get(13)?,
        request: match row.get::<_, Option<i64>>(14)? {
            None => None,
            Some(_) => Some(RequestRow {
                path_length: row.get(15)?,
                der: row.get(16)?,
                above: row.get(17)?,
            }),
        },
    })
}
