//! Runs the runbooks of `docs/operations.md` line by line: a test opens a section and takes its
//! lines one by one. A line that no longer works fails its test; a line that no test takes fails
//! too.

use crate::block::five_devices;
use crate::cross::{Rolled, rolled};
use crate::device::{is_assigned, register};
use crate::elsewhere::Elsewhere;
use crate::external::{self, asked};
use crate::imported::with_a_past;
use crate::ocsp;
use crate::provisioned::{below_line_1, individually};
use crate::request::{self, Request};
use crate::restored::{registered, restored_after};
use crate::roles::with_operators;
use crate::runbook_text::{OPERATIONS, Runbook, STORIES, commands, sections, words};
use crate::test_env::TestEnv;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use hallmark_cli::ctl::Arguments;
use std::path::Path;

/// Writes a request with a new key to the path that the page names.
fn has_request(env: &TestEnv, profile: &str, id: &str) {
    env.write(&format!("{id}.csr"), &Request::new(profile, id).csr);
}

fn newest_roll(env: &TestEnv) -> String {
    env.json(&["roll", "list"])[0]["id"].to_string()
}

#[test]
fn a_ca_certificate_was_deleted_at_the_service() {
    let env = TestEnv::new();
    let policy = "\n[policy]\nscan_interval = \"1s\"\n";
    env.configure(&(env.configuration() + policy));
    let env = env.started();
    let mut runbook = Runbook::of("A CA certificate was deleted at the service");
    assert!(env.emulator.delete_authority("root-1"));
    let list = runbook.line(&[]);
    list.repeats_until_it_prints(&env, "another program deleted it");
    runbook.text(&env);
    env.wait_in_sync();
    list.repeats_until_it_prints(&env, "verified  true");
    assert_eq!(env.emulator.authorities().len(), 1);
}

/// A reload makes the responders, and a client gets their answers.
#[test]
fn an_authority_begins_to_answer_ocsp_requests() {
    let env = TestEnv::running();
    env.configure(&(env.configuration() + ocsp::TABLE));
    let mut runbook = Runbook::of("OCSP");
    runbook.text(&env);
    runbook
        .line(&[])
        .repeats_until_it_prints(&env, "\"certificate_not_after\": \"20");
    let url = ocsp::with_issuers(&env).base + "/ocsp/line-1";
    let shown = "http://pki.example:8080/ocsp/line-1";
    let asked = runbook.line(&[(shown, &url)]);
    asked.repeats_until_it_prints(&env, "0x1234: unknown");
}

/// Every section with commands of Hallmark is opened by a test here.
#[test]
fn every_section_with_commands_has_a_story() {
    for (heading, text) in sections() {
        let ours = commands(text)
            .into_iter()
            .any(|line| line.starts_with("hallmark"));
        let opened = STORIES.contains(&format!("Runbook::of({heading:?})"));
        assert_eq!(ours, opened, "{heading}");
    }
}

/// A command in the text, as `roll show`, must exist too, even without its arguments.
#[test]
fn every_command_named_in_the_text_exists() {
    let command = Arguments::command();
    let verbs: Vec<&str> = command.get_subcommands().map(|it| it.get_name()).collect();
    // The first column of the table of log messages holds messages, which may begin like a command.
    let (text, messages) = OPERATIONS.split_once("## Log messages").unwrap();
    let without_message = |line: &'static str| line.splitn(3, '|').last().unwrap_or_default();
    let spans = text
        .lines()
        .chain(messages.lines().map(without_message))
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let mut named = 0;
    for span in spans {
        let mut words = words(span.strip_prefix("hallmark ").unwrap_or(span));
        let is_command = words.len() > 1 && verbs.contains(&words[0].as_str());
        if !is_command && !span.starts_with("hallmark ") {
            continue;
        }
        words.insert(0, "hallmark".to_owned());
        let number = |word: &mut String| {
            if word == "N" {
                *word = "1".to_owned();
            }
        };
        words.iter_mut().for_each(number);
        if let Err(error) = Arguments::try_parse_from(words) {
            assert_eq!(
                error.kind(),
                ErrorKind::MissingRequiredArgument,
                "{span}: {error}"
            );
        }
        named += 1;
    }
    assert!(named > 20, "only {named} commands were found");
}

