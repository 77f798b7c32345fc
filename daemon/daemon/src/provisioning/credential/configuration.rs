//! `credential` of a plane: what an operator says of it, and what it means.
//!
//! A string is a file: a connection string, or for Azure Resource Manager a bearer token. A table
//! names its `kind`. No form holds a secret itself.

use super::access_token::{AccessTokens, Audience, Source};
use super::client_assertion::{Application, ClientAssertion};
use super::keys::{CredentialKeys, TokenKeys};
use super::managed_identity::{ENDPOINT_DEFAULT, Identity, ManagedIdentity, parse_endpoint};
use super::{Credential, CredentialError, SharedAccessKey, file};
use crate::provisioning::budget::Budget;
use crate::provisioning::endpoint::{EndpointInvalid, Endpoints};
use crate::provisioning::http::{Plane, PlaneError, PlaneKind};
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The token endpoint of Azure's public cloud.
const AUTHORITY_DEFAULT: &str = "https://login.microsoftonline.com";

/// One plane needs a token or two an hour; this is for bad hours.
const TOKENS_PER_MINUTE: u32 = 60;

/// Longest tenant or client id.
const NAME_LENGTH_MAX: usize = 128;

/// `credential`, as it is raw.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum CredentialConfiguration {
    /// A file; a bare name is one of systemd's credentials.
    File(PathBuf),
    Kind(CredentialKind),
}

/// `credential = { kind = "…", … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CredentialKind {
    /// A bearer token that something else refreshes.
    BearerFile {
        /// The file; a bare name is one of systemd's credentials.
        path: PathBuf,
    },
    /// Shared access signatures, computed by a token.
    TokenHmac {
        /// The token's name in the configuration.
        token: String,
        /// The name under which the key was imported.
        key: String,
        /// The shared access policy whose key it is.
        policy: String,
    },
    /// Entra ID, by an assertion that a token signs.
    EntraClientAssertion(EntraConfiguration),
    /// Entra ID, by the identity of the machine.
    ManagedIdentity {
        #[serde(default = "metadata_default")]
        endpoint: String,
        /// Of a user-assigned identity.
        client_id: Option<String>,
    },
}

/// An application of Entra ID, as it is raw.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntraConfiguration {
    /// Host of the token endpoint.
    #[serde(default = "authority_default")]
    pub authority: String,
    /// `ip:port` to connect to instead of what the DNS says.
    pub address: Option<String>,
    /// PEM file with the only authorities to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// Tenant id, or a domain of the tenant.
    pub tenant: String,
    /// Client id of the application.
    pub client_id: String,
    /// The token's name in the configuration.
    pub token: String,
    /// The key's name there.
    pub key: String,
    /// PEM file with the certificate that Entra has.
    pub certificate: PathBuf,
}

fn authority_default() -> String {
    AUTHORITY_DEFAULT.to_owned()
}

fn metadata_default() -> String {
    ENDPOINT_DEFAULT.to_owned()
}

/// A string or a table; either way the error names the key that is wrong.
impl<'de> Deserialize<'de> for CredentialConfiguration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FileOrKind;
        impl<'de> Visitor<'de> for FileOrKind {
            type Value = CredentialConfiguration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a file, or a table with a `kind`")
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Self::Value, E> {
                let path = PathBuf::deserialize(StringDeserializer::<E>::new(path.to_owned()))?;
                if path.as_os_str().is_empty() {
                    return Err(E::custom("the path of the credential is empty"));
                }
                Ok(CredentialConfiguration::File(path))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let kind = CredentialKind::deserialize(MapAccessDeserializer::new(map));
                kind.map(CredentialConfiguration::Kind)
                    .map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(FileOrKind)
    }
}

/// A credential, as it is meant. Cheap: nothing is opened yet.
#[derive(Clone, Debug)]
pub struct CredentialSettings {
    audience: Audience,
    host: String,
    means: Means,
}

#[derive(Clone, Debug)]
enum Means {
    ConnectionString(PathBuf),
    BearerToken(PathBuf),
    TokenHmac {
        token: String,
        key: String,
        policy: String,
    },
    ClientAssertion(Application),
    ManagedIdentity(Identity),
}

