//! Lists the slots of a PKCS#11 module without login, in a process `hallmark-token`.
//!
//! Each question runs in a process of its own, so a module that crashes or hangs costs one line of
//! the answer. No PIN is read, and nothing is changed.

use crate::fragment::Fragment;
use crate::notify::SERVICE_VARIABLES;
use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two checks of the process.
const PERIOD: Duration = Duration::from_millis(20);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A module to be listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The module's family, or "unknown".
    pub family: String,
    pub module: PathBuf,
    /// The name of the module's fragment, if it has one.
    pub fragment: Option<String>,
    /// Environment variables that the module needs.
    pub environment: BTreeMap<String, String>,
    /// Environment variables that the module needs and that no token sets: it is not asked.
    pub lacking: Vec<String>,
}

/// The answer of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleListing {
    /// The description and version of the library.
    pub library: String,
    pub slots: Vec<SlotListing>,
}

/// One slot of a module, and the token in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotListing {
    /// The slot number, which is valid until the next start.
    pub slot: u64,
    /// The token, if there is one.
    pub token: Option<TokenListing>,
    /// The reason why the token is unknown.
    pub problem: Option<String>,
}

/// The public information of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenListing {
    pub label: String,
    pub serial: String,
    pub manufacturer: String,
    pub model: String,
    /// Whether the token was initialized.
    pub initialized: bool,
    /// Remarks about login and PIN.
    pub remarks: Vec<String>,
}

impl Probe {
    /// Returns the probe of the family `name`, if its module is installed.
    pub fn of_family(name: &str) -> Option<Self> {
        let family = Fragment::shipped(name).ok()?;
        Some(Self {
            module: family.module()?.to_owned(),
            family: family.family,
            fragment: Some(name.to_owned()),
            environment: BTreeMap::new(),
            lacking: family.environment,
        })
    }

    /// Returns the name of the module's fragment, if it has one.
    pub fn fragment(&self) -> Option<&str> {
        self.fragment.as_deref()
    }

    /// Asks the module, where this program is `hallmarkd`.
    pub fn ask(&self) -> anyhow::Result<ModuleListing> {
        self.ask_by(&std::env::current_exe()?)
    }

    /// Asks the module through the `hallmarkd` at this path, which becomes the `hallmark-token`
    /// beside it.
    pub fn ask_by(&self, hallmarkd: &Path) -> anyhow::Result<ModuleListing> {
        if !self.lacking.is_empty() {
            let names = self.lacking.join(", ");
            return Err(anyhow!(
                "not asked: it needs a [[token]] with {names} in its environment"
            ));
        }
        let mut command = Command::new(hallmarkd);
        command.arg("probe-module");
        match &self.fragment {
            Some(name) => command.arg("--fragment").arg(name),
            None => command.arg("--module").arg(&self.module),
        };
        for variable in SERVICE_VARIABLES {
            command.env_remove(variable);
        }
        let answer = answer_of(command.envs(&self.environment))?;
        let answer: Answer = serde_json::from_slice(&answer).context("its answer is not JSON")?;
        answer.map_err(|problem| anyhow!(problem))
    }
}

/// The output of the process: the module, or the reason why it cannot be used.
pub type Answer = Result<ModuleListing, String>;

/// Runs `command` within the deadline, and returns its standard output. Standard error is ignored,
/// because libraries write to it.
fn answer_of(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = command.spawn().context("cannot start a process for it")?;
    let reader = process.stdout.take().map(read_apart);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        if begun.elapsed() > DEADLINE {
            process.kill()?;
            process.wait()?;
            return Err(anyhow!("it did not answer within {} s", DEADLINE.as_secs()));
        }
        thread::sleep(PERIOD);
    };
    if !status.success() {
        return Err(anyhow!("it ended its process: {status}"));
    }
    let answer = reader.and_then(|reader| reader.join().ok());
    answer.context("its answer cannot be read")
}

/// Reads to the end in a thread, so that the process never waits for a full pipe.
fn read_apart(source: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_fails_or_crashes_is_an_answer() {
        let of = |script: &str| answer_of(Command::new("sh").args(["-c", script]));
        let error = of("echo noise >&2; exit 7")
            .expect_err("it fails")
            .to_string();
        assert!(error.contains('7') && !error.contains("noise"), "{error}");
        let error = of("kill -SEGV $$").expect_err("it crashes").to_string();
        assert!(error.contains("signal"), "{error}");
        assert_eq!(of("echo good").expect("it answers"), b"good\n");
    }
}
