//! Finds the exclusions that the daemon has carried out, and that an operator has to finish: their
//! receipts have open places.
//!
//! An exclusion with a place that is pending has an alarm of its own ([`super::pending`]).

use super::Exclusions;
use super::place::{Place, PlaceState};
use super::receipt::Receipt;
use crate::ca::Error;
use crate::store::BlockRow;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;

/// The most blocks, and the most compromises, whose receipts are read: the newest ones.
const READ_MAX: u32 = 20;
/// The most pending blocks that are left out.
const PENDING_MAX: u32 = 1_000;

/// An exclusion with open places.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OpenReceipt {
    /// The exclusion in words, such as `the block of device press-7`.
    pub exclusion: String,
    pub since: String,
    /// The command that shows its receipt.
    pub command: String,
    /// The open places, each with what the operator must do.
    pub places: Vec<Place>,
}

impl OpenReceipt {
    fn of(receipt: Receipt, exclusion: String, since: String, command: String) -> Option<Self> {
        let mut places = receipt.places;
        places.retain(|it| it.state == PlaceState::Open);
        (!places.is_empty()).then_some(Self {
            exclusion,
            since,
            command,
            places,
        })
    }

    /// Returns true if the daemon observes one of the places, and so the end of what it asks for.
    pub fn can_be_finished(&self) -> bool {
        self.places.iter().any(|it| it.code.is_observed())
    }

    /// Returns it as a sentence.
    pub fn in_words(&self) -> String {
        let Self {
            exclusion, command, ..
        } = self;
        let count = match self.places.len() {
            1 => "1 open place".to_owned(),
            count => format!("{count} open places"),
        };
        format!("{exclusion} has {count}; `{command}` says what to do there")
    }
}

impl Exclusions {
    /// Returns the blocks in force, and the compromises without their new certificates, that are
    /// excluded at every place but open ones.
    pub(in crate::ca) fn open_receipts(&self) -> Result<Vec<OpenReceipt>, Error> {
        let pending = self.store.pending_blocks(PENDING_MAX)?;
        let pending: BTreeSet<_> = pending.into_iter().map(|it| it.id).collect();
        let mut blocks = self.store.blocks(true, None, READ_MAX)?;
        blocks.retain(|it| !pending.contains(&it.id));
        let mut open = Vec::new();
        for block in blocks {
            let receipt = self.block_receipt(block.id)?;
            let (exclusion, command) = named(&block);
            let since = block.blocked_at.to_string();
            open.extend(OpenReceipt::of(receipt, exclusion, since, command));
        }
        for roll in self.store.excluded_compromises(READ_MAX)? {
            let Some(receipt) = self.roll_receipt(roll.id)? else {
                continue;
            };
            let exclusion = format!("the compromise of {}", roll.subject.name());
            let command = format!("hallmark roll show {}", roll.id);
            let since = roll.started_at.to_string();
            open.extend(OpenReceipt::of(receipt, exclusion, since, command));
        }
        Ok(open)
    }
}

fn named(block: &BlockRow) -> (String, String) {
    let kind = block.kind.name();
    let name = &block.name;
    let number = block.generation;
    let generation = number.map_or(String::new(), |it| format!(" --generation {it}"));
    let which = number.map_or(String::new(), |it| format!(" {it}"));
    (
        format!("the block of {kind} {name}{which}"),
        format!("hallmark block show {kind} {name}{generation}"),
    )
}
