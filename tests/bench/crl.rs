//! A large revocation list: how long it takes, and what it costs issuance.

use crate::hallmark::{Keys, Plant};
use crate::load::Load;
use crate::report::{Bound, Goal, Part};
use crate::rounds::{Extent, Spread};
use crate::target::{Api, PROFILE};
use rusqlite::Connection;
use serde_json::json;
use std::time::{Duration, Instant};

/// Certificates of one batch.
const BATCH: usize = 64;
const CONNECTIONS: usize = 8;

/// Issues `entries` certificates, marks them as revoked while the daemon is stopped, and measures
/// the time from its start to the signed list; then the p99 of issuance without and with further
/// lists of that size.
pub(crate) fn measure(extent: &Extent, entries: usize) -> anyhow::Result<Part> {
    let mut plant = Plant::build(Keys::P256)?;
    let mut fill = Load::new(plant.target("revoked", Api::Batch(BATCH))?)?;
    while fill.issued() < entries {
        fill.take((entries / BATCH).clamp(1, 256), 4)?;
        crate::say(&format!("{} are issued", fill.issued()));
    }
    plant.stop();
    let marked = mark(&plant)?;
    let before = Instant::now();
    plant.start()?;
    crate::process::wait_until("the list is signed", || {
        listed(&plant).is_ok_and(|it| it >= marked)
    })?;
    let from_start = before.elapsed().as_secs_f64();
    crate::say(&format!(
        "{marked} entries, {from_start:.2} s from start to list"
    ));

    let mut load = Load::new(plant.target("Hallmark", Api::Hallmark)?)?;
    let rate = load.take(500.min(entries), CONNECTIONS)?.rate;
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    for _ in 0..extent.rounds {
        let quiet = load.measure(rate, extent.load, CONNECTIONS)?;
        let serials: Vec<_> = load.serials().map(hex::encode).collect();
        let (with_lists, each) = std::thread::scope(|scope| {
            let revoking = scope.spawn(|| revoke_during(&plant, &serials, extent.load));
            let taken = load.measure(rate, extent.load, CONNECTIONS);
            (taken, revoking.join().expect("no panic"))
        });
        let with_lists = with_lists?;
        times.extend(each?);
        ratios.push(with_lists.p99.as_secs_f64() / quiet.p99.as_secs_f64());
    }
    plant.check(fill.issued() + load.issued())?;
    let one = |value: f64| Spread::of([value].into_iter());
    let revoked = Spread::of(times.iter().copied());
    let revoked = revoked.map_or_else(String::new, |it| format!("{:.2} s", it.median));
    Ok(Part {
        name: "crl",
        text: format!(
            "A list of {marked} entries: {from_start:.2} s from the start of the daemon to the \
             signed list. Afterwards `hallmark certificate revoke` was answered, with its new \
             list, after {revoked} (median), at {CONNECTIONS} connections of load.\n"
        ),
        json: json!({
            "entries": marked,
            "start_to_list_s": from_start,
            "revocations_s": times,
            "p99_ratios": ratios,
        }),
        goals: vec![
            Goal::new(
                format!("s from start to a list of {marked} entries"),
                Bound::AtMost(1.5),
                one(from_start),
            ),
            Goal::new(
                "p99 of issuance while such lists are signed ÷ without",
                Bound::AtMost(2.0),
                Spread::of(ratios.into_iter()),
            ),
        ],
    })
}

/// Marks all certificates of devices, as the daemon's own statement does.
fn mark(plant: &Plant) -> anyhow::Result<usize> {
    let database = Connection::open(plant.path("state/hallmark.db"))?;
    let sql = "UPDATE certificate SET revoked_at = unixepoch(), revocation_reason = 4
               WHERE intent IN (SELECT id FROM intent WHERE profile = ?1)";
    Ok(database.execute(sql, [PROFILE])?)
}

/// Entries of the newest list of the line.
fn listed(plant: &Plant) -> anyhow::Result<usize> {
    let sql = "SELECT c.entries FROM crl c JOIN generation g ON g.id = c.generation
               WHERE g.authority = 'line' AND c.der IS NOT NULL ORDER BY c.number DESC LIMIT 1";
    let count: i64 = plant.database()?.query_row(sql, [], |row| row.get(0))?;
    Ok(usize::try_from(count)?)
}

/// Revokes one certificate after the other, for about `time`; returns how long each answer took.
fn revoke_during(plant: &Plant, serials: &[String], time: Duration) -> anyhow::Result<Vec<f64>> {
    let begun = Instant::now();
    let mut times = Vec::new();
    for serial in serials {
        if begun.elapsed() >= time {
            break;
        }
        let revoked = Instant::now();
        plant.hallmark(&["certificate", "revoke", serial, "--reason", "superseded"])?;
        times.push(revoked.elapsed().as_secs_f64());
    }
    Ok(times)
}
