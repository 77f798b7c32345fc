//! Makes and renews the listener's TLS identity: a key in the state folder, a certificate from an
//! authority of this daemon.
//!
//! The key is made here and never leaves its file (mode 0600). The certificate goes through the
//! issuance cycle like every other one, and is renewed when a third of its validity is left, with a
//! new key: the listener may have another name then, and a key has one holder. While the
//! authority's token is unavailable, the certificate on disk serves. A crash between the writes of
//! key and certificate leaves a pair that does not fit, and the next start renews it.
//!
//! Clients are requested to present a certificate, and any certificate is accepted whose key the
//! client proves to hold: `api::caller` identifies the client, so a refusal is an HTTP answer with
//! a reason.

use super::stapled::Stapled;
use crate::ca::authorize::{Authorized, Caller, Issue};
use crate::ca::issuer::issue::IssueRequest;
use crate::ca::listeners::HttpsState;
use crate::ca::roll::canary;
use crate::ca::{Advice, CertificateAuthority, Code, Error};
use crate::enrollment::id::RegistrationId;
use crate::enrollment::thumbprint::Thumbprint;
use crate::files;
use crate::files::atomic;
use crate::ids::GenerationId;
use crate::store::{Store, StoreError};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::parse_bundle;
use crate::x509::certificate::Certificate;
use crate::x509::serial::SerialNumber;
use arc_swap::{ArcSwap, ArcSwapOption};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// The longest key or chain of ours.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// The common name where no name fits: each is too long, or reserved.
const COMMON_NAME: &str = "hallmarkd";

/// After a refusal: the first pause before a certificate is requested again; it doubles …
const PAUSE: Duration = Duration::from_secs(5);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// About the size of a certificate with its chain.
const TRIAL_BYTES: usize = 16 * 1024;

/// The names of the listener, and the profile of its certificate.
#[derive(Clone, Debug)]
pub struct ListenerName {
    /// The profile, whose role is `server`.
    pub profile: String,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// Where key and certificate lie.
    pub folder: PathBuf,
}

impl ListenerName {
    /// The first name that a common name can hold: 64 characters, none of them special at an end.
    /// Clients look at the alternative names only (RFC 9525 6.3), so any text does.
    fn common_name(&self) -> String {
        let candidates = self.names.iter().map(|name| match name.parse() {
            Ok(IpAddr::V6(address)) => in_full(address),
            _ => name.clone(),
        });
        let mut fitting = candidates.filter(|it| canary::is_free(it) && is_common_name(it));
        fitting.next().unwrap_or_else(|| COMMON_NAME.to_owned())
    }
}

/// Without `::`, which a common name must neither begin nor end with.
fn in_full(address: Ipv6Addr) -> String {
    address.segments().map(|it| format!("{it:x}")).join(":")
}

fn is_common_name(text: &str) -> bool {
    RegistrationId::parse(text).is_ok()
}

/// The identity as it is now; exchanged while connections stay.
pub struct ServerIdentity {
    name: ArcSwap<ListenerName>,
    presented: ArcSwapOption<Presented>,
    failure: Mutex<Option<Failure>>,
}

/// Why the last attempt to have a certificate failed, and when the next one is made.
struct Failure {
    error: Error,
    /// The generation that would have signed: the pause ends when another one serves.
    serving: Option<GenerationId>,
    at: Instant,
    pause: Duration,
}

impl Failure {
    /// A passing failure is retried at every turn. A failure that an operator has to fix is
    /// retried ever more rarely: each refused attempt is an entry in the audit journal.
    fn after(before: Option<Self>, serving: Option<GenerationId>, error: Error) -> Self {
        let pause = match error.advice {
            Advice::Later { .. } => Duration::ZERO,
            _ => before.map_or(PAUSE, |it| (it.pause * 2).clamp(PAUSE, PAUSE_MAX)),
        };
        Self {
            error,
            serving,
            at: Instant::now(),
            pause,
        }
    }
}

/// The application protocols, preferred first. A client that names others alone is refused in the
/// handshake (RFC 7301 section 3.2, RFC 9325 section 3.7); one that names none is served.
const ALPN: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// A certificate with its key, and what the record says of it.
struct Presented {
    acceptor: TlsAcceptor,
    /// The same, to be exchanged when its OCSP answer changes.
    certified: Arc<Stapled>,
    sha256: [u8; 32],
    /// Until when it is valid, in Unix seconds.
    not_after: UnixSeconds,
    /// The last state read, and `Store::revocations` before it.
    read: Mutex<Option<(u64, RecordState)>>,
}

/// The state of the listener's certificate on record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RecordState {
    Good,
    /// It is not on record: an older backup was restored. It serves until there is another one.
    Unknown,
    /// It is revoked or on hold, or a generation above it is: it is not presented.
    Excluded,
}

