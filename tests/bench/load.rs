//! A station that wants certificates as fast as they come, and looks at every one of them.
//!
//! Requests are made beforehand, bytes and all, and answers are judged afterwards: what is measured
//! shares its processor cores with this program, so in between it only writes and reads.

use crate::plant::{PROFILE, Plant};
use anyhow::{Context, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

type Connection = TlsStream<TcpStream>;

pub(crate) struct Load {
    runtime: Runtime,
    connector: TlsConnector,
    address: SocketAddr,
    authority: CertificateDer<'static>,
    prepared: usize,
    serials: HashSet<Vec<u8>>,
}

/// A request, ready to be sent, and what its certificate must say.
pub(crate) struct Prepared {
    bytes: Vec<u8>,
    registration_id: String,
    public_key: Vec<u8>,
}

/// Requests with their answers, not yet looked at.
pub(crate) struct Answered {
    requests: Arc<[Prepared]>,
    answers: Vec<Answer>,
    elapsed: Duration,
}

struct Answer {
    request: usize,
    bytes: Vec<u8>,
    latency: Duration,
}

/// Certificates that were issued, and how long it took.
pub(crate) struct Taken {
    elapsed: Duration,
    latencies: Vec<Duration>,
}

impl Taken {
    pub(crate) fn count(&self) -> usize {
        self.latencies.len()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    pub(crate) fn rate(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = self.count() * percent / 100;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

impl Load {
    pub(crate) fn new(plant: &Plant) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(plant.root()?)?;
        let (chain, key) = plant.station()?;
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (connector, address) = (TlsConnector::from(Arc::new(tls)), plant.address()?);
        // The daemon has to certify its listener first.
        plant.wait_until("HTTPS", || {
            runtime.block_on(connect(&connector, address)).is_ok()
        })?;
        Ok(Self {
            runtime,
            connector,
            address,
            authority: plant.authority()?,
            prepared: 0,
            serials: HashSet::new(),
        })
    }

    /// How many certificates were issued and found good.
    pub(crate) fn issued(&self) -> i64 {
        i64::try_from(self.serials.len()).expect("they fit into memory")
    }

    /// Prepares, runs and verifies.
    pub(crate) fn take(&mut self, count: usize, connections: usize) -> anyhow::Result<Taken> {
        let requests = self.prepare(count)?;
        let answered = self.run(requests, connections)?;
        self.verified(answered)
    }

    /// Requests with keys, registration ids and idempotency keys that were never used before.
    pub(crate) fn prepare(&mut self, count: usize) -> anyhow::Result<Arc<[Prepared]>> {
        let numbers: Vec<usize> = (self.prepared..self.prepared + count).collect();
        self.prepared += count;
        in_parallel(&numbers, |number| Prepared::new(*number)).map(Into::into)
    }

    /// Sends all of them over `connections`, each the next one as soon as it has its answer.
    pub(crate) fn run(
        &self,
        requests: Arc<[Prepared]>,
        connections: usize,
    ) -> anyhow::Result<Answered> {
        self.runtime.block_on(async {
            let mut open = Vec::new();
            for _ in 0..connections {
                open.push(connect(&self.connector, self.address).await?);
            }
            let (next, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
            let mut clients = JoinSet::new();
            for connection in open {
                clients.spawn(client(connection, requests.clone(), next.clone()));
            }
            let mut answers = Vec::with_capacity(requests.len());
            while let Some(client) = clients.join_next().await {
                answers.extend(client??);
            }
            Ok(Answered {
                elapsed: begun.elapsed(),
                requests,
                answers,
            })
        })
    }

    /// Every answer is a certificate, signed by the authority, for exactly what was asked, with a
    /// serial number that was never seen before.
    pub(crate) fn verified(&mut self, answered: Answered) -> anyhow::Result<Taken> {
        let Answered {
            requests,
            answers,
            elapsed,
        } = answered;
        ensure!(
            answers.len() == requests.len(),
            "a request was not answered"
        );
        let (_, authority) = X509Certificate::from_der(&self.authority)?;
        let key: &[u8] = &authority.public_key().subject_public_key.data;
        let judge = |answer: &Answer| judge(answer, &requests[answer.request], key);
        for serial in in_parallel(&answers, judge)? {
            ensure!(self.serials.insert(serial), "a serial number came twice");
        }
        let mut latencies: Vec<_> = answers.iter().map(|answer| answer.latency).collect();
        latencies.sort_unstable();
        Ok(Taken { elapsed, latencies })
    }
}

impl Prepared {
    fn new(number: usize) -> anyhow::Result<Self> {
        let registration_id = format!("bench-{number:07}");
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, &registration_id);
        let csr = parameters.serialize_request(&key)?.pem()?;
        let body = serde_json::json!({
            "profile": PROFILE, "registration_id": registration_id, "csr": csr,
        })
        .to_string();
        let head = format!(
            "POST /v1/certificates HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\nidempotency-key: request-{number}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        Ok(Self {
            bytes: (head + &body).into_bytes(),
            registration_id,
            public_key: key.der_bytes().to_vec(),
        })
    }
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let mut connection = connector.connect(name, stream).await?;
    // With TLS 1.3 the client has not heard yet whether its certificate was taken; and a first
    // request that is answered, if only with 404, leaves nothing of the handshake to be measured.
    connection
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    read_answer(&mut connection).await?;
    Ok(connection)
}

async fn client(
    mut connection: Connection,
    requests: Arc<[Prepared]>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(index) else {
            return Ok(answers);
        };
        let begun = Instant::now();
        connection.write_all(&request.bytes).await?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, read_answer(&mut connection));
        answers.push(Answer {
            request: index,
            bytes: answer.await.context("no answer in time")??,
            latency: begun.elapsed(),
        });
    }
}

