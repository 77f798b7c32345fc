//! Tests the compromise of a device and of an authority by the forms of the console: the page says
//! what happens, nothing happens unless its form confirms just that, and the answer is the receipt.

use crate::authority_roll::second_signs;
use crate::console::{Shown, local, remote, with_operators};
use crate::console_pages::{hidden, send};
use crate::device::{is_assigned, register};
use crate::process::until;
use crate::provisioned::below_line_1;
use crate::request::Request;
use crate::test_env::TestEnv;
use serde_json::Value;

const DEVICE: &str = "/console/compromise/device/press-1";
const GENERATION: &str = "/console/compromise/generation/line-1/1";

/// The form of a page, with a name that was typed.
fn form(page: &str, typed: &str) -> String {
    let [token, certificate] = ["token", "certificate"].map(|it| hidden(page, it).unwrap());
    format!("name={typed}&certificate={certificate}&token={token}")
}

fn plan(env: &TestEnv, path: &str) -> Value {
    serde_json::from_str(&env.get(path)).unwrap()
}

/// A change of an enrollment that a plan has announced.
fn announced(plan: &Value, kind: &str, name: &str) -> String {
    let all = plan["enrollments"].as_array().unwrap();
    let found = all
        .iter()
        .find(|it| it["kind"] == kind && it["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {kind} {name}: {plan}"));
    found["change"].as_str().unwrap().to_owned()
}

fn status_of(env: &TestEnv, kind: &str, name: &str) -> Value {
    let shown = env.json(&["enrollment", "show", name]);
    let all = shown.as_array().unwrap();
    let found = all.iter().find(|it| it["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}: {shown}"))["status"].clone()
}

fn is_shown(answer: &Shown, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(words), "{words}: {answer:?}");
}

/// Verifies: the page of a device leads to what its compromise would change. A form of an auditor,
/// from another site, without token, with another name or for another certificate changes nothing.
/// The right one excludes the device, and its answer is the receipt of every place; sent again
/// when the device has its next certificate, it excludes nothing.
#[test]
fn a_device_is_reported_as_compromised_by_a_form() {
    let (env, devices) = below_line_1(&["press-1", "press-2"]);
    let page = local(&env, "/console/devices/press-1").body;
    assert!(page.contains(&format!("href=\"{DEVICE}\"")), "{page}");
    let planned = plan(&env, "/v1/devices/press-1/compromise");
    assert_eq!(planned["certificate"], devices[0].thumbprint, "{planned}");
    assert_eq!(planned["certificates"], 1, "{planned}");
    assert_eq!(
        announced(&planned, "individual", "press-1"),
        "added_disabled"
    );

    let page = local(&env, DEVICE);
    is_shown(&page, 200, "the identity of the device is deleted");
    is_shown(&page, 200, "is added, disabled");
    let right = form(&page.body, "press-1");
    let site = ["--header", "sec-fetch-site: cross-site"];
    let other_certificate = right.replace(&devices[0].thumbprint, &devices[1].thumbprint);
    let without_token = right.split("&token=").next().unwrap();
    for (sent, more, status) in [
        (right.as_str(), &site[..], 403),
        (without_token, &[], 403),
        (&form(&page.body, "press-2"), &[], 400),
        (&other_certificate, &[], 409),
    ] {
        let answer = send(&env, DEVICE, sent, more);
        assert_eq!(answer.status, status, "{sent}: {answer:?}");
    }
    assert_eq!(env.count("roll"), 0);
    is_assigned(&env.emulator, &devices[0]);

    let answer = send(&env, DEVICE, &right, &[]);
    is_shown(&answer, 200, "Every place was observed to exclude.");
    for place in ["crl", "dps: dps", "hub: dps"] {
        is_shown(&answer, 200, &format!("<th scope=\"row\">{place}</th>"));
    }
    is_shown(&answer, 200, "href=\"/console/rolls/1\"");
    assert_ne!(
        register(&env.emulator, &devices[0]).as_deref(),
        Ok("assigned")
    );
    assert_eq!(status_of(&env, "individual", "press-1"), "disabled");
    assert_eq!(env.emulator.hub_identity("press-1"), None);
    is_assigned(&env.emulator, &devices[1]);
    is_shown(&local(&env, DEVICE), 200, "It is revoked already");

    let next = env.station().obtain(&Request::device("press-1"));
    env.wait_in_sync();
    let late = send(&env, DEVICE, &right, &[]);
    is_shown(&late, 409, "it has another certificate");
    is_assigned(&env.emulator, &next);
    assert_eq!(local(&env, "/console/compromise/device/mill-1").status, 404);
}

