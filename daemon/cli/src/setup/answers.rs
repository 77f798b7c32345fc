//! The answers to `hallmark setup`: what somebody says, or a file of theirs for many machines.
//!
//! One TOML file; unknown keys are refused. It names files of secrets and never holds a secret, so
//! it may be copied to the next machine. An empty text is the answer "none".

use hallmark_base::fragment::{Fragment, Sandbox};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the first resource manager of the kernel's TPMs is.
pub(super) const TPM_DEVICE: &str = "/dev/tpmrm0";

/// What the machine shall be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// A factory line with a hierarchy of its own, or a gateway with one intermediate.
    pub shape: Shape,
    /// The name of the works, in every subject.
    pub organization: String,
    /// Two letters (ISO 3166).
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub country: Option<String>,
    /// A factory line's: the authority that issues for devices.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub line: Option<String>,
    /// A gateway's: who signs its authority.
    pub issuer: Option<Issuer>,
    /// A gateway's, by an external issuer: the file with its certificate and those above it.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub certificate: Option<PathBuf>,
    /// How devices are enrolled at the provisioning service.
    pub enrollment: Enrollment,
    /// Where keys live.
    pub token: Token,
    /// Where the daemon is reached.
    pub listen: Listen,
    /// The provisioning service.
    pub provisioning: Option<Provisioning>,
    /// How secrets are kept.
    #[serde(default)]
    pub credentials: Credentials,
    /// The first station.
    pub station: Option<Station>,
    /// The folder for the ceremony's transcript.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub transcript: Option<PathBuf>,
}

/// What the machine shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A root, a plant, a line, and an authority for those who talk to Hallmark.
    FactoryLine,
    /// One authority for the devices behind the gateway.
    Gateway,
}

/// Who signs a gateway's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Issuer {
    /// The factory, or another root elsewhere.
    External,
    /// A root on this machine.
    OwnRoot,
}

/// How devices are enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enrollment {
    /// All at once, by the authority above them.
    Group,
    /// One by one, with `hallmark enrollment add --individual`.
    Individual,
    /// There is no provisioning service.
    None,
}

/// `[token]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Which kind.
    pub kind: TokenKind,
    /// What it is called here: letters, digits and `-`.
    pub name: String,
    /// A TPM's, where it is not the first: `device:` and its file below `/dev`.
    pub tcti: Option<String>,
    /// A PKCS#11 token's: its family (`pkcs11-config/`); or `module`.
    pub fragment: Option<String>,
    /// Its module's file; or `fragment`.
    pub module: Option<PathBuf>,
    /// Its label.
    pub label: Option<String>,
    /// Its serial number, where two may carry one label.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub serial: Option<String>,
    /// What its module needs in its environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// What its worker may touch; needed where the family does not tell.
    pub sandbox: Option<Sandbox>,
    /// The file with its PIN; without one it is asked for.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub pin_file: Option<PathBuf>,
}

/// Kinds of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// A new SoftHSM token: setup makes it.
    Softhsm,
    /// A TPM 2.0.
    Tpm,
    /// A token that somebody has initialised with its vendor's tool.
    Pkcs11,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// What clients call this machine: DNS names and addresses.
    pub names: Vec<String>,
    /// Where HTTPS listens.
    pub https: SocketAddr,
    /// Where revocation lists are published.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub http: Option<SocketAddr>,
    /// How others reach `http`; certificates say so.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub public_http: Option<String>,
}

/// `[provisioning]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioning {
    /// Host of the service plane.
    pub endpoint: String,
    /// Id scope.
    pub id_scope: String,
    /// The file with the connection string; without one it is asked for.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub connection_string_file: Option<PathBuf>,
    /// Who has the root verified there.
    pub verify: Verify,
    /// By `arm`: the subscription.
    pub subscription: Option<String>,
    /// By `arm`: the resource group.
    pub resource_group: Option<String>,
    /// By `arm`: the provisioning service's name there.
    pub service_name: Option<String>,
    /// By `arm`: the file with a bearer token; without one it is asked for.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub arm_token_file: Option<PathBuf>,
    /// Host of the IoT Hub, where identities are deleted after a compromise.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub hub_endpoint: Option<String>,
    /// The file with the hub's connection string; without one it is asked for.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub hub_connection_string_file: Option<PathBuf>,
    /// Host of the device plane, if not the public cloud's.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub device_endpoint: Option<String>,
    /// Host of Azure Resource Manager, if not the public cloud's.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub arm_endpoint: Option<String>,
    /// `ip:port` to connect to, for all of them, instead of what the DNS says.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub address: Option<SocketAddr>,
    /// The only authorities to trust for TLS, for all of them.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub ca_bundle: Option<PathBuf>,
}

