//! Keeps certificates, revocation lists and OCSP answers of a test for another judge, if the
//! environment names a folder: `tests/pkilint/run` reads it.

use crate::invariants::open;
use hallmarkd::enrollment::thumbprint::Thumbprint;
use hallmarkd::x509::certificate::join;
use std::fs;
use std::path::Path;

const FOLDER: &str = "HALLMARK_KEPT_CERTIFICATES";

/// Writes an OCSP answer that a test got.
pub(crate) fn keep_answer(der: &[u8]) {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    fs::create_dir_all(&folder).unwrap();
    let name = format!("{}.ocsp", hex::encode(Thumbprint::of(der).as_bytes()));
    fs::write(Path::new(&folder).join(name), der).unwrap();
}

/// Writes all that the daemon of `database` has signed, each once, under its SHA-256; not the
/// leaves of a fleet that the test itself has put on record (`fleet`).
pub(crate) fn keep(database: &Path) {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    fs::create_dir_all(&folder).unwrap();
    let store = open(database);
    let write = |der: &[u8], kind: &str| {
        let name = format!("{}.{kind}", hex::encode(Thumbprint::of(der).as_bytes()));
        fs::write(Path::new(&folder).join(name), der).unwrap();
    };
    let sql = "SELECT i.tbs, c.signature FROM certificate c JOIN intent i ON i.id = c.intent \
               WHERE NOT i.signed_elsewhere AND i.caller <> 'fixture'";
    let mut certificates = store.prepare(sql).unwrap();
    let mut rows = certificates.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let [tbs, signature] = [0, 1].map(|column| row.get::<_, Vec<u8>>(column).unwrap());
        write(&join(&tbs, &signature), "cer");
    }
    let mut lists = store
        .prepare("SELECT der FROM crl WHERE der IS NOT NULL")
        .unwrap();
    let mut rows = lists.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        write(&row.get::<_, Vec<u8>>(0).unwrap(), "crl");
    }
}
