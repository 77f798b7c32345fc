//! Compares receipts with the emulator: each place that says `done` must be as the receipt says.
//!
//! [`TestEnv`](crate::test_env::TestEnv) does so with every receipt that a command prints as JSON,
//! and at the end of each test with the receipts of all compromises and blocks.

use crate::device::is_assigned;
use crate::invariants::{count, held, open};
use crate::provisioned::below_line_1;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Emulator, Kind};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::Path;

/// The service of the emulator in the configuration of all tests.
const SERVICE: &str = "dps";

/// A certificate of the chain from the first number upwards: thumbprint, and name at the service.
type Link = (String, String);

/// Panics if the receipt in an answer calls a place done that is not.
pub(crate) fn hold(database: &Path, emulator: &Emulator, answer: &Value) {
    if let Err(wrong) = compare(&open(database), emulator, answer) {
        panic!("a receipt is wrong: {wrong}: {answer:#}");
    }
}

/// Compares the receipt of a compromise or a block, as the API answers it.
fn compare(store: &Connection, emulator: &Emulator, answer: &Value) -> Result<(), String> {
    let places = answer["receipt"]["places"].as_array();
    for place in places.into_iter().flatten() {
        if place["state"] == "done" && place["parameters"]["provisioning"] == SERVICE {
            let compared = compare_place(store, emulator, answer, place);
            compared.map_err(|wrong| format!("{}: {wrong}", place["code"]))?;
        }
    }
    holds_after_restore(store, emulator, answer)?;
    let all_done = || places.into_iter().flatten().all(|it| it["state"] == "done");
    if answer["receipt"]["complete"] != true {
        return Ok(());
    }
    if !all_done() {
        return Err("it is complete, and a place is not done".into());
    }
    refuses_blocked(store, emulator, answer)
}

/// After a restore, compares with what the store cannot know. A receipt about devices below a group
/// or an authority is complete only if the service has no enabled enrollment without a record, and
/// that of a device only if it has none that decides about the device. A device that is called
/// excluded at the hub has no identity there by its name, except by a leaf on record that is good.
fn holds_after_restore(
    store: &Connection,
    emulator: &Emulator,
    answer: &Value,
) -> Result<(), String> {
    if count(store, "restore") == 0 {
        return Ok(());
    }
    let rolls = first_rolls(answer);
    let device = match answer["kind"].as_str() {
        Some("device") => answer["name"].as_str(),
        Some(_) => None,
        None => rolls.first().and_then(|it| it["registration_id"].as_str()),
    };
    if answer["receipt"]["complete"] == true && answer["lifted_at"].is_null() {
        has_no_unknown_enrollment(store, emulator, device)?;
    }
    let Some(device) = device else {
        return Ok(());
    };
    let says_deleted = answer["receipt"]["places"]
        .as_array()
        .is_some_and(|places| {
            places
                .iter()
                .any(|it| it["code"] == "identities_deleted" && it["state"] == "done")
        });
    let identity = emulator.hub_identity(device).filter(|_| says_deleted);
    let Some(identity) = identity else {
        return Ok(());
    };
    let shown = &identity["authentication"]["x509Thumbprint"]["primaryThumbprint"];
    let shown = shown.as_str().unwrap_or_default().to_uppercase();
    let is_good = "SELECT EXISTS (SELECT 1 FROM certificate WHERE hex(sha256) = ?1 \
                                  AND revoked_at IS NULL)";
    let is_good: bool = store.query_row(is_good, [shown], |row| row.get(0)).unwrap();
    let wrong = || format!("the hub has an identity of {device} by a leaf that is not on record");
    is_good.then_some(()).ok_or_else(wrong)
}

