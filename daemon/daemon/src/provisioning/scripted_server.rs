//! A TLS server that answers each connection with the next bytes of a script, and remembers what
//! it was asked: for what no well-behaved server would do, and for headers to the letter.

use crate::provisioning::http::PlaneSettings;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The name in the server's certificate.
pub(super) const HOST: &str = "line.azure-devices-provisioning.net";

/// The reaction to one request.
#[derive(Clone, Debug)]
pub(super) enum Script {
    /// These bytes, then the end of the connection.
    Answer(String),
    /// The connection ends without an answer.
    Silence,
}

impl Script {
    /// A whole answer with a JSON body.
    pub(super) fn json(status: u16, headers: &str, body: &str) -> Script {
        let length = body.len();
        Script::Answer(format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        ))
    }
}

/// A request that the server received.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: String,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut headers = lines.filter_map(|line| line.split_once(": "));
        let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

pub(super) struct ScriptedServer {
    pub(super) folder: TempDir,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Received>>>,
}

impl ScriptedServer {
    pub(super) async fn start(script: Vec<Script>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), identity.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.into()], PrivateKeyDer::from(key))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(play(listener, acceptor, script, Arc::clone(&asked)));
        Self {
            folder,
            address,
            asked,
        }
    }

    pub(super) fn settings(&self) -> PlaneSettings {
        PlaneSettings {
            host: HOST.to_owned(),
            address: Some(self.address),
            ca_bundle: Some(self.folder.path().join("ca.pem")),
            proxy: None,
        }
    }

    /// Everything that was asked so far.
    pub(super) fn asked(&self) -> Vec<Received> {
        self.asked.lock().unwrap().clone()
    }
}

async fn play(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    script: Vec<Script>,
    asked: Arc<Mutex<Vec<Received>>>,
) {
    for next in script {
        let (connection, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(connection).await.unwrap();
        let request = read_request(&mut stream).await;
        asked.lock().unwrap().push(request);
        if let Script::Answer(bytes) = next {
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    }
}

async fn read_request(stream: &mut TlsStream<TcpStream>) -> Received {
    let mut asked = Received::default();
    while !asked.head.ends_with("\r\n\r\n") {
        asked.head.push(stream.read_u8().await.unwrap().into());
    }
    let length = asked.header("content-length").unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    asked.body = String::from_utf8(body).unwrap();
    asked
}
