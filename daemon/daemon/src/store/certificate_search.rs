//! Finds certificates, and abandoned intents, by what is known of them: newest first, in pages.
//!
//! A name, a serial number and a digest have indexes. Everything else is looked for range by range
//! ([`super::certificate_range`]): a range is read if each criterion may fit there. One answer
//! reads [`RANGES_READ_MAX`] ranges at most, and says where to go on.

use super::certificate_range::{self as range, LastRanges, RangeFilter};
use super::engine::{Parameters, Row, Tx, params};
use super::json::to_json;
use super::{Store, StoreError, UnixSeconds};
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, IntentId};
use crate::x509::revocation::RevocationReason;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most ranges that one answer reads.
const RANGES_READ_MAX: u32 = 1_000;
/// The most questions for the next range in one answer.
const STEPS_MAX: u32 = 4 * RANGES_READ_MAX;

/// The state of a certificate, or of an intent without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    Valid,
    Expired,
    /// For good, expired or not.
    Revoked,
    OnHold,
    /// The certificate of a generation above it is revoked, and its own is not.
    IssuerRevoked,
    /// An intent without a certificate: its serial number is used up.
    Abandoned,
}

impl CertificateState {
    /// Returns the state of a certificate. `below_revoked` is whether a generation above it is
    /// revoked.
    pub fn of(
        revoked: Option<(UnixSeconds, RevocationReason)>,
        not_after: UnixSeconds,
        now: UnixSeconds,
        below_revoked: bool,
    ) -> Self {
        match revoked {
            Some((_, reason)) if reason.is_final() => Self::Revoked,
            Some(_) => Self::OnHold,
            None if not_after < now => Self::Expired,
            None if below_revoked => Self::IssuerRevoked,
            None => Self::Valid,
        }
    }
}

/// The criteria of a list; everything that is named must fit.
#[derive(Clone, Debug)]
pub struct CertificateFilter {
    /// The common name, in any spelling.
    pub subject: Option<String>,
    pub role: Option<Role>,
    pub serial: Option<Vec<u8>>,
    pub sha256: Option<[u8; 32]>,
    pub profile: Option<String>,
    /// Any of these.
    pub issuers: Option<Vec<GenerationId>>,
    /// Generations that have signed their own certificates. Other certificates that were issued
    /// elsewhere are of none of the issuers.
    pub self_signed: Vec<GenerationId>,
    pub state: Option<CertificateState>,
    /// The first and the last end of a validity.
    pub not_after: (UnixSeconds, UnixSeconds),
    pub issued_since: Option<UnixSeconds>,
    /// Generations that are revoked, or below a revoked one.
    pub revoked_issuers: Vec<GenerationId>,
    pub now: UnixSeconds,
    /// Only older ones than this.
    pub before: IntentId,
    pub limit: u32,
}

/// A certificate in a list, or an abandoned intent.
#[derive(Clone, Debug)]
pub struct ListedCertificate {
    pub intent: IntentId,
    pub serial: Vec<u8>,
    pub issuer: GenerationId,
    pub profile: String,
    pub subject: String,
    pub role: Option<Role>,
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
    /// The caller who asked for it.
    pub caller: String,
    pub recorded_at: UnixSeconds,
    pub signed_elsewhere: bool,
    /// It has signed itself, or no generation on record has: `issuer` is the certified one.
    pub issued_elsewhere: bool,
    /// An abandoned intent has no certificate.
    pub sha256: Option<[u8; 32]>,
    pub issued_at: Option<UnixSeconds>,
    pub revoked: Option<(UnixSeconds, RevocationReason)>,
    pub state: CertificateState,
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct CertificatePage {
    pub rows: Vec<ListedCertificate>,
    /// The next page has what is older than this; `None` if there is no more.
    pub next: Option<IntentId>,
}

impl Store {
    /// Returns the next certificates that fit the filter. A page may have fewer rows than the limit
    /// and be followed by more.
    pub fn search_certificates(
        &self,
        filter: &CertificateFilter,
    ) -> Result<CertificatePage, StoreError> {
        self.read(|tx| Search::new(filter)?.page(tx))
    }
}

/// A filter in the form of the queries.
struct Search<'a> {
    filter: &'a CertificateFilter,
    ranges: RangeFilter,
    issuers: Option<String>,
    self_signed: String,
    revoked_issuers: String,
    /// The query of the rows of a range.
    in_range: String,
}

