//! Devices that are online at a hub, and their answers to a direct method (contract section 12).
//!
//! A device is online while it is connected over MQTT, or while a test says so and gives its
//! answer. Not part of the world: no connection survives a restart.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Direct methods that wait for one device.
pub(crate) const INVOCATIONS_MAX: usize = 16;
/// How often the hub checks that a device may still connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A device's own answer to a direct method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodAnswer {
    /// The device's status, e.g. 200.
    pub status: i64,
    #[serde(default)]
    pub payload: Value,
}

/// A direct method on its way to a device.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) method: String,
    pub(crate) payload: Value,
    pub(crate) answer: oneshot::Sender<MethodAnswer>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The device is not connected.
    NotOnline,
    /// It did not answer in time.
    TimedOut,
}

#[derive(Clone, Debug)]
enum Device {
    Connected(mpsc::Sender<Invocation>),
    Simulated(MethodAnswer),
}

/// The devices that are online, by hub and device id.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    devices: Mutex<HashMap<(String, String), Device>>,
}

impl Presence {
    /// A device connected. The session of an older connection gets a closed channel, and ends.
    pub(crate) fn connect(&self, hub: &str, id: &str) -> mpsc::Receiver<Invocation> {
        let (sender, invocations) = mpsc::channel(INVOCATIONS_MAX);
        let key = (hub.to_owned(), id.to_owned());
        crate::lock(&self.devices).insert(key, Device::Connected(sender));
        invocations
    }

    /// Forget connections that have ended.
    pub(crate) fn sweep(&self) {
        let is_alive = |device: &Device| match device {
            Device::Connected(sender) => !sender.is_closed(),
            Device::Simulated(_) => true,
        };
        crate::lock(&self.devices).retain(|_, device| is_alive(device));
    }

    /// A test lets a device be online, with this answer to whatever it is asked.
    pub(crate) fn simulate(&self, hub: &str, id: &str, answer: MethodAnswer) {
        let key = (hub.to_owned(), id.to_owned());
        crate::lock(&self.devices).insert(key, Device::Simulated(answer));
    }

    /// The device is offline from now on.
    pub(crate) fn remove(&self, hub: &str, id: &str) {
        crate::lock(&self.devices).remove(&(hub.to_owned(), id.to_owned()));
    }

    /// Whether the device is online.
    pub(crate) fn is_online(&self, hub: &str, id: &str) -> bool {
        self.find(hub, id).is_some()
    }

    /// Call a method. Waits `connect` for the device to be online and `respond` for its answer.
    pub(crate) async fn invoke(
        &self,
        (hub, id): (&str, &str),
        method: &str,
        payload: &Value,
        (connect, respond): (Duration, Duration),
    ) -> Result<MethodAnswer, NoAnswer> {
        let sender = match self
            .wait_for(hub, id, connect)
            .await
            .ok_or(NoAnswer::NotOnline)?
        {
            Device::Simulated(answer) => return Ok(answer),
            Device::Connected(sender) => sender,
        };
        let (answer, answered) = oneshot::channel();
        let invocation = Invocation {
            method: method.to_owned(),
            payload: payload.clone(),
            answer,
        };
        sender
            .send(invocation)
            .await
            .map_err(|_| NoAnswer::NotOnline)?;
        match timeout(respond, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(NoAnswer::NotOnline),
            Err(_) => Err(NoAnswer::TimedOut),
        }
    }

    async fn wait_for(&self, hub: &str, id: &str, patience: Duration) -> Option<Device> {
        let deadline = Instant::now() + patience;
        loop {
            match self.find(hub, id) {
                Some(device) => return Some(device),
                None if Instant::now() >= deadline => return None,
                None => sleep(CONNECT_PAUSE).await,
            }
        }
    }

    fn find(&self, hub: &str, id: &str) -> Option<Device> {
        self.sweep();
        let devices = crate::lock(&self.devices);
        devices.get(&(hub.to_owned(), id.to_owned())).cloned()
    }
}
