//! Records the reports of the listeners: whether HTTPS has a valid certificate, and whether the
//! admin socket exists.
//!
//! The listeners are above the application and know what became of their certificates and sockets.
//! The application raises the alarm, because an HTTPS listener without a certificate closes every
//! connection, and so cannot report anything.

use super::alarm::{Alarm, AlarmCode};
use super::{CertificateAuthority, lock};
use crate::unix_seconds::UnixSeconds;
use serde_json::json;
use std::sync::Mutex;

#[derive(Default)]
pub(super) struct Listeners {
    https: Mutex<HttpsState>,
    admin: Mutex<Option<String>>,
}

/// The HTTPS listener, as far as others have to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HttpsState {
    /// The configuration has none.
    #[default]
    None,
    /// It presents a certificate, or should.
    Configured {
        /// Until when the certificate is valid, in Unix seconds; `None` where there is none.
        not_after: Option<UnixSeconds>,
        /// Why no new certificate could be made at the last attempt.
        problem: Option<String>,
    },
}

impl CertificateAuthority {
    /// Takes what the HTTPS listener presents now.
    pub fn note_https(&self, state: HttpsState) {
        *lock(&self.shared.listeners.https) = state;
    }

    /// Takes why there is no admin socket; `None` if there is one.
    pub fn note_admin(&self, problem: Option<String>) {
        *lock(&self.shared.listeners.admin) = problem;
    }

    /// Returns what the HTTPS listener presents.
    pub(super) fn https_state(&self) -> HttpsState {
        lock(&self.shared.listeners.https).clone()
    }

    /// Until when the HTTPS listener's certificate is valid, in Unix seconds.
    pub fn https_not_after(&self) -> Option<UnixSeconds> {
        match &*lock(&self.shared.listeners.https) {
            HttpsState::Configured { not_after, .. } => *not_after,
            HttpsState::None => None,
        }
    }

    /// Whether HTTPS can be used, if the configuration has it, and goes on so.
    pub fn https_serves(&self) -> bool {
        match &*lock(&self.shared.listeners.https) {
            HttpsState::None => true,
            HttpsState::Configured { not_after, problem } => {
                problem.is_none() && not_after.is_some_and(|it| self.now() <= it)
            }
        }
    }

    /// The alarms about the listeners.
    pub(super) fn listener_alarms(&self) -> Vec<Alarm> {
        let admin = lock(&self.shared.listeners.admin).clone();
        let admin = admin.map(|problem| {
            let text = format!("there is no admin socket: {problem}");
            let parameters = json!({ "reason": problem });
            Alarm::new(AlarmCode::AdminSocketMissing, parameters, text)
        });
        admin.into_iter().chain(self.https_alarm()).collect()
    }

    fn https_alarm(&self) -> Option<Alarm> {
        let state = lock(&self.shared.listeners.https).clone();
        let HttpsState::Configured { not_after, problem } = state else {
            return None;
        };
        let has_ended = not_after.is_some_and(|end| self.now() > end);
        let not_after = not_after.map(|it| it.to_string());
        let certificate = match &not_after {
            None => "has no certificate and cuts every connection".to_owned(),
            Some(end) if has_ended => format!("has a certificate that ended at {end}"),
            Some(end) => format!("has a certificate that ends at {end}"),
        };
        match problem {
            Some(problem) => {
                let text = format!(
                    "the HTTPS listener {certificate}, and a new one cannot be made: {problem}; \
                     correct the cause, or [listen] names and profile"
                );
                let parameters = json!({ "not_after": not_after, "reason": problem });
                let code = AlarmCode::HttpsCertificateNotRenewed;
                Some(Alarm::new(code, parameters, text))
            }
            None if has_ended => {
                let text = format!("the HTTPS listener {certificate}");
                let parameters = json!({ "not_after": not_after });
                Some(Alarm::new(
                    AlarmCode::HttpsCertificateEnded,
                    parameters,
                    text,
                ))
            }
            None => None,
        }
    }
}
