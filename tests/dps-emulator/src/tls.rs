//! The TLS side: a server identity, and a verifier that lets every client certificate in.
//!
//! The real service judges chains in its application, with a JSON answer; so does this one
//! (`device`). TLS only makes sure that the client holds the key of the leaf it presents.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use crate::certificate::Certificate;

/// The identity's certificate authority, for clients to trust.
const CA_FILE: &str = "ca.pem";
const SERVER_FILE: &str = "server.pem";
const KEY_FILE: &str = "server.key";

/// The files of a server identity.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
}

impl Identity {
    /// The identity in `dir`: the one that is there, or a new one for `names`.
    pub(crate) fn load_or_make(dir: &Path, names: &[String]) -> Result<Self> {
        let identity = Self {
            dir: dir.to_owned(),
        };
        let complete = [CA_FILE, SERVER_FILE, KEY_FILE]
            .iter()
            .all(|name| dir.join(name).exists());
        if !complete {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
            identity.make(names)?;
        }
        Ok(identity)
    }

    /// The file with the CA certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.join(CA_FILE)
    }

    fn make(&self, names: &[String]) -> Result<()> {
        let (ca, issuer) = authority()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "DPS emulator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let server = params.signed_by(&key, &issuer)?;
        self.write(SERVER_FILE, 0o644, &server.pem())?;
        self.write(KEY_FILE, 0o600, &key.serialize_pem())?;
        self.write(CA_FILE, 0o644, &ca)
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> Result<()> {
        let file = self.dir.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(mode);
        options
            .open(&file)
            .and_then(|mut it| it.write_all(text.as_bytes()))
            .with_context(|| format!("write {}", file.display()))
    }

    /// A server configuration with this identity that asks for a client certificate.
    pub(crate) fn server_config(&self, protocols: &[&[u8]]) -> Result<ServerConfig> {
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(self.dir.join(SERVER_FILE))?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.dir.join(KEY_FILE))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = AnyClient {
            provider: Arc::clone(&provider),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain, key)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "DPS emulator TLS authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&key)?.pem();
    Ok((ca, Issuer::new(params, key)))
}

/// Accepts every chain, verifies the handshake's signature, wants no certificate at all costs.
#[derive(Debug)]
struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl AnyClient {
    /// Verify with the leaf's key. Not with rustls's own functions: they refuse certificates that a
    /// device may well carry, such as those of version 1 that `openssl x509 -req` makes.
    fn verify_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = |error: CertificateError| Error::InvalidCertificate(error);
        let leaf = Certificate::from_der(leaf).map_err(|_| bad(CertificateError::BadEncoding))?;
        let key = leaf
            .public_key()
            .ok_or(bad(CertificateError::BadEncoding))?;
        let supported = self.provider.signature_verification_algorithms.mapping;
        let of_scheme = supported.iter().filter(|(scheme, _)| *scheme == dss.scheme);
        let is_valid = of_scheme
            .flat_map(|(_, algorithms)| *algorithms)
            .any(|algorithm| {
                let fits = algorithm.public_key_alg_id().as_ref() == key.algorithm;
                fits && algorithm
                    .verify_signature(&key.bits, message, dss.signature())
                    .is_ok()
            });
        match is_valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(bad(CertificateError::BadSignature)),
        }
    }
}

impl ClientCertVerifier for AnyClient {
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
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
