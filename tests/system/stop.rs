//! Tests an orderly stop with the line at work.

use crate::caller::Caller;
use crate::keepalive::KeepAlive;
use crate::process::{signal, until};
use crate::request::Request;
use crate::test_env::TestEnv;
use crate::token_faults::env_with_faults;
use dps_emulator as emulator;
use pkcs11_fault::plan::{Action, Fault};
use rustix::process::Signal;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 32;
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// The answers that the clients got.
#[derive(Default)]
struct Answers {
    served: Mutex<Vec<String>>,
    output: AtomicUsize,
}

impl Answers {
    fn served(&self) -> usize {
        self.served.lock().unwrap().len()
    }

    /// One client: requests certificates for device after device until no listener answers.
    fn ask(&self, name: &str, caller: &Caller) {
        for number in 0.. {
            let request = Request::device(&format!("{name}-{number}"));
            match caller.try_ask(&request) {
                Ok(answer) if answer.status == 201 => {
                    let holder = request.holder(&answer.body);
                    self.served.lock().unwrap().push(holder.serial);
                }
                Ok(answer) => {
                    assert_eq!(
                        (answer.status, answer.code()),
                        (503, "stopping"),
                        "{answer:?}"
                    );
                    assert!(answer.retry_after.is_some(), "{answer:?}");
                    self.output.fetch_add(1, Ordering::Relaxed);
                }
                Err(refused) if refused.is_connect() => return,
                Err(error) => panic!("neither an answer nor a refusal: {error:?}"),
            }
        }
    }

    /// Stops the daemon while `clients` ask, as soon as `moment` has come.
    fn during_stop(env: &mut TestEnv, clients: usize, moment: impl FnOnce(&Self)) -> Self {
        let station = env.enlist("station", "line-station");
        let callers: Vec<_> = (0..clients).map(|_| env.caller(&station)).collect();
        let answers = Self::default();
        std::thread::scope(|scope| {
            for (client, caller) in callers.iter().enumerate() {
                let answers = &answers;
                scope.spawn(move || answers.ask(&format!("device-{client}"), caller));
            }
            moment(&answers);
            let begun = Instant::now();
            env.stop();
            let taken = begun.elapsed();
            assert!(taken <= STOPPED_WITHIN, "the stop took {taken:?}");
        });
        answers
    }
}

/// Verifies: a client that has asked is answered with a certificate or with 503, and a later one
/// finds no listener; every certificate given is on record; no intent is open, without another
/// start.
#[test]
fn a_stop_amid_32_clients_answers_every_client() {
    let mut env = TestEnv::running();
    let answers = Answers::during_stop(&mut env, CLIENTS, |answers| {
        until("the line is at work", || {
            (answers.served() > 100).then_some(())
        });
    });
    assert_eq!(env.count("intent_state WHERE state = 'intended'"), 0);
    let served = answers.served.into_inner().unwrap();
    for serial in &served {
        let held = format!("intent_state WHERE state = 'issued' AND serial = x'{serial}'");
        assert_eq!(env.count(&held), 1, "{serial}");
    }
    let issued = env.count("intent_state WHERE state = 'issued' AND profile = 'device'");
    assert_eq!(issued, i64::try_from(served.len()).unwrap());
    env.start();
    env.wait_ready();
}

/// Verifies: a connection without a request yet is served once; a second request on it gets
/// `Retry-After`; an idle connection is closed, and not reset.
#[test]
fn at_a_stop_every_accepted_client_is_answered_once() {
    const LIST: &str = "/crl/line-1.crl";
    let mut env = TestEnv::running();
    let [mut asks_again, mut idle, mut fresh] = [(); 3].map(|()| KeepAlive::open(&env));
    assert_eq!(asks_again.get(LIST).status(), 200);
    assert_eq!(idle.get(LIST).status(), 200);
    signal(env.daemon(), Signal::TERM);
    until("it stops", || {
        let log = fs::read_to_string(env.path("hallmarkd.log")).unwrap();
        log.contains("service: stopping").then_some(())
    });
    let output = asks_again.get(LIST);
    assert_eq!(output.status(), 503, "{output:?}");
    assert!(output.value("retry-after").is_some(), "{output:?}");
    assert_eq!(output.value("connection"), Some("close"), "{output:?}");
    let served = fresh.get(LIST);
    assert_eq!(served.status(), 200, "{served:?}");
    assert_eq!(served.value("connection"), Some("close"), "{served:?}");
    for connection in [asks_again, idle, fresh] {
        connection.wait_closed();
    }
    env.stop();
}

/// A signature of the token and a call of the provisioning service never return, and both have
/// deadlines beyond the stop's. Verifies: the daemon ends in time and in order, clients get
/// `Retry-After`, and the next start explains the signature.
#[test]
fn a_stop_does_not_wait_for_hung_calls() {
    let (mut env, plan) = env_with_faults(&[]);
    env.stop();
    let file = fs::read_to_string(env.path("hallmark.toml")).unwrap();
    env.configure(&file.replace("sign_deadline_ms = 1000", "sign_deadline_ms = 60000"));
    env.start();
    env.wait_ready();
    env.run(&["enrollment", "add", "--individual", "device-0-0"]);
    let never = emulator::Fault::on("individual.put", emulator::Action::Hang);
    env.emulator.inject(never).unwrap();
    let service = env.emulator.clone();
    let answers = Answers::during_stop(&mut env, 4, |_| {
        until("the service hangs", || {
            service.faults().is_empty().then_some(())
        });
        plan.set(&[Fault::from("C_Sign", 1, Action::Hang)]).unwrap();
        until("the token hangs", || {
            (!plan.came().is_empty()).then_some(())
        });
    });
    assert!(answers.output.load(Ordering::Relaxed) > 0);
    plan.set(&[]).unwrap();
    env.start();
    env.wait_ready();
    assert!(env.count("intent_state WHERE state = 'abandoned'") > 0);
    env.wait_in_sync();
}