impl CredentialConfiguration {
    /// Checks the credential for the plane of `audience` at `host`.
    pub(in crate::provisioning) fn resolve(
        &self,
        audience: Audience,
        host: &str,
        endpoints: &Endpoints<'_>,
    ) -> Result<CredentialSettings, CredentialInvalid> {
        let takes_signatures = audience != Audience::ResourceManager;
        let means = match self {
            Self::File(path) if takes_signatures => {
                Means::ConnectionString(endpoints.credential_path(path)?)
            }
            Self::File(path) | Self::Kind(CredentialKind::BearerFile { path }) => {
                Means::BearerToken(endpoints.credential_path(path)?)
            }
            Self::Kind(CredentialKind::TokenHmac { .. }) if !takes_signatures => {
                return Err(CredentialInvalid::SharedAccess);
            }
            Self::Kind(CredentialKind::TokenHmac { token, key, policy }) => Means::TokenHmac {
                token: token.clone(),
                key: key.clone(),
                policy: policy.clone(),
            },
            Self::Kind(CredentialKind::EntraClientAssertion(entra)) => {
                Means::ClientAssertion(entra.resolve(endpoints)?)
            }
            Self::Kind(CredentialKind::ManagedIdentity {
                endpoint,
                client_id,
            }) => {
                let address = parse_endpoint(endpoint);
                Means::ManagedIdentity(Identity {
                    address: address.ok_or(CredentialInvalid::Metadata(endpoint.clone()))?,
                    client_id: client_id.clone(),
                })
            }
        };
        Ok(CredentialSettings {
            audience,
            host: host.to_owned(),
            means,
        })
    }
}

impl EntraConfiguration {
    fn resolve(&self, endpoints: &Endpoints<'_>) -> Result<Application, CredentialInvalid> {
        for name in [&self.tenant, &self.client_id] {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
            if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.bytes().all(plain) {
                return Err(CredentialInvalid::Name(name.clone()));
            }
        }
        let address = self.address.as_deref();
        let ca_bundle = self.ca_bundle.as_deref();
        Ok(Application {
            endpoint: endpoints.plane(&self.authority, address, ca_bundle)?,
            tenant: self.tenant.clone(),
            client_id: self.client_id.clone(),
            token: self.token.clone(),
            key: self.key.clone(),
            certificate: endpoints.credential_path(&self.certificate)?,
        })
    }
}

impl CredentialSettings {
    /// The token and the key there that it needs, if it needs one.
    pub fn token_key(&self) -> Option<(&str, &str)> {
        match &self.means {
            Means::TokenHmac { token, key, .. } => Some((token, key)),
            Means::ClientAssertion(application) => Some((&application.token, &application.key)),
            _ => None,
        }
    }

    /// The file that holds its secret, if one does.
    pub fn file(&self) -> Option<&Path> {
        match &self.means {
            Means::ConnectionString(path) | Means::BearerToken(path) => Some(path),
            _ => None,
        }
    }

    /// Reads it, if it is a file and the file is there: one may be brought later.
    pub(in crate::provisioning) fn check_file(&self) -> Result<(), CredentialError> {
        let read = match &self.means {
            Means::ConnectionString(path) => {
                file::shared_access(path, &self.host, SystemTime::now())
            }
            Means::BearerToken(path) => file::bearer(path),
            _ => return Ok(()),
        };
        match read {
            Err(error) if error.is_missing_file() => Ok(()),
            read => read.map(drop),
        }
    }

    /// The credential itself, with its own cache.
    pub(in crate::provisioning) fn credential(
        &self,
        keys: &TokenKeys,
    ) -> Result<Credential, PlaneError> {
        let host = self.host.clone();
        Ok(match self.means.clone() {
            Means::ConnectionString(path) => Credential::ConnectionString { path, host },
            Means::BearerToken(path) => Credential::BearerToken { path },
            Means::TokenHmac { token, key, policy } => {
                let keys = keys_of(keys, &token)?;
                Credential::TokenHmac(SharedAccessKey {
                    keys,
                    key,
                    policy,
                    host,
                })
            }
            Means::ClientAssertion(application) => {
                let keys = keys_of(keys, &application.token)?;
                let kind = PlaneKind::Credential;
                let endpoint = Plane::new(kind, &application.endpoint, Credential::None, budget())?;
                let source = ClientAssertion::new(application, self.audience, endpoint, keys);
                access(Source::ClientAssertion(source))
            }
            Means::ManagedIdentity(identity) => {
                let metadata = Plane::of_metadata(identity.address, budget())?;
                let source = ManagedIdentity::new(identity, self.audience, metadata);
                access(Source::ManagedIdentity(source))
            }
        })
    }
}

