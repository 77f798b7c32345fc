//! Checks the machine: clock, disk, ports, the sandbox of the service, and versions.

use super::check::Check;
use super::finding::Finding;
use super::{ListenerAddresses, Visit};
use crate::ca::issuer::clock::ClockPolicy;
use crate::unix_seconds::UnixSeconds;
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// After how long without a synchronisation that needs attention. systemd-timesyncd polls every 34
/// minutes at most.
const SYNCHRONISED_SECONDS_MAX: i64 = 24 * 3600;
/// Less room than this needs attention.
const ROOM_BYTES_MIN: u64 = 64 << 20;
/// With less the store is about to fail.
const ROOM_BYTES_LAST: u64 = 4 << 20;
/// Fewer free inodes than this need attention.
const INODES_MIN: u64 = 64;
/// How many bytes the measured write has.
const WRITE_BYTES: usize = 4096;
/// The fastest of so many writes counts: others use the disk, too.
const WRITES: usize = 3;
/// A slower write makes each answer of the API late.
const WRITE_MAX: Duration = Duration::from_millis(250);
/// How long the measured writes may take together.
const WRITE_BOUND: Duration = Duration::from_secs(5);
/// Whether the writes of a run have not come to the disk yet, in this process.
static WRITING: AtomicBool = AtomicBool::new(false);
/// How long a connection to an own listener may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// For so long a listener must keep a connection that has sent nothing.
const KEPT_MIN: Duration = Duration::from_millis(300);

impl Visit<'_> {
    pub(super) fn clock(&self) -> Finding {
        let issuer = self.ca.issuer();
        match issuer.clock_doubt() {
            Some(doubt) => Finding::failed(Check::Clock, doubt),
            None => synchronisation(issuer.clock_policy(), issuer.now()),
        }
    }

    pub(super) fn disk(&self) -> Vec<Finding> {
        let database = self.ca.store().path();
        let folder = database.parent().unwrap_or(Path::new(".")).to_owned();
        let room = room(&folder);
        vec![
            room,
            within(WRITE_BOUND, &WRITING, move || speed(&folder)).of("speed"),
        ]
    }

    pub(super) fn ports(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = ports(self.listeners);
        findings.push(Finding::ok(Check::Ports, "it has answered this request").of("admin socket"));
        findings
    }

    pub(super) fn versions(&self) -> Vec<Finding> {
        let own = env!("CARGO_PKG_VERSION");
        let mut findings = vec![daemon_version(own)];
        if let Some(client) = &self.request.client {
            findings.push(same_version(own, client).of("hallmark"));
        }
        for (name, token) in self.ca.issuer().tokens() {
            let worker = token.client.health().version;
            let finding = match worker.as_str() {
                "" => Finding::not_applicable(Check::Versions, "no worker is connected"),
                worker => same_version(own, worker),
            };
            findings.push(finding.of(format!("worker {name}")));
        }
        let schema = match self.ca.store().schema_version() {
            Ok(version) => Finding::ok(Check::Versions, format!("version {version}, the newest")),
            Err(error) => Finding::failed(Check::Versions, error.to_string()),
        };
        findings.push(schema.of("schema"));
        findings
    }
}

/// Judges when a clock that is believed was synchronised.
fn synchronisation(policy: &ClockPolicy, now: UnixSeconds) -> Finding {
    let file = &policy.synchronised_file;
    let has_service = file.parent().is_some_and(Path::exists);
    match policy.synchronised_at() {
        Some(at) if now - at > SYNCHRONISED_SECONDS_MAX => {
            let text = format!("it is believed, and was last synchronised at {at}");
            Finding::attention(Check::Clock, text)
        }
        Some(at) => Finding::ok(Check::Clock, format!("believed; synchronised at {at}")),
        None if has_service => {
            let text = format!(
                "it is believed, and was not synchronised since the machine started: no {}",
                file.display()
            );
            Finding::attention(Check::Clock, text)
        }
        None => {
            let text = format!(
                "believed; no time service here writes {}, so it is not known when it was \
                 synchronised",
                file.display()
            );
            Finding::unknown(Check::Clock, text)
        }
    }
}

/// Judges how much room the disk of a folder has for this user.
pub fn room(folder: &Path) -> Finding {
    // The folder may be made by the first start.
    let folder = folder.ancestors().find(|it| it.exists()).unwrap_or(folder);
    let found = match statvfs(folder) {
        Ok(found) => found,
        Err(error) => {
            let text = format!("{} cannot be read: {error}", folder.display());
            return Finding::failed(Check::Disk, text).of("room");
        }
    };
    let bytes = found.f_bavail.saturating_mul(found.f_frsize);
    let text = format!(
        "{} MiB are free on the disk of {}",
        bytes >> 20,
        folder.display()
    );
    // Some file systems have no fixed number of inodes, and report none.
    let lacks_inodes = found.f_files > 0 && found.f_favail < INODES_MIN;
    let finding = if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let text = format!("the disk of {} is mounted read-only", folder.display());
        Finding::failed(Check::Disk, text)
    } else if bytes < ROOM_BYTES_LAST {
        Finding::failed(Check::Disk, text)
    } else if bytes < ROOM_BYTES_MIN || lacks_inodes {
        let text = format!("{text}, for {} files", found.f_favail);
        Finding::attention(Check::Disk, text)
    } else {
        Finding::ok(Check::Disk, text)
    };
    finding.of("room")
}

