//! Applies a new configuration while the daemon runs: in whole or not at all, without dropping a
//! connection.
//!
//! Every step that can fail comes first: reading the file, comparing the settings that need a
//! restart, making the clients of the services, writing the audit entry. Then all parts are
//! exchanged, which cannot fail. Requests in work keep the certificate authority, the tokens and
//! the workers that they began with. A reload must never abandon an intent, nor leave two
//! reconcilers at one service.

use super::changes::changes;
use super::listeners::listener_name;
use super::reconcilers::{Reconcilers, clients};
use super::tokens::NextTokens;
use super::{Daemon, ca_config, token_keys};
use crate::api::reload::{Change, Reloaded};
use crate::ca::{CertificateAuthority, Code, Error};
use crate::config::{Configuration, ConfigurationError};
use crate::notify::ServiceManager;
use crate::provisioning::configuration::Clients;
use crate::store::AuditEntry;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// A configuration that nothing speaks against any more.
struct Next {
    configuration: Configuration,
    tokens: NextTokens,
    clients: BTreeMap<String, Clients>,
    changes: Vec<Change>,
}

/// The configuration in `file`, with the credentials that systemd has brought.
pub fn read(file: &Path) -> Result<Configuration, ConfigurationError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Configuration::read(file, credentials.as_deref())
}

impl Daemon {
    /// Reads the file again for `actor`, and applies it.
    pub(super) async fn reload(&mut self, actor: &str) -> Result<Reloaded, Error> {
        let systemd = self.systemd.clone();
        if let Some(systemd) = &systemd {
            systemd.reloading();
        }
        let reloaded = self.apply(actor).await;
        if let Some(systemd) = &systemd {
            systemd.ready();
        }
        reloaded
    }

    async fn apply(&mut self, actor: &str) -> Result<Reloaded, Error> {
        match tokio::task::block_in_place(|| self.prepare(actor)) {
            Ok((next, ca)) => Ok(self.exchange(next, ca).await),
            Err(error) => {
                tracing::error!(actor, code = error.code.name(), %error,
                    "configuration refused, the previous one stays");
                let ca = self.current.load_full();
                let file = self.configuration.file.display();
                ca.issuer()
                    .record_refused_configuration(actor, &file.to_string(), &error)
                    .await;
                Err(error)
            }
        }
    }

    fn prepare(&self, actor: &str) -> Result<(Next, CertificateAuthority), Error> {
        let next = self.next()?;
        let ca = self.current.load();
        let configuration = &next.configuration;
        let entry = AuditEntry {
            at: ca.now(),
            actor: actor.to_owned(),
            action: "configuration.reloaded",
            subject: configuration.file.display().to_string(),
            detail: json!({ "changes": next.changes }),
        };
        let tokens = next.tokens.configured.clone();
        let config = ca_config(configuration, tokens, &self.store, &self.wakers);
        let ca = ca.reconfigured(config, entry)?;
        Ok((next, ca))
    }

    /// Reads the file and makes the parts that the new configuration needs.
    fn next(&self) -> Result<Next, Error> {
        let refused = |reason: String| Error::invalid(Code::ConfigurationRefused, reason);
        let before = &self.configuration;
        let configuration = read(&before.file).map_err(|error| refused(format!("{error:#}")))?;
        for ((what, is), (_, wanted)) in before
            .taken_at_start()
            .into_iter()
            .zip(configuration.taken_at_start())
        {
            if is != wanted {
                let message = format!(
                    "{what} is {is} until the daemon is restarted, and the file says {wanted}: \
                     restart it, or put the old value back"
                );
                return Err(Error::conflict(Code::RestartRequired, message));
            }
        }
        let tokens = self.tokens.reconfigured(before, &configuration);
        let tokens = tokens.map_err(|error| refused(format!("{error:#}")))?;
        let keys = token_keys(tokens.configured.values().map(|token| &token.client));
        let clients =
            clients(&configuration, &keys).map_err(|error| refused(format!("{error:#}")))?;
        Ok(Next {
            changes: changes(&before.raw, &configuration.raw),
            configuration,
            tokens,
            clients,
        })
    }

    async fn exchange(&mut self, next: Next, ca: CertificateAuthority) -> Reloaded {
        let ca = Arc::new(ca);
        let mut notices = next.tokens.notices.clone();
        notices.extend(unserved(&ca, &next.configuration));
        notices.extend(stranded(&ca));
        let before = Arc::downgrade(&self.current.swap(ca.clone()));
        // Requests in hand, and what the application does just now, hold it.
        let is_done = move || Weak::strong_count(&before) == 0;
        if let (Some(identity), Some(name)) = (&self.identity, listener_name(&next.configuration)) {
            identity.rename(name);
        }
        let users = next.configuration.admin_users.clone();
        self.admin_users.store(Arc::new(users));
        self.reconcilers.end().await;
        self.reconcilers = Reconcilers::start(&next.configuration, &ca, next.clients, &self.wakers);
        self.tokens.take(next.tokens, is_done);
        self.configuration = next.configuration;
        self.wakers.wake_all();
        tracing::info!(
            changes = next.changes.len(),
            ?notices,
            "configuration reloaded"
        );
        Reloaded {
            changes: next.changes,
            notices,
        }
    }
}

/// Devices whose profile the new configuration does not have.
fn stranded(ca: &CertificateAuthority) -> Vec<String> {
    let stranded = ca.stranded_devices();
    stranded.unwrap_or_else(|error| vec![format!("the devices' profiles cannot be read: {error}")])
}

/// Authorities that exist and have no place in `configuration`, as `hallmarkd check` says it.
fn unserved(ca: &CertificateAuthority, configuration: &Configuration) -> Vec<String> {
    let hierarchy = ca.hierarchy();
    let serving = hierarchy.iter().filter(|it| it.serving);
    let notices = serving.filter_map(|it| {
        let problem = configuration.misplaced(&it.authority, &it.token)?;
        Some(format!("authority {}: {problem}", it.authority))
    });
    notices.collect()
}
