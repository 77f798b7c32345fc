//! Tests what the pages of the console show, and what operators do by their forms.

use crate::console::{Shown, curl, local, remote, with_operators};
use crate::process::until;
use crate::provisioned::below_line_1;
use crate::request::Request;
use crate::test_env::TestEnv;
use dps_emulator::{Action, Fault};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Verifies: a device is found by its id, by the beginning of it, and by serial number and
/// thumbprint of its certificate; its page shows its certificate, who asked for it, its slots, its
/// block and its life in the journal.
#[test]
fn a_device_is_found_and_its_life_is_shown() {
    let (env, devices) = below_line_1(&["press-1", "press-2", "lathe-1"]);
    let press = &devices[0];
    let serial = env.json(&["device", "show", "press-1"])["serial"].clone();
    let found = [
        press.id.as_str(),
        serial.as_str().unwrap(),
        &press.thumbprint,
    ];
    for name in found {
        let answer = local(&env, &format!("/console/devices?q={name}"));
        assert_eq!(answer.status, 303, "{answer:?}");
        assert_eq!(answer.header("location"), "/console/devices/press-1");
    }
    let listed = local(&env, "/console/devices?q=PRESS").body;
    assert!(
        listed.contains(">press-1<") && listed.contains(">press-2<"),
        "{listed}"
    );
    assert!(!listed.contains(">lathe-1<"), "{listed}");
    let none = local(&env, "/console/devices?q=mill").body;
    assert!(none.contains("No device and no certificate is found by mill"));

    env.run(&["device", "block", "press-1", "--reason", "<b>stolen</b>"]);
    let page = local(&env, "/console/devices/press-1").body;
    for shown in [
        press.thumbprint.as_str(),
        "station station-1",
        "certificate.issued",
        "&#60;b&#62;stolen&#60;/b&#62;",
        "/console/blocks/device/press-1",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("<b>stolen"), "{page}");
    let block = local(&env, "/console/blocks/device/press-1");
    assert_eq!(block.status, 200, "{block:?}");
    assert!(block.body.contains("Every place was observed"), "{block:?}");
    assert!(local(&env, "/console/blocks").body.contains("press-1"));
    assert_eq!(local(&env, "/console/devices/nothing").status, 404);
}

/// Verifies: the page of a device says that it has older certificates than those of the first page,
/// and leads to them.
#[test]
fn a_device_with_many_certificates_has_further_pages() {
    let env = TestEnv::running();
    let station = env.station();
    for _ in 0..52 {
        station.obtain(&Request::device("press-1"));
    }
    let count = |page: &str| page.matches(">explain</a>").count();
    let page = local(&env, "/console/devices/press-1").body;
    assert_eq!(count(&page), 50, "{page}");
    let next = page.split("href=\"/console/devices/press-1?").nth(1);
    let next = next.unwrap().split('"').next().unwrap();
    let older = local(&env, &format!("/console/devices/press-1?{next}")).body;
    assert_eq!(count(&older), 2, "{older}");
    assert!(!older.contains("Older ones"), "{older}");
}

/// Verifies: the list of certificates has the filters of the API and the next page, and its CSV has
/// every certificate that fits, of all pages.
#[test]
fn certificates_are_listed_filtered_and_exported() {
    let env = TestEnv::running();
    let station = env.station();
    for number in 1..=55 {
        station.obtain(&Request::device(&format!("press-{number}")));
    }
    let list = local(&env, "/console/certificates?profile=device&state=&subject=").body;
    assert_eq!(list.matches("<th scope=\"row\">").count(), 50, "{list}");
    let next = list.split("href=\"/console/certificates?").nth(1).unwrap();
    let next = next.split('"').next().unwrap().replace("&#38;", "&");
    let second = local(&env, &format!("/console/certificates?{next}")).body;
    assert_eq!(second.matches("<th scope=\"row\">").count(), 5, "{second}");

    let one = local(&env, "/console/certificates?subject=press-7").body;
    assert_eq!(one.matches("<th scope=\"row\">").count(), 1, "{one}");
    let none = local(&env, "/console/certificates?authority=nothing");
    assert_eq!(none.status, 200, "{none:?}");
    assert!(none.body.contains("there is no authority"), "{none:?}");

    let csv = local(&env, "/console/certificates.csv?profile=device");
    assert!(
        csv.header("content-disposition")
            .contains("certificates.csv")
    );
    let lines: Vec<_> = csv.body.lines().collect();
    assert_eq!(lines.len(), 56, "{}", csv.body);
    assert!(lines[0].starts_with("number,subject,role,profile,serial,sha256"));
    assert!(
        lines[1].contains(",press-55,device,device,"),
        "{}",
        lines[1]
    );

    let explained = list
        .split("<a href=\"/console/certificates/")
        .nth(1)
        .unwrap();
    let digits = explained.split('"').next().unwrap();
    let page = local(&env, &format!("/console/certificates/{digits}"));
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("station station-1"), "{page:?}");
    let ends = local(&env, "/console/expiry").body;
    assert!(ends.contains("<td class=\"number\">55</td>"), "{ends}");
}