/// Who has the root verified at the provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// The daemon, through Azure Resource Manager.
    Arm,
    /// Somebody, in the portal.
    ByHand,
}

/// `[credentials]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// How; without an answer encrypted, or plain where that is impossible.
    pub store: Option<CredentialStore>,
}

/// How secrets are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialStore {
    /// By `systemd-creds`, for this machine alone: `/etc/credstore.encrypted`.
    Encrypted,
    /// As files that only root reads: `/etc/credstore`.
    Plain,
}

/// `[station]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// Its common name.
    pub name: String,
    /// Patterns of the registration ids that it may ask for.
    #[serde(default = "every_id")]
    pub ids: Vec<String>,
    /// The file with its request (PKCS #10, PEM).
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub csr: Option<PathBuf>,
    /// Where its certificate is written; beside the request without an answer.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub out: Option<PathBuf>,
}

/// One line has one station at first, and its ids are not known yet.
pub(super) fn every_id() -> Vec<String> {
    vec!["*".into()]
}

impl Station {
    /// The request, and where the certificate goes.
    pub fn files(&self) -> Option<(&Path, PathBuf)> {
        let csr = self.csr.as_deref()?;
        let out = self.out.clone();
        Some((csr, out.unwrap_or_else(|| csr.with_extension("pem"))))
    }
}

impl Answers {
    /// Reads answers; the refusal tells the line, or the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let answers: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        answers.check()?;
        Ok(answers)
    }

    fn check(&self) -> Result<(), String> {
        let refuse = |problem: &str| Err(problem.to_owned());
        match (self.shape, self.issuer) {
            (Shape::FactoryLine, Some(_)) => return refuse("`issuer` is for shape = \"gateway\""),
            (Shape::Gateway, None) => {
                return refuse("shape = \"gateway\" needs `issuer`: \"external\" or \"own-root\"");
            }
            _ => {}
        }
        if self.shape == Shape::Gateway && self.line.is_some() {
            return refuse("`line` is for shape = \"factory-line\"");
        }
        if self.certificate.is_some() && self.issuer != Some(Issuer::External) {
            return refuse("`certificate` is for issuer = \"external\"");
        }
        if self.listen.http.is_some() != self.listen.public_http.is_some() {
            return refuse("[listen] `http` and `public_http` go together: give both, or none");
        }
        self.check_enrollment()?;
        self.token.check()?;
        let named = [&self.certificate, &self.transcript, &self.token.pin_file];
        let station = self.station.iter().flat_map(|it| [&it.csr, &it.out]);
        let secrets = self.provisioning.iter().flat_map(Provisioning::files);
        let mut files = named.into_iter().chain(station).chain(secrets).flatten();
        match files.find(|path| !path.is_absolute()) {
            Some(path) => Err(format!("{path:?} must be an absolute path")),
            None => Ok(()),
        }
    }

    fn check_enrollment(&self) -> Result<(), String> {
        match (&self.provisioning, self.enrollment) {
            (None, Enrollment::None) => Ok(()),
            (None, _) => Err("`enrollment` needs [provisioning], or must be \"none\"".into()),
            (Some(_), Enrollment::None) => {
                Err("enrollment = \"none\" takes no [provisioning]".into())
            }
            (Some(service), _) => service.check(self.verifies_by_arm()),
        }
    }

    /// Whether the daemon has a CA certificate verified itself: the root's, or a gateway's own
    /// where the root's key is elsewhere.
    pub fn verifies_by_arm(&self) -> bool {
        let by = self.provisioning.as_ref().map(|it| it.verify);
        by == Some(Verify::Arm)
    }

    /// The authority that issues for devices.
    pub fn issuing_authority(&self) -> &str {
        match self.shape {
            Shape::FactoryLine => self.line.as_deref().unwrap_or("line-1"),
            Shape::Gateway => "gateway",
        }
    }
}