#[test]
fn begin() {
    let mut env = TestEnv::new();
    let mut page = Runbook::of("Begin");
    let config = env.path("hallmark.toml");
    let config = [("/etc/hallmark.toml", config.to_str().unwrap())];
    // A real systemd judges the units (tests/systemd/run); this test judges the files.
    assert_eq!(page.line(&[]).0, ["hallmark", "setup"]);
    env.write(
        "answers.toml",
        include_str!("../../docs/setup-answers.toml"),
    );
    assert!(page.text(&env).contains("hallmark.toml written"));
    // The quick start runs it; this token is the environment's.
    assert!(page.line(&[]).0[0].ends_with("new-token"));
    page.line(&config).text(&env);
    assert_eq!(
        page.line(&config).0[..3],
        ["hallmarkd", "serve", "--config"]
    );
    env.start();
    page.text(&env);
    env.run_ceremony();
    assert!(env.path("ceremony-2026/transcript.txt").exists());
    has_request(&env, "station", "station-1");
    page.text(&env);
    assert!(env.path("station-1.pem").exists());
    page.text(&env);
    env.wait_in_sync();
    assert!(env.emulator.group("line-1").is_some());
}

#[test]
fn tokens_are_listed_and_checks_run() {
    let env = TestEnv::running();
    let mut page = Runbook::of("Tokens");
    assert!(page.text(&env).contains("factory"));
    assert!(page.text(&env).contains("line-1"));
    assert!(!page.text(&env).contains("LEFT BEHIND"));
    assert!(page.text(&env).contains("an hour"));
    env.run(&["backup", "create"]);
    let mut page = Runbook::of("Every check, with its remedy");
    assert!(page.text(&env).contains(" 0 attention, 0 failed"));
    assert!(page.text(&env).contains(" 0 failed"));
}

#[test]
fn a_device_is_compromised() {
    let (env, devices) = below_line_1(&["press-7", "device-3"]);
    let [compromised, blocked] = &devices[..] else {
        unreachable!("two were asked for");
    };
    let is_out = |device| assert_ne!(register(&env.emulator, device).as_deref(), Ok("assigned"));
    let mut page = Runbook::of("A device is compromised, stolen or lost: now");
    page.text(&env);
    is_out(compromised);
    has_request(&env, "device", "press-7");
    page.text(&env);
    assert!(env.path("press-7.pem").exists());
    let roll = newest_roll(&env);
    page.line(&[("12", &roll)])
        .repeats_until_it_prints(&env, "state: done");
    has_request(&env, "device", "press-7");
    page.text(&env);
    page.text(&env);
    is_out(blocked);
    page.text(&env);
    is_assigned(&env.emulator, blocked);
    env.wait_in_sync();
    let refused = page.line(&[]).run(&env);
    assert!(
        refused.code == Some(1) && refused.error.contains("--override"),
        "{refused:?}"
    );
    page.text(&env);
    env.wait_in_sync();
    assert!(env.emulator.individual("press-7").is_none());
}

#[test]
fn certificates_are_asked_for() {
    let env = TestEnv::new();
    let (before, device) = env
        .configuration()
        .split_once("name = \"device\"\n")
        .map_or_else(
            || panic!("the configuration has a profile for devices"),
            |(before, after)| (before.to_owned(), after.to_owned()),
        );
    let makes_keys = "name = \"device\"\ngenerate_keys = true\n";
    env.configure(&format!("{before}{makes_keys}{device}"));
    let env = env.started();
    let mut page = Runbook::of("Ask for a certificate");
    // `request.rs` sends the same request with the files and the port of the environment.
    assert_eq!(page.line(&[]).0[0], "curl");
    has_request(&env, "device", "pump-7");
    env.write("devices.csv", "pump-7,pump-7.csr\n");
    page.text(&env);
    std::fs::create_dir(env.path("requests")).unwrap();
    env.write("requests/pump-8.csr", &Request::new("device", "pump-8").csr);
    page.text(&env);
    for device in ["pump-7", "pump-8"] {
        assert!(env.path(&format!("certificates/{device}.pem")).exists());
    }
    env.write_secret("password", "correct horse 7");
    page.text(&env);
    page.text(&env);
    for file in ["pump-9.key", "pump-9.pem", "pump-9.p12"] {
        assert!(env.path(file).exists());
    }
}

#[test]
fn a_device_has_a_one_time_credential() {
    let env = TestEnv::running();
    let mut page = Runbook::of("A device requests its first leaf by a one-time credential");
    let made = page.text(&env);
    assert!(made.contains("secret: "), "{made}");
    // `one_time_credential` sends the same request.
    assert_eq!(page.line(&[]).0[0], "curl");
    assert!(page.text(&env).contains("open"));
    page.text(&env);
}

