//! Defines `hallmark roll`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `hallmark roll`
#[derive(Debug, Subcommand)]
pub enum RollCommand {
    /// Start the rollover of a device's leaf or of an authority.
    Start(StartRoll),
    /// Approve the next step of an authority's rollover.
    Approve {
        /// The rollover's number.
        id: i64,
        /// Approve although the conditions are not met; the reason is audited.
        #[arg(long, value_name = "REASON")]
        r#override: Option<String>,
    },
    /// List all rollovers, newest first.
    List {
        /// Only open rollovers.
        #[arg(long)]
        open: bool,
    },
    /// Show one rollover, and what it waits for.
    Show {
        /// The rollover's number.
        id: i64,
        /// First wait until it has ended, and show its state and how many devices it has reached.
        #[arg(long)]
        follow: bool,
    },
    /// Abort a rollover before its cut-over; the old certificate stays in service.
    Abort {
        /// The rollover's number.
        id: i64,
        /// Abort although the device was not observed with its old leaf; the reason.
        #[arg(long, value_name = "REASON")]
        r#override: Option<String>,
    },
}

/// `hallmark roll start --authority`
#[derive(Debug, Args)]
pub struct AuthorityRoll {
    /// The authority to roll over, instead of a device.
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    pub authority: Option<String>,
    /// How long the next certificate is valid (5y), if not as long as the old one.
    #[arg(long, requires = "authority")]
    pub validity: Option<String>,
    /// The type of the next key, if not that of the old key.
    #[arg(long, requires = "authority")]
    pub key_type: Option<String>,
    /// After a compromise: the compromised generation, if not the serving one.
    #[arg(long, requires = "authority")]
    pub generation: Option<i64>,
}

/// `hallmark roll start`
#[derive(Debug, Args)]
pub struct StartRoll {
    /// The device's registration id.
    #[arg(required_unless_present = "authority")]
    pub id: Option<String>,
    /// The reason, for the audit journal.
    #[arg(long, value_enum)]
    pub reason: Reason,
    /// After a compromise: the compromised slot.
    #[arg(long, value_enum, default_value = "both")]
    pub slot: Slot,
    /// After a compromise: the request for the new leaf (PKCS #10), if available.
    #[arg(long)]
    pub csr: Option<PathBuf>,
    /// The profile of the new leaf, if not the one that the device is registered with.
    #[arg(long, requires = "csr")]
    pub profile: Option<String>,
    /// After a compromise: the treatment of the device's hub identity.
    #[arg(long, value_enum)]
    pub hub: Option<Hub>,
    /// Write the new leaf and its chain into this file (PEM).
    #[arg(long, requires = "csr")]
    pub out: Option<PathBuf>,
    /// Options of an authority's rollover.
    #[command(flatten)]
    pub of: AuthorityRoll,
}

/// A slot of an enrollment.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Slot {
    /// The primary slot.
    Primary,
    /// The secondary slot.
    Secondary,
    /// Both slots.
    Both,
}

impl Slot {
    /// Returns the name in the API.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Slot::Primary => Some("primary"),
            Slot::Secondary => Some("secondary"),
            Slot::Both => None,
        }
    }
}

/// The treatment of a hub identity.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Hub {
    /// The identity is deleted at once.
    Delete,
    /// The identity stays until the device has registered with its new leaf.
    Reprovision,
}

impl Hub {
    /// Returns the name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Hub::Delete => "delete",
            Hub::Reprovision => "reprovision",
        }
    }
}

/// The reason for a rollover.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Reason {
    /// The certificate expires.
    Expiry,
    /// The certificate is compromised.
    Compromise,
}

impl Reason {
    /// Returns the name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Expiry => "expiry",
            Reason::Compromise => "compromise",
        }
    }
}
