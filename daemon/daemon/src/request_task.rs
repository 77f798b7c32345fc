//! Runs the task of a request, and continues it on the thread that has its answer.
//!
//! The issuance cycle waits three times: for the store's writer, a token's reader, and the writer
//! again. Each answers many requests at once. An executor would wake another thread for every
//! answer; here the thread that answers goes on with a few requests, each up to its next wait
//! ([`answering`]). Many are left to the executor, with one visit for each processor.
//!
//! So a task MUST NOT block: it may run on the thread for which it would wait ([`may_block`]).
//! Before work that may, such as that after a refusal, it leaves for the executor ([`elsewhere`]).

use async_task::Runnable;
use futures_channel::oneshot;
use futures_util::FutureExt;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::task::Poll;
use tokio::runtime::Handle;

/// The most tasks with which an answering thread goes on itself. With more, other processors have
/// work at once, and on a busy machine this thread would keep the next group waiting.
const HERE_MAX: usize = 4;

thread_local! {
    /// The tasks that the answers of this thread have woken; `None` while it does not answer.
    static WOKEN: RefCell<Option<Vec<Woken>>> = const { RefCell::new(None) };
    /// This thread answers, and runs tasks in between.
    static ANSWERS: Cell<bool> = const { Cell::new(false) };
}

static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

struct Woken {
    task: Runnable,
    executor: Handle,
}

/// Starts a task on this thread, which is one of the executor. It runs to its end, even if the
/// receiver is dropped. The receiver fails if the task panics.
pub(crate) fn start<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (task, outcome) = task(future);
    task.run();
    outcome
}

/// Does the same on any thread of the executor.
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (task, outcome) = task(future);
    task.schedule();
    outcome
}

fn task<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> (Runnable, oneshot::Receiver<T>) {
    let (sender, outcome) = oneshot::channel();
    let executor = Handle::current();
    let scheduler = executor.clone();
    let mut future = Box::pin(AssertUnwindSafe(future).catch_unwind());
    let run = async move {
        // Timers need the executor, also on other threads.
        let entered = poll_fn(|context| {
            let _entered = executor.enter();
            future.as_mut().poll(context)
        });
        if let Ok(outcome) = entered.await {
            // A client that hung up loses only the answer.
            let _ = sender.send(outcome);
        }
    };
    let schedule = move |task: Runnable| wake(task, &scheduler);
    let (runnable, handle) = async_task::spawn(run, schedule);
    handle.detach();
    (runnable, outcome)
}

fn wake(task: Runnable, executor: &Handle) {
    let executor = executor.clone();
    let woken = Woken { task, executor };
    let other = WOKEN.with_borrow_mut(|answering| match answering {
        Some(tasks) => {
            tasks.push(woken);
            None
        }
        None => Some(woken),
    });
    run_in_executor(other.into_iter().collect());
}

/// Gives answers, then continues the tasks that waited for them: here, or many of them in equal
/// shares on all processors.
pub(crate) fn answering(give: impl FnOnce()) {
    WOKEN.set(Some(Vec::new()));
    give();
    let mut tasks = WOKEN.take().unwrap_or_default();
    if tasks.len() > HERE_MAX {
        let share = tasks.len().div_ceil(*PROCESSORS);
        while !tasks.is_empty() {
            let shared = tasks.split_off(tasks.len().saturating_sub(share));
            run_in_executor(shared);
        }
    }
    ANSWERS.set(true);
    for Woken { task, .. } in tasks {
        task.run();
    }
    ANSWERS.set(false);
}

/// Runs them one after the other.
fn run_in_executor(tasks: Vec<Woken>) {
    let Some(Woken { executor, .. }) = tasks.first() else {
        return;
    };
    executor.clone().spawn(async move {
        for Woken { task, .. } in tasks {
            task.run();
        }
    });
}

/// Leaves an answering thread: what follows may block, or takes long. Elsewhere it does nothing.
pub(crate) async fn elsewhere() {
    let mut has_left = !ANSWERS.get();
    poll_fn(|context| {
        if has_left {
            return Poll::Ready(());
        }
        has_left = true;
        // The tasks of this thread have been taken already, so the executor gets this one.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Called before this thread waits for another one. The debug build fails in a task that runs on a
/// thread of [`answering`].
pub(crate) fn may_block() {
    debug_assert!(!ANSWERS.get(), "this thread would wait for itself");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{self, ThreadId};

    async fn thread_after(answer: oneshot::Receiver<()>) -> ThreadId {
        let _ = answer.await;
        // As timers do.
        let _ = Handle::current();
        thread::current().id()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_continues_on_the_thread_that_answers() {
        let (answer, asked) = oneshot::channel();
        let ended_on = start(thread_after(asked));
        let answerer = thread::spawn(|| {
            answering(|| answer.send(()).unwrap());
            thread::current().id()
        });
        assert_eq!(ended_on.await.unwrap(), answerer.join().unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_tasks_are_left_to_the_executor() {
        let (answers, asked): (Vec<_>, Vec<_>) = (0..64).map(|_| oneshot::channel()).unzip();
        let ends: Vec<_> = asked
            .into_iter()
            .map(|it| start(thread_after(it)))
            .collect();
        let answerer = thread::spawn(move || {
            answering(|| answers.into_iter().for_each(|it| it.send(()).unwrap()));
            thread::current().id()
        });
        let answerer = answerer.join().unwrap();
        for end in ends {
            assert_ne!(end.await.unwrap(), answerer);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_leaves_the_thread_that_answers() {
        let (answer, asked) = oneshot::channel();
        let ended_on = start(async move {
            let answered_on = thread_after(asked).await;
            elsewhere().await;
            (answered_on, thread::current().id())
        });
        let answerer = thread::spawn(|| {
            answering(|| answer.send(()).unwrap());
            thread::current().id()
        });
        let (answered_on, ended_on) = ended_on.await.unwrap();
        assert_eq!(answered_on, answerer.join().unwrap());
        assert_ne!(ended_on, answered_on);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_ends_its_task_alone() {
        let (answer, asked) = oneshot::channel::<()>();
        let broken = start(async move {
            let _ = asked.await;
            panic!("a test");
        });
        let answerer = thread::spawn(|| {
            answering(|| answer.send(()).unwrap());
            may_block();
        });
        answerer.join().unwrap();
        assert!(broken.await.is_err());
    }
}
