//! A small hierarchy made with rcgen: what the factory's authority would make.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// A certificate with its key.
pub(crate) struct Made {
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
    pub(crate) key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Made {
    pub(crate) fn sha256(&self) -> String {
        hex::encode_upper(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            &self.der,
        ))
    }
}

fn made(mut params: CertificateParams, above: Option<&Made>, days: i64) -> Made {
    let key = KeyPair::generate().unwrap();
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
    let serial: [u8; 8] = rand_bytes();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
    let certificate = match above {
        Some(above) => params.signed_by(&key, &above.issuer),
        None => params.self_signed(&key),
    };
    let certificate = certificate.unwrap();
    Made {
        pem: certificate.pem(),
        der: certificate.der().to_vec(),
        key_pem: key.serialize_pem(),
        issuer: Issuer::new(params, key),
    }
}

fn rand_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes[0] = 0x11;
    bytes
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Factory");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// An authority, self-signed or below another one.
pub(crate) fn authority(name: &str, above: Option<&Made>) -> Made {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    made(params, above, 3650)
}

/// A leaf for 30 days, below an authority or self-signed.
pub(crate) fn leaf(name: &str, above: Option<&Made>) -> Made {
    made(named(name), above, 30)
}
