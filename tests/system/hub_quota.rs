//! Tests answers that are not the service's own statement about an object: a 404 of a proxy or with
//! another code, a quota, and a conflict that lasts. None of them ends a task, all are paced, and
//! receipts have their words.

use crate::process::until;
use crate::provisioned::{below_line_1, individually};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn hub_place(output: &Value) -> &Value {
    let mut places = output["receipt"]["places"].as_array().unwrap().iter();
    places.find(|it| it["place"] == "hub: dps").unwrap()
}

fn meets(env: &TestEnv, operation: &str, action: Action, times: u32) {
    let fault = Fault::on(operation, action).times(times);
    env.emulator.inject(fault).unwrap();
}

/// 404s that do not say that there is no such device.
fn foreign() -> Vec<(Action, &'static str)> {
    let html = "<html>404</html>";
    vec![
        (Action::foreign(404, html), html),
        (Action::foreign(404, ""), "no message"),
        (
            Action::of_hub(404, "IotHubNotFound", "IoTHub one not found"),
            "IotHubNotFound",
        ),
        (Action::status(404), "A fault on demand"),
    ]
}

/// B3. Verifies: a foreign 404 is no deletion; the identity is deleted afterwards.
#[test]
fn a_404_that_is_not_the_hubs_own_deletes_nothing() {
    for (action, _) in foreign() {
        let (env, _) = below_line_1(&["press-7"]);
        meets(&env, "identity.delete", action, 2);
        let block = env.json(&["device", "block", "press-7"]);
        assert_eq!(hub_place(&block)["state"], "done", "{block}");
        assert_eq!(env.emulator.requests_of("identity.delete").len(), 3);
        assert!(env.emulator.hub_identity("press-7").is_none());
    }
}

/// B3. Verifies: while foreign 404s last, the receipt is pending and has their words.
#[test]
fn a_receipt_has_the_words_of_a_foreign_404() {
    let (env, devices) = below_line_1(&["press-7"]);
    let client = env.client();
    meets(&env, "identity.delete", Action::status(404), 1_000);
    let operator =
        std::thread::spawn(move || client.hallmark(&["--json", "device", "block", "press-7"]));
    for (action, words) in foreign() {
        until("the task is on record", || {
            (env.count("hub_task WHERE attempts > 0") > 0).then_some(())
        });
        env.emulator.clear_faults();
        meets(&env, "identity.delete", action, 1_000);
        let like = format!("hub_task WHERE last_error LIKE '%{words}%'");
        until("the words are on record", || {
            (env.count(&like) > 0).then_some(())
        });
    }
    let block = operator.join().unwrap();
    let block: Value = serde_json::from_str(&block.out).unwrap();
    let hub = hub_place(&block);
    assert_eq!(hub["state"], "pending", "{block}");
    assert!(hub["answer"].as_str().unwrap().contains("404"), "{block}");
    assert!(env.emulator.hub_identity(&devices[0].id).is_some());
    env.emulator.clear_faults();
    until("it is deleted", || {
        env.emulator.hub_identity("press-7").is_none().then_some(())
    });
}

/// Verifies: a proxy's page is no deletion either if its status is 200.
#[test]
fn a_page_of_a_proxy_deletes_nothing() {
    let (env, _) = below_line_1(&["press-7"]);
    meets(
        &env,
        "identity.delete",
        Action::foreign(200, "<html>log in</html>"),
        2,
    );
    let block = env.json(&["device", "block", "press-7"]);
    assert_eq!(hub_place(&block)["state"], "done", "{block}");
    assert_eq!(env.emulator.requests_of("identity.delete").len(), 3);
    assert!(env.emulator.hub_identity("press-7").is_none());
}

