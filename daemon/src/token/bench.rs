//! How fast a token signs through its worker, for `hallmark token bench`.
//!
//! It signs test messages only (see `key_proof`), which can never pass for a certificate, with keys that it
//! makes and deletes again. The worker serves issuance meanwhile: both are slower for it.

use super::client::{ClientToken, TokenClient};
use super::contract::{LABEL, random_id};
use super::test_keys::TestKeys;
use super::{KeyDescription, KeySpecification, Token, TokenError, key_proof};
use crate::x509::key::KeyType;
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};

/// How long one signature may take here.
const DEADLINE: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Signatures made.
    pub signatures: u64,
    /// In this time.
    pub elapsed: Duration,
    /// Time of one signature, from call to answer: half of them took at most this.
    pub median: Duration,
    /// And 99 % of them at most this.
    pub percentile_99: Duration,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// With a key of each of these kinds.
    pub key_types: Vec<KeyType>,
    /// Sessions of the worker.
    pub sessions: usize,
    /// How long each measurement takes.
    pub duration: Duration,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The kind of key.
    pub key_type: KeyType,
    /// Requests at a time.
    pub in_flight: usize,
    /// Sessions that were at work: the worker has no more of them than it has.
    pub sessions: usize,
    /// Whole signatures per second.
    pub signatures_per_second: u64,
    /// The most leaves that an authority with such a key can have signed in an hour.
    pub leaves_per_hour: u64,
    /// In microseconds: half of the signatures took at most this.
    pub median_us: u64,
    /// And 99 % of them at most this.
    pub percentile_99_us: u64,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// A row for each kind of key and number of requests at a time.
    pub rows: Vec<Row>,
    /// Kinds of key that were not measured, each with the reason.
    pub not_measured: Vec<String>,
    /// Keys that could not be deleted again, each with the reason.
    pub left_behind: Vec<String>,
}

/// Measures each kind of key with one request at a time, with one for each session, and with four; gives each row
/// to `told` as it is measured.
pub fn measure(client: &TokenClient, plan: &Plan, told: &mut dyn FnMut(&Row)) -> Report {
    let mut token = ClientToken(client);
    let mut test_keys = TestKeys::new(&mut token);
    let mut report = Report::default();
    for key_type in &plan.key_types {
        let measured = test_keys
            .generate(&KeySpecification {
                key_type: *key_type,
                label: LABEL.to_owned(),
                id: random_id(),
            })
            .and_then(|key| {
                for in_flight in plan.steps() {
                    let measured = run(client, &key, in_flight, plan.duration)?;
                    let row = Row::new(*key_type, in_flight, plan.sessions, &measured);
                    told(&row);
                    report.rows.push(row);
                }
                test_keys.destroy(&key.reference())
            });
        if let Err(error) = measured {
            report.not_measured.push(format!("{key_type}: {error}"));
        }
    }
    report.left_behind = test_keys.clean_up();
    report
}

impl Plan {
    /// Requests at a time; with one session, the first two are one.
    fn steps(&self) -> Vec<usize> {
        let mut steps = vec![1, self.sessions, 4 * self.sessions];
        steps.dedup();
        steps
    }
}

impl Row {
    fn new(key_type: KeyType, in_flight: usize, sessions: usize, measured: &Measurement) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Row {
            key_type,
            in_flight,
            sessions: in_flight.min(sessions),
            signatures_per_second: measured.rate() as u64,
            leaves_per_hour: (measured.rate() * 3600.0) as u64,
            median_us: micros(measured.median),
            percentile_99_us: micros(measured.percentile_99),
        }
    }
}

impl Measurement {
    /// Signatures per second.
    pub fn rate(&self) -> f64 {
        self.signatures as f64 / self.elapsed.as_secs_f64()
    }
}

/// Signs with `key` for about `duration`, `in_flight` requests at a time, one thread each.
///
/// Signatures are not verified one by one, so that the token is measured and not this process.
pub fn run(
    client: &TokenClient,
    key: &KeyDescription,
    in_flight: usize,
    duration: Duration,
) -> Result<Measurement, TokenError> {
    client.prove(key, DEADLINE)?;
    let begun = Instant::now();
    let mut times = thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight)
            .map(|_| scope.spawn(|| sign_until(client, key, begun + duration)))
            .collect();
        let mut times = Vec::new();
        for thread in threads {
            times.extend(thread.join().expect("signing threads do not panic")?);
        }
        Ok::<_, TokenError>(times)
    })?;
    let elapsed = begun.elapsed();
    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied();
    Ok(Measurement {
        signatures: times.len() as u64,
        elapsed,
        median: percentile(50).unwrap_or_default(),
        percentile_99: percentile(99).unwrap_or_default(),
    })
}

fn sign_until(
    client: &TokenClient,
    key: &KeyDescription,
    end: Instant,
) -> Result<Vec<Duration>, TokenError> {
    let Some(algorithm) = key_proof::algorithm_of(&key.spki) else {
        return Ok(Vec::new());
    };
    let (reference, message) = (key.reference(), key_proof::challenge());
    let mut times = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        client.sign(&reference, algorithm, &message, DEADLINE)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}