impl Presented {
    /// Reads the record, if a certificate was revoked since it was read.
    fn record_state(&self, store: &Store) -> RecordState {
        let revocations = store.revocations();
        let mut read = lock(&self.read);
        if let Some((before, record_state)) = *read
            && before == revocations
        {
            return record_state;
        }
        match record_state(store, &self.sha256) {
            Ok(record_state) => {
                *read = Some((revocations, record_state));
                record_state
            }
            Err(error) => {
                tracing::warn!(%error, "record of the TLS certificate unreadable");
                read.map_or(RecordState::Good, |(_, record_state)| record_state)
            }
        }
    }
}

fn record_state(store: &Store, sha256: &[u8; 32]) -> Result<RecordState, StoreError> {
    let Some(row) = store.client(sha256)? else {
        return Ok(RecordState::Unknown);
    };
    let is_revoked = row.certificate.revoked_at.is_some() || row.revoked_above.is_some();
    if is_revoked {
        return Ok(RecordState::Excluded);
    }
    Ok(RecordState::Good)
}

impl ServerIdentity {
    /// The identity on disk, if there is one that still fits.
    pub fn load(name: ListenerName) -> Self {
        let identity = Self {
            name: ArcSwap::from_pointee(name),
            presented: ArcSwapOption::empty(),
            failure: Mutex::default(),
        };
        match identity.read() {
            Ok(Some(presented)) => identity.presented.store(Some(Arc::new(presented))),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "stored TLS certificate not usable"),
        }
        identity
    }

    /// Returns the TLS acceptor; `None` without a certificate, or if the certificate or a
    /// generation above it is revoked.
    pub fn acceptor(&self, store: &Store) -> Option<TlsAcceptor> {
        let presented = self.presented.load_full()?;
        match presented.record_state(store) {
            RecordState::Good | RecordState::Unknown => Some(presented.acceptor.clone()),
            RecordState::Excluded => None,
        }
    }

    /// Gives the listener another name. The present certificate serves until there is one for that
    /// name.
    pub fn rename(&self, name: ListenerName) {
        self.name.store(Arc::new(name));
        *lock(&self.failure) = None;
    }

    /// Has the certificate presented with its present OCSP answer, if its authority answers.
    pub fn staple(&self, ca: &CertificateAuthority) {
        let Some(presented) = self.presented.load_full() else {
            return;
        };
        let row = match ca.store().client(&presented.sha256) {
            Ok(row) => row.map(|it| it.certificate),
            Err(error) => {
                tracing::warn!(%error, "record of the TLS certificate unreadable");
                return;
            }
        };
        let answer = row.and_then(|row| {
            let serial = SerialNumber::from_magnitude(&row.serial).ok()?;
            ca.ocsp().staple(row.issuer, &serial)
        });
        presented.certified.staple(answer.map(|it| it.der.to_vec()));
    }

    /// Until when the certificate that is presented is valid, and why there is no newer one.
    pub fn state(&self, store: &Store) -> HttpsState {
        let presented = self.presented.load_full();
        let presented = presented.filter(|it| it.record_state(store) != RecordState::Excluded);
        let failure = lock(&self.failure);
        HttpsState::Configured {
            not_after: presented.map(|it| it.not_after),
            problem: failure.as_ref().map(|it| it.error.message.clone()),
        }
    }

    /// Requests a certificate if there is none, if the present one nears its end or has other
    /// names, and if it is revoked or issued below a revoked generation.
    /// After a refusal nothing is done for a pause, unless the listener was given another name or
    /// another generation serves: after a compromise, only the successor can sign.
    pub fn renew(&self, ca: &CertificateAuthority) -> Result<(), Error> {
        let serving = ca.issuer().serving_for(&self.name.load().profile);
        if let Some(failure) = &*lock(&self.failure)
            && failure.serving == serving
            && failure.at.elapsed() < failure.pause
        {
            return Ok(());
        }
        let renewed = self.renew_now(ca);
        let mut failure = lock(&self.failure);
        *failure = match &renewed {
            Ok(()) => None,
            Err(error) => Some(Failure::after(failure.take(), serving, error.clone())),
        };
        renewed
    }

    fn renew_now(&self, ca: &CertificateAuthority) -> Result<(), Error> {
        let presented = self.presented.load_full();
        let record_state = presented.map(|it| it.record_state(ca.store()));
        if record_state == Some(RecordState::Good) && self.still_serves(ca.now()) {
            return Ok(());
        }
        let name = self.name.load_full();
        let key = KeyPair::generate()
            .map_err(|error| Error::stop(Code::RandomSource, format!("the TLS key: {error}")))?;
        let csr = csr(&name, &key)?;
        let permission = Authorized::<Issue>::to_issue(Caller::Daemon);
        let request = IssueRequest {
            profile: name.profile.clone(),
            registration_id: name.common_name(),
            csr,
            generated: None,
            idempotency_key: None,
            moves: false,
        };
        self.has_room()
            .map_err(|error| io_error("the TLS certificate", &error))?;
        let issued = pollster::block_on(ca.issuer().issue_audited(&permission, &request))?;
        let presented = ca.issuer().presented_pem(&issued);
        files::make_folder(&name.folder, 0o700)
            .and_then(|()| atomic::write(&self.key_path(), key.serialize_pem().as_bytes(), 0o600))
            .map_err(|error| io_error("the TLS key", &error))?;
        atomic::write(&self.certificate_path(), presented.as_bytes(), 0o600)
            .map_err(|error| io_error("the TLS certificate", &error))?;
        let presented = self.read()?;
        self.presented.store(presented.map(Arc::new));
        tracing::info!(names = ?name.names, "TLS certificate renewed");
        Ok(())
    }

    /// Sees that a certificate can be kept: otherwise each attempt would cost one.
    fn has_room(&self) -> std::io::Result<()> {
        files::make_folder(&self.name.load().folder, 0o700)?;
        let trial = self.certificate_path().with_extension("trial");
        atomic::write(&trial, &[0; TRIAL_BYTES], 0o600)?;
        atomic::remove(&trial)
    }

    fn still_serves(&self, now: UnixSeconds) -> bool {
        let Ok(pem) = files::read_ours(&self.certificate_path(), PEM_BYTES_MAX) else {
            return false;
        };
        let leaf = parse_bundle(&pem)
            .ok()
            .and_then(|chain| chain.into_iter().next());
        leaf.is_some_and(|leaf: Certificate| {
            let nears_end = leaf.not_after() - (leaf.not_after() - leaf.not_before()) / 3;
            now <= nears_end && bears(&leaf, &self.name.load().names)
        })
    }

    fn read(&self) -> Result<Option<Presented>, Error> {
        let failed = |error: String| Error::stop(Code::TlsIdentity, error);
        if !self.certificate_path().exists() {
            return Ok(None);
        }
        let file = |path: PathBuf| {
            files::restrict(&path)
                .and_then(|()| files::read_ours(&path, PEM_BYTES_MAX).map(Zeroizing::new))
                .map_err(|error| failed(format!("{}: {error}", path.display())))
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&file(self.certificate_path())?)
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let leaf = chain.first().and_then(|leaf| {
            let until = Certificate::parse(leaf).ok()?.not_after();
            Some((Thumbprint::of(leaf), until))
        });
        let key = PrivateKeyDer::from_pem_slice(&file(self.key_path())?)
            .map_err(|error| failed(error.to_string()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certified = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| failed(error.to_string()))?;
        let certified = Arc::new(Stapled::new(certified));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_client_cert_verifier(Arc::new(AnyClientCertificate { provider }))
            .with_cert_resolver(certified.clone());
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(leaf.map(|(sha256, not_after)| Presented {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certified,
            sha256: *sha256.as_bytes(),
            not_after,
            read: Mutex::default(),
        }))
    }

    fn key_path(&self) -> PathBuf {
        self.name.load().folder.join("server.key")
    }

    fn certificate_path(&self) -> PathBuf {
        self.name.load().folder.join("server.pem")
    }
}

