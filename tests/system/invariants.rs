//! Checks after every test, once the daemon has stopped:
//!
//! * no intent is open; each one is issued, abandoned or withdrawn, and has an audit entry that
//!   says which
//! * each certificate has exactly one intent, and carries exactly its bytes and its serial number
//! * serial numbers are unique for their issuer
//! * a device's current leaf is its newest, and names the device
//! * without a dirty mark, the provisioning service holds what is desired, or drift is on record;
//!   so it is with CA certificates
//! * the audit journal verifies
//!
//! Before the daemon stops, [`crate::receipts`] compares receipts with the service and the hub.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::{Emulator, Kind};
use hallmarkd::enrollment::slots::{SlotName, Slots};
use hallmarkd::enrollment::thumbprint::Thumbprint;
use hallmarkd::store::Store;
use hallmarkd::x509::certificate::join;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Checks everything; the daemon of `database` must have stopped.
pub(crate) fn hold(database: &Path, emulator: &Emulator) {
    let store = open(database);
    assert_eq!(count(&store, "intent_state WHERE state = 'intended'"), 0);
    certificates_carry_their_intents(&store);
    the_journal_has_every_end(&store);
    devices_hold_their_newest_leaf(&store);
    the_service_holds_what_is_desired(&store, emulator);
    authorities_are_verified(&store, emulator);
    let verdict = Store::open(database).unwrap().verify_audit().unwrap();
    assert_eq!(verdict.broken_at, None, "{verdict:?}");
}

/// A read-only connection beside the daemon's.
pub(crate) fn open(database: &Path) -> Connection {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY);
    connection.unwrap()
}

