//! Asks the questions of setup at a terminal.
//!
//! Each answer is stored at once in the form of `--answers`, and an answered question is not asked
//! again. The input of a secret is hidden, and a secret is never stored with the answers.

use super::answers::{
    Answers, Enrollment, GatewayIssuer, SiteKind, TPM_DEVICE, TokenKind, Verify, is_country,
    is_host, is_http_url, is_organization,
};
use super::files::put;
use super::hidden_line;
use super::machine::program;
use anyhow::{Context, anyhow, bail};
use dialoguer::{Input, Select};
use hallmark_base::fragment::{self, Fragment, Sandbox, TOKEN_NAME_BYTES_MAX};
use hallmark_base::printable::line;
use hallmark_base::probe::{Probe, TokenListing};
use hallmark_pki::x509::listener_names::listener_names;
use secrecy::SecretString;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use toml::{Table, Value};

/// The first line of the stored answers.
const HEADING: &str =
    "# What was answered to `hallmark setup`. Change or remove an answer, and run it again.\n";

/// Asks the questions that the answers in `text` leave open, and stores each answer in `kept`.
pub(super) fn complete(text: &str, kept: &Path) -> anyhow::Result<Answers> {
    let draft = text
        .parse()
        .map_err(|error| anyhow!("{}: {error}", kept.display()))?;
    let mut interview = Interview { draft, kept };
    interview.hold()?;
    Answers::parse(&interview.draft.to_string()).map_err(|problem| {
        anyhow!(
            "{}: {problem}; correct or remove it, and run setup again",
            kept.display()
        )
    })
}

/// Asks for a secret.
pub(super) fn secret(what: &str) -> anyhow::Result<SecretString> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        bail!(
            "{what} is missing, and there is no terminal to ask on: name its file in the answers"
        );
    }
    hidden_line::ask(what)
}

struct Interview<'a> {
    draft: Table,
    kept: &'a Path,
}

/// The name of an answer: its table, if any, and its key.
type Key = (&'static str, &'static str);

