//! Runs the steps of setup in order, and prints one line for each.
//!
//! Each step first checks the present state, so setup can be stopped anywhere and run again.

use super::answers::{Answers, CredentialStore, Enrollment, GatewayIssuer};
use super::credentials::{self, is_stored, obtain, read_as, remove_as};
use super::files::{Root, Written, put};
use super::machine::{self, User, hallmark, hallmark_json, systemctl};
use super::plan::{ADMIN_SOCKET, NewToken, Origin, Plan, TOKEN_STATE};
use anyhow::{Context, bail};
use hallmark_base::fragment::Fragment;
use hallmark_base::printable;
use rustix::time::{ClockId, clock_gettime};
use secrecy::SecretString;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The user of the workers.
const WORKER_USER: &str = "hallmark-token";
/// Longest wait for the service, its token and its listeners.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// Pause between two checks.
const PERIOD: Duration = Duration::from_millis(200);

/// The plan, the root of its files, and a way to ask for secrets.
pub(super) struct Steps<'a> {
    pub(super) root: Root,
    pub(super) answers: &'a Answers,
    pub(super) plan: &'a Plan,
    pub(super) ask: &'a dyn Fn(&str) -> anyhow::Result<SecretString>,
}

/// Set by `--json`, which prints one object and nothing else on standard output.
pub(super) static PROGRESS_ON_STDERR: AtomicBool = AtomicBool::new(false);

/// Prints one line of progress.
pub(super) fn tell(step: &str, outcome: &str) -> anyhow::Result<()> {
    let line = format!("{step:<14} {outcome}");
    print(&format!("{}\n", printable::line(&line)))
}

fn print(text: &str) -> anyhow::Result<()> {
    let printed = if PROGRESS_ON_STDERR.load(Ordering::Relaxed) {
        printable::err().write_all(text.as_bytes())
    } else {
        printable::out().write_all(text.as_bytes())
    };
    printed.context("cannot say how it went")
}