/// Compares with all enrollments, or with those that decide about one device: its own, or every
/// group if it has none.
fn has_no_unknown_enrollment(
    store: &Connection,
    emulator: &Emulator,
    device: Option<&str>,
) -> Result<(), String> {
    let has_own = device.is_some_and(|it| emulator.individual(it).is_some());
    for (kind, id) in [
        (Kind::Individual, "registrationId"),
        (Kind::Group, "enrollmentGroupId"),
    ] {
        for record in emulator.records(kind) {
            let name = record[id].as_str().unwrap();
            let decides = |device: &str| match kind {
                Kind::Individual => name.eq_ignore_ascii_case(device),
                Kind::Group => !has_own,
            };
            if device.is_some_and(|it| !decides(it)) {
                continue;
            }
            // A removal that is asked for makes nothing known, and the service has the record
            // still.
            let known = "SELECT EXISTS (SELECT 1 FROM enrollment WHERE name = ?1 AND leaving = 0)";
            let known: bool = store.query_row(known, [name], |row| row.get(0)).unwrap();
            if !known && record["provisioningStatus"] != "disabled" {
                return Err(format!("it is complete, and {name} admits what is unknown"));
            }
        }
    }
    Ok(())
}

fn compare_place(
    store: &Connection,
    emulator: &Emulator,
    answer: &Value,
    place: &Value,
) -> Result<(), String> {
    let record = || {
        let name = place["parameters"]["name"].as_str().unwrap();
        match place["parameters"]["kind"].as_str() {
            Some("group") => emulator.group(name),
            _ => emulator.individual(name),
        }
    };
    let status = || record().map(|it| it["provisioningStatus"].clone());
    match place["code"].as_str().unwrap() {
        "enrollment_disabled" if status() != Some(json!("disabled")) => {
            Err(format!("the enrollment is {:?}", status()))
        }
        "enrollment_deleted" if record().is_some() => Err("the enrollment is there".into()),
        "enrollment_good" => {
            let held = record().map(|it| ["primary", "secondary"].map(|slot| held(&it, slot)));
            let held = held.ok_or("there is no such enrollment")?;
            match held.iter().flatten().find(|it| is_compromised(store, it)) {
                Some(it) => Err(format!("it holds the compromised certificate {it}")),
                None => Ok(()),
            }
        }
        "authority_excluded" => first_rolls(answer)
            .iter()
            .try_for_each(|roll| refuses_authority(store, emulator, roll)),
        "identities_deleted" => has_no_identity(store, emulator, answer),
        _ => Ok(()),
    }
}

/// The rolls of an answer: a command starts several, and `roll show` shows one.
fn first_rolls(answer: &Value) -> Vec<Value> {
    let one = std::slice::from_ref(answer);
    let rolls = answer["rolls"].as_array().map_or(one, Vec::as_slice);
    rolls.to_vec()
}

/// Returns true if the certificate is revoked for good, or replaced after a compromise.
fn is_compromised(store: &Connection, thumbprint: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM certificate WHERE hex(sha256) = ?1 \
                              AND revocation_reason IS NOT NULL AND revocation_reason <> 6) \
               OR EXISTS (SELECT 1 FROM roll WHERE hex(old_certificate) = ?1 \
                          AND authority IS NOT NULL AND reason = 'compromise')";
    let thumbprint = thumbprint.to_uppercase();
    store
        .query_row(sql, [thumbprint], |row| row.get(0))
        .unwrap()
}

/// Compares a block in force of a generation or a group: the service refuses what the generation,
/// or the serving one of the group's authority, has signed.
fn refuses_blocked(store: &Connection, emulator: &Emulator, answer: &Value) -> Result<(), String> {
    let blocked = match answer["kind"].as_str() {
        _ if !answer["lifted_at"].is_null() => return Ok(()),
        Some("generation") => {
            "SELECT g.id FROM generation g JOIN block b ON b.name = g.authority \
             AND b.generation = g.number WHERE b.id = ?1"
        }
        Some("group") => {
            "SELECT g.id FROM generation g JOIN enrollment e ON e.authority = g.authority \
             JOIN block b ON b.name = e.name WHERE b.id = ?1 AND e.kind = 'group' \
             AND e.provisioning = 'dps' AND e.overlay_of IS NULL AND g.state = 'serving'"
        }
        _ => return Ok(()),
    };
    refuses_chain(
        emulator,
        &chain_upwards(store, blocked, answer["id"].as_i64().unwrap()),
    )
}

fn refuses_authority(store: &Connection, emulator: &Emulator, roll: &Value) -> Result<(), String> {
    let compromised = "SELECT old_generation FROM roll WHERE id = ?1 AND authority IS NOT NULL";
    refuses_chain(
        emulator,
        &chain_upwards(store, compromised, roll["id"].as_i64().unwrap()),
    )
}

