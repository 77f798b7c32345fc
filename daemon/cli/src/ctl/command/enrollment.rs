//! Defines `hallmark device`, `hallmark enrollment` and `hallmark block`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use hallmark_pki::enrollment::block_kind::BlockKind;

/// `hallmark device`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List all devices: the state of the leaf, the days left, the enrollment, and the block.
    List,
    /// Show one device: its leaf and what accepts it, its group or slots, and its certificates.
    Show {
        /// The device's registration id.
        id: String,
    },
    /// Block a device on revocation lists, provisioning services and hubs.
    Block(Device),
    /// Lift the block of a device.
    Unblock(Device),
    /// Let a device request its first certificate by a secret that works once.
    #[command(subcommand)]
    Credential(CredentialCommand),
}

/// `hallmark device credential`
#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Make a one-time credential, and print its secret, which is shown here alone.
    Make {
        /// The device's registration id.
        id: String,
        /// The profile of its certificate, where several profiles are for devices.
        #[arg(long)]
        profile: Option<String>,
        /// How long it lasts: a duration such as 24h, at most 30d.
        #[arg(long, default_value = "24h")]
        expires: String,
    },
    /// List one-time credentials, without their secrets.
    List,
    /// Revoke the one-time credential of a device.
    Revoke {
        /// The device's registration id.
        id: String,
    },
}

/// `hallmark device block`
#[derive(Debug, Args)]
pub struct Device {
    /// The device's registration id.
    pub id: String,
    #[command(flatten)]
    pub cause: Cause,
}

/// Why an operator blocks something, or lifts a block.
#[derive(Debug, Args)]
pub struct Cause {
    /// The reason, for the audit journal.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `hallmark enrollment`
#[derive(Debug, Subcommand)]
pub enum EnrollmentCommand {
    /// List all enrollments.
    List {
        /// Those at provisioning services that are not on record, as after a restore.
        #[arg(long)]
        unknown: bool,
    },
    /// Show one enrollment as desired and as observed.
    Show {
        /// Registration id or group id.
        name: String,
    },
    /// Add an enrollment to a provisioning service.
    Add(NewEnrollment),
    /// Take an enrollment that is at a provisioning service, and not on record, on record as it is.
    Adopt {
        /// The enrollment.
        #[command(flatten)]
        which: Which,
        /// The provisioning service, where there are several.
        #[arg(long)]
        provisioning: Option<String>,
    },
    /// Block all devices of a group.
    Block(Group),
    /// Lift the block of a group.
    Unblock(Group),
    /// Remove an enrollment from a provisioning service.
    Remove {
        /// Remove it although its group accepts a compromised leaf again; the reason.
        #[arg(long, value_name = "REASON")]
        r#override: Option<String>,
        /// The enrollment.
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        service: Service,
    },
}

/// `hallmark enrollment block`
#[derive(Debug, Args)]
pub struct Group {
    /// The group id.
    #[arg(long, value_name = "ID")]
    pub group: String,
    #[command(flatten)]
    pub cause: Cause,
}

/// `hallmark enrollment add`
#[derive(Debug, Args)]
pub struct NewEnrollment {
    /// The enrollment.
    #[command(flatten)]
    pub which: Which,
    /// The authority of a group.
    #[arg(long, requires = "group")]
    pub authority: Option<String>,
    #[command(flatten)]
    pub service: Service,
}

/// The provisioning service of an enrollment.
#[derive(Debug, Args)]
pub struct Service {
    /// The provisioning service, where there are several.
    #[arg(long)]
    pub provisioning: Option<String>,
}

/// An enrollment's kind and name.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// One device, by its registration id.
    #[arg(long, value_name = "ID")]
    pub individual: Option<String>,
    /// All devices below an authority, by a group id.
    #[arg(long, value_name = "ID")]
    pub group: Option<String>,
}

impl Which {
    /// Returns kind and name for the API. clap accepts exactly one of the two.
    pub fn kind_and_name(&self) -> (&'static str, &str) {
        match (&self.individual, &self.group) {
            (Some(id), _) => ("individual", id),
            (None, group) => ("group", group.as_deref().unwrap_or_default()),
        }
    }
}

/// `hallmark block`
#[derive(Debug, Subcommand)]
pub enum BlockCommand {
    /// List blocks, newest first.
    List {
        /// Also lifted blocks.
        #[arg(long)]
        all: bool,
    },
    /// Show a block in force, and what each place has answered.
    Show {
        /// The kind of its subject.
        #[arg(value_parser = block_kind())]
        kind: BlockKind,
        /// Registration id, group id, or authority.
        name: String,
        /// The number of a generation.
        #[arg(long, required_if_eq("kind", "generation"))]
        generation: Option<i64>,
    },
}

/// Reads a kind of block by its name in the API.
fn block_kind() -> impl TypedValueParser<Value = BlockKind> {
    let kinds = BlockKind::ALL.map(|kind| {
        PossibleValue::new(kind.name()).help(match kind {
            BlockKind::Device => "One device",
            BlockKind::Group => "All devices of an enrollment group",
            BlockKind::Generation => "All devices below a generation of an authority",
        })
    });
    PossibleValuesParser::new(kinds)
        .try_map(|name| BlockKind::from_name(&name).ok_or("no kind of block"))
}
