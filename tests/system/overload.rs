//! Tests that requests which get no permit are counted as failed.

use crate::openapi::port_of;
use crate::process::signal;
use crate::request::Request;
use crate::test_env::TestEnv;
use reqwest::blocking::Client;
use rustix::process::Signal;
use serde_json::Value;
use std::thread;
use std::time::Duration;

/// More than the permits of local users.
const REQUESTS: usize = 90;

/// The count of an outcome of `hallmark_issuance_seconds`.
fn counted(env: &TestEnv, outcome: &str) -> usize {
    let begin = format!("hallmark_issuance_seconds_count{{outcome=\"{outcome}\"}} ");
    let metrics = env.metrics();
    let value = metrics.lines().find_map(|it| it.strip_prefix(&begin));
    value.map_or(0, |it| it.parse().unwrap())
}

/// A worker hangs while more requests come than may be in work. Verifies: those beyond are refused
/// at once with 503, and the metrics have each request that did not succeed as failed.
#[test]
fn requests_without_a_permit_are_counted_as_failed() {
    let env = TestEnv::running();
    let before = counted(&env, "failed");
    let url = format!(
        "http://{}/v1/certificates",
        port_of(env.path("state/admin.sock"))
    );
    let requests = (0..REQUESTS).map(|it| Request::device(&format!("press-{it}")).body());
    let requests: Vec<Value> = requests.collect();
    let http = Client::builder().no_proxy();
    let http = http.timeout(Duration::from_secs(120)).build().unwrap();
    signal(env.worker().unwrap(), Signal::STOP);
    let asks = |body: Value| {
        let (http, url) = (http.clone(), url.clone());
        thread::spawn(move || {
            let answer = http.post(url).json(&body).send().unwrap();
            let status = answer.status().as_u16();
            let body: Value = answer.json().unwrap();
            (status, body["code"].as_str().unwrap_or_default().to_owned())
        })
    };
    let asked: Vec<_> = requests.into_iter().map(asks).collect();
    let answers: Vec<_> = asked.into_iter().map(|it| it.join().unwrap()).collect();
    let refused = answers
        .iter()
        .filter(|(_, code)| code == "too_many_requests_in_flight");
    assert!(refused.count() > 0, "{answers:?}");
    let failed = answers.iter().filter(|(status, _)| *status >= 500).count();
    assert_eq!(counted(&env, "failed") - before, failed, "{answers:?}");
    env.wait_ready();
}
