//! Revocation lists: read back by x509-parser, judged by OpenSSL, and refused by the lint when
//! anything in them differs from what was asked for.

use super::{Authority, NOW, YEAR};
use crate::crl_number::CrlNumber;
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::crl::{
    CrlContent, Entry, IssuingPoint, RevocationList, Scope, assemble, build, entries_and_released,
    names_delta,
};
use crate::x509::key::KeyType;
use crate::x509::lint::crl::{Expectation, lint};
use crate::x509::profile::Profile;
use crate::x509::revocation::RevocationReason;
use crate::x509::serial::SerialNumber;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

const WEEK: i64 = 7 * 86_400;

fn request(number: CrlNumber, entries: &[Entry]) -> CrlContent<'_> {
    CrlContent {
        number,
        this_update: NOW,
        next_update: NOW + WEEK,
        entries,
        released: &[],
        scope: &COMPLETE,
    }
}

fn expectation<'a>(issuer: &'a Certificate, request: &CrlContent<'a>) -> Expectation<'a> {
    Expectation {
        issuer,
        number: request.number,
        this_update: request.this_update,
        next_update: request.next_update,
        entries: request.entries,
        released: request.released,
        scope: request.scope,
    }
}

static COMPLETE: Scope = Scope {
    point: None,
    base: None,
    delta_url: None,
};

impl Authority {
    fn revocation_list(&self, number: CrlNumber, entries: &[Entry]) -> RevocationList {
        self.list_of(request(number, entries))
    }

    fn list_of(&self, request: CrlContent<'_>) -> RevocationList {
        let tbs = build(&self.issuer(), &request).expect("builds");
        let linted = lint(tbs, &expectation(&self.certificate, &request)).expect("passes the lint");
        let algorithm = self.issuer().signature_algorithm();
        let signature = self.key.sign(linted.bytes());
        let list = assemble(linted.bytes(), algorithm, &signature).expect("assembles");
        assert_eq!(list.tbs_bytes(), linted.bytes().as_ref());
        list.verify_issued_by(self.issuer().public_key())
            .expect("is the authority's");
        list
    }
}

fn entry(serial: &SerialNumber, reason: RevocationReason) -> Entry {
    Entry {
        serial: serial.clone(),
        revoked_at: NOW - 60,
        reason,
    }
}

static INTERMEDIATE: LazyLock<Authority> = LazyLock::new(|| {
    let root = Authority::root(KeyType::P256, &Profile::authority(None, 30 * YEAR));
    root.subordinate("Line", KeyType::P256, &Profile::authority(Some(0), YEAR))
});

/// Verifies: a list of almost 16 MiB, the most that the lint reads, and one with as many entries as
/// one of 256 partitions of a million has, are built, linted, signed and assembled. Prints how long
/// that takes.
#[test]
#[ignore = "takes minutes: tests/run --long"]
#[expect(
    clippy::print_stdout,
    reason = "docs/performance.md quotes the numbers"
)]
fn a_list_at_its_limit_is_made() {
    for count in [300_000_u32, 3_907] {
        let entries = (0..count).map(|number| {
            let octets = [[0x41; 12].as_slice(), &number.to_be_bytes()].concat();
            let serial = SerialNumber::from_magnitude(&octets).expect("is a serial number");
            entry(&serial, RevocationReason::KeyCompromise)
        });
        let entries: Vec<Entry> = entries.collect();
        let began = std::time::Instant::now();
        let list = INTERMEDIATE.revocation_list(CrlNumber::new(7), &entries);
        let took = began.elapsed();
        println!("{count} entries: {} octets, {took:?}", list.der().len());
        assert!(list.der().len() > 30 * entries.len());
    }
}

/// Any serial that RFC 5280 allows, any reason, any date of four digits.
fn any_entry() -> impl Strategy<Value = Entry> {
    let serial = proptest::collection::vec(any::<u8>(), 1..=20)
        .prop_filter_map("is no serial", |octets| {
            SerialNumber::from_magnitude(&octets).ok()
        });
    let reason = proptest::sample::select(RevocationReason::ALL.to_vec());
    (serial, 0_i64..253_402_300_800, reason).prop_map(|(serial, revoked_at, reason)| Entry {
        serial,
        revoked_at: UnixSeconds::new(revoked_at),
        reason,
    })
}

