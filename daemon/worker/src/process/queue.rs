//! Implements the bounded queue between a worker's connections and its signers.

use super::deadline_timer::DeadlineTimer;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// An item that must not be processed after its deadline.
pub(super) trait Expires {
    fn deadline(&self) -> Instant;
}

/// First in, first out, for many producers and many consumers. A full queue refuses items and never
/// blocks: a thread that reads a socket must not wait for a token.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    timer: DeadlineTimer,
    limit: usize,
}

struct State<T> {
    items: VecDeque<T>,
    waiting: usize,
    closed: bool,
}

impl<T: Expires> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            waiting: 0,
            closed: false,
        };
        Queue {
            state: Mutex::new(state),
            filled: Condvar::new(),
            timer: DeadlineTimer::default(),
            limit,
        }
    }

    /// Adds as many items as fit, and returns the rest.
    pub(super) fn push_all(&self, items: Vec<T>) -> Vec<T> {
        let mut state = self.lock();
        let room = if state.closed {
            0
        } else {
            self.limit - state.items.len()
        };
        let mut items = items.into_iter();
        let before = state.items.len();
        state.items.extend(items.by_ref().take(room));
        if let Some(next) = state.items.range(before..).map(T::deadline).min() {
            self.timer.arm(next);
        }
        for _ in 0..state.waiting.min(state.items.len()) {
            self.filled.notify_one();
        }
        items.collect()
    }

    /// Waits for the next item; `None` once closed.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        while !state.closed {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            state.waiting += 1;
            state = self
                .filled
                .wait(state)
                .expect("no thread panics while it holds the queue");
            state.waiting -= 1;
        }
        None
    }

    /// Waits until an item may have expired, and removes the expired ones; the rest keeps its
    /// order.
    pub(super) fn expired(&self) -> Vec<T> {
        self.timer.wait();
        let mut state = self.lock();
        let now = Instant::now();
        let (expired, kept) = std::mem::take(&mut state.items)
            .into_iter()
            .partition(|item| item.deadline() <= now);
        state.items = kept;
        if let Some(next) = state.items.iter().map(T::deadline).min() {
            self.timer.arm(next);
        }
        Vec::from_iter::<VecDeque<T>>(expired)
    }

    /// Returns the next item without waiting, if there are `count` or more and it `fits`.
    pub(super) fn pop_of(&self, count: usize, fits: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        let is_there = state.items.len() >= count && state.items.front().is_some_and(fits);
        is_there.then(|| state.items.pop_front()).flatten()
    }

    /// Ends every [`pop`](Queue::pop) at once, and returns the remaining items.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        self.filled.notify_all();
        state.items.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state
            .lock()
            .expect("no thread panics while it holds the queue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// An item that expires in so many minutes.
    fn item(number: u64, minutes: u64) -> (u64, Instant) {
        (number, Instant::now() + Duration::from_secs(60 * minutes))
    }

    impl Expires for (u64, Instant) {
        fn deadline(&self) -> Instant {
            self.1
        }
    }

    fn numbers(items: impl IntoIterator<Item = (u64, Instant)>) -> Vec<u64> {
        items.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn items_that_do_not_fit_are_returned() {
        let queue = Queue::new(2);
        let items = (1..=3).map(|number| item(number, 1));
        assert_eq!(numbers(queue.push_all(items.collect())), [3]);
        assert_eq!(numbers(queue.pop()), [1]);
        let items = (4..=5).map(|number| item(number, 1));
        assert_eq!(numbers(queue.push_all(items.collect())), [5]);
    }

    #[test]
    fn an_item_that_does_not_fit_stays_the_first() {
        let queue = Queue::new(9);
        queue.push_all((1..=3).map(|number| item(number, 1)).collect());
        assert!(queue.pop_of(4, |_| true).is_none());
        assert!(queue.pop_of(3, |it| it.0 == 2).is_none());
        assert_eq!(numbers(queue.pop_of(3, |it| it.0 == 1)), [1]);
        assert_eq!(numbers(queue.pop()), [2]);
    }

    #[test]
    fn expired_items_leave_the_order_of_the_rest() {
        let queue = Queue::new(9);
        let items = (1..=6).map(|number| item(number, number % 2));
        queue.push_all(items.collect());
        assert_eq!(numbers(queue.expired()), [2, 4, 6]);
        assert_eq!(
            numbers(
                [queue.pop(), queue.pop(), queue.pop()]
                    .into_iter()
                    .flatten()
            ),
            [1, 3, 5]
        );
    }

    #[test]
    fn closing_wakes_waiting_threads_and_refuses_items() {
        let queue = Queue::new(2);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.pop());
            queue.close();
            assert_eq!(waiter.join().expect("does not panic"), None);
        });
        assert_eq!(numbers(queue.push_all(vec![item(1, 1)])), [1]);
    }
}