/// Compares with DPS: the first group that holds a certificate of the chain is disabled, or there
/// is none.
fn refuses_chain(emulator: &Emulator, chain: &[Link]) -> Result<(), String> {
    let groups = emulator.records(Kind::Group);
    let authorities = emulator.authorities();
    let is_there = |name: &str| {
        let mut held = authorities.iter();
        held.any(|it| {
            it["name"]
                .as_str()
                .is_some_and(|it| it.eq_ignore_ascii_case(name))
        })
    };
    for (thumbprint, name) in chain {
        let holds = |group: &&Value| {
            ["primary", "secondary"].into_iter().any(|slot| {
                let named = &group["attestation"]["x509"]["caReferences"][slot];
                let named = named
                    .as_str()
                    .is_some_and(|it| it.eq_ignore_ascii_case(name));
                let held = held(group, slot).map(|it| it.to_uppercase());
                held.as_ref() == Some(thumbprint) || named && is_there(name)
            })
        };
        if let Some(group) = groups.iter().find(holds) {
            let id = &group["enrollmentGroupId"];
            let is_disabled = group["provisioningStatus"] == "disabled";
            let wrong = || format!("group {id} admits what {name} signed");
            return is_disabled.then_some(()).ok_or_else(wrong);
        }
    }
    Ok(())
}

/// The certificate of the generation that `excluded` finds by its parameter, and those above it.
fn chain_upwards(store: &Connection, excluded: &str, parameter: i64) -> Vec<Link> {
    let sql = format!(
        "WITH RECURSIVE excluded (id) AS ({excluded}), above (id, level) AS ( \
                   SELECT id, 0 FROM excluded \
                   UNION SELECT g.parent, level + 1 FROM generation g \
                   JOIN above ON g.id = above.id WHERE g.parent IS NOT NULL) \
               SELECT hex(c.sha256), g.authority || '-' || g.number FROM above \
               JOIN generation g ON g.id = above.id JOIN certificate c ON c.intent = g.certificate \
               ORDER BY level"
    );
    let mut statement = store.prepare(&sql).unwrap();
    let links = statement.query_map([parameter], |row| Ok((row.get(0)?, row.get(1)?)));
    links.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Compares with the hubs: no hub has an identity, by whatever id, with a certificate that the
/// exclusion revoked, or that is below the excluded generation. A hub that the receipt calls open
/// by its name is not configured.
fn has_no_identity(store: &Connection, emulator: &Emulator, answer: &Value) -> Result<(), String> {
    let mut excluded: Vec<(String, String)> = Vec::new();
    for roll in first_rolls(answer) {
        excluded.extend(excluded_leaves(store, answer, &roll));
    }
    let hubs = emulator.world()["hubs"].as_object().unwrap().clone();
    for (hub, identities) in hubs.iter().filter(|(hub, _)| !is_open(answer, hub)) {
        for identity in identities.as_array().unwrap() {
            let shown = &identity["authentication"]["x509Thumbprint"]["primaryThumbprint"];
            let shown = shown.as_str().unwrap_or_default().to_uppercase();
            if let Some((device, _)) = excluded.iter().find(|(_, it)| *it == shown) {
                return Err(format!(
                    "{hub} has an identity with the excluded leaf of {device}"
                ));
            }
        }
    }
    Ok(())
}

/// Returns true if the receipt calls this hub open by its name.
fn is_open(answer: &Value, hub: &str) -> bool {
    let places = answer["receipt"]["places"].as_array();
    let mut places = places.into_iter().flatten();
    places.any(|it| it["state"] == "open" && it["place"] == format!("hub: {hub}"))
}

/// The excluded leaves, each with its device.
fn excluded_leaves(store: &Connection, answer: &Value, roll: &Value) -> Vec<(String, String)> {
    let leaves = |condition: &str, name: &str| {
        let sql = format!(
            "SELECT i.subject, hex(c.sha256) FROM intent i JOIN certificate c ON c.intent = i.id \
             WHERE i.purpose = 'leaf' AND i.role = 'device' AND ({condition})"
        );
        let mut statement = store.prepare(&sql).unwrap();
        let found = statement.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)));
        found.unwrap().collect::<Result<Vec<_>, _>>().unwrap()
    };
    let device = roll["registration_id"].as_str();
    let id = answer["id"].as_i64().unwrap_or_default().to_string();
    match (answer["kind"].as_str(), device) {
        (Some("generation"), _) => leaves(
            "i.issuer IN (WITH RECURSIVE below (id) AS ( \
                 SELECT g.id FROM generation g JOIN block b ON b.name = g.authority \
                 AND b.generation = g.number WHERE b.id = ?1 \
                 UNION SELECT g.id FROM generation g JOIN below ON g.parent = below.id) \
             SELECT id FROM below)",
            &id,
        ),
        (Some(_), _) => leaves(
            "c.intent IN (SELECT certificate FROM block_hold WHERE block = ?1)",
            &id,
        ),
        (None, Some(device)) => leaves("i.subject = ?1 AND c.revoked_at IS NOT NULL", device),
        (None, None) => leaves(
            "i.issuer IN (WITH RECURSIVE below (id) AS ( \
                 SELECT old_generation FROM roll WHERE id = ?1 \
                 UNION SELECT g.id FROM generation g JOIN below ON g.parent = below.id) \
             SELECT id FROM below)",
            &roll["id"].to_string(),
        ),
    }
}