proptest! {
    #[test]
    fn what_goes_in_is_read_back(
        octets in proptest::collection::vec(any::<u8>(), 1..=20),
        entries in proptest::collection::vec(any_entry(), 0..40),
    ) {
        let number = CrlNumber::from_magnitude(&octets);
        prop_assume!(number.is_ok_and(|it| it > CrlNumber::START));
        let number = number.expect("is a number");
        let mut entries = entries;
        entries.sort_by(|a, b| a.serial.cmp(&b.serial));
        entries.dedup_by(|a, b| a.serial == b.serial);
        let list = INTERMEDIATE.revocation_list(number, &entries);
        let (rest, parsed) = CertificateRevocationList::from_der(list.der()).expect("parses");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(parsed.crl_number().map(ToString::to_string), Some(number.to_string()));
        prop_assert_eq!(parsed.last_update().timestamp(), NOW.get());
        prop_assert_eq!(parsed.next_update().map(|it| it.timestamp()), Some((NOW + WEEK).get()));
        let found: Vec<_> = parsed.iter_revoked_certificates().map(|found| (
            found.serial().to_bytes_be(),
            found.revocation_date.timestamp(),
            found.reason_code().map_or(0, |(_, code)| code.0),
        )).collect();
        let asked: Vec<_> = entries.iter().map(|asked| (
            asked.serial.as_bytes().to_vec(), asked.revoked_at.get(), asked.reason.code(),
        )).collect();
        prop_assert_eq!(found, asked);
        prop_assert_eq!(entries_and_released(list.der()), Some((entries, Vec::new())));
    }

    /// A delta list of a partition has what it was asked for, and the lint finds each other scope.
    #[test]
    fn every_scope_is_read_back(
        base in 1_i64..i64::MAX,
        entries in proptest::collection::vec(any_entry(), 0..8),
        is_delta in any::<bool>(),
        path in "[a-z0-9.-]{1,300}",
        only_user_certificates in any::<bool>(),
    ) {
        let mut entries = entries;
        entries.sort_by(|a, b| a.serial.cmp(&b.serial));
        entries.dedup_by(|a, b| a.serial == b.serial);
        let url = format!("http://pki.example/crl/{path}.crl");
        let scope = Scope {
            point: Some(IssuingPoint { url: url.clone(), only_user_certificates }),
            base: is_delta.then(|| CrlNumber::new(base)),
            delta_url: (!is_delta).then(|| url.clone()),
        };
        let mut released = entries.split_off(entries.len() / 2);
        released.iter_mut().for_each(|it| it.reason = RevocationReason::CertificateHold);
        if !is_delta {
            released.clear();
        }
        let asked = CrlContent {
            released: &released,
            scope: &scope,
            ..request(CrlNumber::new(base).next(), &entries)
        };
        let list = INTERMEDIATE.list_of(asked);
        let (_, parsed) = CertificateRevocationList::from_der(list.der()).expect("parses");
        let found = parsed.extensions().iter();
        let points: Vec<_> = found.map(|it| (it.oid.to_id_string(), it.critical)).collect();
        let further = match is_delta {
            true => [("2.5.29.27".to_owned(), true), ("2.5.29.28".to_owned(), true)],
            false => [("2.5.29.28".to_owned(), true), ("2.5.29.46".to_owned(), false)],
        };
        prop_assert_eq!(&points[2..], further);
        prop_assert_eq!(names_delta(list.der()), !is_delta);
        prop_assert_eq!(
            entries_and_released(list.der()),
            Some((entries.clone(), released.clone()))
        );
        let tbs = build(&INTERMEDIATE.issuer(), &asked).expect("builds");
        let expected = expectation(&INTERMEDIATE.certificate, &asked);
        for other in [
            COMPLETE.clone(),
            Scope { base: Some(CrlNumber::new(base).next()), ..scope.clone() },
            Scope { delta_url: Some("http://other.example/".to_owned()), ..scope.clone() },
            Scope {
                point: Some(IssuingPoint {
                    url: url.clone(),
                    only_user_certificates: !only_user_certificates,
                }),
                ..scope.clone()
            },
            Scope {
                point: Some(IssuingPoint { url: format!("{url}x"), only_user_certificates }),
                ..scope.clone()
            },
        ] {
            let failures = lint(tbs.clone(), &Expectation { scope: &other, ..expected });
            let failures = failures.expect_err("has another scope");
            prop_assert!(failures.findings().iter().any(|it| it.id == "scope"));
        }
        if !released.is_empty() {
            let kept = Expectation { released: &[], ..expected };
            lint(tbs, &kept).expect_err("removes entries");
        }
    }
}

