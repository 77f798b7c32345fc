//! Defines the command line of `hallmarkd`. It is in the library because man pages and shell
//! completions are made from it (`packaging/manual.rs`). It must never do anything.

use crate::service::Workers;
use crate::token::arguments::TokenCommand;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// The certificate authority that a factory line and a gateway can run themselves.
#[derive(Debug, Parser)]
#[command(name = "hallmarkd", version, about)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of `hallmarkd`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon.
    Serve {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The process that starts the workers of the tokens.
        #[arg(long, value_enum, default_value_t = Workers::Own)]
        workers: Workers,
    },
    /// Check a configuration, its tokens and its certificate chains.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// A command that `hallmark-token` runs.
    #[command(flatten)]
    Token(TokenCommand),
    /// Import the key of a connection string into a token, for credentials of kind "token-hmac".
    ImportSecret {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The token's name in the configuration.
        #[arg(long)]
        token: String,
        /// The name of the key: the credential's `key`.
        #[arg(long)]
        label: String,
        /// The file with the connection string.
        #[arg(long)]
        file: PathBuf,
    },
    /// Make a key in a token, for credentials of kind "entra-client-assertion".
    MakeCredentialKey {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The token's name in the configuration.
        #[arg(long)]
        token: String,
        /// The name of the key: the credential's `key`.
        #[arg(long)]
        label: String,
        /// The file for the certificate that Entra ID must have.
        #[arg(long)]
        out: PathBuf,
        /// The validity of the certificate in days.
        #[arg(long, default_value_t = 365)]
        days: u16,
    },
    /// Verify, copy or restore a backup, and answer as JSON; `hallmark backup` asks for it.
    #[command(hide = true, subcommand)]
    Backup(BackupCommand),
    /// Check what `hallmark setup` will write: JSON on standard input, JSON on standard output.
    #[command(hide = true)]
    CheckDocuments,
}

/// A command for a backup.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Read it whole, and compare it with its manifest.
    Verify {
        /// The backup.
        file: PathBuf,
        /// The file with identities of `age`.
        #[arg(long)]
        identity: Option<PathBuf>,
    },
    /// Say what a restore would bring back, and what it would lose; the daemon must not run.
    Preview {
        /// The backup.
        file: PathBuf,
        /// The configuration, which names the state folder.
        #[arg(long)]
        config: PathBuf,
        /// The file with identities of `age`.
        #[arg(long)]
        identity: Option<PathBuf>,
    },
    /// Copy it with its manifest into a folder.
    Copy {
        /// The backup.
        file: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// Put it in the place of the database; the daemon must not run.
    Restore {
        /// The backup.
        file: PathBuf,
        /// The configuration, which names the state folder.
        #[arg(long)]
        config: PathBuf,
        /// The file with identities of `age`.
        #[arg(long)]
        identity: Option<PathBuf>,
    },
}