/// Verifies: a roll that waits and a parked change are shown with what they wait for, the
/// hierarchy has each generation, and the journal is searched, verified and exported whole.
#[test]
fn rolls_parked_changes_and_the_journal_are_shown() {
    let (env, _) = below_line_1(&["press-1"]);
    let rejected = Fault::on("group.put", Action::status(400));
    env.emulator.inject(rejected).unwrap();
    env.add_group("plant", "plant");
    let cloud = until("the change is parked", || {
        let page = local(&env, "/console/cloud").body;
        page.contains(">parked<").then_some(page)
    });
    assert!(
        cloud.contains("push retry plant") || cloud.contains("value=\"plant\""),
        "{cloud}"
    );
    env.run(&["push", "retry", "plant"]);
    env.wait_in_sync();

    let roll = ["roll", "start", "--authority", "line-1"];
    env.run(&[&roll[..], &["--reason", "expiry"]].concat());
    let page = until("the roll drains", || {
        let page = local(&env, "/console/rolls/1").body;
        page.contains("aria-current=\"step\">draining<")
            .then_some(page)
    });
    assert!(page.contains("valid until"), "{page}");
    assert!(
        local(&env, "/console/rolls")
            .body
            .contains("authority line-1")
    );
    let hierarchy = local(&env, "/console/hierarchy").body;
    for label in [
        "root 1 (serving): ",
        "plant 1 (serving): ",
        "line-1 1 (retired): ",
        "line-1 2 (serving): ",
        "primary slot of line-1 at dps: draining",
        "secondary slot of line-1 at dps: serving",
    ] {
        assert!(hierarchy.contains(label), "{label}: {hierarchy}");
    }
    let found = local(&env, "/console/audit?authority=line-1").body;
    assert!(found.contains("roll.cut_over"), "{found}");
    let intact = local(&env, "/console/audit/verification").body;
    assert!(
        intact.contains("entries are as they were written"),
        "{intact}"
    );
    let before = env.entries();
    let export = local(&env, "/console/audit.ndjson").body;
    let lines = i64::try_from(export.lines().count()).unwrap();
    assert!(lines >= before, "{lines} of {before}");
    let first: Value = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    assert_eq!(first["sequence"], 1);
}

/// A form over the admin socket, as a browser sends it.
pub(crate) fn send(env: &TestEnv, path: &str, form: &str, more: &[&str]) -> Shown {
    let socket = env.path("state/admin.sock").display().to_string();
    let url = format!("http://localhost{path}");
    let arguments = ["--unix-socket", &socket, "--data", form, &url];
    curl(&[&arguments[..], more].concat())
}

/// The value of a hidden field of the first form of a page.
pub(crate) fn hidden(page: &str, name: &str) -> Option<String> {
    let after = page.split(&format!("name=\"{name}\" value=\"")).nth(1);
    after.and_then(|it| it.split('"').next()).map(str::to_owned)
}

