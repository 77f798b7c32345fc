//! Holds the requests that a worker has not answered, and finds those that are late.

use crate::token::TokenError;
use crate::token::message::HEALTH_PAUSE;
use crate::token::operation::Answer;
use futures_channel::oneshot;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How far beyond its deadline a request may be before the worker counts as hung. The worker's own
/// watchdog waits longer, so a supervisor kills it first, and its cause names the operation.
pub(super) const HANG_GRACE: Duration = Duration::from_secs(1);

/// How long a worker may be silent about its health. It needs no call into the token for that.
pub(super) const HEALTH_DEADLINE: Duration = HEALTH_PAUSE.saturating_add(Duration::from_secs(2));

pub(super) type Outcome = Result<Answer, TokenError>;

pub(super) struct Pending {
    pub(super) last_id: u64,
    /// Set when the connection ends: no request may be added then.
    pub(super) ended: Option<TokenError>,
    pub(super) requests: HashMap<u64, InFlight>,
    /// When the worker must have sent its health.
    pub(super) health: Expiry,
    /// Nothing expires before this.
    pub(super) next_expiry: Instant,
}

pub(super) struct InFlight {
    pub(super) operation: &'static str,
    pub(super) allowed: Duration,
    pub(super) expiry: Expiry,
    /// `None` once the caller has got the error that it expired.
    pub(super) reply: Option<oneshot::Sender<Outcome>>,
}

/// The deadline of something that the worker must do, and how far it has been missed.
pub(super) struct Expiry {
    pub(super) deadline: Instant,
    pub(super) lateness: Lateness,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    Waiting,
    Expired,
    /// So late that the worker counts as hung.
    Hung,
}

impl Expiry {
    pub(super) fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            lateness: Lateness::Waiting,
        }
    }

    /// Returns when the next step is reached, if there is one.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.lateness {
            Lateness::Waiting => Some(self.deadline),
            Lateness::Expired => Some(self.deadline + HANG_GRACE),
            Lateness::Hung => None,
        }
    }

    /// Moves on to the next step if it is reached, and returns it.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Lateness> {
        if self.next().is_none_or(|next| now < next) {
            return None;
        }
        self.lateness = match self.lateness {
            Lateness::Waiting => Lateness::Expired,
            Lateness::Expired | Lateness::Hung => Lateness::Hung,
        };
        Some(self.lateness)
    }
}

impl Pending {
    pub(super) fn new(now: Instant) -> Self {
        let deadline = now + HEALTH_DEADLINE;
        Self {
            last_id: 0,
            ended: None,
            requests: HashMap::new(),
            health: Expiry::new(deadline),
            next_expiry: deadline,
        }
    }

    pub(super) fn next_expiry(&self, now: Instant) -> Instant {
        let requests = self.requests.values();
        let next = requests
            .filter_map(|request| request.expiry.next())
            .chain(self.health.next())
            .min();
        // A worker that hung may have sent its health since, and must send it again.
        next.unwrap_or(now + HEALTH_PAUSE)
    }
}

impl InFlight {
    /// Answers the caller that the deadline is over.
    pub(super) fn expire(&mut self, token: &str) {
        let deadline_ms = self.allowed.as_millis();
        let expired = TokenError::Deadline {
            token: token.to_owned(),
            operation: self.operation.to_owned(),
            deadline_ms: u64::try_from(deadline_ms).unwrap_or(u64::MAX),
        };
        if let Some(reply) = self.reply.take() {
            // Fails if the caller has dropped the future.
            let _ = reply.send(Err(expired));
        }
    }
}
