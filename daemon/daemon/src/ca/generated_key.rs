//! Makes a key pair for the holder of a leaf, and writes it into a file for this holder.
//!
//! The private key is never stored, logged or sent elsewhere: it exists from here to the end of one
//! answer. Every buffer with it that is made here or in `api` is overwritten when it is dropped,
//! the body of the answer once it was sent. HTTP and TLS copy bodies, also of a request with a
//! password, into memory of their own, which is not overwritten.

use super::issuer::issue::Issued;
use super::{Code, Error};
use crate::der_bytes::Der;
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::key_file::{FileMac, KeyEncryption, authenticated_safe, encrypted_key, pkcs12};
use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use aws_lc_rs::{hmac, pbkdf2, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// The count of PBKDF2, and of the derivation for the MAC of PKCS #12: an attacker who has the file
/// tries passwords against the weaker of both.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).unwrap();
/// Lengths of a password. Other characters than those of ASCII are read in different ways.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=128;
/// The most that the padding of AES adds.
const BLOCK_BYTES: usize = 16;
/// The block of SHA-256, `v` in RFC 7292 B.2.
const HASHED_BLOCK_BYTES: usize = 64;
/// Characters of a line of PEM (RFC 7468 2).
const PEM_COLUMNS: usize = 64;

/// The form of a file with a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyFormat {
    /// PKCS #8 as PEM: EncryptedPrivateKeyInfo, or PrivateKeyInfo without a password.
    Pkcs8,
    /// PKCS #12 with the certificate and its chain.
    Pkcs12,
}

/// How a generated key is handed over.
pub struct Handover {
    format: KeyFormat,
    password: Option<SecretString>,
}

impl Handover {
    /// Returns how the key is encrypted by a password.
    pub fn encrypted(format: KeyFormat, password: SecretString) -> Result<Self, Error> {
        let text = password.expose_secret();
        let fits = PASSWORD_BYTES.contains(&text.len());
        if !fits || !text.bytes().all(|it| it.is_ascii_graphic() || it == b' ') {
            let message = "a password for a generated key has 8 to 128 characters of ASCII: \
                           programs read others in different ways";
            return Err(Error::invalid(Code::KeyGenerationInvalid, message));
        }
        Ok(Self {
            format,
            password: Some(password),
        })
    }

    /// Returns that the key is not encrypted: the connection protects it, and whatever keeps it.
    pub fn in_the_clear(format: KeyFormat) -> Result<Self, Error> {
        if format == KeyFormat::Pkcs12 {
            let message = "a PKCS #12 file is encrypted by a password; give one, or use pkcs8";
            return Err(Error::invalid(Code::KeyGenerationInvalid, message));
        }
        Ok(Self {
            format,
            password: None,
        })
    }
}

/// A key pair that was made for a holder.
pub struct GeneratedKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public_key: PublicKey,
}

/// A generated key, ready for its file. It was encrypted before the certificate is signed.
pub struct SealedKey {
    format: KeyFormat,
    /// PKCS #8, encrypted or not.
    key: Zeroizing<Vec<u8>>,
    mac: Option<MacKey>,
}

/// The key of the MAC of a PKCS #12 file.
struct MacKey {
    salt: [u8; 16],
    key: hmac::Key,
}

/// The content of a file with a private key.
pub struct KeyFile {
    pub format: KeyFormat,
    /// PEM of PKCS #8, base64 of PKCS #12.
    pub content: Zeroizing<String>,
}

