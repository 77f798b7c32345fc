//! A client of EST as in a gateway's shell script: curl sends, and OpenSSL reads the answers.

use crate::process::CommandOutput;
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A client of EST, with a folder for its files.
pub(crate) struct EstClient<'a> {
    pub(crate) env: &'a TestEnv,
    /// The certificate that the client presents.
    holder: Option<&'a Holder>,
}

/// The answer that curl received.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: String,
    pub(crate) content_type: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        document["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl<'a> EstClient<'a> {
    pub(crate) fn of(env: &'a TestEnv, holder: &'a Holder) -> Self {
        let holder = Some(holder);
        Self { env, holder }
    }

    /// A client that has no certificate.
    pub(crate) fn stranger(env: &'a TestEnv) -> Self {
        Self { env, holder: None }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        self.env.write(&format!("est-{name}"), text)
    }

    pub(crate) fn curl(&self, operation: &str) -> Command {
        let base = self.env.https();
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--dump-header", "-", "--cacert"]);
        command.arg(self.file("root.pem", &self.env.authority("root")));
        if let Some(holder) = self.holder {
            let chain = holder.certificate.clone() + &holder.chain.concat();
            let name = format!("{}.pem", holder.id);
            command.arg("--cert").arg(self.file(&name, &chain));
            let name = format!("{}.key", holder.id);
            command.arg("--key").arg(self.file(&name, &holder.key));
        }
        command.arg(format!("{base}/.well-known/est/{operation}"));
        command
    }

    pub(crate) fn get(&self, operation: &str) -> Answer {
        answer(&mut self.curl(operation))
    }

    /// The certificates of an answer, in its order.
    pub(crate) fn certificates(&self, operation: &str) -> Vec<String> {
        print_certificates(self.env, &self.get(operation).body)
    }

    /// Posts a body unchanged.
    pub(crate) fn post(&self, operation: &str, body: &[u8]) -> Answer {
        let file = self.env.path("est-body");
        fs::write(&file, body).unwrap();
        let mut command = self.curl(operation);
        command.args(["--header", "content-type: application/pkcs10"]);
        command.arg("--data-binary");
        answer(command.arg(format!("@{}", file.display())))
    }

    /// Requests a certificate as in RFC 8951, which must be issued.
    pub(crate) fn obtain(&self, operation: &str, request: &Request) -> Holder {
        let answer = self.post(operation, STANDARD.encode(der(&request.csr)).as_bytes());
        assert_eq!(answer.status, "200", "{answer:?}");
        assert_eq!(
            answer.content_type,
            "application/pkcs7-mime; smime-type=certs-only"
        );
        let certificates = print_certificates(self.env, &answer.body);
        let [certificate] = &certificates[..] else {
            panic!("exactly the certificate: {certificates:?}");
        };
        // A client presents them as they come.
        let chain = self.certificates("device/cacerts");
        Holder {
            id: request.id.clone(),
            key: request.key.clone(),
            certificate: certificate.clone(),
            chain,
            serial: String::new(),
            thumbprint: String::new(),
        }
    }
}

pub(crate) fn answer(command: &mut Command) -> Answer {
    let output = CommandOutput::of(command);
    assert_eq!(output.code, Some(0), "{output:?}");
    let out = output.out.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    let (head, body) = out.split_once("\r\n\r\n").unwrap();
    let content_type = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "));
    Answer {
        status: head.split(' ').nth(1).unwrap().to_owned(),
        content_type: content_type.unwrap_or_default().to_owned(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub(crate) fn openssl(arguments: &[&str]) -> String {
    let output = CommandOutput::of(Command::new("openssl").args(arguments));
    assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
    output.out
}

/// `openssl base64 -d`; returns the path of the DER file.
pub(crate) fn decoded(env: &TestEnv, base64: &str) -> String {
    let text = env.write("est.base64", base64);
    let der = env.path("est.der").to_str().unwrap().to_owned();
    openssl(&["base64", "-d", "-in", text.to_str().unwrap(), "-out", &der]);
    der
}

/// `openssl pkcs7 -print_certs`: one PEM for each.
pub(crate) fn print_certificates(env: &TestEnv, base64: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let der = decoded(env, base64);
    let printed = openssl(&["pkcs7", "-inform", "DER", "-in", &der, "-print_certs"]);
    let certificates = printed.split(BEGIN).skip(1);
    certificates
        .map(|rest| {
            let (body, _) = rest.split_once("-----END").unwrap();
            format!("{BEGIN}{body}-----END CERTIFICATE-----\n")
        })
        .collect()
}

/// Subject and issuer of a certificate.
fn names(pem: &str) -> (String, String) {
    let der = der(pem);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    (parsed.subject().to_string(), parsed.issuer().to_string())
}

/// The certificates of `cacerts`, in its order.
pub(crate) fn authorities(env: &TestEnv, label: &str) -> Vec<String> {
    print_certificates(env, &env.get(&format!("/.well-known/est/{label}/cacerts")))
}

/// Asserts that each certificate comes before its issuer.
pub(crate) fn is_in_chain_order(certificates: &[String]) {
    for (place, pem) in certificates.iter().enumerate() {
        let (subject, issuer) = names(pem);
        let before = &certificates[..place];
        let early = before.iter().find(|it| names(it).0 == issuer);
        assert!(subject == issuer || early.is_none(), "{certificates:?}");
    }
}
