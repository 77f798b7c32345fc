//! Drives the checkpoints and the verification of the audit journal, in a loop of its own: they
//! wait for nothing that the application waits for.

use crate::ca::CurrentAuthority;
use std::time::Duration;
use tokio::sync::watch;

/// How often the loop asks what is due.
const TURN: Duration = Duration::from_secs(1);
/// The same without checkpoints, once the whole journal is verified.
const REST: Duration = Duration::from_secs(20);

/// Runs until `stop` turns true and the current turn has ended.
pub(super) async fn run(current: CurrentAuthority, mut stop: watch::Receiver<bool>) {
    let mut last = None;
    loop {
        let ca = current.load_full();
        let kept = tokio::task::spawn_blocking(move || {
            let kept = ca.issuer().keep_journal();
            (kept.err(), ca.issuer().journal_rests())
        });
        let (failure, rests) = kept.await.unwrap_or_default();
        let failure = failure.map(|error| (error.code, error.message));
        if failure != last
            && let Some((code, error)) = &failure
        {
            tracing::warn!(
                code = code.name(),
                error,
                "audit journal not kept, retrying"
            );
        }
        last = failure;
        let pause = if rests { REST } else { TURN };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Signs the closing checkpoint, after everything else has ended.
pub(super) async fn close(current: CurrentAuthority) {
    let ca = current.load_full();
    let closed = tokio::task::spawn_blocking(move || ca.issuer().close_journal());
    // The log has the message of a thread that panicked.
    let _ = closed.await;
}