/// OpenSSL takes a certificate off hold by a delta list, refuses one that the delta list revokes,
/// and takes a list of a partition for the certificates that name its address alone.
#[test]
fn openssl_reads_delta_lists_and_partitions() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let root = Authority::root(KeyType::P256, &Profile::authority(None, 30 * YEAR));
    let line = root.subordinate("Line", KeyType::P256, &Profile::authority(Some(0), YEAR));
    let key = super::SoftwareKey::generate(KeyType::P256).public_key();
    let leaf = line.certify("device-7", &key, &Profile::verification());
    let above = root.revocation_list(CrlNumber::new(1), &[]);
    let url = "http://pki.example/crl/line-1-1.delta.crl";
    let complete = Scope {
        delta_url: Some(url.to_owned()),
        ..Scope::default()
    };
    let delta = Scope {
        base: Some(CrlNumber::new(5)),
        ..Scope::default()
    };
    let hold = [entry(leaf.serial(), RevocationReason::CertificateHold)];
    let base = |entries: &[Entry]| {
        line.list_of(CrlContent {
            scope: &complete,
            ..request(CrlNumber::new(5), entries)
        })
    };
    let delta = |entries: &[Entry], released: &[Entry]| {
        line.list_of(CrlContent {
            scope: &delta,
            released,
            ..request(CrlNumber::new(6), entries)
        })
    };
    let verify = |lists: [RevocationList; 2]| {
        let [base, delta] = lists;
        let chain = [&root.certificate, &line.certificate];
        let lists = [above.clone(), base, delta];
        openssl_verify(folder.path(), chain, &leaf, &lists)
    };
    assert_eq!(verify([base(&[]), delta(&[], &[])]), Ok(()));
    let refusal = verify([base(&[]), delta(&hold, &[])]).expect_err("the delta list revokes it");
    assert!(refusal.contains("certificate revoked"), "{refusal}");
    let refusal = verify([base(&hold), delta(&[], &[])]).expect_err("the base revokes it");
    assert!(refusal.contains("certificate revoked"), "{refusal}");
    assert_eq!(verify([base(&hold), delta(&[], &hold)]), Ok(()));

    // This leaf names no address, so the list of a partition does not cover it.
    let partition = Scope {
        point: Some(IssuingPoint {
            url: "http://pki.example/crl/line-1-1.1of2.crl".to_owned(),
            only_user_certificates: true,
        }),
        ..Scope::default()
    };
    let other = line.list_of(CrlContent {
        scope: &partition,
        ..request(CrlNumber::new(5), &[])
    });
    let refusal = verify([other, delta(&[], &[])]).expect_err("no list covers it");
    assert!(
        refusal.contains("unable to get certificate CRL") || refusal.contains("scope"),
        "{refusal}"
    );
}

#[test]
fn a_hundred_thousand_entries_are_one_list() {
    let entries: Vec<_> = (0..100_000_u32)
        .map(|number| {
            let mut octets = [0x40; 12];
            octets[8..].copy_from_slice(&number.to_be_bytes());
            entry(
                &SerialNumber::from_random(UnixSeconds::new(0), octets),
                RevocationReason::KeyCompromise,
            )
        })
        .collect();
    let list = INTERMEDIATE.revocation_list(CrlNumber::new(7), &entries);
    let (_, parsed) = CertificateRevocationList::from_der(list.der()).expect("parses");
    assert_eq!(parsed.iter_revoked_certificates().count(), entries.len());
}

