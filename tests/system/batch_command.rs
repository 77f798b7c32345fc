//! Tests `hallmark issue-batch`: killed, repeated and finished, it issues each certificate once.

use crate::batch::devices;
use crate::invariants;
use crate::process::until;
use crate::request::{Holder, Request, der};
use crate::test_env::{HALLMARK, TestEnv};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The certificates of a folder, by the name of the file.
fn certificates(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).into_iter().flatten();
    let files = files.map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|it| it == "pem"));
    let read = files.map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    read.collect()
}

/// A CSV of `requests`, and their files.
fn list(env: &TestEnv, requests: &[Request]) -> String {
    fs::create_dir_all(env.path("requests")).unwrap();
    let lines = requests.iter().map(|request| {
        let file = format!("requests/{}.csr", request.id);
        env.write(&file, &request.csr);
        format!("{},{file}\n", request.id)
    });
    let text = lines.collect::<String>();
    env.write("devices.csv", &text).display().to_string()
}

/// The daemon is killed again and again while the command issues, and the command is repeated.
/// Verifies: in the end each device has exactly one certificate, which is that of its file; a file
/// that was written before a kill stays as it was.
#[test]
fn kills_amid_batches_lose_and_double_nothing() {
    const DEVICES: usize = 240;
    const KILLS: i64 = 4;
    let mut env = TestEnv::running();
    let requests = devices(DEVICES);
    let list = list(&env, &requests);
    let out = env.path("certificates");
    let client = env.client();
    let command = || {
        let out = out.to_str().unwrap();
        let fixed = [
            "--json",
            "issue-batch",
            "--profile",
            "device",
            "--batch-size",
            "24",
        ];
        client.hallmark(&[&fixed[..], &["--out", out, &list]].concat())
    };
    let issued =
        |env: &TestEnv| env.count("intent_state WHERE state = 'issued' AND profile = 'device'");
    for kill in 1..=KILLS {
        let before = certificates(&out);
        let output = std::thread::scope(|scope| {
            let asked = scope.spawn(command);
            until("more devices have certificates", || {
                (issued(&env) > kill * DEVICES as i64 / (KILLS + 2)).then_some(())
            });
            env.kill();
            asked.join().unwrap()
        });
        assert_eq!(output.code, Some(3), "{output:?}");
        let failure: Value = serde_json::from_str(&output.out).unwrap();
        assert_eq!(failure["code"], "daemon_unreachable", "{failure}");
        assert!(
            failure["remedy"]
                .as_str()
                .unwrap()
                .starts_with("repeat the command")
        );
        let after = certificates(&out);
        assert!(before.iter().all(|(id, text)| after[id] == *text));
        env.start();
        env.wait_ready();
    }
    let output = command();
    assert_eq!(output.code, Some(0), "{output:?}");
    let answer: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(
        (&answer["requests"], &answer["issued"]),
        (&json!(DEVICES), &json!(DEVICES))
    );
    assert_eq!(answer["refused"], json!([]));
    assert_eq!(
        issued(&env),
        DEVICES as i64,
        "a device has two certificates"
    );
    let written = certificates(&out);
    assert_eq!(written.len(), DEVICES);
    let store = invariants::open(&env.database());
    for certificate in answer["certificates"].as_array().unwrap() {
        let id = certificate["registration_id"].as_str().unwrap();
        let serial = certificate["serial"].as_str().unwrap();
        let own = format!(
            "intent_state WHERE state = 'issued' AND subject = '{id}' AND serial = x'{serial}'"
        );
        assert_eq!(invariants::count(&store, &own), 1, "{id}");
        assert!(written[id].starts_with("-----BEGIN CERTIFICATE-----"));
    }
    let request = &requests[0];
    let shown = &answer["certificates"][0]["serial"];
    assert_eq!(env.json(&["device", "show", &request.id])["serial"], *shown);
}

