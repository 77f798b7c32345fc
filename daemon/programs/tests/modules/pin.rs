//! Tests the PIN guard with tokens that lock after three wrong PINs.

use crate::fixture::{Fixture, until};
use crate::softhsm;
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

/// Verifies: what an editor or a copy adds to a PIN, and a PIN of a length that the token does not
/// take, cost no try; the corrected file is used without a restart.
#[test]
fn a_pin_that_cannot_be_right_is_not_tried() {
    let mut fixture = Fixture::new("softhsm2", "factory");
    softhsm::make(&mut fixture);
    let right = fs::read_to_string(fixture.path("pin")).unwrap();
    let right = right.trim_end();
    let utf_16: Vec<u8> = right.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fixture.write_secret("pin", &format!("\u{feff}{right}\n"));
    let (client, _supervisor) = fixture.begin();
    for (content, words) in [
        (format!("\u{feff}{right}\n").into_bytes(), "byte order mark"),
        (utf_16, "UTF-16"),
        (format!("{right} \n").into_bytes(), "blank"),
        (format!("{right}\0").into_bytes(), "NUL"),
        (format!("{right}\n{right}\n").into_bytes(), "several lines"),
        (b"\n".to_vec(), "empty"),
        (b"123".to_vec(), "PINs of 4 to 255 bytes"),
        (vec![b'1'; 256], "PINs of 4 to 255 bytes"),
        (vec![b'1'; 600], "more than 512 bytes"),
    ] {
        fs::write(fixture.path("pin"), content).unwrap();
        let health = until(words, || {
            let health = client.health();
            health.reason.contains(words).then_some(health)
        });
        assert_eq!(
            (health.state, logins(&health)),
            (TokenState::Unavailable, 0)
        );
        assert!(!health.reason.contains(right), "{health:?}");
    }
    fixture.write_secret("pin", &format!("{right}\r\n"));
    until("the corrected PIN is taken", || {
        (client.health().state == TokenState::Ready).then_some(())
    });
    assert_eq!(logins(&client.health()), 1);
}
