//! Keys whose private key can be computed are refused, and sound ones pass.

use super::SoftwareKey;
use super::key::rsa_spki;
use crate::x509::key::{KeyRefusal, KeyType, PublicKey};
use num_bigint::BigUint;
use std::process::Command;
use std::time::{Duration, Instant};

const F4: [u8; 3] = [1, 0, 1];
/// Most time for the checks of one key in an unoptimised build. A release build is 50 times faster.
const PATIENCE: Duration = Duration::from_millis(500);

/// The modulus of a new RSA key.
pub(super) fn good_modulus(key_type: KeyType) -> Vec<u8> {
    let spki = SoftwareKey::generate(key_type).spki_der();
    let octets = match key_type {
        KeyType::Rsa2048 => 256,
        KeyType::Rsa3072 => 384,
        _ => 512,
    };
    // The exponent follows: tag, length and three octets.
    let end = spki.len() - 5;
    spki[end - octets..end].to_vec()
}

fn good_number() -> BigUint {
    BigUint::from_bytes_be(&good_modulus(KeyType::Rsa2048))
}

/// A prime of 1024 bits whose two highest bits are set.
fn prime() -> BigUint {
    let mut command = Command::new("openssl");
    command.args(["prime", "-generate", "-hex", "-bits", "1024"]);
    let output = command.output().expect("openssl runs").stdout;
    BigUint::parse_bytes(output.trim_ascii(), 16).expect("a prime")
}

fn read(modulus: &BigUint) -> Result<PublicKey, KeyRefusal> {
    PublicKey::from_spki_der(&rsa_spki(&modulus.to_bytes_be(), &F4))
}

fn weakness(modulus: &BigUint) -> Option<String> {
    match read(modulus) {
        Err(KeyRefusal::WeakKey(reason)) => Some(reason),
        other => other.map(|_| None).expect("is weak or good"),
    }
}

/// The weakness of the first product of the two that has no small factor; `next` moves on.
fn weakness_of_product(mut factors: [BigUint; 2], next: impl Fn(&mut BigUint)) -> Option<String> {
    loop {
        let found = weakness(&(&factors[0] * &factors[1]));
        if !found.as_ref().is_some_and(|it| it.contains("divisible")) {
            return found;
        }
        next(&mut factors[1]);
    }
}

#[test]
fn sound_rsa_keys_of_every_size_pass_in_little_time() {
    for key_type in [KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096] {
        let modulus = BigUint::from_bytes_be(&good_modulus(key_type));
        let begun = Instant::now();
        assert_eq!(read(&modulus).expect("passes").key_type(), key_type);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_modulus_with_a_small_factor_is_refused() {
    for factor in [3u32, 5, 7, 11, 113, 167, 173, 509, 743, 751] {
        let number = good_number();
        let mut modulus = &number - &number % factor;
        if !modulus.bit(0) {
            modulus += factor;
        }
        let reason = weakness(&modulus).expect("is weak");
        assert!(reason.contains("divisible by"), "{factor}: {reason}");
    }
}

/// `q = p + 2^bits`, or a little more: Fermat finds them up to a distance of about 2^516.
#[test]
fn close_prime_factors_are_refused() {
    let two = |it: &mut BigUint| *it += 2u32;
    for bits in [1u64, 2, 10, 100, 400, 512, 514, 516] {
        let p = prime();
        let q = &p + (BigUint::from(1u32) << bits);
        let reason = weakness_of_product([p, q], two).expect("is weak");
        assert!(reason.contains("too close"), "2^{bits}: {reason}");
    }
    let p = prime();
    let reason = weakness(&(&p * &p)).expect("a square is weak");
    assert!(reason.contains("too close"), "{reason}");
    let p = prime();
    let q = &p + (BigUint::from(1u32) << 540u32);
    assert_eq!(weakness_of_product([p, q], two), None);
}

/// Infineon's generator (CVE-2017-15361): p = k * M + (65537^a mod M), with M the product of the
/// first 126 primes where p has 1024 bits.
#[test]
fn a_modulus_of_the_roca_generator_is_refused() {
    let primes = (2u32..=701).filter(|n| (2..*n).all(|divisor| n % divisor != 0));
    let product: BigUint = primes.map(BigUint::from).product();
    let shaped = |exponent: u32| {
        let power = BigUint::from(65_537u32).modpow(&BigUint::from(exponent), &product);
        // Of 1024 bits, the two highest of which are set.
        let top = BigUint::from(3u32) << 1022u32;
        (top / &product + 1u32 + exponent) * &product + power
    };
    let by_product = |it: &mut BigUint| *it += &product << 1u32;
    for exponents in [[1, 2], [77, 1_234_567], [65_537, 4_000_000_000]] {
        let factors = exponents.map(shaped);
        let reason = weakness_of_product(factors, by_product).expect("is weak");
        assert!(reason.contains("ROCA"), "{exponents:?}: {reason}");
    }
}

#[test]
fn ed25519_points_of_small_order_are_refused() {
    let good = SoftwareKey::generate(KeyType::Ed25519).spki_der();
    let head = &good[..good.len() - 32];
    let p = |lowest: u8| {
        let mut octets = [0xff; 32];
        (octets[0], octets[31]) = (lowest, 0x7f);
        octets
    };
    let mut one = [0; 32];
    one[0] = 1;
    let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let mut of_order_8 = [0; 32];
    hex::decode_to_slice(order_8, &mut of_order_8).expect("is hex");
    for point in [[0; 32], one, p(0xec), p(0xed), p(0xee), of_order_8] {
        for sign in [0, 0x80] {
            let mut point = point;
            point[31] |= sign;
            let refused = PublicKey::from_spki_der(&[head, &point].concat()).expect_err("is weak");
            let is_right = matches!(refused, KeyRefusal::WeakKey(_) | KeyRefusal::Malformed(_));
            assert!(is_right, "{}: {refused}", hex::encode(point));
        }
    }
}

#[test]
fn points_at_infinity_at_the_origin_and_beyond_the_field_are_refused() {
    for (key_type, octets) in [(KeyType::P256, 32), (KeyType::P384, 48)] {
        let good = SoftwareKey::generate(key_type).spki_der();
        let head = &good[..good.len() - 2 * octets];
        for coordinate in [0u8, 0xff] {
            let point = vec![coordinate; 2 * octets];
            assert!(PublicKey::from_spki_der(&[head, &point].concat()).is_err());
        }
        // Infinity is the one octet 0: the lengths of SEQUENCE and BIT STRING shrink with it.
        let mut infinity = head.to_vec();
        let last = infinity.len() - 1;
        infinity[last] = 0;
        infinity[last - 2] = 2;
        infinity[1] -= u8::try_from(2 * octets).expect("is short");
        let refused = PublicKey::from_spki_der(&infinity);
        assert!(
            matches!(refused, Err(KeyRefusal::Malformed(_))),
            "{refused:?}"
        );
    }
}
