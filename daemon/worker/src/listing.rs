//! Lists the slots of a PKCS#11 module without login: `hallmark-token probe-module`.
//!
//! The program that wants the listing starts this one for each module (`hallmark_base::probe`). No
//! PIN is read, and nothing is changed.

use crate::pkcs11::environment;
use crate::pkcs11::fault::Fault;
use crate::pkcs11::module::{Module, trimmed};
use crate::pkcs11::raw::TokenInformation;
use anyhow::{Context, anyhow};
use cryptoki::slot::Slot;
use hallmark_base::fragment::Fragment;
use hallmark_base::probe::{Answer, ModuleListing, SlotListing, TokenListing};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Most attempts to initialize a module: SoftHSM fails while another process initializes it, too.
const TRIES: u32 = 5;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Loads the module of `family` with the environment of this process, and writes its listing.
pub(crate) fn answer(family: &Fragment, out: &mut impl Write) -> anyhow::Result<()> {
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
    let failed = |fault: Fault| anyhow!(fault.reason);
    let mut module = Module::load(path, argument).map_err(failed)?;
    initialize(&mut module).map_err(|fault| failed(environment::explained(fault, family, path)))?;
    let listing = slots(&module);
    module.finalize();
    listing
}

fn initialize(module: &mut Module) -> Result<(), Fault> {
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
        let name = trimmed(library.library_description()).to_owned();
        format!("{name} {}", library.library_version())
    });
    let slot = |slot: Slot| {
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

impl From<TokenInformation> for TokenListing {
    fn from(token: TokenInformation) -> Self {
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
pub(crate) fn family(fragment: Option<&str>, module: Option<&Path>) -> anyhow::Result<Fragment> {
    match (fragment, module) {
        (Some(name), None) => Ok(Fragment::shipped(name)?),
        (None, Some(path)) => Ok(Fragment::unknown_family(path)),
        _ => Err(anyhow!("give either --fragment or --module")),
    }
}
