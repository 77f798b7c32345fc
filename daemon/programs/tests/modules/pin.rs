//! Tests the PIN guard with tokens that lock after three wrong PINs.

use crate::fixture::{Fixture, until};
use hallmarkd::token::client::{TokenClient, TokenHealth};
use hallmarkd::token::health::TokenState;
use std::fs;
use std::thread;
use std::time::Duration;

/// Longer than the pause between two probes of the token.
const REST: Duration = Duration::from_millis(2500);

/// Starts of the worker with a wrong PIN: more than a token has tries.
const RESTARTS: usize = 4;

/// Verifies: a wrong PIN is tried once, however often the worker is started; a second one is also
/// tried once; a third is never tried. So the token still accepts the right PIN afterwards.
///
/// `log_in_by_hand` logs in with the vendor's tool, as an operator must before the last try.
pub(crate) fn is_never_locked(fixture: &Fixture, pin: &str, log_in_by_hand: &dyn Fn()) {
    fixture.write_secret("pin", "00000000");
    let (client, supervisor) = fixture.launch();
    assert_eq!(logins(&parked(&client)), 1);
    thread::sleep(REST);
    assert_eq!(logins(&parked(&client)), 1, "it was tried again");
    drop((client, supervisor));
    for _ in 0..RESTARTS {
        let (client, _supervisor) = fixture.launch();
        let health = parked(&client);
        assert_eq!(logins(&health), 0, "the next worker tried it again");
        assert!(health.reason.contains("token-tried.parked"), "{health:?}");
    }

    let (client, _supervisor) = fixture.launch();
    fixture.write_secret("pin", "11111111");
    until("the second PIN is tried", || {
        (logins(&client.health()) == 1).then_some(())
    });
    until("it is refused", || {
        let health = client.health();
        (health.state == TokenState::Parked).then_some(())
    });
    fixture.write_secret("pin", "22222222");
    thread::sleep(REST);
    let health = parked(&client);
    assert_eq!(logins(&health), 1, "a third PIN was tried");
    assert!(health.reason.contains("one more"), "{health:?}");

    fixture.write_secret("pin", pin);
    log_in_by_hand();
    fs::remove_file(fixture.path("token-tried.parked")).unwrap();
    until("the right PIN is taken", || {
        (client.health().state == TokenState::Ready).then_some(())
    });
}

fn parked(client: &TokenClient) -> TokenHealth {
    let health = client.health();
    assert_eq!(health.state, TokenState::Parked, "{health:?}");
    health
}

fn logins(health: &TokenHealth) -> u64 {
    health.recoveries.logins
}
