//! Tests `hallmark setup` below a folder: the files that it writes, how it is stopped and resumed,
//! what it asks and refuses. A real systemd judges its work on a machine of its own
//! (`tests/systemd/run`).

use crate::process::CommandOutput;
use crate::terminal::Terminal;
use crate::test_env::{HALLMARK, TestEnv};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const ANSWERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/setup-answers.toml");
/// The files that these answers give.
const TREE: &str = include_str!("setup-tree.txt");

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// `hallmark setup` without a terminal.
fn setup(root: &Path, answers: Option<&Path>) -> CommandOutput {
    let mut command = Command::new(HALLMARK);
    command.arg("setup").arg("--root").arg(root);
    if let Some(answers) = answers {
        command.arg("--answers").arg(answers);
    }
    CommandOutput::of(command.stdin(Stdio::null()))
}

fn done(output: &CommandOutput) {
    assert_eq!(output.code, Some(0), "{output:?}");
}

fn refused(output: &CommandOutput, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    for word in words {
        assert!(
            output.error.contains(word),
            "not a word of {word:?}: {output:?}"
        );
    }
}

/// All files below `root`, with modes and texts, except the answers, which are a copy.
fn tree(root: &Path) -> String {
    let (mut text, mut paths) = (String::new(), Vec::new());
    below(root, &mut paths);
    paths.sort();
    for path in paths {
        let name = Path::new("/").join(path.strip_prefix(root).unwrap());
        if name.ends_with("etc/hallmark/setup.toml") {
            continue;
        }
        match fs::read_link(&path) {
            Ok(target) => writeln!(text, "=== {} -> {}", name.display(), target.display()),
            Err(_) => {
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                let content = fs::read_to_string(&path).unwrap();
                writeln!(text, "=== {} {mode:03o}\n{content}", name.display())
            }
        }
        .unwrap();
    }
    text
}

fn below(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => below(&entry.path(), paths),
            false => paths.push(entry.path()),
        }
    }
}

/// The answers that ship give exactly these files; a second run changes nothing.
#[test]
fn answers_become_the_tree_that_is_on_record() {
    let root = folder();
    done(&setup(root.path(), Some(Path::new(ANSWERS))));
    let made = tree(root.path());
    if made != TREE {
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("setup-tree.txt");
        fs::write(&beside, &made).unwrap();
        panic!(
            "another tree: compare tests/system/setup-tree.txt with {}",
            beside.display()
        );
    }
    // The answers are remembered.
    let output = setup(root.path(), None);
    done(&output);
    assert!(!output.out.contains("written"), "{output:?}");
    assert_eq!(tree(root.path()), TREE);
}

/// Setup is stopped at each file in turn, by something in its way, and resumed.
#[test]
fn it_is_stopped_at_each_file_and_taken_up_again() {
    let root = folder();
    let names = TREE.lines().filter_map(|line| line.strip_prefix("=== /"));
    for name in names.map(|it| it.split(' ').next().unwrap()) {
        let obstacle = root.path().join(format!("{name}.new"));
        fs::create_dir_all(&obstacle).unwrap();
        let whole = root.path().join(name);
        let _ = fs::remove_file(&whole);
        refused(
            &setup(root.path(), Some(Path::new(ANSWERS))),
            1,
            &["cannot", ".new"],
        );
        assert!(fs::symlink_metadata(&whole).is_err(), "{name} is there");
        fs::remove_dir(&obstacle).unwrap();
    }
    done(&setup(root.path(), None));
    assert_eq!(tree(root.path()), TREE);
}

#[test]
fn bad_answers_are_refused_with_the_line_and_nothing_is_written() {
    let root = folder();
    let good = fs::read_to_string(ANSWERS).unwrap();
    for (said, instead, words) in [
        (
            "kind = \"softhsm\"",
            "kind = \"soft-hsm\"",
            &["line 15", "soft-hsm"][..],
        ),
        ("country = ", "county = ", &["line 7", "county"]),
        (
            "https = \"0.0.0.0:8443\"",
            "https = \"0.0.0.0\"",
            &["line 25"],
        ),
        (
            "line = \"line-1\"",
            "line = \"root\"",
            &["two [[authority]]", "root"],
        ),
        (
            "enrollment = \"group\"",
            "enrollment = \"none\"",
            &["[provisioning]"],
        ),
    ] {
        let file = root.path().join("answers.toml");
        let text = good.replacen(said, instead, 1);
        assert_ne!(text, good, "{said}");
        fs::write(&file, text).unwrap();
        refused(&setup(root.path(), Some(&file)), 1, words);
        assert!(!root.path().join("etc/hallmark/hallmark.toml").exists());
    }
}

