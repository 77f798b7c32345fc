//! Reads `[listen]`: where the daemon listens, and the addresses that its certificates name.

use super::ConfigurationError;
use crate::x509::listener_names::listener_names;
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The longest `public_http`: every certificate holds it twice.
const PUBLIC_HTTP_BYTES_MAX: usize = 256;
/// The kernel's number for every user that a user namespace, such as that of the unit, does not
/// know.
const OVERFLOW_USER: u32 = 65_534;

/// How many connections of unidentified clients each listener has at most.
pub const UNIDENTIFIED_CONNECTIONS_MAX: usize = 512;
/// How many unidentified connections one address may have by default.
const CONNECTIONS_PER_ADDRESS: usize = 256;

/// The table as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    /// Address of the HTTPS listener; port 0 takes a free one.
    https: Option<SocketAddr>,
    /// DNS names and IP addresses of the HTTPS listener.
    #[serde(default)]
    names: Vec<String>,
    /// The profile of the HTTPS listener's certificate.
    profile: Option<String>,
    /// The profile of EST requests whose address names none.
    est_profile: Option<String>,
    /// Whether the base64 of EST answers has lines, as most clients want.
    pub(super) est_line_breaks: Option<bool>,
    /// Serves CRLs and CA certificates over plain HTTP, and nothing else.
    pub(super) http: Option<SocketAddr>,
    /// The address of `http` for relying parties, which certificates have.
    public_http: Option<String>,
    /// The admin socket; without it, `admin.sock` in `runtime_dir`.
    pub(super) admin: Option<PathBuf>,
    /// User ids that may use the admin socket, besides root and the daemon's own.
    #[serde(default)]
    pub(super) admin_users: Vec<u32>,
    /// How many connections of unidentified clients one address may have.
    connections_per_address: Option<usize>,
}

/// The HTTPS listener.
#[derive(Clone, Debug)]
pub struct HttpsListener {
    /// Port 0 takes a free port, which the log names.
    pub address: SocketAddr,
    pub names: Vec<String>,
    /// The profile of its certificate.
    pub profile: String,
}

impl Listen {
    pub(super) fn https_listener(&self) -> Result<Option<HttpsListener>, ConfigurationError> {
        let Some(address) = self.https else {
            return Ok(None);
        };
        let names = listener_names(&self.names).map_err(ConfigurationError::Contradiction)?;
        let Some(profile) = self.profile.clone().filter(|_| !names.is_empty()) else {
            return Err(ConfigurationError::Contradiction(
                "[listen] https needs `names` (what clients call this machine) and `profile` (one \
                 with role \"server\")"
                    .into(),
            ));
        };
        Ok(Some(HttpsListener {
            address,
            names,
            profile,
        }))
    }

    /// Refuses the overflow user: in a user namespace, every unknown user has that number.
    pub(super) fn admin_users(&self) -> Result<Vec<u32>, ConfigurationError> {
        if self.admin_users.contains(&OVERFLOW_USER) {
            return Err(ConfigurationError::Contradiction(format!(
                "[listen] admin_users has {OVERFLOW_USER}, the number of every user that the \
                 sandbox does not know; name the users, and set PrivateUsers=no in a drop-in \
                 of hallmarkd.service"
            )));
        }
        Ok(self.admin_users.clone())
    }

    /// Several, because a plant may be behind one address (NAT).
    pub(super) fn connections_per_address(&self) -> Result<usize, ConfigurationError> {
        let number = self
            .connections_per_address
            .unwrap_or(CONNECTIONS_PER_ADDRESS);
        if (1..=UNIDENTIFIED_CONNECTIONS_MAX).contains(&number) {
            return Ok(number);
        }
        Err(ConfigurationError::Contradiction(format!(
            "[listen] connections_per_address must be 1 to {UNIDENTIFIED_CONNECTIONS_MAX}, not \
             {number}"
        )))
    }

    /// EST is TLS (RFC 7030 3.3).
    pub(super) fn est_profile(&self) -> Result<Option<String>, ConfigurationError> {
        match (&self.est_profile, self.https) {
            (Some(_), None) => Err(ConfigurationError::Contradiction(
                "[listen] est_profile needs `https`: EST works over TLS only".into(),
            )),
            (profile, _) => Ok(profile.clone()),
        }
    }

    /// Plain HTTP: a relying party that fetches a CRL must not need another certificate for it
    /// (RFC 5280, section 8).
    pub(super) fn public_http(&self) -> Result<Option<String>, ConfigurationError> {
        let Some(address) = &self.public_http else {
            return Ok(None);
        };
        let base = address.trim_end_matches('/');
        let host = base.strip_prefix("http://").unwrap_or_default();
        let printable = |it: char| it.is_ascii_graphic() && !"?#\"<>\\^`{|}@".contains(it);
        let good = base.len() <= PUBLIC_HTTP_BYTES_MAX
            && host.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '[')
            && host.chars().all(printable);
        if good {
            return Ok(Some(base.to_owned()));
        }
        Err(ConfigurationError::Contradiction(format!(
            "[listen] public_http {address:?} must be the plain http:// address under which others \
             reach `http`, such as \"http://pki.example\""
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_not_admitted() {
        let listen = |text: &str| toml::from_str::<Listen>(text).unwrap().admin_users();
        assert_eq!(listen("admin_users = [1000]").unwrap(), [1000]);
        let refusal = listen("admin_users = [1000, 65534]").unwrap_err();
        assert!(refusal.to_string().contains("PrivateUsers=no"), "{refusal}");
    }
}
