//! The rolls of leaves, each told once for every fault at every call that it makes: throttled, failed,
//! refused by a version, cut off before and after it was done. Many devices side by side, each with a
//! fault of its own; whatever it was, they come to the same end.

use crate::caller::Caller;
use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::stage::Stage;
use dps_emulator::{Action, Aim, Fault};
use serde_json::Value;

/// How many devices act at a time.
const SIDE_BY_SIDE: usize = 6;

/// What may become of a call.
pub(crate) const FAULTS: [fn() -> Action; 5] = [
    || Action::throttle(1),
    || Action::status(412),
    || Action::status(500),
    || Action::ResetBefore,
    || Action::ResetAfter,
];

/// A device, and what is done to one call that is about it.
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
    fn arm(&self, stage: &Stage) {
        let mut fault = Fault::on(self.operation, self.action.clone());
        fault.aim = Aim {
            path_contains: Some(self.id.clone()),
            ..fault.aim
        };
        stage.emulator.inject(fault).unwrap();
    }

    fn told(&self) -> String {
        format!("{}: {} {:?}", self.id, self.operation, self.action)
    }

    fn slots(&self, stage: &Stage) -> [Option<String>; 2] {
        let record = stage.emulator.individual(&self.id).unwrap();
        ["primary", "secondary"].map(|slot| held(&record, slot))
    }

    /// One identity and one registration record, of the same name as ever, by this leaf.
    fn is_known_by(&self, stage: &Stage, leaf: &Holder) {
        let identity = stage.emulator.hub_identity(&self.id).unwrap();
        assert_eq!(identity["deviceId"], self.id, "{}", self.told());
        let shown = &identity["authentication"]["x509Thumbprint"]["primaryThumbprint"];
        assert_eq!(*shown, leaf.thumbprint, "{}", self.told());
        let registration = stage.emulator.registration(&self.id).unwrap();
        assert_eq!(registration["status"], "assigned", "{}", self.told());
        assert_eq!(registration["deviceId"], self.id, "{}", self.told());
        let leaves = format!("intent WHERE subject = '{}'", self.id);
        assert_eq!(stage.count(&leaves), 2, "{}", self.told());
    }
}

/// Several at a time.
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

/// Each device has a leaf, and is provisioned with it; then its fault waits for it.
fn provisioned(stage: &Stage, station: &Caller, cases: &[Case]) -> Vec<Holder> {
    let holders = leaves(station, cases);
    stage.is_in_step();
    side_by_side(&holders, |holder| is_assigned(&stage.emulator, holder));
    holders
}

fn enroll(stage: &Stage, cases: &[Case]) {
    for case in cases {
        stage.told(&["enrollment", "add", "--individual", &case.id]);
    }
}

/// Waits until there is one roll for each device, and all are in this state.
fn all_are(stage: &Stage, cases: &[Case], state: &str) {
    until(state, || {
        let rolls = stage.json(&["roll", "list"]);
        let rolls = rolls.as_array().unwrap();
        assert_eq!(rolls.len(), cases.len());
        let there = |roll: &Value| roll["state"] == state;
        rolls.iter().all(there).then_some(())
    });
}

pub(crate) fn all_were_met(stage: &Stage) {
    let waiting = stage.emulator.faults();
    assert!(waiting.is_empty(), "faults met no call: {waiting:?}");
}

/// Each compromised device is refused when its command answers.
fn compromise(stage: &Stage, cases: &[Case], compromised: &[Holder]) {
    let pairs: Vec<_> = cases.iter().zip(compromised).collect();
    side_by_side(&pairs, |(case, holder)| {
        let command = ["roll", "start", &case.id, "--reason", "compromise"];
        let told = stage.json(&command);
        assert_eq!(told["receipt"]["complete"], true, "{}: {told}", case.told());
        let end = register(&stage.emulator, holder);
        assert_ne!(end.as_deref(), Ok("assigned"), "{}", case.told());
        assert_eq!(
            stage.emulator.hub_identity(&case.id),
            None,
            "{}",
            case.told()
        );
    });
}

