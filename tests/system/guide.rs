//! Runs the pages of `docs/guide` as a reader would: a box that begins with a file's name is that
//! file, and all `sh` boxes are one shell script, from top to bottom. Any command that fails fails
//! its test. A box with the prompt `$` is for another machine, and is not run.

use crate::test_env::{HALLMARK, TestEnv};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// Ends what the script has started, by its id: daemons, then a software TPM.
const END: &str = "trap 'kill $(jobs -p) || true; wait; [ ! -s tpm/pid ] || kill $(cat tpm/pid)
                        [ ! -e registration.json ] || cat registration.json' EXIT
                   set -euo pipefail\n";

/// The boxes of a page, each with its language.
fn boxes(page: &str) -> Vec<(&str, &str)> {
    let boxes = page.split("\n```").skip(1).step_by(2);
    let parts = boxes.map(|it| it.split_once('\n').expect("a box has lines"));
    parts.collect()
}

/// Runs the page in a folder of the environment, with ports of its own.
fn run(env: &TestEnv, page: &str, exchanged: &[(&str, &str)], before: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = env.path("guide");
    fs::create_dir_all(&folder).unwrap();
    let mut page = page.to_owned();
    for port in ["127.0.0.1:8443", "127.0.0.1:8080"] {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        page = page.replace(port, &free.unwrap().to_string());
    }
    for (shown, own) in exchanged {
        assert!(page.contains(shown), "the page has {shown:?}");
        page = page.replace(shown, own);
    }
    let setup = format!("{}/softhsm-setup/new-", top.display());
    page = page.replace("softhsm-setup/new-", &setup);
    let mut script = END.to_owned() + before;
    for (language, text) in boxes(&page) {
        let file = text.lines().next().and_then(|it| it.strip_prefix("# "));
        match (language, file) {
            ("sh", _) => script += text,
            ("toml" | "yaml", Some(name)) => {
                fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
            ("console", _) => {}
            (language, _) => panic!("a box of {language:?} has no file's name: {text}"),
        }
        script.push('\n');
    }
    let script = env.write("guide.sh", &script);
    execute(&folder, &["bash", "-x", &script.display().to_string()])
}

/// Runs a command in a folder, with the programs of this build in its path. It must succeed.
fn execute(folder: &Path, command_line: &[&str]) -> String {
    let programs = Path::new(HALLMARK).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    command.arg("120").args(command_line).current_dir(folder);
    let daemon = format!("{programs}/hallmarkd");
    let output = command.env("PATH", path).env("HALLMARKD", daemon).output();
    let output = output.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = fs::read_to_string(folder.join("hallmarkd.log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{said}\n{log}");
    printed
}

/// The emulator takes the place of Azure: its addresses and its authority are put beside the names
/// of the page, and a shell function does so for `curl`.
#[test]
fn a_first_device_at_azure() {
    let env = TestEnv::new();
    let page = include_str!("../../docs/guide/azure.md");
    let own = env.configuration();
    let table = own
        .find("[[provisioning]]")
        .expect("the environment has a service");
    let shown = page.find("[[provisioning]]").expect("the page has one");
    let shown = &page[shown..][..page[shown..].find("```").unwrap()];
    let exchanged = [
        (shown, &own[table..]),
        ("0ne00000000", &env.emulator.id_scope()),
        (
            "global.azure-devices-provisioning.net",
            env.emulator.device_host(),
        ),
    ];
    let curl = format!(
        "curl() {{ command curl --cacert {:?} --connect-to {}:443:{} \"$@\"; }}\n",
        env.emulator.ca_file(),
        env.emulator.device_host(),
        env.emulator.addr(),
    );
    let printed = run(&env, page, &exchanged, &curl);
    assert!(printed.contains("\"status\": \"assigned\""), "{printed}");
}

#[test]
fn a_ca_of_openssl_moves() {
    let env = TestEnv::new();
    let page = include_str!("../../docs/guide/from-openssl.md");
    let printed = run(&env, page, &[], "");
    assert!(printed.contains("Serial Number: 1001"), "{printed}");
    assert!(printed.contains("press-3.pem: OK"), "{printed}");
}

#[test]
fn a_step_ca_moves() {
    let env = TestEnv::new();
    let page = include_str!("../../docs/guide/from-step-ca.md");
    let printed = run(&env, page, &[], "");
    assert!(printed.contains("press-2.pem: OK"), "{printed}");
    assert!(printed.contains("Serial Number"), "{printed}");
}

/// The factory is a daemon of its own beside the gateway, and its key is in another token.
#[test]
fn a_gateway_with_a_tpm() {
    let env = TestEnv::new();
    let page = include_str!("../../docs/guide/gateway.md");
    let printed = run(&env, page, &[], "");
    assert!(printed.contains("press-1.pem: OK"), "{printed}");
}

/// No YubiHSM is there, so the page runs nothing; its table must be one that the daemon takes.
#[test]
fn the_table_of_a_yubihsm_is_understood() {
    let env = TestEnv::new();
    let page = include_str!("../../docs/guide/yubihsm.md");
    let boxes = boxes(page);
    assert!(boxes.iter().all(|(language, _)| *language != "sh"));
    let (_, table) = boxes
        .iter()
        .find(|(language, _)| *language == "toml")
        .unwrap();
    let pin = env.path("pin").display().to_string();
    let table = table
        .replace("\"factory\"", "\"second\"")
        .replace("factory-pin", &pin);
    env.configure(&(env.configuration() + "\n" + &table));
    let checked = env.check();
    assert!(!checked.out.contains("is not understood"), "{checked:?}");
    assert!(checked.out.contains("yubihsm_pkcs11.so"), "{checked:?}");
}

/// The commands of a job, without those that install packages.
fn commands(job: &str) -> String {
    let mut commands = Vec::new();
    let mut is_script = false;
    for line in job.lines() {
        let text = line.trim();
        if text.ends_with("script:") || text == "run: |" {
            is_script = true;
        } else if text.starts_with("- name:") || text.ends_with(':') {
            is_script = false;
        } else if is_script && !text.starts_with("apt-get ") && !text.starts_with("- apt-get ") {
            commands.push(text.trim_start_matches("- "));
        }
    }
    commands.join("\n")
}

/// The files are those that the page shows, and each job runs. The packages that they install are
/// those of this build, whose `new-token` is in the source.
#[test]
fn a_device_in_a_pipeline() {
    let page = include_str!("../../docs/guide/ci.md");
    let script = include_str!("../../docs/ci/first-device");
    let jobs = [
        include_str!("../../docs/ci/github-actions.yml"),
        include_str!("../../docs/ci/gitlab-ci.yml"),
    ];
    for file in [script, jobs[0], jobs[1]] {
        assert!(page.contains(&format!("\n{file}```\n")), "{file}");
    }
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../softhsm-setup");
    let setup = format!("{}/new-token", setup.display());
    for job in jobs {
        let env = TestEnv::new();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let own = script
            .replace("127.0.0.1:8443", &free.unwrap().to_string())
            .replace("/usr/share/hallmark/new-token", &setup);
        let folder = env.path("guide");
        fs::create_dir_all(folder.join("ci")).unwrap();
        let file = folder.join("ci/first-device");
        fs::write(&file, own).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let commands = commands(job);
        assert_eq!(commands, "ci/first-device");
        let printed = execute(&folder, &["sh", "-ec", &commands]);
        assert!(printed.contains("\"status\": \"assigned\""), "{printed}");
    }
}

/// The quick start has a test of its own (`tests/run`); here its daemon and emulator are those of
/// the environment, in its folder.
#[test]
fn a_device_after_the_quick_start() {
    let env = TestEnv::running();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let latest = env.path("guide/target/quickstart/latest");
    fs::create_dir_all(&latest).unwrap();
    fs::write(
        latest.join("emulator.json"),
        env.emulator.ready_line().to_string(),
    )
    .unwrap();
    symlink(env.path(env.admin), latest.join("admin.sock")).unwrap();
    let page = include_str!("../../docs/guide/first-device.md");
    let printed = run(&env, page, &[], "");
    assert!(printed.contains("\"status\": \"assigned\""), "{printed}");
}

/// Verifies: each page of the guide has a test here and a line in the index.
#[test]
fn every_page_has_a_test_and_a_line_in_the_index() {
    let (tests, index) = (
        include_str!("guide.rs"),
        include_str!("../../docs/README.md"),
    );
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide");
    for page in fs::read_dir(pages).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        assert!(index.contains(&format!("guide/{name}")), "{name}");
        let runs = tests.contains(&format!("docs/guide/{name}"));
        assert!(runs || name == "concepts.md", "{name}");
    }
}
