//! Records the generations of authorities: planned, with a key, certified, serving, retired.
//!
//! An authority has at most one generation that serves and one that is the next.

use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds, certificate, possession};
use crate::der_bytes::Der;
use crate::ids::{GenerationId, GenerationNumber, IntentId};
use crate::x509::crl_partition::CrlPartitions;
use crate::x509::key::KeyType;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;

/// The state of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GenerationState {
    /// Has no certificate yet; may have a key.
    Planned,
    /// Has its certificate; signs only its own canary and proof of possession.
    Staged,
    Serving,
    /// Signs no certificates any more. Its certificate remains for chains and revocation lists.
    Retired,
}

impl GenerationState {
    /// The name on record.
    pub fn name(self) -> &'static str {
        match self {
            GenerationState::Planned => "planned",
            GenerationState::Staged => "staged",
            GenerationState::Serving => "serving",
            GenerationState::Retired => "retired",
        }
    }
}

/// A generation that a ceremony or a roll is going to make, recorded before its key exists.
#[derive(Clone, Debug)]
pub struct PlannedGeneration {
    pub authority: String,
    /// The generation that signs it; `None` for a self-signed root.
    pub parent: Option<GenerationId>,
    /// The name in the configuration of the token that will hold the key.
    pub token: String,
    /// The kind of key.
    pub key_type: KeyType,
    /// `CKA_ID`: random, so that a resumed ceremony finds exactly its own key.
    pub key_id: Vec<u8>,
}

/// A generation on record.
#[derive(Clone, Debug)]
pub struct GenerationRow {
    /// The generation's row id.
    pub id: GenerationId,
    pub authority: String,
    pub number: GenerationNumber,
    /// The generation that signed it; `None` for a self-signed root.
    pub parent: Option<GenerationId>,
    /// The token that holds the key.
    pub token: String,
    /// The kind of key.
    pub key_type: KeyType,
    pub key_label: String,
    pub key_id: Vec<u8>,
    /// `None` until the key exists.
    pub spki: Option<Der>,
    /// The encrypted key, for a token that stores its keys outside.
    pub key_wrapped: Option<Vec<u8>>,
    /// `None` until it is recorded.
    pub certificate: Option<Der>,
    /// When it was certified.
    pub certified_at: Option<UnixSeconds>,
    /// How far it is.
    pub state: GenerationState,
    /// When its certificate was revoked; a revoked generation signs nothing.
    pub revoked_at: Option<UnixSeconds>,
    /// The request to its issuer, if the issuer is elsewhere.
    pub request: Option<RequestRow>,
    /// The chain of a certificate whose issuer is elsewhere: PEM, the issuer's first.
    pub above: Option<String>,
    /// The partitions of its revocation list, if it has some.
    pub crl_partitions: Option<CrlPartitions>,
}

/// A request to an issuer elsewhere.
#[derive(Clone, Debug)]
pub struct RequestRow {
    /// The path length that the issuer must allow.
    pub path_length: Option<u8>,
    /// `None` until it is signed.
    pub der: Option<Der>,
}

const SELECT: &str = "SELECT g.id, g.authority, g.number, g.parent, g.token, g.key_type, \
     g.key_label, g.key_id, g.spki, i.tbs, c.issued_at, g.state, c.revoked_at, g.key_wrapped, \
     r.generation, r.path_length, r.der, g.above, c.signature, g.crl_parts, g.crl_address \
     FROM generation g LEFT JOIN certificate c ON c.intent = g.certificate \
     LEFT JOIN intent i ON i.id = c.intent \
     LEFT JOIN request r ON r.generation = g.id";

impl Store {
    /// Returns every generation, issuers before what they sign.
    pub fn generations(&self) -> Result<Vec<GenerationRow>, StoreError> {
        self.read(all)
    }