/// Verifies: a folder of requests is taken, also as DER; a refused request does not stop the rest
/// and makes the command fail; a wrong list is refused before anything is sent.
#[test]
fn the_command_names_each_refused_request() {
    let env = TestEnv::running();
    let requests = devices(3);
    let list = list(&env, &requests);
    env.write("requests/broken-1.csr", "no request\n");
    env.write("requests/notes.txt", "not read");
    let other = Request::named("device", "other-1", Some("press-99"));
    env.write("requests/other-1.pem", &other.csr);
    let out = env.path("certificates").display().to_string();
    let issue = |list: &str| {
        let fixed = ["issue-batch", "--profile", "device", "--out", &out, list];
        env.hallmark(&fixed)
    };
    let output = issue(env.path("requests").to_str().unwrap());
    assert_eq!(output.code, Some(1), "{output:?}");
    for words in [
        "broken-1",
        "csr_malformed",
        "other-1",
        "csr_other_common_name",
        "3 of 5",
    ] {
        assert!(output.out.contains(words), "no {words}: {output:?}");
    }
    assert!(
        output.error.contains("2 of 5 requests were refused"),
        "{output:?}"
    );
    let written = certificates(Path::new(&out));
    assert_eq!(written.len(), 3);
    for request in &requests {
        let text = &written[&request.id];
        let (leaf, chain) = text.split_at(text.find("-----END").unwrap() + 26);
        let holder = Holder {
            certificate: leaf.to_owned(),
            chain: vec![chain.to_owned()],
            ..request.holder(&json!({
                "certificate": "", "chain": [], "serial": "", "thumbprint": "",
            }))
        };
        holder.is_accepted_by_openssl(&env.authority("root"));
    }
    let output = issue(&list);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(certificates(Path::new(&out)), written);

    let rows = env.count("intent");
    for (text, why) in [
        (
            "press-1,requests/press-1.csr\npress-1,x\n",
            "line 2: press-1 is named a second time",
        ),
        (
            "press-1;requests/press-1.csr\n",
            "line 1: it has not two fields",
        ),
        ("", "names no device"),
    ] {
        let output = issue(env.write("wrong.csv", text).to_str().unwrap());
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.error.contains(why), "{output:?}");
    }
    assert_eq!(env.count("intent"), rows);
}

/// The command itself is killed again and again; the last kill cuts its line off. Some requests are
/// in the list itself. Verifies: in the end each device has exactly one certificate; a command that
/// has nothing left to ask for needs no daemon; a certificate whose file is gone is asked for again
/// and is the same one.
#[test]
fn a_killed_command_goes_on_and_a_finished_one_asks_for_nothing() {
    const DEVICES: usize = 90;
    let mut env = TestEnv::running();
    let requests = devices(DEVICES);
    fs::create_dir_all(env.path("requests")).unwrap();
    let lines = requests.iter().enumerate().map(|(number, request)| {
        let file = format!("requests/{}.csr", request.id);
        env.write(&file, &request.csr);
        match number % 3 {
            0 => format!("{},\"{}\"\n", request.id, request.csr),
            1 => format!("{},{}\n", request.id, STANDARD.encode(der(&request.csr))),
            _ => format!("{},{file}\n", request.id),
        }
    });
    let text = lines.collect::<String>();
    let list = env.write("devices.csv", &text).display().to_string();
    let out = env.path("certificates");
    let results = out.join("issued.jsonl");
    let arguments = [
        "issue-batch",
        "--profile",
        "device",
        "--batch-size",
        "6",
        "--out",
    ];
    let arguments = [&arguments[..], &[out.to_str().unwrap(), &list]].concat();
    let written = || {
        fs::read_to_string(&results)
            .unwrap_or_default()
            .lines()
            .count()
    };
    for kill in 1..=3 {
        let mut command = Command::new(HALLMARK);
        command.args(&arguments).stdout(Stdio::null());
        command.env("HALLMARK_ADMIN_SOCKET", env.path("state/admin.sock"));
        let mut command = command.spawn().unwrap();
        until("more certificates are written", || {
            (written() > kill * 15).then_some(())
        });
        command.kill().unwrap();
        assert!(
            !command.wait().unwrap().success(),
            "it ended before the kill"
        );
    }
    let whole = fs::read(&results).unwrap();
    fs::write(&results, &whole[..whole.len() - 20]).unwrap();

    let output = env.hallmark(&arguments);
    assert_eq!(output.code, Some(0), "{output:?}");
    let issued = "intent_state WHERE state = 'issued' AND profile = 'device'";
    assert_eq!(
        env.count(issued),
        DEVICES as i64,
        "a device has two certificates"
    );
    let before = certificates(&out);
    let of_devices =
        |it: &BTreeMap<String, String>| requests.iter().all(|request| it.contains_key(&request.id));
    assert!(of_devices(&before));
    let text = fs::read_to_string(&results).unwrap();
    assert!(
        !text.contains("PRIVATE") && !text.contains("BEGIN CERTIFICATE"),
        "{text}"
    );

    env.stop();
    let output = env.hallmark(&[&["--json"], &arguments[..]].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let answer: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(answer["certificates"].as_array().unwrap().len(), DEVICES);
    let gone = out.join(format!("{}.pem", requests[7].id));
    fs::remove_file(&gone).unwrap();
    assert_eq!(env.hallmark(&arguments).code, Some(3));
    env.start();
    env.wait_ready();
    let output = env.hallmark(&arguments);
    assert_eq!(output.code, Some(0), "{output:?}");
    let id = &requests[7].id;
    assert_eq!(certificates(&out)[id], before[id]);
    assert_eq!(env.count(issued), DEVICES as i64);
}
