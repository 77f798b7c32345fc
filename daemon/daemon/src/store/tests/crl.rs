//! Tests which entries a revocation list has and how long, and that a number is used once.

use super::*;
use crate::crl_number::CrlNumber;
use crate::x509::crl_partition::part_of;
use crate::x509::revocation::RevocationReason::{
    self, CertificateHold, KeyCompromise, Unspecified,
};
use std::collections::BTreeMap;

impl Fixture {
    fn revoke(&self, serial: u8, at: UnixSeconds, reason: RevocationReason) {
        let revocation = Revocation {
            target: RevocationTarget::Serial(vec![serial; 16]),
            at,
            actor: "test".into(),
            cause: "a test".into(),
        };
        self.store.revoke(revocation, reason).unwrap();
    }

    fn new_crl(&self, number: i64, this_update: UnixSeconds) -> NewCrl {
        NewCrl {
            generation: self.root,
            part: 1,
            base: None,
            number: CrlNumber::new(number),
            tbs: format!("list {number}").into_bytes().into(),
            this_update,
            next_update: this_update + 500,
            revocations: 0,
            entries: 0,
        }
    }

    fn record(&self, number: i64, at: UnixSeconds) -> Result<RecordedCrl, StoreError> {
        let new = self.new_crl(number, at);
        self.store.record_crl(new, entry("crl.recorded"))
    }

    fn sign(&self, number: i64, at: UnixSeconds) -> CrlRow {
        let recorded = self.record(number, at).unwrap();
        let der = [recorded.to_sign().tbs(), b"signature"].concat();
        self.store
            .record_signed_crl(&recorded, der.into(), entry("crl.signed"))
            .unwrap()
    }

    fn listed(&self) -> Vec<(u8, i64, RevocationReason)> {
        let draft = self.store.draft_crl(self.root, unix(0)).unwrap();
        let entries = draft.entries.iter();
        entries
            .map(|it| (it.serial.as_bytes()[0], it.revoked_at.get(), it.reason))
            .collect()
    }

    /// Splits the root's list into so many partitions, although its key is on record.
    fn split(&self, count: i64) {
        let raw = self.raw();
        raw.execute_batch("DROP TRIGGER generation_keeps_its_lists")
            .unwrap();
        raw.execute(
            "UPDATE generation SET crl_parts = ?2, crl_address = 'http://x' WHERE id = ?1",
            [self.root.get(), count],
        )
        .unwrap();
        for part in 1..=count {
            raw.execute(
                "INSERT INTO crl_partition (generation, part) VALUES (?1, ?2)",
                [self.root.get(), part],
            )
            .unwrap();
        }
    }

    pub(super) fn rows(&self, of: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {of}");
        self.raw().query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    fn count(&self) -> i64 {
        self.store.revocation_counts().unwrap()[0].1
    }
}

#[test]
fn all_revoked_and_abandoned_serials_are_counted_and_listed() {
    let fixture = Fixture::new();
    for serial in [0x42, 0x43, 0x44] {
        fixture.issue(&format!("pump-{serial}"), serial);
    }
    assert_eq!((fixture.count(), fixture.listed()), (0, vec![]));
    fixture.revoke(0x43, unix(1_200), KeyCompromise);
    fixture.revoke(0x42, unix(1_300), CertificateHold);
    let intent = fixture.intent("pump-9", 0x49);
    let abandoned = pollster::block_on(fixture.store.record_intent(intent)).unwrap();
    pollster::block_on(
        fixture
            .store
            .abandon_intent(abandoned.id(), "a test".into(), unix(1_250)),
    )
    .unwrap();
    assert_eq!(fixture.count(), 3);
    assert_eq!(
        fixture.listed(),
        [
            (0x43, 1_200, KeyCompromise),
            (0x49, 1_250, Unspecified),
            (0x42, 1_300, CertificateHold),
        ]
    );
    let lifted = Revocation {
        target: RevocationTarget::Serial(vec![0x42; 16]),
        at: unix(1_400),
        actor: "test".into(),
        cause: "a test".into(),
    };
    fixture.store.unrevoke(lifted).unwrap();
    assert_eq!(fixture.count(), 4);
    assert_eq!(fixture.listed().len(), 2);
}

/// Certificates here end at 2000.
#[test]
fn an_entry_leaves_after_one_list_that_came_past_its_end() {
    let fixture = Fixture::new();
    fixture.issue("pump-7", 0x42);
    fixture.revoke(0x42, unix(1_200), KeyCompromise);
    let entry = vec![(0x42, 1_200, KeyCompromise)];
    for (number, at) in [(1, 1_300), (2, 2_000), (3, 2_001)] {
        assert_eq!(fixture.listed(), entry, "list {number}");
        fixture.sign(number, unix(at));
    }
    assert_eq!(fixture.listed(), []);
    // Revoked after its end: once, too.
    fixture.issue("pump-8", 0x43);
    fixture.revoke(0x43, unix(2_050), KeyCompromise);
    assert_eq!(fixture.listed(), [(0x43, 2_050, KeyCompromise)]);
    fixture.sign(4, unix(2_100));
    assert_eq!(fixture.listed(), []);
}

#[test]
fn an_unsigned_list_counts_for_nothing_but_its_number() {
    let fixture = Fixture::new();
    fixture.issue("pump-7", 0x42);
    fixture.revoke(0x42, unix(1_200), KeyCompromise);
    fixture.sign(1, unix(1_300));
    fixture.record(2, unix(2_001)).unwrap();
    let draft = fixture.store.draft_crl(fixture.root, unix(0)).unwrap();
    assert_eq!((draft.number, draft.entries.len()), (CrlNumber::new(3), 1));
    assert!(fixture.record(2, unix(2_002)).is_err());
    assert!(fixture.record(1, unix(2_002)).is_err());
    let current = fixture.store.current_crls().unwrap();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0].number, CrlNumber::new(1));

    fixture.sign(3, unix(2_003));
    let current = fixture.store.current_crls().unwrap();
    assert_eq!(current[0].number, CrlNumber::new(3));
    assert_eq!(*current[0].der, *b"list 3signature");
    let kept: i64 = fixture
        .raw()
        .query_row("SELECT count(*) FROM crl", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 1, "what is superseded is dropped");
}

