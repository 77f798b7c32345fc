//! Tests the cost of `roll show` for a fleet, in steps of SQLite's virtual machine.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const DEVICES: usize = 10_000;
/// Steps of SQLite's machine that `roll show` may take for each device; one scan for each would be
/// tens of thousands.
const STEPS_EACH_MAX: usize = 1_000;

/// Steps of SQLite's machine that `work` takes, to the hundred.
fn steps(fixture: &Fixture, work: impl FnOnce()) -> usize {
    const EACH: usize = 100;
    let count = Arc::new(AtomicUsize::new(0));
    for reader in &fixture.store.readers.connections {
        let count = Arc::clone(&count);
        let handler = move || {
            count.fetch_add(EACH, Ordering::Relaxed);
            false
        };
        let reader = reader.lock().unwrap();
        reader.progress_handler(EACH as i32, Some(handler)).unwrap();
    }
    work();
    count.load(Ordering::Relaxed)
}

/// All queries of `roll show` cost some steps for each device: linear in the fleet, not quadratic.
#[test]
#[expect(clippy::print_stdout, reason = "docs/performance.md quotes the number")]
fn the_cost_of_a_rolls_queries_is_linear_in_the_fleet() {
    let fixture = Fixture::with_devices(DEVICES);
    let entry = entry("roll.started");
    let roll = fixture
        .store
        .start_authority_roll(fixture.new_roll(), None, entry);
    let cause = HubCause::Roll(roll.unwrap().id);
    let call = |device| NewHubTask {
        provisioning: "dps".into(),
        device,
        action: HubAction::Call,
        enrollment: None,
    };
    let calls = (1..=DEVICES)
        .map(|number| call(format!("press-{number}")))
        .collect::<Vec<_>>();
    assert_eq!(fixture.queue(cause, calls), DEVICES);
    let (store, root) = (&fixture.store, [fixture.root]);
    let taken = steps(&fixture, || {
        store
            .drain_report(&root, &[], unix(1_000), unix(9_000), unix(500))
            .unwrap();
        store.devices_under(&root, unix(1_000)).unwrap();
        store.devices_needing(&root, unix(1_000)).unwrap();
        store
            .devices_to_reissue(&[fixture.root], unix(1_000), 1_000)
            .unwrap();
        store.hub_progress(cause, None).unwrap();
        store.devices_not_reached(cause, 1_000).unwrap();
    });
    let each = taken / DEVICES;
    println!("roll show: {each} steps for each device");
    assert!(
        (1..STEPS_EACH_MAX).contains(&each),
        "{each} steps for each device"
    );
}