#[test]
fn a_certificate_is_revoked() {
    let env = with_operators();
    let station = env.enlist("station", "station-1");
    let operator = env.enlist("operator", "operator-2");
    env.write("operator-2.pem", &operator.certificate);
    let mut page = Runbook::of("Revoke a certificate: station, operator, auditor, server");
    let serial = [("0A1B2C3D", station.serial.as_str())];
    let output = page.line(&serial).text(&env);
    assert!(output.contains("reason: keyCompromise"), "{output}");
    page.text(&env);
    for holder in [station, operator] {
        let answer = env.caller(&holder).get("/v1/devices");
        assert_eq!(answer.code(), "client_certificate_revoked");
    }
    let device = env.enlist("device", "press-7");
    let everywhere = page.line(&[("0D1E2F3A", &device.serial)]).text(&env);
    assert!(everywhere.contains("reason: keyCompromise"), "{everywhere}");
    let missing = env.enlist("station", "station-2");
    let serial = [("0B1C2D3E", missing.serial.as_str())];
    page.line(&serial).text(&env);
    let refused = env.caller(&missing).get("/v1/devices");
    assert_eq!(refused.code(), "client_certificate_revoked");
    page.line(&serial).text(&env);
    let known = env.caller(&missing).get("/v1/devices");
    assert_eq!(known.code(), "role_forbidden");
}

#[test]
fn a_certificate_is_found() {
    let env = with_operators();
    let device = env.enlist("device", "press-7");
    let [pem, der] = ["press-7.pem", "press-7.der"].map(|it| env.path(it).display().to_string());
    let own = [
        ("0A1B2C3D", device.serial.as_str()),
        ("press-7.pem", &pem),
        ("press-7.der", &der),
    ];
    let mut page = Runbook::of("Find a certificate");
    assert!(page.text(&env).contains(&device.serial));
    page.text(&env);
    page.text(&env);
    let shown = page.line(&own).text(&env);
    assert!(shown.contains("asked_by: local uid"), "{shown}");
    let written = std::fs::read_to_string(&pem).unwrap();
    let whole = device.certificate.clone() + &device.chain.concat();
    assert_eq!(written, whole);
    page.line(&own).text(&env);
    assert_eq!(
        std::fs::read(&der).unwrap(),
        request::der(&device.certificate)
    );
}

#[test]
fn a_line_or_an_intermediate_is_blocked() {
    let (env, devices) = five_devices();
    let mut page = Runbook::of("A line or an intermediate must be blocked");
    page.text(&env);
    page.text(&env);
    let end = register(&env.emulator, &devices[2]);
    assert_ne!(end.as_deref(), Ok("assigned"));
    page.text(&env);
    page.text(&env);
    is_assigned(&env.emulator, &devices[2]);
    env.run(&["device", "block", "device-3", "--reason", "stolen"]);
    assert!(page.text(&env).contains("device-3"));
    page.text(&env);
    page.text(&env);
    assert!(page.text(&env).contains("stolen"));
}

#[test]
fn an_authority_elsewhere_is_certified() {
    let env = TestEnv::certifying_elsewhere().started();
    let request = Request::named("none", "gateway", Some("Gateway 7"));
    env.write("gateway.csr", &request.csr);
    let mut page = Runbook::of("Certify an authority elsewhere");
    assert!(page.text(&env).contains("Gateway 7"));
    let chain = std::fs::read_to_string(env.path("gateway-chain.pem")).unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 3);
    assert!(page.text(&env).contains("Gateway 7"));
    let listed = env.json(&["authority", "subordinates", "plant"]);
    let serial = listed[0]["serial"].as_str().unwrap();
    let revoked = page.line(&[("01AB", serial)]).text(&env);
    assert!(revoked.contains("cACompromise"), "{revoked}");
}

#[test]
fn an_authority_is_certified_elsewhere() {
    let env = asked();
    let elsewhere = Elsewhere::on(&env);
    env.write("gateway-ceremony.toml", external::CEREMONY);
    let mut page = Runbook::of("An authority is certified elsewhere");
    page.text(&env);
    page.text(&env);
    let answer = elsewhere.signs("gateway.csr", "below", 1800, "root");
    env.write("gateway-chain.pem", &answer);
    page.text(&env);
    assert!(page.text(&env).contains("CN=Elsewhere"));
    crate::stick::follows(Runbook::of("An offline root"));
}

#[test]
fn an_authority_has_a_past() {
    let env = with_a_past();
    let mut page = Runbook::of("You have an authority already");
    let [index, folder, list] =
        ["index.txt", "newcerts", "old.crl"].map(|it| env.path(it).display().to_string());
    let own = [
        ("root", "old"),
        ("/etc/pki/index.txt", index.as_str()),
        ("/etc/pki/newcerts", &folder),
        ("/etc/pki/old-root.crl", &list),
    ];
    assert!(page.line(&own).text(&env).contains("revocations"));
    assert_eq!(env.count("device"), 6);
}

#[test]
fn a_device_is_renewed() {
    let (env, _) = individually(&["pump-7"]);
    let mut page = Runbook::of("Renew a device");
    page.text(&env);
    assert!(page.text(&env).contains("pump-7"));
    let roll = newest_roll(&env);
    let roll = [("12", roll.as_str())];
    assert!(page.line(&roll).text(&env).contains("pump-7"));
    page.line(&roll).text(&env);
    env.run(&["roll", "start", "pump-7", "--reason", "expiry"]);
    let next = newest_roll(&env);
    page.line(&[("12", &next)]).text(&env);
    assert_eq!(
        env.json(&["roll", "list", "--open"])
            .as_array()
            .map(Vec::len),
        Some(0)
    );
}

