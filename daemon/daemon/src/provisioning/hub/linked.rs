//! Holds the clients of all hubs that are linked to one provisioning service and configured.

use super::HubClient;

/// The configured hubs of one service, by host name.
#[derive(Clone, Debug, Default)]
pub struct Hubs(Vec<HubClient>);

impl Hubs {
    /// Returns true if no hub is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the hub with this host name.
    pub fn find(&self, host: &str) -> Option<&HubClient> {
        self.iter().find(|it| it.host().eq_ignore_ascii_case(host))
    }

    /// Returns the hubs in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &HubClient> {
        self.0.iter()
    }

    /// Returns the hub, if there is exactly one.
    pub fn only(&self) -> Option<&HubClient> {
        match &self.0[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

impl FromIterator<HubClient> for Hubs {
    fn from_iter<T: IntoIterator<Item = HubClient>>(hubs: T) -> Self {
        Self(hubs.into_iter().collect())
    }
}
