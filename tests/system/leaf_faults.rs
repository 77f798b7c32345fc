//! Tests rollovers of leaves with every fault at every call: throttled, failed, refused by a
//! version, cut off before and after it was done. Many devices roll side by side, each with a fault
//! of its own, and come to the same end.

use crate::caller::Caller;
use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Aim, Fault};
use serde_json::Value;

/// How many devices act at a time.
const SIDE_BY_SIDE: usize = 6;

/// The fault of a call.
pub(crate) const FAULTS: [fn() -> Action; 5] = [
    || Action::throttle(1),
    || Action::status(412),
    || Action::status(500),
    || Action::ResetBefore,
    || Action::ResetAfter,
];

/// A device, and the fault of one call that concerns it.
struct Case {
    id: String,
    operation: &'static str,
    action: Action,
}

/// Every fault at every one of these calls.
fn cases(operations: &[&'static str]) -> Vec<Case> {
    let mut cases = Vec::new();
    for operation in operations {
        for action in FAULTS {
            cases.push(Case {
                id: format!("press-{:02}", cases.len()),
                operation,
                action: action(),
            });
        }
    }
    cases
}

impl Case {
    fn arm(&self, env: &TestEnv) {
        let mut fault = Fault::on(self.operation, self.action.clone());
        fault.aim = Aim {
            path_contains: Some(self.id.clone()),
            ..fault.aim
        };
        env.emulator.inject(fault).unwrap();
    }

    fn describe(&self) -> String {
        format!("{}: {} {:?}", self.id, self.operation, self.action)
    }

    fn slots(&self, env: &TestEnv) -> [Option<String>; 2] {
        let record = env.emulator.individual(&self.id).unwrap();
        ["primary", "secondary"].map(|slot| held(&record, slot))
    }

    /// Asserts one identity and one registration record, of the same name, with this leaf.
    fn is_known_by(&self, env: &TestEnv, leaf: &Holder) {
        let identity = env.emulator.hub_identity(&self.id).unwrap();
        assert_eq!(identity["deviceId"], self.id, "{}", self.describe());
        let shown = &identity["authentication"]["x509Thumbprint"]["primaryThumbprint"];
        assert_eq!(*shown, leaf.thumbprint, "{}", self.describe());
        let registration = env.emulator.registration(&self.id).unwrap();
        assert_eq!(registration["status"], "assigned", "{}", self.describe());
        assert_eq!(registration["deviceId"], self.id, "{}", self.describe());
        let leaves = format!("intent WHERE subject = '{}'", self.id);
        assert_eq!(env.count(&leaves), 2, "{}", self.describe());
    }
}

/// Runs several at a time.
pub(crate) fn side_by_side<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let mut done = Vec::new();
    for some in items.chunks(SIDE_BY_SIDE) {
        std::thread::scope(|scope| {
            let begun: Vec<_> = some.iter().map(|it| scope.spawn(|| work(it))).collect();
            done.extend(begun.into_iter().map(|it| it.join().unwrap()));
        });
    }
    done
}

/// Each device gets a leaf.
fn leaves(station: &Caller, cases: &[Case]) -> Vec<Holder> {
    side_by_side(cases, |case| station.obtain(&Request::device(&case.id)))
}

/// Each device has a leaf, and is provisioned with it; then its fault is set.
fn provisioned(env: &TestEnv, station: &Caller, cases: &[Case]) -> Vec<Holder> {
    let holders = leaves(station, cases);
    env.wait_in_sync();
    side_by_side(&holders, |holder| is_assigned(&env.emulator, holder));
    holders
}

fn enroll(env: &TestEnv, cases: &[Case]) {
    for case in cases {
        env.run(&["enrollment", "add", "--individual", &case.id]);
    }
}

/// Waits until there is one roll for each device, and all are in this state.
fn all_are(env: &TestEnv, cases: &[Case], state: &str) {
    until(state, || {
        let rolls = env.json(&["roll", "list"]);
        let rolls = rolls.as_array().unwrap();
        assert_eq!(rolls.len(), cases.len());
        let there = |roll: &Value| roll["state"] == state;
        rolls.iter().all(there).then_some(())
    });
}

pub(crate) fn all_were_met(env: &TestEnv) {
    let waiting = env.emulator.faults();
    assert!(waiting.is_empty(), "faults met no call: {waiting:?}");
}