    /// Plans the first generation of an authority. Returns the existing generation if the authority
    /// has one, so that no second key is made.
    pub fn plan_generation(&self, plan: PlannedGeneration) -> Result<GenerationRow, StoreError> {
        self.write(move |tx| {
            let Some(existing) = newest(tx, &plan.authority)? else {
                return insert(tx, GenerationNumber::FIRST, &plan);
            };
            let as_planned = (existing.parent, &existing.token, existing.key_type)
                == (plan.parent, &plan.token, plan.key_type);
            if as_planned || existing.number > GenerationNumber::FIRST {
                return Ok(existing);
            }
            // The file was corrected. A key that may exist under the old id is abandoned.
            let changed = tx.execute(
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
            match (changed, newest(tx, &plan.authority)?) {
                (1, Some(corrected)) => Ok(corrected),
                _ => Err(StoreError::Conflict(format!(
                    "authority {} was begun on another token, with another kind of key or below \
                     another issuer, and has its key already; write the file as it was",
                    plan.authority
                ))),
            }
        })
    }

    /// Records into which partitions the revocation list of a generation will be split. A
    /// generation with a key keeps what it has, because its certificates name their list.
    pub fn record_crl_partitions(
        &self,
        generation: GenerationId,
        partitions: Option<CrlPartitions>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let count = partitions.as_ref().map_or(1, |it| it.count);
            let address = partitions.as_ref().map(|it| &it.address);
            let changed = tx.execute(
                "UPDATE generation SET crl_parts = ?2, crl_address = ?3
                 WHERE id = ?1 AND spki IS NULL",
                params![generation, count, address],
            )?;
            if changed == 0 {
                return Ok(());
            }
            tx.execute(
                "DELETE FROM crl_partition WHERE generation = ?1",
                params![generation],
            )?;
            for part in (1..=count).filter(|_| count > 1) {
                tx.execute(
                    "INSERT INTO crl_partition (generation, part) VALUES (?1, ?2)",
                    params![generation, part],
                )?;
            }
            Ok(())
        })
    }

    /// Records the public key that the token made for a planned generation, and the encrypted key
    /// if the token stores its keys outside.
    pub fn record_key(
        &self,
        generation: GenerationId,
        spki: Der,
        wrapped: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE generation SET spki = ?2, key_wrapped = ?3
                 WHERE id = ?1 AND (
                     spki IS NULL OR (spki = ?2 AND key_wrapped IS NOT DISTINCT FROM ?3))",
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
    /// Returns the generations that have not expired, and by which devices may have leaves.
    pub fn signed_generations(
        &self,
        now: UnixSeconds,
    ) -> Result<BTreeSet<GenerationId>, StoreError> {
        self.read(|tx| signed(tx, now))
    }

    /// Returns the generation by which an authority signs.
    pub fn serving_generation(&self, authority: &str) -> Result<Option<GenerationId>, StoreError> {
        self.read(|tx| {
            tx.query_optional(
                "SELECT id FROM generation WHERE authority = ?1 AND state = 'serving'",
                params![authority],
                |row| row.get(0),
            )
        })
    }
}

/// Returns the generations that have not expired, and by which devices may have leaves: each that
/// serves, and each with a leaf, another generation or an authority elsewhere below it.
pub(super) fn signed(tx: &Tx<'_>, now: UnixSeconds) -> Result<BTreeSet<GenerationId>, StoreError> {
    let ids = tx.query_all(
        "SELECT g.id FROM generation g JOIN intent i ON i.id = g.certificate
         WHERE i.not_after >= ?1 AND (g.state = 'serving'
             OR EXISTS (SELECT 1 FROM generation it WHERE it.parent = g.id)
             OR EXISTS (SELECT 1 FROM intent l WHERE l.purpose = 'leaf' AND l.issuer = g.id
                          AND l.not_after >= ?1 AND l.role = 'device')
             OR EXISTS (SELECT 1 FROM intent s WHERE s.purpose = 'subordinate'
                          AND s.issuer = g.id AND s.not_after >= ?1))",
        params![now],
        |row| row.get(0),
    )?;
    Ok(ids.into_iter().collect())
}

/// Returns true if its authority signs by this generation.
pub(super) fn serves(tx: &Tx<'_>, generation: GenerationId) -> Result<bool, StoreError> {
    tx.query_one(
        "SELECT state = 'serving' FROM generation WHERE id = ?1",
        params![generation],
        |row| row.get(0),
    )
}

