//! Ends intents that got no certificate: abandons them, or withdraws those that no worker received.
//!
//! An intent stays open until its end is on record; until then its device gets no certificate. At
//! every start all open intents are abandoned: before anything new is signed, or, on a disk that
//! takes no write, as soon as it takes one.

use super::Issuer;
use super::issue::Unsigned;
use crate::ca::{Error, lock};
use crate::ids::IntentId;
use crate::request_task;
use crate::store::{FOUND_AT_START, Recorded, StoreError};

/// An intent whose end could not be recorded when it came.
pub(super) struct OpenIntent {
    id: IntentId,
    reason: String,
    /// The token may have signed it.
    may_be_done: bool,
}

impl Issuer {
    /// Ends an intent without a certificate, and returns the error for the caller. It is abandoned
    /// if the token may have signed it, so that its serial number goes on the revocation list, and
    /// withdrawn if no worker received it.
    pub(super) async fn end_intent(&self, recorded: &Recorded, unsigned: Unsigned) -> Error {
        request_task::elsewhere().await;
        let intent = OpenIntent {
            id: recorded.id(),
            reason: unsigned.error.message.clone(),
            may_be_done: unsigned.may_be_done,
        };
        if let Err(error) = self.record_end(&intent).await {
            tracing::error!(
                intent = intent.id.get(),
                %error,
                "end of intent not recorded, will retry",
            );
            lock(&self.shared.open_intents).push(intent);
        }
        // The next revocation list has to name it. Other failed work waits for its own time.
        (self.callbacks.crl_due)();
        unsigned.error
    }

    async fn record_end(&self, intent: &OpenIntent) -> Result<(), StoreError> {
        let reason = intent.reason.clone();
        if intent.may_be_done {
            self.store
                .abandon_intent(intent.id, reason, self.now())
                .await
        } else {
            self.store
                .withdraw_intent(intent.id, reason, self.now())
                .await
        }
    }

    /// Records the end of intents for which that failed before, say, on a full disk.
    pub fn end_open_intents(&self) -> Result<(), Error> {
        loop {
            // No lock while this waits for the store: requests take it, too.
            let next = lock(&self.shared.open_intents).pop();
            let Some(next) = next else {
                return Ok(());
            };
            if let Err(error) = pollster::block_on(self.record_end(&next)) {
                lock(&self.shared.open_intents).push(next);
                return Err(error.into());
            }
        }
    }

    /// Abandons what a crash left open. If the store cannot write yet, [`Self::end_open_intents`]
    /// does it later; until then these serial numbers are on no list, and their devices get no
    /// certificate.
    pub(super) fn abandon_intents_of_last_run(&self) -> Result<(), Error> {
        match self.store.abandon_open_intents(self.now()) {
            Ok(0) => Ok(()),
            Ok(abandoned) => {
                tracing::warn!(abandoned, "open intents of the last run abandoned");
                Ok(())
            }
            Err(StoreError::Unavailable(reason)) => {
                let open = self.store.open_intents()?;
                tracing::error!(
                    reason,
                    open = open.len(),
                    "open intents not abandoned, will retry"
                );
                let open = open.into_iter().map(|id| OpenIntent {
                    id,
                    reason: FOUND_AT_START.to_owned(),
                    may_be_done: true,
                });
                lock(&self.shared.open_intents).extend(open);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
