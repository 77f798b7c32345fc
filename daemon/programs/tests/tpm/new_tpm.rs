//! `softhsm-setup/new-tpm`.

use crate::fixture::SOON;
use hallmarkd::token::token_file::TokenFile;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The processes that `new-tpm` has started in a folder; they end with the test.
struct LeftRunning(PathBuf);

impl LeftRunning {
    fn pid(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.0.join("pid")).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }
}

impl Drop for LeftRunning {
    fn drop(&mut self) {
        // It fails only if there is no such process.
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

#[test]
fn new_tpm_starts_a_tpm_and_prints_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = LeftRunning(folder.path().join("tpm"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../softhsm-setup/new-tpm");
    let run = || {
        let command = &mut Command::new(&script);
        let output = command.arg(&tpm.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let pid = || tpm.pid().unwrap();
    let (text, first) = (run(), pid());
    assert_eq!(
        (run(), pid()),
        (text.clone(), first),
        "it runs, and is found"
    );
    kill_process(first, Signal::TERM).unwrap();
    let begun = Instant::now();
    let stat = format!("/proc/{}/stat", first.as_raw_nonzero());
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(begun.elapsed() < SOON, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(run(), text, "started again in the same place");

    let file = folder.path().join("hallmark.toml");
    fs::write(&file, format!("state_dir = \"/nowhere\"\n{text}")).unwrap();
    let file = TokenFile::read(&file).unwrap();
    file.token("gate").unwrap().resolve(None).unwrap();
}
