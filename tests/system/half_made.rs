//! Tests key pairs of authorities of which one half is missing, and public keys that another
//! program has written: no authority is certified, staged or reported as replaced with a key that
//! does not sign, and no foreign object is removed.
//!
//! SoftHSM stores the public half first. The moment between the two halves is short, so the module
//! with faults leaves one half and ends the worker (`pkcs11_fault::plan`); SIGKILL at many moments,
//! and the other modules, are in `daemon/programs/tests/modules/half_made.rs`.

use crate::authority_roll::{comes_to, second_signs, shown, start};
use crate::process::until;
use crate::test_env::{CEREMONY, TestEnv};
use crate::token_faults::{env_with_faults, new_with_faults};
use crate::token_objects::{Objects, Order};
use pkcs11_fault::plan::{Action, Fault, Half, Plan};

const ONE_KEY: Objects = Objects {
    public: 1,
    private: 1,
};

/// The fault of the next key pair of the next worker.
fn next_key_meets(plan: &Plan, action: Action) {
    let fault = Fault::at("C_GenerateKeyPair", 1, action);
    plan.set(&[fault]).unwrap();
}

/// Waits until the fault has come, and lets every later key be made.
fn it_has_come(plan: &Plan) {
    until("the worker dies while it makes a key", || {
        (!plan.came().is_empty()).then_some(())
    });
    plan.set(&[]).unwrap();
}

fn alarms(env: &TestEnv) -> Vec<String> {
    let alarms = env.json(&["status"])["alarms"].clone();
    serde_json::from_value(alarms).unwrap()
}

fn has_one_key(env: &TestEnv, authority: &str, generation: u32) {
    let id = env.key_id(authority, generation);
    let objects = env.at_the_token(&Order::Count { id: &id });
    assert_eq!(objects, ONE_KEY, "{authority} {generation}");
}

/// Asserts that a leaf is issued at once, and verifies up to the root.
fn a_leaf_is_issued(env: &TestEnv, id: &str) {
    let leaf = env.enlist("device", id);
    leaf.is_accepted_by_openssl(&env.authority("root"));
}

/// Verifies: whatever a worker leaves of a key, and twice in a row, the ceremony fails and
/// certifies nothing; the next ceremony makes the authority with one key pair that signs.
#[test]
fn a_ceremony_is_completed_although_the_worker_dies_at_every_key() {
    let (mut env, plan) = new_with_faults(&[]);
    env.start();
    let deaths = [
        Action::Keep(Half::Public),
        Action::Keep(Half::Private),
        Action::CrashAfter,
        Action::Crash,
    ];
    let authorities: Vec<&str> = CEREMONY.split("[[authority]]").collect();
    for made in 0..deaths.len() {
        // One authority more than there are.
        let text = authorities[..made + 2].join("[[authority]]");
        let file = env.write("part.toml", &text);
        let ceremony = ["ceremony", "run", file.to_str().unwrap()];
        for death in [deaths[made], deaths[(made + 1) % deaths.len()]] {
            next_key_meets(&plan, death);
            let output = env.hallmark(&ceremony);
            if deaths[made] == Action::CrashAfter && output.code == Some(0) {
                // The pair was finished: the second run has found it.
                assert_eq!(plan.came(), Vec::<String>::new());
                continue;
            }
            assert_ne!(output.code, Some(0), "{death:?}: {output:?}");
            assert!(output.error.contains("token_unavailable"), "{output:?}");
            it_has_come(&plan);
            let certified = env.count("generation WHERE certificate IS NOT NULL");
            assert_eq!(usize::try_from(certified), Ok(made), "{death:?}");
        }
        plan.set(&[]).unwrap();
        env.run(&ceremony);
    }
    env.run_ceremony();
    for authority in ["root", "plant", "line-1", "operations"] {
        has_one_key(&env, authority, 1);
    }
    a_leaf_is_issued(&env, "press-1");
    assert_eq!(alarms(&env), Vec::<String>::new());
}

/// Verifies: the rolls of two authorities by expiry are staged and cut over with a whole key.
#[test]
fn an_expiry_roll_makes_a_whole_key_although_the_worker_leaves_half_of_one() {
    let (env, plan) = env_with_faults(&[]);
    for (authority, half) in [("line-1", Half::Public), ("operations", Half::Private)] {
        next_key_meets(&plan, Action::Keep(half));
        let roll = start(&env, authority, "expiry", &[]);
        it_has_come(&plan);
        comes_to(&env, &roll, "done");
        assert!(second_signs(&env, authority));
        has_one_key(&env, authority, 2);
    }
    a_leaf_is_issued(&env, "press-1");
}

/// Verifies: when a compromise rollover is done, a leaf is issued at once.
#[test]
fn a_compromise_roll_is_done_with_a_whole_key_although_the_worker_leaves_half_of_one() {
    let (env, plan) = env_with_faults(&[]);
    next_key_meets(&plan, Action::Keep(Half::Public));
    let roll = start(&env, "line-1", "compromise", &[]);
    it_has_come(&plan);
    comes_to(&env, &roll, "done");
    a_leaf_is_issued(&env, "press-1");
    has_one_key(&env, "line-1", 2);
}