/// Verifies: a form without the token of its page, with that of another caller or from another site
/// changes nothing; with it an operator blocks, lifts, retries, starts and aborts; an auditor gets
/// no form, and 403 for one that it makes.
#[test]
fn operators_act_by_forms_that_no_other_site_can_send() {
    let env = with_operators();
    env.run(&["enrollment", "add", "--individual", "press-1"]);
    env.station().obtain(&Request::device("press-1"));
    env.wait_in_sync();
    let [auditor, operator] = ["auditor", "operator"].map(|it| env.enlist(it, &format!("{it}-9")));
    let page = local(&env, "/console/blocks").body;
    let token = hidden(&page, "token").unwrap();
    let of_operator = hidden(
        &remote(&env, Some(&operator), "/console/blocks").body,
        "token",
    )
    .unwrap();
    assert_ne!(token, of_operator);
    assert_eq!(
        hidden(
            &remote(&env, Some(&auditor), "/console/blocks").body,
            "token"
        ),
        None
    );

    let block = "kind=device&name=press-1&reason=stolen&token=";
    let blocks = "block WHERE lifted_at IS NULL";
    let site = ["--header", "sec-fetch-site: cross-site"];
    let origin = ["--header", "origin: https://evil.example"];
    for (form, more) in [
        (block.to_owned(), &[][..]),
        (format!("{block}{of_operator}"), &[]),
        (format!("{block}{token}"), &site),
        (format!("{block}{token}"), &origin),
    ] {
        let refused = send(&env, "/console/blocks", &form, more);
        assert_eq!(refused.status, 403, "{form}: {refused:?}");
    }
    assert_eq!(env.count(blocks), 0);

    let form = format!("{block}{token}");
    // The headers of a browser.
    let own = ["--header", "origin: http://localhost"];
    let own = [&own[..], &["--header", "sec-fetch-site: same-origin"]].concat();
    let blocked = send(&env, "/console/blocks", &form, &own);
    assert_eq!(blocked.status, 303, "{blocked:?}");
    assert_eq!(env.count(blocks), 1);
    let receipt = local(&env, "/console/blocks/device/press-1").body;
    assert!(receipt.contains("stolen"), "{receipt}");
    let lifted = send(&env, "/console/lifted", &form, &[]);
    assert_eq!(lifted.status, 303, "{lifted:?}");
    assert_eq!(env.count(blocks), 0);
    let again = send(&env, "/console/lifted", &form, &[]);
    assert_eq!(again.status, 404, "{again:?}");
    assert!(again.body.contains("block_unknown"), "{again:?}");

    let start = format!("kind=device&name=press-1&token={token}");
    let started = send(&env, "/console/rolls", &start, &[]);
    assert_eq!(started.status, 303, "{started:?}");
    let rolls = env.json(&["roll", "list"]);
    let id = rolls[0]["id"].as_i64().unwrap();
    let aborted = send(&env, &format!("/console/rolls/{id}/abort"), &start, &[]);
    assert_eq!(aborted.status, 303, "{aborted:?}");
    assert_eq!(
        env.json(&["roll", "show", &id.to_string()])["state"],
        "aborted"
    );
    let retried = send(&env, "/console/retried", &format!("token={token}"), &[]);
    assert_eq!(retried.status, 303, "{retried:?}");
}

/// Verifies: a page that follows the state gets an event when it changes, and none before; a stop
/// of the daemon ends the stream in order. A stranger gets no stream.
#[test]
fn a_page_hears_of_a_change_of_the_state() {
    let (mut env, _) = below_line_1(&["press-1"]);
    assert_eq!(remote(&env, None, "/console/events").status, 401);
    let device = env.enlist("device", "press-9");
    assert_eq!(remote(&env, Some(&device), "/console/events").status, 403);
    let mut stream = Command::new("curl");
    stream.args(["--silent", "--no-buffer", "--unix-socket"]);
    stream.arg(env.path("state/admin.sock"));
    stream.arg("http://localhost/console/events");
    let mut stream = stream.stdout(Stdio::piped()).spawn().unwrap();
    let (sender, events) = mpsc::channel();
    let lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    env.wait_in_sync();
    // Until the daemon has done what the setup began.
    while events.recv_timeout(Duration::from_secs(6)).is_ok() {}
    env.run(&["device", "block", "press-1", "--reason", "stolen"]);
    let moved = || events.try_iter().find(|line| line == "event: moved");
    until("the page hears of the block", moved);
    env.stop();
    assert_eq!(stream.wait().unwrap().code(), Some(0));
    reader.join().unwrap();
}
