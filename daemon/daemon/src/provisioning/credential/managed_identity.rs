//! Entra ID by a managed identity: the metadata service of the Azure machine gives tokens (IMDS).
//!
//! It speaks plain HTTP on the machine's own link, so only link-local and loopback addresses are
//! taken: an access token in clear goes no further.

use super::access_token::{AccessToken, Audience, Granted, NoAccessToken};
use crate::provisioning::call::{Call, segment};
use crate::provisioning::failure::CallError;
use crate::provisioning::http::Plane;
use reqwest::Method;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

/// The version that is asked for.
const API_VERSION: &str = "2018-02-01";

/// Where Azure's machines find it.
pub(super) const ENDPOINT_DEFAULT: &str = "http://169.254.169.254";

/// Its port unless the endpoint names one.
const PORT_DEFAULT: u16 = 80;

/// A managed identity, as it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub address: SocketAddr,
    /// Of a user-assigned identity; the machine's own otherwise.
    pub client_id: Option<String>,
}

/// `http://IP[:PORT]`, on this machine or its link.
pub(super) fn parse_endpoint(endpoint: &str) -> Option<SocketAddr> {
    let text = endpoint.strip_prefix("http://")?.trim_end_matches('/');
    let with_default_port = |ip: IpAddr| SocketAddr::new(ip, PORT_DEFAULT);
    let address: SocketAddr = text
        .parse()
        .or_else(|_| text.parse().map(with_default_port))
        .ok()?;
    let is_near = match address.ip() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_loopback(),
    };
    is_near.then_some(address)
}

/// Asks the metadata service.
#[derive(Debug)]
pub(super) struct ManagedIdentity {
    identity: Identity,
    audience: Audience,
    metadata: Plane,
}

impl ManagedIdentity {
    pub(super) fn new(identity: Identity, audience: Audience, metadata: Plane) -> Self {
        Self {
            identity,
            audience,
            metadata,
        }
    }

    pub(super) async fn fetch(&self, now: SystemTime) -> Result<AccessToken, NoAccessToken> {
        let operation = "ask the metadata service for an access token".to_owned();
        let call = Call::new(Method::GET, operation.clone(), self.path())
            // It refuses requests without: a forwarded one would not have it.
            .header("metadata", "true".to_owned());
        let answer = self.metadata.call(call).await.map_err(refusal)?;
        let granted: Granted = answer.json(&operation)?;
        let no_life =
            || NoAccessToken::refused("the answer of the metadata service has no lifetime");
        granted.token(now).ok_or_else(no_life)
    }

    fn path(&self) -> String {
        let resource = segment(self.audience.resource());
        let path = format!(
            "/metadata/identity/oauth2/token?api-version={API_VERSION}&resource={resource}"
        );
        match &self.identity.client_id {
            Some(client_id) => format!("{path}&client_id={}", segment(client_id)),
            None => path,
        }
    }
}

/// While a machine starts or its metadata service is updated, it answers 404 and 410.
fn refusal(error: CallError) -> NoAccessToken {
    let is_starting = matches!(
        &error,
        CallError::Rejected {
            status: 404 | 410,
            ..
        }
    );
    let refusal = NoAccessToken::from(error);
    NoAccessToken {
        is_transient: refusal.is_transient || is_starting,
        ..refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_on_this_machine_and_its_link_only() {
        for (endpoint, address) in [
            (ENDPOINT_DEFAULT, Some("169.254.169.254:80")),
            ("http://127.0.0.1:4567/", Some("127.0.0.1:4567")),
            ("http://[::1]:80", Some("[::1]:80")),
            ("http://10.0.0.1", None),
            ("https://169.254.169.254", None),
            ("http://metadata", None),
        ] {
            let address = address.map(|text| text.parse().unwrap());
            assert_eq!(parse_endpoint(endpoint), address, "{endpoint}");
        }
    }
}
