//! The client of a connection, as each of its requests carries it.

use super::caller::Peer;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use std::net::IpAddr;

/// The peer of a connection, its address, and its class of clients, which has its own permits.
#[derive(Clone, Debug)]
pub struct ConnectedClient {
    pub(super) peer: Peer,
    /// `None` on the admin socket.
    pub(super) address: Option<IpAddr>,
    pub(super) class: Class,
}

#[cfg(test)]
impl ConnectedClient {
    /// A client for tests of what is above the API.
    pub(crate) fn of_test() -> Self {
        Self {
            peer: Peer::NotAdmitted { uid: 0 },
            address: None,
            class: Class::Local,
        }
    }
}

/// Clients that share permits, for connections and for requests in work. No class can take a permit
/// of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Not identified: no certificate of ours that is good, or a local user who is not admitted.
    Stranger,
    /// Its certificate was issued here, and was good when the connection began.
    Identified,
    /// An admitted user of the admin socket.
    Local,
}

/// Whether nothing says that a page of another site has sent the request.
pub(crate) fn is_of_this_origin(headers: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let site = headers.get("sec-fetch-site").map(text);
    let origin = headers.get(ORIGIN).map(text);
    let host = headers.get(HOST).map(text).unwrap_or_default();
    let from = origin
        .as_deref()
        .map(|it| it.split_once("://").map(|it| it.1));
    let site = site.is_none_or(|it| it == "same-origin" || it == "none");
    site && from.is_none_or(|it| it == Some(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_site_is_recognized() {
        let sent = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            is_of_this_origin(&HeaderMap::from_iter(pairs))
        };
        let host = ("host", "ca.example:8443");
        assert!(sent(&[host]));
        assert!(sent(&[host, ("origin", "https://ca.example:8443")]));
        assert!(!sent(&[host, ("origin", "https://ca.example:8444")]));
        assert!(!sent(&[host, ("origin", "null")]));
        assert!(sent(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(
            sent(&[host, ("sec-fetch-site", "none")]),
            "typed by the user"
        );
        assert!(!sent(&[host, ("sec-fetch-site", "same-site")]));
        assert!(!sent(&[host, ("sec-fetch-site", "cross-site")]));
    }
}
