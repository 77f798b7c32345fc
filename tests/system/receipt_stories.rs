//! Tests what receipts claim: services that are not configured, requests for new leaves that cannot
//! be used, repeated and second compromises, the end of blocks, and alarms.

use crate::authority_roll::{begun, comes_to, second_signs, shown, under_the_root};
use crate::block::five_devices;
use crate::compromise::rcgen_request;
use crate::device::{is_assigned, register};
use crate::invariants::held;
use crate::process::until;
use crate::provisioned::{below_line_1, individually};
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Emulator, Fault, Kind, Options};
use serde_json::{Value, json};
use std::fs;

/// The code, state and parameters of the first line of `place`.
pub(crate) fn line(answer: &Value, place: &str) -> Value {
    let places = answer["receipt"]["places"].as_array().unwrap().iter();
    let mut lines = places.filter(|it| it["place"] == place);
    let found = lines.next();
    found
        .unwrap_or_else(|| panic!("no {place}: {answer:#}"))
        .clone()
}

fn compromise(env: &TestEnv, of: &[&str]) -> Value {
    env.json(&[&["roll", "start", "--reason", "compromise"], of].concat())
}

fn is_out(env: &TestEnv, device: &Holder) {
    let end = register(&env.emulator, device);
    assert_ne!(end.as_deref(), Ok("assigned"), "{}", device.id);
}

/// A second service, whose table follows that of the first one in the configuration.
pub(crate) fn with_second_service(env: &TestEnv, other: &Emulator) -> String {
    env.write_secret("other", &other.service_connection_string());
    let folder = env.path("");
    format!(
        "{}\n[[provisioning]]\nname = \"old\"\nendpoint = \"https://{}\"\naddress = \"{}\"\n\
         device_endpoint = \"https://{}\"\ndevice_address = \"{}\"\nid_scope = \"{}\"\n\
         ca_bundle = \"{}\"\ncredential = \"{}\"\n",
        env.configuration(),
        other.service_host(),
        other.addr(),
        other.device_host(),
        other.addr(),
        other.id_scope(),
        other.ca_file().display(),
        folder.join("other").display(),
    )
}

/// A group is at a service that the configuration lost. Verifies: the receipt of a compromise names
/// the group at that service as open, and is not complete; the other service excludes the authority
/// and its hub deletes identities without waiting for the lost one.
#[test]
fn a_group_at_a_service_that_is_not_configured_is_open() {
    let env = TestEnv::new();
    let other = Emulator::start(Options::new(env.path("other-emulator"))).unwrap();
    env.configure(&with_second_service(&env, &other));
    let env = env.started();
    for (service, group) in [("dps", "line-1"), ("old", "old-line-1")] {
        let add = [
            "enrollment",
            "add",
            "--group",
            group,
            "--provisioning",
            service,
        ];
        env.run(&[&add[..], &["--authority", "line-1"]].concat());
    }
    env.wait_in_sync();
    let device = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &device);
    env.configure(&env.configuration());
    env.run(&["reload"]);

    let started = compromise(&env, &["--authority", "line-1"]);
    is_out(&env, &device);
    assert!(env.emulator.hub_identity("press-1").is_none());
    assert_eq!(line(&started, "dps: dps")["code"], "authority_excluded");
    let lost = line(&started, "dps: old");
    assert_eq!(
        (&lost["state"], &lost["code"]),
        (&json!("open"), &json!("service_not_configured"))
    );
    assert_eq!(lost["parameters"]["name"], "old-line-1", "{lost}");
    assert_eq!(line(&started, "hub: old")["code"], "hub_not_configured");
    assert_eq!(started["receipt"]["complete"], false, "{started}");
    assert_eq!(
        other.group("old-line-1").unwrap()["provisioningStatus"],
        "enabled"
    );
    let shown = env.run(&["roll", "show", &started["rolls"][0]["id"].to_string()]);
    assert!(shown.contains("old is not configured"), "{shown}");
}

/// Writes a file for `--csr`, and starts the compromise with it; returns the error.
fn with_unusable(env: &TestEnv, id: &str, csr: &str, profile: Option<&str>) -> String {
    let mut report = vec!["roll", "start", id, "--reason", "compromise", "--csr", csr];
    report.extend(profile.into_iter().flat_map(|it| ["--profile", it]));
    let output = env.hallmark(&report);
    assert_eq!(output.code, Some(1), "{id}: {output:?}");
    assert!(
        output.out.contains("enrollment_disabled"),
        "{id}: {output:?}"
    );
    assert!(
        output
            .error
            .contains("is excluded, but there is no new one"),
        "{id}: {output:?}"
    );
    output.error
}

