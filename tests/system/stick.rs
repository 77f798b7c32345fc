//! The medium between a daemon and its offline root, and both of them.

use crate::configured::{device_profile, station_table};
use crate::process::CommandOutput;
use crate::runbook_text::Runbook;
use crate::test_env::{PUBLIC_HTTP, TestEnv};
use aws_lc_rs::digest;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// The offline machine: no listener, no provisioning service, no interface.
const VAULT: &str = r#"
name = "vault"
[[authority]]
name = "vault"
key_type = "p384"
subject = { organization = "Works", common_name = "Works Offline Root" }
validity = "20y"
path_length = 2
[[authority]]
name = "other"
key_type = "p256"
subject = { organization = "Works", common_name = "Another Root" }
validity = "20y"
path_length = 2
"#;

/// The other machine: `works` is certified by the offline root, `hall` by `works`.
const WORKS: &str = r#"
name = "works"
[[authority]]
name = "works"
external_issuer = true
subject = { organization = "Works", common_name = "Works Berlin" }
path_length = 1
[[authority]]
name = "hall"
issuer = "works"
subject = { organization = "Works", common_name = "Hall 1" }
validity = "1y"
path_length = 0
"#;

/// A daemon in a network namespace of its own, in which no interface is up.
pub(crate) fn vault() -> TestEnv {
    let env = TestEnv::certifying_elsewhere();
    let all = env.configuration();
    let token = &all[all.find("[[token]]").unwrap()..all.find("[[authority]]").unwrap()];
    let state = env.path("state");
    env.configure(&format!(
        "state_dir = {state:?}\n[listen]\npublic_http = \"{PUBLIC_HTTP}\"\n\
         [policy]\ncrl_validity = \"180d\"\ncrl_interval = \"30d\"\n{token}\
         [[authority]]\nname = \"vault\"\ntoken = \"factory\"\n\
         [[authority]]\nname = \"other\"\ntoken = \"factory\"\n\
         [[subordinate_profile]]\nname = \"plant\"\n[subordinate_profile.certificate]\n\
         preset = \"intermediate\"\nvalidity = \"8y\"\npath_length = 1\n"
    ));
    let mut env = env.in_namespace("exec unshare --net \"$@\"");
    env.start();
    let file = env.write("vault.toml", VAULT);
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    env
}

pub(crate) fn works_configuration(env: &TestEnv) -> String {
    let tables = "[[authority]]\nname = \"works\"\ntoken = \"factory\"\n\
                  [[authority]]\nname = \"hall\"\ntoken = \"factory\"\n"
        .to_owned()
        + &device_profile("behind", "hall", "90d")
        + &station_table("station-*", &["behind"], &["*"])
        + "\n[[provisioning]]";
    env.configuration().replacen("[[provisioning]]", &tables, 1)
}

/// A daemon with an authority that waits for the certificate of the offline root.
pub(crate) fn works() -> TestEnv {
    let env = TestEnv::new();
    env.configure(&works_configuration(&env));
    let env = env.started();
    ceremony(&env);
    env
}

pub(crate) fn ceremony(env: &TestEnv) -> Value {
    let file = env.write("works.toml", WORKS);
    env.json(&["ceremony", "run", file.to_str().unwrap()])
}

/// The folder that is carried.
pub(crate) struct Stick(pub(crate) PathBuf);

impl Stick {
    pub(crate) fn on(env: &TestEnv, name: &str) -> Self {
        Self(env.path(name))
    }

