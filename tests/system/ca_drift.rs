//! Tests drift of CA certificates: another client deletes, replaces or unverifies one that was
//! verified, or uploads a deleted one again.

use crate::authority_roll::{ca_certificates, comes_to, shown, start, under_the_root};
use crate::device::{is_assigned, register};
use crate::failover::second_token;
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::{CEREMONY, TestEnv};
use dps_emulator::{Action, Fault};
use serde_json::{Value, json};
use std::fs;

/// A change by another client.
#[derive(Clone, Copy, Debug)]
enum Change {
    Deleted,
    Replaced,
    Unverified,
}

const CHANGES: [Change; 3] = [Change::Deleted, Change::Replaced, Change::Unverified];

impl Change {
    fn cause(self) -> &'static str {
        match self {
            Change::Deleted => "deleted",
            Change::Replaced => "replaced",
            Change::Unverified => "unverified",
        }
    }

    /// Makes the change to the CA certificate `AUTHORITY-1`.
    fn make(self, env: &TestEnv, authority: &str) {
        let name = format!("{authority}-1");
        let upload = |pem: &str, verified| env.emulator.upload_authority(&name, pem, verified);
        match self {
            Change::Deleted => assert!(env.emulator.delete_authority(&name), "{name}"),
            Change::Replaced => upload(&env.authority("operations"), true).unwrap(),
            Change::Unverified => upload(&env.authority(authority), false).unwrap(),
        }
    }
}

/// The configuration of a daemon that scans every `interval`.
fn policy(env: &TestEnv, interval: &str, drift: &str) -> String {
    let configuration = env.configuration();
    format!(
        "{configuration}\n[policy]\nscan_interval = \"{interval}\"\ndrift = \"{drift}\"\n\
         approve = [\"cut_over\"]\n"
    )
}

/// A daemon that scans every `interval`, and a device below the group of the root.
fn scanning(interval: &str, drift: &str) -> (TestEnv, Holder) {
    let mut env = TestEnv::new();
    env.configure(&policy(&env, interval, drift));
    let device = under_the_root(&mut env);
    (env, device)
}

fn listed(env: &TestEnv, name: &str) -> Value {
    let all = env.json(&["ca-certificate", "list"]);
    let found = all.as_array().unwrap().iter().find(|it| it["name"] == name);
    found.cloned().unwrap_or_default()
}

/// The alarm with this code.
fn alarm(env: &TestEnv, code: &str) -> Option<Value> {
    let alarms = env.json(&["status"])["alarm_details"].clone();
    let found = alarms
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["code"] == code);
    found.cloned()
}

fn is_verified(env: &TestEnv, name: &str) -> bool {
    let held = env.emulator.authorities();
    let found = held.iter().find(|it| it["name"] == name);
    found.is_some_and(|it| it["properties"]["isVerified"] == true)
}