/// The registration record cannot be read. Verifies: nothing is concluded, and nothing is deleted
/// at a guess.
#[test]
fn without_the_record_nothing_is_concluded() {
    for action in [
        Action::foreign(404, "<html>404</html>"),
        Action::status(500),
    ] {
        let (env, _) = below_line_1(&["press-7"]);
        meets(&env, "registration.get", action, 2);
        let block = env.json(&["device", "block", "press-7"]);
        assert_eq!(hub_place(&block)["state"], "done", "{block}");
        assert_eq!(env.emulator.requests_of("registration.get").len(), 3);
        assert!(env.emulator.hub_identity("press-7").is_none());
    }
}

/// B4. Verifies: an enrollment is not forgotten because a proxy says 404; it is removed at the
/// service afterwards.
#[test]
fn an_enrollment_is_not_forgotten_for_a_404_of_a_proxy() {
    for action in [
        Action::foreign(404, "<html>404</html>"),
        Action::foreign(404, ""),
        Action::Status {
            status: 404,
            headers: Vec::new(),
            body: Some(json!({ "errorCode": 404_204, "message": "Not Found." })),
        },
    ] {
        let (env, _) = individually(&["press-7"]);
        meets(&env, "individual.get", action, 2);
        env.run(&["enrollment", "remove", "--individual", "press-7"]);
        env.wait_in_sync();
        assert!(env.emulator.faults().is_empty());
        assert!(env.emulator.individual("press-7").is_none());
    }
}

/// B4 at the CA plane. Verifies: a compromised root is not called deleted for a foreign 404.
#[test]
fn a_ca_certificate_is_not_forgotten_for_a_404_of_a_proxy() {
    let env = TestEnv::running();
    for operation in ["authority.get", "authority.list"] {
        meets(&env, operation, Action::foreign(404, "<html>404</html>"), 2);
    }
    let report = [
        "roll",
        "start",
        "--authority",
        "root",
        "--reason",
        "compromise",
    ];
    env.json(&report);
    until("the compromised root is deleted", || {
        let held = env.emulator.authorities();
        held.iter().all(|it| it["name"] != "root-1").then_some(())
    });
    env.wait_in_sync();
}

/// B5. Verifies: a quota is reported as a quota and not as a credential, and the deletion is made
/// later.
#[test]
fn a_quota_is_called_a_quota_and_paced() {
    let (env, _) = below_line_1(&["press-7"]);
    let quota = "Total number of messages on IotHub 'one' exceeded the allocated quota.";
    let action = Action::of_hub(403, "IotHubQuotaExceeded", quota);
    meets(&env, "identity.delete", action, 1_000);
    let begun = Instant::now();
    let block = env.json(&["device", "block", "press-7"]);
    let answer = hub_place(&block)["answer"].as_str().unwrap();
    assert!(answer.contains("quota"), "{block}");
    assert!(!answer.contains("credential"), "{block}");
    let calls = env.emulator.requests_of("identity.delete").len();
    let allowed = 2 + begun.elapsed().as_secs().ilog2() as usize;
    assert!((2..=allowed).contains(&calls), "{calls} calls");
    env.emulator.clear_faults();
    until("it is deleted", || {
        env.emulator.hub_identity("press-7").is_none().then_some(())
    });
}

/// The service refuses a deletion with 409 for a while. Verifies: it is not asked many times at
/// once, and its words are shown.
#[test]
fn a_conflict_that_lasts_is_paced() {
    let (env, _) = individually(&["press-7"]);
    let action = Action::Status {
        status: 409,
        headers: Vec::new(),
        body: Some(json!({ "errorCode": 409_203, "message": "It is locked." })),
    };
    meets(&env, "individual.delete", action, 4);
    env.run(&["enrollment", "remove", "--individual", "press-7"]);
    until("the reason is shown", || {
        let queue = env.json(&["push", "list"]);
        queue.to_string().contains("It is locked.").then_some(())
    });
    let begun = Instant::now();
    until("more was asked", || {
        (env.emulator.requests_of("individual.delete").len() >= 4).then_some(())
    });
    assert!(begun.elapsed() > Duration::from_millis(200));
    env.wait_in_sync();
    assert!(env.emulator.individual("press-7").is_none());
}
