//! Requests for certificates, and the holders of the certificates.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// A request to the daemon, with its key.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) profile: String,
    pub(crate) id: String,
    pub(crate) csr: String,
    pub(crate) idempotency_key: String,
    pub(crate) key: String,
}

impl Request {
    /// A fresh P-256 key, and a CSR that names `id`.
    pub(crate) fn new(profile: &str, id: &str) -> Self {
        Self::named(profile, id, Some(id))
    }

    /// The same for a device.
    pub(crate) fn device(id: &str) -> Self {
        Self::new("device", id)
    }

    /// A CSR with `common_name` as its subject, or with an empty one.
    pub(crate) fn named(profile: &str, id: &str, common_name: Option<&str>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        Self::of(profile, id, csr, key.serialize_pem())
    }

    /// A key and CSR as openssl makes them: `openssl req -newkey ALGORITHM…`.
    pub(crate) fn by_openssl(id: &str, folder: &Path, algorithm: &[&str]) -> Self {
        let [key, csr] = ["openssl.key", "openssl.csr"].map(|name| folder.join(name));
        let mut command = Command::new("openssl");
        command.args(["req", "-nodes", "-sha256", "-newkey"]);
        command
            .args(algorithm)
            .arg("-subj")
            .arg(format!("/CN={id}"));
        command.arg("-keyout").arg(&key).arg("-out").arg(&csr);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let read = |path| std::fs::read_to_string(path).unwrap();
        Self::of("device", id, read(&csr), read(&key))
    }

    /// A request with this CSR.
    pub(crate) fn of(profile: &str, id: &str, csr: String, key: String) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Self {
            profile: profile.to_owned(),
            id: id.to_owned(),
            csr,
            idempotency_key: format!("request-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            key,
        }
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "profile": self.profile, "registration_id": self.id, "csr": self.csr })
    }

    /// The holder of the certificate in `answer`.
    pub(crate) fn holder(&self, answer: &Value) -> Holder {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let chain = answer["chain"].as_array().unwrap();
        Holder {
            id: self.id.clone(),
            key: self.key.clone(),
            certificate: text(&answer["certificate"]),
            chain: chain.iter().map(text).collect(),
            serial: text(&answer["serial"]),
            thumbprint: text(&answer["thumbprint"]),
        }
    }
}

/// A key, its certificate, and the chain to present with it.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) certificate: String,
    pub(crate) chain: Vec<String>,
    pub(crate) serial: String,
    pub(crate) thumbprint: String,
}

impl Holder {
    /// For a TLS client.
    pub(crate) fn identity(&self) -> reqwest::Identity {
        let pem = format!("{}{}{}", self.key, self.certificate, self.chain.concat());
        reqwest::Identity::from_pem(pem.as_bytes()).unwrap()
    }

    /// `openssl verify -x509_strict`: the leaf, over the chain, up to this root.
    pub(crate) fn is_accepted_by_openssl(&self, root: &str) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-CAfile"])
            .arg(write("root.pem", root))
            .arg("-untrusted")
            .arg(write("chain.pem", &self.chain.concat()))
            .arg(write("leaf.pem", &self.certificate))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// The one PEM block, as DER.
pub(crate) fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .unwrap()
        .1
        .contents
}