fn metric(env: &TestEnv, name: &str) -> String {
    let metrics = env.metrics();
    let label = format!("name=\"{name}\"");
    let is_it = |line: &&str| {
        line.starts_with("hallmark_ca_certificate_verified{") && line.contains(&label)
    };
    let line = metrics.lines().find(is_it).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// Waits until an alarm says how the CA certificate was changed, and returns it.
pub(crate) fn has_drifted(env: &TestEnv, name: &str, cause: &str) -> Value {
    let alarm = until(&format!("an alarm says that {name} was {cause}"), || {
        alarm(env, "ca_certificate_drifted").filter(|it| {
            let parameters = &it["parameters"];
            parameters["ca_certificate"] == name && parameters["drift"]["cause"] == cause
        })
    });
    // A scan observes it again each second.
    until("the list and the status say so", || {
        let it = listed(env, name);
        assert_eq!(it["state"], "drifted", "{it}");
        let status = env.json(&["status"])["ca_certificates"].clone();
        let is_there = status.as_array().unwrap().contains(&it);
        is_there.then_some(())
    });
    alarm
}

fn is_in_place(env: &TestEnv, name: &str) {
    until(
        &format!("{name} is verified, and nothing is left to do"),
        || {
            let it = listed(env, name);
            (it["state"] == "verified" && alarm(env, "ca_certificate_drifted").is_none())
                .then_some(())
        },
    );
    assert!(is_verified(env, name), "{name}");
    assert_eq!(metric(env, name), "1");
}

/// Verifies, for each change: an alarm, the command, the status and the metric say so within one
/// scan; the service is asked for nothing else, and nothing is changed there; `push retry` with the
/// name uploads and verifies the certificate again, and the device is assigned.
#[test]
fn a_changed_ca_certificate_is_an_alarm_and_is_left_as_it_is() {
    let (env, device) = scanning("1s", "report");
    assert_eq!(listed(&env, "root-1")["state"], "verified");
    assert_eq!(metric(&env, "root-1"), "1");
    for change in [Change::Deleted, Change::Unverified] {
        change.make(&env, "root");
        has_drifted(&env, "root-1", change.cause());
        assert_eq!(metric(&env, "root-1"), "0");
        assert!(register(&env.emulator, &device).is_err());
        let looks = env.emulator.requests_of("authority.get").len();
        let lists = env.emulator.requests_of("authority.list").len();
        until("two more scans", || {
            (env.emulator.requests_of("authority.list").len() >= lists + 2).then_some(())
        });
        assert_eq!(env.emulator.requests_of("authority.get").len(), looks);
        assert!(!is_verified(&env, "root-1"), "{change:?}");
        env.run(&["push", "retry", "root-1"]);
        is_in_place(&env, "root-1");
        is_assigned(&env.emulator, &device);
    }
}

/// Another client's certificate under the name is never overwritten without policy, even if the
/// operator retries.
#[test]
fn another_certificate_under_the_name_is_left_unless_policy_repairs() {
    let (env, device) = scanning("1s", "report");
    Change::Replaced.make(&env, "root");
    let alarm = has_drifted(&env, "root-1", "replaced");
    assert!(alarm["parameters"]["drift"]["found"].is_string(), "{alarm}");
    env.run(&["push", "retry", "root-1"]);
    until("the change is parked", || {
        (listed(&env, "root-1")["state"] == "parked").then_some(())
    });
    assert!(register(&env.emulator, &device).is_err());
    env.emulator.delete_authority("root-1");
    env.run(&["push", "retry", "root-1"]);
    is_in_place(&env, "root-1");
    is_assigned(&env.emulator, &device);
}

/// Verifies, for a root and for an intermediate: with `drift = "repair"` each change is undone by a
/// new proof of possession, as often as it comes, and the device is assigned again.
#[test]
fn where_policy_says_so_ca_certificates_are_repaired() {
    let env = TestEnv::new();
    let both = policy(&env, "1s", "repair").replace("[\"root\"]", "[\"root\", \"line-1\"]");
    env.configure(&both);
    let env = env.started();
    env.add_group("works", "root");
    env.add_group("line", "line-1");
    let device = env.station().obtain(&Request::device("press-1"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    for authority in ["root", "line-1"] {
        let name = format!("{authority}-1");
        // More changes than one proof has attempts.
        for change in CHANGES.into_iter().chain([Change::Deleted]) {
            let proofs =
                env.count("intent_state WHERE purpose = 'possession' AND state = 'issued'");
            change.make(&env, authority);
            until(&format!("{name}: {change:?} is repaired"), || {
                is_verified(&env, &name).then_some(())
            });
            until("it is verified by a new proof", || {
                let now =
                    env.count("intent_state WHERE purpose = 'possession' AND state = 'issued'");
                (now == proofs + 1).then_some(())
            });
            is_in_place(&env, &name);
        }
    }
    is_assigned(&env.emulator, &device);
}

/// Scans are rare. Verifies: a restart finds a change that was made while the daemon was stopped;
/// `drift = "repair"`, set later by a reload, repairs it; so does a start with that policy.
#[test]
fn a_restart_finds_a_change_and_a_later_policy_repairs_it() {
    let (mut env, device) = scanning("1h", "report");
    env.stop();
    Change::Deleted.make(&env, "root");
    env.start();
    has_drifted(&env, "root-1", "deleted");
    env.configure(&policy(&env, "1h", "repair"));
    env.run(&["reload"]);
    is_in_place(&env, "root-1");
    is_assigned(&env.emulator, &device);

    env.configure(&policy(&env, "1s", "report"));
    env.run(&["reload"]);
    Change::Deleted.make(&env, "root");
    has_drifted(&env, "root-1", "deleted");
    env.stop();
    env.configure(&policy(&env, "1h", "repair"));
    env.start();
    is_in_place(&env, "root-1");
    is_assigned(&env.emulator, &device);
}

/// A proxy answers 404 for the certificate. Verifies: only the complete list of certificates shows
/// that one is missing; a certificate that another client verifies again is in place.
#[test]
fn a_404_for_a_ca_certificate_that_is_listed_is_no_deletion() {
    let (env, device) = scanning("1s", "report");
    let missing = Action::Status {
        status: 404,
        headers: Vec::new(),
        body: Some(json!({ "error": { "code": "ResourceNotFound", "message": "no route" } })),
    };
    env.emulator
        .inject(Fault::on("authority.get", missing))
        .unwrap();
    let root = env.authority("root");
    env.emulator
        .upload_authority("root-1", &root, false)
        .unwrap();
    until("the 404 was answered", || {
        env.emulator.faults().is_empty().then_some(())
    });
    has_drifted(&env, "root-1", "unverified");
    env.emulator
        .upload_authority("root-1", &root, true)
        .unwrap();
    is_in_place(&env, "root-1");
    is_assigned(&env.emulator, &device);
}

/// The next root of an aborted rollover was deleted at the service, and another client uploads it
/// again. Verifies: an alarm says so, and it stays; with `drift = "repair"` it is deleted.
#[test]
fn a_deleted_ca_certificate_that_is_there_again_is_an_alarm() {
    let (env, _) = scanning("1s", "report");
    let roll = start(&env, "root", "expiry", &[]);
    comes_to(&env, &roll, "staged");
    let pem = env.authority("root");
    let next = pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .nth(1)
        .unwrap();
    env.run(&["roll", "abort", &roll]);
    env.wait_in_sync();
    assert_eq!(ca_certificates(&env), ["root-1"]);

    env.emulator.upload_authority("root-2", next, true).unwrap();
    has_drifted(&env, "root-2", "returned");
    assert_eq!(ca_certificates(&env), ["root-1", "root-2"]);
    env.configure(&policy(&env, "1s", "repair"));
    env.run(&["reload"]);
    until("it is deleted again", || {
        (ca_certificates(&env) == ["root-1"]).then_some(())
    });
    env.wait_in_sync();
    assert_eq!(alarm(&env, "ca_certificate_drifted"), None);
}

/// The same for a compromised root: it is deleted again, whatever policy says.
#[test]
fn a_compromised_ca_certificate_that_is_there_again_is_deleted() {
    let (env, _) = scanning("1s", "report");
    let compromised = env.authority("root");
    start(&env, "root", "compromise", &[]);
    until("its successor is verified", || {
        is_verified(&env, "root-2").then_some(())
    });
    env.wait_in_sync();
    assert_eq!(ca_certificates(&env), ["root-2"]);
    env.emulator
        .upload_authority("root-1", &compromised, true)
        .unwrap();
    until("it is deleted again", || {
        (ca_certificates(&env) == ["root-2"]).then_some(())
    });
    env.wait_in_sync();
}

/// Another client deletes the next root before the cut-over. Verifies: the rollover waits, and says
/// for which service and why, although the cut-over is approved; it goes on when the certificate is
/// verified again.
#[test]
fn a_rollover_waits_for_a_next_ca_certificate_that_was_lost() {
    let (env, device) = scanning("1s", "report");
    let roll = start(&env, "root", "expiry", &[]);
    comes_to(&env, &roll, "staged");
    until("it waits for an approval", || {
        (shown(&env, &roll)["waits_for_detail"]["code"] == "approval").then_some(())
    });
    env.emulator.delete_authority("root-2");
    has_drifted(&env, "root-2", "deleted");
    env.run(&["roll", "approve", &roll]);
    let waits = shown(&env, &roll)["waits_for_detail"].clone();
    assert_eq!(waits["code"], "verification", "{waits}");
    let reasons = json!([{ "provisioning": "dps", "reason": "another program deleted it" }]);
    assert_eq!(waits["parameters"]["reasons"], reasons, "{waits}");
    env.run(&["push", "retry", "root-2"]);
    comes_to(&env, &roll, "draining");
    is_assigned(&env.emulator, &device);
}

/// Two roots on two tokens, one of which is unavailable when the codes come. Verifies: the other
/// root is verified; an alarm and the command say why the first is not; it is verified when its
/// token is back.
#[test]
fn a_proof_that_cannot_be_signed_says_why_and_holds_up_no_other() {
    let mut env = TestEnv::new();
    let spare = second_token(&env, "spare", "spare");
    let more = format!("{spare}[[authority]]\nname = \"bay\"\ntoken = \"spare\"\n[[authority]]");
    let configuration = env.configuration();
    let configuration = configuration
        .replacen("[[authority]]", &more, 1)
        .replace("[\"root\"]", "[\"bay\", \"root\"]");
    env.configure(&configuration);
    fs::create_dir(env.path("tokens-spare")).unwrap();
    env.make_token_at("spare", "spare.conf");
    let bay = "\n[[authority]]\nname = \"bay\"\nsubject = { common_name = \"Example Works Bay\" }\n\
               validity = \"10y\"\n";
    env.write("ceremony.toml", &format!("{CEREMONY}{bay}"));
    env.start();
    let no_codes = Fault::on("authority.code", Action::status(500)).times(1_000);
    env.emulator.inject(no_codes).unwrap();
    let file = env.path("ceremony.toml");
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    until("both are uploaded", || {
        (ca_certificates(&env).len() == 2).then_some(())
    });
    fs::rename(env.path("tokens-spare"), env.path("away")).unwrap();
    env.emulator.clear_faults();
    env.run(&["push", "retry"]);
    until("the other root is verified", || {
        is_verified(&env, "root-1").then_some(())
    });
    let alarm = until("an alarm says why", || alarm(&env, "possession_not_proven"));
    assert_eq!(alarm["parameters"]["ca_certificate"], "bay-1", "{alarm}");
    assert!(alarm["text"].as_str().unwrap().contains("spare"), "{alarm}");
    let reason = listed(&env, "bay-1")["reason"].clone();
    assert!(reason.as_str().unwrap().contains("not signed"), "{reason}");
    fs::rename(env.path("away"), env.path("tokens-spare")).unwrap();
    until("the first is verified, too", || {
        is_verified(&env, "bay-1").then_some(())
    });
    env.wait_in_sync();
    assert_eq!(self::alarm(&env, "possession_not_proven"), None);
}

/// Verifies: while the proof of the next root cannot be signed, `roll show` says why.
#[test]
fn roll_show_says_why_the_next_root_is_not_verified() {
    let (env, _) = scanning("1h", "report");
    let no_codes = Fault::on("authority.code", Action::status(500)).times(1_000);
    env.emulator.inject(no_codes).unwrap();
    let roll = start(&env, "root", "expiry", &[]);
    until("the next root is uploaded", || {
        ca_certificates(&env)
            .contains(&"root-2".to_owned())
            .then_some(())
    });
    fs::rename(env.path("tokens"), env.path("away")).unwrap();
    env.emulator.clear_faults();
    env.run(&["push", "retry"]);
    until("it says why", || {
        let waits = shown(&env, &roll)["waits_for_detail"].clone();
        let reason = waits["parameters"]["reasons"][0]["reason"]
            .as_str()?
            .to_owned();
        assert_eq!(waits["code"], "verification", "{waits}");
        reason
            .contains("the proof of possession is not signed")
            .then_some(())
    });
    fs::rename(env.path("away"), env.path("tokens")).unwrap();
    comes_to(&env, &roll, "staged");
}

/// Verifies: the proof of an authority that ends within a day ends before it, so it is verified; an
/// authority that ends within a minute is not, and an alarm says why.
#[test]
fn an_authority_that_ends_soon_is_verified_or_an_alarm_says_why() {
    let mut env = TestEnv::new();
    let mut configuration = env.configuration();
    let mut ceremony = CEREMONY.to_owned();
    for [name, validity] in [["short", "6h"], ["brief", "50s"]] {
        let table = format!("[[authority]]\nname = \"{name}\"\ntoken = \"factory\"\n[[authority]]");
        configuration = configuration.replacen("[[authority]]", &table, 1);
        ceremony.push_str(&format!(
            "\n[[authority]]\nname = \"{name}\"\nsubject = {{ common_name = \"{name}\" }}\n\
             validity = \"{validity}\"\n"
        ));
    }
    env.configure(&configuration.replace("[\"root\"]", "[\"brief\", \"root\", \"short\"]"));
    env.write("ceremony.toml", &ceremony);
    env.start();
    let file = env.path("ceremony.toml");
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    until("short-1 is verified", || {
        is_verified(&env, "short-1").then_some(())
    });
    let alarm = until("an alarm says why", || alarm(&env, "possession_not_proven"));
    assert_eq!(alarm["parameters"]["ca_certificate"], "brief-1", "{alarm}");
    assert!(
        alarm["text"].as_str().unwrap().contains("too soon"),
        "{alarm}"
    );
    let request = Request::new("station", "station-1");
    until("stations get certificates", || env.try_to_issue(&request));
}
