//! RSA keys whose private key can be computed, made from their prime factors. OpenSSL signs with
//! them as with any other key.

use crate::request::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::Encode;
use der::asn1::UintRef;
use num_bigint::BigUint;
use std::path::Path;
use std::process::Command;

const EXPONENT: u32 = 65_537;
/// The product of the primes up to 701: the generator of CVE-2017-15361 builds on it.
const ROCA_PRIMES_MAX: u32 = 701;
/// How many numbers one run of `openssl prime` looks at.
const CANDIDATES: usize = 200;

/// The weakness of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weakness {
    /// The second prime is the next one after the first.
    ClosePrimes,
    /// One of its factors is 751.
    SmallFactor,
    /// Both primes are of the shape that Infineon's generator made.
    Roca,
}

impl Weakness {
    pub(crate) const ALL: [Self; 3] = [Self::ClosePrimes, Self::SmallFactor, Self::Roca];

    /// A CSR with such a key, of 2048 bits.
    pub(crate) fn request(self, id: &str, folder: &Path) -> Request {
        let key = self.key();
        std::fs::write(folder.join("weak.key"), &key).unwrap();
        let subject = format!("/CN={id}");
        let csr = openssl(
            &["req", "-new", "-key", "weak.key", "-subj", &subject],
            folder,
        );
        Request::of("device", id, csr, key)
    }

    /// The private key: PEM, PKCS #1.
    pub(crate) fn key(self) -> String {
        loop {
            let (p, q) = self.factors();
            let modulus = &p.number * &q.number;
            if modulus.bits() == 2048
                && let Some(key) = private_key(&p, &q)
            {
                return key;
            }
        }
    }

    fn factors(self) -> (Factor, Factor) {
        match self {
            Self::ClosePrimes => {
                let p = generated(1024);
                // One odd number in 355 is prime at this size, so 8,000 hold one but for 1 in 10^9.
                let after = (1..=40 * CANDIDATES).map(|step| &p + 2 * step);
                let q = first_prime(after).unwrap();
                (Factor::prime(p), Factor::prime(q))
            }
            Self::SmallFactor => {
                let rest = generated(1015);
                let small = BigUint::from(751u32);
                let order = lcm(&(&small - 1u32), &(&rest - 1u32));
                let number = small * rest;
                (Factor { number, order }, Factor::prime(generated(1024)))
            }
            Self::Roca => (Factor::prime(roca_prime(1)), Factor::prime(roca_prime(7))),
        }
    }
}

/// A factor of a modulus, and the order that exponents have modulo it.
struct Factor {
    number: BigUint,
    order: BigUint,
}

impl Factor {
    fn prime(number: BigUint) -> Self {
        let order = &number - 1u32;
        Self { number, order }
    }
}

/// `k * M + (65537^a mod M)`: 1024 bits, the two highest of which are set.
fn roca_prime(exponent: u32) -> BigUint {
    let small = (2..=ROCA_PRIMES_MAX).filter(|n| (2..*n).all(|divisor| n % divisor != 0));
    let product: BigUint = small.map(BigUint::from).product();
    let power = BigUint::from(EXPONENT).modpow(&BigUint::from(exponent), &product);
    let least = (BigUint::from(3u32) << 1022u32) / &product + 1u32;
    let shaped = (0..4 * CANDIDATES).map(|step| (&least + step) * &product + &power);
    first_prime(shaped).unwrap()
}

fn first_prime(candidates: impl Iterator<Item = BigUint>) -> Option<BigUint> {
    let candidates: Vec<BigUint> = candidates.collect();
    candidates.chunks(CANDIDATES).find_map(|chunk| {
        let hex = chunk.iter().map(|it| it.to_str_radix(16));
        let arguments: Vec<String> = ["prime".into(), "-hex".into()]
            .into_iter()
            .chain(hex)
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = openssl(&arguments, Path::new("."));
        let place = output.lines().position(|it| it.ends_with("is prime"))?;
        Some(chunk[place].clone())
    })
}

fn generated(bits: u32) -> BigUint {
    let bits = bits.to_string();
    let output = openssl(
        &["prime", "-generate", "-hex", "-bits", &bits],
        Path::new("."),
    );
    BigUint::parse_bytes(output.trim().as_bytes(), 16).unwrap()
}

fn lcm(a: &BigUint, b: &BigUint) -> BigUint {
    let (mut divisor, mut rest) = (a.clone(), b.clone());
    while rest.bits() > 0 {
        let next = &divisor % &rest;
        divisor = std::mem::replace(&mut rest, next);
    }
    a * b / divisor
}

/// RSAPrivateKey of RFC 8017 A.1.2; `None` if the exponent has no inverse.
fn private_key(p: &Factor, q: &Factor) -> Option<String> {
    let exponent = BigUint::from(EXPONENT);
    let private = exponent.modinv(&lcm(&p.order, &q.order))?;
    let numbers = [
        BigUint::ZERO,
        &p.number * &q.number,
        exponent,
        private.clone(),
        p.number.clone(),
        q.number.clone(),
        &private % &p.order,
        &private % &q.order,
        q.number.modinv(&p.number)?,
    ];
    let mut contents = Vec::new();
    for number in numbers {
        let octets = number.to_bytes_be();
        UintRef::new(&octets)
            .unwrap()
            .encode_to_vec(&mut contents)
            .unwrap();
    }
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    let der = [&[0x30, 0x82], &length[..], &contents].concat();
    let base64 = STANDARD.encode(der);
    let lines = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap());
    let body = lines.collect::<Vec<_>>().join("\n");
    Some(format!(
        "-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\n"
    ))
}

fn openssl(arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new("openssl");
    let output = command
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
