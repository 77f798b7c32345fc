//! Lists the slots and tokens of PKCS#11 modules without login.
//!
//! Each module is loaded in a short-lived process of its own (`hallmarkd probe-module`), so a
//! module that crashes or hangs costs only its own line of the listing. No PIN is read, and nothing
//! is changed.

use super::configuration::TokenSettings;
use super::fragment::{self, Fragment};
use super::pkcs11::module::Module;
use anyhow::{Context, anyhow};
use hallmark_base::probe::Answer;
pub use hallmark_base::probe::{ModuleListing, Probe, SlotListing, TokenListing};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Most attempts to initialize a module: SoftHSM fails while another process initializes it, too.
const TRIES: u32 = 5;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns the modules of the configured tokens, and installed modules of other families.
pub fn probes<'a>(tokens: impl Iterator<Item = &'a TokenSettings>) -> Vec<Probe> {
    let mut probes: BTreeSet<Probe> = tokens.filter_map(of_token).collect();
    let known: BTreeSet<PathBuf> = probes.iter().map(|it| it.module.clone()).collect();
    let installed = fragment::names().into_iter().filter_map(Probe::of_family);
    probes.extend(installed.filter(|probe| !known.contains(&probe.module)));
    probes.into_iter().collect()
}

/// Returns the probe of a configured token's module, if it is a module and it is installed.
fn of_token(token: &TokenSettings) -> Option<Probe> {
    let family = token.interface.family()?;
    let is_shipped = |name: &&str| Fragment::shipped(name).is_ok_and(|it| it == *family);
    Some(Probe {
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

/// Loads the module of `family` with the environment of this process, and writes its listing.
pub fn answer(family: &Fragment, out: &mut impl Write) -> anyhow::Result<()> {
    let answer: Answer = listing(family).map_err(|error| format!("{error:#}"));
    Ok(serde_json::to_writer(out, &answer)?)
}

fn listing(family: &Fragment) -> anyhow::Result<ModuleListing> {
    let path = family
        .module()
        .with_context(|| format!("none of {:?} exists", family.modules))?;
    let set = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
    let environment = family.environment.iter().filter_map(set).collect();
    let argument = family.initialize_argument(&environment)?;
    let failed = |fault: super::pkcs11::fault::Fault| anyhow!(fault.reason);
    let mut module = Module::load(path, argument).map_err(failed)?;
    initialize(&mut module).map_err(failed)?;
    let listing = slots(&module);
    module.finalize();
    listing
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

fn slots(module: &Module) -> anyhow::Result<ModuleListing> {
    let context = module.context();
    let with_token = context.get_slots_with_token()?;
    let library = context.get_library_info().map(|library| {
        let name = super::pkcs11::module::trimmed(library.library_description()).to_owned();
        format!("{name} {}", library.library_version())
    });
    let slot = |slot: cryptoki::slot::Slot| {
        let mut listing = SlotListing {
            slot: slot.id(),
            token: None,
            problem: None,
        };
        if with_token.contains(&slot) {
            match module.token_information(slot) {
                Ok(token) => listing.token = Some(token.into()),
                Err(fault) => listing.problem = Some(fault.reason),
            }
        }
        listing
    };
    Ok(ModuleListing {
        library: library.unwrap_or_default(),
        slots: context.get_all_slots()?.into_iter().map(slot).collect(),
    })
}

impl From<super::pkcs11::raw::TokenInformation> for TokenListing {
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

/// Returns the family that a command line names by fragment, or by the path of its module.
pub fn family(fragment: Option<&str>, module: Option<&Path>) -> anyhow::Result<Fragment> {
    match (fragment, module) {
        (Some(name), None) => Ok(Fragment::shipped(name)?),
        (None, Some(path)) => Ok(Fragment::unknown_family(path)),
        _ => Err(anyhow!("give either --fragment or --module")),
    }
}
