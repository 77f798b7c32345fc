//! Changes good input at random, and has every parser of bytes from outside read it: none may
//! panic, none may take long, and an accepted value must be the same when it is read again.
//!
//! Each target runs for a second, or for as many as `HALLMARK_FUZZ_SECONDS` says (`tests/run
//! --long`). It needs no other toolchain than the product. A failure prints its input in
//! hexadecimal digits; add it to the target's seeds.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stops at the unexpected and shows its input"
)]

mod mutation;
mod seeds;

use hallmark_pki::x509::bundle::{parse_bundle, parse_first, trust_anchors};
use hallmark_pki::x509::certificate::Certificate;
use hallmark_pki::x509::constraints::objection;
use hallmark_pki::x509::csr::Csr;
use hallmark_pki::x509::former_crl::FormerList;
use hallmark_pki::x509::key::PublicKey;
use hallmark_pki::x509::lint::IssuerReading;
use hallmark_pki::x509::ocsp::{StatusRequest, is_answer};
use hallmark_pki::x509::openssl_index;
use hallmark_pki::x509::printed;
use hallmark_pki::x509::profile::Profile;
use hallmark_pki::x509::requested_names::UnprovenCsr;
use mutation::Mutator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The longest time for one input, on a machine that does other work, too.
const INPUT_TIME: Duration = Duration::from_secs(5);

/// Reads changed seeds until the time is over.
fn fuzz(seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let seconds = std::env::var("HALLMARK_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(1, |it| it.parse().expect("a number of seconds"));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut mutator = Mutator::new(seeds);
    seeds.iter().for_each(|seed| read(seed, &target));
    while Instant::now() < until {
        read(&mutator.next_input(), &target);
    }
    eprintln!("{} inputs", mutator.count);
}

fn read(input: &[u8], target: &impl Fn(&[u8])) {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "it panicked at {}", hex::encode(input));
    let time = begun.elapsed();
    assert!(time < INPUT_TIME, "{time:?} for {}", hex::encode(input));
}

#[test]
fn requests() {
    fuzz(&seeds::requests(), |input| {
        let read = Csr::parse(input);
        assert_eq!(read, Csr::parse(input));
        if let Ok(csr) = read {
            let unproven = UnprovenCsr::read(input).unwrap();
            assert_eq!(*csr.names(), unproven.names);
            assert_eq!(Csr::parse(&unproven.der), Ok(csr));
        }
    });
}

#[test]
fn certificates() {
    fuzz(&seeds::certificates(), |input| {
        let Ok(certificate) = Certificate::parse(input) else {
            return;
        };
        assert_eq!(**certificate.der(), *input);
        let _ = (certificate.public_key(), certificate.policies());
        let _ = (certificate.subject(), certificate.issuer());
        let _ = (certificate.common_name(), certificate.path_length());
        let _ = certificate.kept_constraints();
        let _ = objection(&certificate, &[]);
        let _ = certificate.verify_issued_by_key_of(certificate.spki_der());
        let _ = IssuerReading::new(&certificate);
        let _ = printed::text(certificate.tbs_bytes());
        assert_eq!(
            parse_first(certificate.to_pem().as_bytes()),
            Ok(certificate)
        );
    });
}

#[test]
fn certificate_files() {
    fuzz(&seeds::certificate_files(), |input| {
        let _ = parse_first(input);
        let _ = trust_anchors(input);
        if let Ok(chain) = parse_bundle(input) {
            let pem: String = chain.iter().map(Certificate::to_pem).collect();
            assert_eq!(parse_bundle(pem.as_bytes()), Ok(chain));
        }
    });
}

#[test]
fn public_keys() {
    fuzz(&seeds::public_keys(), |input| {
        if let Ok(key) = PublicKey::from_spki_der(input) {
            assert_eq!(**key.spki_der(), *input);
        }
    });
}

#[test]
fn revocation_lists() {
    let (issuer, key, lists) = seeds::revocation_lists();
    fuzz(&lists, |input| {
        let _ = FormerList::read(input, &issuer, &key);
    });
}

#[test]
fn indexes_of_openssl() {
    fuzz(&seeds::indexes(), |input| {
        let _ = openssl_index::parse(input);
    });
}

#[test]
fn ocsp_requests() {
    fuzz(&seeds::ocsp_requests(), |input| {
        let read = StatusRequest::parse(input);
        assert_eq!(read, StatusRequest::parse(input));
        assert!(!is_answer(input) || read.is_err());
    });
}

#[test]
fn profiles() {
    fuzz(&seeds::profiles(), |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let Ok(profile) = toml::from_str::<Profile>(text) else {
            return;
        };
        assert_eq!(profile.check(), Ok(()));
        let _ = profile.check_templates("line-1");
        let written = toml::to_string(&profile).unwrap();
        assert_eq!(toml::from_str(&written), Ok(profile), "{written}");
    });
}