fn keys_of(keys: &TokenKeys, token: &str) -> Result<Arc<dyn CredentialKeys>, PlaneError> {
    let found = keys.get(token).cloned();
    found.ok_or_else(|| PlaneError::Token(token.to_owned()))
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(TOKENS_PER_MINUTE))
}

fn access(source: Source) -> Credential {
    Credential::AccessToken(Arc::new(AccessTokens::new(source)))
}

/// A credential that cannot be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::provisioning) enum CredentialInvalid {
    #[error(transparent)]
    Endpoints(#[from] EndpointInvalid),
    #[error(
        "Azure Resource Manager takes no shared access signatures: give a bearer-file, \
         entra-client-assertion or managed-identity"
    )]
    SharedAccess,
    #[error("{0:?} is no tenant or client id; give the id as the portal shows it")]
    Name(String),
    #[error("{0:?} is no metadata service; give http://IP:PORT on this machine or its link")]
    Metadata(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Raw {
        credential: CredentialConfiguration,
    }

    fn resolve(text: &str, audience: Audience) -> Result<CredentialSettings, String> {
        let raw: Result<Raw, _> = toml::from_str(&format!("credential = {text}"));
        let raw = raw.map_err(|error| error.to_string())?;
        let endpoints = Endpoints {
            ca_bundle: None,
            proxy: None,
            credentials: None,
        };
        let settings = raw.credential.resolve(audience, "line.example", &endpoints);
        settings.map_err(|error| error.to_string())
    }

    const HMAC: &str = r#"{ kind = "token-hmac", token = "factory", key = "dps", policy = "o" }"#;
    const ENTRA: &str = r#"{ kind = "entra-client-assertion", tenant = "t", client_id = "c",
        token = "factory", key = "entra", certificate = "/etc/entra.pem" }"#;

    #[test]
    fn a_file_means_what_its_plane_takes() {
        let means = |audience| resolve("\"/run/x\"", audience).unwrap().means;
        let service = means(Audience::ProvisioningService);
        assert!(matches!(service, Means::ConnectionString(_)), "{service:?}");
        let arm = means(Audience::ResourceManager);
        assert!(matches!(arm, Means::BearerToken(_)), "{arm:?}");
    }

    #[test]
    fn each_kind_is_understood_and_names_its_key() {
        let settings = |text: &str| resolve(&text.replace('\n', ""), Audience::Hub).unwrap();
        assert_eq!(settings(HMAC).token_key(), Some(("factory", "dps")));
        let Means::ClientAssertion(application) = settings(ENTRA).means else {
            panic!("not an assertion");
        };
        assert_eq!(application.endpoint.host, "login.microsoftonline.com");
        let Means::ManagedIdentity(identity) = settings("{ kind = \"managed-identity\" }").means
        else {
            panic!("not a managed identity");
        };
        assert_eq!(identity.address.to_string(), "169.254.169.254:80");
        settings("{ kind = \"bearer-file\", path = \"/run/x\" }");
    }

    #[test]
    fn a_wrong_credential_is_refused_with_the_reason() {
        for (text, reason) in [
            (HMAC, "no shared access signatures"),
            ("\"\"", "is empty"),
            ("5", "a file, or a table"),
            ("{ kind = \"password\" }", "unknown variant"),
            ("{ kind = \"bearer-file\" }", "missing field `path`"),
            (
                "{ kind = \"bearer-file\", path = \"/x\", key = \"y\" }",
                "unknown field `key`",
            ),
            (
                "{ kind = \"managed-identity\", endpoint = \"http://10.0.0.1\" }",
                "no metadata",
            ),
            (
                &ENTRA.replace('\n', "").replace("\"t\"", "\"a/b\""),
                "no tenant",
            ),
            (
                &ENTRA.replace('\n', "").replace("key =", "secret ="),
                "unknown field `secret`",
            ),
        ] {
            let refused = resolve(text, Audience::ResourceManager).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
