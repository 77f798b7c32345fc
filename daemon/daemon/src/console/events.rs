//! Sends an event to a page when the state of everything has changed, so that the page is read
//! again at once and not on suspicion.

use super::refused::Refused;
use super::visit::Visit;
use super::{Console, STREAMS_MAX};
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream;
use serde_json::{Map, Value};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// How often the state is read for each open page.
const PERIOD: Duration = Duration::from_secs(2);

/// A page that waits for events.
struct Watched {
    visit: Visit,
    stop: watch::Receiver<bool>,
    /// The state at the last event.
    state: Map<String, Value>,
    _place: OwnedSemaphorePermit,
}

/// Answers with events until the caller is refused, hangs up, or the daemon stops.
pub(super) async fn stream(
    visit: Visit,
    State(console): State<Console>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let place = Arc::clone(&console.streams).try_acquire_owned();
    let place = place.map_err(|_| Refused::too_many(STREAMS_MAX))?;
    // A caller that may not read the state is refused, and gets no stream that ends at once.
    let state = read(&visit).await?;
    let watched = Watched {
        visit,
        stop: console.stop,
        state,
        _place: place,
    };
    let events = stream::unfold(watched, |mut watched| async move {
        watched.next().await?;
        Some((Ok(Event::default().event("moved").data("")), watched))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Watched {
    /// Waits for a change of the state.
    async fn next(&mut self) -> Option<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                _ = self.stop.wait_for(|stop| *stop) => return None,
            }
            let state = read(&self.visit).await.ok()?;
            if state != self.state {
                self.state = state;
                return Some(());
            }
        }
    }
}

/// The state without its time.
async fn read(visit: &Visit) -> Result<Map<String, Value>, Refused> {
    let mut state: Map<String, Value> = visit.get("/v1/status").await?;
    state.remove("now");
    Ok(state)
}