#[test]
fn a_list_is_signed_once_over_its_own_bytes_and_its_number_stays() {
    let fixture = Fixture::new();
    let recorded = fixture.record(1, unix(1_300)).unwrap();
    let other = fixture.store.record_signed_crl(
        &recorded,
        b"other bytes".to_vec().into(),
        entry("crl.signed"),
    );
    assert!(other.is_err());
    fixture.sign(2, unix(1_400));
    let raw = fixture.raw();
    for sql in [
        "UPDATE crl SET tbs = x'00'",
        "UPDATE crl SET number = 9",
        "UPDATE crl SET der = NULL",
        "UPDATE crl SET der = tbs || x'01'",
        "DELETE FROM crl",
    ] {
        assert!(raw.execute(sql, []).is_err(), "{sql}");
    }
}

#[test]
fn a_revoked_generation_signs_no_list() {
    let fixture = Fixture::new();
    let own = Revocation {
        target: RevocationTarget::Generation {
            generation: fixture.root,
        },
        at: unix(1_200),
        actor: "test".into(),
        cause: "a test".into(),
    };
    fixture.store.revoke(own, KeyCompromise).unwrap();
    let refused = fixture.record(1, unix(1_300));
    let Err(StoreError::Violates(constraint)) = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(constraint.name(), "crl_of_a_revoked_generation");
}

/// A backup does not know the lists that were signed after it: the clock does.
#[test]
fn a_restored_database_uses_no_number_again() {
    let fixture = Fixture::new();
    let next = |now| {
        let number = fixture.store.draft_crl(fixture.root, now).unwrap().number;
        number.to_string().parse::<i64>().unwrap()
    };
    assert_eq!(next(unix(1_000)), 1_000_000);
    fixture.sign(1_000_000, unix(1_000));
    assert_eq!(next(unix(1_000)), 1_000_001, "two lists in one second");
    let backup = fixture.folder.path().join("backup.db");
    let backup_file = backup.to_str().unwrap().to_owned();
    fixture
        .raw()
        .execute("VACUUM INTO ?1", [backup_file])
        .unwrap();
    fixture.sign(next(unix(1_000)), unix(1_000));
    fixture.sign(next(unix(1_005)), unix(1_005));
    assert_eq!(next(unix(1_003)), 1_005_001, "the clock was set back");
    let restored = Store::open(&backup).unwrap();
    let number = |now| {
        let number = restored.draft_crl(fixture.root, now).unwrap().number;
        number.to_string().parse::<i64>().unwrap()
    };
    let used = "1000001 and 1005000 were used after the backup";
    assert_eq!(number(unix(1_006)), 1_006_000, "{used}");
    let withheld = "UPDATE generation SET crl_withheld = 1";
    let raw = Connection::open(&backup).unwrap();
    raw.execute(withheld, []).unwrap();
    assert_eq!(number(unix(1_005)), 1_006_000, "restored in one second");
}

