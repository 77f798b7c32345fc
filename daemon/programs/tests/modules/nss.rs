//! NSS softokn: it needs an argument at C_Initialize, and does not report which keys it has made.

use crate::fixture::{Fixture, done};
use crate::table;
use std::process::Command;

/// Makes a database; the PIN is in the file `pin`.
pub(crate) fn prepared() -> Fixture {
    let mut fixture = Fixture::new("nss", "NSS Certificate DB");
    let folder = fixture.folder("nss");
    fixture.write_secret("pin", "a password for the test\n");
    let database = format!("sql:{}", folder.display());
    done(Command::new("certutil").args(["-N", "-d", &database, "-f", &fixture.text("pin")]));
    fixture.set("NSS_CONFIGDIR", folder.display().to_string());
    fixture
}

#[test]
fn nss_keeps_the_contract() {
    table::holds("NSS softokn 3.87", &prepared().check());
}
