//! Defines `hallmark custodian`.

use crate::custodian::Custodian;
use clap::Subcommand;
use std::path::PathBuf;

/// `hallmark custodian`
#[derive(Debug, Subcommand)]
pub enum CustodianCommand {
    /// Split the PIN of a token into shares, one for each custodian. Needs no daemon.
    Split {
        /// The file with the PIN.
        #[arg(long, value_name = "FILE")]
        pin: PathBuf,
        /// How many shares open it.
        #[arg(long, value_name = "NUMBER")]
        threshold: u8,
        /// The folder for the shares.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The custodians: NAME=RECIPIENT encrypts the share to the key of `age-keygen` that only
        /// this person has, and NAME alone writes it as it is.
        #[arg(required = true, value_name = "NAME[=RECIPIENT]")]
        custodians: Vec<Custodian>,
    },
    /// Open the PIN by enough shares, into a file in memory. Needs no daemon.
    Open {
        /// The new file for the PIN, below /run or /dev/shm.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The identities that decrypt shares; may be repeated.
        #[arg(long, value_name = "FILE")]
        identity: Vec<PathBuf>,
        /// The shares.
        #[arg(required = true)]
        shares: Vec<PathBuf>,
    },
    /// Print the script of a ceremony with custodians, to be followed step by step and signed.
    Script {
        /// The ceremony file (TOML).
        file: PathBuf,
        /// How many shares open the PIN.
        #[arg(long, value_name = "NUMBER")]
        threshold: u8,
        /// The custodians.
        #[arg(required = true, value_name = "NAME")]
        custodians: Vec<Custodian>,
    },
}
