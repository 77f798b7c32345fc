//! The TPM's dictionary-attack lockout: somebody has tried too many wrong authorization values.
//!
//! Keys made here are exempt (`noda`) and go on signing, and none of ours ever adds to the count. But
//! other programs' keys are shut out until it is over, and an operator should know who guesses.

use super::device::Device;
use super::fault::Fault;
use std::time::Duration;
use tss_esapi::constants::PropertyTag;

/// `inLockout` of `TPMA_PERMANENT` (TPM 2.0 Library, part 2, section 8.6).
const IN_LOCKOUT: u32 = 1 << 9;

/// The TPM's counters, read while it is in lockout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lockout {
    failures: u32,
    failures_max: u32,
    /// How long until one failure is forgiven, in seconds.
    interval: u32,
}

impl Lockout {
    /// The lockout that the TPM is in, if it is.
    pub(super) fn read(device: &mut Device) -> Result<Option<Self>, Fault> {
        if device.property(PropertyTag::Permanent)? & IN_LOCKOUT == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            failures: device.property(PropertyTag::LockoutCounter)?,
            failures_max: device.property(PropertyTag::MaxAuthFail)?,
            interval: device.property(PropertyTag::LockoutInterval)?,
        }))
    }

    /// How long it lasts at most, if nobody guesses on; `None` until somebody resets it.
    fn lasts(self) -> Option<Duration> {
        let to_forgive = u64::from(self.failures.saturating_sub(self.failures_max)) + 1;
        let seconds = to_forgive * u64::from(self.interval);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// For an operator.
    pub(super) fn told(self) -> String {
        let lasts = match self.lasts() {
            Some(time) => format!("for at most {}", humantime::format_duration(time)),
            None => "until somebody resets it".to_owned(),
        };
        format!(
            "the TPM is in dictionary-attack lockout {lasts}: some program has tried {} wrong \
             authorization values. Keys of this daemon are exempt and go on signing; find that \
             program, then `tpm2_dictionarylockout --clear-lockout`",
            self.failures
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_what_the_counter_needs_to_fall_below_its_maximum() {
        let lockout = |failures, interval| Lockout {
            failures,
            failures_max: 3,
            interval,
        };
        assert_eq!(lockout(3, 1000).lasts(), Some(Duration::from_secs(1000)));
        assert_eq!(lockout(5, 1000).lasts(), Some(Duration::from_secs(3000)));
        assert_eq!(lockout(3, 0).lasts(), None);
        assert!(lockout(3, 7200).told().contains("for at most 2h"));
        assert!(lockout(u32::MAX, u32::MAX).lasts().is_some());
    }
}
