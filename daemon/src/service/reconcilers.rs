//! The reconcilers of the configuration that is in force, and the bells that wake them.

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

/// What is rung when something at a provisioning service must change. A request that began under an
/// earlier configuration wakes the reconcilers of the present one.
#[derive(Clone)]
pub(super) struct Bells {
    /// The application's.
    pub(super) application: Arc<Notify>,
    /// Rung when the application has to record or to sign a list, and nothing else.
    pub(super) records: Arc<Notify>,
    services: Arc<ArcSwap<Vec<Arc<Notify>>>>,
    news: Arc<Notify>,
}

impl Bells {
    /// `news` is rung with them; `records` is rung by tokens, too.
    pub(super) fn new(news: Arc<Notify>, records: Arc<Notify>) -> Self {
        Self {
            application: Arc::default(),
            records,
            services: Arc::default(),
            news,
        }
    }

    pub(super) fn ring(&self) {
        self.application.notify_one();
        self.services.load().iter().for_each(|it| it.notify_one());
        self.news.notify_one();
    }
}

/// The clients of every service; nothing is sent yet.
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
    /// Starts them. The ones of before MUST have ended: two would not know of each other's looks.
    pub(super) fn start(
        configuration: &Configuration,
        ca: &Arc<CertificateAuthority>,
        clients: BTreeMap<String, Clients>,
        bells: &Bells,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut rung = Vec::new();
        let tasks = clients.into_iter().map(|(name, clients)| {
            let [wake, hub_wake, canary_wake] = [(); 3].map(|()| Arc::new(Notify::new()));
            rung.extend([&wake, &hub_wake, &canary_wake].map(Arc::clone));
            let reconciler = Reconciler {
                name,
                ca: ca.clone(),
                clients,
                drift: configuration.drift,
                scan_interval: configuration.scan_interval,
                wake,
                hub_wake,
                canary_wake,
                observed: bells.application.clone(),
            };
            tokio::spawn(reconciler.run(stopped.clone()))
        });
        let tasks = tasks.collect();
        bells.services.store(Arc::new(rung));
        Self { stop, tasks }
    }

    /// Ends them, and waits for that. A call under way is let go of.
    pub(super) async fn end(&mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            // A task that panicked has said so already.
            let _ = task.await;
        }
    }
}
