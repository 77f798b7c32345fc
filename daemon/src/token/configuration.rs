//! `[[token]]` of the configuration: what was said, and what it means.
//!
//! [`TokenConfiguration`] is what was said. [`TokenConfiguration::resolve`] checks it as a whole and
//! gives [`TokenSettings`], which is what the rest of [`token`](super) works with. Neither ever
//! holds a PIN, only the path of the file that does.

use super::fragment::{Fragment, FragmentError, SESSIONS_MAX, TOKEN_NAME_BYTES_MAX};
use super::tpm::tcti::{NoTcti, Tcti};
use crate::files;
use crate::toml_error::where_and_why;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Longest `CKA_LABEL` of a token: `CK_TOKEN_INFO.label` has 32 bytes.
const LABEL_BYTES_MAX: usize = 32;

/// Limits of `sign_deadline_ms`.
const SIGN_DEADLINE_MS: std::ops::RangeInclusive<u32> = 100..=120_000;

/// Persistent handles that belong to the owner (TCG Registry of Reserved TPM 2.0 Handles, 2.3.1).
const OWNER_HANDLES: std::ops::RangeInclusive<u32> = 0x8100_0000..=0x817f_ffff;

/// What keeps the TPM's library from writing its own lines to standard error, and where it is said.
const TSS2_LOG: (&str, &str) = ("TSS2_LOG", "all+none");

/// Words that, as part of an environment variable's name, say that its value is a secret.
const SECRET_WORDS: &[&str] = &[
    "PIN",
    "PASS",
    "PASSWD",
    "PASSWORD",
    "PASSPHRASE",
    "SECRET",
    "CREDENTIAL",
    "CREDENTIALS",
];

/// What a worker reads of the configuration file. The rest is not its business, and is checked by
/// `serve`.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenFile {
    /// The daemon's state directory.
    state_dir: PathBuf,
    runtime_dir: Option<PathBuf>,
    token_state_dir: Option<PathBuf>,
    /// The tokens.
    #[serde(default)]
    pub token: Vec<TokenConfiguration>,
}

/// Where a worker listens. `serve` and the worker agree by both asking here.
pub fn worker_socket(runtime_dir: &Path, name: &str) -> PathBuf {
    runtime_dir.join(format!("token-{name}.sock"))
}

/// Why there is nothing that a worker could be started with.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read {path:?}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not as the documentation has it.
    #[error("cannot use {path:?}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The file names other tokens.
    #[error("there is no [[token]] named {0:?}")]
    NoSuchToken(String),
}

impl TokenFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = files::read_text(path, FILE_BYTES_MAX);
        let text = text.map_err(|error| TokenFileError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        toml::from_str(&text).map_err(|error| TokenFileError::Malformed {
            path: path.to_owned(),
            reason: where_and_why(&text, &error),
        })
    }

    /// The token `name`.
    pub fn token(&self, name: &str) -> Result<TokenConfiguration, TokenFileError> {
        let token = self.token.iter().find(|token| token.name == name);
        token
            .cloned()
            .ok_or_else(|| TokenFileError::NoSuchToken(name.to_owned()))
    }

    /// Where the worker of the token `name` listens unless it is told another place.
    pub fn socket(&self, name: &str) -> PathBuf {
        worker_socket(self.runtime_dir.as_ref().unwrap_or(&self.state_dir), name)
    }

    /// Where workers keep park files, their TPMs' anchors and their locks.
    pub fn state_directory(&self) -> &Path {
        self.token_state_dir.as_ref().unwrap_or(&self.state_dir)
    }
}

/// One `[[token]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfiguration {
    /// The token's name here: letters, digits and `-`.
    pub name: String,
    /// Which interface it has.
    pub kind: TokenKind,
    /// Its family (`pkcs11-config/`); or `module`.
    pub fragment: Option<String>,
    /// Path of its PKCS#11 module; or `fragment`.
    pub module: Option<PathBuf>,
    /// The label it was initialised with. A TPM has none.
    #[serde(default)]
    pub label: String,
    /// Its serial number, where two tokens may carry one label; or a TPM's, to allow no other.
    pub serial: Option<String>,
    /// How a TPM is reached, in the words of tpm2-tools.
    pub tcti: Option<String>,
    /// Where a TPM's primary key is persistent; without it, the key is made at each start.
    pub primary_handle: Option<u32>,
    /// The file that holds the PIN; a bare name is a systemd credential.
    pub credential: Option<PathBuf>,
    /// Signing sessions, one thread each; the family knows a good number.
    pub sessions: Option<usize>,
    /// How long one signature may take.
    #[serde(default = "sign_deadline_ms_default")]
    pub sign_deadline_ms: u32,
    /// Environment of the worker process, for modules that are configured that way.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// The interfaces through which a token is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// A PKCS#11 module.
    Pkcs11,
    /// A TPM 2.0.
    Tpm,
}

