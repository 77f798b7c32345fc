//! Defines `hallmark issue`, `hallmark issue-batch` and `hallmark certificate`.

use clap::{Args, Subcommand};
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
    /// The request (PKCS #10: PEM, base64 or DER).
    #[arg(long)]
    pub csr: PathBuf,
    /// Change the profile of a registered device to this one.
    #[arg(long = "move")]
    pub moves: bool,
    /// Write the certificate and its chain into this file (PEM).
    #[arg(long)]
    pub out: Option<PathBuf>,
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
    /// List the newest certificates of a name.
    List {
        /// The common name; a device's registration id.
        name: String,
    },
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
    /// Revoke a certificate that the daemon has issued; its holder is refused from then on.
    Revoke(RevokeCertificate),
}

/// `hallmark certificate revoke`
#[derive(Debug, Args)]
pub struct RevokeCertificate {
    /// Its serial number, or the SHA-256 of its DER, in hexadecimal digits.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub serial: Option<String>,
    /// The certificate, PEM or DER; the first one of a chain.
    #[arg(long, value_name = "CERTIFICATE")]
    pub file: Option<PathBuf>,
    /// The authority that issued it, if several have issued this serial number.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub authority: Option<String>,
    /// keyCompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn,
    /// certificateHold or another name of RFC 5280.
    #[arg(long)]
    pub reason: String,
    /// The reason in your words, for the audit journal.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cause: String,
}
