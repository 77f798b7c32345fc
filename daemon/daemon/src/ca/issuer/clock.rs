//! The machine's clock, and whether it is believed.
//!
//! A gateway without a battery starts with a clock at 1970, or at the time of its last shutdown; a
//! broken one starts at 2106. With such a clock a certificate would get a wrong date, or expire
//! wrongly. So:
//!
//! * Nothing is signed while the clock is not believed ([`Issuer::signing_time`]).
//! * During that time [`Issuer::now`] goes on from the last believed time, or from the newest date
//!   on record, by a count that no program can set. It is never ahead of the truth, so nothing
//!   expires, retires or rolls too early.
//! * The clock is read each time again, so signing continues when the clock is right.
//!
//! Dates of certificates and revocation lists are on record, because they were signed with a clock
//! that was believed. The journal's dates do not count, because refusals are in it, too. This
//! module must never set the clock, and it believes a date before the record only if an operator
//! confirms it.

use super::Issuer;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::{Code, Error, clock_offset, wall_offset};
use crate::store::AuditEntry;
use crate::unix_seconds::UnixSeconds;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::UNIX_EPOCH;
use time::OffsetDateTime;

/// How far a clock may be set back behind what is on record, in seconds: a correction, not a jump.
const CORRECTION_SECONDS_MAX: i64 = 60;
/// After how long a caller may try again while the clock is not believed, in seconds.
const RETRY_SECONDS: u32 = 10;

/// When the clock is believed.
#[derive(Clone, Debug, Default)]
pub struct ClockPolicy {
    /// How far it may be ahead of what is expected, in seconds; 0 is no limit.
    pub jump_seconds_max: i64,
    /// The file that the time service touches after each synchronisation.
    pub synchronised_file: PathBuf,
    /// Nothing is believed before that file is there.
    pub must_be_synchronised: bool,
    /// When this program was built, in Unix seconds; no clock that is right shows less.
    pub built_at: UnixSeconds,
}

/// The facts about the clock, before policy.
pub(super) struct Clock(Mutex<Known>);

struct Known {
    /// The newest date on record, or of this program: nothing before that is believed.
    floor: UnixSeconds,
    /// The record from which the expected time follows. `None` before anything is on record.
    last: Option<Moment>,
    /// The clock was synchronised, or an operator has said that it is right.
    synchronised: bool,
}

/// The same moment on two clocks, in seconds.
#[derive(Clone, Copy)]
struct Moment {
    /// Unix time; any program of root can set it.
    wall: UnixSeconds,
    /// Time since boot, sleep included; no program can set it.
    boot: i64,
}

/// The result of reading the clock.
enum Reading {
    Believed(UnixSeconds),
    Not {
        estimate: UnixSeconds,
        reason: String,
    },
}

impl Moment {
    fn read() -> Self {
        let moved = clock_offset();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        Self {
            wall: UnixSeconds::new(now + moved + wall_offset()),
            boot: clock_gettime(ClockId::Boottime).tv_sec + moved,
        }
    }
}

impl Clock {
    /// `recorded` is the newest date on record, in Unix seconds.
    pub(super) fn new(policy: &ClockPolicy, recorded: Option<UnixSeconds>) -> Self {
        let boot = Moment::read().boot;
        Self(Mutex::new(Known {
            floor: recorded.map_or(policy.built_at, |it| it.max(policy.built_at)),
            last: recorded.map(|wall| Moment { wall, boot }),
            synchronised: false,
        }))
    }

