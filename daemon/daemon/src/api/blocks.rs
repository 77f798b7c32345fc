//! Serves `/v1/blocks`: blocks, and the receipt of each.

use super::asks::Asks;
use super::body::JsonBody;
use super::parts::{Path, Query};
use super::problem::Problem;
use super::{Api, pagination};
use crate::ca::authorize::{Inspect, Operate};
use crate::ca::exclusion::receipt::Receipt;
use crate::ca::{Code, Error};
use crate::ids::{BlockId, GenerationNumber};
use crate::store::{BlockKind, BlockRow, Excluded};
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

#[derive(Serialize, JsonSchema)]
pub(super) struct Block {
    id: BlockId,
    kind: BlockKind,
    /// Registration id, group id or authority.
    name: String,
    generation: Option<GenerationNumber>,
    reason: String,
    blocked_by: String,
    blocked_at: String,
    lifted_by: Option<String>,
    lifted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

impl From<BlockRow> for Block {
    fn from(row: BlockRow) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            name: row.name,
            generation: row.generation,
            reason: row.reason,
            blocked_by: row.blocked_by,
            blocked_at: row.blocked_at.to_string(),
            lifted_by: row.lifted_by,
            lifted_at: row.lifted_at.map(|it| it.to_string()),
            receipt: None,
        }
    }
}

/// The object of a block, and the reason for it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    kind: BlockKind,
    name: String,
    generation: Option<GenerationNumber>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    #[serde(default)]
    all: bool,
    after: Option<BlockId>,
    limit: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Subject {
    generation: Option<GenerationNumber>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Lifting {
    generation: Option<GenerationNumber>,
    #[serde(default)]
    reason: String,
}

pub(super) async fn list(
    Asks { api, .. }: Asks<Inspect>,
    Query(which): Query<Which>,
) -> Result<(HeaderMap, Json<Vec<Block>>), Problem> {
    let all = which.all;
    let limit = pagination::rows(which.limit);
    let blocks = api.application(move |ca| {
        let rows = ca.store().blocks(!all, which.after, limit)?;
        Ok(rows.into_iter().map(Block::from).collect())
    });
    let path = format!("/v1/blocks?all={all}");
    Ok(pagination::page(
        &path,
        blocks.await?,
        limit,
        |block: &Block| block.id,
    ))
}

/// Returns a block with its receipt so far.
pub(super) async fn show(
    Asks { api, .. }: Asks<Inspect>,
    Path((kind, name)): Path<(BlockKind, String)>,
    Query(subject): Query<Subject>,
) -> Result<Json<Block>, Problem> {
    let blocked = blocked(kind, name, subject.generation)?;
    let block = api.application(move |ca| {
        let row = ca.exclusions().active_block(&blocked)?;
        Ok(Block {
            receipt: Some(ca.exclusions().block_receipt(row.id)?),
            ..Block::from(row)
        })
    });
    Ok(Json(block.await?))
}

pub(super) async fn start(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    JsonBody(start): JsonBody<Start>,
) -> Result<(StatusCode, Json<Block>), Problem> {
    let blocked = blocked(start.kind, start.name, start.generation)?;
    let reason = reason(start.reason)?;
    let row = api
        .application(move |ca| ca.exclusions().block(&permission, &blocked, &reason))
        .await?;
    Ok((StatusCode::CREATED, Json(api.with_receipt(row).await?)))
}

pub(super) async fn lift(
    Asks {
        api, permission, ..
    }: Asks<Operate>,
    Path((kind, name)): Path<(BlockKind, String)>,
    Query(lifting): Query<Lifting>,
) -> Result<Json<Block>, Problem> {
    let blocked = blocked(kind, name, lifting.generation)?;
    let reason = reason(lifting.reason)?;
    let row = api
        .application(move |ca| ca.exclusions().unblock(&permission, &blocked, &reason))
        .await?;
    Ok(Json(api.with_receipt(row).await?))
}

impl Api {
    async fn with_receipt(&self, row: BlockRow) -> Result<Block, Problem> {
        let id = row.id;
        let receipt = self
            .receipt(move |ca| ca.exclusions().block_receipt(id))
            .await?;
        Ok(Block {
            receipt: Some(receipt),
            ..Block::from(row)
        })
    }
}

fn blocked(
    kind: BlockKind,
    name: String,
    generation: Option<GenerationNumber>,
) -> Result<Excluded, Error> {
    match (kind, generation) {
        (BlockKind::Device, None) => Ok(Excluded::Device(name)),
        (BlockKind::Group, None) => Ok(Excluded::Group(name)),
        (BlockKind::Generation, Some(number)) => Ok(Excluded::Generation(name, number)),
        (BlockKind::Generation, None) => Err(Error::invalid(
            Code::BlockInvalid,
            "say which generation; `hallmark authority list` has all",
        )),
        (_, Some(_)) => Err(Error::invalid(
            Code::BlockInvalid,
            "only an authority has generations; leave it out",
        )),
    }
}

fn reason(reason: String) -> Result<String, Error> {
    if reason.len() <= REASON_BYTES_MAX {
        return Ok(reason);
    }
    let message = format!("a reason has at most {REASON_BYTES_MAX} bytes");
    Err(Error::invalid(Code::ReasonTooLong, message))
}
