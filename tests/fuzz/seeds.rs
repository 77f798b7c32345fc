//! Makes good input of every kind, from which the fuzz targets begin.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hallmark_pki::x509::certificate::Certificate;
use hallmark_pki::x509::key::PublicKey;
use hallmark_pki::x509::profile::Preset;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, GeneralSubtree,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use std::fs;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cases/csr");

const ALGORITHMS: [&rcgen::SignatureAlgorithm; 5] = [
    &rcgen::PKCS_ECDSA_P256_SHA256,
    &rcgen::PKCS_ECDSA_P384_SHA384,
    &rcgen::PKCS_ECDSA_P521_SHA512,
    &rcgen::PKCS_RSA_SHA256,
    &rcgen::PKCS_ED25519,
];

fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn parameters(name: &str) -> CertificateParams {
    let names = vec!["press-7.example".to_owned(), "192.0.2.7".to_owned()];
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
        .distinguished_name
        .push(DnType::OrganizationName, "Käfer Works");
    let uri = "urn:example:7".try_into().unwrap();
    parameters.subject_alt_names.push(SanType::URI(uri));
    parameters
}

/// A root with everything that an authority's certificate may have.
fn root() -> (CertificateParams, KeyPair) {
    let mut parameters = parameters("Example Root");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example".to_owned())],
        excluded_subtrees: vec![GeneralSubtree::Rfc822Name("mail.example".to_owned())],
    });
    (parameters, key(&rcgen::PKCS_ECDSA_P256_SHA256))
}

/// PEM and DER of both.
fn in_each_form(pem: &str, der: &[u8]) -> [Vec<u8>; 3] {
    [pem.into(), der.to_vec(), STANDARD.encode(der).into_bytes()]
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    let made = ALGORITHMS.into_iter().flat_map(|algorithm| {
        let request = parameters("press-7").serialize_request(&key(algorithm));
        let request = request.unwrap();
        in_each_form(&request.pem().unwrap(), request.der())
    });
    let files = fs::read_dir(CASES).unwrap();
    let met = files.map(|file| fs::read(file.unwrap().path()).unwrap());
    made.chain(met).collect()
}

fn chain() -> Vec<rcgen::Certificate> {
    let (parameters_of_root, key_of_root) = root();
    let root = parameters_of_root.self_signed(&key_of_root).unwrap();
    let issuer = Issuer::from_params(&parameters_of_root, &key_of_root);
    let leaves = ALGORITHMS.into_iter().map(|algorithm| {
        let leaf = parameters("press-7").signed_by(&key(algorithm), &issuer);
        leaf.unwrap()
    });
    leaves.chain([root]).collect()
}

pub(crate) fn certificates() -> Vec<Vec<u8>> {
    chain().iter().map(|it| it.der().to_vec()).collect()
}

pub(crate) fn certificate_files() -> Vec<Vec<u8>> {
    let chain = chain();
    let all: String = chain.iter().map(rcgen::Certificate::pem).collect();
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256).serialize_pem();
    let each = chain
        .iter()
        .flat_map(|it| in_each_form(&it.pem(), it.der()));
    each.chain([all.clone().into(), (key + &all).into()])
        .collect()
}

pub(crate) fn public_keys() -> Vec<Vec<u8>> {
    let certificates = certificates();
    let keys = certificates.iter().map(|it| {
        let certificate = Certificate::parse(it).unwrap();
        certificate.spki_der().to_vec()
    });
    keys.collect()
}

/// The name and the key of an issuer, and its lists.
pub(crate) fn revocation_lists() -> (Vec<u8>, PublicKey, Vec<Vec<u8>>) {
    let (parameters, key) = root();
    let certificate = parameters.self_signed(&key).unwrap();
    let certificate = Certificate::parse(certificate.der()).unwrap();
    let issuer = Issuer::from_params(&parameters, &key);
    let lists = [0, 3].into_iter().flat_map(|revoked| {
        let entry = |number: u8| RevokedCertParams {
            serial_number: SerialNumber::from(vec![1, number]),
            revocation_time: date_time_ymd(2026, 11, 30),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 11, 30),
            next_update: date_time_ymd(2026, 12, 30),
            crl_number: SerialNumber::from(vec![7]),
            issuing_distribution_point: None,
            revoked_certs: (0..revoked).map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).unwrap();
        in_each_form(&list.pem().unwrap(), list.der())
    });
    let lists = lists.collect();
    let key = certificate.public_key().unwrap();
    (certificate.subject_der().to_vec(), key, lists)
}

pub(crate) fn indexes() -> Vec<Vec<u8>> {
    let lines = "V\t271231235959Z\t\t01\tunknown\t/CN=press-1\n\
                 R\t20521231235959Z\t260102030405Z,keyCompromise\tFF01\tunknown\t/CN=press-3\n\
                 E\t200101000000Z\t\t0A\tunknown\t/C=DE/CN=press\\/4\n";
    vec![lines.into(), format!("\u{feff}{lines}").into()]
}

/// Requests of `openssl ocsp`, with a nonce and without one, and for two certificates.
pub(crate) fn ocsp_requests() -> Vec<Vec<u8>> {
    let certificate = "303f303d303b300906052b0e03021a05000414424ef3366d8b17e4f9865ea7849fe1\
                       02bad1a82e04149849887146b02a575e7863ada70009329c37a71e02024001";
    let nonce = "a2233021301f06092b0601050507300102041204105c8f3bd17d98e2586cd7a8195dd12c58";
    let with_nonce = format!("30683066{certificate}{nonce}");
    let without = format!("30433041{certificate}");
    let single = certificate.strip_prefix("303f").unwrap();
    let for_two = format!("308183308180307e{single}{single}");
    [with_nonce, without, for_two]
        .map(|it| hex::decode(it).unwrap())
        .to_vec()
}

pub(crate) fn profiles() -> Vec<Vec<u8>> {
    let presets = Preset::ALL.into_iter();
    let whole = presets.map(|it| toml::to_string(&it.profile()).unwrap().into_bytes());
    let full = "preset = \"idevid\"\nvalidity = \"90d\"\nwhole_days = true\nbackdate = \"1h\"\n\
                extended_key_usage = [\"client_auth\", \"1.3.6.1.5.5.7.3.21\"]\n\
                certificate_policies = [{ oid = \"1.3.6.1.4.1.1\", cps = \"https://a.example\" }]\n\
                subject = { organization = \"{line}\", serial_number = \"{csr.serial_number}\" }\n\
                [subject_alternative_names]\nrequest = [\"dns\", \"ip\"]\n\
                dns = [\"{id}.example\"]\nuri = [\"urn:x:{id}:{date}\"]\n\
                hardware_module = { type = \"1.3.6\", serial = \"{id}\" }\n\
                [[extension]]\noid = \"1.3.6.1.4.1.32473.4\"\nder = \"3003020105\"\n";
    whole.chain([full.into()]).collect()
}
