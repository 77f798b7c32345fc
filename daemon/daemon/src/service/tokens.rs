//! The tokens, and who runs their workers.

use super::changes::is_unchanged;
use super::listeners::is_of_the_disk;
use crate::ca::{ConfiguredToken, TokenTraits};
use crate::config::Configuration;
use crate::files;
use crate::files::atomic;
use crate::token::client::TokenClient;
use crate::token::configuration::TokenSettings;
use crate::token::supervisor::{Supervisor, WorkerCommand};
use anyhow::Context;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

/// The supervisor of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workers {
    /// The daemon itself: on a developer's machine, in a container.
    Own,
    /// systemd, as `hallmark-token@NAME.service`; the daemon only connects.
    Systemd,
}

/// The tokens, and the supervisors of their workers.
pub(super) struct Tokens {
    pub(super) configured: BTreeMap<String, ConfiguredToken>,
    /// Notified when the state of a token changes, or the set of tokens.
    pub(super) state_changed: Arc<Notify>,
    /// Notified when a worker reports a change of its keys.
    pub(super) records: Arc<Notify>,
    workers: Workers,
    /// The file with the configuration that is applied. Workers of this daemon read it at each
    /// start, so that no worker reads a refused or future configuration.
    taken: PathBuf,
    supervised: BTreeMap<String, Supervised>,
    /// Of tokens that are no longer configured.
    retired: Vec<Supervisor>,
}

/// A worker of our own, and where it listens.
struct Supervised {
    socket: PathBuf,
    supervisor: Supervisor,
}

/// The tokens of a configuration that is about to be taken: nothing has changed yet.
pub(super) struct NextTokens {
    pub(super) configured: BTreeMap<String, ConfiguredToken>,
    /// Workers to be started, by token.
    commands: BTreeMap<String, WorkerCommand>,
    /// Sentences for the operator.
    pub(super) notices: Vec<String>,
    /// Where the configuration was written for workers of our own; `None` where it could not be.
    taken: Option<PathBuf>,
}

impl Tokens {
    pub(super) fn start(configuration: &Configuration, workers: Workers) -> anyhow::Result<Self> {
        let mut tokens = Self {
            configured: BTreeMap::new(),
            state_changed: Arc::default(),
            records: Arc::default(),
            workers,
            taken: configuration.state_dir.join("taken.toml"),
            supervised: BTreeMap::new(),
            retired: Vec::new(),
        };
        let next = tokens.next(configuration, |_| false)?;
        tokens.take(next, || true);
        Ok(tokens)
    }

    /// Returns the tokens of `now`, given those of `before`.
    pub(super) fn reconfigured(
        &self,
        before: &Configuration,
        now: &Configuration,
    ) -> anyhow::Result<NextTokens> {
        self.next(now, |name| {
            is_unchanged(&before.raw, &now.raw, "token", name)
        })
    }

    /// An unchanged token keeps its client and its worker. A changed one gets a new worker beside
    /// the previous one, which finishes its work.
    fn next(
        &self,
        configuration: &Configuration,
        is_same: impl Fn(&str) -> bool,
    ) -> anyhow::Result<NextTokens> {
        let mut next = NextTokens {
            configured: BTreeMap::new(),
            commands: BTreeMap::new(),
            notices: Vec::new(),
            taken: None,
        };
        if self.workers == Workers::Own {
            next.taken = self.write_taken(configuration)?;
        }
        for (name, settings) in &configuration.tokens {
            let known = self.configured.get(name).map(|it| it.client.clone());
            let client = match (known, self.workers) {
                (Some(client), _) if is_same(name) => client,
                (Some(client), Workers::Systemd) => {
                    next.notices.push(format!(
                        "token {name}: its worker takes this with `systemctl restart \
                         hallmark-token@{name}.service`"
                    ));
                    client
                }
                (None, Workers::Systemd) => {
                    TokenClient::new(name, configuration.worker_socket(name))
                }
                (_, Workers::Own) => {
                    let socket = self.free_socket(configuration, name);
                    let file = next
                        .taken
                        .as_ref()
                        .map_or(&configuration.file, |_| &self.taken);
                    let command = WorkerCommand::new(settings, file, socket.clone())?;
                    next.commands.insert(name.clone(), command);
                    TokenClient::new(name, socket)
                }
            };
            next.configured
                .insert(name.clone(), configured(client, settings));
        }
        Ok(next)
    }

