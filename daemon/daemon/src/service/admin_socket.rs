//! Opens the admin socket, again and again until it can be made.
//!
//! Its folder may be on a disk that is full or read-only. The daemon serves without the socket, and
//! an alarm says why there is none, until the socket can be made.

use super::listeners::bind_admin;
use crate::api::listener::Admin;
use crate::ca::CurrentAuthority;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;

/// How often opening is tried.
const PAUSE: Duration = Duration::from_secs(5);

/// The admin socket of a daemon.
pub(super) struct AdminSocket<Admitted> {
    pub(super) path: PathBuf,
    pub(super) current: CurrentAuthority,
    pub(super) admitted: Admitted,
    /// Whether the socket is open.
    pub(super) is_open: Arc<AtomicBool>,
}

impl<Admitted> AdminSocket<Admitted> {
    /// Returns the listener: `open`, or one that is bound later; `None` if `stop` turns true
    /// before.
    pub(super) async fn listener(
        self,
        open: Option<StdUnixListener>,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Admin<Admitted>> {
        let listener = tokio::select! {
            listener = self.bind(open) => listener,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        self.is_open.store(true, Ordering::Release);
        self.current.load().note_admin(None);
        Some(Admin {
            listener,
            admitted: self.admitted,
        })
    }

    async fn bind(&self, mut open: Option<StdUnixListener>) -> UnixListener {
        loop {
            let bound = match open.take() {
                Some(listener) => Ok(listener),
                None => bind_admin(&self.path),
            };
            match bound.and_then(|it| Ok(UnixListener::from_std(it)?)) {
                Ok(listener) => return listener,
                Err(error) => self.current.load().note_admin(Some(format!("{error:#}"))),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
