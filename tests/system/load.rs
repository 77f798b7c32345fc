//! A production line under test: clients that request certificates throughout, and a client that
//! reads the status and fetches a revocation list.
//!
//! A client that is not served must get `Retry-After`, and is served in the end. Requests that need
//! no token must always be answered.

use crate::admin::AdminClient;
use crate::caller::{Answer, Caller};
use crate::invariants;
use crate::process::{SOON, until};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 3;

/// How long a client waits before it asks again: less than `Retry-After`, so that it notices the
/// token's return at once.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a client takes from one device to the next: a test of a minute makes no more devices
/// than can be checked afterwards.
const HAND_OVER: Duration = Duration::from_millis(20);

/// The line while a test goes on.
pub(crate) struct Load {
    served: Mutex<Vec<(Instant, Holder)>>,
    refused: AtomicUsize,
    looked: AtomicUsize,
    ended: AtomicBool,
}

impl Load {
    /// Runs `story` while the line works; afterwards every device has exactly the certificate that
    /// its client was given, from the same `serve`.
    pub(crate) fn during(env: &TestEnv, story: impl FnOnce(&Load)) {
        let (serve, before) = (env.daemon(), issued_to_devices(env));
        let station = env.enlist("station", "line-station");
        let load = Load {
            served: Mutex::default(),
            refused: AtomicUsize::new(0),
            looked: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let ended = Ended(&load.ended);
            for client in 0..CLIENTS {
                let (load, caller) = (&load, env.caller(&station));
                scope.spawn(move || load.ask(client, &caller));
            }
            let (client, lists, load) = (env.client(), env.plain_http(), &load);
            scope.spawn(move || load.look(&client, &lists));
            load.served_within(SOON);
            story(load);
            drop(ended);
        });
        assert_eq!(env.daemon(), serve, "the daemon was started again");
        load.every_device_has_one(env, before);
    }

    /// Waits until a client that asked after this moment is served, for no longer than `limit`.
    pub(crate) fn served_within(&self, limit: Duration) {
        let begun = Instant::now();
        let asked_since = || {
            let served = self.served.lock().unwrap();
            served.iter().any(|(asked, _)| *asked >= begun)
        };
        while !asked_since() {
            assert!(
                begun.elapsed() < limit,
                "no client was served for {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How often a client was refused with `Retry-After`.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until one more client is refused with `Retry-After`.
    pub(crate) fn wait_for_refusal(&self) {
        let before = self.refused();
        until("a client is refused", || {
            (self.refused() > before).then_some(())
        });
    }

    /// Waits until status and list have been read once more.
    pub(crate) fn wait_for_status(&self) {
        let before = self.looked.load(Ordering::Relaxed);
        until("status and list are read", || {
            (self.looked.load(Ordering::Relaxed) > before + 1).then_some(())
        });
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// One client: requests certificates for device after device.
    fn ask(&self, client: usize, caller: &Caller) {
        for number in 0.. {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(HAND_OVER);
            let request = Request::device(&format!("device-{client}-{number}"));
            until(&request.id, || {
                let asked = Instant::now();
                let answer = caller.ask(&request);
                if answer.status == 201 {
                    let holder = request.holder(&answer.body);
                    self.served.lock().unwrap().push((asked, holder));
                    return Some(());
                }
                self.is_refused_with_retry_after(&answer);
                None
            });
        }
    }

    fn is_refused_with_retry_after(&self, answer: &Answer) {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.retry_after.is_some(), "{answer:?}");
        self.refused.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }

    fn look(&self, client: &AdminClient, lists: &Caller) {
        while !self.has_ended() {
            let status = client.hallmark(&["status", "--verbose"]);
            assert_eq!(status.code, Some(0), "{status:?}");
            assert_eq!(lists.get("/crl/line-1.crl").status, 200);
            self.looked.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }

    fn every_device_has_one(self, env: &TestEnv, before: usize) {
        let served = self.served.into_inner().unwrap();
        let given: BTreeSet<_> = served.iter().map(|(_, it)| it.serial.clone()).collect();
        assert_eq!(given.len(), served.len(), "a serial number twice");
        assert_eq!(issued_to_devices(env) - before, served.len());
        let store = invariants::open(&env.database());
        for serial in given {
            let held = format!("intent_state WHERE state = 'issued' AND serial = x'{serial}'");
            assert_eq!(invariants::count(&store, &held), 1, "{serial}");
        }
        env.wait_ready();
    }
}

fn issued_to_devices(env: &TestEnv) -> usize {
    let issued = env.count("intent_state WHERE state = 'issued' AND profile = 'device'");
    usize::try_from(issued).unwrap()
}

/// Stops the line with the test, also when the test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