fn sign_deadline_ms_default() -> u32 {
    5000
}

/// A token's configuration, checked.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// Its name.
    pub name: String,
    /// Its label.
    pub label: String,
    /// Its serial number, where one was given.
    pub serial: Option<String>,
    /// Its interface, and what that needs.
    pub interface: Interface,
    /// The file that holds the PIN; `None` for a family without login. A bare name if there is no
    /// `$CREDENTIALS_DIRECTORY`: whoever logs in asks [`require_credential`](Self::require_credential).
    pub credential: Option<PathBuf>,
    /// Signing sessions.
    pub sessions: usize,
    /// How long one signature may take.
    pub sign_deadline: Duration,
    /// Environment of the worker process.
    pub environment: BTreeMap<String, String>,
    /// What its module wants in `pReserved` of `C_Initialize`.
    pub initialize_argument: Option<CString>,
}

/// How a token is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Through a PKCS#11 module of this family.
    Pkcs11(Fragment),
    /// As a TPM 2.0.
    Tpm(TpmSettings),
}

impl Interface {
    /// The family of modules, where it is one.
    pub fn family(&self) -> Option<&Fragment> {
        match self {
            Interface::Pkcs11(fragment) => Some(fragment),
            Interface::Tpm(_) => None,
        }
    }
}

/// What is to be known of a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmSettings {
    /// The way to it.
    pub tcti: Tcti,
    /// Where its primary key is persistent.
    pub primary_handle: Option<u32>,
}

/// What contradicts itself in a token's configuration.
#[derive(Debug, thiserror::Error)]
#[error("token {token:?}: {problem}")]
pub struct TokenConfigurationError {
    token: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the name must be 1 to {TOKEN_NAME_BYTES_MAX} letters, digits and '-'")]
    Name,
    #[error("exactly one of `fragment` and `module` must be given")]
    Module,
    #[error("`module` must be an absolute path")]
    RelativeModule,
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    #[error("`tcti` and `primary_handle` are for kind = \"tpm\"")]
    NotATpm,
    #[error("a TPM has no `fragment`, `module` or `label`; it has a `tcti`")]
    NotAModule,
    #[error("`tcti` is missing: say how the TPM is reached, as in \"device:/dev/tpmrm0\"")]
    NoTcti,
    #[error("`tcti`: {0}")]
    Tcti(#[from] NoTcti),
    #[error("`primary_handle` must be one of the owner's, {:#x} to {:#x}", OWNER_HANDLES.start(), OWNER_HANDLES.end())]
    PrimaryHandle,
    #[error("a TPM does one thing at a time: `sessions` must be 1")]
    TpmSessions,
    #[error("`label` must have 1 to {LABEL_BYTES_MAX} bytes")]
    Label,
    #[error("`sessions` must be 1 to {0}")]
    Sessions(usize),
    #[error("`sign_deadline_ms` must be {} to {}", SIGN_DEADLINE_MS.start(), SIGN_DEADLINE_MS.end())]
    Deadline,
    #[error("`credential` is missing: this family needs a login")]
    NoCredential,
    #[error(
        "`credential` {0:?} is a bare name, and there is no $CREDENTIALS_DIRECTORY: give the unit a \
         LoadCredential= or LoadCredentialEncrypted= of that name, or name the file with its path"
    )]
    NoCredentialsDirectory(PathBuf),
    #[error("`environment` must not hold secrets, and {0:?} looks like one; use `credential`")]
    SecretInEnvironment(String),
    #[error("`environment` lacks {0:?}, without which this family does not find its token")]
    EnvironmentMissing(String),
}

impl TokenSettings {
    /// Refuses a credential that systemd was to bring and has not brought. For whoever loads the
    /// token's library; where a worker of another unit does, only that unit has the credential.
    pub fn require_credential(&self) -> Result<(), TokenConfigurationError> {
        match &self.credential {
            Some(path) if is_bare(path) => Err(TokenConfigurationError {
                token: self.name.clone(),
                problem: Problem::NoCredentialsDirectory(path.clone()),
            }),
            _ => Ok(()),
        }
    }
}

