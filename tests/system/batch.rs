//! Tests batches of requests: each item is answered for itself, and neither kills, stops nor
//! repeats lose or double a certificate.

use crate::caller::{Answer, Caller};
use crate::process::until;
use crate::request::Request;
use crate::test_env::TestEnv;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BATCH: &str = "/v1/certificates:batch";

fn item(request: &Request) -> Value {
    let mut item = request.body();
    item["idempotency_key"] = request.idempotency_key.as_str().into();
    item
}

fn post(caller: &Caller, items: &[Value]) -> Answer {
    let post = caller.post_to(BATCH).json(&json!({ "items": items }));
    Answer::read(post.send().unwrap()).unwrap()
}

/// The status of each item, with the code of its problem.
fn outcomes(answer: &Answer) -> Vec<(u64, String)> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.body["items"].as_array().unwrap().iter();
    let outcome = |item: &Value| {
        let code = item["problem"]["code"].as_str().unwrap_or_default();
        (item["status"].as_u64().unwrap(), code.to_owned())
    };
    items.map(outcome).collect()
}

pub(crate) fn devices(count: usize) -> Vec<Request> {
    let ids = (0..count).map(|it| format!("press-{it}"));
    ids.map(|id| Request::device(&id)).collect()
}

fn refusals(env: &TestEnv, code: &str) -> i64 {
    let refused = "audit WHERE action = 'certificate.refused' AND detail ->> 'code'";
    env.count(&format!("{refused} = '{code}'"))
}

/// Verifies: good items are issued beside refused ones; each refusal has the status and code of a
/// request of its own and one entry in the journal, with the device; nothing else is left behind.
#[test]
fn each_item_is_answered_for_itself() {
    let env = TestEnv::running();
    let station = env.station();
    let good = devices(3);
    station.obtain(&Request::device("Spelled-1"));
    let mut keyless = item(&Request::device("keyless-1"));
    keyless.as_object_mut().unwrap().remove("idempotency_key");
    let mut more = item(&Request::device("more-1"));
    more["validity"] = "100y".into();
    let no_csr = Request::of("device", "no-csr-1", "neither".into(), String::new());
    let mut twin = item(&Request::device("twin-1"));
    twin["idempotency_key"] = good[0].idempotency_key.as_str().into();
    let items = [
        item(&good[0]),
        keyless,
        more,
        item(&Request::new("station", "station-9")),
        item(&good[1]),
        item(&no_csr),
        item(&Request::new("no-such-profile", "press-8")),
        item(&Request::device("spelled-1")),
        json!(7),
        item(&good[2]),
        twin,
    ];
    let before = (env.count("intent"), env.count("device"));

    let answer = post(&station, &items);

    let expected = [
        (201, ""),
        (400, "idempotency_key_required"),
        (400, "body_invalid"),
        (403, "role_forbidden"),
        (201, ""),
        (400, "csr_malformed"),
        (404, "profile_unknown"),
        (409, "registration_id_spelling"),
        (400, "body_invalid"),
        (201, ""),
        (409, "idempotency_key_reused"),
    ];
    let expected = expected.map(|(status, code)| (status, code.to_owned()));
    assert_eq!(outcomes(&answer), expected);
    let after = (env.count("intent"), env.count("device"));
    assert_eq!(after, (before.0 + 3, before.1 + 3));
    for (status, code) in expected.iter().filter(|(status, _)| *status != 201) {
        let entries = if code == "body_invalid" { 2 } else { 1 };
        assert_eq!(refusals(&env, code), entries, "{status} {code}");
    }
    let named = "audit WHERE action = 'certificate.refused' AND subject = 'station-9'
                 AND detail ->> 'route' = '/v1/certificates:batch'";
    assert_eq!(env.count(named), 1);
    for (request, number) in good.iter().zip([0, 4, 9]) {
        let issued = &answer.body["items"][number]["issued"];
        let device = request.holder(issued);
        device.is_accepted_by_openssl(&env.authority("root"));
        // The same as by a request of its own: the batch was the first, this is the repeat.
        let again = station.obtain(request);
        assert_eq!((again.serial, again.chain), (device.serial, device.chain));
    }
}