/// Adds the recorded certificate to a generation. The first generation of an authority serves then,
/// a later one is staged.
pub(super) fn certify(
    tx: &Tx<'_>,
    generation: GenerationId,
    certificate: IntentId,
) -> Result<(), StoreError> {
    let changed = tx.execute(
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

/// Records the chain of a certificate whose issuer is elsewhere, once.
pub(super) fn record_chain(
    tx: &Tx<'_>,
    generation: GenerationId,
    above: &str,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE generation SET above = ?2 WHERE id = ?1",
        params![generation, above],
    )?;
    Ok(())
}

/// Returns the name of the authority whose generation has this key, and the generation's number.
pub(super) fn with_key(
    tx: &Tx<'_>,
    spki: &[u8],
) -> Result<Option<(String, GenerationNumber)>, StoreError> {
    tx.query_optional(
        "SELECT authority, number FROM generation WHERE spki = ?1",
        params![spki],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Plans the next generation of an authority, or returns the one that an interrupted roll has
/// planned.
pub(super) fn plan_next(
    tx: &Tx<'_>,
    plan: &PlannedGeneration,
    at: UnixSeconds,
) -> Result<GenerationRow, StoreError> {
    let newest = newest(tx, &plan.authority)?
        .ok_or_else(|| StoreError::Missing(format!("generation of {}", plan.authority)))?;
    match newest.state {
        GenerationState::Staged if newest.parent == plan.parent && newest.revoked_at.is_none() => {
            Ok(newest)
        }
        GenerationState::Planned
            if (&newest.token, newest.key_type) == (&plan.token, plan.key_type) =>
        {
            tx.execute(
                "UPDATE generation SET parent = ?2 WHERE id = ?1",
                params![newest.id, plan.parent],
            )?;
            Ok(GenerationRow {
                parent: plan.parent,
                ..newest
            })
        }
        GenerationState::Planned => {
            // The configuration names another token, or the roll another kind of key.
            retire(tx, newest.id)?;
            insert(tx, newest.number.next(), plan)
        }
        GenerationState::Staged => {
            // It is revoked or has another issuer than the plan, so it will never serve.
            possession::remove(tx, newest.id, at)?;
            retire(tx, newest.id)?;
            insert(tx, newest.number.next(), plan)
        }
        _ => insert(tx, newest.number.next(), plan),
    }
}

/// Cuts over: the staged generation serves, and the one that served is retired.
pub(super) fn serve(tx: &Tx<'_>, generation: GenerationId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE generation SET state = 'retired' WHERE state = 'serving' AND id <> ?1
         AND authority = (SELECT authority FROM generation WHERE id = ?1)",
        params![generation],
    )?;
    let changed = tx.execute(
        "UPDATE generation SET state = 'serving' WHERE id = ?1 AND state = 'staged'",
        params![generation],
    )?;
    match changed {
        1 => Ok(()),
        _ => Err(StoreError::Conflict(format!(
            "generation {generation} is not staged"
        ))),
    }
}

/// Retires a generation, also one that is not made in the end.
pub(super) fn retire(tx: &Tx<'_>, generation: GenerationId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE generation SET state = 'retired' WHERE id = ?1",
        params![generation],
    )?;
    Ok(())
}

fn insert(
    tx: &Tx<'_>,
    number: GenerationNumber,
    plan: &PlannedGeneration,
) -> Result<GenerationRow, StoreError> {
    let label = format!("hallmark {} {number}", plan.authority);
    insert_with_label(tx, number, plan, &label)
}

/// Plans a generation whose key has this label.
pub(super) fn insert_with_label(
    tx: &Tx<'_>,
    number: GenerationNumber,
    plan: &PlannedGeneration,
    key_label: &str,
) -> Result<GenerationRow, StoreError> {
    tx.execute(
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
    newest(tx, &plan.authority)?
        .ok_or_else(|| StoreError::Missing(format!("generation of {}", plan.authority)))
}

pub(super) fn all(tx: &Tx<'_>) -> Result<Vec<GenerationRow>, StoreError> {
    tx.query_all(&format!("{SELECT} ORDER BY g.id"), params![], from_row)
}

pub(super) fn newest(tx: &Tx<'_>, authority: &str) -> Result<Option<GenerationRow>, StoreError> {
    let select = format!("{SELECT} WHERE g.authority = ?1 ORDER BY g.number DESC LIMIT 1");
    tx.query_optional(&select, params![authority], from_row)
}

fn from_row(row: &Row<'_>) -> Result<GenerationRow, StoreError> {
    Ok(GenerationRow {
        id: row.get(0)?,
        authority: row.get(1)?,
        number: row.get(2)?,
        parent: row.get(3)?,
        token: row.get(4)?,
        key_type: row.get(5)?,
        key_label: row.get(6)?,
        key_id: row.get(7)?,
        spki: row.get(8)?,
        certificate: certificate::optional_der(row, 9, 18)?,
        certified_at: row.get(10)?,
        state: row.get(11)?,
        revoked_at: row.get(12)?,
        key_wrapped: row.get(13)?,
        request: match row.get::<Option<GenerationId>>(14)? {
            None => None,
            Some(_) => Some(RequestRow {
                path_length: row.get(15)?,
                der: row.get(16)?,
            }),
        },
        above: row.get(17)?,
        crl_partitions: match row.get::<Option<String>>(20)? {
            None => None,
            Some(address) => Some(CrlPartitions {
                count: row.get(19)?,
                address,
            }),
        },
    })
}
