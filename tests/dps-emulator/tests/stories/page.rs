//! Runs the page "Test your device against DPS in CI" as its reader would.

use std::env;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../../../../docs/test-against-dps.md");

/// The shell blocks of the page, in its order.
fn blocks() -> Vec<&'static str> {
    let blocks = PAGE.split("\n```sh\n").skip(1);
    blocks.map(|it| it.split("\n```").next().unwrap()).collect()
}

/// Runs a script as `sh` in `folder`; it must succeed.
fn run(folder: &Path, script: &str) -> String {
    let path = env::var("PATH").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_dps-emulator"));
    let programs = program.parent().unwrap();
    let output = Command::new("sh")
        .args(["-eux", "-c", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    String::from_utf8(output.stdout).unwrap()
}

/// A line of a script that ends a process whatever becomes of the lines after it.
const AT_THE_END: &str = "trap 'kill $! 2>/dev/null || true' EXIT\n";

#[test]
fn every_line_of_the_page_runs() {
    let blocks = blocks();
    assert_eq!(blocks.len(), 9, "{blocks:#?}");
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{AT_THE_END}{}", blocks.join("\n"));
    let out = run(folder.path(), &script);
    let trues = out.lines().filter(|it| *it == "true").count();
    assert_eq!(trues, 3, "{out}");
}
