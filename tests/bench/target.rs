//! A server under load: where it listens, how it is asked for a certificate, and how its answer is
//! read.

use crate::http::parts;
use crate::process::CpuTime;
use anyhow::{Context, bail, ensure};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::{Decode, Reader, SliceReader};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The profile of Hallmark that the load names.
pub(crate) const PROFILE: &str = "device";

/// How a server is asked.
#[derive(Clone)]
pub(crate) enum Api {
    Hallmark,
    /// This many requests in one body.
    Batch(usize),
    Est,
    Cfssl,
    /// With a token of its root.
    OpenBao(String),
    Prototype,
}

#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) api: Api,
    /// The certificate of the authority that signs.
    pub(crate) authority: CertificateDer<'static>,
    /// Its processes.
    pub(crate) processes: Vec<u32>,
    /// Requests take turns over this many names; without it each has another one.
    pub(crate) devices: Option<usize>,
}

/// The holder of a key that wants a certificate.
pub(crate) struct Subject {
    id: String,
    public_key: Vec<u8>,
}

/// A request, ready to be sent, and the subjects that it is for.
pub(crate) struct Prepared {
    pub(crate) bytes: Vec<u8>,
    pub(crate) subjects: Vec<Subject>,
}

impl Target {
    /// A path that answers at once.
    pub(crate) fn warm_up(&self) -> &'static str {
        match self.api {
            Api::OpenBao(_) => "/v1/sys/health",
            _ => "/",
        }
    }

    /// How many certificates one request asks for.
    pub(crate) fn certificates_per_request(&self) -> usize {
        match self.api {
            Api::Batch(count) => count,
            _ => 1,
        }
    }

    pub(crate) fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        CpuTime::of(&self.processes)
    }

    /// Makes a request with keys and names that were never used before.
    pub(crate) fn prepare(&self, number: usize) -> anyhow::Result<Prepared> {
        let prefix = self.name.replace([' ', ','], "-");
        let each = self.certificates_per_request();
        let mut subjects = Vec::new();
        let mut requests = Vec::new();
        for certificate in number * each..(number + 1) * each {
            let device = self
                .devices
                .map_or(certificate, |count| certificate % count);
            let (subject, csr) = Subject::new(format!("{prefix}-{device:07}"))?;
            subjects.push(subject);
            requests.push(csr);
        }
        let bytes = self.request(&subjects, &requests)?;
        Ok(Prepared { bytes, subjects })
    }

    fn request(
        &self,
        subjects: &[Subject],
        requests: &[rcgen::CertificateSigningRequest],
    ) -> anyhow::Result<Vec<u8>> {
        let (id, csr) = (&subjects[0].id, &requests[0]);
        let json_type = "content-type: application/json\r\n";
        let post = |path: &str, head: &str, body: &[u8]| {
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\n{head}content-length: {length}\r\n\r\n"
            );
            [head.as_bytes(), body].concat()
        };
        Ok(match &self.api {
            Api::Hallmark => {
                let key = uuid();
                let body = json!({ "profile": PROFILE, "registration_id": id, "csr": csr.pem()? });
                let head = format!("{json_type}idempotency-key: {key}\r\n");
                post("/v1/certificates", &head, body.to_string().as_bytes())
            }
            Api::Batch(_) => {
                let items = subjects.iter().zip(requests).map(|(subject, csr)| {
                    Ok(json!({
                        "profile": PROFILE, "registration_id": subject.id, "csr": csr.pem()?,
                        "idempotency_key": uuid(),
                    }))
                });
                let items = items.collect::<anyhow::Result<Vec<Value>>>()?;
                let body = json!({ "items": items }).to_string();
                post("/v1/certificates:batch", json_type, body.as_bytes())
            }
            Api::Est => {
                let path = format!("/.well-known/est/{PROFILE}/simpleenroll");
                let head = "content-type: application/pkcs10\r\n";
                post(&path, head, STANDARD.encode(csr.der()).as_bytes())
            }
            Api::Cfssl => {
                let body = json!({ "certificate_request": csr.pem()?, "hosts": [id] });
                let body = body.to_string();
                post("/api/v1/cfssl/sign", json_type, body.as_bytes())
            }
            Api::OpenBao(token) => {
                let body = json!({ "csr": csr.pem()?, "common_name": id }).to_string();
                let head = format!("{json_type}x-vault-token: {token}\r\n");
                post("/v1/pki/sign/device", &head, body.as_bytes())
            }
            Api::Prototype => post("/issue", "", csr.der()),
        })
    }

    /// Returns the serial numbers of the certificates in an answer. Each is signed by the
    /// authority, for the key and the name of its subject.
    pub(crate) fn judge(
        &self,
        answer: &[u8],
        subjects: &[Subject],
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        let certificates = self.certificates(answer).with_context(|| {
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(600)]);
            format!("{}: {}: {shown}", self.name, subjects[0].id)
        })?;
        ensure!(
            certificates.len() == subjects.len(),
            "another number of certificates"
        );
        let judged = certificates.iter().zip(subjects);
        judged
            .map(|(der, subject)| subject.judge(der, &self.authority))
            .collect()
    }

    fn certificates(&self, answer: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
        let (status, body) = parts(answer)?;
        let expected = if matches!(self.api, Api::Hallmark) {
            201
        } else {
            200
        };
        ensure!(status == expected, "status {status}");
        let json = || Ok::<Value, anyhow::Error>(serde_json::from_slice(&body)?);
        Ok(match &self.api {
            Api::Hallmark => vec![from_pem(&json()?["certificate"])?],
            Api::Batch(_) => {
                let json = json()?;
                let items = json["items"].as_array().context("no items")?.iter();
                let issued = items.map(|it| from_pem(&it["issued"]["certificate"]));
                issued.collect::<anyhow::Result<_>>()?
            }
            Api::Est => {
                let text: Vec<u8> = body
                    .into_iter()
                    .filter(|it| !it.is_ascii_whitespace())
                    .collect();
                vec![only_certificate(&STANDARD.decode(text)?)?]
            }
            Api::Cfssl => vec![from_pem(&json()?["result"]["certificate"])?],
            Api::OpenBao(_) => vec![from_pem(&json()?["data"]["certificate"])?],
            Api::Prototype => vec![body],
        })
    }
}

