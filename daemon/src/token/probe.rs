//! What a PKCS#11 module shows without login: `hallmarkd probe-module`, and who asks it.
//!
//! A module is loaded in a process of its own that lives for one question, so one that crashes or
//! hangs costs a line of the answer. No PIN is read, and nothing is changed.

use super::configuration::TokenSettings;
use super::fragment::{self, Fragment};
use super::pkcs11::module::Module;
use super::supervisor::SERVICE_VARIABLES;
use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a module may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the process is looked at.
const PERIOD: Duration = Duration::from_millis(20);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How often a module is initialised: SoftHSM fails while another process initialises it, too.
const TRIES: u32 = 5;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(100);

/// A module that can be asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Its family, or "unknown".
    pub family: String,
    /// The module's file.
    pub module: PathBuf,
    /// The name of its fragment, if it has one.
    fragment: Option<String>,
    /// What it gets in its environment.
    environment: BTreeMap<String, String>,
    /// What it needs there, and nobody has said: it is not asked.
    lacking: Vec<String>,
}

/// What a module shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInSight {
    /// What it says of itself.
    pub library: String,
    /// Its slots.
    pub slots: Vec<SlotInSight>,
}

/// One slot of a module, and the token in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotInSight {
    /// Its number, good until the next start and no longer.
    pub slot: u64,
    /// The token, if one is there.
    pub token: Option<TokenInSight>,
    /// Why nothing is known of it.
    pub problem: Option<String>,
}

/// What a token says of itself without login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInSight {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Its manufacturer.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Whether it was initialised.
    pub initialized: bool,
    /// What it says of login and PIN, in words.
    pub remarks: Vec<String>,
}

/// The modules of the configured tokens, and those of other families that are installed.
pub fn probes<'a>(tokens: impl Iterator<Item = &'a TokenSettings>) -> Vec<Probe> {
    let mut probes: BTreeSet<Probe> = tokens.filter_map(Probe::of_token).collect();
    let known: BTreeSet<PathBuf> = probes.iter().map(|it| it.module.clone()).collect();
    let installed = fragment::names().into_iter().filter_map(Probe::of_family);
    probes.extend(installed.filter(|probe| !known.contains(&probe.module)));
    probes.into_iter().collect()
}

impl Probe {
    fn of_token(token: &TokenSettings) -> Option<Self> {
        let family = token.interface.family()?;
        let is_shipped = |name: &&str| Fragment::shipped(name).is_ok_and(|it| it == *family);
        Some(Self {
            family: family.family.clone(),
            module: family.module()?.to_owned(),
            fragment: fragment::names()
                .into_iter()
                .find(is_shipped)
                .map(str::to_owned),
            environment: token.environment.clone(),
            lacking: Vec::new(),
        })
    }

    fn of_family(name: &str) -> Option<Self> {
        let family = Fragment::shipped(name).ok()?;
        Some(Self {
            module: family.module()?.to_owned(),
            family: family.family,
            fragment: Some(name.to_owned()),
            environment: BTreeMap::new(),
            lacking: family.environment,
        })
    }

    /// The name of its fragment, if it has one.
    pub fn fragment(&self) -> Option<&str> {
        self.fragment.as_deref()
    }

    /// Asks, in a process of its own.
    pub fn ask(&self) -> anyhow::Result<ModuleInSight> {
        self.ask_by(&std::env::current_exe()?)
    }

    /// The same where this program is not `hallmarkd`, which lies there.
    pub fn ask_by(&self, hallmarkd: &Path) -> anyhow::Result<ModuleInSight> {
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
        let answer: Answer = serde_json::from_slice(&answer).context("it wrote something else")?;
        answer.map_err(|problem| anyhow!(problem))
    }
}

/// What the process writes: the module, or why it cannot be used.
type Answer = Result<ModuleInSight, String>;

/// Runs `command`, within the deadline; its standard output. What libraries write to standard error
/// is not looked at.
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

/// Reads to the end in a thread, so that nobody waits for anybody.
fn read_apart(source: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        bytes
    })
}

/// The other side: loads the module of `family`, looks, and writes what it has seen. Its environment is
/// this process's.
pub fn answer(family: &Fragment, out: &mut impl Write) -> anyhow::Result<()> {
    let answer: Answer = look(family).map_err(|error| format!("{error:#}"));
    Ok(serde_json::to_writer(out, &answer)?)
}

fn look(family: &Fragment) -> anyhow::Result<ModuleInSight> {
    let path = family
        .module()
        .with_context(|| format!("none of {:?} exists", family.modules))?;
    let set = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
    let environment = family.environment.iter().filter_map(set).collect();
    let argument = family.initialize_argument(&environment)?;
    let said = |fault: super::pkcs11::fault::Fault| anyhow!(fault.reason);
    let mut module = Module::load(path, argument).map_err(said)?;
    initialize(&mut module).map_err(said)?;
    let in_sight = slots(&module);
    module.finalize();
    in_sight
}

fn initialize(module: &mut Module) -> Result<(), super::pkcs11::fault::Fault> {
    for _ in 1..TRIES {
        if module.initialize().is_ok() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    module.initialize()
}

fn slots(module: &Module) -> anyhow::Result<ModuleInSight> {
    let context = module.context();
    let with_token = context.get_slots_with_token()?;
    let library = context.get_library_info().map(|library| {
        let name = super::pkcs11::module::trimmed(library.library_description()).to_owned();
        format!("{name} {}", library.library_version())
    });
    let slot = |slot: cryptoki::slot::Slot| {
        let (token, problem) = match with_token.contains(&slot) {
            false => (None, None),
            true => match module.token_information(slot) {
                Ok(token) => (Some(TokenInSight::from(token)), None),
                Err(fault) => (None, Some(fault.reason)),
            },
        };
        SlotInSight {
            slot: slot.id(),
            token,
            problem,
        }
    };
    Ok(ModuleInSight {
        library: library.unwrap_or_default(),
        slots: context.get_all_slots()?.into_iter().map(slot).collect(),
    })
}

impl From<super::pkcs11::raw::TokenInformation> for TokenInSight {
    fn from(token: super::pkcs11::raw::TokenInformation) -> Self {
        Self {
            initialized: token.is_initialized(),
            remarks: token.remarks(),
            label: token.label,
            serial: token.serial,
            manufacturer: token.manufacturer,
            model: token.model,
        }
    }
}

/// The family that a command line names: by fragment, or by the path of its module.
pub fn family(fragment: Option<&str>, module: Option<&Path>) -> anyhow::Result<Fragment> {
    match (fragment, module) {
        (Some(name), None) => Ok(Fragment::shipped(name)?),
        (None, Some(path)) => Ok(Fragment::unknown_family(path)),
        _ => Err(anyhow!("give either --fragment or --module")),
    }
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
