//! Runs the programs that do the work of setup: `systemctl`, `systemd-creds`, and ours.
//!
//! A secret passes through standard input or output, never through a command line or an
//! environment.

use anyhow::{Context, bail};
use hallmark_base::files;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// Returns the path of a program of this release, in the folder of this program.
pub(super) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    Ok(own.with_file_name(name))
}

/// Runs `command`, and returns its standard output. An error has the command and its standard
/// error.
pub(super) fn run(command: &mut Command) -> anyhow::Result<Zeroizing<String>> {
    run_with(command, b"")
}

/// Runs `command` with `input` on its standard input, like [`run`].
pub(super) fn run_with(command: &mut Command, input: &[u8]) -> anyhow::Result<Zeroizing<String>> {
    let line = shown(command);
    // Errors are for operators, without a backtrace.
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("`{line}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input fails by itself, or does not need it.
        let _ = stdin.write_all(input);
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("`{line}`"))?;
    let out = Zeroizing::new(String::from_utf8_lossy(&output.stdout).into_owned());
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let message: Vec<&str> = error.split_whitespace().collect();
        bail!("`{line}` failed: {}", message.join(" "));
    }
    Ok(out)
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let arguments = command.get_args().map(|it| it.to_string_lossy());
    let words: Vec<_> = std::iter::once(name).chain(arguments).collect();
    words.join(" ")
}

/// Runs a hidden command of `hallmarkd` that answers in JSON. An answer of `{"refused": "…"}` is an
/// error with this text.
pub(crate) fn ask_hallmarkd(arguments: &[&OsStr], input: &[u8]) -> anyhow::Result<Value> {
    let mut command = Command::new(program("hallmarkd")?);
    let out = run_with(command.args(arguments), input)?;
    accepted(serde_json::from_str(&out).context("`hallmarkd` did not answer in JSON")?)
}

/// The same for one that writes a line of JSON for each step before its answer: `step` gets these.
pub(crate) fn follow_hallmarkd(
    arguments: &[&OsStr],
    mut step: impl FnMut(&Value),
) -> anyhow::Result<Value> {
    let mut command = Command::new(program("hallmarkd")?);
    command.args(arguments).env("RUST_BACKTRACE", "0");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let line = shown(&command);
    let mut child = command.spawn().with_context(|| format!("`{line}`"))?;
    let mut last = None;
    for read in child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufReader::lines)
    {
        let read = read.with_context(|| format!("`{line}`"))?;
        let answer = serde_json::from_str(&read).context("`hallmarkd` did not answer in JSON")?;
        if let Some(earlier) = last.replace(answer) {
            step(&earlier);
        }
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("`{line}`"))?;
    let Some(answer) = last.filter(|_| output.status.success()) else {
        let error = String::from_utf8_lossy(&output.stderr);
        let message: Vec<&str> = error.split_whitespace().collect();
        bail!("`{line}` failed: {}", message.join(" "));
    };
    accepted(answer)
}

/// An answer of `{"refused": "…"}` is an error with this text.
fn accepted(answer: Value) -> anyhow::Result<Value> {
    match answer["refused"].as_str() {
        Some(reason) => bail!("{reason}"),
        None => Ok(answer),
    }
}

pub(super) fn systemctl(arguments: &[&str]) -> anyhow::Result<String> {
    let out = run(Command::new("systemctl").args(arguments))?;
    Ok(out.trim().to_owned())
}

/// Runs `hallmark` over the admin socket, as an operator would.
pub(super) fn hallmark(socket: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program("hallmark")?);
    command.args(["--admin-socket", socket]).args(arguments);
    Ok(run(&mut command)?.to_string())
}

/// Runs `hallmark --json`, and returns the answer.
pub(super) fn hallmark_json(socket: &str, arguments: &[&str]) -> anyhow::Result<Value> {
    let out = hallmark(socket, &[&["--json"], arguments].concat())?;
    serde_json::from_str(&out).context("`hallmark` answers something else than JSON")
}

/// A user of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Looks up a user by name.
    pub(super) fn named(name: &str) -> anyhow::Result<Self> {
        let id = |which: &str| -> anyhow::Result<u32> {
            let out = run(Command::new("id").args([which, name]));
            let out = out.with_context(|| {
                format!("there is no user {name}: install the package, or run systemd-sysusers")
            })?;
            out.trim().parse().context("`id` printed no number")
        };
        Ok(Self {
            uid: id("-u")?,
            gid: id("-g")?,
        })
    }

    /// Returns a command that runs as this user, without other groups.
    pub(super) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid).current_dir("/");
        command
    }

    /// Makes a folder that belongs to this user, in a folder of root's.
    pub(super) fn make_folder(self, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("cannot make {}", path.display());
        match files::make_new_folder(path, 0o700) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            made => made.with_context(failed)?,
        }
        files::give_folder(path, self.uid, self.gid).with_context(failed)
    }
}

/// Encrypts a secret with `systemd-creds encrypt`, for this machine and the credential `name`
/// alone. The result is bound to no PCR, because an update of the firmware must not lock the keys.
pub(super) fn encrypt(name: &str, secret: &SecretString) -> anyhow::Result<Zeroizing<String>> {
    let mut command = Command::new("systemd-creds");
    command.arg("encrypt").arg(format!("--name={name}"));
    command.arg("--tpm2-pcrs=");
    run_with(command.args(["-", "-"]), secret.expose_secret().as_bytes())
}