impl Steps<'_> {
    /// Checks that the package is installed.
    pub(super) fn check_package(&self) -> anyhow::Result<()> {
        let mut targets = self.plan.links.iter().map(|(_, target)| target);
        match targets.find(|it| !self.root.path(it).exists()) {
            Some(missing) => bail!("{} is missing: install the package", missing.display()),
            None => Ok(()),
        }
    }

    /// Writes the configuration and all drop-ins.
    pub(super) fn files(&self) -> anyhow::Result<()> {
        self.root.check(self.plan)?;
        for file in &self.plan.files {
            self.report("file", &file.path, self.root.write(file)?)?;
        }
        for link in &self.plan.links {
            self.report("link", &link.0, self.root.link(link)?)?;
        }
        Ok(())
    }

    fn report(&self, step: &str, path: &Path, written: Written) -> anyhow::Result<()> {
        let path = self.root.path(path);
        let how = match written {
            Written::New => "written",
            Written::There => "is there",
            Written::Edited => "was changed since setup wrote it, and stays",
        };
        tell(step, &format!("{} {how}", path.display()))
    }

    /// Runs the steps on the machine itself. Returns false if an external issuer must act first.
    pub(super) fn machine(&self) -> anyhow::Result<bool> {
        let user = User::named(WORKER_USER)?;
        if let Some(new) = &self.plan.new_token {
            self.token(user, new)?;
        }
        self.credentials(user)?;
        self.units()?;
        self.ceremony()?;
        if !self.is_signed()? {
            return Ok(false);
        }
        self.ready()?;
        self.enrollment()?;
        self.station()?;
        Ok(true)
    }

    /// Makes the SoftHSM token. All work in its folder runs as the user of the workers, because
    /// root must not follow links of that user.
    fn token(&self, user: User, new: &NewToken) -> anyhow::Result<()> {
        let folder = self.root.path(&new.folder);
        let tokens = folder.join("tokens");
        user.make_folder(&self.root.path(TOKEN_STATE))?;
        machine::run(
            user.command("mkdir")
                .args(["-p", "-m", "0700"])
                .arg(&tokens),
        )?;
        let is_made = fs::read_dir(&tokens).is_ok_and(|mut it| it.next().is_some());
        let pin = &self.plan.credentials[0].name;
        if !is_made && is_stored(&self.root, self.plan.store, pin)? {
            bail!(
                "there is no token in {}, but its PIN is stored: bring the folder back, or remove \
                 {} to have another token made",
                tokens.display(),
                credentials::path(self.plan.store, pin).display()
            );
        }
        let family = Fragment::shipped("softhsm2")?;
        let module = family
            .module()
            .context("SoftHSM is not installed: on Debian and Ubuntu, apt install softhsm2")?;
        let mut command = user.command(machine::program("hallmarkd")?);
        command.arg("init-token").arg("--module").arg(module);
        command.args(["--label", &new.label]);
        command.arg("--pin-file").arg(folder.join("pin"));
        command.arg("--so-pin-file").arg(folder.join("so-pin"));
        command.env("SOFTHSM2_CONF", self.root.path(&new.configuration));
        tell("token", machine::run(&mut command)?.trim())
    }

    fn credentials(&self, user: User) -> anyhow::Result<()> {
        let store = self.plan.store;
        let how = match store {
            CredentialStore::Encrypted => "encrypted",
            CredentialStore::Plain => "NOT encrypted",
        };
        for credential in &self.plan.credentials {
            let name = &credential.name;
            let made = match &credential.origin {
                Origin::NewToken(path) if path.exists() => Some(path),
                _ => None,
            };
            if made.is_none() && is_stored(&self.root, store, name)? {
                tell("credential", &format!("{name} is there"))?;
                continue;
            }
            let secret = match made {
                Some(path) => read_as(user, path)?,
                None => obtain(credential, self.ask)?,
            };
            credentials::store(&self.root, store, name, &secret)?;
            if let Some(path) = made {
                remove_as(user, path)?;
            }
            tell("credential", &format!("{name} stored, {how}"))?;
        }
        Ok(())
    }

    /// Enables and starts the service. A service that runs with older files is restarted.
    fn units(&self) -> anyhow::Result<()> {
        let worker = format!("hallmark-token@{}", self.plan.token);
        systemctl(&["daemon-reload"])?;
        if self.runs_with_older_files()? {
            let service = format!("{worker}.service");
            let socket = format!("{worker}.socket");
            systemctl(&[
                "stop",
                "hallmarkd.service",
                "hallmarkd.socket",
                &service,
                &socket,
            ])?;
        }
        let units: Vec<&str> = self.plan.units.iter().map(String::as_str).collect();
        let is = |unit: &str, what| systemctl(&[what, "--quiet", unit]).is_ok();
        let run = units
            .iter()
            .all(|unit| is(unit, "is-active") && is(unit, "is-enabled"));
        if !run {
            systemctl(&[&["enable", "--now"], &units[..]].concat()).with_context(|| {
                format!("the service does not start; see journalctl -u hallmarkd -u {worker}")
            })?;
        }
        let how = if run {
            "enabled and running before"
        } else {
            "enabled and started"
        };
        tell("service", &format!("{how}: {}", units.join(", ")))?;
        let refused = until("the token is ready", || self.look_at_token())
            .with_context(|| format!("see journalctl -u hallmarkd -u {worker}"))?;
        if let Some(reason) = refused {
            // A stored secret is never replaced: keys may depend on it.
            let stored = credentials::path(self.plan.store, &self.plan.credentials[0].name);
            bail!(
                "token {} refuses its PIN or secret: {reason}; if another one is right, remove {} \
                 and run setup again, which obtains it again",
                self.plan.token,
                stored.display()
            );
        }
        tell("token", &format!("{} is ready", self.plan.token))
    }

    /// Returns why the token refuses its PIN, which waiting does not change, or `None` if the token
    /// is ready. Fails in every other state.
    fn look_at_token(&self) -> anyhow::Result<Option<String>> {
        let status = hallmark_json(ADMIN_SOCKET, &["status"])?;
        let token = &status["tokens"][&self.plan.token];
        let reason = token["reason"].as_str().unwrap_or("no reason is known");
        match token["state"].as_str() {
            Some("ready") => Ok(None),
            Some("parked") => Ok(Some(reason.to_owned())),
            state => bail!(
                "token {} is {}: {reason}",
                self.plan.token,
                state.unwrap_or("unknown to the daemon")
            ),
        }
    }

    fn runs_with_older_files(&self) -> anyhow::Result<bool> {
        let property = "--property=ActiveEnterTimestampMonotonic";
        let show = ["show", "--value", property, "hallmarkd.service"];
        let since = systemctl(&show)?.parse().unwrap_or(0);
        if since == 0 || systemctl(&["is-active", "--quiet", "hallmarkd.service"]).is_err() {
            return Ok(false);
        }
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec)?);
        let runs_for = now.saturating_sub(Duration::from_micros(since));
        let store = self.plan.store;
        let secrets = self
            .plan
            .credentials
            .iter()
            .map(|it| credentials::path(store, &it.name));
        let files = self.plan.files.iter().map(|it| it.path.clone());
        let is_newer = |path: std::path::PathBuf| {
            let changed = fs::metadata(self.root.path(path)).and_then(|it| it.modified());
            // A time in the future counts as changed just now.
            changed.is_ok_and(|it| it.elapsed().unwrap_or_default() < runs_for)
        };
        Ok(files.chain(secrets).any(is_newer))
    }

    fn ceremony(&self) -> anyhow::Result<()> {
        let file = self.root.path(super::plan::CEREMONY);
        let transcript = self.root.path(&self.plan.transcript);
        let made = hallmark_json(ADMIN_SOCKET, &["authority", "list"])?;
        let exists = |name: &String| {
            let mut rows = made.as_array().into_iter().flatten();
            rows.any(|row| row["name"] == name.as_str())
        };
        let all = self.plan.authorities.join(", ");
        if self.plan.authorities.iter().all(exists) && transcript.join("transcript.txt").exists() {
            return tell("ceremony", &format!("{all} exist"));
        }
        let file = file.to_string_lossy();
        let folder = transcript.to_string_lossy();
        hallmark(
            ADMIN_SOCKET,
            &["ceremony", "run", &file, "--transcript", &folder],
        )?;
        tell("ceremony", &format!("{all}: made; transcript in {folder}"))
    }

    /// Returns true if every authority has its certificate. Installs an external certificate if its
    /// file exists.
    fn is_signed(&self) -> anyhow::Result<bool> {
        let name = self.answers.issuing_authority();
        if self.answers.issuer != Some(GatewayIssuer::External) {
            return Ok(true);
        }
        let rows = hallmark_json(ADMIN_SOCKET, &["authority", "list"])?;
        let mut rows = rows.as_array().into_iter().flatten();
        if rows.any(|row| row["name"] == name && row["state"] == "serving") {
            tell("certificate", &format!("{name} has its own"))?;
            return Ok(true);
        }
        if let Some(file) = &self.answers.certificate
            && file.exists()
        {
            let path = file.to_string_lossy();
            hallmark(ADMIN_SOCKET, &["authority", "install", name, &path])?;
            tell("certificate", &format!("{name}: {path} installed"))?;
            return Ok(true);
        }
        let csr = format!("/etc/hallmark/{name}.csr");
        let request = hallmark(ADMIN_SOCKET, &["authority", "csr", name])?;
        put(Path::new(&csr), request.as_bytes(), 0o644)?;
        tell(
            "certificate",
            &format!("{name} waits for its issuer: the request is in {csr}"),
        )?;
        Ok(false)
    }

    /// Waits until certificates can be issued.
    fn ready(&self) -> anyhow::Result<()> {
        until("certificates can be issued", || {
            let status = hallmark_json(ADMIN_SOCKET, &["status"])?;
            if status["ready"] == true {
                Ok(())
            } else {
                bail!("not ready; alarms: {}", status["alarms"])
            }
        })?;
        tell("service", "certificates can be issued")
    }

    fn enrollment(&self) -> anyhow::Result<()> {
        let Some(group) = &self.plan.group else {
            return Ok(());
        };
        let known = hallmark_json(ADMIN_SOCKET, &["enrollment", "list"])?;
        let mut rows = known.as_array().into_iter().flatten();
        if rows.any(|row| row["name"] == group.as_str() && row["kind"] == "group") {
            return tell("enrollment", &format!("group {group} is there"));
        }
        let add = ["enrollment", "add", "--group", group, "--authority", group];
        hallmark(ADMIN_SOCKET, &add)?;
        tell(
            "enrollment",
            &format!("group {group} added; `hallmark push list` shows waiting changes"),
        )
    }

    fn station(&self) -> anyhow::Result<()> {
        let station = self.answers.station.as_ref();
        let Some((name, (csr, out))) = station.and_then(|it| Some((&it.name, it.files()?))) else {
            return Ok(());
        };
        let csr = self.root.path(csr);
        let out = self.root.path(out);
        if out.exists() {
            return tell("station", &format!("{name}: {} is there", out.display()));
        }
        let csr = csr.to_string_lossy();
        let path = out.to_string_lossy();
        let issue = [
            "issue",
            "--profile",
            "station",
            "--id",
            name,
            "--csr",
            &csr,
            "--out",
            &path,
        ];
        hallmark(ADMIN_SOCKET, &issue)?;
        tell(
            "station",
            &format!("{name}: certificate and chain in {path}"),
        )
    }
}