    fn look(&self, policy: &ClockPolicy) -> Reading {
        let now = Moment::read();
        let mut known = self.known();
        let expected = known.last.map(|last| last.wall + (now.boot - last.boot));
        match policy.doubt(now.wall, expected, &mut known) {
            None => {
                known.last = Some(now);
                Reading::Believed(now.wall)
            }
            Some(reason) => Reading::Not {
                estimate: expected.unwrap_or(known.floor),
                reason,
            },
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        super::lock(&self.0)
    }
}

impl ClockPolicy {
    /// Why the clock is not believed.
    fn doubt(
        &self,
        wall: UnixSeconds,
        expected: Option<UnixSeconds>,
        known: &mut Known,
    ) -> Option<String> {
        if wall < known.floor - CORRECTION_SECONDS_MAX {
            return Some(format!(
                "the clock shows {}, and something was signed, or this program built, at {}; set \
                 the clock, or if it is right, `hallmark clock accept`",
                wall, known.floor
            ));
        }
        let limit = expected
            .filter(|_| self.jump_seconds_max > 0)
            .map(|expected| expected.saturating_add(self.jump_seconds_max));
        let touched = || self.synchronised_at();
        if let Some(limit) = limit.filter(|limit| wall > *limit)
            // Believes the clock only after a synchronisation.
            && !touched().is_some_and(|at| at > limit && at <= wall + CORRECTION_SECONDS_MAX)
        {
            return Some(format!(
                "the clock shows {}, beyond {}, which [policy] clock_jump_max allows; set the \
                 clock, or if it is right, `hallmark clock accept`",
                wall, limit
            ));
        }
        if self.must_be_synchronised && !known.synchronised {
            known.synchronised = touched().is_some();
        }
        if self.must_be_synchronised && !known.synchronised {
            return Some(format!(
                "the clock was not synchronised yet: there is no {}; it comes with the network, or \
                 if the clock is right, `hallmark clock accept`",
                self.synchronised_file.display()
            ));
        }
        None
    }

    /// When the clock was synchronised last, by itself.
    pub(in crate::ca) fn synchronised_at(&self) -> Option<UnixSeconds> {
        let metadata = std::fs::metadata(&self.synchronised_file).ok()?;
        let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_secs()).ok().map(UnixSeconds::new)
    }
}

impl Issuer {
    /// Unix seconds: the machine's clock, or while that is not believed, never more than it should
    /// show.
    pub fn now(&self) -> UnixSeconds {
        match self.look_at_clock() {
            Reading::Believed(now) => now,
            Reading::Not { estimate, .. } => estimate,
        }
    }

    /// The time for something that is signed now, in Unix seconds. Nothing is believed before it
    /// any more.
    pub(in crate::ca) fn signing_time(&self) -> Result<UnixSeconds, Error> {
        match self.look_at_clock() {
            Reading::Believed(now) => {
                let mut known = self.shared.clock.known();
                known.floor = known.floor.max(now);
                Ok(now)
            }
            Reading::Not { reason, .. } => {
                Err(Error::later(RETRY_SECONDS, Code::ClockNotSane, reason))
            }
        }
    }

    /// Why the clock is not believed; `None` if it is.
    pub fn clock_doubt(&self) -> Option<String> {
        match self.look_at_clock() {
            Reading::Believed(_) => None,
            Reading::Not { reason, .. } => Some(reason),
        }
    }

    /// When the clock is believed.
    pub(in crate::ca) fn clock_policy(&self) -> &ClockPolicy {
        &self.settings.clock
    }

    fn look_at_clock(&self) -> Reading {
        self.shared.clock.look(&self.settings.clock)
    }

    /// Takes the operator's word that the clock is right, whatever is on record. Gives the time.
    pub fn accept_clock(&self, permission: &Authorized<Operate>) -> Result<UnixSeconds, Error> {
        let now = Moment::read();
        self.store.accept_clock(AuditEntry {
            at: now.wall,
            actor: permission.caller().to_string(),
            action: "clock.accepted",
            subject: "clock".into(),
            detail: json!({ "expected": self.now().to_string() }),
        })?;
        *self.shared.clock.known() = Known {
            floor: now.wall,
            last: Some(now),
            synchronised: true,
        };
        self.wake();
        Ok(now.wall)
    }
}
