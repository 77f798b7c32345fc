//! Serves the application over the network: REST and EST over TLS and over the admin socket; CRLs,
//! CA certificates and OCSP answers over plain HTTP, too.
//!
//! A handler turns bytes into a request, gets the caller's permission as a value, and passes both
//! to the application: issuance is awaited, and other calls run on a thread of their own
//! ([`application`]). A client that hangs up cancels nothing. No decision is made here. Both
//! listeners with callers have the same routes: the permission says what a caller may do, not the
//! socket. Plain HTTP has no callers, and serves published files and OCSP answers only.

mod applicant;
mod approval_guard;
mod approvals;
mod asks;
mod audit;
mod authorities;
mod authority_rolls;
mod backups;
mod basic;
mod batch;
mod blocks;
mod body;
mod ca_certificates;
pub mod caller;
mod ceremonies;
mod certificate_export;
mod certificate_list;
mod certificates;
pub mod client;
mod clock;
mod compromises;
mod device_credentials;
mod devices;
mod doctor;
mod enrollments;
mod est;
mod expiry;
mod generated_keys;
mod holds;
mod imports;
pub mod listener;
mod metrics;
mod ocsp;
mod openapi;
mod origin;
mod own_caller;
mod pace;
mod pagination;
mod parts;
mod pool;
pub mod problem;
mod profiles;
mod published;
mod push;
mod refusals;
pub mod reload;
mod revocations;
mod rolls;
pub mod server;
mod stapled;
mod status;
mod steps;
mod subordinates;
pub mod tls;
mod tokens;
mod transfers;
mod unrouted;

use crate::ca::exclusion::receipt::Receipt;
use crate::ca::{CertificateAuthority, Code, CurrentAuthority, Error};
use crate::trace;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Extensions;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use batch::Batches;
use caller::Peer;
use client::{Class, ConnectedClient};
use problem::Problem;
use reload::Reloads;
use schemars::JsonSchema;
use serde::Serialize;
use status::Health;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};

pub use openapi::access_table;

/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests of identified clients that may be in the application at once; one more gets 503.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// The same of clients that are not identified: there is little that they may ask.
const STRANGERS_IN_FLIGHT_MAX: usize = 16;
/// The same on the admin socket, so that operators are answered whatever stations do.
const LOCAL_IN_FLIGHT_MAX: usize = 64;
/// Client certificates that may be looked up at once for new connections.
const IDENTIFYING_MAX: usize = 16;
/// OCSP requests that may be in work at once, beside those that are answered from memory.
const OCSP_IN_FLIGHT_MAX: usize = 16;
/// How long such a request waits for its permit.
const OCSP_WAIT: Duration = Duration::from_secs(2);
/// Questions about the state of everything that may be in work at once.
const MONITORED_IN_FLIGHT_MAX: usize = 4;
/// How long such a question waits for its permit. Each takes milliseconds, and there may be several
/// dashboards and operators.
const MONITORED_WAIT: Duration = Duration::from_secs(5);
/// Key pairs that may be made at once: each may take seconds of a processor.
const KEYS_GENERATING_MAX: usize = 2;
/// The most rows that one answer carries.
pub const PAGE_ROWS_MAX: u32 = 1_000;

/// How long the answer to a compromise or block waits for the places that exclude.
const RECEIPT_WAIT: Duration = Duration::from_secs(30);
/// How often the receipt is read.
const RECEIPT_PERIOD: Duration = Duration::from_millis(50);
/// Where the daemon listens.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct Addresses {
    pub https: Option<SocketAddr>,
    /// Plain HTTP, for what is published.
    pub http: Option<SocketAddr>,
}

/// The state that the routes share.
#[derive(Clone)]
pub struct Edge {
    current: CurrentAuthority,
    shared: Arc<Shared>,
}

/// State that all requests share.
struct Shared {
    addresses: Addresses,
    in_flight: InFlight,
    health: Mutex<Option<Health>>,
    stop: watch::Receiver<bool>,
    reloads: Reloads,
}