fn is_bare(credential: &Path) -> bool {
    credential.components().count() <= 1
}

impl TokenConfiguration {
    /// Checks what was said, and says what it means.
    ///
    /// `credentials_directory` is `$CREDENTIALS_DIRECTORY`, as systemd sets it.
    pub fn resolve(
        &self,
        credentials_directory: Option<&Path>,
    ) -> Result<TokenSettings, TokenConfigurationError> {
        self.checked(credentials_directory)
            .map_err(|problem| TokenConfigurationError {
                token: self.name.clone(),
                problem,
            })
    }

    fn checked(&self, credentials_directory: Option<&Path>) -> Result<TokenSettings, Problem> {
        self.check_name()?;
        let interface = self.interface()?;
        let family = interface.family();
        self.check_environment(family)?;
        if !SIGN_DEADLINE_MS.contains(&self.sign_deadline_ms) {
            return Err(Problem::Deadline);
        }
        Ok(TokenSettings {
            name: self.name.clone(),
            label: match interface {
                Interface::Pkcs11(_) => self.label.clone(),
                Interface::Tpm(_) => self.name.clone(),
            },
            serial: self.serial.clone(),
            credential: self.credential_path(family, credentials_directory)?,
            sessions: self.session_count(family)?,
            sign_deadline: Duration::from_millis(self.sign_deadline_ms.into()),
            environment: self.whole_environment(family),
            initialize_argument: match family {
                Some(family) => family.initialize_argument(&self.environment)?,
                None => None,
            },
            interface,
        })
    }