/// The next generation is certified, and then its key is unavailable: the rollover stops there,
/// says why, and goes on when the key is back.
fn waits_for_its_key(reason: &str) {
    let mut env = TestEnv::running();
    env.restart_to_stay_at("roll-generation-staged");
    let roll = start(&env, "line-1", reason, &[]);
    env.stays_at("roll-generation-staged");
    env.kill();
    until("its worker ends with it", || {
        env.worker().is_none().then_some(())
    });
    let id = env.key_id("line-1", 2);
    let elsewhere = "aa".repeat(16);
    let to = elsewhere.as_str();
    env.at_the_token(&Order::Move { id: &id, to });
    env.start();
    let output = until("the alarm", || {
        alarms(&env)
            .into_iter()
            .find(|it| it.contains("it goes no further") && it.contains("line-1 2"))
    });
    assert!(output.contains("not on the token"), "{output}");
    let state = &shown(&env, &roll)["state"];
    assert!(state != "done" && state != "staged", "{state}");
    assert!(!second_signs(&env, "line-1"));
    env.at_the_token(&Order::Move { id: to, to: &id });
    comes_to(&env, &roll, "done");
    a_leaf_is_issued(&env, "press-1");
    assert!(alarms(&env).iter().all(|it| !it.contains("goes no")));
}

#[test]
fn an_expiry_roll_stages_no_key_that_does_not_sign() {
    waits_for_its_key("expiry");
}

#[test]
fn a_compromise_roll_is_not_done_with_a_key_that_does_not_sign() {
    waits_for_its_key("compromise");
}

/// Verifies, after the next login: every authority goes on signing, an alarm names the key, and
/// ends when the foreign public keys are removed. The private key and the public key on record
/// decide.
#[test]
fn foreign_public_keys_with_the_id_of_a_ca_key_do_not_matter() {
    let mut env = TestEnv::running();
    let authorities = ["root", "plant", "line-1", "operations"];
    let ids = authorities.map(|authority| env.key_id(authority, 1));
    for (id, authority) in ids.iter().zip(authorities) {
        // More public keys than are read for one key, for one of the authorities.
        let count = if authority == "line-1" { 70 } else { 1 };
        let label = &format!("hallmark {authority} 1");
        env.at_the_token(&Order::WritePublic { id, label, count });
    }
    env.restart();
    a_leaf_is_issued(&env, "press-1");
    let output = until("the alarm", || {
        let mut alarms = alarms(&env).into_iter();
        alarms.find(|it| it.contains("hallmark line-1 1"))
    });
    assert!(
        output.contains("public keys on the token have the id"),
        "{output}"
    );
    let file = env.path("ceremony.toml");
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    for id in &ids {
        env.at_the_token(&Order::DeleteForeign { id });
    }
    until("the alarm goes", || alarms(&env).is_empty().then_some(()));
    for authority in authorities {
        has_one_key(&env, authority, 1);
    }
}

/// Verifies: a CA key whose own public key another program has deleted goes on signing, with an
/// alarm.
#[test]
fn a_ca_key_without_its_public_key_is_used_by_the_one_on_record() {
    let mut env = TestEnv::running();
    let id = env.key_id("line-1", 1);
    let left = env.at_the_token(&Order::DeletePublic { id: &id });
    assert_eq!((left.public, left.private), (0, 1));
    env.restart();
    a_leaf_is_issued(&env, "press-1");
    until("the alarm", || {
        let mut alarms = alarms(&env).into_iter();
        alarms.find(|it| it.contains("the public key of \"hallmark line-1 1\""))
    });
}

/// Another program writes a public key with the id and the label of a key that is half made.
/// Hallmark cannot tell which of the two it made: both stay, and the ceremony makes its key.
#[test]
fn a_foreign_public_key_beside_half_a_key_is_not_removed() {
    let (mut env, plan) = new_with_faults(&[]);
    env.start();
    let file = env.path("ceremony.toml");
    next_key_meets(&plan, Action::Keep(Half::Public));
    let output = env.hallmark(&["ceremony", "run", file.to_str().unwrap()]);
    assert_ne!(output.code, Some(0), "{output:?}");
    it_has_come(&plan);
    let id = &env.key_id("root", 1);
    let label = "hallmark root 1";
    let count = 1;
    let written = env.at_the_token(&Order::WritePublic { id, label, count });
    assert_eq!((written.public, written.private), (2, 0));
    env.run_ceremony();
    let left = env.at_the_token(&Order::Count { id });
    assert_eq!((left.public, left.private), (3, 1));
    a_leaf_is_issued(&env, "press-1");
    let output = alarms(&env).join("\n");
    assert!(output.contains("2 public keys on the token"), "{output}");
}

/// Verifies: a private key with the id of a planned key, and another label, is not removed.
#[test]
fn a_private_key_that_is_not_ours_refuses_the_ceremony() {
    let (mut env, plan) = new_with_faults(&[]);
    env.start();
    let file = env.path("ceremony.toml");
    let ceremony = ["ceremony", "run", file.to_str().unwrap()];
    next_key_meets(&plan, Action::Keep(Half::Private));
    assert_ne!(env.hallmark(&ceremony).code, Some(0));
    it_has_come(&plan);
    let id = env.key_id("root", 1);
    // Another label: nothing shows that the key was made by Hallmark.
    env.at_the_token(&Order::Move { id: &id, to: &id });
    until("the ceremony is refused", || {
        let output = env.hallmark(&ceremony);
        assert_ne!(output.code, Some(0), "{output:?}");
        output.error.contains("remove them").then_some(())
    });
    let left = env.at_the_token(&Order::Count { id: &id });
    assert_eq!((left.public, left.private), (0, 1));
}