/// Waits until `look` succeeds, and fails with its last error.
fn until<T>(what: &str, look: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() > READY_DEADLINE => {
                let seconds = READY_DEADLINE.as_secs();
                return Err(error.context(format!("{what}: not within {seconds} s")));
            }
            Err(_) => std::thread::sleep(PERIOD),
        }
    }
}

/// Prints the status and the next commands.
pub(super) fn farewell(answers: &Answers) -> anyhow::Result<()> {
    let status = hallmark(ADMIN_SOCKET, &["status"])?;
    let mut next = vec!["hallmark issue --profile station --id ID --csr FILE --out FILE"];
    if answers.issuer != Some(GatewayIssuer::External) {
        // Clients and the provisioning service's portal must trust this certificate.
        next.push("hallmark authority show root --pem >root.pem");
    }
    if answers.enrollment == Enrollment::Individual {
        next.push("hallmark enrollment add --individual ID");
    }
    next.extend(["hallmark backup create", "journalctl -u hallmarkd -f"]);
    let next = next.join("\n  ");
    print(&format!("\n{status}\nNext:\n  {next}\n"))
}

/// Prints what is missing before setup can end.
pub(super) fn come_back(answers: &Answers) -> anyhow::Result<()> {
    let name = answers.issuing_authority();
    print(&format!(
        "\nNext: carry the request to the issuer. With its answer, the certificate and those above \
         it:\n  hallmark authority install {name} FILE\n  hallmark setup\n"
    ))
}

/// Checks the machine before any question.
pub(super) fn check_machine() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("setup changes the machine: run it as root, or give --root DIR to write elsewhere");
    }
    if !Path::new("/run/systemd/system").exists() {
        bail!("this machine is not run by systemd: give --root DIR to write the files elsewhere");
    }
    Ok(())
}