fn csr(name: &ListenerName, key: &KeyPair) -> Result<Vec<u8>, Error> {
    let failed = |error: rcgen::Error| Error::stop(Code::TlsIdentity, error.to_string());
    let mut parameters = CertificateParams::new(name.names.clone()).map_err(failed)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.common_name());
    Ok(parameters
        .serialize_request(key)
        .map_err(failed)?
        .der()
        .to_vec())
}

/// Whether a client that asks for any of `names` takes `leaf`.
fn bears(leaf: &Certificate, names: &[String]) -> bool {
    let der = CertificateDer::from(leaf.der().as_ref());
    let Ok(leaf) = ParsedCertificate::try_from(&der) else {
        return false;
    };
    let is_taken = |name: &String| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
    };
    names.iter().all(is_taken)
}

/// Asks for a client certificate and takes any: possession of the key is proven by TLS itself.
#[derive(Debug)]
struct AnyClientCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io_error(what: &str, error: &std::io::Error) -> Error {
    Error::later(
        5,
        Code::TlsIdentity,
        format!("{what} cannot be written or read: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common_name(names: &[&str]) -> String {
        let names = names.iter().map(|&it| it.to_owned()).collect();
        let name = ListenerName {
            profile: "server".into(),
            names,
            folder: PathBuf::new(),
        };
        let key = KeyPair::generate().expect("a key");
        csr(&name, &key).expect("a request");
        name.common_name()
    }

    #[test]
    fn the_common_name_is_the_first_name_that_fits() {
        let long = format!("{}.example", "a".repeat(63));
        for (names, expected) in [
            (&["host.example", "192.0.2.1"][..], "host.example"),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["2001:db8::"], "2001:db8:0:0:0:0:0:0"),
            (&["::1", "host"], "0:0:0:0:0:0:0:1"),
            (&[&long, "host.example"], "host.example"),
            (&[&long], "hallmarkd"),
            (&["hallmark-canary-1.example"], "hallmarkd"),
        ] {
            assert_eq!(common_name(names), expected, "{names:?}");
        }
    }
}