/// Each compromised device is refused when its command answers.
fn compromise(env: &TestEnv, cases: &[Case], compromised: &[Holder]) {
    let pairs: Vec<_> = cases.iter().zip(compromised).collect();
    side_by_side(&pairs, |(case, holder)| {
        let command = ["roll", "start", &case.id, "--reason", "compromise"];
        let output = env.json(&command);
        assert_eq!(
            output["receipt"]["complete"],
            true,
            "{}: {output}",
            case.describe()
        );
        let end = register(&env.emulator, holder);
        assert_ne!(end.as_deref(), Ok("assigned"), "{}", case.describe());
        assert_eq!(
            env.emulator.hub_identity(&case.id),
            None,
            "{}",
            case.describe()
        );
    });
}

/// Verifies: both leaves are in their slots, the device is observed with the new one, and the old
/// one is retired.
#[test]
fn an_expiry_roll_ends_whatever_one_call_returns() {
    let mut env = TestEnv::new();
    let configuration = env.configuration();
    env.configure(&format!(
        "{configuration}\n[policy]\nproof_interval = \"1s\"\nretire_proven = true\n"
    ));
    env.start();
    env.run_ceremony();
    let calls = [
        "individual.get",
        "individual.put",
        "identity.get",
        "registration.get",
    ];
    let (cases, station) = (cases(&calls), env.station());
    enroll(&env, &cases);
    let old = provisioned(&env, &station, &cases);
    cases.iter().for_each(|case| case.arm(&env));
    let new = leaves(&station, &cases);
    all_are(&env, &cases, "draining");
    side_by_side(&new, |holder| is_assigned(&env.emulator, holder));
    all_are(&env, &cases, "done");
    env.wait_in_sync();
    all_were_met(&env);
    for ((case, old), new) in cases.iter().zip(&old).zip(&new) {
        let expected = [None, Some(new.thumbprint.clone())];
        assert_eq!(case.slots(&env), expected, "{}", case.describe());
        case.is_known_by(&env, new);
        assert!(register(&env.emulator, old).is_err(), "{}", case.describe());
    }
}

/// Verifies: DPS refuses the compromised leaf when the command answers; the new one takes its slot.
#[test]
fn a_compromise_roll_ends_whatever_one_call_returns() {
    let env = TestEnv::running();
    let calls = ["individual.get", "individual.put", "identity.delete"];
    let (cases, station) = (cases(&calls), env.station());
    enroll(&env, &cases);
    let compromised = provisioned(&env, &station, &cases);
    cases.iter().for_each(|case| case.arm(&env));
    compromise(&env, &cases, &compromised);
    all_were_met(&env);
    let new = leaves(&station, &cases);
    all_are(&env, &cases, "done");
    env.wait_in_sync();
    side_by_side(&new, |holder| is_assigned(&env.emulator, holder));
    for (case, new) in cases.iter().zip(&new) {
        let expected = [Some(new.thumbprint.clone()), None];
        assert_eq!(case.slots(&env), expected, "{}", case.describe());
        case.is_known_by(&env, new);
    }
}

/// Verifies: under a group, DPS refuses the compromised leaf by precedence, accepts the new one by
/// the device's own enrollment, and then by the group alone.
#[test]
fn a_compromise_roll_under_a_group_ends_whatever_one_call_returns() {
    let env = TestEnv::running();
    let group = [
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ];
    env.run(&group);
    let calls = [
        "individual.get",
        "individual.put",
        "identity.delete",
        "individual.delete",
    ];
    let (cases, station) = (cases(&calls), env.station());
    let compromised = provisioned(&env, &station, &cases);
    cases.iter().for_each(|case| case.arm(&env));
    compromise(&env, &cases, &compromised);
    let new = leaves(&station, &cases);
    all_are(&env, &cases, "done");
    env.wait_in_sync();
    side_by_side(&new, |holder| is_assigned(&env.emulator, holder));
    for (case, new) in cases.iter().zip(&new) {
        let expected = [Some(new.thumbprint.clone()), None];
        assert_eq!(case.slots(&env), expected, "{}", case.describe());
    }
    for case in &cases {
        let back = ["enrollment", "remove", "--individual", &case.id];
        env.run(&[&back[..], &["--override", "the key was destroyed"]].concat());
    }
    env.wait_in_sync();
    all_were_met(&env);
    side_by_side(&new, |holder| is_assigned(&env.emulator, holder));
    for (case, new) in cases.iter().zip(&new) {
        assert!(
            env.emulator.individual(&case.id).is_none(),
            "{}",
            case.describe()
        );
        case.is_known_by(&env, new);
    }
}
