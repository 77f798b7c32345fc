//! A backlog of new individual enrollments: created in bulk, confirmed by a scan.
//!
//! One look at a new enrollment costs two operations, a bulk one for each record: half the time for
//! a fleet. Only enrollments that were never sent go in bulk; whatever a bulk call leaves open
//! (an item refused, an answer lost) has an attempt on record then, and is looked at one by one.

use super::{Failure, Reconciler};
use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::history::History;
use crate::enrollment::plan::{DriftPolicy, Plan, plan};
use crate::provisioning::dps::{BULK_ITEMS_MAX, BulkMode};
use crate::store::EnrollmentKind;
use serde_json::Value;

/// Fewer are looked at one by one, which tells more of each.
const BACKLOG_MIN: usize = 2 * BULK_ITEMS_MAX;

impl Reconciler {
    /// Creates in bulk what was never sent, if there is much of it.
    pub(super) async fn work_off_backlog(&self) -> Result<(), Error> {
        if self.take(BACKLOG_MIN).await?.len() < BACKLOG_MIN {
            return Ok(());
        }
        let mut created = 0;
        loop {
            let batch = self.take(BULK_ITEMS_MAX).await?;
            if batch.is_empty() {
                break;
            }
            match self.create(batch).await {
                Ok(number) => created += number,
                Err(failure) => {
                    tracing::warn!(service = self.name, reason = %failure, "a bulk call failed");
                    break;
                }
            }
        }
        tracing::info!(
            service = self.name,
            created,
            "new enrollments were sent in bulk"
        );
        if let Err(failure) = self.scan_kind(EnrollmentKind::Individual).await {
            tracing::warn!(service = self.name, reason = %failure, "the scan ended early");
        }
        Ok(())
    }

    /// Up to `limit` enrollments that were never sent: row id, history to record, record to send.
    async fn take(&self, limit: usize) -> Result<Vec<(i64, History, Value)>, Error> {
        let service = self.name.clone();
        self.blocking(move |ca| fresh(ca, &service, limit)).await
    }

    async fn create(&self, batch: Vec<(i64, History, Value)>) -> Result<usize, Failure> {
        let (mut attempts, mut records) = (Vec::new(), Vec::new());
        for (id, history, record) in batch {
            attempts.push((id, history));
            records.push(record);
        }
        self.blocking(move |ca| {
            let attempts = attempts.iter().map(|(id, history)| (*id, history));
            Ok(ca.store().record_attempts(attempts)?)
        })
        .await?;
        let outcome = self.clients.dps.bulk(BulkMode::Create, &records).await?;
        if outcome.is_successful {
            return Ok(records.len());
        }
        Ok(records.len().saturating_sub(outcome.errors.len()))
    }
}

fn fresh(
    ca: &CertificateAuthority,
    service: &str,
    limit: usize,
) -> Result<Vec<(i64, History, Value)>, Error> {
    let rows = ca.store().never_sent(service, ca.now(), limit as u32)?;
    let mut batch = Vec::new();
    for row in rows {
        let Some(desired) = ca.desired(&row)? else {
            continue;
        };
        let never = History::default();
        // Nothing was observed: should it exist after all, the item fails and is looked at alone.
        if let Plan::Create { record } = plan(Some(&desired), None, &never, DriftPolicy::Report) {
            batch.push((row.id, never.sending(Some(&desired)), record));
        }
    }
    Ok(batch)
}
