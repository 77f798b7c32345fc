//! How fast a token signs through its worker, for `hallmark token bench`.
//!
//! It signs test messages only (see `proof`), which can never pass for a certificate.

use super::client::TokenClient;
use super::{KeyDescription, TokenError, proof};
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
        Ok(times)
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
    let Some(algorithm) = proof::algorithm_of(&key.spki) else {
        return Ok(Vec::new());
    };
    let (reference, message) = (key.reference(), proof::challenge());
    let mut times = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        client.sign(&reference, algorithm, &message, DEADLINE)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}
