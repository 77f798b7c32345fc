//! The command line of `hallmark`.

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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a service of this machine: asks, writes the configuration, runs the ceremony.
    Setup(Setup),
    /// Show how everything is.
    Status,
    /// Have the daemon take its configuration anew, whole or not at all.
    Reload,
    /// Make authorities from a file.
    #[command(subcommand)]
    Ceremony(CeremonyCommand),
    /// Show authorities.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Issue a certificate.
    Issue(Issue),
    /// Revoke certificates.
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Show devices.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Say what provisioning services shall hold.
    #[command(subcommand)]
    Enrollment(EnrollmentCommand),
    /// Replace certificates.
    #[command(subcommand)]
    Roll(RollCommand),
    /// Show what provisioning services do not have yet.
    #[command(subcommand)]
    Push(PushCommand),
    /// Vouch for the machine's clock.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Look at tokens, and try them.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Copy the database, and put a copy in its place.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Read the audit journal.
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// `hallmark backup`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Have the daemon copy its database into `state_dir/backup`; the newest are kept.
    Create {
        /// Copy it into this folder as well, on another disk or machine.
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Whether a backup is what its manifest says, and holds together. Needs no daemon.
    Verify {
        /// The copy (`hallmark-….db`), with its manifest beside it.
        file: PathBuf,
    },
    /// Put a backup in the place of the database, while no daemon runs.
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
    /// Every PKCS#11 module, slot and token in sight, without login.
    List,
    /// One token: what it says of itself, and whose keys are on it.
    Show {
        /// Its name in the configuration.
        name: String,
    },
    /// Whether a token does what the daemon needs; makes throw-away keys, and deletes them.
    Check {
        /// Its name in the configuration.
        name: String,
    },
    /// How fast a token signs; makes throw-away keys, and deletes them.
    Bench {
        /// Its name in the configuration.
        name: String,
        /// Only this kind of key (p256, rsa2048 …); may be repeated.
        #[arg(long)]
        key_type: Vec<String>,
        /// How long each measurement takes, 1 to 20.
        #[arg(long, default_value_t = 2)]
        seconds: u32,
    },
}