/// The request for the new leaf cannot be used: its file is missing, too long, or no text; it is no
/// CSR, names another device, has a forbidden key or that of the compromised leaf, or names another
/// profile. Verifies: the leaf is excluded each time, the command says so and why there is no new
/// one, and exits with 1; a repeat with a good request issues the new leaf by the same roll.
#[test]
fn an_unusable_request_never_delays_the_exclusion() {
    let ids = [
        "press-1", "press-2", "press-3", "press-4", "press-5", "press-6", "press-7", "press-8",
    ];
    let (env, devices) = individually(&ids);
    let file = |name: &str, text: &str| env.write(name, text).to_str().unwrap().to_owned();
    let p384 = ["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"];
    let forbidden = Request::by_openssl("press-5", &env.path(""), &p384);
    let same_key = rcgen_request(&devices[5]);
    let missing = env.path("missing.csr");
    let device = Some("device");
    for (id, csr, profile, why) in [
        (
            "press-1",
            missing.to_str().unwrap().to_owned(),
            device,
            "missing.csr",
        ),
        (
            "press-2",
            file("long.csr", &"x".repeat(100_000)),
            device,
            "long.csr",
        ),
        (
            "press-3",
            file("malformed.csr", "no CSR"),
            device,
            "csr_malformed",
        ),
        (
            "press-4",
            file("other.csr", &Request::device("press-9").csr),
            device,
            "csr_other",
        ),
        (
            "press-5",
            file("p384.csr", &forbidden.csr),
            device,
            "key_type_forbidden",
        ),
        (
            "press-6",
            file("same.csr", &same_key),
            device,
            "key_compromised",
        ),
        (
            "press-7",
            file("own.csr", &Request::device("press-7").csr),
            Some("nix"),
            "profile",
        ),
        (
            "press-8",
            file("binary.csr", "\u{0}\u{1}"),
            None,
            "csr_malformed",
        ),
    ] {
        let error = with_unusable(&env, id, &csr, profile);
        assert!(error.contains(why), "{id}: {error}");
    }
    for device in &devices {
        is_out(&env, device);
        assert!(
            env.emulator.hub_identity(&device.id).is_none(),
            "{}",
            device.id
        );
    }
    let good = Request::device("press-1");
    let csr = file("good.csr", &good.csr);
    let again = compromise(&env, &["press-1", "--csr", &csr]);
    let renewed = good.holder(&again["certificate"]);
    let rolls =
        env.count("roll r JOIN enrollment e ON e.id = r.enrollment WHERE e.name = 'press-1'");
    assert_eq!(rolls, 1, "a repeat is no other report");
    comes_to(&env, &again["rolls"][0]["id"].to_string(), "done");
    is_assigned(&env.emulator, &renewed);
    is_out(&env, &devices[0]);
}

/// The token is away when the compromise is reported over the API, with a CSR or without its
/// profile. Verifies: 201 with the exclusion, and why there is no new leaf.
#[test]
fn a_new_leaf_that_cannot_be_signed_does_not_delay_the_exclusion() {
    let (env, devices) = individually(&["press-1", "press-2"]);
    let report = |body: Value| -> Value {
        let answer = env.post("/v1/rolls", &body);
        serde_json::from_str(&answer).unwrap()
    };
    let body = json!({ "registration_id": "press-1", "reason": "compromise", "csr": "no CSR" });
    let answer = report(body);
    assert_eq!(answer["not_issued_code"], "csr_malformed", "{answer}");
    is_out(&env, &devices[0]);

    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    let csr = Request::device("press-2").csr;
    let body = json!({ "registration_id": "press-2", "reason": "compromise", "csr": csr });
    let answer = report(body);
    let code = answer["not_issued_code"].as_str().unwrap();
    assert!(code.starts_with("token_"), "{answer}");
    is_out(&env, &devices[1]);
    assert_eq!(line(&answer, "crl")["code"], "crl_not_signed");
    assert_eq!(answer["receipt"]["complete"], false);
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    env.wait_ready();
}

