//! Defines `hallmark issue`, `hallmark issue-batch` and `hallmark certificate`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `hallmark issue`
#[derive(Debug, Args)]
pub struct Issue {
    /// The profile.
    #[arg(long)]
    pub profile: String,
    /// The registration id; for other roles, the common name.
    #[arg(long)]
    pub id: String,
    /// The request (PKCS #10: PEM, base64 or DER). Beside --generate it gives names alone.
    #[arg(long, required_unless_present = "generate")]
    pub csr: Option<PathBuf>,
    /// Change the profile of a registered device to this one.
    #[arg(long = "move")]
    pub moves: bool,
    /// Write the certificate and its chain into this file (PEM).
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Have the daemon make the key pair, of this type (p256, rsa2048 …) or the profile's first
    /// one. The profile needs generate_keys = true.
    #[arg(
        long,
        value_name = "KEY_TYPE",
        num_args = 0..=1,
        default_missing_value = "",
        requires = "key_out"
    )]
    pub generate: Option<String>,
    /// Write the generated key into this file, which its owner alone can read.
    #[arg(long, value_name = "FILE", requires = "generate")]
    pub key_out: Option<PathBuf>,
    /// The key as PEM, or with its certificate and chain as PKCS #12.
    #[arg(long, default_value = "pkcs8", requires = "generate")]
    pub key_format: KeyFormat,
    /// Encrypt the key by the password in this file; without it, the terminal is asked.
    #[arg(long, value_name = "FILE", requires = "generate")]
    pub password_file: Option<PathBuf>,
    /// Leave the key unencrypted (pkcs8 alone).
    #[arg(long, requires = "generate", conflicts_with = "password_file")]
    pub no_password: bool,
}

/// The form of a file with a private key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyFormat {
    Pkcs8,
    Pkcs12,
}

/// `hallmark issue-batch`
#[derive(Debug, Args)]
pub struct IssueBatch {
    /// A CSV file with a registration id and the path of its request on each line; or a folder of
    /// requests, each named by its registration id (.csr, .pem, .der, .p10, .req).
    #[arg(value_name = "FILE")]
    pub list: PathBuf,
    /// The profile of all of them.
    #[arg(long)]
    pub profile: String,
    /// Write each certificate and its chain into this folder, as ID.pem.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How many requests are sent at once, 1 to 256.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch_size: u32,
}

/// `hallmark certificate`
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// List certificates, newest first: all that fit what is named.
    List(Box<ListCertificates>),
    /// Show a certificate that the daemon has issued, with its chain; or write both.
    #[command(visible_alias = "fetch")]
    Show {
        /// Its serial number, or the SHA-256 of its DER, in hexadecimal digits.
        serial: String,
        /// The authority that issued it, if several have issued this serial number.
        #[arg(long, value_name = "NAME")]
        authority: Option<String>,
        /// Write the certificate and its chain into this file (PEM).
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Write a certificate into a file, or print it.
    Export(ExportCertificate),
    /// Revoke a certificate that the daemon has issued; its holder is refused from then on.
    Revoke(RevokeCertificate),
    /// Hold a certificate: its holder is refused until the hold is lifted.
    Hold(HoldCertificate),
    /// Lift the hold that an operator has set; a block lifts its own by `unblock`.
    Release(HoldCertificate),
}

/// `hallmark certificate list`
#[derive(Debug, Args)]
pub struct ListCertificates {
    /// The common name; a device's registration id.
    pub name: Option<String>,
    /// The registration id; stations of the same name are left out.
    #[arg(long, value_name = "ID", conflicts_with = "name")]
    pub device: Option<String>,
    /// The serial number, in hexadecimal digits.
    #[arg(long, value_name = "DIGITS")]
    pub serial: Option<String>,
    /// The SHA-256 of its DER, in hexadecimal digits.
    #[arg(long, value_name = "DIGITS")]
    pub sha256: Option<String>,
    /// The profile.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// The authority that issued it, by any of its generations.
    #[arg(long, value_name = "NAME")]
    pub authority: Option<String>,
    /// The state; an abandoned intent has no certificate.
    #[arg(long)]
    pub state: Option<StateName>,
    /// Valid ones that end within this time, such as 30d.
    #[arg(long, value_name = "TIME")]
    pub expiring: Option<String>,
    /// Issued since this date (2026-11-30), time (2026-11-30T12:00:00Z), or time ago (7d).
    #[arg(long, value_name = "WHEN")]
    pub issued_since: Option<String>,
    /// How many rows, 1 to 100000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Only certificates older than the one with this number.
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<i64>,
}

/// The state of a certificate.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum StateName {
    Valid,
    Expired,
    Revoked,
    OnHold,
    IssuerRevoked,
    Abandoned,
}

/// `hallmark certificate export`
#[derive(Debug, Args)]
pub struct ExportCertificate {
    /// Its serial number, or the SHA-256 of its DER, in hexadecimal digits.
    pub serial: String,
    /// The authority that issued it, if several have issued this serial number.
    #[arg(long, value_name = "NAME")]
    pub authority: Option<String>,
    /// The certificate as PEM or DER, or as PEM followed by its chain.
    #[arg(long, default_value = "pem")]
    pub format: FileFormat,
    /// Write it into this file.
    #[arg(long, required_if_eq("format", "der"))]
    pub out: Option<PathBuf>,
}

/// A kind of file.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FileFormat {
    Pem,
    Der,
    Chain,
}

/// A certificate, by its number or its file.
#[derive(Debug, Args)]
pub struct NamedCertificate {
    /// Its serial number, or the SHA-256 of its DER, in hexadecimal digits.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub serial: Option<String>,
    /// The certificate, PEM or DER; the first one of a chain.
    #[arg(long, value_name = "CERTIFICATE")]
    pub file: Option<PathBuf>,
    /// The authority that issued it, if several have issued this serial number.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub authority: Option<String>,
}

/// `hallmark certificate revoke`
#[derive(Debug, Args)]
pub struct RevokeCertificate {
    #[command(flatten)]
    pub certificate: NamedCertificate,
    /// keyCompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn,
    /// certificateHold or unspecified (RFC 5280); of a subordinate certificate cACompromise, too.
    #[arg(long)]
    pub reason: String,
    /// The reason in your words, for the audit journal.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cause: String,
    /// With keyCompromise: exclude a device's leaf at DPS and at the hub, too, until it has a new
    /// one. Of a subordinate certificate: say which groups at DPS admit what its holder signed.
    #[arg(long)]
    pub everywhere: bool,
}

/// `hallmark certificate hold` and `release`
#[derive(Debug, Args)]
pub struct HoldCertificate {
    #[command(flatten)]
    pub certificate: NamedCertificate,
    /// The reason in your words, for the audit journal.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cause: String,
}
