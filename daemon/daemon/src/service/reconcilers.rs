//! Starts and ends the reconcilers of the present configuration, and wakes them.

use super::surroundings::DaemonSurroundings;
use crate::ca::CertificateAuthority;
use crate::config::Configuration;
use crate::provisioning::configuration::Clients;
use crate::provisioning::credential::keys::TokenKeys;
use crate::provisioning::http::PlaneError;
use crate::provisioning::reconcile::Reconciler;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Wakes the loops when something at a provisioning service must change. A request that began under
/// an earlier configuration wakes the reconcilers of the present one.
#[derive(Clone)]
pub(super) struct Wakers {
    /// Wakes the loop of the application.
    pub(super) application: Arc<Notify>,
    /// Wakes the application to record, or to sign a CRL, only.
    pub(super) records: Arc<Notify>,
    services: Arc<ArcSwap<Vec<Arc<Notify>>>>,
    state_changed: Arc<Notify>,
}

impl Wakers {
    /// Takes `state_changed`, which is notified with the rest, and `records`, which tokens notify,
    /// too.
    pub(super) fn new(state_changed: Arc<Notify>, records: Arc<Notify>) -> Self {
        Self {
            application: Arc::default(),
            records,
            services: Arc::default(),
            state_changed,
        }
    }

    pub(super) fn wake_all(&self) {
        self.application.notify_one();
        self.services.load().iter().for_each(|it| it.notify_one());
        self.state_changed.notify_one();
    }
}

/// Returns the clients of every service; sends nothing.
pub(super) fn clients(
    configuration: &Configuration,
    keys: &TokenKeys,
) -> Result<BTreeMap<String, Clients>, PlaneError> {
    let services = configuration.provisioning.iter();
    services
        .map(|(name, service)| Ok((name.clone(), service.clients(keys)?)))
        .collect()
}

/// The reconcilers, one for each provisioning service.
pub(super) struct Reconcilers {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Reconcilers {
    /// Starts the reconcilers. The previous ones MUST have ended: two at one service would repeat
    /// each other's calls.
    pub(super) fn start(
        configuration: &Configuration,
        ca: &Arc<CertificateAuthority>,
        clients: BTreeMap<String, Clients>,
        wakers: &Wakers,
    ) -> Self {
        let surroundings = DaemonSurroundings::new(configuration, clients.clone());
        ca.surround(Arc::new(surroundings));
        let (stop, stopped) = watch::channel(false);
        let mut services = Vec::new();
        let tasks = clients.into_iter().map(|(name, clients)| {
            let [wake, hub_wake, canary_wake] = [(); 3].map(|()| Arc::new(Notify::new()));
            services.extend([&wake, &hub_wake, &canary_wake].map(Arc::clone));
            let reconciler = Reconciler {
                name,
                ca: ca.clone(),
                clients,
                drift: configuration.drift,
                scan_interval: configuration.scan_interval,
                wake,
                hub_wake,
                canary_wake,
                observed: wakers.application.clone(),
            };
            tokio::spawn(reconciler.run(stopped.clone()))
        });
        let tasks = tasks.collect();
        wakers.services.store(Arc::new(services));
        Self { stop, tasks }
    }

    /// Ends the reconcilers and waits for their end. A call in flight is abandoned.
    pub(super) async fn end(&mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            // The log has the message of a task that panicked.
            let _ = task.await;
        }
    }
}