/// An authority is compromised, its successor signs, and the successor is compromised before the
/// devices have new leaves. Verifies: the same command again is refused, with the code and the
/// generation that serves; with the generation it takes over the devices of the first rollover,
/// and ends when they have new leaves.
#[test]
fn a_second_compromise_takes_over_the_devices_of_the_first() {
    let env = begun(TestEnv::new());
    let device = env.station().obtain(&Request::device("press-1"));
    is_assigned(&env.emulator, &device);
    let first = compromise(&env, &["--authority", "line-1"]);
    let first = first["rolls"][0]["id"].to_string();
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    comes_to(&env, &first, "reissuing");

    let report = [
        "roll",
        "start",
        "--reason",
        "compromise",
        "--authority",
        "line-1",
    ];
    let repeated = env.hallmark(&report);
    assert_eq!(repeated.code, Some(1), "{repeated:?}");
    for said in [
        "roll_generation_required",
        "generation 2 serves",
        "--generation",
    ] {
        assert!(repeated.error.contains(said), "{repeated:?}");
    }
    assert_eq!(shown(&env, &first)["state"], "reissuing");

    let second = compromise(&env, &["--authority", "line-1", "--generation", "2"]);
    let second = second["rolls"][0]["id"].to_string();
    assert_eq!(shown(&env, &first)["state"], "aborted");
    let reissuing = comes_to(&env, &second, "reissuing");
    let reissue = &reissuing["report"]["reissue"];
    assert_eq!(reissue[0]["registration_id"], "press-1", "{reissuing}");
    is_out(&env, &device);
    let new = env.enlist_when_possible("device", "press-1");
    comes_to(&env, &second, "done");
    env.wait_in_sync();
    is_assigned(&env.emulator, &new);
    is_out(&env, &device);
}

/// Verifies: the receipt for the end of a block has the line of the service, also where the
/// enrollment that excluded the subject is deleted.
#[test]
fn the_end_of_a_block_is_reported_by_the_service() {
    let (env, _) = below_line_1(&["press-1"]);
    env.run(&["device", "block", "press-1"]);
    let lifted = env.json(&["device", "unblock", "press-1"]);
    let place = line(&lifted, "dps: dps");
    assert_eq!(place["code"], "enrollment_deleted", "{lifted}");
    assert_eq!(place["parameters"]["name"], "press-1", "{lifted}");

    let mut env = TestEnv::new();
    under_the_root(&mut env);
    let of = ["line-1", "--generation", "1"];
    let blocked = env.json(&[&["authority", "block"], &of[..]].concat());
    assert_eq!(line(&blocked, "dps: dps")["code"], "enrollment_disabled");
    let lifted = env.json(&[&["authority", "unblock"], &of[..]].concat());
    assert_eq!(
        line(&lifted, "dps: dps")["code"],
        "enrollment_deleted",
        "{lifted}"
    );
}

/// Five devices are below two intermediates. Verifies: the receipt of the root's compromise counts
/// the identities of all rollovers.
#[test]
fn the_receipt_of_a_root_counts_every_identity() {
    let (env, devices) = five_devices();
    let started = compromise(&env, &["--authority", "root"]);
    let hub = line(&started, "hub: dps");
    assert_eq!(hub["code"], "identities_deleted", "{started}");
    assert!(hub["parameters"]["done"].as_i64() >= Some(5), "{hub}");
    for device in &devices {
        assert!(
            env.emulator.hub_identity(&device.id).is_none(),
            "{}",
            device.id
        );
    }
}

/// DPS refuses all changes. Verifies: a compromise and a block that it has not confirmed are alarms
/// at once, and no longer when it has.
#[test]
fn a_pending_exclusion_is_an_alarm_at_once() {
    let (env, _) = individually(&["press-1", "press-2"]);
    let away = Fault::on("individual.put", Action::status(503)).times(1_000);
    env.emulator.inject(away).unwrap();
    let operators = [
        ["roll", "start", "press-1", "--reason", "compromise"],
        ["device", "block", "press-2", "--reason", "stolen"],
    ];
    let operators = operators.map(|command| {
        let client = env.client();
        std::thread::spawn(move || client.hallmark(&command))
    });
    let pending = || {
        let status = env.json(&["status"]);
        let alarms = status["alarm_details"].as_array().unwrap().iter();
        let pending = alarms.filter(|it| it["code"] == "exclusion_pending");
        let subjects = pending.map(|it| it["parameters"]["subject"].as_str().unwrap().to_owned());
        subjects.collect::<Vec<_>>()
    };
    until("both are alarms", || {
        (pending() == ["press-1", "press-2"]).then_some(())
    });
    let status = env.json(&["status"]).to_string();
    assert!(
        status.contains("hallmark block show device press-2"),
        "{status}"
    );
    let shown = env.json(&["block", "show", "device", "press-2"]);
    assert_eq!(line(&shown, "dps: dps")["state"], "pending", "{shown}");
    env.emulator.clear_faults();
    env.run(&["push", "retry"]);
    for operator in operators {
        assert_eq!(operator.join().unwrap().code, Some(0));
    }
    until("no exclusion is pending", || {
        pending().is_empty().then_some(())
    });
}

