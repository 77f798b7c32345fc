//! Tests counts and exclusions of a fleet of 10,000 devices below one authority. Durations are
//! printed, not asserted; `docs/performance.md` has them.

use super::*;
use crate::ids::{BlockId, EnrollmentId, GenerationId};
use crate::x509::revocation::RevocationReason;
use std::cell::RefCell;
use std::time::{Duration, Instant};

const DEVICES: usize = 10_000;

impl Fixture {
    fn with_fleet() -> Self {
        Self::with_devices(DEVICES)
    }

    /// With devices below the root, each provisioned.
    pub(super) fn with_devices(count: usize) -> Self {
        let fixture = Self::new();
        let raw = fixture.raw();
        raw.execute_batch(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {1})
             INSERT INTO intent (serial, issuer, purpose, profile, subject, key_sha256, tbs,
                 not_before, not_after, role, caller, recorded_at)
             SELECT randomblob(16), {0}, 'leaf', 'device', 'press-' || i, randomblob(32),
                 randomblob(400), 1, 5000,
                 'device', 'test', 1 FROM n;
             INSERT INTO certificate (intent, signature, sha256, issued_at)
             SELECT id, randomblob(80), randomblob(32), 1 FROM intent WHERE purpose = 'leaf';
             INSERT INTO device (registration_id, profile, certificate, created_at, not_after)
             SELECT subject, 'device', id, 1, 5000 FROM intent WHERE purpose = 'leaf';
             INSERT INTO hub_observation
                 (provisioning, device, certificate, registration, since, seen_at)
             SELECT 'dps', d.registration_id, c.sha256, 'assigned', d.certificate - 1, 1
             FROM device d JOIN certificate c ON c.intent = d.certificate;",
            fixture.root, count
        ))
        .unwrap();
        fixture
    }

    fn fleet_group(&self) -> EnrollmentId {
        let slots = Slots::Empty.serve(Thumbprint::of(b"root")).unwrap();
        let added = self.add_group("all", "root", slots);
        added.unwrap().id
    }
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
    let fixture = Fixture::with_fleet();
    let root = [fixture.root];
    let report = timed("roll show", || {
        let report = fixture
            .store
            .drain_report(&root, &[], unix(1_000), unix(9_000), unix(500));
        report.unwrap()
    });
    assert_eq!(report.leaves_under_the_old, 10_000);
    assert_eq!(report.devices_on_the_old, 10_000);
    assert_eq!(report.expiring_before_retirement, 10_000);
    assert_eq!(report.devices_silent, 499);
    assert_eq!(
        fixture.store.devices_needing(&root, unix(1_000)).unwrap(),
        10_000
    );
    let first = fixture
        .store
        .devices_to_reissue(&[fixture.root], unix(1_000), 1_000)
        .unwrap();
    assert_eq!(first[0].registration_id, "press-10000", "seen last");
}

/// A retired generation has signed for an authority elsewhere, and for no device. Verifies: a block
/// of a group finds it, and a rollover counts the certificate until it is revoked.
#[test]
fn a_generation_is_needed_by_an_authority_elsewhere() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let retired = "UPDATE generation SET state = 'retired'";
    let intent = Intent {
        purpose: Purpose::Subordinate,
        role: None,
        is_device: false,
        ..fixture.intent("Gateway 7", 2)
    };
    let recorded = block_on(store.record_intent(intent)).unwrap();
    fixture.settle(&recorded, OnIssued::Alone).unwrap();
    fixture.raw().execute(retired, []).unwrap();
    let root = [fixture.root];
    let signed = store.signed_generations(unix(1_000)).unwrap();
    assert!(signed.contains(&fixture.root));
    let counted = || {
        let report = store.drain_report(&root, &[], unix(1_000), unix(9_000), unix(500));
        let of_report = report.unwrap().subordinates_under_the_old;
        assert_eq!(
            of_report,
            store.count_subordinates(&root, unix(1_000)).unwrap()
        );
        of_report
    };
    assert_eq!(counted(), 1);
    let revocation = Revocation {
        target: RevocationTarget::Serial(vec![2; 16]),
        at: unix(1_500),
        actor: "test".into(),
        cause: "a test".into(),
    };
    store
        .revoke(revocation, RevocationReason::Superseded)
        .unwrap();
    assert_eq!(counted(), 0);
}

/// The block is one short transaction; each leaf goes on hold, with an entry in the journal, and
/// each hub identity on the queue, fifty devices at a time; and back in the same way.
#[test]
fn a_group_of_ten_thousand_is_blocked_and_unblocked() {
    let fixture = Fixture::with_fleet();
    fixture.fleet_group();
    let all = Excluded::Group("all".into());
    let block = timed("block", || fixture.block(all).unwrap());
    let chunks = longest(
        "chunks of the block",
        || {
            let block = fixture.store.block(block.id).unwrap();
            let from = block.reached?;
            let ids =
                fixture
                    .store
                    .devices_with_leaves_by(&[fixture.root], unix(1_000), &from, CHUNK);
            Some(chunk(block.id, from, ids.unwrap()))
        },
        |chunk| assert!(fixture.store.hold_devices(chunk, unix(1_000)).unwrap()),
    );
    assert_eq!(chunks, 201, "the last chunk has no device");
    assert_eq!(fixture.on_hold(), DEVICES as i64);
    assert_eq!(fixture.store.held_count(block.id).unwrap(), DEVICES as u64);
    let progress = fixture.store.hub_progress(HubCause::Block(block.id), None);
    assert_eq!(progress.unwrap().open(), DEVICES as i64);

    timed("unblock", || fixture.lift(block.id));
    assert!(
        fixture
            .store
            .due_hub_tasks("dps", UnixSeconds::MAX, 1, true)
            .unwrap()
            .is_empty(),
        "an unblocked device keeps its identity"
    );
    longest(
        "chunks of the unblocking",
        || {
            let block = fixture.store.block(block.id).unwrap();
            block.reached.map(|_| block.id)
        },
        |block| drop(fixture.store.release_holds(block, unix(1_000)).unwrap()),
    );
    assert_eq!(fixture.on_hold(), 0);
    let progress = fixture.store.hub_progress(HubCause::Block(block.id), None);
    assert_eq!(progress.unwrap().total, 0);
}

