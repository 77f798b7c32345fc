//! Child processes of the bench, the processor time that they use, and that of all others.

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Unit of the times in `/proc`: USER_HZ, which is 100 wherever Linux runs.
const CPU_TICK: Duration = Duration::from_millis(10);

/// A process that is stopped with its owner.
pub(crate) struct Running(Child);

impl Running {
    /// Starts `command`; its output goes into the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        let program = command.get_program().to_owned();
        Ok(Self(
            child.with_context(|| format!("cannot start {program:?}"))?,
        ))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, and insists when it does not.
    pub(crate) fn stop(&mut self) {
        if let Ok(Some(_)) = self.0.try_wait() {
            return;
        }
        terminate(self.id());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks a process that the bench has started to end.
pub(crate) fn terminate(process: u32) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let Some(process) = process {
        let _ = kill_process(process, Signal::TERM);
    }
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        ensure!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Runs a command to its end, which must be success; returns its output.
pub(crate) fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{:?}: {}", command.get_program(), reason.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A port that is free at this moment.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A child of any thread of this process.
pub(crate) fn child_of(process: u32) -> anyhow::Result<Option<u32>> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(Some(child.parse()?));
        }
    }
    Ok(None)
}

/// Resident and proportional memory of a process, in KiB.
pub(crate) fn memory_of(process: u32) -> anyhow::Result<[u64; 2]> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|it| it.split_whitespace().next());
        anyhow::Ok(value.context("no such field")?.parse()?)
    };
    Ok([field("Rss:")?, field("Pss:")?])
}

/// Processor time of a server's processes and of this one: all of it, or between two moments.
pub(crate) struct CpuTime {
    pub(crate) servers: Vec<Duration>,
    load: Duration,
}

impl CpuTime {
    pub(crate) fn of(processes: &[u32]) -> anyhow::Result<Self> {
        let servers = processes.iter().map(|it| cpu_time_of(*it));
        Ok(Self {
            servers: servers.collect::<anyhow::Result<_>>()?,
            load: cpu_time_of(std::process::id())?,
        })
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        let pairs = self.servers.iter().zip(&before.servers);
        Self {
            servers: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
            load: self.load.saturating_sub(before.load),
        }
    }
}

/// Processor time of all programs, and time that the host of a virtual machine has withheld.
pub(crate) struct Machine {
    busy: Duration,
    pub(crate) stolen: Duration,
}

impl Machine {
    /// proc(5): the first line of `/proc/stat`.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u32> = ticks
            .split_whitespace()
            .skip(1)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
            bail!("/proc/stat is too short");
        };
        Ok(Self {
            busy: CPU_TICK * (user + nice + system + irq + softirq),
            stolen: CPU_TICK * steal,
        })
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }

    /// Time of programs that are neither the server nor this one.
    pub(crate) fn foreign(&self, ours: &CpuTime) -> Duration {
        let ours = ours.servers.iter().sum::<Duration>() + ours.load;
        self.busy.saturating_sub(ours)
    }
}

/// User and system time of a process (proc(5): fields 14 and 15 of `stat`).
fn cpu_time_of(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
    let ticks = |field: usize| -> anyhow::Result<u32> {
        let text = fields.split_whitespace().nth(field - 3);
        Ok(text.context("stat is too short")?.parse()?)
    };
    Ok(CPU_TICK * (ticks(14)? + ticks(15)?))
}
