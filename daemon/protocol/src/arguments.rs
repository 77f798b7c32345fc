//! Defines the commands that need the library of a token, once for both programs that accept them:
//! `hallmarkd`, and `hallmark-token`, which runs them.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// The worker of one token, and the commands that load a token's library.
#[derive(Debug, Parser)]
#[command(name = "hallmark-token", version)]
pub struct TokenArguments {
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// A command that needs the library of a token. `hallmarkd` checks the arguments, and becomes
/// `hallmark-token` with the same ones.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Run the worker of one token.
    Token(WorkerArguments),
    /// List the slots of a PKCS#11 module without login, as JSON, for `token list`.
    #[command(hide = true)]
    ProbeModule {
        /// The module's family (pkcs11-config/); its variables are read from the environment.
        #[arg(long)]
        fragment: Option<String>,
        /// The file of the module, if it has no family.
        #[arg(long)]
        module: Option<PathBuf>,
    },
    /// Make a new token through its PKCS#11 module.
    #[command(hide = true)]
    InitToken(InitializeArguments),
}

/// The arguments of a token worker.
#[derive(Debug, Args)]
pub struct WorkerArguments {
    /// The token's name in the configuration.
    pub name: String,
    /// The configuration.
    #[arg(long)]
    pub config: PathBuf,
    /// The socket, instead of the configured one.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// Exit when standard input ends.
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// The token to initialize, and the files of its PINs. No PIN is an argument: every user of the
/// machine can read the arguments of a process.
#[derive(Clone, Debug, Args)]
pub struct InitializeArguments {
    /// The PKCS#11 module.
    #[arg(long)]
    pub module: PathBuf,
    /// The token's label.
    #[arg(long)]
    pub label: String,
    /// File of the user PIN; made if it does not exist.
    #[arg(long)]
    pub pin_file: PathBuf,
    /// File of the security officer's PIN; made if it does not exist.
    #[arg(long)]
    pub so_pin_file: PathBuf,
}