    /// Writes the configuration for workers of this daemon. On a full or read-only disk they read
    /// the operator's file instead.
    fn write_taken(&self, configuration: &Configuration) -> anyhow::Result<Option<PathBuf>> {
        let file = self.taken.with_extension("next");
        let written = atomic::write(&file, configuration.text.as_bytes(), 0o600);
        match written.with_context(|| format!("cannot write {}", file.display())) {
            Ok(()) => Ok(Some(file)),
            Err(error) if is_of_the_disk(&error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "configuration copy not written, workers read the file itself"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The usual place, or another one while an earlier worker listens there. Its name is no longer
    /// than the usual one, so that what fits at the start fits at a reload.
    fn free_socket(&self, configuration: &Configuration, name: &str) -> PathBuf {
        let usual = configuration.worker_socket(name);
        match self.supervised.get(name) {
            Some(worker) if worker.socket == usual => {
                usual.with_file_name(format!("next-{name}.sock"))
            }
            _ => usual,
        }
    }

    /// Takes them. Workers that are not needed any more end when what is in hand `is_done`.
    pub(super) fn take(
        &mut self,
        next: NextTokens,
        is_done: impl Fn() -> bool + Clone + Send + 'static,
    ) {
        if let Some(written) = next.taken
            && let Err(error) = files::rename(&written, &self.taken)
        {
            tracing::error!(
                %error,
                "configuration copy not replaced, restarted workers read the old one",
            );
        }
        for (name, command) in next.commands {
            let client = next.configured[&name].client.clone();
            let socket = command.socket.clone();
            let supervisor = match self.supervised.remove(&name) {
                Some(before) => {
                    Supervisor::succeed(before.supervisor, is_done.clone(), client, command)
                }
                None => Supervisor::start(client, command),
            };
            let worker = Supervised { socket, supervisor };
            self.supervised.insert(name, worker);
        }
        let gone = |name: &String, _: &mut Supervised| !next.configured.contains_key(name);
        let gone: Vec<_> = self.supervised.extract_if(.., gone).collect();
        self.retired.extend(
            gone.into_iter()
                .map(|(_, it)| it.supervisor.retire(is_done.clone())),
        );
        self.retired.retain(|it| !it.has_ended());
        self.configured = next.configured;
        for token in self.configured.values() {
            let state_changed = self.state_changed.clone();
            let records = self.records.clone();
            token.client.on_state_change(move || {
                state_changed.notify_one();
                records.notify_one();
            });
            let records = self.records.clone();
            token.client.on_keys_change(move || records.notify_one());
        }
        self.state_changed.notify_one();
    }

    /// Signals all workers to end; dropping this waits for them.
    pub(super) fn end(&mut self) {
        let serving = self.supervised.values_mut().map(|it| &mut it.supervisor);
        serving.chain(&mut self.retired).for_each(Supervisor::end);
    }
}

fn configured(client: TokenClient, settings: &TokenSettings) -> ConfiguredToken {
    let family = settings.interface.family();
    ConfiguredToken {
        client,
        sign_deadline: settings.sign_deadline,
        traits: TokenTraits {
            family: family.map_or("TPM 2.0".to_owned(), |it| it.family.clone()),
            label: settings.label.clone(),
            serial: settings.serial.clone(),
            tells_local: family.is_none_or(|it| it.tells_local),
            sessions: settings.sessions,
        },
    }
}
