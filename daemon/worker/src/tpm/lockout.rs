//! Reports the TPM's dictionary-attack lockout, which too many wrong authorization values cause.
//!
//! Our keys are exempt (`noda`): they keep signing and never add to the count. Keys of other
//! programs cannot be used during the lockout, and the operator should find the program that
//! guesses.

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
    /// Seconds after which the TPM subtracts one failure.
    interval: u32,
}

impl Lockout {
    /// Reads the counters; `None` if the TPM is not in lockout.
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

    /// Returns how long the lockout lasts without further guesses; `None` if only a reset ends it.
    fn lasts(self) -> Option<Duration> {
        let to_forgive = u64::from(self.failures.saturating_sub(self.failures_max)) + 1;
        let seconds = to_forgive * u64::from(self.interval);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Describes the lockout and its remedy for the operator.
    pub(super) fn remark(self) -> String {
        let lasts = match self.lasts() {
            Some(time) => format!("for at most {}", humantime::format_duration(time)),
            None => "until it is reset".to_owned(),
        };
        format!(
            "the TPM is in dictionary-attack lockout {lasts}: some program has tried {} wrong \
             authorization values. Keys of this daemon are exempt and keep signing; find that \
             program, then run `tpm2_dictionarylockout --clear-lockout`",
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
        assert!(lockout(3, 7200).remark().contains("for at most 2h"));
        assert!(lockout(u32::MAX, u32::MAX).lasts().is_some());
    }
}