impl<'a> Search<'a> {
    fn new(filter: &'a CertificateFilter) -> Result<Self, StoreError> {
        let (mut from, mut until) = filter.not_after;
        match filter.state {
            Some(CertificateState::Valid | CertificateState::IssuerRevoked) => {
                from = from.max(filter.now);
            }
            Some(CertificateState::Expired) => until = until.min(filter.now.saturating_sub(1)),
            _ => {}
        }
        let issuers = match filter.state {
            Some(CertificateState::IssuerRevoked) if filter.issuers.is_none() => {
                Some(filter.revoked_issuers.clone())
            }
            _ => filter.issuers.clone(),
        };
        Ok(Self {
            issuers: issuers.as_ref().map(to_json).transpose()?,
            self_signed: to_json(&filter.self_signed)?,
            revoked_issuers: to_json(&filter.revoked_issuers)?,
            ranges: RangeFilter {
                profile: filter.profile.clone(),
                issuers,
                not_after: (from, until),
                issued_since: filter.issued_since.unwrap_or(UnixSeconds::MIN),
                abandoned: filter.state == Some(CertificateState::Abandoned),
            },
            in_range: select(IN_RANGE, filter.state),
            filter,
        })
    }

    fn page(&self, tx: &Tx<'_>) -> Result<CertificatePage, StoreError> {
        let filter = self.filter;
        let key = if filter.sha256.is_some() {
            BY_SHA256
        } else if filter.serial.is_some() {
            BY_SERIAL
        } else if filter.subject.is_some() {
            BY_SUBJECT
        } else {
            return self.page_of_ranges(tx);
        };
        let last = IntentId::new(filter.before.get().saturating_sub(1));
        let sql = select(key, filter.state);
        let rows = self.rows(tx, &sql, (IntentId::START, last), filter.limit)?;
        Ok(page(rows, filter.limit, None))
    }

    fn page_of_ranges(&self, tx: &Tx<'_>) -> Result<CertificatePage, StoreError> {
        let limit = self.filter.limit;
        let newest = "SELECT coalesce(max(id), 0) FROM intent";
        let newest: i64 = tx.query_one(newest, params![], |row| row.get(0))?;
        let last = newest.min(self.filter.before.get().saturating_sub(1));
        let unsummarised = range::unsummarised(tx)?;
        let mut last_ranges = LastRanges::new(&self.ranges);
        let mut number = range::range_of(last);
        let mut rows = Vec::new();
        let mut ranges = 0;
        for _ in 0..STEPS_MAX {
            let Some(next) = self.last_range(tx, &mut last_ranges, number, unsummarised)? else {
                return Ok(page(rows, limit, None));
            };
            if next < number {
                number = next;
                continue;
            }
            let (first, end) = range::intents_of(number);
            let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(limit));
            let end = end.min(IntentId::new(last));
            rows.extend(self.rows(tx, &self.in_range, (first, end), left)?);
            if rows.len() >= limit as usize {
                return Ok(page(rows, limit, None));
            }
            number -= 1;
            ranges += 1;
            if ranges == RANGES_READ_MAX {
                break;
            }
        }
        Ok(page(rows, limit, Some(range::intents_of(number + 1).0)))
    }

    /// Returns the last range up to `number` that one of the criteria names. All of them fit that
    /// range if it is `number`.
    fn last_range(
        &self,
        tx: &Tx<'_>,
        ranges: &mut LastRanges<'_>,
        number: i64,
        unsummarised: i64,
    ) -> Result<Option<i64>, StoreError> {
        if number < 0 {
            return Ok(None);
        }
        if number >= unsummarised {
            return self.last_revoked(tx, number);
        }
        match ranges.last(tx, number)? {
            Some(found) => self.last_revoked(tx, found),
            None => Ok(None),
        }
    }

    /// Returns the last range up to `number` with a revoked certificate, if those are looked for.
    fn last_revoked(&self, tx: &Tx<'_>, number: i64) -> Result<Option<i64>, StoreError> {
        match self.filter.state {
            Some(CertificateState::Revoked | CertificateState::OnHold) => {}
            _ => return Ok(Some(number)),
        }
        let (_, end) = range::intents_of(number);
        let last: Option<i64> = tx.query_one(LAST_REVOKED, params![end], |row| row.get(0))?;
        Ok(last.map(range::range_of))
    }

    fn rows(
        &self,
        tx: &Tx<'_>,
        sql: &str,
        (first, last): (IntentId, IntentId),
        limit: u32,
    ) -> Result<Vec<ListedCertificate>, StoreError> {
        let filter = self.filter;
        let values: Parameters<'_> = params![
            first,
            last,
            filter.profile,
            self.issuers,
            self.ranges.not_after.0,
            self.ranges.not_after.1,
            filter.issued_since,
            filter.role.map(Role::name),
            self.revoked_issuers,
            limit,
            filter.subject,
            filter.serial,
            filter.sha256,
            self.self_signed,
        ];
        tx.query_all(sql, values, |row| self.read(row))
    }

    fn read(&self, row: &Row<'_>) -> Result<ListedCertificate, StoreError> {
        // A date without a reason is unreadable, never good.
        let revoked = match row.get::<Option<UnixSeconds>>(11)? {
            Some(since) => Some((since, row.get(12)?)),
            None => None,
        };
        let mut listed = ListedCertificate {
            intent: row.get(0)?,
            serial: row.get(1)?,
            issuer: row.get(2)?,
            profile: row.get(3)?,
            subject: row.get(4)?,
            role: row.get(5)?,
            not_before: row.get(6)?,
            not_after: row.get(7)?,
            caller: row.get(8)?,
            recorded_at: row.get(13)?,
            signed_elsewhere: row.get(14)?,
            issued_elsewhere: row.get(15)?,
            sha256: row.get(9)?,
            issued_at: row.get(10)?,
            revoked,
            state: CertificateState::Valid,
        };
        listed.state = self.state(&listed);
        Ok(listed)
    }

    fn state(&self, of: &ListedCertificate) -> CertificateState {
        if of.sha256.is_none() {
            return CertificateState::Abandoned;
        }
        let below_revoked = self.filter.revoked_issuers.contains(&of.issuer);
        CertificateState::of(of.revoked, of.not_after, self.filter.now, below_revoked)
    }
}