/// Permits for requests in the application.
struct InFlight {
    strangers: Arc<Semaphore>,
    identified: Arc<Semaphore>,
    local: Arc<Semaphore>,
    monitored: Arc<Semaphore>,
    ocsp: Arc<Semaphore>,
    identifying: Arc<Semaphore>,
    /// New connections wait for this before they take one of `identifying`.
    identifying_next: Semaphore,
    batches: Batches,
    local_batches: Batches,
    /// Keys that are made at once.
    generating: Semaphore,
}

impl InFlight {
    fn new() -> Self {
        let permits = |count| Arc::new(Semaphore::new(count));
        Self {
            strangers: permits(STRANGERS_IN_FLIGHT_MAX),
            identified: permits(REQUESTS_IN_FLIGHT_MAX),
            local: permits(LOCAL_IN_FLIGHT_MAX),
            monitored: permits(MONITORED_IN_FLIGHT_MAX),
            ocsp: permits(OCSP_IN_FLIGHT_MAX),
            identifying: permits(IDENTIFYING_MAX),
            identifying_next: Semaphore::new(IDENTIFYING_MAX),
            batches: Batches::new(),
            local_batches: Batches::new(),
            generating: Semaphore::new(KEYS_GENERATING_MAX),
        }
    }

    fn of(&self, class: Class) -> Arc<Semaphore> {
        let permits = match class {
            Class::Stranger => &self.strangers,
            Class::Identified => &self.identified,
            Class::Local => &self.local,
        };
        Arc::clone(permits)
    }

    /// The permits for batches of `peer`. As for requests, stations cannot take those of operators.
    fn batches(&self, peer: &Peer) -> &Batches {
        match peer {
            Peer::Network { .. } => &self.batches,
            Peer::Local { .. } | Peer::NotAdmitted { .. } => &self.local_batches,
        }
    }

    /// Ends when all permits were given back.
    async fn is_idle(&self) {
        let permits = [
            (&self.strangers, STRANGERS_IN_FLIGHT_MAX),
            (&self.identified, REQUESTS_IN_FLIGHT_MAX),
            (&self.local, LOCAL_IN_FLIGHT_MAX),
            (&self.monitored, MONITORED_IN_FLIGHT_MAX),
            (&self.ocsp, OCSP_IN_FLIGHT_MAX),
        ];
        for (permits, count) in permits {
            let all = u32::try_from(count).unwrap_or(u32::MAX);
            // The semaphore is never closed.
            let _ = permits.acquire_many(all).await;
        }
        self.batches.is_idle().await;
        self.local_batches.is_idle().await;
    }
}

/// The state of one request: the certificate authority as it was configured when the request came,
/// and the permits of its class of clients.
#[derive(Clone)]
pub struct Api {
    ca: Arc<CertificateAuthority>,
    shared: Arc<Shared>,
    in_flight: Arc<Semaphore>,
    /// How long a request waits for its permit.
    permit_wait: Duration,
}

impl Edge {
    /// The edge of `current`, which says where it listens, until `stop` turns true.
    pub fn new(
        current: CurrentAuthority,
        addresses: Addresses,
        stop: watch::Receiver<bool>,
        reloads: Reloads,
    ) -> Self {
        let shared = Arc::new(Shared {
            addresses,
            in_flight: InFlight::new(),
            health: Mutex::default(),
            stop,
            reloads,
        });
        Self { current, shared }
    }

    /// The application for a client of this class.
    fn api(&self, class: Class) -> Api {
        Api {
            ca: self.current.load_full(),
            shared: Arc::clone(&self.shared),
            in_flight: self.shared.in_flight.of(class),
            permit_wait: Duration::ZERO,
        }
    }

    /// The application, and the peer, of a request with these extensions.
    fn asked(&self, request: &Extensions) -> Result<(Api, Peer), Problem> {
        let client = request.get::<ConnectedClient>();
        let client =
            client.ok_or_else(|| Error::stop(Code::Internal, "a request has no client"))?;
        Ok((self.api(client.class), client.peer.clone()))
    }

