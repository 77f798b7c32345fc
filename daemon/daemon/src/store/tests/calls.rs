//! Tests devices that are called at several hubs by jobs: which are reached, which called again.

use super::*;

impl Fixture {
    /// A roll of the root by which these devices are called, each at two hubs.
    fn with_calls(count: usize) -> (Self, HubCause) {
        let fixture = Self::with_devices(count);
        let (roll, entry) = (fixture.new_roll(), entry("roll.started"));
        let roll = fixture
            .store
            .start_authority_roll(roll, None, entry)
            .unwrap();
        let cause = HubCause::Roll(roll.id);
        let calls = (1..=count).flat_map(|number| {
            ["a", "b"].map(|service| NewHubTask {
                provisioning: service.into(),
                device: format!("press-{number}"),
                action: HubAction::Call,
                enrollment: None,
            })
        });
        assert_eq!(fixture.queue(cause, calls.collect()), 2 * count);
        (fixture, cause)
    }

    /// Queues these calls. Returns how many were new.
    pub(super) fn queue(&self, cause: HubCause, calls: Vec<NewHubTask>) -> usize {
        let queue = move |tx: &Tx<'_>| hub_task::queue(tx, cause, &calls, unix(1_000));
        self.store.write(queue).unwrap()
    }

    /// A job of all calls that are due at this hub.
    fn job(&self, service: &str, now: UnixSeconds) -> Option<HubJobRow> {
        let name = format!("job-{service}-{now}");
        let made = self.store.make_hub_job(service.into(), name, 100, now);
        let due = self.store.due_hub_job(service, now).unwrap();
        assert_eq!(made.unwrap(), due.is_some());
        due
    }

    /// Ends a job: devices in `heard` were reached, all others are called again at `again_at`.
    fn end(&self, job: &HubJobRow, heard: &[&str], again_at: UnixSeconds) {
        let end = |call: &HubCall| {
            let heard = heard.contains(&call.hub_device.as_str());
            HubTaskEnd {
                id: call.id,
                round: call.round,
                answer: match heard {
                    true => HubAnswer::heard(Some(200)),
                    false => HubAnswer::not_heard(Some("DeviceNotOnline".into())),
                },
                again_at: (!heard).then_some(again_at),
            }
        };
        let ends = job.calls.iter().map(end).collect();
        self.store.end_hub_job(job.id, ends, unix(2_000)).unwrap();
    }
}

fn devices(job: &HubJobRow) -> Vec<&str> {
    job.calls
        .iter()
        .map(|call| call.hub_device.as_str())
        .collect()
}

/// A device is counted once, however many hubs it is called at; it is reached when one of them has
/// reached it, and called again at the others no more.
#[test]
fn a_device_of_several_hubs_is_reached_once() {
    let (fixture, cause) = Fixture::with_calls(3);
    let all = ["press-1", "press-2", "press-3"];
    let (a, b) = (fixture.job("a", unix(1_500)), fixture.job("b", unix(1_500)));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((devices(&a), devices(&b)), (all.to_vec(), all.to_vec()));

    fixture.end(&a, &["press-1"], unix(5_000));
    let progress = || fixture.store.hub_progress(cause, None).unwrap();
    let silent = || fixture.store.devices_not_reached(cause, 10).unwrap();
    assert_eq!((progress().notified, progress().offline), (1, 0));
    assert_eq!(silent(), [""; 0], "the other hub has yet to try");

    fixture.end(&b, &["press-3"], unix(5_000));
    let expected = HubProgress {
        total: 6,
        done: 2,
        unanswered: 0,
        notified: 2,
        offline: 1,
        failing: 0,
        jobs: 2,
        jobs_ended: 2,
    };
    assert_eq!(progress(), expected);
    assert_eq!(silent(), ["press-2"]);

    assert!(
        fixture.job("a", unix(4_999)).is_none(),
        "not before its time"
    );
    for service in ["a", "b"] {
        let again = fixture.job(service, unix(5_000)).unwrap();
        assert_eq!(devices(&again), ["press-2"]);
    }
    let counts = (progress().done, progress().unanswered, progress().total);
    assert_eq!(counts, (2, 2, 6), "a call that was not needed is not done");
}