    fn check_name(&self) -> Result<(), Problem> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=TOKEN_NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return Err(Problem::Name);
        }
        Ok(())
    }

    fn interface(&self) -> Result<Interface, Problem> {
        match self.kind {
            TokenKind::Pkcs11 if self.tcti.is_some() || self.primary_handle.is_some() => {
                Err(Problem::NotATpm)
            }
            TokenKind::Pkcs11 if !(1..=LABEL_BYTES_MAX).contains(&self.label.len()) => {
                Err(Problem::Label)
            }
            TokenKind::Pkcs11 => Ok(Interface::Pkcs11(self.family()?)),
            TokenKind::Tpm => Ok(Interface::Tpm(self.tpm()?)),
        }
    }

    fn tpm(&self) -> Result<TpmSettings, Problem> {
        if self.fragment.is_some() || self.module.is_some() || !self.label.is_empty() {
            return Err(Problem::NotAModule);
        }
        let handle = self.primary_handle;
        if handle.is_some_and(|handle| !OWNER_HANDLES.contains(&handle)) {
            return Err(Problem::PrimaryHandle);
        }
        Ok(TpmSettings {
            tcti: self.tcti.as_deref().ok_or(Problem::NoTcti)?.parse()?,
            primary_handle: handle,
        })
    }

    /// The family's number, or the one that was asked for; a TPM has one.
    fn session_count(&self, family: Option<&Fragment>) -> Result<usize, Problem> {
        let usual = family.map_or(1, |fragment| fragment.sessions);
        let most = family.map_or(1, |fragment| SESSIONS_MAX.min(fragment.sessions_max));
        match self.sessions.unwrap_or(usual) {
            sessions if family.is_none() && sessions != 1 => Err(Problem::TpmSessions),
            sessions if (1..=most).contains(&sessions) => Ok(sessions),
            _ => Err(Problem::Sessions(most)),
        }
    }

    /// What was said, and what a TPM's library wants besides.
    fn whole_environment(&self, family: Option<&Fragment>) -> BTreeMap<String, String> {
        let mut environment = self.environment.clone();
        if family.is_none() {
            let (name, value) = TSS2_LOG;
            environment
                .entry(name.to_owned())
                .or_insert(value.to_owned());
        }
        environment
    }

    fn family(&self) -> Result<Fragment, Problem> {
        match (&self.fragment, &self.module) {
            (Some(name), None) => Ok(Fragment::shipped(name)?),
            (None, Some(module)) if module.is_absolute() => Ok(Fragment::unknown_family(module)),
            (None, Some(_)) => Err(Problem::RelativeModule),
            _ => Err(Problem::Module),
        }
    }

    fn check_environment(&self, family: Option<&Fragment>) -> Result<(), Problem> {
        let is_secret = |name: &str| {
            name.to_ascii_uppercase()
                .split('_')
                .any(|w| SECRET_WORDS.contains(&w))
        };
        if let Some(name) = self.environment.keys().find(|name| is_secret(name)) {
            return Err(Problem::SecretInEnvironment(name.clone()));
        }
        let mut wanted = family.into_iter().flat_map(|family| &family.environment);
        match wanted.find(|name| !self.environment.contains_key(*name)) {
            Some(name) => Err(Problem::EnvironmentMissing(name.clone())),
            None => Ok(()),
        }
    }

    fn credential_path(
        &self,
        family: Option<&Fragment>,
        directory: Option<&Path>,
    ) -> Result<Option<PathBuf>, Problem> {
        match &self.credential {
            None if family.is_none_or(|family| family.login) => Err(Problem::NoCredential),
            None => Ok(None),
            Some(path) if is_bare(path) => match directory {
                Some(directory) => Ok(Some(directory.join(path))),
                None => Ok(Some(path.clone())),
            },
            Some(path) => Ok(Some(path.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "factory"
        kind = "pkcs11"
        fragment = "softhsm2"
        label = "factory"
        credential = "factory-pin"
        environment = { SOFTHSM2_CONF = "/var/lib/hallmark/softhsm2.conf" }
    "#;

    fn resolve(text: &str) -> Result<TokenSettings, String> {
        let said: TokenConfiguration =
            toml::from_str(text).map_err(|error| where_and_why(text, &error))?;
        said.resolve(Some(Path::new("/run/credentials")))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_bare_credential_is_looked_for_where_systemd_puts_it() {
        let settings = resolve(GOOD).expect("good");
        assert_eq!(
            settings.credential.as_deref(),
            Some(Path::new("/run/credentials/factory-pin"))
        );
        assert_eq!(settings.sessions, 2, "the family's number");
        settings.require_credential().expect("it is there");
    }

    #[test]
    fn only_whoever_logs_in_needs_the_credentials_directory() {
        let said: TokenConfiguration = toml::from_str(GOOD).expect("good");
        let settings = said.resolve(None).expect("enough to ask a worker");
        let error = settings.require_credential().expect_err("no directory");
        assert!(error.to_string().contains("LoadCredential="), "{error}");
    }

    const GOOD_TPM: &str = r#"
        name = "gate"
        kind = "tpm"
        tcti = "device:/dev/tpmrm0"
        credential = "gate-secret"
    "#;

    #[test]
    fn a_tpm_has_one_session_and_a_library_that_is_quiet() {
        let settings = resolve(GOOD_TPM).expect("good");
        assert_eq!((settings.sessions, settings.label.as_str()), (1, "gate"));
        assert_eq!(settings.environment["TSS2_LOG"], "all+none");
        for (from, to, reason) in [
            ("tcti", "sessions = 2\ntcti", "`sessions` must be 1"),
            ("tcti", "label = \"x\"\ntcti", "a TPM has no"),
            ("tcti", "fragment = \"softhsm2\"\ntcti", "a TPM has no"),
            (
                "tcti",
                "primary_handle = 0x80000000\ntcti",
                "one of the owner's",
            ),
            ("tcti = \"device:/dev/tpmrm0\"", "", "`tcti` is missing"),
            ("device:", "usb:", "none of the kinds"),
            (
                "credential = \"gate-secret\"",
                "",
                "`credential` is missing",
            ),
            ("\"tpm\"", "\"pkcs11\"", "are for kind = \"tpm\""),
        ] {
            let text = GOOD_TPM.replacen(from, to, 1);
            let error = resolve(&text).expect_err(&text);
            assert!(error.contains(reason), "{error} should say {reason:?}");
        }
    }

    #[test]
    fn contradictions_are_refused_with_the_reason() {
        for (from, to, reason) in [
            ("\"factory\"", "\"fac/tory\"", "name must be"),
            ("fragment = \"softhsm2\"", "", "exactly one of"),
            (
                "fragment = \"softhsm2\"",
                "fragment = \"nitro\"",
                "no fragment \"nitro\"",
            ),
            (
                "fragment = \"softhsm2\"",
                "module = \"m.so\"",
                "absolute path",
            ),
            ("credential = \"factory-pin\"", "", "needs a login"),
            ("SOFTHSM2_CONF", "OTHER", "lacks \"SOFTHSM2_CONF\""),
            ("{ ", "{ TPM2_PIN = \"1\", ", "must not hold secrets"),
            ("label", "sessions = 0\nlabel", "`sessions` must be"),
            ("label", "pin = \"1234\"\nlabel", "unknown field"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = resolve(&text).expect_err(&text);
            assert!(error.contains(reason), "{error} should say {reason:?}");
        }
    }
}