impl GeneratedKey {
    /// Makes a key pair. RSA keys take seconds.
    pub fn generate(key_type: KeyType) -> Result<Self, Error> {
        let rsa = |size| exported(&RsaKeyPair::generate(size)?);
        let made = match key_type {
            KeyType::P256 => ec(&ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyType::P384 => ec(&ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyType::P521 => ec(&ECDSA_P521_SHA512_ASN1_SIGNING),
            KeyType::Ed25519 => Ed25519KeyPair::generate().and_then(|it| exported(&it)),
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyType::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
        };
        let (pkcs8, spki) = made.map_err(failed)?;
        let public_key = PublicKey::from_spki_der(&spki)
            .map_err(|error| Error::stop(Code::NotEncodable, error.to_string()))?;
        Ok(Self { pkcs8, public_key })
    }

    /// Returns the public key, which is certified.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Returns the key as PKCS #8 without encryption, in lines of base64.
    pub fn base64_lines(&self) -> Zeroizing<String> {
        base64_lines(&self.pkcs8)
    }

    /// Encrypts the key as it is handed over. Takes a second.
    pub fn seal(self, handover: &Handover) -> Result<SealedKey, Error> {
        let format = handover.format;
        let Some(password) = &handover.password else {
            return Ok(SealedKey {
                format,
                key: self.pkcs8,
                mac: None,
            });
        };
        let key = encrypt(&self.pkcs8, password)?;
        let mac = (format == KeyFormat::Pkcs12).then(|| MacKey::derive(password));
        Ok(SealedKey {
            format,
            key: Zeroizing::new(key.into()),
            mac: mac.transpose()?,
        })
    }
}

impl SealedKey {
    /// Returns the file of the key, whose certificate was issued.
    pub fn file(self, issued: &Issued) -> Result<KeyFile, Error> {
        let format = self.format;
        let content = match (format, self.mac) {
            (KeyFormat::Pkcs12, Some(mac)) => {
                let key = Der::from(&self.key[..]);
                let above = issued.chain.iter().map(|it| it.certificate.der());
                let all: Vec<&Der> = [issued.certificate.der()]
                    .into_iter()
                    .chain(above)
                    .collect();
                let file = authenticated_safe(&key, &all, &issued.subject)
                    .and_then(|safe| pkcs12(&safe, &mac.over(&safe)))
                    .map_err(|error| Error::stop(Code::AnswerUnencodable, error.to_string()))?;
                STANDARD.encode(&*file).into()
            }
            (_, _) => pem(&self.key, is_encrypted(&self.key)),
        };
        Ok(KeyFile { format, content })
    }
}

/// An EncryptedPrivateKeyInfo begins with a SEQUENCE, a PrivateKeyInfo with an INTEGER (RFC 5958).
fn is_encrypted(pkcs8: &[u8]) -> bool {
    const INTEGER: u8 = 0x02;
    let length_octets = match pkcs8.get(1) {
        Some(first @ 0x80..) => usize::from(first & 0x7f),
        _ => 0,
    };
    pkcs8.get(2 + length_octets) != Some(&INTEGER)
}

fn pem(pkcs8: &[u8], encrypted: bool) -> Zeroizing<String> {
    let label = if encrypted {
        "ENCRYPTED PRIVATE KEY"
    } else {
        "PRIVATE KEY"
    };
    let lines = base64_lines(pkcs8);
    let mut text = Zeroizing::new(String::with_capacity(lines.len() + 128));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    text.push_str(&lines);
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn base64_lines(pkcs8: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(pkcs8));
    let mut lines = Zeroizing::new(String::with_capacity(2 * base64.len()));
    for line in base64.as_bytes().chunks(PEM_COLUMNS) {
        lines.extend(line.iter().copied().map(char::from));
        lines.push('\n');
    }
    lines
}

impl MacKey {
    /// RFC 7292 B.2 with SHA-256, which gives the whole key at once.
    fn derive(password: &SecretString) -> Result<Self, Error> {
        /// The purpose of the derived bytes (B.3).
        const OF_MAC: u8 = 3;
        let salt: [u8; 16] = random()?;
        // B.1: two octets for each character, and two of zero behind the last.
        let text = password.expose_secret().bytes();
        let wide: Zeroizing<Vec<u8>> =
            Zeroizing::new(text.flat_map(|it| [0, it]).chain([0, 0]).collect());
        let blocks = wide.len().div_ceil(HASHED_BLOCK_BYTES) * HASHED_BLOCK_BYTES;
        let mut input = Zeroizing::new(Vec::with_capacity(2 * HASHED_BLOCK_BYTES + blocks));
        input.extend([OF_MAC; HASHED_BLOCK_BYTES]);
        input.extend(salt.iter().cycle().take(HASHED_BLOCK_BYTES));
        input.extend(wide.iter().cycle().take(blocks));
        let mut hashed = digest(&SHA256, &input);
        for _ in 1..ITERATIONS.get() {
            hashed = digest(&SHA256, hashed.as_ref());
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, hashed.as_ref());
        Ok(Self { salt, key })
    }

    fn over(&self, safe: &Der) -> FileMac {
        let tag = hmac::sign(&self.key, safe);
        let mut mac = [0; 32];
        mac.copy_from_slice(tag.as_ref());
        FileMac {
            salt: self.salt,
            iterations: ITERATIONS.get(),
            mac,
        }
    }
}

fn encrypt(pkcs8: &[u8], password: &SecretString) -> Result<Der, Error> {
    let by = KeyEncryption {
        salt: random()?,
        iterations: ITERATIONS.get(),
        iv: random()?,
    };
    let mut key = Zeroizing::new([0; 32]);
    let secret = password.expose_secret().as_bytes();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ITERATIONS,
        &by.salt,
        secret,
        &mut *key,
    );
    // With room for the padding, so that the key is not copied.
    let mut bytes = Zeroizing::new(Vec::with_capacity(pkcs8.len() + BLOCK_BYTES));
    bytes.extend_from_slice(pkcs8);
    let cipher = UnboundCipherKey::new(&AES_256, &*key);
    let cipher = cipher.and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
    let context = EncryptionContext::Iv128(FixedLength::from(by.iv));
    cipher
        .and_then(|it| it.less_safe_encrypt(&mut *bytes, context))
        .map_err(failed)?;
    encrypted_key(&by, &bytes)
        .map_err(|error| Error::stop(Code::AnswerUnencodable, error.to_string()))
}

/// A private key as PKCS #8, and its public key as DER.
type Exported = (Zeroizing<Vec<u8>>, Vec<u8>);

fn exported<K>(pair: &K) -> Result<Exported, Unspecified>
where
    K: KeyPair + AsDer<Pkcs8V1Der<'static>>,
    K::PublicKey: AsDer<PublicKeyX509Der<'static>>,
{
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(pair)?;
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?;
    Ok((
        Zeroizing::new(pkcs8.as_ref().to_vec()),
        spki.as_ref().to_vec(),
    ))
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Result<Exported, Unspecified> {
    let pair = EcdsaKeyPair::generate(algorithm)?;
    let pkcs8 = pair.to_pkcs8v1()?;
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?;
    Ok((
        Zeroizing::new(pkcs8.as_ref().to_vec()),
        spki.as_ref().to_vec(),
    ))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn failed(_: Unspecified) -> Error {
    Error::stop(
        Code::RandomSource,
        "no key can be made: the system's random source failed",
    )
}