/// `hallmark ceremony`
#[derive(Debug, Subcommand)]
pub enum CeremonyCommand {
    /// Make the authorities that FILE describes; those that exist are left as they are.
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
    /// All authorities, issuers first.
    List,
    /// Keep all devices below a generation out.
    Block(Generation),
    /// Let the devices below a generation back in.
    Unblock(Generation),
    /// The request (PKCS #10) of an authority that somebody else certifies.
    Csr {
        /// Its name.
        name: String,
        /// Write it into this file.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Give an authority the certificate that its issuer elsewhere has made.
    Install {
        /// Its name.
        name: String,
        /// The certificate and all above it, up to the self-signed one (PEM).
        file: PathBuf,
    },
    /// One authority with all its generations.
    Show {
        /// Its name.
        name: String,
        /// Print only the certificates.
        #[arg(long)]
        pem: bool,
    },
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
    /// The request (PKCS #10, PEM).
    #[arg(long)]
    pub csr: PathBuf,
    /// Give a registered device this profile although it has another one.
    #[arg(long = "move")]
    pub moves: bool,
    /// Write the certificate and its chain into this file (PEM).
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `hallmark certificate`
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// Revoke a certificate that the daemon has issued: its holder is refused from now on.
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
    /// Why, in your words, for the audit journal.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cause: String,
}

/// `hallmark device`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// All devices.
    List,
    /// One device, its certificates and enrollments.
    Show {
        /// Its registration id.
        id: String,
    },
    /// Keep a device out: revocation list, provisioning services and hubs.
    Block {
        /// Its registration id.
        id: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a device back in.
    Unblock {
        /// Its registration id.
        id: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// `hallmark enrollment`
#[derive(Debug, Subcommand)]
pub enum EnrollmentCommand {
    /// All enrollments.
    List,
    /// One enrollment, as it shall be and as it was seen.
    Show {
        /// Registration id or group id.
        name: String,
    },
    /// Have a provisioning service hold an enrollment.
    Add(NewEnrollment),
    /// Keep all devices of a group out.
    Block(Group),
    /// Let the devices of a group back in.
    Unblock(Group),
    /// Have a provisioning service drop an enrollment.
    Remove {
        /// Remove it although a compromised leaf comes back by its group; why.
        #[arg(long, value_name = "REASON")]
        r#override: Option<String>,
        /// Which one.
        #[command(flatten)]
        which: Which,
        /// The provisioning service, where there are several.
        #[arg(long)]
        provisioning: Option<String>,
    },
}

/// `hallmark enrollment block`
#[derive(Debug, Args)]
pub struct Group {
    /// The group id.
    #[arg(long, value_name = "ID")]
    pub group: String,
    /// Why.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `hallmark authority block`
#[derive(Debug, Args)]
pub struct Generation {
    /// The authority's name.
    pub name: String,
    /// The generation's number.
    #[arg(long)]
    pub generation: i64,
    /// Why.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `hallmark enrollment add`
#[derive(Debug, Args)]
pub struct NewEnrollment {
    /// Which one.
    #[command(flatten)]
    pub which: Which,
    /// The authority of a group.
    #[arg(long, requires = "group")]
    pub authority: Option<String>,
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
    /// As the API has it. clap admits exactly one of the two.
    pub fn kind_and_name(&self) -> (&'static str, &str) {
        match (&self.individual, &self.group) {
            (Some(id), _) => ("individual", id),
            (None, group) => ("group", group.as_deref().unwrap_or_default()),
        }
    }
}

/// `hallmark roll`
#[derive(Debug, Subcommand)]
pub enum RollCommand {
    /// Start the roll of a device's leaf, or of an authority.
    Start(StartRoll),
    /// Give the word for the next step of an authority's roll.
    Approve {
        /// Its number.
        id: i64,
        /// Make the step although its guard does not hold; the reason is audited.
        #[arg(long, value_name = "REASON")]
        r#override: Option<String>,
    },
    /// All rolls, newest first.
    List {
        /// Only those under way.
        #[arg(long)]
        open: bool,
    },
    /// One roll, and what it waits for.
    Show {
        /// Its number.
        id: i64,
    },
    /// Give up a roll before its cut-over; the old certificate serves on.
    Abort {
        /// Its number.
        id: i64,
        /// Abort although the device was not seen on its old leaf; why.
        #[arg(long, value_name = "REASON")]
        r#override: Option<String>,
    },
}

/// `hallmark roll start --authority`
#[derive(Debug, Args)]
pub struct AuthorityRoll {
    /// The authority that is rolled, instead of a device.
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    pub authority: Option<String>,
    /// How long the next certificate is valid (5y), if not as long as the old one.
    #[arg(long, requires = "authority")]
    pub validity: Option<String>,
    /// The kind of the next key, if not that of the old one.
    #[arg(long, requires = "authority")]
    pub key_type: Option<String>,
    /// By compromise: the compromised generation, if not the one that serves.
    #[arg(long, requires = "authority")]
    pub generation: Option<i64>,
    /// Start although a limit of the service is reached; the reason is audited.
    #[arg(long, value_name = "REASON", requires = "authority")]
    pub r#override: Option<String>,
}

/// `hallmark roll start`
#[derive(Debug, Args)]
pub struct StartRoll {
    /// The device's registration id.
    #[arg(required_unless_present = "authority")]
    pub id: Option<String>,
    /// Why.
    #[arg(long, value_enum)]
    pub reason: Reason,
    /// By compromise: the slot that is compromised.
    #[arg(long, value_enum, default_value = "both")]
    pub slot: Slot,
    /// By compromise: the request for the new leaf (PKCS #10, PEM), if it is at hand.
    #[arg(long, requires = "profile")]
    pub csr: Option<PathBuf>,
    /// The profile of the new leaf.
    #[arg(long, requires = "csr")]
    pub profile: Option<String>,
    /// By compromise: what becomes of the device's hub identity.
    #[arg(long, value_enum)]
    pub hub: Option<Hub>,
    /// Write the new leaf and its chain into this file (PEM).
    #[arg(long, requires = "csr")]
    pub out: Option<PathBuf>,
    /// What is said of an authority's roll.
    #[command(flatten)]
    pub of: AuthorityRoll,
}

/// A slot of an enrollment.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Slot {
    /// The primary one.
    Primary,
    /// The secondary one.
    Secondary,
    /// Both.
    Both,
}

impl Slot {
    /// As the API has it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Slot::Primary => Some("primary"),
            Slot::Secondary => Some("secondary"),
            Slot::Both => None,
        }
    }
}

/// What becomes of a hub identity.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Hub {
    /// It goes at once.
    Delete,
    /// It stays until the device has registered with its new leaf.
    Reprovision,
}

impl Hub {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Hub::Delete => "delete",
            Hub::Reprovision => "reprovision",
        }
    }
}

/// Why a certificate is replaced.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Reason {
    /// It comes to its end.
    Expiry,
    /// It is in wrong hands.
    Compromise,
}

impl Reason {
    /// As the API has it.
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
    /// What waits, since when, and why.
    List,
    /// Try again now what waits or is parked.
    Retry {
        /// Only this enrollment or CA certificate.
        name: Option<String>,
    },
}

/// `hallmark clock`
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// The clock is right, whatever is on record: sign by it again.
    Accept,
}

/// `hallmark audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// A hundred entries.
    Show {
        /// Those after this sequence number.
        #[arg(long, default_value_t = 0)]
        after: i64,
    },
    /// Check the seal of every entry.
    Verify,
    /// The whole journal, a JSON object a line.
    Export,
}