/// Has another thread write, because a disk that is away makes a write wait without end, and
/// nothing can end that thread. `under_way` is set as long as it works, and no second one is begun.
fn within(
    bound: Duration,
    under_way: &'static AtomicBool,
    write: impl FnOnce() -> Finding + Send + 'static,
) -> Finding {
    if under_way.swap(true, Ordering::AcqRel) {
        let text = "a write that an earlier run began is not on the disk yet";
        return Finding::failed(Check::Disk, text);
    }
    let (sender, written) = mpsc::channel();
    thread::spawn(move || {
        let finding = write();
        under_way.store(false, Ordering::Release);
        // The run may have ended before.
        let _ = sender.send(finding);
    });
    written.recv_timeout(bound).unwrap_or_else(|_| {
        let seconds = bound.as_secs();
        let text =
            format!("a write is not on the disk after {seconds} s; commits wait for it, too");
        Finding::failed(Check::Disk, text)
    })
}

/// Measures one write that is on the disk, as each commit of the store is. The file has no name,
/// so a crash leaves nothing.
fn speed(folder: &Path) -> Finding {
    match fastest_write(folder) {
        Ok(fastest) if fastest > WRITE_MAX => {
            let text = format!(
                "a write takes {} ms until it is on the disk, and each commit waits for one",
                fastest.as_millis()
            );
            Finding::attention(Check::Disk, text)
        }
        Ok(fastest) => {
            let milliseconds = fastest.as_secs_f64() * 1e3;
            let text = format!("a write takes {milliseconds:.1} ms until it is on the disk");
            Finding::ok(Check::Disk, text)
        }
        Err(error) => {
            let text = format!("no file can be written in {}: {error}", folder.display());
            Finding::failed(Check::Disk, text)
        }
    }
}

fn fastest_write(folder: &Path) -> io::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut fastest = Duration::MAX;
    for _ in 0..WRITES {
        let begun = Instant::now();
        file.write_all(&[0; WRITE_BYTES])?;
        file.sync_all()?;
        fastest = fastest.min(begun.elapsed());
    }
    Ok(fastest)
}

fn ports(listeners: &ListenerAddresses) -> Vec<Finding> {
    let findings = listeners.iter().map(|(name, address)| {
        let finding = match address {
            None => Finding::not_applicable(Check::Ports, "the configuration has no such listener"),
            Some(address) => Finding::from_result(Check::Ports, keeps_connection(*address)),
        };
        finding.of(*name)
    });
    findings.collect()
}

/// Connects as a client of this machine does, and sends nothing.
fn keeps_connection(address: SocketAddr) -> Result<String, String> {
    let reached = reachable(address);
    let failed = |error: &io::Error| format!("{address} does not accept connections: {error}");
    let mut stream =
        TcpStream::connect_timeout(&reached, CONNECT_MAX).map_err(|error| failed(&error))?;
    let timeout = stream.set_read_timeout(Some(KEPT_MIN));
    timeout.map_err(|error| failed(&error))?;
    match stream.read(&mut [0]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(format!("{address} accepts connections"))
        }
        _ => Err(format!(
            "{address} closes new connections of this machine at once"
        )),
    }
}

/// Returns the address at which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Judges the sandbox of this process, if it is a service of systemd: its effects, because drop-ins
/// may change the unit.
pub(super) fn unit_of_this_process() -> Finding {
    // systemd sets it for each start of a service (systemd.exec(5)).
    if std::env::var_os("INVOCATION_ID").is_none() {
        let text = "this daemon is no service of systemd";
        return Finding::not_applicable(Check::Unit, text);
    }
    let status = match fs::read_to_string("/proc/self/status") {
        Ok(status) => status,
        Err(error) => {
            let text = format!("/proc/self/status cannot be read: {error}");
            return Finding::attention(Check::Unit, text);
        }
    };
    let usr = statvfs("/usr").map(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY));
    unit(&status, usr.unwrap_or(false))
}