pub(crate) fn count(store: &Connection, what: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {what}");
    store.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// The row ids of the first rows of `what`.
pub(crate) fn ids(store: &Connection, what: &str) -> Vec<i64> {
    let sql = format!("SELECT id FROM {what} ORDER BY id LIMIT 20");
    rows(store, &sql, |row| row.get(0))
}

/// The paths of the first blocks in force below `/v1/blocks`.
pub(crate) fn blocks(store: &Connection) -> Vec<String> {
    let sql = "SELECT kind || '/' || name || coalesce('?generation=' || generation, '') FROM block \
               WHERE lifted_at IS NULL ORDER BY id LIMIT 20";
    rows(store, sql, |row| row.get(0))
}

fn rows<T>(store: &Connection, sql: &str, row: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let mut statement = store.prepare(sql).unwrap();
    let found = statement.query_map([], |found| row(found)).unwrap();
    found.collect::<Result<_, _>>().unwrap()
}

fn certificates_carry_their_intents(store: &Connection) {
    let sql = "SELECT i.state, i.serial, i.tbs, c.signature, c.sha256 FROM certificate c \
               LEFT JOIN intent_state i ON i.id = c.intent";
    let certificates = rows(store, sql, |row| {
        let bytes = |column| row.get::<_, Vec<u8>>(column);
        let state: String = row.get(0)?;
        Ok((
            state,
            bytes(1)?,
            bytes(2)?,
            join(&bytes(2)?, &bytes(3)?),
            bytes(4)?,
        ))
    });
    let mut serials = BTreeSet::new();
    for (state, serial, tbs, der, sha256) in &certificates {
        let (_, parsed) = X509Certificate::from_der(der).unwrap();
        assert_eq!(state, "issued");
        assert_eq!(parsed.tbs_certificate.as_ref(), tbs);
        assert_eq!(Thumbprint::of(der).as_bytes(), &sha256[..]);
        // DER may write a sign octet before it.
        assert_eq!(parsed.tbs_certificate.serial.to_bytes_be(), *serial);
        // An adopted root may have begun to count at its own number.
        let issuer = parsed.issuer().as_raw().to_vec();
        let is_root = parsed.issuer() == parsed.subject();
        assert!(
            serials.insert((issuer, is_root, serial.clone())),
            "a serial number twice"
        );
    }
    let issued = count(store, "intent_state WHERE state = 'issued'");
    assert_eq!(issued, i64::try_from(certificates.len()).unwrap());
}

fn the_journal_has_every_end(store: &Connection) {
    let untold = "intent_state WHERE (hex(serial), CASE WHEN purpose = 'adopted' THEN \
                  'authority.adopted' WHEN state = 'issued' THEN 'certificate.issued' \
                                           WHEN state = 'withdrawn' THEN 'intent.withdrawn' \
                                           ELSE 'intent.abandoned' END) NOT IN (\
                  SELECT upper(detail ->> 'serial'), \
                         replace(replace(action, 'authority.installed', 'authority.adopted'), \
                                 'certificate.imported', 'certificate.issued') FROM audit \
                  WHERE detail ->> 'serial' IS NOT NULL)";
    assert_eq!(count(store, untold), 0, "an intent's end is not on record");
}

/// Leaves that were aborted with their rollover do not count.
fn devices_hold_their_newest_leaf(store: &Connection) {
    let sql = "SELECT d.registration_id, d.certificate, max(i.id) FROM device d \
               JOIN intent_state i ON i.subject = d.registration_id AND i.state = 'issued' \
               AND i.purpose = 'leaf' AND NOT EXISTS ( \
                   SELECT 1 FROM roll r JOIN certificate c ON c.sha256 = r.new_certificate \
                   JOIN audit a ON a.action = 'roll.aborted' AND a.detail ->> 'roll' = r.id \
                   WHERE c.intent = i.id) \
               GROUP BY d.registration_id";
    let held = rows(store, sql, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    assert_eq!(count(store, "device"), i64::try_from(held.len()).unwrap());
    for (device, current, newest) in held {
        let (device, current, newest): (String, i64, i64) = (device, current, newest);
        assert_eq!(current, newest, "{device}");
        let sql = "SELECT i.tbs, c.signature FROM certificate c JOIN intent i ON i.id = c.intent
                   WHERE c.intent = ?1";
        let [tbs, signature]: [Vec<u8>; 2] = store
            .query_row(sql, [current], |row| Ok([row.get(0)?, row.get(1)?]))
            .unwrap();
        let der = join(&tbs, &signature);
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let names: Vec<_> = leaf.subject().iter_common_name().collect();
        assert_eq!(names.len(), 1, "{device}");
        assert_eq!(names[0].as_str().unwrap(), device);
    }
}

fn the_service_holds_what_is_desired(store: &Connection, emulator: &Emulator) {
    let sql = "SELECT e.kind, e.name, e.slots, e.status FROM enrollment e \
               LEFT JOIN mark m ON m.enrollment = e.id \
               WHERE m.id IS NULL AND e.drift IS NULL";
    let settled: Vec<[String; 4]> = rows(store, sql, |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    });
    for [kind, name, slots, status] in settled {
        let slots: Slots = serde_json::from_str(&slots).unwrap();
        let record = match kind.as_str() {
            "group" => emulator.group(&name),
            _ => emulator.individual(&name),
        };
        let Some(record) = record else {
            assert_eq!(slots, Slots::Empty, "{name} is not at the service");
            continue;
        };
        let wanted = |slot| slots.in_slot(slot).map(|it| it.to_string());
        for slot in SlotName::BOTH {
            let shown = referenced(store, &record, slot).or(held(&record, slot.as_str()));
            assert_eq!(shown, wanted(slot), "{name}");
        }
        assert_eq!(record["provisioningStatus"], status, "{name}");
    }
    for (kind, id) in [
        (Kind::Individual, "registrationId"),
        (Kind::Group, "enrollmentGroupId"),
    ] {
        for record in emulator.records(kind) {
            let id = record[id].as_str().unwrap();
            // After a restore those that came after the backup are listed as unknown.
            let known = "SELECT (SELECT count(*) FROM enrollment WHERE name = ?1) \
                             OR EXISTS (SELECT 1 FROM restore) \
                                AND EXISTS (SELECT 1 FROM unknown_enrollment WHERE name = ?1)";
            let known: i64 = store.query_row(known, [id], |row| row.get(0)).unwrap();
            assert_eq!(known, 1, "{id} is at the service without an enrollment");
        }
    }
}

/// The thumbprint of the CA certificate that a slot names.
fn referenced(store: &Connection, record: &Value, slot: SlotName) -> Option<String> {
    let name = record["attestation"]["x509"]["caReferences"][slot.as_str()].as_str()?;
    let sql = "SELECT c.sha256 FROM generation g JOIN certificate c ON c.intent = g.certificate \
               WHERE g.authority || '-' || g.number = ?1";
    let sha256: [u8; 32] = store.query_row(sql, [name], |row| row.get(0)).unwrap();
    Some(Thumbprint::from_bytes(sha256).to_string())
}

/// The thumbprint in a slot of a record, as DPS shows it.
pub(crate) fn held(record: &Value, slot: &str) -> Option<String> {
    let x509 = &record["attestation"]["x509"];
    let thumbprint = ["clientCertificates", "signingCertificates"]
        .into_iter()
        .find_map(|members| x509[members][slot]["info"]["sha256Thumbprint"].as_str());
    thumbprint.map(str::to_owned)
}

fn authorities_are_verified(store: &Connection, emulator: &Emulator) {
    let sql = "SELECT a.name, a.removed, a.drift IS NOT NULL, i.tbs, c.signature \
               FROM ca_certificate a JOIN generation g ON g.id = a.generation \
               JOIN certificate c ON c.intent = g.certificate JOIN intent i ON i.id = c.intent \
               LEFT JOIN mark m ON m.ca_certificate = a.id WHERE m.id IS NULL";
    let settled = rows(store, sql, |row| {
        let name: String = row.get(0)?;
        let der = join(&row.get::<_, Vec<u8>>(3)?, &row.get::<_, Vec<u8>>(4)?);
        Ok((name, row.get::<_, bool>(1)?, row.get::<_, bool>(2)?, der))
    });
    for (name, is_removed, has_drifted, der) in settled {
        let held = emulator.authorities();
        let found = held.iter().find(|authority| authority["name"] == name);
        let properties = found.map(|authority| &authority["properties"]);
        let der = STANDARD.encode(der);
        let ours = properties.filter(|it| it["certificate"] == der);
        let verified = ours.is_some_and(|it| it["isVerified"] == true);
        let as_desired = verified && !is_removed || ours.is_none() && is_removed;
        assert_ne!(as_desired, has_drifted, "{name}: {held:#?}");
    }
}
