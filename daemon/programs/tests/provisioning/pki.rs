//! A small hierarchy with keys in memory, as the factory's authority would make it.

use hallmarkd::enrollment::desired::SlotCertificate;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A certificate with its key.
pub(crate) struct Made {
    pub(crate) certificate: SlotCertificate,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Made {
    /// Key, certificate and the chain above, as PEM.
    pub(crate) fn identity(&self, above: &[&Made]) -> String {
        let chain = above.iter().map(|made| made.certificate.pem().unwrap());
        let chain: String = chain.collect();
        format!("{}{}{chain}", self.key_pem, self.certificate.pem().unwrap())
    }
}

pub(crate) fn authority(name: &str) -> Made {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    made(params, None)
}

pub(crate) fn leaf(name: &str, above: Option<&Made>) -> Made {
    made(named(name), above)
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn made(params: CertificateParams, above: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = match above {
        Some(above) => params.signed_by(&key, &above.issuer),
        None => params.self_signed(&key),
    };
    Made {
        certificate: SlotCertificate::new(certificate.unwrap().der().to_vec()),
        key_pem: key.serialize_pem(),
        issuer: Issuer::new(params, key),
    }
}
