//! Reports devices whose profile is no longer configured, and their remedy.
//!
//! Such a device has a certificate and cannot renew it, because a renewal is by the profile that
//! the device is registered with. It must never be moved to another profile by itself.

use super::alarm::{Alarm, AlarmCode, unreadable};
use super::{CertificateAuthority, Error};
use serde_json::json;

impl CertificateAuthority {
    /// The devices that a removed profile leaves behind.
    pub fn stranded_devices(&self) -> Result<Vec<String>, Error> {
        let profiles = self.stranding_profiles()?;
        let alarms = profiles.into_iter().map(|profile| {
            let count = self.store.registered_count(&profile)?;
            Ok(format!(
                "{count} devices are registered with it: {}",
                alarm(&profile).text
            ))
        });
        alarms.collect()
    }

    /// The same as alarms, without numbers.
    pub(super) fn stranded_alarms(&self) -> Vec<Alarm> {
        match self.stranding_profiles() {
            Ok(profiles) => profiles.iter().map(|profile| alarm(profile)).collect(),
            Err(error) => vec![unreadable("the profiles of devices cannot be read", &error)],
        }
    }

    fn stranding_profiles(&self) -> Result<Vec<String>, Error> {
        let mut profiles = self.store.registered_profiles()?;
        profiles.retain(|profile| !self.issuer.profiles().contains_key(profile));
        Ok(profiles)
    }
}

fn alarm(profile: &str) -> Alarm {
    let text = format!(
        "profile {profile:?} is not configured, and its devices cannot renew: put it back, or move \
         each device with `hallmark issue --move`"
    );
    Alarm::new(
        AlarmCode::ProfileMissing,
        json!({ "profile": profile }),
        text,
    )
}