/// `next` is where to go on although the page is not full.
fn page(rows: Vec<ListedCertificate>, limit: u32, next: Option<IntentId>) -> CertificatePage {
    let last = rows.last().map(|it| it.intent);
    let full = rows.len() >= limit as usize;
    CertificatePage {
        next: last.filter(|_| full).or(next),
        rows,
    }
}

/// Answered from the index `certificate_revoked`.
pub(super) const LAST_REVOKED: &str = "SELECT max(intent) FROM certificate
     INDEXED BY certificate_revoked WHERE revoked_at IS NOT NULL AND intent <= ?1";

/// Conditions that find intents, besides their numbers from `?1` to `?2`.
pub(super) const IN_RANGE: &str = "TRUE";
pub(super) const BY_SUBJECT: &str = "i.subject = ?11";
pub(super) const BY_SERIAL: &str = "i.serial = ?12";
pub(super) const BY_SHA256: &str = "c.sha256 = ?13";

/// Returns the query of the rows that `key` finds, in this state.
pub(super) fn select(key: &str, state: Option<CertificateState>) -> String {
    let good = "c.intent IS NOT NULL AND c.revoked_at IS NULL";
    let below_revoked = "i.issuer IN (SELECT value FROM json_each(?9))";
    let state = match state {
        None => "(c.intent IS NOT NULL OR i.ended = 'abandoned')".to_owned(),
        Some(CertificateState::Valid) => format!("{good} AND NOT {below_revoked}"),
        Some(CertificateState::IssuerRevoked) => format!("{good} AND {below_revoked}"),
        Some(CertificateState::Expired) => good.to_owned(),
        Some(CertificateState::Revoked) => "c.revocation_reason <> 6".to_owned(),
        Some(CertificateState::OnHold) => "c.revocation_reason = 6".to_owned(),
        Some(CertificateState::Abandoned) => "i.ended = 'abandoned'".to_owned(),
    };
    let join = if key == BY_SHA256 {
        "JOIN"
    } else {
        "LEFT JOIN"
    };
    format!(
        "SELECT i.id, i.serial, i.issuer, i.profile, i.subject, i.role, i.not_before, i.not_after,
                i.caller, c.sha256, c.issued_at, c.revoked_at, c.revocation_reason, i.recorded_at,
                i.signed_elsewhere, i.issued_elsewhere
         FROM intent i {join} certificate c ON c.intent = i.id
         WHERE {key} AND i.id >= ?1 AND i.id <= ?2 AND {state}
           AND (?3 IS NULL OR i.profile = ?3)
           AND (?4 IS NULL OR i.issuer IN (SELECT value FROM json_each(?4)))
           AND (?4 IS NULL OR i.issued_elsewhere = 0
                OR i.issuer IN (SELECT value FROM json_each(?14)))
           AND i.not_after >= ?5 AND i.not_after <= ?6
           AND (?7 IS NULL OR coalesce(c.issued_at, i.recorded_at) >= ?7)
           AND (?8 IS NULL OR i.role = ?8)
           AND (?11 IS NULL OR i.subject = ?11) AND (?12 IS NULL OR i.serial = ?12)
           AND (?13 IS NULL OR c.sha256 = ?13)
         ORDER BY i.id DESC LIMIT ?10"
    )
}