/// Verifies: the repeat of a batch is answered with the same certificates, in the same order, and
/// changes nothing.
#[test]
fn the_repeat_of_a_batch_is_the_same_certificates() {
    let env = TestEnv::running();
    let station = env.station();
    let items: Vec<_> = devices(100).iter().map(item).collect();
    let first = post(&station, &items);
    assert!(outcomes(&first).iter().all(|(status, _)| *status == 201));
    let rows = (env.count("intent"), env.entries());
    let again = post(&station, &items);
    let serials = |answer: &Answer| {
        let items = answer.body["items"].as_array().unwrap().iter();
        items
            .map(|it| it["issued"]["serial"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(serials(&again), serials(&first));
    assert_eq!((env.count("intent"), env.entries()), rows);
}

/// Verifies: what is no batch is refused as a whole, before anything is begun; a batch has 256
/// items at most, and 1 MiB; a stranger is refused, and a device gets its own certificate only.
#[test]
fn a_batch_has_limits() {
    let env = TestEnv::running();
    let station = env.station();
    let rows = || ["intent", "certificate", "device"].map(|table| env.count(table));
    let before = rows();
    let json = "application/json";
    let many: Vec<_> = (0..257)
        .map(|it| json!({ "idempotency_key": it }))
        .collect();
    let large = format!("{{\"items\":[\"{}\"]}}", "x".repeat(1 << 20));
    for (media, body, status, code) in [
        (
            "text/plain",
            "{}".to_owned(),
            415,
            "content_type_unsupported",
        ),
        (json, "{\"items\":[".to_owned(), 400, "body_invalid"),
        (
            json,
            "{\"items\":[1],\"all\":true}".to_owned(),
            400,
            "body_invalid",
        ),
        (json, json!({ "items": [] }).to_string(), 400, "batch_empty"),
        (
            json,
            json!({ "items": many }).to_string(),
            413,
            "batch_too_large",
        ),
        (json, large, 413, "body_too_large"),
    ] {
        let request = station
            .post_to(BATCH)
            .header("content-type", media)
            .body(body);
        let answer = Answer::read(request.send().unwrap()).unwrap();
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert!(refusals(&env, code) > 0, "{code} is not in the journal");
    }
    let stranger = post(&env.stranger(), &[item(&Request::device("press-7"))]);
    assert_eq!(stranger.code(), "client_certificate_required");
    assert_eq!(rows(), before);

    let device = env.caller(&station.obtain(&Request::device("press-7")));
    let own = item(&Request::device("press-7"));
    let answer = post(&device, &[own, item(&Request::device("press-8"))]);
    let expected = [(201, String::new()), (403, "role_forbidden".to_owned())];
    assert_eq!(outcomes(&answer), expected);
}

/// Verifies: at a stop amid a batch the client gets an answer for each item within the time of a
/// stop; what was not begun is refused with `Retry-After`, and the repeat issues only that.
#[test]
fn a_stop_amid_a_batch_answers_each_item() {
    let mut env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let items: Vec<_> = devices(256).iter().map(item).collect();
    let caller = env.caller(&station);
    let issued = env.count("intent_state WHERE state = 'issued'");
    let answer = std::thread::scope(|scope| {
        let posted = scope.spawn(|| post(&caller, &items));
        until("the batch is at work", || {
            (env.count("intent_state WHERE state = 'issued'") > issued).then_some(())
        });
        let begun = Instant::now();
        env.stop();
        assert!(begun.elapsed() < Duration::from_secs(10), "{begun:?}");
        posted.join().unwrap()
    });
    let stopped = outcomes(&answer);
    let count = |wanted: u64| {
        stopped
            .iter()
            .filter(|(status, _)| *status == wanted)
            .count()
    };
    assert_eq!(count(201) + count(503), 256, "{stopped:?}");
    assert!(count(503) > 0, "the batch was over before the stop");
    for it in answer.body["items"].as_array().unwrap() {
        assert_eq!(
            it["problem"]["code"] == "stopping",
            it["retry_after"].is_u64(),
            "{it}"
        );
    }
    env.start();
    env.wait_ready();
    let again = post(&env.caller(&station), &items);
    let both = answer.body["items"].as_array().unwrap().iter();
    for (number, before) in both.enumerate() {
        let after = &again.body["items"][number];
        assert_eq!(after["status"], 201, "{after}");
        if before["status"] == 201 {
            assert_eq!(after["issued"]["serial"], before["issued"]["serial"]);
        }
    }
    assert_eq!(env.count("device"), 256);
}
