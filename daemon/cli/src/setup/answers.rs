//! Reads and checks the answers to `hallmark setup`: one TOML file, which may serve many machines.
//!
//! Unknown keys are refused. The file names the files of secrets and never holds a secret, so it
//! may be copied to the next machine. An empty text is the answer "none".

mod check;

pub(super) use check::{is_country, is_host, is_http_url, is_organization};
use hallmark_base::fragment::Sandbox;
use hallmark_base::toml_error::where_and_why;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The device of the kernel's first TPM resource manager.
pub(super) const TPM_DEVICE: &str = "/dev/tpmrm0";

/// The answers to all questions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// A factory line with a hierarchy of its own, or a gateway with one intermediate.
    pub shape: SiteKind,
    /// The organization in every subject.
    pub organization: String,
    /// Two letters (ISO 3166) in every subject.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub country: Option<String>,
    /// For a factory line: the authority that issues for devices.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub line: Option<String>,
    /// For a gateway: the issuer of its authority.
    pub issuer: Option<GatewayIssuer>,
    /// For a gateway with an external issuer: the file with its certificate chain.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub certificate: Option<PathBuf>,
    /// The enrollment of devices at the provisioning service.
    pub enrollment: Enrollment,
    /// The token that holds the keys.
    pub token: Token,
    /// The addresses of the daemon.
    pub listen: Listen,
    pub provisioning: Option<Provisioning>,
    /// The storage of secrets.
    #[serde(default)]
    pub credentials: Credentials,
    pub station: Option<Station>,
    /// The folder for the ceremony's transcript.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub transcript: Option<PathBuf>,
}

/// The kind of site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteKind {
    /// A root, a plant, a line, and an authority for the clients of Hallmark.
    FactoryLine,
    /// One authority for the devices behind the gateway.
    Gateway,
}

/// The issuer of a gateway's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayIssuer {
    /// An external issuer, such as the factory.
    External,
    /// A root on this machine.
    OwnRoot,
}

/// The enrollment of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enrollment {
    /// One group for all devices below the authority.
    Group,
    /// One enrollment per device, by `hallmark enrollment add --individual`.
    Individual,
    /// No provisioning service is used.
    None,
}

/// `[token]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The kind of token.
    pub kind: TokenKind,
    /// The name in the configuration: letters, digits and `-`.
    pub name: String,
    /// For a TPM that is not the first: `device:` and its file below `/dev`.
    pub tcti: Option<String>,
    /// For a PKCS#11 token: its family (`pkcs11-config/`), or else `module`.
    pub fragment: Option<String>,
    /// The file of the module, or else `fragment`.
    pub module: Option<PathBuf>,
    pub label: Option<String>,
    /// The token's serial number, where two tokens may have the same label.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub serial: Option<String>,
    /// The environment that the module needs.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The access of the worker; needed where the family does not define it.
    pub sandbox: Option<Sandbox>,
    /// The file with the PIN; without it, setup asks for the PIN.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub pin_file: Option<PathBuf>,
}

/// A kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// A new SoftHSM token, which setup makes.
    Softhsm,
    Tpm,
    /// A token that was initialised with its vendor's tool.
    Pkcs11,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The DNS names and addresses by which clients reach this machine.
    pub names: Vec<String>,
    /// The address of the HTTPS listener.
    pub https: SocketAddr,
    /// The address of the listener for revocation lists.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub http: Option<SocketAddr>,
    /// The public URL of `http`, which certificates carry.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub public_http: Option<String>,
}

/// `[provisioning]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioning {
    /// Host of the service plane.
    pub endpoint: String,
    pub id_scope: String,
    /// The file with the connection string; without it, setup asks for the string.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub connection_string_file: Option<PathBuf>,
    /// The way in which the root is verified.
    pub verify: Verify,
    /// By `arm`: the subscription.
    pub subscription: Option<String>,
    /// By `arm`: the resource group.
    pub resource_group: Option<String>,
    /// By `arm`: the provisioning service's name there.
    pub service_name: Option<String>,
    /// By `arm`: the file with a bearer token; without it, setup asks for the token.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub arm_token_file: Option<PathBuf>,
    /// Host of the IoT Hub, where identities are deleted after a compromise.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub hub_endpoint: Option<String>,
    /// The file with the hub's connection string; without it, setup asks for the string.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub hub_connection_string_file: Option<PathBuf>,
    /// Host of the device plane, if not the public cloud's.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub device_endpoint: Option<String>,
    /// Host of Azure Resource Manager, if not the public cloud's.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub arm_endpoint: Option<String>,
    /// `ip:port` to connect to for all hosts, instead of the DNS.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub address: Option<SocketAddr>,
    /// The only authorities that are trusted for TLS with all hosts.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub ca_bundle: Option<PathBuf>,
}

/// The way in which the root is verified at the provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// The daemon verifies it through Azure Resource Manager.
    Arm,
    /// An operator verifies it in the portal.
    ByHand,
}

/// `[credentials]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The storage; without an answer encrypted, or plain where that is impossible.
    pub store: Option<CredentialStore>,
}

/// The storage of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialStore {
    /// Encrypted by `systemd-creds` for this machine: `/etc/credstore.encrypted`.
    Encrypted,
    /// In files that only root can read: `/etc/credstore`.
    Plain,
}

/// `[station]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    pub name: String,
    /// Patterns of the registration ids for which it may request leaves.
    #[serde(default = "every_id")]
    pub ids: Vec<String>,
    /// The file with its CSR (PEM).
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub csr: Option<PathBuf>,
    /// The file for its certificate; without an answer beside the CSR.
    #[serde(default, deserialize_with = "nothing_if_empty")]
    pub out: Option<PathBuf>,
}

/// The first station may request every id, because the ids are not known yet.
pub(super) fn every_id() -> Vec<String> {
    vec!["*".into()]
}

impl Station {
    /// Returns the files of the CSR and of the certificate.
    pub fn files(&self) -> Option<(&Path, PathBuf)> {
        let csr = self.csr.as_deref()?;
        let out = self.out.clone();
        Some((csr, out.unwrap_or_else(|| csr.with_extension("pem"))))
    }
}

impl Answers {
    /// Reads answers. An error names the line or the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let answers: Self = toml::from_str(text).map_err(|error| where_and_why(text, &error))?;
        answers.check()?;
        Ok(answers)
    }

    /// Returns true if the daemon verifies a CA certificate itself: the root's, or a gateway's own
    /// if the root is external.
    pub fn verifies_by_arm(&self) -> bool {
        let by = self.provisioning.as_ref().map(|it| it.verify);
        by == Some(Verify::Arm)
    }

    /// Returns the authority that issues for devices.
    pub fn issuing_authority(&self) -> &str {
        match self.shape {
            SiteKind::FactoryLine => self.line.as_deref().unwrap_or("line-1"),
            SiteKind::Gateway => "gateway",
        }
    }
}

/// Reads an empty text as `None`.
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
        assert_eq!(answers.shape, SiteKind::FactoryLine);
    }

    #[test]
    fn a_refusal_tells_the_line_or_the_key() {
        for (answer, instead, words) in [
            ("shape = \"factory-line\"", "shape = \"line\"", "line 5"),
            ("organization", "organisation", "organisation"),
            (
                "https = \"0.0.0.0:8443\"",
                "https = \"8443\"",
                "an address and a port",
            ),
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
            let text = EXAMPLE.replacen(answer, instead, 1);
            assert_ne!(text, EXAMPLE, "{answer}");
            let refusal = Answers::parse(&text).expect_err(instead);
            assert!(refusal.contains(words), "{instead}: {refusal}");
        }
    }
}
