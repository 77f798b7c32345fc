//! Each kind of tampering is found, and named.

use super::checkpoint::{Accepted, Checkpoint, DOMAIN, State, is_checkpoint};
use super::checkpoints::Checkpoints;
use super::finding::{Finding, FindingKind};
use super::verification::{Chain, Digest, after_closing};
use super::{Entry, Place};
use crate::unix_seconds::UnixSeconds;
use proptest::prelude::*;

fn chain(count: i64) -> Vec<Entry> {
    let mut entries: Vec<_> = (1..=count).map(entry).collect();
    seal_again(&mut entries);
    entries
}

fn entry(sequence: i64) -> Entry {
    let subject = format!("device-{sequence}");
    Entry {
        sequence,
        at: UnixSeconds::new(1_767_225_600 + sequence),
        fields: ["hallmarkd".into(), "a.b".into(), subject, "{}".into()],
        hash: [0; 32],
    }
}

/// Numbers the entries and gives each the hash that belongs to it, as the database's owner can.
fn seal_again(entries: &mut [Entry]) {
    let mut last = Place::default();
    for entry in entries {
        entry.sequence = last.sequence + 1;
        entry.hash = entry.seal_as(&last.hash, entry.sequence);
        last = entry.place();
    }
}

fn number_again(entries: &mut [Entry]) {
    for (entry, sequence) in entries.iter_mut().zip(1..) {
        entry.sequence = sequence;
    }
}

fn checkpoint(number: i64, entry: &Entry) -> Checkpoint {
    Checkpoint {
        journal: [1; 32],
        number,
        sequence: entry.sequence,
        hash: entry.hash,
        at: entry.at,
        schema: [3; 32],
        accepted: None,
        state: State::Open,
    }
}

fn verify(entries: &[Entry], checkpoints: &[Checkpoint]) -> Option<Finding> {
    let (checkpoints, finding) = Checkpoints::judge(checkpoints.to_vec(), []);
    assert_eq!(finding, None);
    let accepted = checkpoints.last().and_then(|it| it.accepted);
    let mut chain = Chain::whole(&checkpoints, accepted);
    chain.follow(entries, entries.len()).or_else(|| chain.end())
}

/// A function that changes the entries of a journal.
type Tampering = fn(&mut Vec<Entry>);