impl Interview<'_> {
    fn hold(&mut self) -> anyhow::Result<()> {
        let shape = self.choice(
            ("", "shape"),
            "Which kind of site is this machine for?",
            &[
                (
                    SiteKind::FactoryLine,
                    "a factory line: root, plant, line and operations",
                ),
                (
                    SiteKind::Gateway,
                    "a gateway: one authority for the devices behind it",
                ),
            ],
        )?;
        self.text(
            ("", "organization"),
            "Name of the works",
            None,
            is_organization,
        )?;
        self.text(
            ("", "country"),
            "Country, two letters (empty: none)",
            Some(""),
            is_country_or_empty,
        )?;
        if shape == SiteKind::FactoryLine {
            self.text(("", "line"), "Name of the line", Some("line-1"), is_name)?;
        } else {
            self.choice(
                ("", "issuer"),
                "Who signs the gateway's authority?",
                &[
                    (
                        GatewayIssuer::External,
                        "the factory, or another root elsewhere",
                    ),
                    (GatewayIssuer::OwnRoot, "a root on this machine"),
                ],
            )?;
        }
        self.token(shape)?;
        self.listen()?;
        self.provisioning()?;
        let station = ("station", "name");
        self.text(
            station,
            "Name of the first station",
            Some("station-1"),
            is_name,
        )?;
        let prompt = "File with its request, PEM (empty: later)";
        self.text(("station", "csr"), prompt, Some(""), is_file_or_empty)?;
        Ok(())
    }

    fn listen(&mut self) -> anyhow::Result<()> {
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let key = ("listen", "names");
        if self.known(key).is_none() {
            let prompt = "What clients call this machine: names and addresses";
            let answer = prompted(prompt, Some(own.trim()), are_names)?;
            self.keep(key, Value::from(split_names(&answer)))?;
        }
        self.text(
            ("listen", "https"),
            "HTTPS listens on",
            Some("0.0.0.0:8443"),
            is_address,
        )?;
        let prompt = "Revocation lists over plain HTTP on (empty: nowhere)";
        let http = self.text(
            ("listen", "http"),
            prompt,
            Some("0.0.0.0:8080"),
            is_address_or_empty,
        )?;
        let Ok(http) = http.parse::<SocketAddr>() else {
            return Ok(());
        };
        let names = self
            .known(key)
            .and_then(|it| it.get(0))
            .and_then(Value::as_str);
        let url = format!("http://{}:{}", names.unwrap_or("localhost"), http.port());
        let prompt = "Others reach that by (certificates say so)";
        self.text(("listen", "public_http"), prompt, Some(&url), is_http_url)
            .map(drop)
    }

    fn provisioning(&mut self) -> anyhow::Result<()> {
        let enrollment = self.choice(
            ("", "enrollment"),
            "How are devices enrolled at Azure's Device Provisioning Service?",
            &[
                (Enrollment::Group, "as a group, by the authority above them"),
                (Enrollment::Individual, "one by one"),
                (Enrollment::None, "not at all"),
            ],
        )?;
        if enrollment == Enrollment::None {
            return Ok(());
        }
        let of = |key| ("provisioning", key);
        let prompt = "Its host (NAME.azure-devices-provisioning.net)";
        self.text(of("endpoint"), prompt, None, is_host)?;
        self.text(of("id_scope"), "Its id scope", None, is_set)?;
        let verify = self.choice(
            of("verify"),
            "Who has the root's certificate verified there?",
            &[
                (Verify::ByHand, "an operator, in the portal"),
                (Verify::Arm, "the daemon, through Azure Resource Manager"),
            ],
        )?;
        if verify == Verify::Arm {
            self.text(of("subscription"), "Subscription id", None, is_set)?;
            self.text(of("resource_group"), "Resource group", None, is_set)?;
            self.text(of("service_name"), "The service's name there", None, is_set)?;
        }
        let prompt = "Host of the IoT Hub, where identities of compromised devices are deleted \
                      (empty: none)";
        self.text(of("hub_endpoint"), prompt, Some(""), is_host_or_empty)
            .map(drop)
    }

    fn token(&mut self, shape: SiteKind) -> anyhow::Result<()> {
        let of = |key| ("token", key);
        let name = if shape == SiteKind::FactoryLine {
            "factory"
        } else {
            "gateway"
        };
        if self.known(of("kind")).is_none() {
            let found = visible_tokens();
            let items: Vec<_> = found.iter().map(|it| line(&it.0)).collect();
            let prompt = Select::new().with_prompt("Which token holds the keys?");
            let chosen = prompt.items(items).default(0).interact()?;
            for (key, value) in found
                .into_iter()
                .nth(chosen)
                .map(|it| it.1)
                .unwrap_or_default()
            {
                self.draft_table("token").insert(key.to_owned(), value);
            }
            self.save()?;
        }
        self.text(
            of("name"),
            "What is the token called here",
            Some(name),
            is_token_name,
        )?;
        if self.known(of("kind")).and_then(Value::as_str) == Some("pkcs11") {
            self.pkcs11()?;
        }
        Ok(())
    }

    /// Asks the questions for a token that was not found.
    fn pkcs11(&mut self) -> anyhow::Result<()> {
        let of = |key| ("token", key);
        if self.known(of("fragment")).is_none() {
            self.text(of("module"), "Its PKCS#11 module", None, is_file)?;
        }
        let family = self.known(of("fragment")).and_then(Value::as_str);
        let family = family.map(Fragment::shipped).transpose()?;
        if family.as_ref().is_none_or(|it| it.sandbox.is_none()) {
            self.choice(
                of("sandbox"),
                "What does the module need?",
                &[
                    (Sandbox::UsbHsm, "USB devices"),
                    (Sandbox::NetworkHsm, "the network"),
                    (Sandbox::Pcscd, "the smart card daemon"),
                    (Sandbox::Softhsm, "files alone"),
                    (Sandbox::Tpm, "the TPM"),
                ],
            )?;
        }
        self.text(of("label"), "The token's label", None, is_set)?;
        for variable in family.map(|it| it.environment).unwrap_or_default() {
            let environment = self.draft_table("token").entry("environment");
            let environment = environment.or_insert_with(|| Value::Table(Table::new()));
            if environment.get(&variable).is_none() {
                let value = prompted(&format!("{variable} in its environment"), None, is_set)?;
                if let Some(table) = environment.as_table_mut() {
                    table.insert(variable, Value::from(value));
                }
                self.save()?;
            }
        }
        Ok(())
    }

    fn known(&self, (table, key): Key) -> Option<&Value> {
        match table {
            "" => self.draft.get(key),
            table => self.draft.get(table)?.get(key),
        }
    }

    fn draft_table(&mut self, name: &str) -> &mut Table {
        if name.is_empty() {
            return &mut self.draft;
        }
        let table = self
            .draft
            .entry(name)
            .or_insert_with(|| Value::Table(Table::new()));
        if !table.is_table() {
            *table = Value::Table(Table::new());
        }
        table.as_table_mut().expect("it was made one above")
    }

    fn keep(&mut self, (table, key): Key, value: Value) -> anyhow::Result<()> {
        self.draft_table(table).insert(key.to_owned(), value);
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        let text = format!("{HEADING}{}", self.draft);
        put(self.kept, text.as_bytes(), 0o644)
    }

    fn text(
        &mut self,
        key: Key,
        prompt: &str,
        default: Option<&str>,
        check: fn(&str) -> Result<(), String>,
    ) -> anyhow::Result<String> {
        if let Some(known) = self.known(key).and_then(Value::as_str) {
            return Ok(known.to_owned());
        }
        let answer = prompted(prompt, default, check)?;
        self.keep(key, Value::from(answer.as_str()))?;
        Ok(answer)
    }

    fn choice<T>(&mut self, key: Key, prompt: &str, items: &[(T, &str)]) -> anyhow::Result<T>
    where
        T: Copy + Serialize + serde::de::DeserializeOwned,
    {
        if let Some(known) = self.known(key) {
            return known.clone().try_into().with_context(|| {
                format!(
                    "{}: `{}` is not understood; remove it",
                    self.kept.display(),
                    key.1
                )
            });
        }
        let labels = items.iter().map(|(_, label)| label);
        let prompt = Select::new().with_prompt(prompt).items(labels).default(0);
        let (chosen, _) = items[prompt.interact()?];
        self.keep(key, Value::try_from(chosen)?)?;
        Ok(chosen)
    }
}

