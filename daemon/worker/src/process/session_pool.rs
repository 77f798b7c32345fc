//! Holds the sessions of a worker's signers.

use hallmark_protocol::operation::Token;
use std::sync::Mutex;
use std::time::Instant;

/// The signers' sessions. Locks are taken in this order: pool, slot, login.
pub(super) struct SessionPool {
    /// Counts renewals of all sessions, so that of many signers with one failure only the first
    /// recovers.
    pub(super) renewals: u64,
    pub(super) slots: Vec<Mutex<SessionSlot>>,
}

#[derive(Default)]
pub(super) struct SessionSlot {
    pub(super) token: Option<Box<dyn Token>>,
    pub(super) renewed: Option<Instant>,
}

impl SessionPool {
    pub(super) fn drop_sessions(&mut self) {
        for slot in &mut self.slots {
            unlocked(slot).token = None;
        }
    }

    pub(super) fn fill(&mut self, tokens: Vec<Box<dyn Token>>) {
        for (slot, token) in self.slots.iter_mut().zip(tokens) {
            unlocked(slot).token = Some(token);
        }
    }
}

fn unlocked(slot: &mut Mutex<SessionSlot>) -> &mut SessionSlot {
    slot.get_mut()
        .expect("no thread panics while it holds a slot")
}
