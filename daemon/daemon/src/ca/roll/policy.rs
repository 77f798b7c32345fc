//! Starts rollovers of leaves that end soon, and queues the calls that notify devices, as policy
//! says.

use super::Rollovers;
use super::authority_compromise::DEVICES_LISTED_MAX;
use crate::ca::Error;
use crate::ca::authorize::Caller;
use crate::enrollment::roll::renewal_moment;
use crate::ids::GenerationId;
use crate::store::{HubAction, NewHubTask, StoreError};
use crate::unix_seconds::UnixSeconds;
use serde_json::{Value, json};

/// How often renewals below groups are looked for, in seconds: issuance does not wake the
/// rollovers.
const RENEWALS_SECONDS: i64 = 3;

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
    /// How devices are notified to register again, if they are.
    pub notification: Option<DeviceNotification>,
    /// Poll interval of the hub for devices that roll.
    pub proof_interval_seconds: i64,
    /// An old certificate may go before its end once its devices are proven on the new one.
    pub retire_proven: bool,
}

/// How devices are notified to register again.
#[derive(Clone, Debug)]
pub struct DeviceNotification {
    /// By a call for each device, or by jobs.
    pub by: NotifyBy,
    /// The method's name, as the devices' program has it.
    pub method: String,
    pub payload: Value,
    /// How often a device that was offline is called again.
    pub interval_seconds: i64,
    /// For how long that goes on.
    pub for_seconds: i64,
}

/// The means of notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyBy {
    /// A direct method call for each device.
    Method,
    /// One job of the hub for many devices.
    Job,
}

impl Rollovers {
    /// Starts the rollover of every leaf that is due. Returns when the next one is due.
    pub(super) fn start_due_rolls(&self, now: UnixSeconds) -> Result<Option<UnixSeconds>, Error> {
        let Some(before) = self.rolling.renew_before_seconds else {
            return Ok(None);
        };
        let jitter = self.rolling.renew_jitter_seconds;
        let ending = self.store.ending_leaves(now.saturating_add(before))?;
        // Jitter reorders leaves that end on one day, so all of them are needed to find the first.
        let moments = ending.into_iter().map(|leaf| {
            let moment = renewal_moment(&leaf.name, leaf.not_after, before, jitter);
            (leaf.enrollment, moment)
        });
        let (due, later): (Vec<_>, Vec<_>) = moments.partition(|(_, moment)| *moment <= now);
        let next_due = later.into_iter().map(|(_, moment)| moment).min();
        for (enrollment, _) in due.into_iter().take(STARTED_AT_ONCE_MAX) {
            // An enrollment may have been removed since the query.
            let Some(enrollment) = self.store.find_enrollment(enrollment)? else {
                continue;
            };
            let entry = self.leaf_entry(&Caller::Daemon, "roll.started", &enrollment);
            match self.store.request_roll(enrollment.id, json!({}), entry) {
                // A request or an operator started this rollover first.
                Ok(_)
                | Err(
                    StoreError::Conflict(_) | StoreError::Violates(_) | StoreError::Blocking { .. },
                ) => {}
                Err(error) => return Err(error.into()),
            }
            self.issuer.wake();
        }
        Ok(next_due)
    }

    /// Returns the task that notifies a device, if policy says so and the service has a hub.
    pub(super) fn notify_tasks(&self, provisioning: &str, device: &str) -> Vec<NewHubTask> {
        let has_hub = self.services.hubs.contains_key(provisioning);
        let notifies = self.rolling.notification.is_some() && has_hub;
        let task = NewHubTask {
            provisioning: provisioning.to_owned(),
            device: device.to_owned(),
            action: HubAction::Call,
            enrollment: None,
        };
        notifies.then_some(task).into_iter().collect()
    }

    /// Notifies devices that have a new leaf below a group, outside of any rollover. Returns when
    /// to look again.
    pub(super) fn announce_renewals(&self, now: UnixSeconds) -> Result<Option<UnixSeconds>, Error> {
        if self.rolling.notification.is_none() || self.services.hubs.is_empty() {
            self.store.stop_renewal_notices()?;
            return Ok(None);
        }
        let hubs = self.services.hubs.keys().cloned().collect();
        if self.store.announce_renewals(&hubs, now)? > 0 {
            self.issuer.wake();
        }
        Ok(Some(now + RENEWALS_SECONDS))
    }

    /// Poll interval of the hub for devices that roll.
    pub fn proof_interval_seconds(&self) -> i64 {
        self.rolling.proof_interval_seconds.max(1)
    }

    /// Returns the tasks that notify all devices with a leaf by `generation`, which signs no more.
    pub(super) fn notify_tasks_below(
        &self,
        generation: GenerationId,
    ) -> Result<Vec<NewHubTask>, Error> {
        if self.rolling.notification.is_none() {
            return Ok(Vec::new());
        }
        let devices =
            self.store
                .devices_to_reissue(&[generation], self.issuer.now(), DEVICES_LISTED_MAX)?;
        let tasks = devices.iter().flat_map(|device| {
            self.services
                .hubs
                .keys()
                .flat_map(|service| self.notify_tasks(service, &device.registration_id))
        });
        Ok(tasks.collect())
    }

    /// Returns how devices are notified to register again, if they are.
    pub fn device_notification(&self) -> Option<&DeviceNotification> {
        self.rolling.notification.as_ref()
    }

    /// Returns when to call a device again that is offline and was to be notified since
    /// `queued_at`; `None` when the time for that is over.
    pub fn next_notification_at(&self, queued_at: UnixSeconds) -> Option<UnixSeconds> {
        let notification = self.rolling.notification.as_ref()?;
        let next = self
            .issuer
            .now()
            .saturating_add(notification.interval_seconds);
        (next <= queued_at.saturating_add(notification.for_seconds)).then_some(next)
    }
}