/// Judges a process by its `/proc/PID/status` (proc_pid_status(5)).
fn unit(status: &str, usr_is_read_only: bool) -> Finding {
    let field = |name: &str| {
        let lines = status.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| *key == name).map(|it| it.1.trim());
        values.next().unwrap_or_default()
    };
    let uid = field("Uid").split_whitespace().next();
    let no_capability = |name| field(name).trim_start_matches('0').is_empty();
    let weak: Vec<&str> = [
        (uid != Some("0"), "it runs as root (User=)"),
        (
            field("NoNewPrivs") == "1",
            "it may gain privileges (NoNewPrivileges=)",
        ),
        (
            field("Seccomp") == "2",
            "it may make every system call (SystemCallFilter=)",
        ),
        (
            no_capability("CapEff") && no_capability("CapBnd"),
            "it has capabilities (CapabilityBoundingSet=)",
        ),
        (usr_is_read_only, "it may write to /usr (ProtectSystem=)"),
    ]
    .into_iter()
    .filter(|(is_good, _)| !is_good)
    .map(|(_, weakness)| weakness)
    .collect();
    if weak.is_empty() {
        let text =
            "no root, no capability, no new privileges, system calls filtered, /usr read-only";
        return Finding::ok(Check::Unit, text);
    }
    Finding::attention(Check::Unit, weak.join("; "))
}

fn daemon_version(own: &str) -> Finding {
    let program = fs::read_link("/proc/self/exe");
    // The kernel marks a program whose file was removed or replaced (proc_pid_exe(5)).
    let is_replaced = program.is_ok_and(|it| it.to_string_lossy().ends_with(" (deleted)"));
    let finding = if is_replaced {
        let text = format!("{own} runs, and its file was replaced since the start");
        Finding::attention(Check::Versions, text)
    } else {
        Finding::ok(Check::Versions, own)
    };
    finding.of("hallmarkd")
}

fn same_version(own: &str, other: &str) -> Finding {
    if own == other {
        return Finding::ok(Check::Versions, other);
    }
    Finding::attention(
        Check::Versions,
        format!("it is {other}, and the daemon is {own}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    const SANDBOXED: &str = "Uid:\t998\t998\t998\t998\nCapEff:\t0000000000000000\n\
                             CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn each_weakness_of_a_unit_is_named() {
        assert_eq!(unit(SANDBOXED, true).verdict, Verdict::Ok);
        for (from, to, setting) in [
            ("Uid:\t998", "Uid:\t0", "User="),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivileges="),
            ("Seccomp:\t2", "Seccomp:\t0", "SystemCallFilter="),
            ("CapBnd:\t0", "CapBnd:\t1", "CapabilityBoundingSet="),
        ] {
            let finding = unit(&SANDBOXED.replacen(from, to, 1), true);
            assert_eq!(finding.verdict, Verdict::Attention, "{from}");
            assert!(finding.text.contains(setting), "{}", finding.text);
        }
        assert!(unit(SANDBOXED, false).text.contains("ProtectSystem="));
        assert_eq!(unit("", true).verdict, Verdict::Attention);
    }

    /// Verifies: a write that hangs ends the check in time, a second run begins no other one, and
    /// the check is made again once the write has ended.
    #[test]
    fn a_write_that_hangs_does_not_hold_the_check() {
        static UNDER_WAY: AtomicBool = AtomicBool::new(false);
        let bound = Duration::from_millis(50);
        let good = || Finding::ok(Check::Disk, "written");
        let (disk_is_back, waits) = mpsc::channel::<()>();
        let begun = Instant::now();
        let hangs = move || {
            let _ = waits.recv();
            Finding::ok(Check::Disk, "late")
        };
        let found = within(bound, &UNDER_WAY, hangs);
        assert_eq!(found.verdict, Verdict::Failed);
        assert!(begun.elapsed() < Duration::from_secs(5));
        let found = within(bound, &UNDER_WAY, || panic!("a second write"));
        assert_eq!(found.verdict, Verdict::Failed);
        assert!(found.text.contains("an earlier run"), "{}", found.text);
        disk_is_back.send(()).expect("the write waits");
        while UNDER_WAY.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let found = within(Duration::from_secs(60), &UNDER_WAY, good);
        assert_eq!(found.verdict, Verdict::Ok, "{}", found.text);
    }

    #[test]
    fn a_clock_without_a_time_service_is_unknown() {
        let policy = ClockPolicy {
            synchronised_file: "/nonexistent/timesync/synchronized".into(),
            ..ClockPolicy::default()
        };
        let found = synchronisation(&policy, UnixSeconds::new(0));
        assert_eq!(found.verdict, Verdict::Unknown, "{}", found.text);
    }

    #[test]
    fn another_version_needs_attention() {
        assert_eq!(same_version("1.2.3", "1.2.3").verdict, Verdict::Ok);
        let finding = same_version("1.2.3", "1.2.2");
        assert_eq!(finding.verdict, Verdict::Attention);
        assert!(finding.text.contains("it is 1.2.2"), "{}", finding.text);
    }

    #[test]
    fn a_wildcard_address_is_reached_over_loopback() {
        for (bound, reached) in [
            ("0.0.0.0:8443", "127.0.0.1:8443"),
            ("[::]:8443", "[::1]:8443"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            let bound = bound.parse().expect("an address");
            assert_eq!(reachable(bound).to_string(), reached);
        }
    }
}