fn uuid() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes);
    hex::encode(bytes)
}

fn from_pem(value: &Value) -> anyhow::Result<Vec<u8>> {
    let pem = value.as_str().context("no certificate")?;
    Ok(CertificateDer::from_pem_slice(pem.as_bytes())?.to_vec())
}

/// Returns the certificate of a certs-only answer (RFC 7030, section 4.2.3; RFC 5652, section 5.1).
fn only_certificate(cms: &[u8]) -> anyhow::Result<Vec<u8>> {
    let [_, content] = elements(cms)?[..] else {
        bail!("no content");
    };
    let signed_data = elements(content)?;
    let [signed_data] = signed_data[..] else {
        bail!("no signed data");
    };
    let fields = elements(signed_data)?;
    let certificates = fields.iter().find(|it| it.first() == Some(&0xa0));
    let certificates = elements(certificates.context("no certificates")?)?;
    let [certificate] = certificates[..] else {
        bail!("not one certificate");
    };
    Ok(certificate.to_vec())
}

/// The elements within a DER element.
fn elements(der: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    let outer = der::asn1::AnyRef::from_der(der)?;
    let mut reader = SliceReader::new(outer.value())?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(reader.tlv_bytes()?);
    }
    Ok(parts)
}

impl Subject {
    fn new(id: String) -> anyhow::Result<(Self, rcgen::CertificateSigningRequest)> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, &id);
        let csr = parameters.serialize_request(&key)?;
        let public_key = key.der_bytes().to_vec();
        Ok((Self { id, public_key }, csr))
    }

    fn judge(&self, der: &[u8], authority: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (_, authority) = X509Certificate::from_der(authority)?;
        let (_, certificate) = X509Certificate::from_der(der)?;
        let key = authority.public_key();
        let algorithm: &dyn VerificationAlgorithm = match key.parsed()? {
            x509_parser::public_key::PublicKey::RSA(_) => &RSA_PKCS1_2048_8192_SHA256,
            _ => &ECDSA_P256_SHA256_ASN1,
        };
        UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
            .verify(
                certificate.tbs_certificate.as_ref(),
                &certificate.signature_value.data,
            )
            .ok()
            .with_context(|| format!("{}: the authority has not signed this", self.id))?;
        let names = certificate.subject().iter_common_name();
        let names: Vec<_> = names.filter_map(|name| name.as_str().ok()).collect();
        ensure!(
            names == [self.id.as_str()],
            "a certificate for {names:?}, not {}",
            self.id
        );
        ensure!(
            certificate.public_key().subject_public_key.data == self.public_key,
            "{}: another key was certified",
            self.id
        );
        Ok(certificate.raw_serial().to_vec())
    }
}
