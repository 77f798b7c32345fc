//! Runs `hallmark setup`, which makes a working service of an installed package.
//!
//! Setup asks questions or reads answers, plans, writes the planned files, stores credentials,
//! starts the units, runs the ceremony and issues the first certificate. It uses only public
//! commands of the daemon, keeps no state besides the files it writes, and never overwrites a
//! secret or a file that it has not written.

pub mod answers;
mod credentials;
mod document;
mod files;
mod hidden_line;
mod interview;
pub(crate) mod machine;
pub mod plan;
mod steps;

use answers::{Answers, CredentialStore};
use anyhow::{Context, anyhow, bail};
use files::{Root, read};
use hallmark_base::files as checked;
use machine::ask_hallmarkd;
use plan::{CEREMONY, CONFIGURATION, Plan};
use rustix::fs::{FlockOperation, Mode, flock};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use steps::{Steps, tell};

/// Longest file of answers, in bytes.
const ANSWERS_BYTES_MAX: u64 = 1024 * 1024;
/// The answers so far, with which setup resumes.
const ANSWERS: &str = "/etc/hallmark/setup.toml";
/// Longest wait for another setup to end: a killed process needs a moment.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const LOCK_PERIOD: Duration = Duration::from_millis(50);

/// Asks for a secret at the terminal, without showing it.
pub(crate) fn ask_secret(what: &str) -> anyhow::Result<SecretString> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        bail!("there is no terminal to ask on for {what}");
    }
    hidden_line::ask(what)
}

/// Options of `hallmark setup`.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file with answers, instead of asking.
    pub answers: Option<PathBuf>,
    /// A folder below which the files are written, instead of this machine.
    pub root: Option<PathBuf>,
    /// Progress goes to standard error: standard output is for one JSON object.
    pub quiet: bool,
}

/// The reason why setup stopped.
#[derive(Debug)]
pub enum Stop {
    /// The command line is wrong.
    Usage(String),
    /// A step failed; the error says how to correct it.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

/// Runs setup.
pub fn run(options: &Options) -> Result<(), Stop> {
    // Other users read the files that setup writes; secrets get a narrower mode.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    steps::PROGRESS_ON_STDERR.store(options.quiet, Ordering::Relaxed);
    let root = Root::new(options.root.as_deref());
    if options.root.is_none() {
        steps::check_machine()?;
    }
    let folder = root.path("/etc/hallmark");
    checked::make_folder(&folder, 0o755)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let _lock = take(&folder)?;
    let answers = answers(options, &root)?;
    let store = store(&answers, options, &root)?;
    let from = options
        .answers
        .clone()
        .unwrap_or_else(|| root.path(ANSWERS));
    let plan = plan::plan(&answers, store).map_err(|problem| anyhow!(problem));
    let plan = plan.and_then(|plan| check(&plan).map(|()| plan));
    let plan = plan.with_context(|| format!("correct {}, and run setup again", from.display()))?;
    let steps = Steps {
        root: root.clone(),
        answers: &answers,
        plan: &plan,
        ask: &interview::secret,
    };
    if options.root.is_some() {
        steps.files()?;
        tell("", "the rest is for `hallmark setup` on the machine itself")?;
        return Ok(());
    }
    steps.check_package()?;
    steps.files()?;
    if steps.machine()? {
        steps::farewell(&answers)?
    } else {
        steps::come_back(&answers)?
    }
    Ok(())
}

/// Takes the lock that admits one setup at a time. It is held while the file is open.
fn take(folder: &Path) -> anyhow::Result<File> {
    let lock = checked::open_folder(folder)?;
    let begun = Instant::now();
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if begun.elapsed() > LOCK_DEADLINE {
            bail!("another setup is at work: wait for it");
        }
        std::thread::sleep(LOCK_PERIOD);
    }
    Ok(lock)
}

fn answers(options: &Options, root: &Root) -> Result<Answers, Stop> {
    let kept = root.path(ANSWERS);
    let (text, from) = match &options.answers {
        Some(path) => {
            let text = checked::read_text(path, ANSWERS_BYTES_MAX);
            (
                text.with_context(|| format!("cannot read {}", path.display()))?,
                path,
            )
        }
        None => (read(&kept)?.unwrap_or_default(), &kept),
    };
    let refused = |problem: String| anyhow!("{}: {problem}", from.display());
    if options.answers.is_some() {
        let answers = Answers::parse(&text).map_err(refused)?;
        files::put(&kept, text.as_bytes(), 0o644)?;
        return Ok(answers);
    }
    let problem = match Answers::parse(&text) {
        Ok(answers) => return Ok(answers),
        Err(problem) => problem,
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Stop::Usage(format!(
            "there is no terminal to ask on, and {} does not answer everything ({problem}); \
             correct it, or give --answers FILE (an example is \
             /usr/share/doc/hallmark/examples/setup-answers.toml)",
            kept.display()
        )));
    }
    Ok(interview::complete(&text, &kept)?)
}