#[test]
fn a_file_of_another_writer_stays() {
    let root = folder();
    done(&setup(root.path(), Some(Path::new(ANSWERS))));
    let configuration = root.path().join("etc/hallmark/hallmark.toml");
    let theirs = format!("{}# mine\n", fs::read_to_string(&configuration).unwrap());
    fs::write(&configuration, &theirs).unwrap();
    // The answers give the same file again, so nothing is lost by leaving it.
    for answers in [Some(Path::new(ANSWERS)), None] {
        let output = setup(root.path(), answers);
        done(&output);
        assert!(
            output.out.contains("hallmark.toml was changed"),
            "{output:?}"
        );
        assert_eq!(fs::read_to_string(&configuration).unwrap(), theirs);
    }
    let other = fs::read_to_string(ANSWERS).unwrap();
    let other = other.replacen("line = \"line-1\"", "line = \"line-2\"", 1);
    let answers = root.path().join("answers.toml");
    fs::write(&answers, other).unwrap();
    let output = setup(root.path(), Some(&answers));
    refused(&output, 1, &["hallmark.toml", "move it away", "setup.toml"]);
    assert_eq!(fs::read_to_string(&configuration).unwrap(), theirs);
    fs::write(&configuration, "# not setup's\n").unwrap();
    let output = setup(root.path(), Some(&answers));
    refused(
        &output,
        1,
        &["hallmark.toml", "not written by setup", "move it away"],
    );
}

/// An answer that no certificate can have is refused where it is given: in the file, with its name
/// and the key; corrected there, setup runs.
#[test]
fn a_wrong_answer_is_named_with_its_file_and_corrected_there() {
    let root = folder();
    let good = fs::read_to_string(ANSWERS).unwrap();
    let kept = root.path().join("etc/hallmark/setup.toml");
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    for (said, instead, words) in [
        (
            "country = \"DE\"",
            "country = \"Germany\"",
            &["`country`", "two capital letters"][..],
        ),
        (
            "country = \"DE\"",
            "country = \"de\"",
            &["`country`", "two capital letters"],
        ),
        ("\"Example Works\"", "\"\"", &["`organization`", "1 to"]),
        (
            "http://hallmark",
            "https://hallmark",
            &["`public_http`", "plain HTTP"],
        ),
    ] {
        let text = good.replacen(said, instead, 1);
        assert_ne!(text, good, "{said}");
        fs::write(&kept, &text).unwrap();
        refused(
            &setup(root.path(), None),
            2,
            &[&["setup.toml"], words].concat(),
        );
        let file = root.path().join("answers.toml");
        fs::write(&file, text).unwrap();
        refused(
            &setup(root.path(), Some(&file)),
            1,
            &[&["answers.toml"], words].concat(),
        );
    }
    fs::write(&kept, &good).unwrap();
    done(&setup(root.path(), None));
    assert!(root.path().join("etc/hallmark/hallmark.toml").exists());
}

#[test]
fn without_a_terminal_it_says_what_is_missing() {
    let root = folder();
    refused(&setup(root.path(), None), 2, &["--answers", "no terminal"]);
}