#[test]
fn an_authority_is_compromised() {
    let (env, devices) = below_line_1(&["press-7"]);
    let mut page = Runbook::of("An authority is compromised");
    page.text(&env);
    let end = register(&env.emulator, &devices[0]);
    assert_ne!(end.as_deref(), Ok("assigned"));
    let roll = newest_roll(&env);
    page.line(&[("12", &roll)])
        .repeats_until_it_prints(&env, "press-7");
}

#[test]
fn an_authority_expires() {
    let (env, devices) = below_line_1(&["press-7"]);
    let mut page = Runbook::of("An authority expires");
    page.text(&env);
    assert!(page.text(&env).contains("plant"));
    let rolls = env.json(&["roll", "list"]);
    let mut rolls = rolls.as_array().unwrap().iter();
    let roll = rolls.find(|it| it["authority"] == "plant").unwrap();
    let roll = roll["id"].to_string();
    page.line(&[("12", &roll)])
        .repeats_until_it_prints(&env, "state: draining");
    is_assigned(&env.emulator, &devices[0]);
}

#[test]
fn a_root_expires() {
    let Rolled { env, roots, leaves } = rolled(TestEnv::new());
    let mut page = Runbook::of("A root expires");
    assert!(page.text(&env).contains("root-2-by-root-1"));
    let cross = page.text(&env);
    env.write("old-root.pem", &roots[0]);
    env.write("between.pem", &(leaves[1].chain[..2].concat() + &cross));
    env.write("pump-7.pem", &leaves[1].certificate);
    assert!(page.text(&env).contains("pump-7.pem: OK"));
}

#[test]
fn credentials_go_into_a_token() {
    let mut env = TestEnv::running();
    let mut page = Runbook::of("Credentials");
    let config = env.path("hallmark.toml");
    let out = env.path("entra-2026.pem");
    let own = [
        ("/etc/hallmark.toml", config.to_str().unwrap()),
        ("/etc/hallmark/entra-2026.pem", out.to_str().unwrap()),
    ];
    env.write_secret("dps.connection", &env.emulator.service_connection_string());
    let output = page.line(&own).text(&env);
    let credential = output
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("credential = "));
    let credential = credential.unwrap_or_else(|| panic!("no line to put in: {output}"));
    let file = format!("credential = {:?}", env.path("connection-string"));
    let configuration = env.configuration();
    assert!(configuration.contains(&file));
    env.configure(&configuration.replace(&file, credential));
    env.restart();
    page.text(&env);
    assert!(!Path::new(&env.path("dps.connection")).exists());
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    page.line(&own).text(&env);
    assert!(out.exists());
}

#[test]
fn what_came_after_the_backup_is_excluded() {
    let (env, _, [compromised, blocked]) = restored_after(|env, _| {
        let devices = ["press-8", "press-9"].map(|id| registered(env, id));
        for id in ["press-10", "press-11"] {
            env.run(&["enrollment", "add", "--individual", id]);
            registered(env, id);
        }
        devices
    });
    let is_out = |device| assert_ne!(register(&env.emulator, device).as_deref(), Ok("assigned"));
    let mut page = Runbook::of("After a restore");
    page.text(&env);
    is_out(&compromised);
    page.text(&env);
    is_out(&blocked);
    page.line(&[]).repeats_until_it_prints(&env, "press-11");
    page.text(&env);
    page.text(&env);
    env.wait_in_sync();
    assert!(env.emulator.individual("press-11").is_none());
    page.text(&env);
}

#[test]
fn the_configuration_is_changed() {
    let env = TestEnv::running();
    Runbook::of("Change the configuration, stop, start").text(&env);
}

#[test]
fn a_backup_is_made_verified_and_restored() {
    let mut env = TestEnv::running();
    let mut page = Runbook::of("Backups");
    let (folder, config) = (env.path("elsewhere"), env.path("hallmark.toml"));
    std::fs::create_dir(&folder).unwrap();
    page.line(&[("/mnt/backup", folder.to_str().unwrap())])
        .text(&env);
    let files = std::fs::read_dir(&folder).unwrap();
    let mut files = files.map(|it| it.unwrap().path());
    let file = files.find(|it| it.extension().unwrap() == "db").unwrap();
    let shown = "/mnt/backup/hallmark-20261122T031500Z.db";
    let own = [
        (shown, file.to_str().unwrap()),
        ("/etc/hallmark.toml", config.to_str().unwrap()),
    ];
    page.line(&own).text(&env);
    env.stop();
    page.line(&own).text(&env);
    page.line(&own).text(&env);
    env.start();
    env.wait_ready();
}