const CHUNK: u32 = 50;

impl Fixture {
    fn on_hold(&self) -> i64 {
        let sql = "SELECT count(*) FROM certificate WHERE revocation_reason = 6";
        self.raw().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn chunk(block: BlockId, from: String, ids: Vec<String>) -> HoldChunk {
    let hold = |subject: &str| Revocation {
        target: RevocationTarget::Leaves {
            subject: subject.into(),
        },
        at: unix(1_000),
        actor: "test".into(),
        cause: "block".into(),
    };
    HoldChunk {
        block,
        from,
        reached: ids.last().cloned(),
        devices: ids
            .into_iter()
            .map(|id| BlockedDevice {
                hold: Some(hold(&id)),
                registration_id: id,
                services: vec!["dps".into()],
            })
            .collect(),
    }
}

/// How many pieces of work there were; the longest is printed for `docs/performance.md`.
#[expect(clippy::print_stdout, reason = "the numbers are what the page quotes")]
fn longest<T>(what: &str, next: impl Fn() -> Option<T>, work: impl Fn(T)) -> u32 {
    let (mut count, mut longest, begun) = (0, Duration::ZERO, Instant::now());
    while let Some(piece) = next() {
        let piece_begun = Instant::now();
        work(piece);
        longest = longest.max(piece_begun.elapsed());
        count += 1;
    }
    println!(
        "{what}: {count} in {:?}, the longest {longest:?}",
        begun.elapsed()
    );
    count
}

/// The compromise itself changes no device; once it is excluded, all identities are queued in one
/// step.
#[test]
fn a_compromised_authority_of_ten_thousand_devices_is_excluded_at_once() {
    let fixture = Fixture::with_fleet();
    let group = fixture.fleet_group();
    let roll = timed("compromise", || fixture.compromise_root());
    let roll = roll.unwrap();
    let devices = timed("whose identities go", || {
        let devices = fixture
            .store
            .devices_to_clear(&[fixture.root], true, 1_000_000);
        devices.unwrap()
    });
    assert_eq!(devices.len(), DEVICES);
    assert_eq!(devices[0], "press-10000", "seen last");
    let chunks: RefCell<Vec<_>> = devices
        .chunks(500)
        .map(<[String]>::to_vec)
        .collect::<Vec<_>>()
        .into();
    longest(
        "identities queued",
        || chunks.borrow_mut().pop(),
        |chunk| {
            let task = |device| NewHubTask {
                provisioning: "dps".into(),
                device,
                action: HubAction::Delete,
                enrollment: Some(group),
            };
            let tasks = chunk.into_iter().map(task).collect();
            let queued = fixture
                .store
                .queue_hub_tasks(HubCause::Roll(roll.id), tasks, unix(1_000));
            assert_eq!(queued.unwrap(), 500);
        },
    );
    let progress = fixture.store.hub_progress(HubCause::Roll(roll.id), None);
    assert_eq!(progress.unwrap().open(), DEVICES as i64);
}

/// A compromised key can forge a leaf for any device: also for one that has renewed its leaf since,
/// and one that the hub knows by a certificate which is not on record.
#[test]
fn every_device_that_a_forged_leaf_may_use_is_cleared() {
    let fixture = Fixture::new();
    let renewed = fixture.next_generation();
    let by = |issuer, id: &str, serial| {
        // Not for a device, because this issuer has no certificate and does not serve.
        let intent = Intent {
            issuer,
            is_device: false,
            moves: Moves::Never,
            ..fixture.intent(id, serial)
        };
        let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
        let on_issued = OnIssued::Device {
            registration_id: id.into(),
            profile: "device".into(),
        };
        fixture.settle(&recorded, on_issued).unwrap();
    };
    by(fixture.root, "renewed", 10);
    by(renewed, "renewed", 11);
    by(renewed, "honest", 12);
    by(renewed, "forged", 13);
    let seen = |device: &str, certificate: Thumbprint| {
        let sql = "INSERT INTO hub_observation (provisioning, device, certificate, since, seen_at)
                   VALUES ('dps', ?1, ?2, 1, 1)";
        let parameters = rusqlite::params![device, certificate.as_bytes()];
        fixture.raw().execute(sql, parameters).unwrap();
    };
    seen("forged", Thumbprint::of(b"forged"));
    let honest = fixture.store.device("honest").unwrap().unwrap();
    seen("honest", honest.certificate);
    let mut cleared = fixture
        .store
        .devices_to_clear(&[fixture.root], true, 10)
        .unwrap();
    cleared.sort();
    assert_eq!(cleared, ["forged", "renewed"]);
}

impl Fixture {
    /// The root's second generation, which signs from now on.
    fn next_generation(&self) -> GenerationId {
        let raw = self.raw();
        raw.execute_batch(&format!(
            "UPDATE generation SET state = 'retired' WHERE id = {};
             INSERT INTO generation (authority, number, token, key_type, key_label, key_id, state)
             VALUES ('root', 2, 'factory', 'p256', 'two', x'02', 'planned');",
            self.root
        ))
        .unwrap();
        GenerationId::new(raw.last_insert_rowid())
    }
}