fn prompted(
    prompt: &str,
    default: Option<&str>,
    check: fn(&str) -> Result<(), String>,
) -> anyhow::Result<String> {
    let mut input = Input::<String>::new().with_prompt(prompt);
    if let Some(default) = default {
        input = input
            .default(default.to_owned())
            .show_default(!default.is_empty());
    }
    let input = input.validate_with(|answer: &String| check(answer.trim()));
    Ok(input.allow_empty(true).interact_text()?.trim().to_owned())
}

/// A choice: its text, and the answers that it gives.
type Choice = (String, Vec<(&'static str, Value)>);

/// Returns the visible tokens, found without login, and the tokens that setup can make.
fn visible_tokens() -> Vec<Choice> {
    let kind = |kind: TokenKind| Value::try_from(kind).ok().map(|value| ("kind", value));
    let mut found: Vec<Choice> = Vec::new();
    if Path::new(TPM_DEVICE).exists() {
        let label = format!("the TPM of this machine ({TPM_DEVICE})");
        found.push((label, kind(TokenKind::Tpm).into_iter().collect()));
    }
    for (family, fragment, token) in initialized_tokens() {
        let mut answers: Vec<_> = kind(TokenKind::Pkcs11).into_iter().collect();
        answers.push(("fragment", Value::from(fragment)));
        answers.push(("label", Value::from(token.label.as_str())));
        answers.push(("serial", Value::from(token.serial.as_str())));
        found.push((
            format!("{family}: {}, serial {}", token.label, token.serial),
            answers,
        ));
    }
    let software = kind(TokenKind::Softhsm).into_iter().collect();
    found.push((
        "a new SoftHSM token: files, not protected by hardware".into(),
        software,
    ));
    for name in fragment::names() {
        let family = Fragment::shipped(name).ok();
        let installed = family.filter(|it| it.module().is_some() && name != "softhsm2");
        if let Some(family) = installed {
            let mut answers: Vec<_> = kind(TokenKind::Pkcs11).into_iter().collect();
            answers.push(("fragment", Value::from(name)));
            found.push((
                format!("a token of {} by its label", family.family),
                answers,
            ));
        }
    }
    let other = kind(TokenKind::Pkcs11).into_iter().collect();
    found.push(("another token, by its PKCS#11 module".into(), other));
    found
}

fn initialized_tokens() -> Vec<(String, String, TokenListing)> {
    let Ok(hallmarkd) = program("hallmarkd") else {
        return Vec::new();
    };
    let mut tokens = Vec::new();
    let installed = fragment::names().into_iter().filter_map(Probe::of_family);
    for probe in installed.collect::<BTreeSet<_>>() {
        // A module that does not answer is no choice; `hallmark token list` shows the reason.
        let Ok(module) = probe.ask_by(&hallmarkd) else {
            continue;
        };
        let slots = module.slots.into_iter().filter_map(|slot| slot.token);
        for token in slots.filter(|token| token.initialized) {
            let fragment = probe.fragment().unwrap_or_default().to_owned();
            tokens.push((probe.family.clone(), fragment, token));
        }
    }
    tokens
}

fn is_country_or_empty(answer: &str) -> Result<(), String> {
    if answer.is_empty() {
        Ok(())
    } else {
        is_country(answer)
    }
}

fn is_host_or_empty(answer: &str) -> Result<(), String> {
    if answer.is_empty() {
        Ok(())
    } else {
        is_host(answer)
    }
}

fn is_set(answer: &str) -> Result<(), String> {
    match answer {
        "" => Err("this is needed".into()),
        _ => Ok(()),
    }
}

fn split_names(answer: &str) -> Vec<String> {
    let names = answer.split([',', ' ']).filter(|it| !it.is_empty());
    names.map(str::to_owned).collect()
}

fn are_names(answer: &str) -> Result<(), String> {
    is_set(answer)?;
    listener_names(&split_names(answer)).map(drop)
}

fn is_name(answer: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !answer.is_empty() && answer.bytes().all(plain) {
        Ok(())
    } else {
        Err("letters, digits and - _ .".into())
    }
}

fn is_token_name(answer: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=TOKEN_NAME_BYTES_MAX).contains(&answer.len()) && answer.bytes().all(plain) {
        Ok(())
    } else {
        Err(format!("1 to {TOKEN_NAME_BYTES_MAX} letters, digits and -"))
    }
}

fn is_address(answer: &str) -> Result<(), String> {
    match answer.parse::<SocketAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err("an address and a port, as in 0.0.0.0:8443 or [::]:8443".into()),
    }
}

fn is_address_or_empty(answer: &str) -> Result<(), String> {
    if answer.is_empty() {
        Ok(())
    } else {
        is_address(answer)
    }
}

fn is_file(answer: &str) -> Result<(), String> {
    match Path::new(answer) {
        path if path.is_absolute() && path.is_file() => Ok(()),
        _ => Err("an absolute path of a file that exists".into()),
    }
}

fn is_file_or_empty(answer: &str) -> Result<(), String> {
    if answer.is_empty() {
        Ok(())
    } else {
        is_file(answer)
    }
}
