//! A TLS client that sends exactly the bytes that a test wants.

use crate::process::SOON;
use crate::request::Holder;
use crate::test_env::TestEnv;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Error, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long a write may be blocked: the daemon may have stopped reading.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_millis(50);

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The address, and the client's identity.
#[derive(Clone)]
pub(crate) struct RawTls {
    address: SocketAddr,
    configuration: Arc<ClientConfig>,
}

impl RawTls {
    /// A client of the HTTPS listener, with this certificate or without.
    pub(crate) fn of(env: &TestEnv, holder: Option<&Holder>) -> Self {
        let mut roots = RootCertStore::empty();
        let root = env.authority("root");
        let root = CertificateDer::from_pem_slice(root.as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let configuration = match holder {
            None => builder.with_no_client_auth(),
            Some(holder) => {
                let chain = holder.certificate.clone() + &holder.chain.concat();
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
                let chain: Vec<_> = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(holder.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let address = env.json(&["status"])["https"].as_str().unwrap().to_owned();
        Self {
            address: address.parse().unwrap(),
            configuration: Arc::new(configuration),
        }
    }

    /// The same, with this certificate and the key of another.
    pub(crate) fn with_wrong_key(env: &TestEnv, holder: &Holder, key: &str) -> Self {
        let right = Self::of(env, Some(holder));
        let chain = CertificateDer::pem_slice_iter(holder.certificate.as_bytes());
        let chain: Vec<_> = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let key = any_supported_type(&key).unwrap();
        let mut configuration = (*right.configuration).clone();
        configuration.client_auth_cert_resolver =
            Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        Self {
            configuration: Arc::new(configuration),
            ..right
        }
    }

    /// A connection without TLS.
    pub(crate) fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(stream)
    }

    /// A connection after its handshake, with as much of `bytes` sent as the daemon takes.
    pub(crate) fn says(&self, bytes: &[u8]) -> std::io::Result<Tls> {
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(self.configuration.clone(), name);
        let mut stream = StreamOwned::new(client.map_err(Error::other)?, self.connect()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
        Ok(stream)
    }
}