impl Token {
    fn check(&self) -> Result<(), String> {
        let is_pkcs11 = self.kind == TokenKind::Pkcs11;
        let only_pkcs11 = [
            ("fragment", self.fragment.is_some()),
            ("module", self.module.is_some()),
            ("label", self.label.is_some()),
            ("serial", self.serial.is_some()),
            ("environment", !self.environment.is_empty()),
            ("sandbox", self.sandbox.is_some()),
            ("pin_file", self.pin_file.is_some()),
        ];
        if let Some((key, _)) = only_pkcs11.iter().find(|(_, given)| *given && !is_pkcs11) {
            return Err(format!("[token] `{key}` is for kind = \"pkcs11\""));
        }
        if is_pkcs11 && self.label.is_none() {
            return Err("[token] kind = \"pkcs11\" needs `label`".into());
        }
        if self.tcti.is_some() && self.kind != TokenKind::Tpm {
            return Err("[token] `tcti` is for kind = \"tpm\"".into());
        }
        self.tpm_device().map(drop)?;
        self.sandbox().map(drop)
    }

    /// A TPM's device: what the worker is let to. Any other way to a TPM needs a drop-in by hand.
    pub fn tpm_device(&self) -> Result<&str, String> {
        let Some(tcti) = self.tcti.as_deref() else {
            return Ok(TPM_DEVICE);
        };
        let device = tcti.strip_prefix("device:");
        device.filter(|it| is_device(it)).ok_or_else(|| {
            format!(
                "[token] `tcti` must be \"device:\" and a file below /dev, as in \"device:{TPM_DEVICE}\": \
                 {tcti:?} is no device that the worker's sandbox could be opened for"
            )
        })
    }

    /// What the worker may touch: by its kind, its family, or the answer.
    pub fn sandbox(&self) -> Result<Sandbox, String> {
        let fragment = self.fragment.as_deref().map(Fragment::shipped);
        let family = fragment.transpose().map_err(|error| error.to_string())?;
        let of_family = family.and_then(|it| it.sandbox);
        match self.kind {
            TokenKind::Softhsm => Ok(Sandbox::Softhsm),
            TokenKind::Tpm => Ok(Sandbox::Tpm),
            TokenKind::Pkcs11 => self.sandbox.or(of_family).ok_or_else(|| {
                "[token] needs `sandbox`: what the worker of this family may touch is not known; \
                 \"softhsm\" (files), \"tpm\", \"usb-hsm\", \"network-hsm\" or \"pcscd\""
                    .to_owned()
            }),
        }
    }
}

/// It is written into a unit: nothing that systemd would read as more than a name.
fn is_device(path: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || "/-_".contains(it);
    let name = path.strip_prefix("/dev/");
    name.is_some_and(|it| it.starts_with(char::is_alphanumeric) && it.chars().all(plain))
}

impl Provisioning {
    fn files(&self) -> [&Option<PathBuf>; 4] {
        [
            &self.connection_string_file,
            &self.arm_token_file,
            &self.hub_connection_string_file,
            &self.ca_bundle,
        ]
    }

    fn check(&self, by_arm: bool) -> Result<(), String> {
        for (key, answer) in [
            ("subscription", &self.subscription),
            ("resource_group", &self.resource_group),
            ("service_name", &self.service_name),
        ] {
            if answer.is_some() != by_arm {
                let said = if by_arm { "needs" } else { "has no" };
                let verify = if by_arm { "arm" } else { "by-hand" };
                return Err(format!(
                    "[provisioning] verify = \"{verify}\" {said} `{key}`"
                ));
            }
        }
        Ok(())
    }
}

/// `None` of an empty text; else what the text says.
fn nothing_if_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../docs/setup-answers.toml");

    #[test]
    fn the_example_is_understood() {
        let answers = Answers::parse(EXAMPLE).expect("it ships");
        assert_eq!(answers.shape, Shape::FactoryLine);
    }

    #[test]
    fn a_refusal_tells_the_line_or_the_key() {
        for (said, instead, words) in [
            ("shape = \"factory-line\"", "shape = \"line\"", "line 5"),
            ("organization", "organisation", "organisation"),
            ("https = \"0.0.0.0:8443\"", "https = \"8443\"", "https"),
            (
                "kind = \"softhsm\"",
                "kind = \"softhsm\"\ntcti = \"device\"",
                "`tcti`",
            ),
            (
                "enrollment = \"group\"",
                "enrollment = \"none\"",
                "[provisioning]",
            ),
            ("verify = \"by-hand\"", "verify = \"arm\"", "`subscription`"),
            ("\"/root/dps.connection\"", "\"dps.connection\"", "absolute"),
        ] {
            let text = EXAMPLE.replacen(said, instead, 1);
            assert_ne!(text, EXAMPLE, "{said}");
            let refusal = Answers::parse(&text).expect_err(instead);
            assert!(refusal.contains(words), "{instead}: {refusal}");
        }
    }
}