/// Lists before the oldest change that is left are forgotten, and a change after the end of its
/// certificate; what is shown of the others stays as it was.
#[test]
fn records_of_revocations_are_kept_as_long_as_they_are_shown() {
    let fixture = Fixture::new();
    fixture.issue("pump-7", 0x42);
    for (number, at) in [(1, 900), (2, 1_000), (3, 1_100)] {
        fixture.sign(number, unix(at));
    }
    fixture.revoke(0x42, unix(1_200), KeyCompromise);
    let count = fixture.count();
    for (number, at) in [(4, 1_250), (5, 2_001), (6, 2_100)] {
        let new = NewCrl {
            revocations: count,
            ..fixture.new_crl(number, unix(at))
        };
        let recorded = fixture
            .store
            .record_crl(new, entry("crl.recorded"))
            .unwrap();
        let der = [recorded.to_sign().tbs(), b"signature"].concat();
        let signed = fixture
            .store
            .record_signed_crl(&recorded, der.into(), entry("crl.signed"));
        signed.unwrap();
    }
    let target = RevocationTarget::Serial(vec![0x42; 16]);
    let again = Revocation {
        target,
        at: unix(1_300),
        actor: "test".into(),
        cause: "a test".into(),
    };
    let known = fixture.store.revoke(again, KeyCompromise).unwrap();
    let shown = || {
        let events = fixture.store.revocation_events(known.unchanged[0].intent);
        events.unwrap().pop().and_then(|it| it.lists)
    };
    let lists = Some((CrlNumber::new(4), CrlNumber::new(5)));
    assert_eq!(shown(), lists);
    let forget = |before: i64| {
        let entry = AuditEntry {
            detail: json!({}),
            ..entry("revocations.forgotten")
        };
        let done = fixture.store.forget_revocations(unix(before), 100, entry);
        let done = done.unwrap();
        (done.changes, done.lists)
    };
    let entries = || fixture.rows("audit WHERE action = 'revocations.forgotten'");
    // Certificates here end at 2000, and the change was at 1200.
    assert_eq!(
        forget(1_900),
        (0, 2),
        "the list of 1100 stays, the one before the first"
    );
    assert_eq!((shown(), entries()), (lists, 1));
    assert_eq!(forget(1_900), (0, 0));
    assert_eq!(entries(), 1, "nothing to say");
    assert_eq!(forget(2_050), (1, 2), "the last one before 2050 stays");
    assert_eq!((shown(), entries()), (None, 2));
    assert_eq!(fixture.rows("signed_crl"), 2);
}

/// The triggers, the query of the entries and the rule in code have the same partition for every
/// serial number.
#[test]
fn the_database_splits_lists_by_the_rule() {
    let fixture = Fixture::new();
    fixture.split(8);
    let counts = || -> BTreeMap<u16, i64> {
        let counts = fixture.store.revocation_counts().unwrap().into_iter();
        let own = counts.filter(|((generation, _), _)| *generation == fixture.root);
        own.map(|((_, part), count)| (part, count)).collect()
    };
    for serial in [0x10, 0x07, 0x08, 0x0f, 0x42, 0x51, 0x6a, 0x7f_u8] {
        fixture.issue(&format!("pump-{serial}"), serial);
        let before = counts();
        fixture.revoke(serial, unix(1_200), KeyCompromise);
        let after = counts();
        let changed: Vec<u16> = (1..=8).filter(|it| before[it] != after[it]).collect();
        let part = part_of(8, &[serial]);
        assert_eq!(changed, [part], "{serial:02x}");
        let listed = (1..=8).filter(|part| {
            let of = CrlPart {
                generation: fixture.root,
                count: 8,
                part: *part,
            };
            let draft = fixture.store.draft_crl(of, unix(0)).unwrap();
            draft
                .entries
                .iter()
                .any(|it| it.serial.as_bytes()[0] == serial)
        });
        assert_eq!(listed.collect::<Vec<_>>(), [part], "{serial:02x}");
    }
}

/// After a restore each partition is withheld until its own next list is signed, also over a
/// restart in between.
#[test]
fn a_restored_partition_is_withheld_until_its_own_list_is_signed() {
    let fixture = Fixture::new();
    fixture.split(2);
    let sign = |store: &Store, part: u16, now: i64| {
        let of = CrlPart {
            generation: fixture.root,
            count: 2,
            part,
        };
        let draft = store.draft_crl(of, unix(now)).unwrap();
        let new = NewCrl {
            part,
            number: draft.number,
            tbs: format!("list {}", draft.number).into_bytes().into(),
            revocations: draft.revocations,
            ..fixture.new_crl(1, unix(now))
        };
        let recorded = store.record_crl(new, entry("crl.recorded")).unwrap();
        let der = [recorded.to_sign().tbs(), b"signature"].concat();
        store
            .record_signed_crl(&recorded, der.into(), entry("crl.signed"))
            .unwrap()
    };
    fixture.issue("pump-7", 0x42);
    fixture.revoke(0x42, unix(1_200), KeyCompromise);
    for part in [1, 2] {
        assert!(!sign(&fixture.store, part, 1_300).withheld);
    }
    let backup = fixture.folder.path().join("backup.db");
    let file = backup.to_str().unwrap().to_owned();
    fixture.raw().execute("VACUUM INTO ?1", [file]).unwrap();
    let restored = entry("backup.restored");
    crate::store::backup::record_restore(&backup, unix(1_300), &restored).unwrap();
    let withheld = || {
        let lists = Store::open(&backup).unwrap().current_crls().unwrap();
        let by_part = lists.into_iter().map(|it| (it.part, it.withheld));
        by_part.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(withheld(), BTreeMap::from([(1, true), (2, true)]));
    assert!(!sign(&Store::open(&backup).unwrap(), 1, 1_400).withheld);
    assert_eq!(withheld(), BTreeMap::from([(1, false), (2, true)]));
    assert!(!sign(&Store::open(&backup).unwrap(), 2, 1_401).withheld);
    assert_eq!(withheld(), BTreeMap::from([(1, false), (2, false)]));
}
