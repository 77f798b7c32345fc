//! State that all planes of one running emulator share.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use time::OffsetDateTime;

use crate::clock::Clock;
use crate::faults::Faults;
use crate::hub::presence::Presence;
use crate::journal::Journal;
use crate::options::{Options, Switches};
use crate::plane::Hosts;
use crate::rate::Rates;
use crate::world::World;

/// The shared state of one emulator.
#[derive(Debug)]
pub(crate) struct Cloud {
    /// First label of the service's host name, and its resource name.
    pub(crate) name: String,
    pub(crate) hosts: Hosts,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) faults: Faults,
    pub(crate) rates: Rates,
    pub(crate) presence: Presence,
    switches: Mutex<Switches>,
    world: Mutex<World>,
    state: Option<PathBuf>,
}

impl Cloud {
    /// The cloud that `options` describe, with the state that its file keeps.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let hosts = Hosts::new(&options.name, &options.linked_hubs);
        let mut world = match &options.state {
            Some(file) => World::load(file, &hosts.hubs).context("load the state")?,
            None => World::new(&hosts.hubs),
        };
        for client in &options.entra_clients {
            let id = &client.client_id;
            let registered = world.directory.register(client.clone());
            registered.with_context(|| format!("the certificate of the application {id}"))?;
        }
        Ok(Self {
            name: options.name.clone(),
            hosts,
            clock: Clock::default(),
            journal: Journal::default(),
            faults: Faults::default(),
            rates: Rates::default(),
            presence: Presence::default(),
            switches: Mutex::new(options.switches.clone()),
            world: Mutex::new(world),
            state: options.state.clone(),
        })
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// The switches as they are now.
    pub(crate) fn switches(&self) -> Switches {
        crate::lock(&self.switches).clone()
    }

    pub(crate) fn switch<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        change(&mut crate::lock(&self.switches))
    }

    /// Look at the world.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&crate::lock(&self.world))
    }

    /// Change the world, and keep the change if there is a state file.
    ///
    /// A state file that cannot be written is reported and does not stop the emulator: the test
    /// that restarts it will notice.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = crate::lock(&self.world);
        let result = change(&mut world);
        if let Some(file) = &self.state
            && let Err(error) = world.save(file)
        {
            tracing::error!(%error, file = %file.display(), "the state file was not written");
        }
        result
    }
}