/// Wrong receipts, one for each code that is compared: each is found.
#[test]
fn a_receipt_that_claims_too_much_is_found() {
    let (env, devices) = below_line_1(&["press-7"]);
    let enrolled = Request::device("press-8");
    env.run(&["enrollment", "add", "--individual", "press-8"]);
    let enrolled: Holder = env.station().obtain(&enrolled);
    env.wait_in_sync();
    is_assigned(&env.emulator, &enrolled);
    let store = open(&env.database());
    let wrong = |mut answer: Value, code: &str, mut parameters: Value| {
        parameters["provisioning"] = json!(SERVICE);
        let place = json!({ "state": "done", "code": code, "parameters": parameters });
        answer["receipt"] = json!({ "complete": true, "places": [place] });
        compare(&store, &env.emulator, &answer).unwrap_err()
    };
    let device = json!({ "registration_id": "press-8" });
    let enrollment = json!({ "kind": "individual", "name": "press-8" });
    let group = json!({ "kind": "group", "name": "line-1" });
    wrong(device.clone(), "enrollment_disabled", enrollment.clone());
    wrong(device.clone(), "enrollment_deleted", enrollment);
    wrong(device.clone(), "enrollment_deleted", group);
    let nowhere = json!({ "kind": "individual", "name": "press-9" });
    wrong(device, "enrollment_disabled", nowhere);

    let open_place = json!({ "state": "open", "code": "hub_not_configured", "parameters": {} });
    let claim = json!({ "receipt": { "complete": true, "places": [open_place] } });
    assert!(compare(&store, &env.emulator, &claim).is_err());

    let started = env.json(&["roll", "start", "press-7", "--reason", "compromise"]);
    assert_eq!(compare(&store, &env.emulator, &started), Ok(()));
    set_status(&env, Kind::Individual, "press-7", "enabled");
    is_assigned(&env.emulator, &devices[0]);
    for code in ["enrollment_disabled", "enrollment_good"] {
        let name = json!({ "kind": "individual", "name": "press-7" });
        wrong(started.clone(), code, name);
    }
    wrong(started.clone(), "identities_deleted", json!({}));
    // The device is excluded again for the comparison at the end of the test.
    env.run(&["roll", "start", "press-7", "--reason", "compromise"]);

    let report = ["roll", "start", "--authority", "line-1", "--reason"];
    let started = env.json(&[&report[..], &["compromise"]].concat());
    env.wait_in_sync();
    let blocking = env.emulator.group("line-1-blocked-1");
    let holder = blocking.map_or("line-1", |_| "line-1-blocked-1");
    if env.emulator.group(holder).unwrap()["provisioningStatus"] == "disabled" {
        set_status(&env, Kind::Group, holder, "enabled");
        wrong(started, "authority_excluded", json!({}));
        set_status(&env, Kind::Group, holder, "disabled");
    }
}

/// Another client enables or disables an enrollment.
fn set_status(env: &TestEnv, kind: Kind, id: &str, status: &str) {
    let merge = json!({ "provisioningStatus": status });
    let merge = merge.as_object().unwrap().clone();
    env.emulator.edit_record(kind, id, merge).unwrap();
}