    /// Whether the client of a new connection is identified: the renewal of an ended leaf is not
    /// a stranger's request. Takes no permit that a request needs.
    async fn identifies(&self, peer: &Peer) -> bool {
        let in_flight = &self.shared.in_flight;
        let _turn = in_flight.identifying_next.acquire().await;
        let api = Api {
            in_flight: Arc::clone(&in_flight.identifying),
            permit_wait: Duration::ZERO,
            ..self.api(Class::Stranger)
        };
        api.applies_by_certificate(peer).await
    }

    /// Returns the routes of plain HTTP: what is published, and nothing that needs a caller.
    pub fn public_router(self) -> Router {
        published::routes()
            .merge(ocsp::routes())
            .fallback(unrouted::not_over_http)
            .with_state(self)
    }

    /// All routes, for the listeners with callers.
    pub fn router(self) -> Router {
        published::routes()
            .merge(est::routes())
            .merge(ocsp::routes())
            .route("/healthz", get(status::healthy))
            .route("/readyz", get(status::ready))
            .route("/metrics", get(metrics::show))
            .route("/openapi.json", get(openapi::show))
            .route("/v1/status", get(status::show))
            .route("/v1/doctor", post(doctor::run))
            .route("/v1/expiry", get(expiry::list))
            .route("/v1/caller", get(own_caller::show))
            .route("/v1/reload", post(reload::reload))
            .route("/v1/backups", post(backups::create))
            .route("/v1/ceremonies", post(ceremonies::run))
            .route("/v1/transfers/requests", post(transfers::request))
            .route("/v1/transfers/answers", post(transfers::sign))
            .route("/v1/transfers/installations", post(transfers::install))
            .route(
                "/v1/certificates",
                get(certificate_list::list).post(certificates::issue),
            )
            .route("/v1/certificates:batch", post(batch::issue))
            .route("/v1/certificates/{serial}", get(certificates::show))
            .route(
                "/v1/certificates/{serial}/export",
                get(certificate_export::export),
            )
            .route("/v1/certificates/revocations", post(revocations::revoke))
            .route("/v1/certificates/holds", post(holds::hold))
            .route("/v1/certificates/releases", post(holds::release))
            .route("/v1/authorities", get(authorities::list))
            .route("/v1/authorities/{name}", get(authorities::show))
            .route("/v1/authorities/{name}/request", post(authorities::request))
            .route(
                "/v1/authorities/{name}/certificate",
                post(authorities::install),
            )
            .route(
                "/v1/authorities/{name}/subordinates",
                get(subordinates::list).post(subordinates::sign),
            )
            .route("/v1/authorities/{name}/imports", post(imports::run))
            .route("/v1/ca-certificates", get(ca_certificates::list))
            .route("/v1/profiles", get(profiles::list))
            .route("/v1/profiles/{name}", get(profiles::show))
            .route(
                "/v1/device-credentials",
                get(device_credentials::list).post(device_credentials::make),
            )
            .route(
                "/v1/device-credentials/{id}",
                delete(device_credentials::revoke),
            )
            .route("/v1/devices", get(devices::list))
            .route("/v1/devices/{id}", get(devices::show))
            .route("/v1/devices/{id}/compromise", get(compromises::of_device))
            .route(
                "/v1/authorities/{name}/compromise",
                get(compromises::of_authority),
            )
            .route(
                "/v1/enrollments",
                get(enrollments::list).post(enrollments::add),
            )
            .route("/v1/enrollments/{name}", get(enrollments::show))
            .route("/v1/enrollments/{kind}/{name}", delete(enrollments::remove))
            .route(
                "/v1/enrollments/{kind}/{name}/adoption",
                post(enrollments::adopt),
            )
            .route("/v1/rolls", get(rolls::list).post(rolls::start))
            .route("/v1/authorities/{name}/rolls", post(authority_rolls::start))
            .route("/v1/rolls/{id}", get(rolls::show))
            .route("/v1/rolls/{id}/report", get(authority_rolls::report))
            .route("/v1/rolls/{id}/approve", post(authority_rolls::approve))
            .route("/v1/rolls/{id}/abort", post(rolls::abort))
            .route("/v1/approvals", get(approvals::list))
            .route("/v1/approvals/{id}", get(approvals::show))
            .route("/v1/approvals/{id}/document", get(approvals::document))
            .route("/v1/approvals/{id}/signature", post(approvals::sign))
            .route("/v1/approvals/{id}/rejection", post(approvals::reject))
            .route("/v1/blocks", get(blocks::list).post(blocks::start))
            .route(
                "/v1/blocks/{kind}/{name}",
                get(blocks::show).delete(blocks::lift),
            )
            .route("/v1/clock/accept", post(clock::accept))
            .route("/v1/push", get(push::list))
            .route("/v1/push/retry", post(push::retry))
            .route("/v1/tokens", get(tokens::list))
            .route("/v1/tokens/{name}", get(tokens::show))
            .route("/v1/tokens/{name}/check", post(tokens::check))
            .route("/v1/tokens/{name}/bench", post(tokens::bench))
            .route("/v1/audit", get(audit::list))
            .route("/v1/audit/verification", get(audit::verify))
            .route("/v1/audit/checkpoints", get(audit::checkpoints))
            .route("/v1/audit/keys", get(audit::keys))
            .route("/v1/audit/accept", post(audit::accept))
            .fallback(unrouted::unknown_address)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn_with_state(self.clone(), approval_guard::guard))
            .layer(from_fn(origin::refuse_other_sites))
            .layer(from_fn_with_state(self.clone(), refusals::audit))
            .with_state(self)
    }

    /// Ends when no request is in work, whether or not a client waits for its answer.
    pub async fn is_idle(&self) {
        self.shared.in_flight.is_idle().await;
    }
}

