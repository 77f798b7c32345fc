//! Resolves the endpoints of one service: host name, address, trusted authorities, proxy.
//!
//! The address to connect to is configured apart from the host name that is signed and verified:
//! private endpoints, proxies and emulators need it.

use super::http::PlaneSettings;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Settings that all planes of one service share.
pub(super) struct Endpoints<'a> {
    /// Trusted authorities of planes without a bundle of their own.
    pub(super) ca_bundle: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    pub(super) credentials: Option<&'a Path>,
}

/// Why an endpoint is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EndpointInvalid {
    #[error("{0:?} is not a host name; give https://HOST without port and path")]
    Endpoint(String),
    #[error("{0:?} is not an address; give IP:PORT")]
    Address(String),
    #[error("{0:?} is not a proxy; give http://HOST:PORT")]
    Proxy(String),
    #[error("an address for {0} and a proxy contradict each other: drop one")]
    AddressAndProxy(String),
    #[error(
        "credential {} is a bare name, but $CREDENTIALS_DIRECTORY is not set: \
         start by systemd with LoadCredential=, or give a path",
        .0.display()
    )]
    Credential(PathBuf),
}

impl Endpoints<'_> {
    /// Returns the settings of the plane at `endpoint`, with its own `ca_bundle` if it has one.
    pub(super) fn plane(
        &self,
        endpoint: &str,
        address: Option<&str>,
        ca_bundle: Option<&Path>,
    ) -> Result<PlaneSettings, EndpointInvalid> {
        let host = host(endpoint).ok_or_else(|| EndpointInvalid::Endpoint(endpoint.to_owned()))?;
        let address = address.map(|text| {
            let parsed: Result<SocketAddr, _> = text.parse();
            parsed.map_err(|_| EndpointInvalid::Address(text.to_owned()))
        });
        if address.is_some() && self.proxy.is_some() {
            return Err(EndpointInvalid::AddressAndProxy(host));
        }
        let is_other = |proxy: &&String| !proxy.starts_with("http://");
        if let Some(proxy) = self.proxy.as_ref().filter(is_other) {
            return Err(EndpointInvalid::Proxy(proxy.to_owned()));
        }
        let ca_bundle = ca_bundle.or(self.ca_bundle.as_deref());
        Ok(PlaneSettings {
            host,
            address: address.transpose()?,
            ca_bundle: ca_bundle.map(Path::to_owned),
            proxy: self.proxy.clone(),
        })
    }

    /// Returns the file of a credential; a bare name is a systemd credential.
    pub(super) fn credential_path(&self, path: &Path) -> Result<PathBuf, EndpointInvalid> {
        let is_bare = path.components().count() == 1 && path.is_relative();
        match (is_bare, self.credentials) {
            (false, _) => Ok(path.to_owned()),
            (true, Some(folder)) => Ok(folder.join(path)),
            (true, None) => Err(EndpointInvalid::Credential(path.to_owned())),
        }
    }
}

/// Returns the host name of an endpoint in lower case; an endpoint has nothing else.
fn host(endpoint: &str) -> Option<String> {
    let host = endpoint.strip_prefix("https://").unwrap_or(endpoint);
    let host = host.strip_suffix('/').unwrap_or(host);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let is_name = !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed);
    is_name.then(|| host.to_ascii_lowercase())
}
