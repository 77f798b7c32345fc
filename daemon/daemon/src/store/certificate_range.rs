//! Summarises intents in ranges, so that a list of certificates reads only the ranges that may hold
//! what it looks for.
//!
//! An index on `intent` costs a page for each certificate that is issued, and lists are rare. A
//! range costs one row for [`INTENTS`] intents of one issuer and profile, it is written after they
//! have ended, and nothing that it says can change. A range that is not summarised yet counts as
//! one that holds everything: so a list is complete, however far the summary is.

use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds};
use crate::ids::{GenerationId, IntentId};
use std::collections::BTreeMap;

/// Intents in a range.
pub(super) const INTENTS: i64 = 64;
/// Ranges that are summarised in one transaction.
const RANGES_AT_ONCE: i64 = 64;

/// The intents of one issuer and profile in a range.
struct Summary {
    number: i64,
    issuer: GenerationId,
    profile: String,
    not_after: (UnixSeconds, UnixSeconds),
    issued_max: UnixSeconds,
    abandoned: bool,
}

/// The criteria that a range must fit.
#[derive(Clone, Debug)]
pub(super) struct RangeFilter {
    pub(super) profile: Option<String>,
    /// Any of these.
    pub(super) issuers: Option<Vec<GenerationId>>,
    pub(super) not_after: (UnixSeconds, UnixSeconds),
    pub(super) issued_since: UnixSeconds,
    pub(super) abandoned: bool,
}

impl Store {
    /// Summarises the ranges whose intents have all ended since the last time. Returns how many
    /// rows that made.
    pub fn summarise_certificates(&self) -> Result<usize, StoreError> {
        let mut made = 0;
        loop {
            let next = self.read(next)?;
            if next.is_empty() {
                return Ok(made);
            }
            made += next.len();
            self.write(move |tx| next.iter().try_for_each(|it| insert(tx, it)))?;
        }
    }
}

/// Returns the number of the range that holds an intent.
pub(super) fn range_of(intent: i64) -> i64 {
    intent.div_euclid(INTENTS)
}

/// Returns the first and the last intent of a range.
pub(super) fn intents_of(number: i64) -> (IntentId, IntentId) {
    let first = number.saturating_mul(INTENTS);
    let last = first.saturating_add(INTENTS - 1);
    (IntentId::new(first), IntentId::new(last))
}

/// Returns the first range that is not summarised.
pub(super) fn unsummarised(tx: &Tx<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(max(number) + 1, 0) FROM certificate_range";
    tx.query_one(sql, params![], |row| row.get(0))
}

/// The questions for the next range, and the answers that still hold: each issuer is asked again
/// only when the list has come to the range that it named.
pub(super) struct LastRanges<'a> {
    filter: &'a RangeFilter,
    /// The last answer for each issuer; `None` if it has no range further on.
    of_issuers: BTreeMap<GenerationId, Option<i64>>,
    /// How many queries were made.
    pub(super) asked: u32,
}

impl<'a> LastRanges<'a> {
    pub(super) fn new(filter: &'a RangeFilter) -> Self {
        Self {
            filter,
            of_issuers: BTreeMap::new(),
            asked: 0,
        }
    }

    /// Returns the last range up to `number` that may hold what the filter wants. `number` only
    /// falls from call to call.
    pub(super) fn last(&mut self, tx: &Tx<'_>, number: i64) -> Result<Option<i64>, StoreError> {
        let filter = self.filter;
        let Some(issuers) = &filter.issuers else {
            self.asked += 1;
            let sql = filter.profile.as_ref().map_or(ALL, |_| OF_PROFILE);
            return last_by(tx, sql, filter, number, None);
        };
        let mut found = None;
        for issuer in issuers {
            let answer = match self.of_issuers.get(issuer) {
                Some(None) => None,
                Some(Some(known)) if *known <= number => Some(*known),
                _ => {
                    self.asked += 1;
                    last_by(tx, OF_ISSUER, filter, number, Some(*issuer))?
                }
            };
            self.of_issuers.insert(*issuer, answer);
            found = found.max(answer);
        }
        Ok(found)
    }
}

macro_rules! last_range {
    ($index:literal) => {
        concat!(
            "SELECT number FROM certificate_range ",
            $index,
            " AND number <= ?1 AND not_after_max >= ?2 AND not_after_min <= ?3
               AND issued_max >= ?4 AND abandoned >= ?5
             ORDER BY number DESC LIMIT 1"
        )
    };
}

/// `?6` is the profile, and `?7` the issuer; either may be null.
pub(super) const ALL: &str = last_range!("WHERE ?6 IS NULL AND ?7 IS NULL");
pub(super) const OF_PROFILE: &str =
    last_range!("INDEXED BY certificate_range_profile WHERE profile = ?6 AND ?7 IS NULL");
pub(super) const OF_ISSUER: &str = last_range!(
    "INDEXED BY certificate_range_issuer WHERE (?6 IS NULL OR profile = ?6) AND issuer = ?7"
);

fn last_by(
    tx: &Tx<'_>,
    sql: &str,
    filter: &RangeFilter,
    number: i64,
    issuer: Option<GenerationId>,
) -> Result<Option<i64>, StoreError> {
    let (from, until) = filter.not_after;
    let values = params![
        number,
        from,
        until,
        filter.issued_since,
        filter.abandoned,
        filter.profile,
        issuer
    ];
    tx.query_optional(sql, values, |row| row.get(0))
}

/// Returns the next ranges whose intents have all ended. The end of an intent is final.
fn next(tx: &Tx<'_>) -> Result<Vec<Summary>, StoreError> {
    // An open intent and all after it wait.
    let ended: i64 = tx.query_one(
        "SELECT coalesce((SELECT min(intent) FROM open_intent),
                         (SELECT max(id) + 1 FROM intent), 0) / ?1",
        params![INTENTS],
        |row| row.get(0),
    )?;
    let begin = unsummarised(tx)?;
    let end = ended.min(begin + RANGES_AT_ONCE);
    if end <= begin {
        return Ok(Vec::new());
    }
    tx.query_all(
        "SELECT i.id / ?1, i.issuer, i.profile, min(i.not_after), max(i.not_after),
                max(coalesce(c.issued_at, i.recorded_at)), coalesce(max(i.ended = 'abandoned'), 0)
         FROM intent i LEFT JOIN certificate c ON c.intent = i.id
         WHERE i.id >= ?2 AND i.id < ?3 GROUP BY 1, 2, 3",
        params![INTENTS, begin * INTENTS, end * INTENTS],
        from_row,
    )
}

fn insert(tx: &Tx<'_>, it: &Summary) -> Result<(), StoreError> {
    tx.execute_apart(
        "INSERT INTO certificate_range
             (number, issuer, profile, not_after_min, not_after_max, issued_max, abandoned)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        params![
            it.number,
            it.issuer,
            it.profile,
            it.not_after.0,
            it.not_after.1,
            it.issued_max,
            it.abandoned
        ],
    )?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<Summary, StoreError> {
    Ok(Summary {
        number: row.get(0)?,
        issuer: row.get(1)?,
        profile: row.get(2)?,
        not_after: (row.get(3)?, row.get(4)?),
        issued_max: row.get(5)?,
        abandoned: row.get(6)?,
    })
}
