//! Defines `hallmark approve` and `hallmark approval`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `hallmark approval`
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// List requests, the newest first.
    List {
        /// Only those that wait for an approval.
        #[arg(long)]
        waiting: bool,
    },
    /// Show a request: exactly what would be done, its hash, and what became of it.
    Show {
        /// The number of the request.
        id: i64,
        /// Write the bytes that are signed into this file.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Reject a request.
    Reject {
        /// The number of the request.
        id: i64,
    },
}

/// `hallmark approve`
#[derive(Debug, Args)]
pub struct Approve {
    /// The number of the request.
    pub id: i64,
    /// The private key of the approver (PEM); it signs here and is not sent.
    #[arg(long, value_name = "FILE", required_unless_present = "signature")]
    pub key: Option<PathBuf>,
    /// A signature that was made elsewhere, as by `openssl dgst -sha256 -sign`.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub signature: Option<PathBuf>,
    /// The certificate of the approver.
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// Sign without asking.
    #[arg(long)]
    pub yes: bool,
}
