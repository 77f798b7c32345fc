//! Tests what `hallmark` prints on a terminal of some width, without colours, and in a pipe.

use crate::hubs::a_device_in_each;
use crate::process::{CommandOutput, until};
use crate::provisioned::below_line_1;
use crate::request::Request;
use crate::terminal::Terminal;
use crate::test_env::{HALLMARK, TestEnv};
use dps_emulator::{Action, Fault};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Returns the lines that a command prints on a terminal with so many columns; `before` is put
/// before the command, to set variables.
fn on_screen(env: &TestEnv, columns: u16, before: &str, command: &str) -> Vec<String> {
    let socket = env.path("state/admin.sock").display().to_string();
    let terminal = Terminal::open(&format!(
        "stty cols {columns} rows 40; HALLMARK_ADMIN_SOCKET={socket} {before} {HALLMARK} \
         {command}; echo all-is-shown"
    ));
    terminal.shows("all-is-shown");
    let screen = terminal.screen();
    let lines = screen
        .lines()
        .map(|it| it.trim_end_matches('\r').to_owned());
    lines.take_while(|it| it != "all-is-shown").collect()
}

/// The text of a line without its colours.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        text += before;
        rest = after.split_once('m').unwrap().1;
    }
    text + rest
}

/// The line of a table that begins with this word.
fn row(lines: &[String], first: &str) -> String {
    let line = lines.iter().find(|it| plain(it).starts_with(first));
    line.unwrap_or_else(|| panic!("no {first}: {lines:#?}"))
        .clone()
}

/// Verifies: the list of devices fits a terminal of 80 columns, with the state, the days left, the
/// group or the slots, and the block of each device in colours; colours follow `NO_COLOR` and
/// `CLICOLOR`; `-o wide` and a pipe have the serial number and the time whole.
#[test]
fn a_list_fits_the_terminal_and_is_whole_in_a_pipe() {
    let (env, devices) = below_line_1(&["press-1", "press-2-with-a-name-that-is-quite-long"]);
    env.run(&["enrollment", "add", "--individual", "pump-7"]);
    env.enlist("device", "pump-7");
    env.wait_in_sync();
    env.run(&["device", "block", &devices[1].id, "--reason", "stolen"]);
    env.wait_in_sync();

    let lines = on_screen(&env, 80, "", "device list");
    for line in &lines {
        assert!(plain(line).chars().count() <= 80, "{lines:#?}");
    }
    let press = row(&lines, "press-1");
    assert!(press.contains("\u{1b}[32mvalid\u{1b}[0m"), "{press:?}");
    assert!(plain(&press).contains("group line-1"), "{press:?}");
    let blocked = row(&lines, "press-2-with");
    assert!(blocked.contains("\u{1b}[31mdevice\u{1b}[0m"), "{blocked:?}");
    assert!(plain(&blocked).contains("on_hold"), "{blocked:?}");
    let own = plain(&row(&lines, "pump-7"));
    assert!(own.contains("individual, serving"), "{own}");

    for quiet in ["NO_COLOR=1", "CLICOLOR=0", "NO_COLOR=1 CLICOLOR_FORCE=1"] {
        let lines = on_screen(&env, 80, quiet, "device list");
        assert!(!lines.concat().contains('\u{1b}'), "{quiet}: {lines:#?}");
    }
    let wide = on_screen(&env, 80, "", "device list -o wide");
    let pipe = env.run(&["device", "list"]);
    assert!(!pipe.contains('\u{1b}'), "{pipe}");
    let pipe: Vec<_> = pipe.lines().map(str::to_owned).collect();
    for lines in [wide, pipe] {
        let line = plain(&row(&lines, &devices[1].id));
        assert!(line.contains(&devices[1].serial), "{line}");
        assert!(line.contains("T") && line.ends_with('Z'), "{line}");
    }
    let json = env.json(&["device", "list"]);
    let short = env.json(&["-o", "json", "device", "list"]);
    assert_eq!(json, short);
    assert_eq!(json[1]["blocked"]["reason"], "stolen", "{json:#}");
    assert_eq!(json[0]["access"][0]["name"], "line-1", "{json:#}");
}

/// Verifies: `device show` names the group that admits the device, what accepts its leaf, and, once
/// its authority is blocked, that block.
#[test]
fn a_device_is_shown_with_its_group_and_its_block() {
    let (env, devices) = below_line_1(&["press-1"]);
    let show = ["device", "show", "press-1"];
    let shown = env.run(&show);
    assert!(shown.starts_with("press-1  valid, "), "{shown}");
    assert!(shown.contains("admitted by  group line-1\n"), "{shown}");
    assert!(
        shown.contains("group enrollment line-1 admits by it"),
        "{shown}"
    );
    assert!(shown.contains("blocked      no\n"), "{shown}");
    assert!(shown.contains(&devices[0].serial), "{shown}");

    let block = ["authority", "block", "line-1", "--generation", "1"];
    env.run(&[&block[..], &["--reason", "stolen station"]].concat());
    env.wait_in_sync();
    let shown = env.run(&show);
    assert!(shown.starts_with("press-1  issuer_revoked, "), "{shown}");
    assert!(shown.contains(", with line-1-1: stolen station"), "{shown}");
    assert!(shown.contains("group line-1, disabled"), "{shown}");
    assert!(!shown.contains("admits by it"), "{shown}");
}

