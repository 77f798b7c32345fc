//! Measures how fast a token signs through its worker, for `hallmark token bench`.
//!
//! It signs only test messages (see `key_proof`), which can never be taken for a certificate, with
//! test keys that it deletes afterwards. The worker also serves issuance during the measurement;
//! each slows the other down.

use super::client::{ClientToken, TokenClient};
use super::key_proof::TEST_KEY_LABEL;
use super::operation::{Operation, Token};
use super::test_keys::{TestKeys, random_id};
use super::{KeyDescription, KeySpecification, TokenError, key_proof};
use crate::x509::key::KeyType;
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};

/// Deadline of one signature.
const DEADLINE: Duration = Duration::from_secs(30);

/// The result of one measurement.
#[derive(Clone, Debug)]
pub struct Measurement {
    pub signatures: u64,
    pub elapsed: Duration,
    /// Median time from request to answer.
    pub median: Duration,
    /// 99th percentile of the time from request to answer.
    pub percentile_99: Duration,
}

/// The measurements to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The types of test keys.
    pub key_types: Vec<KeyType>,
    /// Sessions of the worker.
    pub sessions: usize,
    /// Duration of each measurement.
    pub duration: Duration,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The type of the key.
    pub key_type: KeyType,
    pub in_flight: usize,
    pub sessions: usize,
    /// Signatures per second, rounded down.
    pub signatures_per_second: u64,
    /// Most leaves per hour of an authority with such a key.
    pub leaves_per_hour: u64,
    /// Median time from request to answer.
    pub median_us: u64,
    /// 99th percentile of the time from request to answer.
    pub percentile_99_us: u64,
}

/// The results of all measurements.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// A row for each type of key and number of requests in flight.
    pub rows: Vec<Row>,
    /// Types of key that were not measured, with the reason.
    pub not_measured: Vec<String>,
    /// Test keys that could not be deleted, with the reason.
    pub left_behind: Vec<String>,
}

/// Measures each type of key with one request in flight, with one per session, and with four per
/// session. Passes each row to `on_row`.
pub fn measure(client: &TokenClient, plan: &Plan, on_row: &mut dyn FnMut(&Row)) -> Report {
    let mut token = ClientToken(client);
    let mut test_keys = TestKeys::new(&mut token);
    let mut report = Report::default();
    for key_type in &plan.key_types {
        let measured = generate(&mut test_keys, *key_type).and_then(|key| {
            for in_flight in plan.steps() {
                let measured = run(client, &key, in_flight, plan.duration)?;
                let row = Row::new(*key_type, in_flight, plan.sessions, &measured);
                on_row(&row);
                report.rows.push(row);
            }
            test_keys.perform(&Operation::Destroy(key.reference()))
        });
        if let Err(error) = measured {
            report.not_measured.push(format!("{key_type}: {error}"));
        }
    }
    report.left_behind = test_keys.clean_up();
    report
}

fn generate(token: &mut dyn Token, key_type: KeyType) -> Result<KeyDescription, TokenError> {
    token.ask(Operation::Generate(KeySpecification {
        key_type,
        label: TEST_KEY_LABEL.to_owned(),
        id: random_id(),
    }))
}

impl Plan {
    /// Returns the numbers of requests in flight.
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
    /// Returns the signatures per second.
    pub fn rate(&self) -> f64 {
        self.signatures as f64 / self.elapsed.as_secs_f64()
    }
}

/// Signs with `key` for about `duration`, with `in_flight` threads.
///
/// Does not verify the signatures, so that the token is measured and not this process.
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
    let reference = key.reference();
    let message = key_proof::challenge();
    let mut times = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        client.sign(&reference, algorithm, &message, DEADLINE)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}
