//! Makes an RSA key for client assertions and its certificate for Entra ID: `hallmarkd
//! make-credential-key`.
//!
//! The key signs only assertions, so it can sign neither its own certificate nor a request for one.
//! Entra reads the public key, dates and thumbprint of the certificate and needs no chain. So a
//! temporary key signs the certificate and is dropped. No authority of ours signs it: that
//! certificate would be valid for more than Entra.

use super::label_of;
use super::private_worker::PrivateWorker;
use crate::config::Configuration;
use crate::files;
use crate::token::client::{GENERATE_DEADLINE, LOOKUP_DEADLINE, TokenClient};
use crate::token::{KeyDescription, KeySpecification};
use crate::x509::key::{KeyType, PublicKey};
use anyhow::{Context, bail};
use rcgen::{
    CertificateParams, DnType, Issuer, KeyPair, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
};
use std::io::Write;
use std::path::PathBuf;
use time::{Duration, OffsetDateTime};

/// Common name of the issuer.
const ISSUER: &str = "Issued for Entra ID by a key that was not kept";

/// How long before now the certificate becomes valid, because clocks differ.
const BACKDATED: Duration = Duration::minutes(5);

/// Allowed lifetimes, in days. Some tenants' policies refuse more than two years.
const DAYS: std::ops::RangeInclusive<u16> = 1..=730;

/// The options of a new key.
#[derive(Debug)]
pub struct NewKey {
    /// The token's name in the configuration.
    pub token: String,
    pub key: String,
    /// The certificate's file, which must not exist.
    pub out: PathBuf,
    pub days: u16,
}

/// Makes the key, writes its certificate, and prints what to do with it.
pub fn make_key(
    configuration: &Configuration,
    new: &NewKey,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let label = label_of(&new.key)?;
    if !DAYS.contains(&new.days) {
        bail!("give 1 to 730 days");
    }
    let worker = PrivateWorker::ready(configuration, &new.token)?;
    // Before the key: a key without a certificate is of no use.
    let mut file = files::create_new(&new.out, 0o644)
        .with_context(|| format!("cannot make {}", new.out.display()))?;
    let key = generate(&worker.client, label)?;
    let certificate = certificate(&new.key, &key.spki, new.days)?;
    file.write_all(certificate.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", new.out.display()))?;
    say(new, out)
}

fn generate(client: &TokenClient, label: String) -> anyhow::Result<KeyDescription> {
    let specification = KeySpecification {
        key_type: KeyType::Rsa2048,
        label,
        id: rand::random::<[u8; 16]>().to_vec(),
    };
    let key = client.generate(&specification, GENERATE_DEADLINE)?;
    if !(key.sensitive && !key.extractable && key.never_extractable && key.local) {
        client.destroy(&key.reference(), LOOKUP_DEADLINE)?;
        bail!("the token made a key that could be exported; the key was deleted again");
    }
    Ok(key)
}

/// The public half of a key on the token.
struct OnToken(PublicKey);

impl PublicKeyData for OnToken {
    fn der_bytes(&self) -> &[u8] {
        self.0.key_bits()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// Returns a certificate of the key with this SPKI, as PEM.
fn certificate(name: &str, spki: &[u8], days: u16) -> anyhow::Result<String> {
    let issuer_key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
    let issuer = Issuer::new(named(ISSUER), issuer_key);
    let key = OnToken(PublicKey::from_spki_der(spki)?);
    let mut params = named(name);
    params.not_before = OffsetDateTime::now_utc() - BACKDATED;
    params.not_after = params.not_before + Duration::days(days.into());
    Ok(params.signed_by(&key, &issuer)?.pem())
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn say(new: &NewKey, out: &mut impl Write) -> anyhow::Result<()> {
    let NewKey {
        token, key, days, ..
    } = new;
    let certificate = &new.out;
    writeln!(
        out,
        "An RSA key for client assertions is in token {token:?}; its certificate is {}.\n\
         1. Upload the certificate to the application in Entra ID (Certificates & secrets), and \
         give the application the role \"Device Provisioning Service Data Contributor\".\n\
         2. Put this into the configuration:\n   \
         credential = {{ kind = \"entra-client-assertion\", tenant = \"…\", client_id = \"…\", \
         token = {token:?}, key = {key:?}, certificate = {certificate:?} }}\n\
         3. The certificate expires in {days} days: make another key under another name before.",
        certificate.display()
    )
    .context("cannot write")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::bundle::parse_bundle;

    #[test]
    fn the_certificate_holds_the_key_and_is_not_an_authoritys() {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let spki = key.subject_public_key_info();
        let pem = certificate("entra", &spki, 30).unwrap();
        let certificate = &parse_bundle(pem.as_bytes()).unwrap()[0];
        assert_eq!(**certificate.spki_der(), *spki);
        assert!(!certificate.is_ca());
        let days = (certificate.not_after() - certificate.not_before()) / 86_400;
        assert_eq!(days, 30);
    }
}
