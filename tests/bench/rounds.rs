//! Interleaved rounds: in each, every contestant is measured next to the others.
//!
//! The speed of a shared machine changes within minutes, so ratios are made within a round. A
//! measurement during which other programs used 0.15 core or more is dropped.

use crate::hallmark::Plant;
use crate::load::{Load, Taken};
use crate::process::{CpuTime, Machine};
use crate::raw::RawSigner;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Cores of other programs at which a measurement is dropped.
pub(crate) const FOREIGN_CORES_MAX: f64 = 0.15;
/// Requests for each connection that warm up a contestant, and show its rate.
const WARM_UP: usize = 12;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Rounds that are to be kept, of each contestant.
    pub(crate) rounds: usize,
    /// Rounds that are measured at most for that.
    pub(crate) tries: usize,
    pub(crate) raw: Duration,
    pub(crate) load: Duration,
}

/// A thing that is measured.
pub(crate) enum Contestant<'a> {
    Raw(RawSigner),
    /// The token as the daemon's own bench measures it, for a token that only one process can use.
    TokenBench(&'a Plant),
    Served(&'a mut Load),
}

impl Contestant<'_> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Raw(_) => "C_Sign",
            Self::TokenBench(_) => "the token alone",
            Self::Served(load) => load.target.name,
        }
    }

    fn measure(
        &mut self,
        extent: &Extent,
        rate: Option<f64>,
        connections: usize,
    ) -> anyhow::Result<Taken> {
        match self {
            Self::Raw(signer) => {
                let process = signer.id();
                observed(&[process], extent.raw, || signer.rate(extent.raw))
            }
            Self::TokenBench(plant) => {
                let processes = plant.processes()?;
                observed(&processes, extent.raw, || token_rate(plant, extent.raw))
            }
            Self::Served(load) => match rate {
                Some(rate) => load.measure(rate, extent.load, connections),
                None => load.take(WARM_UP * connections, connections),
            },
        }
    }
}

/// The rate that `measure` returns, with the load of other programs during that time.
fn observed(
    processes: &[u32],
    time: Duration,
    measure: impl FnOnce() -> anyhow::Result<f64>,
) -> anyhow::Result<Taken> {
    let before = (CpuTime::of(processes)?, Machine::now()?);
    let begun = Instant::now();
    let rate = measure()?;
    let elapsed = begun.elapsed().as_secs_f64();
    let machine = Machine::now()?.since(&before.1);
    let cpu = CpuTime::of(processes)?.since(&before.0);
    let signatures = rate * time.as_secs_f64();
    Ok(Taken {
        certificates: signatures as usize,
        rate,
        p50: Duration::ZERO,
        p99: Duration::ZERO,
        server_cpu: cpu
            .servers
            .iter()
            .map(|it| it.div_f64(signatures.max(1.0)))
            .collect(),
        foreign_cores: machine.foreign(&cpu).as_secs_f64() / elapsed,
        stolen_cores: machine.stolen.as_secs_f64() / elapsed,
    })
}

fn token_rate(plant: &Plant, time: Duration) -> anyhow::Result<f64> {
    let seconds = time.as_secs().clamp(1, 20).to_string();
    let bench = ["--json", "token", "bench", "bench", "--key-type", "p256"];
    let answer = plant.hallmark(&[&bench[..], &["--seconds", &seconds]].concat())?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let rates = answer["rows"].as_array().into_iter().flatten();
    let rates = rates.filter_map(|it| it["signatures_per_second"].as_f64());
    rates
        .reduce(f64::max)
        .ok_or_else(|| anyhow::anyhow!("no rate in {answer}"))
}

/// The measurements of one contestant at one number of connections, a round each.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) rounds: Vec<Taken>,
}

/// All series of a set of rounds.
pub(crate) struct Rounds(pub(crate) Vec<Series>);

impl Rounds {
    /// Measures all contestants at each number of connections.
    pub(crate) fn of(
        extent: &Extent,
        contestants: &mut [Contestant<'_>],
        connections: &[usize],
    ) -> anyhow::Result<Self> {
        let mut rates = BTreeMap::new();
        for &count in connections {
            for contestant in contestants.iter_mut() {
                let taken = contestant.measure(extent, None, count)?;
                rates.insert((count, contestant.name()), taken.rate);
            }
        }
        let mut rounds = Self(Vec::new());
        for number in 0..extent.tries {
            for &count in connections {
                for index in 0..contestants.len() {
                    let place = (index + number) % contestants.len();
                    let contestant = &mut contestants[place];
                    let name = contestant.name();
                    let rate = rates.get(&(count, name)).copied();
                    let taken = contestant.measure(extent, rate.or(Some(1.0)), count)?;
                    rates.insert((count, name), taken.rate);
                    say(number, count, name, &taken);
                    rounds.add(name, count, taken);
                }
            }
            if rounds.complete() >= extent.rounds {
                break;
            }
        }
        Ok(rounds)
    }

    fn add(&mut self, name: &'static str, connections: usize, taken: Taken) {
        let found = self
            .0
            .iter_mut()
            .find(|it| (it.name, it.connections) == (name, connections));
        match found {
            Some(series) => series.rounds.push(taken),
            None => self.0.push(Series {
                name,
                connections,
                rounds: vec![taken],
            }),
        }
    }

    /// How many rounds every series has without one that is dropped.
    fn complete(&self) -> usize {
        let kept = self
            .0
            .iter()
            .map(|it| it.rounds.iter().filter(|it| is_kept(it)).count());
        kept.min().unwrap_or_default()
    }

    pub(crate) fn series(&self, name: &str, connections: usize) -> Option<&Series> {
        let is_it = |it: &&Series| (it.name, it.connections) == (name, connections);
        self.0.iter().find(is_it)
    }

    /// The ratio of two series, made within each round that keeps both.
    pub(crate) fn ratio(
        &self,
        [above, below]: [&str; 2],
        connections: usize,
        value: fn(&Taken) -> f64,
    ) -> Option<Spread> {
        let above = &self.series(above, connections)?.rounds;
        let below = &self.series(below, connections)?.rounds;
        let both = above.iter().zip(below);
        let kept = both.filter(|(above, below)| is_kept(above) && is_kept(below));
        Spread::of(kept.map(|(above, below)| value(above) / value(below)))
    }

    pub(crate) fn dropped(&self) -> usize {
        self.0
            .iter()
            .flat_map(|it| &it.rounds)
            .filter(|it| !is_kept(it))
            .count()
    }

    pub(crate) fn measured(&self) -> usize {
        self.0.iter().map(|it| it.rounds.len()).sum()
    }
}

impl Series {
    pub(crate) fn spread(&self, value: fn(&Taken) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter(|it| is_kept(it)).map(value))
    }
}

pub(crate) fn is_kept(taken: &Taken) -> bool {
    taken.foreign_cores < FOREIGN_CORES_MAX
}

/// Median, least and greatest of some rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
    pub(crate) rounds: usize,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            least: *values.first()?,
            greatest: *values.last()?,
            rounds: values.len(),
        })
    }
}

fn say(number: usize, connections: usize, name: &str, taken: &Taken) {
    let dropped = if is_kept(taken) { "" } else { ", dropped" };
    crate::say(&format!(
        "round {}, {connections:>2} connections, {name}: {:.0}/s, foreign load {:.2} core{dropped}",
        number + 1,
        taken.rate,
        taken.foreign_cores
    ));
}
