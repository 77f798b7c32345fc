//! SoftHSM 2: files, and everything works.

use crate::rig::Rig;
use crate::table;
use std::fs;

/// A token in a folder of its own; the PIN is in the file `pin`.
pub(crate) fn make(rig: &mut Rig) {
    let tokens = rig.folder("tokens");
    let text = format!("directories.tokendir = {}\n", tokens.display());
    fs::write(rig.path("softhsm2.conf"), text).unwrap();
    rig.set("SOFTHSM2_CONF", rig.text("softhsm2.conf"));
    let told = rig.init_token("softhsm2");
    assert!(told.status.success(), "{told:?}");
}

#[test]
fn softhsm_keeps_the_contract() {
    let mut rig = Rig::new("softhsm2", "factory");
    make(&mut rig);
    table::holds("SoftHSM 2.6.1", &rig.check());
}