/// Returns the answered store, else the store in use, else the encrypted store if possible.
fn store(answers: &Answers, options: &Options, root: &Root) -> anyhow::Result<CredentialStore> {
    if let Some(answer) = answers.credentials.store {
        return Ok(answer);
    }
    let token = plan::token_credential(answers);
    let plain = credentials::path(CredentialStore::Plain, &token);
    if root.path(plain).exists() {
        return Ok(CredentialStore::Plain);
    }
    if options.root.is_none()
        && let Err(error) = credentials::can_encrypt()
    {
        tell(
            "credential",
            &format!("cannot be encrypted here: {error:#}"),
        )?;
        return Ok(CredentialStore::Plain);
    }
    Ok(CredentialStore::Encrypted)
}

/// Has `hallmarkd` check the planned documents, before anything is written.
fn check(plan: &Plan) -> anyhow::Result<()> {
    let documents = serde_json::to_vec(&documents(plan)?)?;
    ask_hallmarkd(&["check-documents".as_ref()], &documents)?;
    Ok(())
}

/// Returns what `hallmarkd check-documents` reads.
fn documents(plan: &Plan) -> anyhow::Result<Value> {
    let text = |path: &str| {
        let file = plan.files.iter().find(|it| it.path == Path::new(path));
        file.map(|it| it.text.as_str()).context("it is planned")
    };
    Ok(json!({
        "file": CONFIGURATION,
        "configuration": text(CONFIGURATION)?,
        "ceremony": text(CEREMONY)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmarkd::commands::check_documents;
    use proptest::prelude::*;

    const EXAMPLE: &str = include_str!("../../../../docs/setup-answers.toml");
    const FACTORY: &str = r#"
        shape = "factory-line"
        organization = "Works"
        enrollment = "none"
        listen = { names = ["hallmark.example"], https = "[::]:8443" }
    "#;
    const GATEWAY: &str = r#"
        shape = "gateway"
        issuer = "own-root"
        organization = "Works"
        enrollment = "none"
        listen = { names = ["gateway.example"], https = "[::]:8443" }
    "#;

    fn planned(text: &str) -> anyhow::Result<Plan> {
        let answers = Answers::parse(text).map_err(|problem| anyhow!(problem))?;
        let plan = plan::plan(&answers, CredentialStore::Encrypted);
        let plan = plan.map_err(|problem| anyhow!(problem))?;
        let documents = serde_json::from_value(documents(&plan)?)?;
        check_documents::check(&documents)?;
        Ok(plan)
    }

    #[test]
    fn every_shape_on_every_token_is_one_that_the_daemon_takes() {
        let external = GATEWAY.replacen("own-root", "external", 1);
        for shape in [FACTORY, GATEWAY, &external] {
            for token in [
                r#"kind = "softhsm""#,
                r#"kind = "tpm""#,
                r#"kind = "tpm", tcti = "device:/dev/tpmrm1""#,
                r#"kind = "pkcs11", fragment = "nitrokey-hsm2", label = "UserPIN (SmartCard-HSM)""#,
                r#"kind = "pkcs11", module = "/opt/hsm.so", label = "x", sandbox = "usb-hsm""#,
            ] {
                let text = format!("{shape}\ntoken = {{ name = \"keys\", {token} }}");
                planned(&text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
            }
        }
        planned(EXAMPLE).expect("it ships");
        let by_arm = "verify = \"arm\"\nsubscription = \"s\"\nresource_group = \"g\"\n\
                      service_name = \"n\"\nhub_endpoint = \"hub.azure-devices.net\"";
        let plan = planned(&EXAMPLE.replacen("verify = \"by-hand\"", by_arm, 1));
        let plan = plan.expect("all planes");
        let names: Vec<_> = plan.credentials.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "factory-pin",
                "factory-so-pin",
                "dps-connection-string",
                "arm-token",
                "hub-connection-string"
            ]
        );
    }

    fn text_of(plan: &Plan, path: &str) -> String {
        let file = plan.files.iter().find(|it| it.path == Path::new(path));
        file.expect("planned").text.clone()
    }

    #[test]
    fn a_gateway_has_the_numbers_of_its_example() {
        let written = |shape: &str| {
            let service = "\"group\"\nprovisioning = { endpoint \
                           = \"x.azure-devices-provisioning.net\", id_scope = \"0ne1\", verify \
                           = \"by-hand\" }";
            let shape = shape.replacen("\"none\"", service, 1);
            let text = format!("{shape}\ntoken = {{ name = \"keys\", kind = \"tpm\" }}");
            let plan = planned(&text).expect("good answers");
            toml::from_str::<toml::Table>(&text_of(&plan, CONFIGURATION)).expect("checked")
        };
        let example = include_str!("../../../../docs/gateway.toml");
        let example = toml::from_str::<toml::Table>(example).expect("a test reads it");
        let gateway = written(GATEWAY);
        let factory = written(FACTORY);
        assert_eq!(gateway.get("policy"), example.get("policy"));
        assert_eq!(factory.get("policy"), None);
        for (table, name, key) in [
            ("token", None, "sign_deadline_ms"),
            ("authority", Some("gateway"), "signing_window"),
            ("provisioning", None, "operations_per_minute"),
        ] {
            let of = |document: &toml::Table| {
                let rows = document.get(table)?.as_array()?;
                let is_it =
                    |row: &&toml::Value| name.is_none_or(|it| row["name"].as_str() == Some(it));
                rows.iter().find(is_it)?.get(key).cloned()
            };
            assert!(of(&example).is_some(), "{key}");
            assert_eq!(of(&gateway), of(&example), "{key}");
            assert_eq!(of(&factory), None, "{key}");
        }
        let backdate =
            |document: &toml::Table| document["profile"][0]["certificate"]["backdate"].clone();
        assert_eq!(backdate(&gateway), backdate(&example));
    }

    #[test]
    fn a_worker_is_let_to_the_tpm_that_it_has() {
        const UNIT: &str = "/etc/systemd/system/hallmark-token@keys.service.d/30-device.conf";
        let plan_with = |tcti: &str| {
            let token = format!("token = {{ name = \"keys\", kind = \"tpm\"{tcti} }}");
            planned(&format!("{FACTORY}\n{token}")).map_err(|error| error.to_string())
        };
        for tcti in ["", ", tcti = \"device:/dev/tpmrm0\""] {
            let usual = plan_with(tcti).expect("good");
            assert!(usual.files.iter().all(|it| it.path != Path::new(UNIT)));
        }
        let other = plan_with(", tcti = \"device:/dev/tpmrm1\"").expect("good");
        let lines = text_of(&other, UNIT);
        let lines: Vec<&str> = lines.lines().collect();
        let allow = "DeviceAllow=/dev/tpmrm1 rw";
        let bind = "BindPaths=/dev/tpmrm1";
        // Emptied first, because the family's drop-in names another device.
        assert_eq!(
            lines,
            ["[Service]", "DeviceAllow=", allow, "BindPaths=", bind]
        );
        for wrong in [
            "swtpm:port=2321",
            "device:/dev/x\\nUser=root",
            "device:/etc/passwd",
            "device:/dev/",
            "device:/dev/../etc/passwd",
            "device",
        ] {
            let refusal = plan_with(&format!(", tcti = \"{wrong}\"")).expect_err(wrong);
            assert!(refusal.contains("`tcti`"), "{refusal}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_before_anything_is_written() {
        for (answer, instead, words) in [
            ("\"Example Works\"", "\"\"", "organization"),
            ("\"DE\"", "\"DEU\"", "country"),
            ("line = \"line-1\"", "line = \"root\"", "two [[authority]]"),
            (
                "name = \"factory\"",
                "name = \"my token\"",
                "letters, digits",
            ),
            ("http://hallmark", "https://hallmark", "public_http"),
        ] {
            let text = EXAMPLE.replacen(answer, instead, 1);
            assert_ne!(text, EXAMPLE, "{answer}");
            let refusal = format!("{:#}", planned(&text).expect_err(instead));
            assert!(refusal.contains(words), "{instead}: {refusal}");
        }
    }

    proptest! {
        /// The organization is either refused or appears unchanged in the files.
        #[test]
        fn an_answer_is_never_more_than_a_text(
            answer in "\\PC{0,40}|[\"'\\\\@\n#=\\[\\]a-z]{0,20}",
        ) {
            let quoted = toml::Value::from(answer.as_str()).to_string();
            let text = EXAMPLE.replacen("\"Example Works\"", &quoted, 1);
            if let Ok(plan) = planned(&text) {
                let ceremony = &plan.files[1].text;
                let ceremony: toml::Table = ceremony.parse().expect("it was parsed before");
                let subject = &ceremony["authority"][0]["subject"];
                prop_assert_eq!(subject["organization"].as_str(), Some(answer.as_str()));
                let configuration: toml::Table = plan.files[0].text.parse().expect("so was it");
                let device = &configuration["profile"][0]["certificate"]["subject"];
                prop_assert_eq!(device["organization"].as_str(), Some(answer.as_str()));
                prop_assert_eq!(configuration["profile"].as_array().map(Vec::len), Some(4));
            }
        }
    }
}
