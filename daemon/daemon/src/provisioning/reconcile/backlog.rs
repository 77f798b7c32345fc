//! Creates a backlog of new individual enrollments in bulk, and confirms it by a scan.
//!
//! A new enrollment costs two operations alone, and one in bulk: half the time for a fleet. Only
//! enrollments that were never sent go in bulk; an item that a bulk call leaves open (refused, or
//! its answer lost) has an attempt on record then, and is reconciled alone.

use super::{Failure, Reconciler};
use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::history::History;
use crate::enrollment::plan::{DriftPolicy, Plan, plan};
use crate::ids::{EnrollmentId, MarkId};
use crate::provisioning::dps::{BULK_ITEMS_MAX, BulkMode};
use crate::store::EnrollmentKind;
use serde_json::Value;
use std::time::Duration;

/// Fewer enrollments are reconciled one by one, which gives better errors.
const BACKLOG_MIN: usize = 2 * BULK_ITEMS_MAX;

/// How long a bulk call waits for its answer.
const BULK_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Reconciler {
    /// Creates in bulk what was never sent, if there is much of it.
    pub(super) async fn work_off_backlog(&self) -> Result<(), Error> {
        if self.take(MarkId::START, BACKLOG_MIN).await?.items.len() < BACKLOG_MIN {
            return Ok(());
        }
        let mut created = 0;
        let mut after = MarkId::START;
        loop {
            let batch = self.take(after, BULK_ITEMS_MAX).await?;
            if batch.items.is_empty() {
                break;
            }
            after = batch.last_mark;
            match self.create(batch).await {
                Ok(number) => created += number,
                Err(failure) => {
                    tracing::warn!(service = self.name, reason = %failure, "bulk call failed");
                    break;
                }
            }
        }
        tracing::info!(service = self.name, created, "enrollments created in bulk");
        if let Err(failure) = self.scan_kind(EnrollmentKind::Individual).await {
            tracing::warn!(service = self.name, reason = %failure, "scan ended early, retrying");
        }
        Ok(())
    }

    async fn take(&self, after: MarkId, limit: usize) -> Result<Batch, Error> {
        let service = self.name.clone();
        self.blocking(move |ca| Batch::read(ca, &service, after, limit))
            .await
    }

    async fn create(&self, batch: Batch) -> Result<usize, Failure> {
        let mut attempts = Vec::new();
        let mut records = Vec::new();
        for (id, history, record) in batch.items {
            attempts.push((id, history));
            records.push(record);
        }
        self.blocking(move |ca| {
            let attempts = attempts.iter().map(|(id, history)| (*id, history));
            Ok(ca.store().record_attempts(attempts)?)
        })
        .await?;
        // New enrollments wait for the end of the backlog; a lost answer is read back one by one.
        let dps = self.clients.dps.within(BULK_ANSWER_TIMEOUT);
        let outcome = dps.bulk(BulkMode::Create, &records).await?;
        if outcome.is_successful {
            return Ok(records.len());
        }
        Ok(records.len().saturating_sub(outcome.errors.len()))
    }
}

/// Enrollments that were never sent: row id, history to record, record to send.
struct Batch {
    items: Vec<(EnrollmentId, History, Value)>,
    /// The mark after which the next batch begins.
    last_mark: MarkId,
}

impl Batch {
    fn read(
        ca: &CertificateAuthority,
        service: &str,
        after: MarkId,
        limit: usize,
    ) -> Result<Self, Error> {
        let rows = ca
            .store()
            .never_sent(service, after, ca.now(), limit as u32)?;
        let mut batch = Self {
            items: Vec::new(),
            last_mark: after,
        };
        for row in rows {
            batch.last_mark = row.mark.as_ref().map_or(batch.last_mark, |mark| mark.id);
            let Some(desired) = ca.enrollments().desired(&row)? else {
                continue;
            };
            let never = History::default();
            // Nothing was observed: if the enrollment exists, the item fails and is reconciled
            // alone.
            let next = plan(Some(&desired), None, &never, DriftPolicy::Report);
            if let Plan::Create { record } = next {
                batch
                    .items
                    .push((row.id, never.sending(Some(&desired)), record));
            }
        }
        Ok(batch)
    }
}
