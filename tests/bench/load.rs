//! The clients: each sends the next request as soon as it has its answer.
//!
//! Requests are made beforehand, bytes and all, and answers are judged afterwards: the load shares
//! its processor cores with the server, so in between it only writes and reads.

use crate::http::Connection;
use crate::process::Machine;
use crate::target::{Prepared, Target};
use anyhow::{Context, ensure};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Certificates of one measurement at most: each waits in memory, with its request.
const CERTIFICATES_MAX: usize = 60_000;

pub(crate) struct Load {
    pub(crate) target: Target,
    runtime: Runtime,
    prepared: usize,
    serials: HashSet<Vec<u8>>,
}

struct Answer {
    request: usize,
    bytes: Vec<u8>,
    latency: Duration,
}

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) certificates: usize,
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Of each process of the server, per certificate.
    pub(crate) server_cpu: Vec<Duration>,
    /// Cores that other programs used, and that the host withheld.
    pub(crate) foreign_cores: f64,
    pub(crate) stolen_cores: f64,
}

impl Taken {
    pub(crate) fn cpu_us(&self) -> f64 {
        1e6 * self.server_cpu.iter().sum::<Duration>().as_secs_f64()
    }
}

impl Load {
    pub(crate) fn new(target: Target) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let load = Self {
            target,
            runtime,
            prepared: 0,
            serials: HashSet::new(),
        };
        let what = format!("{} answers", load.target.name);
        crate::process::wait_until(&what, || load.runtime.block_on(load.connect()).is_ok())?;
        Ok(load)
    }

    /// How many certificates were issued and found good, each with a serial number of its own.
    pub(crate) fn issued(&self) -> usize {
        self.serials.len()
    }

    pub(crate) fn serials(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.serials.iter()
    }

    /// Measures for about `time`, if certificates come at `rate` per second.
    pub(crate) fn measure(
        &mut self,
        rate: f64,
        time: Duration,
        connections: usize,
    ) -> anyhow::Result<Taken> {
        let wanted = (rate * time.as_secs_f64()) as usize;
        let certificates = wanted.clamp(connections, CERTIFICATES_MAX);
        let each = self.target.certificates_per_request();
        self.take(certificates.div_ceil(each), connections)
    }

    /// Measures this many requests.
    pub(crate) fn take(&mut self, requests: usize, connections: usize) -> anyhow::Result<Taken> {
        let numbers: Vec<usize> = (self.prepared..self.prepared + requests).collect();
        self.prepared += requests;
        let requests: Arc<[Prepared]> =
            in_parallel(&numbers, |number| self.target.prepare(*number))?.into();
        let open = self.runtime.block_on(async {
            let mut open = Vec::new();
            for _ in 0..connections {
                open.push(self.connect().await?);
            }
            anyhow::Ok(open)
        })?;
        let before = (self.target.cpu_time()?, Machine::now()?);
        let begun = Instant::now();
        let answers = self.runtime.block_on(run(open, &requests))?;
        let elapsed = begun.elapsed();
        let machine = Machine::now()?.since(&before.1);
        let cpu = self.target.cpu_time()?.since(&before.0);
        let certificates = self.judge(&requests, &answers)?;
        let mut latencies: Vec<_> = answers.iter().map(|answer| answer.latency).collect();
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[latencies.len() * percent / 100];
        let count = u32::try_from(certificates)?;
        Ok(Taken {
            certificates,
            rate: certificates as f64 / elapsed.as_secs_f64(),
            p50: percentile(50),
            p99: percentile(99),
            server_cpu: cpu.servers.iter().map(|it| *it / count).collect(),
            foreign_cores: machine.foreign(&cpu).as_secs_f64() / elapsed.as_secs_f64(),
            stolen_cores: machine.stolen.as_secs_f64() / elapsed.as_secs_f64(),
        })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let target = &self.target;
        Connection::open(target.address, target.tls.as_ref(), target.warm_up()).await
    }

    /// Every answer holds the certificates that its request asked for, with serial numbers that
    /// were never seen before.
    fn judge(&mut self, requests: &[Prepared], answers: &[Answer]) -> anyhow::Result<usize> {
        ensure!(
            answers.len() == requests.len(),
            "a request was not answered"
        );
        let target = &self.target;
        let judged = in_parallel(answers, |answer: &Answer| {
            target.judge(&answer.bytes, &requests[answer.request].subjects)
        })?;
        let mut certificates = 0;
        for serial in judged.into_iter().flatten() {
            ensure!(self.serials.insert(serial), "a serial number came twice");
            certificates += 1;
        }
        Ok(certificates)
    }
}

async fn run(open: Vec<Connection>, requests: &Arc<[Prepared]>) -> anyhow::Result<Vec<Answer>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for connection in open {
        clients.spawn(client(connection, requests.clone(), next.clone()));
    }
    let mut answers = Vec::with_capacity(requests.len());
    while let Some(client) = clients.join_next().await {
        answers.extend(client??);
    }
    Ok(answers)
}

async fn client(
    mut connection: Connection,
    requests: Arc<[Prepared]>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(index) else {
            return Ok(answers);
        };
        let begun = Instant::now();
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, connection.ask(&request.bytes));
        answers.push(Answer {
            request: index,
            bytes: answer.await.context("no answer in time")??,
            latency: begun.elapsed(),
        });
    }
}

/// Maps on all cores, in order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    map: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = std::thread::available_parallelism()?.get();
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let map = &map;
        let workers: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(map).collect()))
            .collect();
        let mut mapped = Vec::with_capacity(items.len());
        for worker in workers {
            let part: anyhow::Result<Vec<R>> = worker.join().expect("no worker panics");
            mapped.extend(part?);
        }
        Ok(mapped)
    })
}