/// Verifies: the hierarchy leads to what the compromise of a generation would change, with the
/// generations and the number of devices; the form excludes that generation, a next one is made,
/// and the form sent again does not exclude that one.
#[test]
fn a_generation_is_reported_as_compromised_by_a_form() {
    let (env, devices) = below_line_1(&["press-1", "press-2", "press-3"]);
    let page = local(&env, "/console/hierarchy").body;
    assert!(page.contains(&format!("href=\"{GENERATION}\"")), "{page}");
    let planned = plan(&env, "/v1/authorities/line-1/compromise");
    assert_eq!(planned["generation"], 1, "{planned}");
    assert_eq!(
        (&planned["devices"], &planned["identities"]),
        (&3.into(), &3.into())
    );
    assert_eq!(announced(&planned, "group", "line-1"), "disabled");
    let below_root = plan(&env, "/v1/authorities/root/compromise");
    let named = below_root["generations"].as_array().unwrap();
    assert!(named.len() >= 3, "{below_root}");
    assert!(
        named.iter().all(|it| it["is_replaced"] == true),
        "{below_root}"
    );

    let page = local(&env, GENERATION);
    is_shown(
        &page,
        200,
        "<strong>line-1 1</strong>: a next generation is made",
    );
    is_shown(&page, 200, "<dd>3</dd>");
    let wrong = send(&env, GENERATION, &form(&page.body, "line-2"), &[]);
    is_shown(&wrong, 400, "the name that was typed is another one");
    assert_eq!(env.count("roll"), 0);

    let right = form(&page.body, "line-1");
    let answer = send(&env, GENERATION, &right, &[]);
    is_shown(&answer, 200, "<h2>Receipt</h2>");
    is_shown(&answer, 200, "of authority line-1</a> waits for");
    for device in &devices {
        assert_ne!(register(&env.emulator, device).as_deref(), Ok("assigned"));
    }
    let next = until("the next generation signs", || {
        second_signs(&env, "line-1").then(|| env.try_to_issue(&Request::device("press-1")))?
    });
    env.wait_in_sync();
    let again = send(&env, GENERATION, &right, &[]);
    assert_eq!(again.status, 200, "{again:?}");
    env.wait_in_sync();
    is_assigned(&env.emulator, &next);
    assert_eq!(
        local(&env, "/console/compromise/generation/line-1/9").status,
        404
    );
}

/// Verifies: an auditor reads what would happen, gets no form, and 403 for one that it makes.
#[test]
fn an_auditor_reads_what_a_compromise_would_change() {
    let env = with_operators();
    env.station().obtain(&Request::device("press-1"));
    let auditor = env.enlist("auditor", "auditor-9");
    for page in [DEVICE, GENERATION] {
        let shown = remote(&env, Some(&auditor), page);
        is_shown(&shown, 200, "an operator can confirm it");
        assert_eq!(hidden(&shown.body, "token"), None);
    }
    for page in ["/console/devices/press-1", "/console/hierarchy"] {
        let shown = remote(&env, Some(&auditor), page).body;
        assert!(!shown.contains("/console/compromise/"), "{shown}");
    }
    let device = env.enlist("device", "press-9");
    assert_eq!(remote(&env, Some(&device), DEVICE).status, 403);
    assert_eq!(remote(&env, None, DEVICE).status, 401);
}
