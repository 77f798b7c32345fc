//! One kept-alive connection, over plain HTTP or TLS, of which the test reads every byte and the
//! end.

use crate::process::SOON;
use crate::request::{Holder, der};
use crate::test_env::TestEnv;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

pub(crate) struct KeepAlive {
    stream: BufReader<Box<dyn Stream>>,
    /// DER of the certificate that the daemon presented.
    pub(crate) presented: Vec<u8>,
}

pub(crate) trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// The head of an answer, in lower case; its body was read.
#[derive(Debug)]
pub(crate) struct Head(String);

impl KeepAlive {
    pub(crate) fn open(env: &TestEnv) -> Self {
        let address = env.json(&["status"])["http"].as_str().unwrap().to_owned();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self {
            stream: BufReader::new(Box::new(stream)),
            presented: Vec::new(),
        }
    }

    /// Over TLS, as `holder`.
    pub(crate) fn secured(env: &TestEnv, holder: &Holder) -> Self {
        Self::try_secured(env, holder).unwrap()
    }

    /// The same, if the daemon completes the handshake.
    pub(crate) fn try_secured(env: &TestEnv, holder: &Holder) -> io::Result<Self> {
        let address = env.https().replace("https://", "");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        let config = client_config(&env.authority("root"), holder);
        let name = "localhost".try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let presented = connection.peer_certificates().unwrap()[0].to_vec();
        let stream: Box<dyn Stream> = Box::new(StreamOwned::new(connection, stream));
        Ok(Self {
            stream: BufReader::new(stream),
            presented,
        })
    }

    pub(crate) fn get(&mut self, path: &str) -> Head {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        self.read().0
    }

    /// Sends a request, and returns status and code of the answer.
    pub(crate) fn asks(&mut self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        self.answer()
    }

    pub(crate) fn send(&mut self, request: &str) {
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes()).unwrap();
        stream.flush().unwrap();
    }

    /// Status and code of the next answer.
    pub(crate) fn answer(&mut self) -> (u16, String) {
        let (head, body) = self.read();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let code = body["code"].as_str().unwrap_or_default();
        (head.status(), code.to_owned())
    }

    fn read(&mut self) -> (Head, Vec<u8>) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.stream.read_line(&mut head).unwrap();
            assert_ne!(read, 0, "hung up: {head:?}");
        }
        let head = Head(head.to_lowercase());
        let length: usize = head.value("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (head, body)
    }

    /// Waits until the daemon has closed the connection in order.
    pub(crate) fn wait_closed(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

fn client_config(roots: &str, holder: &Holder) -> ClientConfig {
    let mut trusted = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        trusted.add(root.unwrap()).unwrap();
    }
    let chain = [&holder.certificate].into_iter().chain(&holder.chain);
    let chain = chain.map(|pem| CertificateDer::from(der(pem))).collect();
    let key = PrivateKeyDer::from_pem_slice(holder.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_client_auth_cert(chain, key)
        .unwrap()
}

impl Head {
    pub(crate) fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
