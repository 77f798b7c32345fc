//! Defines `hallmark authority` and `hallmark ceremony`.

use super::enrollment::Cause;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `hallmark ceremony`
#[derive(Debug, Subcommand)]
pub enum CeremonyCommand {
    /// Create the authorities that FILE describes; existing authorities stay as they are.
    Run {
        /// The ceremony file (TOML).
        file: PathBuf,
        /// Write transcript.txt and transcript.json into this folder.
        #[arg(long)]
        transcript: Option<PathBuf>,
    },
    /// Write the requests of all authorities that wait for a certificate, for an offline root.
    Request {
        /// The folder that is carried; it is made.
        folder: PathBuf,
    },
    /// Show what a folder holds that was carried here; asks nothing of a daemon.
    Show {
        /// The folder that was carried.
        folder: PathBuf,
    },
    /// At the offline root: sign what the requests ask for, and revocation lists.
    Sign(SignTransfer),
    /// Install the certificates and revocation lists that an offline root has signed.
    Install {
        /// The folder that was carried.
        folder: PathBuf,
        /// SHA-256 of answers.json, from the page that was printed at the offline root.
        #[arg(long, value_name = "HEX")]
        sha256: String,
    },
}

/// `hallmark ceremony sign`
#[derive(Debug, Args)]
pub struct SignTransfer {
    /// The folder that was carried. Without requests in it, revocation lists alone are signed.
    pub folder: PathBuf,
    /// The authority that signs.
    #[arg(long, value_name = "NAME")]
    pub authority: String,
    /// The [[subordinate_profile]], or `intermediate` or `adr-intermediate`.
    #[arg(long, value_name = "NAME", default_value = "intermediate")]
    pub profile: String,
    /// SHA-256 of requests.json, from the page that was printed where the requests were made.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// End after so many days, which are no more than those of the profile.
    #[arg(long)]
    pub days: Option<u32>,
    /// The holders have made new keys, beside those that are certified.
    #[arg(long)]
    pub rekey: bool,
}

/// `hallmark authority`
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// List all authorities, issuers first.
    List,
    /// Block all devices below a generation.
    Block(Generation),
    /// Lift the block of a generation.
    Unblock(Generation),
    /// Print the request (PKCS #10) of an authority with an external issuer.
    Csr {
        /// The authority's name.
        name: String,
        /// Write it into this file.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Install the certificate that an external issuer has made for an authority.
    Install {
        /// The authority's name.
        name: String,
        /// The certificate and all above it, up to the self-signed one (PEM).
        file: PathBuf,
    },
    /// Take over what an adopted authority issued and revoked before.
    Import(Import),
    /// Sign the certificate of an authority elsewhere, from its request (PKCS #10).
    Sign(SignSubordinate),
    /// List the certificates of authorities elsewhere that an authority has signed.
    Subordinates {
        /// The authority's name.
        name: String,
    },
    /// Show one authority with all its generations.
    Show {
        /// The authority's name.
        name: String,
        /// Print only the certificates.
        #[arg(long)]
        pem: bool,
        /// Print only the certificates by which generations of a root certify each other.
        #[arg(long, conflicts_with = "pem")]
        cross: bool,
    },
}

/// `hallmark authority sign`
#[derive(Debug, Args)]
pub struct SignSubordinate {
    /// The request (PKCS #10, PEM or DER).
    pub csr: PathBuf,
    /// The authority that signs.
    #[arg(long, value_name = "NAME")]
    pub authority: String,
    /// The [[subordinate_profile]], or `intermediate` or `adr-intermediate`.
    #[arg(long, value_name = "NAME")]
    pub profile: String,
    /// Sign only if the request has this common name.
    #[arg(long, value_name = "TEXT")]
    pub common_name: Option<String>,
    /// End after so many days, which are no more than those of the profile.
    #[arg(long)]
    pub days: Option<u32>,
    /// The holder has made a new key, beside the one that is certified.
    #[arg(long)]
    pub rekey: bool,
    /// Write the certificate and all above it into this file (PEM).
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `hallmark authority import`
#[derive(Debug, Args)]
pub struct Import {
    /// The authority's name.
    pub name: String,
    /// The index of `openssl ca` (`index.txt`), which the daemon must be able to read.
    #[arg(long, required_unless_present = "crl")]
    pub index: Option<PathBuf>,
    /// The folder of its certificates, each named by its serial number (`new_certs_dir`).
    #[arg(long, requires = "index")]
    pub certificates: Option<PathBuf>,
    /// The last revocation list (PEM or DER).
    #[arg(long)]
    pub crl: Option<PathBuf>,
    /// The profile of the devices that have these certificates. Without it, no device is recorded.
    #[arg(long, requires = "certificates")]
    pub profile: Option<String>,
}

/// `hallmark authority block`
#[derive(Debug, Args)]
pub struct Generation {
    /// The authority's name.
    pub name: String,
    /// The generation's number.
    #[arg(long)]
    pub generation: i64,
    #[command(flatten)]
    pub cause: Cause,
}
