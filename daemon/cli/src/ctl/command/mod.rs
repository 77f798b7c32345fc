//! Defines the command line of `hallmark`.

mod approval;
mod authority;
mod certificate;
mod custodian;
mod enrollment;
mod profile;
mod requests;
mod roll;

pub(super) use approval::{ApprovalCommand, Approve};
pub(super) use authority::{
    AuthorityCommand, CeremonyCommand, Import, SignSubordinate, SignTransfer,
};
pub(super) use certificate::{
    CertificateCommand, ExportCertificate, HoldCertificate, Issue, IssueBatch, ListCertificates,
    NamedCertificate, RevokeCertificate,
};
pub(super) use custodian::CustodianCommand;
pub(super) use enrollment::{BlockCommand, CredentialCommand, DeviceCommand, EnrollmentCommand};
pub(super) use profile::ProfileCommand;
pub(super) use roll::{RollCommand, StartRoll};

pub use requests::{FIRST_REQUESTS, FirstRequest, ON_THE_MACHINE};

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
    /// How lists are printed on a terminal: with every column and value whole, or as JSON.
    #[arg(short, long, global = true, value_name = "FORM")]
    pub output: Option<Form>,
    /// Do what another person has approved: the number of the request.
    #[arg(long, global = true, value_name = "ID")]
    pub approval: Option<i64>,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Wide,
    /// The same as --json.
    Json,
}

impl Arguments {
    /// Whether the answer is printed as JSON.
    pub fn json(&self) -> bool {
        self.json || self.output == Some(Form::Json)
    }
}

/// A command of `hallmark`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set up a service on this machine: ask, write the configuration, run the ceremony.
    Setup(Setup),
    /// Show in five lines whether all is well; exits 0 good, 1 attention, 2 critical, 3 no answer.
    Status(ShowStatus),
    /// Run every check, each with its remedy; exits 0 ok, 1 attention, 2 failed, 3 no answer.
    Doctor(RunDoctor),
    /// Open the console, the web pages of the daemon, for a browser on this machine.
    Console(OpenConsole),
    /// Show as which caller the daemon knows this user, and what the user may do.
    Caller,
    /// Reload the configuration of the daemon, completely or not at all.
    Reload,
    /// Create authorities from a file.
    #[command(subcommand)]
    Ceremony(CeremonyCommand),
    /// Split a token's PIN among people, so that a ceremony needs several of them.
    #[command(subcommand)]
    Custodian(CustodianCommand),
    /// Show authorities.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Issue a certificate.
    Issue(Issue),
    /// Issue certificates for many devices; the repeat of the command goes on where it stopped.
    IssueBatch(IssueBatch),
    /// Find, show, export, hold and revoke certificates.
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Show profiles and presets, and examples of what they would issue.
    #[command(subcommand)]
    Profile(ProfileCommand),
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
    /// Approve what another person asks for, by a signature.
    Approve(Approve),
    /// Show and reject requests that need the approval of a second person.
    #[command(subcommand)]
    Approval(ApprovalCommand),
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

/// `hallmark status`
#[derive(Debug, Args)]
pub struct ShowStatus {
    /// Show everything that the daemon says of itself, with all alarms.
    #[arg(long, conflicts_with = "watch")]
    pub verbose: bool,
    /// Show it again every two seconds, until interrupted.
    #[arg(long)]
    pub watch: bool,
}

/// `hallmark doctor`
#[derive(Debug, Args)]
pub struct RunDoctor {
    /// Only this check, as its line names it; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
}

/// `hallmark console`
#[derive(Debug, Args)]
pub struct OpenConsole {
    /// Listen on this port of 127.0.0.1, for example for a tunnel; otherwise on a free one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
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
        /// The copy (`hallmark-….db` or `.db.age`), with its manifest beside it.
        file: PathBuf,
        /// The identities that decrypt it, as `age-keygen` writes them. Without them only the bytes
        /// of an encrypted copy are compared.
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
    },
    /// Replace the database by a backup, while no daemon runs. First shows who will be accepted and
    /// what will be missing, and asks.
    Restore {
        /// The copy (`hallmark-….db` or `.db.age`), with its manifest beside it.
        file: PathBuf,
        /// The daemon's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The identities that decrypt it, as `age-keygen` writes them.
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
        /// Show it only, and change nothing.
        #[arg(long, conflicts_with = "yes")]
        preview: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
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

/// `hallmark ca-certificate`
#[derive(Debug, Subcommand)]
pub enum CaCertificateCommand {
    /// List which CA certificates are verified where, as last observed.
    List,
}

/// `hallmark push`
#[derive(Debug, Subcommand)]
pub enum PushCommand {
    /// List waiting changes, with age and reason.
    List {
        /// First wait until no change waits, and show how many do; fails if changes are parked.
        #[arg(long)]
        follow: bool,
    },
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

/// `hallmark audit show`
#[derive(Debug, Args)]
pub struct ShowAudit {
    /// The oldest entries after this sequence number instead, the oldest first.
    #[arg(long)]
    pub after: Option<i64>,
    /// The newest entries before this sequence number.
    #[arg(long, conflicts_with = "after")]
    pub before: Option<i64>,
    /// How many entries, 1 to 1000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Entries about this device, and its own requests.
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// Entries about this authority, its generations and its lists.
    #[arg(long, value_name = "NAME")]
    pub authority: Option<String>,
    /// Requests of this caller, named with or without its role.
    #[arg(long, value_name = "NAME")]
    pub caller: Option<String>,
    /// Since this date (2026-11-30), time (2026-11-30T12:00:00Z), or time ago (7d).
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Then show each new entry as it comes, until interrupted; the newest is last.
    #[arg(long, conflicts_with_all = ["after", "before"])]
    pub follow: bool,
}

/// `hallmark audit verify`
#[derive(Debug, Args)]
pub struct VerifyAudit {
    /// Verify this export instead, without a daemon.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub export: Option<PathBuf>,
    /// The public keys of the journal, as `hallmark audit key` prints them.
    #[arg(long, value_name = "PEM", requires = "export")]
    pub key: Option<PathBuf>,
    /// A copy of checkpoints that the journal must agree with.
    #[arg(long, value_name = "FILE", requires = "export")]
    pub expect: Option<PathBuf>,
}

/// `hallmark audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the newest entries, the newest first.
    Show(ShowAudit),
    /// Verify the whole journal: hash chain, checkpoints and schema, or an export of it.
    Verify(VerifyAudit),
    /// Write the whole journal with its checkpoints, one JSON object per line.
    Export {
        /// The file to write; without it, standard output.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show the public keys that have signed checkpoints, as PEM.
    Key,
    /// Accept the finding that stops issuance, after its cause was dealt with.
    Accept {
        /// The reason in your words, for the audit journal.
        #[arg(long)]
        reason: String,
    },
}