/// With the configuration that it has written the daemon starts, and runs the ceremony that it has
/// written.
#[test]
fn the_daemon_serves_what_was_written() {
    let mut env = TestEnv::new();
    let (root, emulator, arm) = (folder(), &env.emulator, env.emulator.arm());
    let answers = format!(
        "shape = \"factory-line\"\norganization = \"Example Works\"\nenrollment = \"group\"\n\
         token = {{ kind = \"softhsm\", name = \"factory\" }}\n\
         [listen]\nnames = [\"localhost\", \"127.0.0.1\"]\nhttps = \"127.0.0.1:0\"\n\
         http = \"127.0.0.1:0\"\npublic_http = \"http://pki.hallmark.example\"\n\
         [provisioning]\nendpoint = \"{}\"\ndevice_endpoint = \"{}\"\narm_endpoint = \"{}\"\n\
         hub_endpoint = \"{}\"\naddress = \"{}\"\nid_scope = \"{}\"\nca_bundle = {:?}\n\
         verify = \"arm\"\nsubscription = \"{}\"\nresource_group = \"{}\"\nservice_name = \"{}\"\n",
        emulator.service_host(),
        emulator.device_host(),
        emulator.arm_host(),
        emulator.hub_host(),
        emulator.addr(),
        emulator.id_scope(),
        emulator.ca_file(),
        arm.subscription,
        arm.resource_group,
        arm.name,
    );
    let output = setup(root.path(), Some(&env.write("answers.toml", &answers)));
    done(&output);
    let written = |name| fs::read_to_string(root.path().join("etc/hallmark").join(name)).unwrap();
    // The environment takes the place of systemd: its folders, and its credentials.
    let own = [
        ("/etc/hallmark/softhsm2-factory.conf", "softhsm2.conf"),
        ("/var/lib/hallmark-token", "state"),
        ("/var/lib/hallmark", "state"),
        ("/run/hallmark", "state"),
        ("factory-pin", "pin"),
        ("dps-connection-string", "connection-string"),
        ("arm-token", "arm-token"),
        ("hub-connection-string", "hub-connection-string"),
    ];
    let configuration = own
        .into_iter()
        .fold(written("hallmark.toml"), |text, (theirs, ours)| {
            let quoted = |it: &dyn std::fmt::Display| format!("\"{it}\"");
            text.replace(&quoted(&theirs), &quoted(&env.path(ours).display()))
        });
    env.configure(&configuration);
    env.write("ceremony.toml", &written("ceremony.toml"));
    env.start();
    env.run_ceremony();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    env.enlist("station", "station-1");
}

/// Setup at a terminal.
fn at_a_terminal(root: &Path) -> Terminal {
    Terminal::open(&format!("{HALLMARK} setup --root {}", root.display()))
}

/// Questions are answered by hand, with Ctrl-C in the middle; resumed, it asks no question twice.
#[test]
fn an_operator_answers_at_a_terminal() {
    let root = folder();
    let mut terminal = at_a_terminal(root.path());
    terminal.answer("Which kind of site is this machine for?", "\r");
    terminal.answer("Name of the works", "Example Works\r");
    terminal.answer("Country", "Germany\r");
    let erased = "\x7f".repeat("Germany".len());
    terminal.answer("two capital letters", &format!("{erased}DE\r"));
    terminal.answer("Name of the line", "\x03");
    assert_ne!(terminal.code(), Some(0));
    assert!(!root.path().join("etc/hallmark/hallmark.toml").exists());

    let mut terminal = at_a_terminal(root.path());
    terminal.answer("Name of the line", "line-7\r");
    terminal.choose("Which token holds the keys?", "SoftHSM token");
    terminal.answer("What is the token called here", "\r");
    terminal.answer("What clients call this machine", "hallmark.example\r");
    terminal.answer("HTTPS listens on", "8443\r");
    terminal.answer("an address and a port", "\x7f\x7f\x7f\x7f[::]:8443\r");
    terminal.answer("plain HTTP on", "\r");
    terminal.answer("Others reach that by", "\r");
    terminal.answer("How are devices enrolled", "\x1b[B\x1b[B\r");
    terminal.answer("first station", "\r");
    terminal.answer("its request", "\r");
    assert_eq!(terminal.code(), Some(0));

    let written =
        |name: &str| fs::read_to_string(root.path().join("etc/hallmark").join(name)).unwrap();
    let configuration = written("hallmark.toml");
    for said in ["line-7", "[::]:8443", "http://hallmark.example:8080"] {
        assert!(configuration.contains(said), "no {said}: {configuration}");
    }
    assert!(written("ceremony.toml").contains("Example Works line-7"));
    // All questions are answered: it needs no terminal.
    done(&setup(root.path(), None));
}
