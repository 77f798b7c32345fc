//! A prober: registers devices again and again during a test, and judges every answer.

use crate::device::register;
use crate::request::Holder;
use crate::test_env::TestEnv;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The pause after each round.
const PERIOD: Duration = Duration::from_millis(100);
/// Fewer rounds than this prove nothing.
const ROUNDS_MIN: usize = 3;

pub(crate) struct Prober {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Prober {
    /// For honest devices: DPS accepts each every time.
    pub(crate) fn honest(env: &TestEnv, devices: &[Holder]) -> Self {
        Self::start(env, devices, |_, let_in| let_in)
    }

    /// For devices whose leaf is excluded: once refused, they are never accepted again.
    pub(crate) fn excluded(env: &TestEnv, devices: &[Holder]) -> Self {
        let mut out = vec![false; devices.len()];
        Self::start(env, devices, move |device, let_in| {
            let back = out[device] && let_in;
            out[device] |= !let_in;
            !back
        })
    }

    /// `is_right` judges whether DPS may have accepted or refused a device, by its position.
    fn start(
        env: &TestEnv,
        devices: &[Holder],
        mut is_right: impl FnMut(usize, bool) -> bool + Send + 'static,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (emulator, devices, ends) = (env.emulator.clone(), devices.to_vec(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut rounds = 0;
            // A test may end sooner than that.
            while rounds < ROUNDS_MIN || !ends.load(Ordering::Relaxed) {
                for (place, device) in devices.iter().enumerate() {
                    let end = register(&emulator, device);
                    if !is_right(place, end.as_deref() == Ok("assigned")) {
                        return Err(format!("{}: {end:?}", device.id));
                    }
                }
                rounds += 1;
                std::thread::sleep(PERIOD);
            }
            Ok(())
        });
        Self {
            over,
            thread: Some(thread),
        }
    }

    /// Ends the probing, after [`ROUNDS_MIN`] at the earliest; every answer was right.
    pub(crate) fn ends(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let judged = self.thread.take().expect("it runs").join().unwrap();
        judged.expect("every answer is right");
    }
}

impl Drop for Prober {
    /// A failed test has reported its failure.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