    pub(crate) fn folder(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    pub(crate) fn sha256(&self, file: &str) -> String {
        let bytes = fs::read(self.0.join(file)).unwrap();
        hex::encode(digest::digest(&digest::SHA256, &bytes))
    }

    pub(crate) fn parsed(&self, file: &str) -> Value {
        serde_json::from_str(&self.read(file)).unwrap()
    }

    /// A copy beside it, to be changed by a test.
    pub(crate) fn copy(&self, name: &str) -> Self {
        let copy = Self(self.0.with_file_name(name));
        fs::create_dir_all(&copy.0).unwrap();
        for file in fs::read_dir(&self.0).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.0.join(file.file_name())).unwrap();
        }
        copy
    }

    /// Replaces a text in a file.
    pub(crate) fn change(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(self.0.join(file), text.replace(from, to)).unwrap();
    }

    /// Asks the daemon to sign, as an operator who has read the page of the requests.
    pub(crate) fn sign(
        &self,
        vault: &TestEnv,
        sha256: Option<&str>,
        more: &[&str],
    ) -> CommandOutput {
        let usual = [
            "--json",
            "ceremony",
            "sign",
            self.folder(),
            "--authority",
            "vault",
        ];
        let mut command = [&usual[..], &["--profile", "plant"], more].concat();
        if let Some(sha256) = sha256 {
            command.extend(["--sha256", sha256]);
        }
        vault.hallmark(&command)
    }

    pub(crate) fn is_signed(&self, vault: &TestEnv, more: &[&str]) -> Value {
        let requests = self.0.join("requests.json").exists();
        let sha256 = requests.then(|| self.sha256("requests.json"));
        let output = self.sign(vault, sha256.as_deref(), more);
        assert_eq!(output.code, Some(0), "{output:?}");
        self.parsed("answers.json")
    }

    /// Asks the daemon to install, as an operator who has read the page of this transcript.
    pub(crate) fn install(&self, works: &TestEnv) -> CommandOutput {
        let sha256 = self.sha256("answers.json");
        self.install_as(works, &sha256)
    }

    pub(crate) fn install_as(&self, works: &TestEnv, sha256: &str) -> CommandOutput {
        let command = [
            "--json",
            "ceremony",
            "install",
            self.folder(),
            "--sha256",
            sha256,
        ];
        works.hallmark(&command)
    }

    pub(crate) fn is_installed(&self, works: &TestEnv) -> Value {
        let output = self.install(works);
        assert_eq!(output.code, Some(0), "{output:?}");
        serde_json::from_str(&output.out).unwrap()
    }
}

/// A stick with the answers of the offline root.
pub(crate) fn answered(vault: &TestEnv, works: &TestEnv, name: &str, more: &[&str]) -> Stick {
    let stick = Stick::on(works, name);
    works.run(&["ceremony", "request", stick.folder()]);
    stick.is_signed(vault, more);
    stick
}

/// Runs the lines of the runbook on the machines that they are for.
pub(crate) fn follows(mut page: Runbook) {
    let vault = vault();
    let works = works();
    works.write("works-ceremony.toml", WORKS);
    let stick = Stick::on(&works, "stick");
    let list = Stick::on(&works, "list-2");
    // The page ends with the digest.
    let printed = |page: &str| {
        let words = page.split_whitespace().rfind(|it| it.len() == 64);
        words.unwrap().to_owned()
    };
    page.text(&works);
    let asked = printed(&page.text(&works));
    let shown = page.line(&[("stick", stick.folder())]).text(&vault);
    let said = shown.contains("Works Berlin") && shown.contains(&asked);
    assert!(said, "{shown}");
    let sign = [("stick", stick.folder()), ("4F2A", asked.as_str())];
    let answered = printed(&page.line(&sign).text(&vault));
    let install = [("9C01", answered.as_str())];
    let installed = page.line(&install).text(&works);
    assert!(installed.contains("/crl/vault-1.crl"), "{installed}");
    let signed = vault.json(&["authority", "subordinates", "vault"]);
    let serial = signed[0]["serial"].as_str().unwrap();
    page.line(&[("01AB", serial)]).text(&vault);
    let sign = [("list-2", list.folder())];
    let answered = printed(&page.line(&sign).text(&vault));
    let install = [("9C02", answered.as_str())];
    let installed = page.line(&install).text(&works);
    assert!(installed.contains("cACompromise"), "{installed}");
    assert!(page.text(&works).contains("revoked_at"));
}
