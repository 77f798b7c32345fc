//! The token endpoint of Entra ID, and the tokens it gave out (contract section 8.2).
//!
//! A client proves itself by an assertion signed with the key of a certificate that was registered
//! here. Tokens are opaque. They expire by the machine's clock, as SAS tokens do and for the same
//! reason; the certificate's validity goes by the emulator's.

mod assertion;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::certificate::{Certificate, Unreadable};
use crate::cloud::Cloud;
use crate::operation::Operation;
use crate::plane::ENTRA_HOST;
use crate::wire::{self, Call, Reply};
use assertion::Assertion;

/// Life of a token; Entra's own are about as long.
const TOKEN_SECONDS: i64 = 3599;
/// Most tokens that are remembered.
const TOKENS_MAX: usize = 1000;
const FORM_LENGTH_MAX: usize = 32 * 1024;

const GRANT_TYPE: &str = "client_credentials";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scope {
    /// The service plane of DPS.
    Service,
    Hub,
    Arm,
}

impl Scope {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "https://azure-devices-provisioning.net/.default" => Some(Self::Service),
            "https://iothubs.azure.net/.default" => Some(Self::Hub),
            // With two slashes where a client takes the resource to end in one.
            "https://management.azure.com/.default" | "https://management.azure.com//.default" => {
                Some(Self::Arm)
            }
            _ => None,
        }
    }
}

/// An application that may ask for tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntraClient {
    /// Tenant id, as it stands in the address.
    pub tenant: String,
    /// Client id of the application.
    pub client_id: String,
    /// Its certificate, RSA, as PEM.
    pub certificate: String,
}

/// Registered applications and the tokens that they got.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Directory {
    clients: BTreeMap<String, Registered>,
    tokens: BTreeMap<String, Token>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Registered {
    tenant: String,
    certificate: Certificate,
}

#[derive(Debug, Serialize, Deserialize)]
struct Token {
    scope: Scope,
    expires: i64,
}

impl Directory {
    /// Register an application, or replace it.
    pub(crate) fn register(&mut self, client: EntraClient) -> Result<(), Unreadable> {
        let certificate = Certificate::from_text(&client.certificate)?;
        let registered = Registered {
            tenant: client.tenant,
            certificate,
        };
        self.clients.insert(client.client_id, registered);
        Ok(())
    }

    fn issue(&mut self, scope: Scope, now: i64) -> String {
        self.tokens.retain(|_, token| token.expires > now);
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.pop_first();
        }
        let text = format!("entra.{}", uuid::Uuid::new_v4().simple());
        let token = Token {
            scope,
            expires: now + TOKEN_SECONDS,
        };
        self.tokens.insert(text.clone(), token);
        text
    }

    fn opens(&self, token: &str, scope: Scope, now: i64) -> bool {
        let found = self.tokens.get(token);
        found.is_some_and(|found| found.scope == scope && found.expires > now)
    }
}

/// Whether `token` opens the plane of `scope`. The resource manager has one that always does.
pub(crate) fn opens(cloud: &Cloud, token: &str, scope: Scope) -> bool {
    let now = machine_seconds();
    cloud.read(|world| {
        let is_fixed = scope == Scope::Arm && world.arm_token == token;
        is_fixed || world.directory.opens(token, scope, now)
    })
}

/// An OAuth error: always 400 here (contract section 8.2).
#[derive(Debug)]
struct OauthError {
    error: &'static str,
    description: String,
}

impl OauthError {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            error,
            description: description.into(),
        }
    }
}

/// Answer a call that leads to this plane.
pub(crate) fn answer(cloud: &Cloud, operation: Option<Operation>, call: &Call) -> Reply {
    let answer = match operation {
        Some(Operation::TokenIssue) => issue(cloud, call),
        Some(Operation::TokenDiscovery) => Ok(discovery(call)),
        _ => return Reply::json(404, json!({ "error": "not_found" })),
    };
    answer.unwrap_or_else(|refusal| {
        let body = json!({ "error": refusal.error, "error_description": refusal.description });
        Reply::json(400, body)
    })
}

fn issue(cloud: &Cloud, call: &Call) -> Result<Reply, OauthError> {
    let text = std::str::from_utf8(&call.body).unwrap_or_default();
    if text.len() > FORM_LENGTH_MAX {
        return Err(OauthError::new("invalid_request", "the form is too long"));
    }
    let form = wire::fields(text);
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("grant_type") != GRANT_TYPE {
        return Err(OauthError::new(
            "unsupported_grant_type",
            "only client_credentials",
        ));
    }
    if field("client_assertion_type") != ASSERTION_TYPE {
        return Err(OauthError::new(
            "invalid_client",
            "a client assertion is required",
        ));
    }
    let scope = field("scope").split_whitespace().find_map(Scope::parse);
    let scope = scope.ok_or_else(|| OauthError::new("invalid_scope", "the scope is unknown"))?;
    authenticate(
        cloud,
        call.segment(0),
        field("client_id"),
        field("client_assertion"),
    )?;
    let now = machine_seconds();
    let token = cloud.change(|world| world.directory.issue(scope, now));
    Ok(Reply::json(200, granted(&token)))
}

fn authenticate(
    cloud: &Cloud,
    tenant: &str,
    client_id: &str,
    assertion: &str,
) -> Result<(), OauthError> {
    let refused = |reason: &str| OauthError::new("invalid_client", reason);
    let client = cloud.read(|world| world.directory.clients.get(client_id).cloned());
    let client = client.filter(|own| own.tenant.eq_ignore_ascii_case(tenant));
    let client = client.ok_or_else(|| refused("the application is not registered"))?;
    if !client.certificate.is_valid_at(cloud.now()) {
        return Err(refused("the application's certificate is not valid now"));
    }
    let assertion = Assertion::parse(assertion).map_err(|error| refused(&error.to_string()))?;
    let result = assertion.check(&client.certificate, tenant, client_id, machine_seconds());
    result.map_err(|error| refused(&error.to_string()))
}

fn granted(token: &str) -> Value {
    json!({
        "token_type": "Bearer",
        "expires_in": TOKEN_SECONDS,
        "ext_expires_in": TOKEN_SECONDS,
        "access_token": token,
    })
}

/// The document that msal reads first. The addresses keep the port under which the client came.
fn discovery(call: &Call) -> Reply {
    let host = call.header("host").unwrap_or(ENTRA_HOST);
    let base = format!("https://{host}/{}", call.segment(0));
    Reply::json(
        200,
        json!({
            "issuer": format!("{base}/v2.0"),
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
        }),
    )
}

fn machine_seconds() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}