/// Verifies: the journal fits a terminal of 80 columns with relative times; one of 120 has the
/// times as RFC 3339; a page that is full says how to go on, on a terminal alone.
#[test]
fn the_journal_fits_the_terminal() {
    let (env, _) = below_line_1(&["press-1"]);
    let narrow = on_screen(&env, 80, "", "audit show --limit 3");
    let broad = on_screen(&env, 120, "", "audit show --limit 3");
    for (lines, columns) in [(&narrow, 80), (&broad, 120)] {
        assert_eq!(lines.len(), 5, "{lines:#?}");
        let widths = lines.iter().map(|it| plain(it).chars().count());
        assert!(widths.max().unwrap() <= columns, "{lines:#?}");
        assert!(plain(&lines[0]).contains("DETAIL"), "{lines:#?}");
        assert!(lines[4].contains("--before"), "{lines:#?}");
    }
    assert!(narrow[1].contains(" ago"), "{narrow:#?}");
    assert!(
        broad[1].contains('T') && broad[1].contains("Z  "),
        "{broad:#?}"
    );
    let pipe = env.run(&["audit", "show", "--limit", "3"]);
    assert_eq!(pipe.lines().count(), 4, "{pipe}");
}

/// Verifies: in a pipe `status --watch` prints its five lines once while no answer changes. On a
/// terminal it writes them over the last ones, shortened to the width; a daemon that is stopped is
/// shown, and so is its return.
#[test]
fn watch_is_quiet_in_a_pipe_and_survives_a_restart_of_the_daemon() {
    let (mut env, _) = below_line_1(&["press-1"]);
    until("all is well", || {
        (env.hallmark(&["status"]).code == Some(0)).then_some(())
    });
    let socket = env.path("state/admin.sock").display().to_string();
    let mut piped = Command::new("timeout");
    piped.args([
        "5",
        HALLMARK,
        "--admin-socket",
        &socket,
        "status",
        "--watch",
    ]);
    let piped = CommandOutput::of(&mut piped);
    assert_eq!(piped.out.lines().count(), 5, "{piped:?}");
    let watch = Terminal::open(&format!(
        "stty cols 50 rows 20; HALLMARK_ADMIN_SOCKET={socket} {HALLMARK} status --watch"
    ));
    watch.shows("operator  good");
    assert!(
        watch.screen().contains("\u{1b}[2J\u{1b}[H"),
        "{}",
        watch.screen()
    );
    assert!(watch.screen().contains("…"), "{}", watch.screen());
    env.stop();
    watch.shows("daemon does not answer: ");
    let before = watch.screen().len();
    env.start();
    until("the answers return", || {
        let screen = watch.screen();
        screen[before..].contains("issuing   good").then_some(())
    });
}

/// Verifies: `status --watch --json` goes on while the daemon is away, with state and reason; and a
/// command whose reader has ended says nothing, and has the exit code of SIGPIPE.
#[test]
fn watch_as_json_shows_a_daemon_that_is_away() {
    let mut env = TestEnv::running();
    let mut command = Command::new(HALLMARK);
    command.args(["--json", "status", "--watch"]);
    command.env("HALLMARK_ADMIN_SOCKET", env.path("state/admin.sock"));
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert!(next()["overview"].is_array());
    env.stop();
    let away = until("the daemon is away", || {
        Some(next()).filter(|it| it["state"] == "daemon does not answer")
    });
    assert_eq!(away["code"], "daemon_unreachable", "{away}");
    env.start();
    until("the answers return", || {
        next()["overview"].is_array().then_some(())
    });
    watch.kill().unwrap();
    watch.wait().unwrap();

    let socket = env.path("state/admin.sock").display().to_string();
    let script = format!(
        "set -o pipefail; {HALLMARK} --admin-socket {socket} status --watch --json | head -n 1"
    );
    let output = CommandOutput::of(Command::new("bash").args(["-c", &script]));
    assert_eq!(
        (output.code, output.error.as_str()),
        (Some(141), ""),
        "{output:?}"
    );
}