/// One response: head, and a body as long as the head says.
async fn read_answer(connection: &mut Connection) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let read = connection.read_buf(&mut bytes).await?;
        ensure!(read > 0, "the daemon closed the connection");
        ensure!(bytes.len() <= ANSWER_BYTES_MAX, "the answer does not end");
        if length(&bytes)?.is_some_and(|length| bytes.len() >= length) {
            return Ok(bytes);
        }
    }
}

/// Of the whole response, once its head is there.
fn length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = head_of(bytes) else {
        return Ok(None);
    };
    let length = std::str::from_utf8(head)?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the answer does not say how long it is")?;
    Ok(Some(head.len() + length.1.trim().parse::<usize>()?))
}

/// With the empty line that ends it.
fn head_of(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&bytes[..end + 4])
}

/// The serial number of a certificate that is as it should be.
fn judge(answer: &Answer, request: &Prepared, authority: &[u8]) -> anyhow::Result<Vec<u8>> {
    let head = head_of(&answer.bytes).context("an answer without head")?;
    let body = &answer.bytes[head.len()..];
    ensure!(
        head.starts_with(b"HTTP/1.1 201 "),
        "{}: {}",
        request.registration_id,
        String::from_utf8_lossy(&answer.bytes)
    );
    let body: serde_json::Value = serde_json::from_slice(body)?;
    let pem = body["certificate"].as_str().context("no certificate")?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes())?;
    let (_, certificate) = X509Certificate::from_der(&der)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, authority)
        .verify(
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
        .context("the authority did not sign the certificate")?;
    let names: Vec<_> = certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .collect();
    ensure!(
        names == [request.registration_id.as_str()],
        "a certificate for {names:?} instead of {}",
        request.registration_id
    );
    ensure!(
        certificate.public_key().subject_public_key.data == request.public_key,
        "{}: another key was certified",
        request.registration_id
    );
    Ok(certificate.raw_serial().to_vec())
}

/// Maps on all cores, in order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    map: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = std::thread::available_parallelism()?.get();
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let map = &map;
        let workers: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(map).collect()))
            .collect();
        let mut mapped = Vec::with_capacity(items.len());
        for worker in workers {
            let part: anyhow::Result<Vec<R>> = worker.join().expect("no worker panics");
            mapped.extend(part?);
        }
        Ok(mapped)
    })
}