/// The report of an authority's compromise asks for a successor that cannot be made: its key type
/// or validity is none. Verifies: the authority is excluded each time, the command says so and what
/// is wrong, and exits with 1; the API answers 201 with codes; the successor is like the old
/// certificate. A rollover for expiry is refused for the same.
#[test]
fn an_unusable_option_never_delays_the_exclusion_of_an_authority() {
    let (env, devices) = below_line_1(&["press-7"]);
    let of_line = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--key-type",
        "p192",
        "--reason",
    ];
    let refused = env.hallmark(&[&of_line[..], &["expiry"]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.error.contains("p192"), "{refused:?}");
    assert_eq!(env.count("roll"), 0);

    let report = [&of_line[..], &["compromise", "--validity", "soon"]].concat();
    let output = env.hallmark(&report);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.out.contains("authority_excluded"), "{output:?}");
    for words in [
        "the exclusion of line-1 is on record",
        "p192",
        "soon",
        "body_invalid",
    ] {
        assert!(output.error.contains(words), "{words}: {output:?}");
    }
    is_out(&env, &devices[0]);
    assert!(env.emulator.hub_identity("press-7").is_none());
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });

    let body = json!({ "reason": "compromise", "key_type": 7, "validity": 5 });
    let answer = env.post("/v1/authorities/plant/rolls", &body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let problems = answer["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{answer}");
    assert!(
        problems.iter().all(|it| it["code"] == "body_invalid"),
        "{answer}"
    );
    assert_eq!(line(&answer, "crl")["code"], "crl_signed", "{answer}");
}

/// Has another program add a group, the third, and the service take no more than `quota`; returns
/// when the daemon has counted it.
pub(crate) fn has_a_third_group(env: &TestEnv, quota: usize) {
    let theirs =
        json!({ "enrollmentGroupId": "theirs", "attestation": { "type": "symmetricKey" } });
    let theirs = theirs.as_object().unwrap().clone();
    env.emulator
        .create_record(Kind::Group, "theirs", theirs)
        .unwrap();
    env.emulator.switch(|it| it.quotas.groups = Some(quota));
    env.run(&["reload"]);
    let counted = "service_load WHERE groups = 3";
    until("it is counted", || (env.count(counted) == 1).then_some(()));
}

/// The service has no room for the blocking group of a compromised line, below the group of the
/// root. Verifies: all is excluded at once, and the command says what is missing; the successor
/// waits, and the line's disabled group keeps the compromised certificate, so the group of the root
/// admits no device; when another client's group is deleted, the rollover goes on. The service
/// takes a certificate in one enrollment only, so the group of the root may admit the device while
/// the certificate moves to its blocking group: no complete receipt leaves it admitted.
#[test]
fn a_service_without_room_never_delays_the_exclusion_of_an_authority() {
    let mut env = TestEnv::new();
    let configuration = env.configuration();
    env.configure(&configuration.replace("verified = [", "groups_max = 3\nverified = ["));
    let device = under_the_root(&mut env);
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    has_a_third_group(&env, 3);

    let report = [
        "roll",
        "start",
        "--authority",
        "line-1",
        "--reason",
        "compromise",
    ];
    let output = env.hallmark(&[&["--json"], &report[..]].concat());
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error.contains("at most 3 groups"), "{output:?}");
    let failure: Value = serde_json::from_str(&output.out).unwrap();
    let answer = &failure["answer"];
    assert_eq!(answer["problems"][0]["code"], "service_limit", "{failure}");
    assert_eq!(line(answer, "crl")["code"], "crl_signed", "{answer}");
    let roll = answer["rolls"][0]["id"].to_string();
    until("it waits for room", || {
        let shown = env.json(&["roll", "show", &roll]);
        let waits = &shown["waits_for_detail"];
        let waits =
            [&waits["code"], &waits["parameters"]["also"]].map(|it| *it == json!("group_room"));
        waits.contains(&true).then_some(())
    });
    env.wait_in_sync();
    is_out(&env, &device);
    assert!(env.emulator.hub_identity("press-1").is_none());
    let held = held(&env.emulator.group("line-1").unwrap(), "primary");
    let old = "generation g JOIN certificate c ON c.intent = g.certificate
               WHERE g.authority = 'line-1' AND g.number = 1";
    let old = format!(
        "{old} AND lower(hex(c.sha256)) = lower('{}')",
        held.unwrap()
    );
    assert_eq!(env.count(&old), 1, "the compromised certificate stays");
    assert!(env.emulator.group("line-1-blocked-1").is_none());

    env.emulator.delete_record(Kind::Group, "theirs").unwrap();
    env.run(&["reload"]);
    until("the receipt is complete", || {
        let shown = env.json(&["roll", "show", &roll]);
        let is_over = env.emulator.group("line-1-blocked-1").is_some();
        (is_over && shown["receipt"]["complete"] == true).then_some(())
    });
    is_out(&env, &device);
    assert!(second_signs(&env, "line-1"));
    assert!(env.emulator.hub_identity("press-1").is_none());
}
