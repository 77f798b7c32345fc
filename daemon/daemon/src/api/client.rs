//! The client of a connection, as each of its requests carries it.

use super::caller::Peer;
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
