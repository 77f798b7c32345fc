//! SoftHSM 2, which keeps its objects in files and supports every operation.

use crate::fixture::Fixture;
use crate::table;
use std::fs;

/// Makes a token in its own folder; the PIN is in the file `pin`.
pub(crate) fn make(fixture: &mut Fixture) {
    let tokens = fixture.folder("tokens");
    let text = format!("directories.tokendir = {}\n", tokens.display());
    fs::write(fixture.path("softhsm2.conf"), text).unwrap();
    fixture.set("SOFTHSM2_CONF", fixture.text("softhsm2.conf"));
    let output = fixture.init_token("softhsm2");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn softhsm_keeps_the_contract() {
    let mut fixture = Fixture::new("softhsm2", "factory");
    make(&mut fixture);
    table::holds("SoftHSM 2.6.1", &fixture.check());
}
