//! Rolls that policy starts: leaves that come to their end, and devices that are told of it.

use super::authority_compromise::DEVICES_LISTED_MAX;
use crate::ca::authorize::Caller;
use crate::ca::{CertificateAuthority, Error};
use crate::enrollment::roll::renewal_moment;
use crate::store::{HubAction, NewHubTask, StoreError};
use serde_json::{Value, json};

/// How many rolls one turn starts; the next turn follows at once.
const STARTED_AT_ONCE_MAX: usize = 500;

/// How leaves are rolled.
#[derive(Clone, Debug, Default)]
pub struct RollPolicy {
    /// How long before its end a leaf is rolled; `None` leaves it to devices, stations and
    /// operators.
    pub renew_before_seconds: Option<i64>,
    /// Over how long the rolls of a fleet are spread.
    pub renew_jitter_seconds: i64,
    /// How devices are told to register again, if they are.
    pub tell: Option<Telling>,
    /// How often devices that roll are looked at in the hub.
    pub proof_interval_seconds: i64,
    /// An old certificate may go before its end once its devices are proven on the new one.
    pub retire_proven: bool,
}

/// How devices are told to register again.
#[derive(Clone, Debug)]
pub struct Telling {
    /// By a call each, or by jobs.
    pub by: TellBy,
    /// The method's name, as the devices' program has it.
    pub method: String,
    /// Its argument.
    pub payload: Value,
    /// How often a device that was offline is called again.
    pub interval_seconds: i64,
    /// For how long that goes on.
    pub for_seconds: i64,
}

/// What tells devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TellBy {
    /// A call each.
    Method,
    /// One job of the hub for many.
    Job,
}

impl CertificateAuthority {
    /// Starts the roll of every leaf whose time has come. Returns when the next one's comes.
    pub(super) fn start_due_rolls(&self, now: i64) -> Result<Option<i64>, Error> {
        let Some(before) = self.rolling.renew_before_seconds else {
            return Ok(None);
        };
        let jitter = self.rolling.renew_jitter_seconds;
        let ending = self.store.ending_leaves(now.saturating_add(before))?;
        // All of them: of a fleet that ends on one day, any may be the first.
        let moments = ending.into_iter().map(|leaf| {
            let moment = renewal_moment(&leaf.name, leaf.not_after, before, jitter);
            (leaf.enrollment, moment)
        });
        let (due, later): (Vec<_>, Vec<_>) = moments.partition(|(_, moment)| *moment <= now);
        let next_due = later.into_iter().map(|(_, moment)| moment).min();
        for (enrollment, _) in due.into_iter().take(STARTED_AT_ONCE_MAX) {
            // One that is gone by now has nothing to roll.
            let Some(enrollment) = self.store.find_enrollment(enrollment)? else {
                continue;
            };
            let entry = self.leaf_entry(&Caller::Daemon, "roll.started", &enrollment);
            let tasks = self.told(&enrollment.provisioning, &enrollment.name);
            match self
                .store
                .request_roll(enrollment.id, json!({}), tasks, entry)
            {
                // Somebody was faster: a request, or an operator.
                Ok(_)
                | Err(
                    StoreError::Conflict(_) | StoreError::Violates(_) | StoreError::InTheWay { .. },
                ) => {}
                Err(error) => return Err(error.into()),
            }
            self.wake();
        }
        Ok(next_due)
    }

    /// The tasks that tell a device of its roll, where policy says so and a hub can.
    pub(super) fn told(&self, provisioning: &str, device: &str) -> Vec<NewHubTask> {
        let tells = self.rolling.tell.is_some() && self.hubs.contains_key(provisioning);
        let task = NewHubTask {
            provisioning: provisioning.to_owned(),
            device: device.to_owned(),
            action: HubAction::Call,
            enrollment: None,
        };
        tells.then_some(task).into_iter().collect()
    }

    /// How often devices that roll are looked at in the hub.
    pub fn proof_interval_seconds(&self) -> i64 {
        self.rolling.proof_interval_seconds.max(1)
    }

    /// The tasks that tell all devices with a leaf by `generation`, which signs no more.
    pub(super) fn told_below(&self, generation: i64) -> Result<Vec<NewHubTask>, Error> {
        if self.rolling.tell.is_none() {
            return Ok(Vec::new());
        }
        let devices = self
            .store
            .devices_to_reissue(generation, self.now(), DEVICES_LISTED_MAX)?;
        let tasks = devices.iter().flat_map(|device| {
            let hubs = self.hubs.keys();
            hubs.flat_map(|service| self.told(service, &device.registration_id))
        });
        Ok(tasks.collect())
    }

    /// How devices are told to register again, if they are.
    pub fn telling(&self) -> Option<&Telling> {
        self.rolling.tell.as_ref()
    }

    /// When a device that is offline is called again, which was to be told since `queued_at`; `None`
    /// when it was tried for long enough.
    pub fn tell_again_at(&self, queued_at: i64) -> Option<i64> {
        let telling = self.rolling.tell.as_ref()?;
        let next = self.now().saturating_add(telling.interval_seconds);
        (next <= queued_at.saturating_add(telling.for_seconds)).then_some(next)
    }
}
