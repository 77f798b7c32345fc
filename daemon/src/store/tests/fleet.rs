//! A fleet of 10,000 devices below one authority: what is counted, and what shuts all of them out.
//! How long it takes is printed, not judged; `docs/performance.md` has the numbers.

use super::*;
use std::time::Instant;

const DEVICES: usize = 10_000;

impl Stage {
    fn with_fleet() -> Self {
        Self::with_devices(DEVICES)
    }

    /// With devices below the root, each provisioned.
    pub(super) fn with_devices(count: usize) -> Self {
        let stage = Self::new();
        let raw = stage.raw();
        raw.execute_batch(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {1})
             INSERT INTO intent (serial, issuer, purpose, profile, subject, tbs, not_before,
                 not_after, caller, state, recorded_at)
             SELECT randomblob(16), {0}, 'leaf', 'device', 'press-' || i, randomblob(400), 1, 5000,
                 'test', 'issued', 1 FROM n;
             INSERT INTO certificate (intent, der, sha256, issued_at)
             SELECT id, tbs, randomblob(32), 1 FROM intent WHERE purpose = 'leaf';
             INSERT INTO device (registration_id, profile, certificate, created_at)
             SELECT subject, 'device', id, 1 FROM intent WHERE purpose = 'leaf';
             INSERT INTO proof (provisioning, device, certificate, registration, since, seen_at)
             SELECT 'dps', d.registration_id, c.sha256, 'assigned', d.rowid, 1
             FROM device d JOIN certificate c ON c.intent = d.certificate;",
            stage.root, count
        ))
        .unwrap();
        stage
    }

    fn fleet_group(&self) -> i64 {
        let new = NewEnrollment {
            provisioning: "dps".into(),
            kind: EnrollmentKind::Group,
            name: "all".into(),
            authority: Some("root".into()),
            by_reference: false,
            slots: Slots::Empty.serve(Thumbprint::of(b"root")).unwrap(),
        };
        let added = self.store.add_enrollment(new, entry("enrollment.added"));
        added.unwrap().id
    }
}

fn ids() -> impl Iterator<Item = String> {
    (1..=DEVICES).map(|number| format!("press-{number}"))
}

/// How long it took, which is printed for `docs/performance.md`.
#[expect(clippy::print_stdout, reason = "the numbers are what the page quotes")]
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    println!("{what}: {:?}", begun.elapsed());
    done
}

/// The numbers of a roll: from indexes.
#[test]
fn a_fleet_of_ten_thousand_is_counted() {
    let stage = Stage::with_fleet();
    let root = [stage.root];
    let report = timed("roll show", || {
        let report = stage.store.drain_report(&root, &[], 1_000, 9_000, 500);
        report.unwrap()
    });
    assert_eq!(report.leaves_under_the_old, 10_000);
    assert_eq!(report.devices_on_the_old, 10_000);
    assert_eq!(report.expiring_before_retirement, 10_000);
    assert_eq!(report.devices_silent, 499);
    assert_eq!(stage.store.devices_needing(&root, 1_000).unwrap(), 10_000);
    let first = stage
        .store
        .devices_to_reissue(stage.root, 1_000, 1_000)
        .unwrap();
    assert_eq!(first[0].registration_id, "press-10000", "seen last");
}

/// Each leaf goes on hold, with an entry in the journal, and each hub identity on the queue, in one
/// transaction; and back.
#[test]
fn a_group_of_ten_thousand_is_blocked_and_let_back_in() {
    let stage = Stage::with_fleet();
    let group = stage.fleet_group();
    let holds = || -> Vec<Revocation> {
        let hold = |subject| Revocation {
            target: RevocationTarget::Leaves {
                subject,
                except_profiles: Vec::new(),
            },
            at: 1_000,
            actor: "test".into(),
            cause: "block".into(),
        };
        ids().map(hold).collect()
    };
    let new = NewBlock {
        kind: BlockKind::Group,
        name: "all".into(),
        generation: None,
        reason: "a test".into(),
        holds: holds(),
        devices: ids().map(|id| ("dps".into(), id)).collect(),
        bars: vec![Bar::Disable(group)],
    };
    let (block, revoked) = timed("block", || {
        let started = stage.store.start_block(new, entry("block.started"));
        started.unwrap()
    });
    assert_eq!(revoked.changed.len(), DEVICES);
    let progress = stage.store.hub_progress(HubCause::Block(block.id), None);
    assert_eq!(progress.unwrap().open(), DEVICES as i64);
    let back = timed("unblock", || {
        let entry = entry("block.lifted");
        stage.store.lift_block(block.id, holds(), entry).unwrap()
    });
    assert_eq!(back.changed.len(), DEVICES);
}

/// The breach itself touches no device; when it is shut out, all identities are queued in one step.
#[test]
fn the_breach_of_an_authority_of_ten_thousand_devices_is_shut_out_at_once() {
    let stage = Stage::with_fleet();
    let group = stage.fleet_group();
    let breached = BreachedAuthority {
        roll: stage.new_roll(),
        above: None,
        groups: Vec::new(),
    };
    let revocation = Revocation {
        target: RevocationTarget::Generation {
            generation: stage.root,
        },
        at: 1_000,
        actor: "test".into(),
        cause: "a test".into(),
    };
    let rolls = timed("breach", || {
        let entry = entry("roll.started");
        let store = &stage.store;
        store.start_authority_compromise(vec![breached], revocation, entry)
    });
    let roll = rolls.unwrap().remove(0);
    let mut step = AuthorityStep::of(&roll, RollState::Clearing);
    let devices = timed("order of reissue", || {
        let store = &stage.store;
        store.devices_to_reissue(stage.root, 1_000, 1_000_000)
    });
    step.hub = devices
        .unwrap()
        .into_iter()
        .map(|device| NewHubTask {
            provisioning: "dps".into(),
            device: device.registration_id,
            action: HubAction::Delete,
            enrollment: Some(group),
        })
        .collect();
    timed("identities queued", || {
        let made = stage
            .store
            .step_authority_roll(step, entry("roll.shut_out"));
        assert!(made.unwrap());
    });
    let progress = stage.store.hub_progress(HubCause::Roll(roll.id), None);
    assert_eq!(progress.unwrap().open(), DEVICES as i64);
}