/// Verifies: both leaves are in their slots, the device is seen on the new one, and the old one goes.
#[test]
fn an_expiry_roll_comes_to_its_end_whatever_one_call_comes_to() {
    let mut stage = Stage::set();
    let configuration = stage.configuration();
    stage.configure(&format!(
        "{configuration}\n[policy]\nproof_interval = \"1s\"\nretire_proven = true\n"
    ));
    stage.start();
    stage.run_ceremony();
    let calls = [
        "individual.get",
        "individual.put",
        "identity.get",
        "registration.get",
    ];
    let (cases, station) = (cases(&calls), stage.station());
    enroll(&stage, &cases);
    let old = provisioned(&stage, &station, &cases);
    cases.iter().for_each(|case| case.arm(&stage));
    let new = leaves(&station, &cases);
    all_are(&stage, &cases, "draining");
    side_by_side(&new, |holder| is_assigned(&stage.emulator, holder));
    all_are(&stage, &cases, "done");
    stage.is_in_step();
    all_were_met(&stage);
    for ((case, old), new) in cases.iter().zip(&old).zip(&new) {
        let expected = [None, Some(new.thumbprint.clone())];
        assert_eq!(case.slots(&stage), expected, "{}", case.told());
        case.is_known_by(&stage, new);
        assert!(register(&stage.emulator, old).is_err(), "{}", case.told());
    }
}

/// Verifies: the compromised leaf is out when the command answers; the new one takes its slot.
#[test]
fn a_compromise_comes_to_its_end_whatever_one_call_comes_to() {
    let stage = Stage::up();
    let calls = ["individual.get", "individual.put", "identity.delete"];
    let (cases, station) = (cases(&calls), stage.station());
    enroll(&stage, &cases);
    let compromised = provisioned(&stage, &station, &cases);
    cases.iter().for_each(|case| case.arm(&stage));
    compromise(&stage, &cases, &compromised);
    all_were_met(&stage);
    let new = leaves(&station, &cases);
    all_are(&stage, &cases, "done");
    stage.is_in_step();
    side_by_side(&new, |holder| is_assigned(&stage.emulator, holder));
    for (case, new) in cases.iter().zip(&new) {
        let expected = [Some(new.thumbprint.clone()), None];
        assert_eq!(case.slots(&stage), expected, "{}", case.told());
        case.is_known_by(&stage, new);
    }
}

/// Verifies: under a group the compromised leaf is out by precedence, the new one is let in by the
/// device's own enrollment, and then by the group alone.
#[test]
fn a_compromise_under_a_group_comes_to_its_end_whatever_one_call_comes_to() {
    let stage = Stage::up();
    let group = [
        "enrollment",
        "add",
        "--group",
        "line-1",
        "--authority",
        "line-1",
    ];
    stage.told(&group);
    let calls = [
        "individual.get",
        "individual.put",
        "identity.delete",
        "individual.delete",
    ];
    let (cases, station) = (cases(&calls), stage.station());
    let compromised = provisioned(&stage, &station, &cases);
    cases.iter().for_each(|case| case.arm(&stage));
    compromise(&stage, &cases, &compromised);
    let new = leaves(&station, &cases);
    all_are(&stage, &cases, "done");
    stage.is_in_step();
    side_by_side(&new, |holder| is_assigned(&stage.emulator, holder));
    for (case, new) in cases.iter().zip(&new) {
        let expected = [Some(new.thumbprint.clone()), None];
        assert_eq!(case.slots(&stage), expected, "{}", case.told());
    }
    for case in &cases {
        let back = ["enrollment", "remove", "--individual", &case.id];
        stage.told(&[&back[..], &["--override", "the key was destroyed"]].concat());
    }
    stage.is_in_step();
    all_were_met(&stage);
    side_by_side(&new, |holder| is_assigned(&stage.emulator, holder));
    for (case, new) in cases.iter().zip(&new) {
        assert!(
            stage.emulator.individual(&case.id).is_none(),
            "{}",
            case.told()
        );
        case.is_known_by(&stage, new);
    }
}