#[test]
fn each_tampering_is_named_with_its_place() {
    use FindingKind::{Changed, EndCutOff, Inserted, Removed, Reordered, Rewritten};
    let cases: [(&str, Tampering, FindingKind, i64, i64); 12] = [
        (
            "changed",
            |it| it[9].fields[2] = "x".into(),
            Changed,
            10,
            10,
        ),
        (
            "the last one changed",
            |it| it[29].fields[0] = "x".into(),
            Changed,
            30,
            30,
        ),
        ("removed", |it| drop(it.remove(9)), Removed, 10, 10),
        ("two removed", |it| drop(it.drain(9..11)), Removed, 10, 11),
        (
            "removed, numbered again",
            |it| {
                it.remove(9);
                number_again(it);
            },
            Removed,
            10,
            10,
        ),
        (
            "inserted, numbered again",
            |it| {
                it.insert(9, entry(99));
                number_again(it);
            },
            Inserted,
            10,
            10,
        ),
        (
            "two inserted, numbered again",
            |it| {
                it.splice(9..9, [entry(98), entry(99)]);
                number_again(it);
            },
            Inserted,
            10,
            11,
        ),
        (
            "swapped, numbered again",
            |it| {
                it.swap(9, 10);
                number_again(it);
            },
            Reordered,
            10,
            11,
        ),
        (
            "contents swapped, hashes kept",
            |it| {
                it.swap(9, 12);
                number_again(it);
                let hash = it[9].hash;
                it[9].hash = it[12].hash;
                it[12].hash = hash;
            },
            Reordered,
            10,
            13,
        ),
        (
            "removed, sealed again",
            |it| {
                it.remove(9);
                seal_again(it);
            },
            Rewritten,
            1,
            20,
        ),
        (
            "inserted in the second part, sealed again",
            |it| {
                it.insert(24, entry(99));
                seal_again(it);
                it.truncate(30);
            },
            Rewritten,
            21,
            30,
        ),
        ("the end cut off", |it| it.truncate(25), EndCutOff, 26, 30),
    ];
    let whole = chain(30);
    let checkpoints = [checkpoint(1, &whole[19]), checkpoint(2, &whole[29])];
    assert_eq!(verify(&whole, &checkpoints), None);
    for (what, tampering, kind, from, to) in cases {
        let mut entries = whole.clone();
        tampering(&mut entries);
        let found = verify(&entries, &checkpoints).expect(what);
        assert_eq!(
            (found.kind, found.from, found.to),
            (kind, from, to),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn what_was_accepted_is_no_finding_and_stays_as_it_was() {
    let mut entries = chain(30);
    entries[9].fields[2] = "x".into();
    let mut digest = Digest::default();
    entries[..20].iter().for_each(|it| digest.add(it));
    let accepted = Accepted {
        sequence: 20,
        digest: digest.finish(),
    };
    let mut since = checkpoint(2, &entries[21]);
    since.accepted = Some(accepted);
    let checkpoints = [checkpoint(1, &chain(15)[14]), since];
    assert_eq!(verify(&entries, &checkpoints), None);
    let mut again = entries.clone();
    again[4].fields[2] = "y".into();
    let found = verify(&again, &checkpoints).unwrap();
    assert_eq!((found.kind, found.to), (FindingKind::Rewritten, 20));
    entries[24].fields[2] = "y".into();
    assert_eq!(verify(&entries, &checkpoints).unwrap().from, 25);
}

#[test]
fn missing_and_contradicting_checkpoints_are_named() {
    let entries = chain(30);
    let all: Vec<_> = (1..=3)
        .map(|it| checkpoint(it, &entries[9 + it as usize]))
        .collect();
    let judge = |recorded: &[Checkpoint], copied: &[Checkpoint]| {
        Checkpoints::judge(recorded.to_vec(), copied.to_vec()).1
    };
    assert_eq!(judge(&all, &all[1..]), None);
    let kind = |found: Option<Finding>| found.unwrap().kind;
    let gap = [all[0].clone(), all[2].clone()];
    assert_eq!(kind(judge(&gap, &[])), FindingKind::CheckpointMissing);
    assert_eq!(kind(judge(&all[..2], &all)), FindingKind::CheckpointMissing);
    let mut other = all.clone();
    other[1].hash = [9; 32];
    assert_eq!(kind(judge(&other, &all)), FindingKind::Rewritten);
    let mut backwards = all.clone();
    backwards[2].sequence = 1;
    assert_eq!(kind(judge(&backwards, &[])), FindingKind::Rewritten);
}

#[test]
fn entries_after_a_closing_checkpoint_are_a_finding() {
    let mut closing = checkpoint(4, &entry(9));
    assert_eq!(after_closing(&closing, 10), None);
    closing.state = State::Closed;
    assert_eq!(after_closing(&closing, 9), None);
    assert_eq!(
        after_closing(&closing, 11).unwrap().kind,
        FindingKind::AfterClosing
    );
}

#[test]
fn the_domain_begins_no_der() {
    assert_ne!(DOMAIN.as_bytes()[0], 0x30);
    assert!(!is_checkpoint(DOMAIN.as_bytes()));
}

proptest! {
    #[test]
    fn a_checkpoint_has_one_encoding(
        numbers in any::<(u32, u32, i64)>(), hashes in any::<([u8; 32], [u8; 32])>(),
        accepted in any::<Option<u32>>(), closes in any::<bool>(),
        at in any::<prop::sample::Index>(), octet in any::<u8>(),
    ) {
        let checkpoint = Checkpoint {
            journal: hashes.0,
            number: i64::from(numbers.0) + 1,
            sequence: i64::from(numbers.1) + 1,
            hash: hashes.1,
            at: UnixSeconds::new(numbers.2),
            schema: hashes.0,
            accepted: accepted.map(|it| Accepted {
                sequence: i64::from(it) + 1,
                digest: hashes.1,
            }),
            state: if closes { State::Closed } else { State::Broken },
        };
        let encoded = checkpoint.encode();
        prop_assert_eq!(Checkpoint::decode(&encoded), Some(checkpoint.clone()));
        let mut changed = encoded.clone();
        let at = at.index(changed.len());
        changed[at] = octet;
        if let Some(decoded) = Checkpoint::decode(&changed) {
            prop_assert_eq!(decoded == checkpoint, changed == encoded);
        }
        changed.truncate(at);
        prop_assert!(!is_checkpoint(&changed));
    }

    #[test]
    fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Checkpoint::decode(&octets);
        let _ = Checkpoint::decode(&[DOMAIN.as_bytes(), &octets].concat());
    }
}
