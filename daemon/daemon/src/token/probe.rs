//! Names the PKCS#11 modules whose slots can be listed without login.
//!
//! Each module is loaded in a short-lived process of its own (`hallmark-token probe-module`), so a
//! module that crashes or hangs costs only its own line of the listing. No PIN is read, and nothing
//! is changed.

use super::configuration::TokenSettings;
use super::fragment::{self, Fragment};
pub use hallmark_base::probe::{ModuleListing, Probe, SlotListing};
use std::collections::BTreeSet;
use std::path::PathBuf;

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
