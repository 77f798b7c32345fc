//! Writes the configuration and the ceremony file from the answers.
//!
//! The texts are for operators to read and change. The parsers of the daemon check them before they
//! are written to disk. This module has no side effects.

use super::answers::{
    Answers, GatewayIssuer, Provisioning, SiteKind, TPM_DEVICE, TokenKind, every_id,
};
use super::plan::{
    ARM_CREDENTIAL, DPS_CREDENTIAL, HUB_CREDENTIAL, TOKEN_STATE, softhsm_configuration,
    token_credential,
};
use hallmark_pki::x509::key::KeyType;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use toml::Value;

/// The daemon's state folder.
const STATE: &str = "/var/lib/hallmark";
/// The folder of sockets.
const RUNTIME: &str = "/run/hallmark";
/// The profiles, equal for all kinds of site except for the authorities' names and the backdate.
const PROFILES: &str = include_str!("profiles.toml");
/// The example of a gateway, whose numbers are used: no battery for its clock, weeks without power
/// or network, a slow TPM.
const GATEWAY: &str = include_str!("../../../../docs/gateway.toml");

/// The configuration, except for the profiles.
#[derive(Serialize)]
struct Document {
    state_dir: &'static str,
    token_state_dir: &'static str,
    runtime_dir: &'static str,
    listen: ListenTable,
    token: [TokenTable; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    provisioning: Option<[ProvisioningTable; 1]>,
    authority: Vec<AuthorityTable>,
    policy: Option<Value>,
}

#[derive(Serialize)]
struct ListenTable {
    https: SocketAddr,
    names: Vec<String>,
    profile: &'static str,
    est_profile: &'static str,
    http: Option<SocketAddr>,
    public_http: Option<String>,
}

#[derive(Serialize)]
struct TokenTable {
    name: String,
    kind: &'static str,
    fragment: Option<String>,
    module: Option<PathBuf>,
    label: Option<String>,
    serial: Option<String>,
    tcti: Option<String>,
    credential: String,
    sign_deadline_ms: Option<Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct AuthorityTable {
    name: String,
    token: String,
    signing_window: Option<Value>,
}

#[derive(Serialize)]
struct ProvisioningTable {
    name: &'static str,
    endpoint: String,
    address: Option<SocketAddr>,
    device_endpoint: Option<String>,
    device_address: Option<SocketAddr>,
    id_scope: String,
    ca_bundle: Option<PathBuf>,
    credential: &'static str,
    operations_per_minute: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verified: Vec<&'static str>,
    arm: Option<ArmTable>,
    hub: Option<HubTable>,
}

#[derive(Serialize)]
struct ArmTable {
    endpoint: Option<String>,
    address: Option<SocketAddr>,
    ca_bundle: Option<PathBuf>,
    subscription: Option<String>,
    resource_group: Option<String>,
    name: Option<String>,
    credential: &'static str,
}

#[derive(Serialize)]
struct HubTable {
    endpoint: String,
    address: Option<SocketAddr>,
    ca_bundle: Option<PathBuf>,
    credential: &'static str,
}

pub(super) fn configuration(answers: &Answers) -> String {
    let listen = &answers.listen;
    let issuing = answers.issuing_authority();
    let authority = |name: String| AuthorityTable {
        token: answers.token.name.clone(),
        signing_window: (name == issuing)
            .then(|| of_example(answers, "authority", "signing_window"))
            .flatten(),
        name,
    };
    let document = Document {
        state_dir: STATE,
        token_state_dir: TOKEN_STATE,
        runtime_dir: RUNTIME,
        listen: ListenTable {
            https: listen.https,
            names: listen.names.clone(),
            profile: "server",
            est_profile: "device",
            http: listen.http,
            public_http: listen.public_http.clone(),
        },
        token: [token(answers)],
        provisioning: answers
            .provisioning
            .as_ref()
            .map(|it| [provisioning(answers, it)]),
        authority: authorities(answers).into_iter().map(authority).collect(),
        policy: example(answers).and_then(|mut it| it.remove("policy")),
    };
    let people = match answers.shape {
        SiteKind::FactoryLine => "operations",
        SiteKind::Gateway => issuing,
    };
    // Devices behind a gateway may have no clock.
    let backdate = match answers.shape {
        SiteKind::FactoryLine => "5m",
        SiteKind::Gateway => "1h",
    };
    let station = answers.station.as_ref();
    let ids = station.map_or_else(every_id, |it| it.ids.clone());
    let values = [
        ("@devices@", Value::from(issuing)),
        ("@backdate@", Value::from(backdate)),
        ("@people@", Value::from(people)),
        ("@organization@", Value::from(answers.organization.as_str())),
        (
            "@station@",
            Value::from(station.map_or("station-1", |it| it.name.as_str())),
        ),
        ("@ids@", Value::from(ids)),
    ];
    let profiles = values
        .into_iter()
        .fold(PROFILES.to_owned(), |text, (mark, value)| {
            text.replace(mark, &value.to_string())
        });
    format!(
        "# Every key is explained in \
         /usr/share/doc/hallmark/examples/hallmark.toml.\n{}\n{profiles}",
        toml::to_string(&document).expect("tables of texts and numbers can be written as TOML")
    )
}

/// Returns a value of the gateway's example, for a gateway.
fn example(answers: &Answers) -> Option<toml::Table> {
    let parsed = || toml::from_str(GATEWAY).expect("a test reads the example");
    (answers.shape == SiteKind::Gateway).then(parsed)
}

/// Returns one key of the example's only `[[table]]`.
fn of_example(answers: &Answers, table: &str, key: &str) -> Option<Value> {
    example(answers)?.get(table)?.get(0)?.get(key).cloned()
}

fn token(answers: &Answers) -> TokenTable {
    let answer = answers.token.clone();
    let table = TokenTable {
        name: answer.name.clone(),
        kind: "pkcs11",
        fragment: answer.fragment,
        module: answer.module,
        label: answer.label,
        serial: answer.serial,
        tcti: None,
        credential: token_credential(answers),
        sign_deadline_ms: None,
        environment: answer.environment,
    };
    match answer.kind {
        TokenKind::Pkcs11 => table,
        TokenKind::Softhsm => TokenTable {
            fragment: Some("softhsm2".into()),
            label: Some(answer.name.clone()),
            environment: [(
                "SOFTHSM2_CONF".to_owned(),
                softhsm_configuration(&answer.name).display().to_string(),
            )]
            .into(),
            ..table
        },
        TokenKind::Tpm => TokenTable {
            kind: "tpm",
            tcti: Some(
                answer
                    .tcti
                    .unwrap_or_else(|| format!("device:{TPM_DEVICE}")),
            ),
            sign_deadline_ms: of_example(answers, "token", "sign_deadline_ms"),
            ..table
        },
    }
}

fn provisioning(answers: &Answers, answer: &Provisioning) -> ProvisioningTable {
    let address = answer.address;
    let ca_bundle = answer.ca_bundle.clone();
    let by_arm = answers.verifies_by_arm();
    ProvisioningTable {
        name: "dps",
        endpoint: answer.endpoint.clone(),
        address,
        device_endpoint: answer.device_endpoint.clone(),
        device_address: address,
        id_scope: answer.id_scope.clone(),
        ca_bundle: ca_bundle.clone(),
        credential: DPS_CREDENTIAL,
        operations_per_minute: of_example(answers, "provisioning", "operations_per_minute"),
        // The key of an external root is elsewhere, so the service trusts the gateway's
        // certificate.
        verified: match (by_arm, answers.issuer) {
            (false, _) => Vec::new(),
            (true, Some(GatewayIssuer::External)) => vec!["gateway"],
            (true, _) => vec!["root"],
        },
        arm: by_arm.then(|| ArmTable {
            endpoint: answer.arm_endpoint.clone(),
            address,
            ca_bundle: ca_bundle.clone(),
            subscription: answer.subscription.clone(),
            resource_group: answer.resource_group.clone(),
            name: answer.service_name.clone(),
            credential: ARM_CREDENTIAL,
        }),
        hub: answer.hub_endpoint.clone().map(|endpoint| HubTable {
            endpoint,
            address,
            ca_bundle,
            credential: HUB_CREDENTIAL,
        }),
    }
}

// --- The ceremony file ----------------------------------------------------------------------

#[derive(Serialize)]
struct CeremonyDocument {
    name: String,
    authority: Vec<NewAuthority>,
}

#[derive(Serialize)]
struct NewAuthority {
    name: String,
    issuer: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    external_issuer: bool,
    key_type: KeyType,
    validity: Option<&'static str>,
    path_length: u8,
    subject: Subject,
}

#[derive(Serialize)]
struct Subject {
    country: Option<String>,
    organization: String,
    common_name: String,
}

pub(super) fn ceremony(answers: &Answers) -> String {
    let document = CeremonyDocument {
        name: format!("first ceremony of {}", answers.organization),
        authority: hierarchy(answers),
    };
    toml::to_string(&document).expect("tables of texts and numbers can be written as TOML")
}

/// The authorities, issuers first.
pub(super) fn authorities(answers: &Answers) -> Vec<String> {
    hierarchy(answers).into_iter().map(|it| it.name).collect()
}

fn hierarchy(answers: &Answers) -> Vec<NewAuthority> {
    let line = answers.issuing_authority();
    let new = |name: &str, issuer: Option<&str>, validity, path_length| NewAuthority {
        name: name.to_owned(),
        issuer: issuer.map(str::to_owned),
        external_issuer: false,
        key_type: key_type(answers, issuer.is_none()),
        validity: Some(validity),
        path_length,
        subject: Subject {
            country: answers.country.clone(),
            organization: answers.organization.clone(),
            common_name: format!("{} {name}", answers.organization),
        },
    };
    match (answers.shape, answers.issuer) {
        (SiteKind::FactoryLine, _) => vec![
            new("root", None, "20y", 2),
            new("plant", Some("root"), "10y", 1),
            new(line, Some("plant"), "5y", 0),
            new("operations", Some("root"), "10y", 0),
        ],
        (SiteKind::Gateway, Some(GatewayIssuer::External)) => {
            let mut gateway = new(line, None, "5y", 0);
            (gateway.external_issuer, gateway.validity) = (true, None);
            gateway.key_type = key_type(answers, false);
            // One issuer may have many gateways below it.
            if let Some(host) = answers.listen.names.first() {
                gateway.subject.common_name = format!("{} {host}", answers.organization);
            }
            vec![gateway]
        }
        (SiteKind::Gateway, _) => vec![
            new("root", None, "20y", 1),
            new(line, Some("root"), "5y", 0),
        ],
    }
}

/// Returns P-384 for a root, which lives long, and P-256 where a TPM may have nothing else.
fn key_type(answers: &Answers, is_root: bool) -> KeyType {
    match answers.token.kind {
        TokenKind::Softhsm | TokenKind::Pkcs11 if is_root => KeyType::P384,
        _ => KeyType::P256,
    }
}