#[test]
fn the_lint_finds_whatever_differs() {
    let issuer = &*INTERMEDIATE;
    let other = Authority::root(KeyType::P384, &Profile::authority(None, YEAR));
    let serial = |number| SerialNumber::from_random(UnixSeconds::new(0), [number; 12]);
    let entries = [
        entry(&serial(1), RevocationReason::KeyCompromise),
        entry(&serial(2), RevocationReason::Unspecified),
    ];
    let twice = [entries[0].clone(), entries[0].clone()];
    let another_reason = [
        entry(&serial(1), RevocationReason::Superseded),
        entries[1].clone(),
    ];
    let another_serial = [
        entry(&serial(3), RevocationReason::KeyCompromise),
        entries[1].clone(),
    ];
    let another_date = [
        Entry {
            revoked_at: NOW,
            ..entries[0].clone()
        },
        entries[1].clone(),
    ];
    let built = request(CrlNumber::new(5), &entries);
    let tbs = build(&issuer.issuer(), &built).expect("builds");
    let asked = expectation(&issuer.certificate, &built);
    lint(tbs.clone(), &asked).expect("passes as it was asked for");
    let with = |entries| Expectation { entries, ..asked };
    for (id, asked) in [
        (
            "crl_number",
            Expectation {
                number: CrlNumber::new(6),
                ..asked
            },
        ),
        (
            "updates",
            Expectation {
                next_update: NOW + 1,
                ..asked
            },
        ),
        (
            "issuer",
            Expectation {
                issuer: &other.certificate,
                ..asked
            },
        ),
        (
            "authority_key_identifier",
            Expectation {
                issuer: &other.certificate,
                ..asked
            },
        ),
        ("entries", with(&entries[..1])),
        ("entry_twice", with(&twice)),
        ("entry", with(&another_reason)),
        ("entry", with(&another_serial)),
        ("entry", with(&another_date)),
    ] {
        let failures = lint(tbs.clone(), &asked).expect_err(id);
        let found: Vec<_> = failures.findings().iter().map(|it| it.id).collect();
        assert!(found.contains(&id), "{id}: {found:?}");
    }
}

/// The verdict of OpenSSL about `leaf` with every list checked.
fn openssl_verify(
    folder: &Path,
    chain: [&Certificate; 2],
    leaf: &Certificate,
    lists: &[RevocationList],
) -> Result<(), String> {
    let [root, line] = chain.map(Certificate::to_pem);
    for (name, text) in [
        ("root", root),
        ("line", line),
        ("leaf", leaf.to_pem()),
        ("lists", lists.iter().map(pem_by_openssl).collect()),
    ] {
        fs::write(folder.join(name), text).expect("writes");
    }
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-crl_check_all"])
        // Without the second flag OpenSSL takes a delta list for a complete one.
        .args(["-use_deltas", "-extended_crl"])
        .args(["-attime", &(NOW + 60).get().to_string()])
        .args(["-CAfile", "root", "-untrusted", "line"])
        .args(["-CRLfile", "lists", "leaf"])
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn pem_by_openssl(list: &RevocationList) -> String {
    let folder = tempfile::tempdir().expect("makes a folder");
    let der = folder.path().join("list");
    fs::write(&der, list.der()).expect("writes");
    let output = Command::new("openssl")
        .args(["crl", "-inform", "DER", "-in"])
        .arg(der)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("is PEM")
}

#[test]
fn openssl_refuses_the_revoked_leaf_and_accepts_the_other_in_every_kind_of_key() {
    use KeyType::{Ed25519, P256, P384, P521, Rsa2048};
    let folder = tempfile::tempdir().expect("makes a folder");
    for key_types in [
        [P256, P256],
        [P384, Rsa2048],
        [P521, P521],
        [Rsa2048, Ed25519],
        [Ed25519, P384],
    ] {
        let root = Authority::root(key_types[0], &Profile::authority(None, 30 * YEAR));
        let line = root.subordinate("Line", key_types[1], &Profile::authority(Some(0), YEAR));
        let key = super::SoftwareKey::generate(P256).public_key();
        let leaf = line.certify("device-7", &key, &Profile::verification());
        let chain = [&root.certificate, &line.certificate];
        let verify = |lists: &[RevocationList]| openssl_verify(folder.path(), chain, &leaf, lists);
        let stranger = entry(
            &SerialNumber::from_random(UnixSeconds::new(0), [3; 12]),
            RevocationReason::Unspecified,
        );
        let own = entry(leaf.serial(), RevocationReason::CertificateHold);
        let above = entry(line.certificate.serial(), RevocationReason::CaCompromise);
        let nothing = root.revocation_list(CrlNumber::new(1), &[]);
        let good = line.revocation_list(CrlNumber::new(1), std::slice::from_ref(&stranger));
        assert_eq!(verify(&[nothing.clone(), good.clone()]), Ok(()));
        let revoked = line.revocation_list(CrlNumber::new(2), &[stranger, own]);
        let refusal = verify(&[nothing, revoked]).expect_err("the leaf is revoked");
        assert!(refusal.contains("certificate revoked"), "{refusal}");
        let revoked = root.revocation_list(CrlNumber::new(2), &[above]);
        let refusal = verify(&[revoked, good]).expect_err("its issuer is revoked");
        assert!(refusal.contains("certificate revoked"), "{refusal}");
    }
}