/// A device of a hub that is not configured is blocked. Verifies: the receipt's open place, which
/// the daemon cannot observe, is named by `status` and does not change the severity; the verbose
/// status has the place.
#[test]
fn an_open_place_is_named_by_the_status() {
    let (env, _, in_two) = a_device_in_each(false);
    env.run(&["device", "block", &in_two.id, "--reason", "stolen"]);
    let show = format!("hallmark block show device {}", in_two.id);
    let status = until("the block is in place", || {
        let output = env.hallmark(&["status"]);
        (output.code == Some(0) && output.out.contains(&show)).then_some(output)
    });
    let safe = status.out.lines().nth(1).unwrap();
    assert!(safe.starts_with("safe      good"), "{status:?}");
    assert!(safe.contains("has 1 open place; "), "{status:?}");
    let whole = env.json(&["status"]);
    let open = &whole["open_receipts"][0];
    assert_eq!(open["command"], show, "{whole:#}");
    assert_eq!(open["places"][0]["state"], "open", "{whole:#}");
    env.run(&["device", "unblock", &in_two.id]);
    assert_eq!(
        env.json(&["status"])["open_receipts"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

/// Verifies: `push list --follow` ends when the service has followed, and fails when a change is
/// parked; `roll show --follow` ends with the rollover, and in a pipe prints its state on standard
/// error alone until then; a batch shows a bar on a terminal.
#[test]
fn long_work_shows_how_far_it_is() {
    let env = TestEnv::running();
    env.add_group("line-1", "line-1");
    env.run(&["push", "list", "--follow"]);
    assert_eq!(env.json(&["push", "list"]), serde_json::json!([]));
    env.emulator
        .inject(Fault::on("group.put", Action::status(400)))
        .unwrap();
    let add = [
        "enrollment",
        "add",
        "--group",
        "plant",
        "--authority",
        "plant",
    ];
    env.run(&add);
    let parked = env.hallmark(&["push", "list", "--follow"]);
    assert_eq!(parked.code, Some(1), "{parked:?}");
    assert!(parked.error.contains("hallmark push retry"), "{parked:?}");
    env.run(&["push", "retry", "plant"]);

    fs::create_dir(env.path("requests")).unwrap();
    for number in 0..40 {
        let request = Request::device(&format!("press-{number}"));
        env.write(&format!("requests/{}.csr", request.id), &request.csr);
    }
    let requests = env.path("requests").display().to_string();
    let out = env.path("out").display().to_string();
    let batch = format!("issue-batch --profile device --out {out} --batch-size 4 {requests}");
    let lines = on_screen(&env, 80, "", &batch);
    let screen = lines.join("\n");
    assert!(screen.contains(" of 40 "), "{screen}");
    assert!(screen.contains("/s, "), "{screen}");
    assert!(
        screen.contains("40 of 40 certificates issued, in "),
        "{screen}"
    );

    env.run(&["enrollment", "add", "--individual", "press-1"]);
    env.wait_in_sync();
    let started = env.json(&["roll", "start", "press-1", "--reason", "compromise"]);
    let roll = started["rolls"][0]["id"].to_string();
    let client = env.client();
    std::thread::scope(|scope| {
        let follow = scope.spawn(|| client.hallmark(&["roll", "show", &roll, "--follow"]));
        std::thread::sleep(std::time::Duration::from_secs(7));
        assert!(!follow.is_finished());
        env.enlist("device", "press-1");
        let output = follow.join().unwrap();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.out.contains("state: done"), "{output:?}");
        assert!(!output.out.contains("roll: "), "{output:?}");
        assert!(output.error.contains("roll: reissuing"), "{output:?}");
    });
}

/// Runs a command on a terminal, which must show how many bytes of how many the step has done.
fn shows_bytes(env: &TestEnv, command: &str, step: &str) -> String {
    let screen = on_screen(env, 120, "", command).join("\n");
    let numbers = format!("{step}  ");
    assert!(screen.contains(&numbers), "{numbers}: {screen}");
    assert!(screen.contains("iB of "), "{screen}");
    screen
}

/// Verifies: a ceremony says which of how many authorities it is at; making, reading and restoring
/// a backup shows bytes of all bytes on a terminal, and nothing beside the answer in a pipe.
#[test]
fn backups_and_ceremonies_show_their_numbers() {
    let mut env = TestEnv::running();
    let ceremony = env.path("ceremony.toml");
    let count = fs::read_to_string(&ceremony).unwrap();
    let count = count.matches("[[authority]]").count();
    let again = env.hallmark(&["ceremony", "run", ceremony.to_str().unwrap()]);
    assert_eq!(again.code, Some(0), "{again:?}");
    for number in 1..=count {
        let step = format!("{number} of {count}  authority ");
        assert!(again.error.contains(&step), "{step}: {again:?}");
    }

    let made = env.hallmark(&["--json", "backup", "create"]);
    assert_eq!((made.code, made.error.as_str()), (Some(0), ""), "{made:?}");
    let made: Value = serde_json::from_str(&made.out).unwrap();
    let file = made["file"].as_str().unwrap();
    let verified = env.hallmark(&["backup", "verify", file]);
    assert_eq!(verified.error, "", "{verified:?}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    shows_bytes(&env, "backup create", "reading the copy");
    shows_bytes(&env, &format!("backup verify {file}"), "reading the backup");
    env.stop();
    let configuration = env.path("hallmark.toml").display().to_string();
    let restore = format!("backup restore {file} --config {configuration} --yes");
    let restored = shows_bytes(&env, &restore, "copying the backup");
    assert!(
        restored.contains("is restored; start the daemon."),
        "{restored}"
    );
    env.start();
    env.wait_ready();
}
