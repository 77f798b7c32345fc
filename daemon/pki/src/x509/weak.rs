//! Finds public keys whose private key can be computed: RSA moduli with small factors, with close
//! prime factors or from a broken generator, and Ed25519 points of small order.
//!
//! The checks are those of Boulder's `goodkey` package. A certificate for such a key protects
//! nothing, so the key is refused wherever a key is read. The checks need no list of known keys:
//! Debian's weak keys of 2008 (CVE-2008-0166) are not looked up. The checks of one RSA key take
//! well under a millisecond (`docs/performance.md`); other kinds of key pay nothing.

use num_bigint::BigUint;

/// Largest prime by which an RSA modulus is divided, as in Boulder.
const SMALL_PRIME_MAX: u64 = 751;
/// Number of odd primes up to [`SMALL_PRIME_MAX`].
const SMALL_PRIMES: usize = 132;
const PRIMES: [u64; SMALL_PRIMES] = odd_primes();
/// Primes whose product has less than 64 bits: 751^6 < 2^58.
const PRIMES_AT_ONCE: usize = 6;

/// Largest prime of the ROCA fingerprint, as in Boulder.
const ROCA_PRIME_MAX: u64 = 167;
/// Generator of the subgroup that holds ROCA's primes.
const ROCA_GENERATOR: u64 = 65_537;

/// Rounds of Fermat's factorisation, as in Boulder.
const FERMAT_ROUNDS: u32 = 100;
/// Moduli with few quadratic residues; their product has 34 bits.
const SQUARE_MODULI: [u64; 7] = [63, 65, 11, 17, 19, 23, 31];
/// The quadratic residues modulo 64, as bits.
const SQUARES_MODULO_64: u128 = squares_modulo(64);

/// Returns why the private key of this RSA modulus can be computed, if it can.
pub(super) fn rsa_weakness(modulus: &[u8]) -> Option<String> {
    let modulus = BigUint::from_bytes_be(modulus);
    let residues = residues(&modulus);
    let small_factor = residues.iter().find(|(_, residue)| *residue == 0);
    if let Some((prime, _)) = small_factor {
        return Some(format!("its RSA modulus is divisible by {prime}"));
    }
    if has_roca_fingerprint(&residues) {
        return Some(
            "its RSA modulus has the fingerprint of a broken generator (ROCA, CVE-2017-15361)"
                .to_owned(),
        );
    }
    has_close_factors(&modulus)
        .then(|| "the prime factors of its RSA modulus are too close to each other".to_owned())
}

/// Returns the modulus modulo each small prime: `(prime, residue)`.
fn residues(modulus: &BigUint) -> Vec<(u64, u64)> {
    let mut residues = Vec::with_capacity(SMALL_PRIMES);
    for primes in PRIMES.chunks(PRIMES_AT_ONCE) {
        let residue = remainder(modulus, primes.iter().product());
        residues.extend(primes.iter().map(|prime| (*prime, residue % prime)));
    }
    residues
}

/// Returns true if every residue is a power of 65537. ROCA's primes are `k * M + (65537^a mod M)`
/// with a product of small primes `M`, so every residue of such a modulus is one. A sound modulus
/// passes with a probability of 2^-27.
fn has_roca_fingerprint(residues: &[(u64, u64)]) -> bool {
    let mut looked_at = residues.iter().take_while(|it| it.0 <= ROCA_PRIME_MAX);
    looked_at.all(|(prime, residue)| is_power(ROCA_GENERATOR % prime, *residue, *prime))
}

fn is_power(generator: u64, residue: u64, prime: u64) -> bool {
    let mut power = 1;
    loop {
        if power == residue {
            return true;
        }
        power = power * generator % prime;
        if power == 1 {
            return false;
        }
    }
}

/// Returns true if Fermat's factorisation finds the factors: `n = a^2 - b^2 = (a + b)(a - b)` with
/// `a` close to the square root of `n`. A perfect square counts, too.
fn has_close_factors(modulus: &BigUint) -> bool {
    let mut a = modulus.sqrt();
    if &a * &a < *modulus {
        a += 1u32;
    }
    let mut b_squared = &a * &a - modulus;
    for _ in 0..FERMAT_ROUNDS {
        if is_square(&b_squared) {
            return true;
        }
        // (a + 1)^2 = a^2 + 2a + 1
        b_squared += (&a << 1u32) + 1u32;
        a += 1u32;
    }
    false
}

/// Rules out most numbers by their residues before the expensive root.
fn is_square(number: &BigUint) -> bool {
    let low_bits = number.iter_u64_digits().next().unwrap_or(0) % 64;
    if SQUARES_MODULO_64 >> low_bits & 1 == 0 {
        return false;
    }
    let residue = remainder(number, SQUARE_MODULI.iter().product());
    let mut moduli = SQUARE_MODULI.iter();
    if moduli.any(|it| squares_modulo(*it) >> (residue % it) & 1 == 0) {
        return false;
    }
    let root = number.sqrt();
    &root * &root == *number
}

const fn squares_modulo(modulus: u64) -> u128 {
    let mut squares = 0;
    let mut root = 0;
    while root < modulus {
        squares |= 1 << (root * root % modulus);
        root += 1;
    }
    squares
}

fn remainder(number: &BigUint, divisor: u64) -> u64 {
    let remainder = number % divisor;
    remainder.iter_u64_digits().next().unwrap_or(0)
}

const fn odd_primes() -> [u64; SMALL_PRIMES] {
    let mut primes = [0; SMALL_PRIMES];
    let mut found = 0;
    let mut candidate = 3;
    while candidate <= SMALL_PRIME_MAX {
        if is_odd_prime(candidate) {
            primes[found] = candidate;
            found += 1;
        }
        candidate += 2;
    }
    primes
}

const fn is_odd_prime(candidate: u64) -> bool {
    let mut divisor = 3;
    while divisor * divisor <= candidate {
        if candidate.is_multiple_of(divisor) {
            return false;
        }
        divisor += 2;
    }
    true
}

/// The y coordinates of Ed25519's points of small order, little-endian: 0, 1, the two of order 8,
/// p - 1, and the encodings of p and p + 1, which a lenient verifier reads as 0 and 1.
const SMALL_ORDER_Y: [[u8; 32]; 7] = [
    [0; 32],
    little(1),
    *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
       \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
    *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
       \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

const fn little(first: u8) -> [u8; 32] {
    let mut octets = [0; 32];
    octets[0] = first;
    octets
}

/// Returns a number near p = 2^255 - 19, whose lowest octet is 0xed.
const fn near_p(first: u8) -> [u8; 32] {
    let mut octets = [0xff; 32];
    octets[0] = first;
    octets[31] = 0x7f;
    octets
}

/// Returns true for the few Ed25519 keys under which a signature can be made without any key.
pub(super) fn has_small_order(key: &[u8; 32]) -> bool {
    let mut y = *key;
    // The highest bit is the sign of x.
    y[31] &= 0x7f;
    SMALL_ORDER_Y.contains(&y)
}
