//! The bounded queue between a worker's connections and its signers.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

/// First in, first out, for many producers and many consumers. Full means refused, never blocked:
/// who reads a socket must not wait for a token.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    limit: usize,
}

struct State<T> {
    items: VecDeque<T>,
    waiting: usize,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            waiting: 0,
            closed: false,
        };
        Queue {
            state: Mutex::new(state),
            filled: Condvar::new(),
            limit,
        }
    }

    /// Adds what fits, and gives back what does not.
    pub(super) fn push_all(&self, items: Vec<T>) -> Vec<T> {
        let mut state = self.lock();
        let room = if state.closed {
            0
        } else {
            self.limit - state.items.len()
        };
        let mut items = items.into_iter();
        state.items.extend(items.by_ref().take(room));
        for _ in 0..state.waiting.min(state.items.len()) {
            self.filled.notify_one();
        }
        items.collect()
    }

    /// The next item, waited for; `None` once closed.
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

    /// Takes out what `is_wanted`; the rest keeps its order.
    pub(super) fn remove_where(&self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut state = self.lock();
        let (wanted, kept) = std::mem::take(&mut state.items)
            .into_iter()
            .partition(is_wanted);
        state.items = kept;
        Vec::from_iter::<VecDeque<T>>(wanted)
    }

    /// The next item, if there is one now.
    pub(super) fn pop_now(&self) -> Option<T> {
        self.lock().items.pop_front()
    }

    /// Ends every [`pop`](Queue::pop) at once and gives back what nobody will do any more.
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

    #[test]
    fn what_does_not_fit_comes_back() {
        let queue = Queue::new(2);
        assert_eq!(queue.push_all(vec![1, 2, 3]), [3]);
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.push_all(vec![4, 5]), [5]);
    }

    #[test]
    fn what_is_taken_out_leaves_the_order_of_the_rest() {
        let queue = Queue::new(9);
        queue.push_all((1..=6).collect());
        assert_eq!(queue.remove_where(|item| item % 2 == 0), [2, 4, 6]);
        assert_eq!(
            [queue.pop(), queue.pop(), queue.pop()],
            [Some(1), Some(3), Some(5)]
        );
    }

    #[test]
    fn closing_wakes_who_waits_and_takes_nothing_more() {
        let queue = Queue::<u8>::new(2);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.pop());
            queue.close();
            assert_eq!(waiter.join().expect("does not panic"), None);
        });
        assert_eq!(queue.push_all(vec![1]), [1]);
    }
}