impl Api {
    /// Calls `read` until no place is pending, for [`RECEIPT_WAIT`] at most, and only once at a
    /// stop: the receipt says which places are pending.
    async fn receipt(
        &self,
        read: impl Fn(&CertificateAuthority) -> Result<Receipt, Error> + Clone + Send + 'static,
    ) -> Result<Receipt, Problem> {
        let deadline = Instant::now() + RECEIPT_WAIT;
        loop {
            let receipt = self.application(read.clone()).await?;
            if !receipt.is_pending() || Instant::now() >= deadline || *self.shared.stop.borrow() {
                return Ok(receipt);
            }
            tokio::time::sleep(RECEIPT_PERIOD).await;
        }
    }

    /// Runs `work` to its end where blocking is allowed, even if the client hangs up.
    async fn application<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CertificateAuthority) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        Ok(self.visit(work).await??)
    }

    /// The same, with the permits for questions about the state of everything.
    fn monitored(&self) -> Self {
        Self {
            in_flight: Arc::clone(&self.shared.in_flight.monitored),
            permit_wait: MONITORED_WAIT,
            ..self.clone()
        }
    }

    /// The same, with the permits for OCSP requests.
    fn for_ocsp(&self) -> Self {
        Self {
            in_flight: Arc::clone(&self.shared.in_flight.ocsp),
            permit_wait: OCSP_WAIT,
            ..self.clone()
        }
    }

    /// The same, with the permits for requests of identified clients.
    fn of_identified(&self) -> Self {
        Self {
            in_flight: self.shared.in_flight.of(Class::Identified),
            ..self.clone()
        }
    }

    /// Waits for a permit for one more request in the application.
    async fn take_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = Arc::clone(&self.in_flight).acquire_owned();
        // The semaphore is never closed. A wait of zero still takes a free permit.
        let permit = tokio::time::timeout(self.permit_wait, permit).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            let message = "as many requests are in work as may be; send it again";
            Error::later(1, Code::TooManyRequestsInFlight, message).into()
        })
    }

    /// The same, whatever `work` gives back.
    async fn visit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CertificateAuthority) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = self.take_permit().await?;
        let ca = Arc::clone(&self.ca);
        let trace = trace::current();
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            trace::within(trace, || work(&ca))
        });
        work.await
            .map_err(|_| Error::stop(Code::Internal, "the request failed; the log says why").into())
    }
}
