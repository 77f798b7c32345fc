//! Defines the command line of `hallmark`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Operate a Hallmark certificate authority.
#[derive(Debug, Parser)]
#[command(name = "hallmark", version, about)]
pub struct Arguments {
    /// The daemon's admin socket.
    #[arg(
        long,
        global = true,
        env = "HALLMARK_ADMIN_SOCKET",
        default_value = "/run/hallmark/admin.sock"
    )]
    pub admin_socket: PathBuf,
    /// Print the daemon's answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of `hallmark`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set up a service on this machine: ask, write the configuration, run the ceremony.
    Setup(Setup),
    /// Show the status of the daemon.
    Status,
    /// Reload the configuration of the daemon, completely or not at all.
    Reload,
    /// Create authorities from a file.
    #[command(subcommand)]
    Ceremony(CeremonyCommand),
    /// Show authorities.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Issue a certificate.
    Issue(Issue),
    /// Issue certificates for many devices; the repeat of the command goes on where it stopped.
    IssueBatch(IssueBatch),
    /// List, show and revoke certificates.
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Show devices.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Decide which enrollments provisioning services have.
    #[command(subcommand)]
    Enrollment(EnrollmentCommand),
    /// Show CA certificates at provisioning services.
    #[command(subcommand)]
    CaCertificate(CaCertificateCommand),
    /// Show blocks of devices, groups and generations.
    #[command(subcommand)]
    Block(BlockCommand),
    /// Replace certificates.
    #[command(subcommand)]
    Roll(RollCommand),
    /// Show changes that provisioning services do not have yet.
    #[command(subcommand)]
    Push(PushCommand),
    /// Confirm the machine's clock.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Inspect and test tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Back up and restore the database.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Read the audit journal.
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// `hallmark backup`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Copy the daemon's database into `state_dir/backup`, and keep the newest copies.
    Create {
        /// Also copy it into this folder, on another disk or machine.
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Check that a backup is intact and matches its manifest. Needs no daemon.
    Verify {
        /// The copy (`hallmark-….db`), with its manifest beside it.
        file: PathBuf,
    },
    /// Replace the database by a backup, while no daemon runs.
    Restore {
        /// The copy (`hallmark-….db`), with its manifest beside it.
        file: PathBuf,
        /// The daemon's configuration.
        #[arg(long)]
        config: PathBuf,
    },
}

/// `hallmark setup`
#[derive(Debug, Args)]
pub struct Setup {
    /// Take the answers from this file (TOML) instead of asking.
    #[arg(long)]
    pub answers: Option<PathBuf>,
    /// Write the files below this folder, for another machine; nothing is started.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// `hallmark token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List every visible PKCS#11 module, slot and token, without login.
    List,
    /// Show one token, and the authorities whose keys it holds.
    Show {
        /// The token's name in the configuration.
        name: String,
    },
    /// Test that a token does what the daemon needs; makes temporary keys and deletes them.
    Check {
        /// The token's name in the configuration.
        name: String,
    },
    /// Measure how fast a token signs; makes temporary keys and deletes them.
    Bench {
        /// The token's name in the configuration.
        name: String,
        /// Only this key type (p256, rsa2048 …); may be repeated.
        #[arg(long)]
        key_type: Vec<String>,
        /// Seconds for each measurement, 1 to 20.
        #[arg(long, default_value_t = 2)]
        seconds: u32,
    },
}

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
    /// Show one authority with all its generations.
    Show {
        /// The authority's name.
        name: String,
        /// Print only the certificates.
        #[arg(long)]
        pem: bool,
    },
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

/// `hallmark device`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List all devices.
    List,
    /// Show one device with its certificates and enrollments.
    Show {
        /// The device's registration id.
        id: String,
    },
    /// Block a device on revocation lists, provisioning services and hubs.
    Block(Device),
    /// Lift the block of a device.
    Unblock(Device),
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

/// `hallmark ca-certificate`
#[derive(Debug, Subcommand)]
pub enum CaCertificateCommand {
    /// List which CA certificates are verified where, as last observed.
    List,
}

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
        #[arg(value_enum)]
        kind: BlockKind,
        /// Registration id, group id, or authority.
        name: String,
        /// The number of a generation.
        #[arg(long, required_if_eq("kind", "generation"))]
        generation: Option<i64>,
    },
}

/// The kind of subject of a block.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BlockKind {
    /// One device.
    Device,
    /// All devices of an enrollment group.
    Group,
    /// All devices below a generation of an authority.
    Generation,
}

impl BlockKind {
    /// Returns the name in the API.
    pub fn name(self) -> &'static str {
        match self {
            BlockKind::Device => "device",
            BlockKind::Group => "group",
            BlockKind::Generation => "generation",
        }
    }
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

/// `hallmark push`
#[derive(Debug, Subcommand)]
pub enum PushCommand {
    /// List waiting changes, with age and reason.
    List,
    /// Retry waiting and parked changes now.
    Retry {
        /// Only this enrollment or CA certificate.
        name: Option<String>,
    },
}

/// `hallmark clock`
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// Confirm that the clock is right, despite later recorded times, and sign again.
    Accept,
}

/// `hallmark audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the newest entries, the newest at the end.
    Show {
        /// The oldest entries after this sequence number instead.
        #[arg(long)]
        after: Option<i64>,
        /// The newest entries before this sequence number.
        #[arg(long, conflicts_with = "after")]
        before: Option<i64>,
        /// How many entries, 1 to 1000.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Verify the hash chain of all entries.
    Verify,
    /// Print the whole journal, one JSON object per line.
    Export,
}
