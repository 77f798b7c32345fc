//! A relying party: fetches issuers and revocation lists over plain HTTP from the addresses in
//! certificates, and verifies with OpenSSL.

use crate::request::{Holder, der};
use crate::test_env::{PUBLIC_HTTP, TestEnv};
use reqwest::blocking::{Client, Response};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// It knows only the addresses in certificates.
pub(crate) struct Relying {
    pub(crate) http: Client,
    pub(crate) base: String,
}

impl Relying {
    pub(crate) fn on(env: &TestEnv) -> Self {
        let http = env.json(&["status"])["http"].as_str().unwrap().to_owned();
        Self {
            http: Client::builder().no_proxy().build().unwrap(),
            base: format!("http://{http}"),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.http
            .get(format!("{}{path}", self.base))
            .send()
            .unwrap()
    }

    pub(crate) fn fetch(&self, url: &str) -> Vec<u8> {
        let path = url.strip_prefix(PUBLIC_HTTP).expect("the public address");
        let answer = self.get(path);
        assert_eq!(answer.status(), 200, "{url}");
        answer.bytes().unwrap().to_vec()
    }

    pub(crate) fn crl(&self, name: &str) -> Vec<u8> {
        self.fetch(&format!("{PUBLIC_HTTP}/crl/{name}.crl"))
    }

    /// The number of a list, and the reason by serial number.
    pub(crate) fn listed(&self, name: &str) -> (u64, BTreeMap<String, u8>) {
        let der = self.crl(name);
        let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
        let number = list.crl_number().unwrap().to_string().parse().unwrap();
        let entries = list.iter_revoked_certificates().map(|it| {
            let reason = it.reason_code().map_or(0, |(_, code)| code.0);
            (hex::encode_upper(it.serial().to_bytes_be()), reason)
        });
        (number, entries.collect())
    }

    /// `openssl verify -crl_check_all`, over issuers and lists fetched from the addresses in the
    /// certificates, up to `root`.
    pub(crate) fn judge(&self, leaf: &Holder, root: &str) -> Result<(), String> {
        self.judge_by(leaf, root, None, false)
    }

    /// The same with the delta lists that these lists name (RFC 5280 5.2.6).
    pub(crate) fn judge_with_deltas(&self, leaf: &Holder, root: &str) -> Result<(), String> {
        self.judge_by(leaf, root, None, true)
    }

    /// The same by another list for the leaf, if one is named.
    pub(crate) fn judge_by(
        &self,
        leaf: &Holder,
        root: &str,
        mut own_list: Option<&str>,
        with_deltas: bool,
    ) -> Result<(), String> {
        let (mut issuers, mut lists) = (String::new(), String::new());
        let mut certificate = der(&leaf.certificate);
        while let Some((crl_url, issuer_url)) = points_to(&certificate) {
            let list = self.fetch(own_list.take().unwrap_or(&crl_url));
            if let Some(delta) = freshest(&list).filter(|_| with_deltas) {
                lists += &pem("crl", &self.fetch(&delta));
            }
            lists += &pem("crl", &list);
            certificate = self.fetch(&issuer_url);
            issuers += &pem("x509", &certificate);
        }
        // Without the second flag OpenSSL takes a delta list for a complete one.
        let flags = ["-use_deltas", "-extended_crl"];
        let flags = &flags[..if with_deltas { 2 } else { 0 }];
        verify(flags, root, [&issuers, &lists, &leaf.certificate])
    }

    /// The same where the path ends with `cross`, the certificate of the leaf's root by another
    /// root, whose list counts, too. OpenSSL prefers a self-signed certificate, and then finds no
    /// way, so that of the leaf's own root is left out.
    pub(crate) fn judge_over(&self, leaf: &Holder, cross: &[u8], root: &str) -> Result<(), String> {
        let mut issuers = pem("x509", cross);
        let (list, _) = points_to(cross).expect("it names its list");
        let mut lists = pem("crl", &self.fetch(&list));
        let mut certificate = der(&leaf.certificate);
        while let Some((crl_url, issuer_url)) = points_to(&certificate) {
            lists += &pem("crl", &self.fetch(&crl_url));
            certificate = self.fetch(&issuer_url);
            if points_to(&certificate).is_some() {
                issuers += &pem("x509", &certificate);
            }
        }
        verify(&[], root, [&issuers, &lists, &leaf.certificate])
    }
}

/// `openssl verify -x509_strict -crl_check_all` of issuers, lists and leaf.
fn verify(flags: &[&str], root: &str, [issuers, lists, leaf]: [&String; 3]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("root", root),
        ("issuers", issuers),
        ("lists", lists),
        ("leaf", leaf),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-crl_check_all"])
        .args(flags)
        .args(["-CAfile", "root", "-untrusted", "issuers"])
        .args(["-CRLfile", "lists", "leaf"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// The address of the delta list that a list names. OpenSSL shows it.
fn freshest(list: &[u8]) -> Option<String> {
    let text = text(list);
    let (_, after) = text.split_once("X509v3 Freshest CRL:")?;
    let (_, url) = after.split_once("URI:")?;
    Some(url.split_whitespace().next()?.to_owned())
}

/// `openssl crl -text` of a list in DER.
pub(crate) fn text(list: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), list).unwrap();
    let mut command = Command::new("openssl");
    command.args(["crl", "-inform", "DER", "-noout", "-text", "-in"]);
    let output = command.arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The addresses in a certificate of its issuer's list and certificate.
pub(crate) fn points_to(der: &[u8]) -> Option<(String, String)> {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let (mut crl, mut issuer) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(points) => {
                let name = points.iter().find_map(|it| it.distribution_point.as_ref());
                if let Some(DistributionPointName::FullName(names)) = name {
                    crl = names.iter().find_map(uri);
                }
            }
            ParsedExtension::AuthorityInfoAccess(access) => {
                issuer = access
                    .accessdescs
                    .iter()
                    .find_map(|it| uri(&it.access_location));
            }
            _ => {}
        }
    }
    crl.zip(issuer)
}

fn uri(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    }
}

/// `openssl crl` or `openssl x509`: DER in, PEM out.
pub(crate) fn pem(kind: &str, der: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), der).unwrap();
    let mut command = Command::new("openssl");
    command
        .args([kind, "-inform", "DER", "-in"])
        .arg(file.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
