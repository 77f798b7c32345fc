//! Reads and checks `[[token]]` of the configuration.
//!
//! [`TokenConfiguration`] is the text as it was read. [`TokenConfiguration::resolve`] checks it as
//! a whole and returns [`TokenSettings`], which daemon and worker use. Neither holds a PIN, only
//! the path of its file.

use crate::limits::SigningLimits;
use crate::tcti::{NoTcti, Tcti};
use hallmark_base::fragment::{Fragment, FragmentError, SESSIONS_MAX, TOKEN_NAME_BYTES_MAX};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest `CKA_LABEL` of a token: `CK_TOKEN_INFO.label` has 32 bytes.
const LABEL_BYTES_MAX: usize = 32;

const SIGN_DEADLINE_MS: std::ops::RangeInclusive<u32> = 100..=120_000;

/// Persistent handles that belong to the owner (TCG Registry of Reserved TPM 2.0 Handles, 2.3.1).
const OWNER_HANDLES: std::ops::RangeInclusive<u32> = 0x8100_0000..=0x817f_ffff;

/// The environment variable that keeps the TPM's library from writing to standard error.
const TSS2_LOG: (&str, &str) = ("TSS2_LOG", "all+none");

/// Words in the name of an environment variable whose value is a secret.
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

/// One `[[token]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenConfiguration {
    /// The token's name in the configuration: letters, digits and `-`.
    pub name: String,
    /// The interface of the token.
    pub kind: TokenKind,
    /// The family of its module (`pkcs11-config/`); excludes `module`.
    pub fragment: Option<String>,
    /// Path of its PKCS#11 module; excludes `fragment`.
    pub module: Option<PathBuf>,
    /// The label that it was initialized with. A TPM has none.
    #[serde(default)]
    pub label: String,
    /// Its serial number: needed if two tokens have one label; of a TPM, to allow no other TPM.
    pub serial: Option<String>,
    /// How a TPM is reached, in the syntax of tpm2-tools.
    pub tcti: Option<String>,
    /// The persistent handle of a TPM's primary key; without it, the key is made at each start.
    pub primary_handle: Option<u32>,
    /// The file with the PIN; a bare name is a systemd credential.
    pub credential: Option<PathBuf>,
    /// Signing sessions, one thread each; the family has a default.
    pub sessions: Option<usize>,
    /// How long one signature may take.
    #[serde(default = "sign_deadline_ms_default")]
    pub sign_deadline_ms: u32,
    /// Environment of the worker process, for modules that read their settings there.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The bounds of signatures, whatever the daemon asks for.
    #[serde(default)]
    pub limits: SigningLimits,
}

/// The interface of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    Pkcs11,
    Tpm,
}

fn sign_deadline_ms_default() -> u32 {
    5000
}

/// A token's configuration, checked.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// The token's name in the configuration.
    pub name: String,
    pub label: String,
    /// The serial number that the token must have, if one was configured.
    pub serial: Option<String>,
    /// The interface with its settings.
    pub interface: Interface,
    /// The file with the PIN; `None` for a family without login. It stays a bare name without
    /// `$CREDENTIALS_DIRECTORY`: before a login, call
    /// [`require_credential`](Self::require_credential).
    pub credential: Option<PathBuf>,
    /// Signing sessions, one thread each.
    pub sessions: usize,
    /// How long one signature may take.
    pub sign_deadline: Duration,
    /// Environment of the worker process.
    pub environment: BTreeMap<String, String>,
    /// The value that the module needs in `pReserved` of `C_Initialize`.
    pub initialize_argument: Option<CString>,
}

/// The interface of a token with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Through a PKCS#11 module of this family.
    Pkcs11(Box<Fragment>),
    /// As a TPM 2.0.
    Tpm(TpmSettings),
}

impl Interface {
    /// Returns the family of the PKCS#11 module; `None` for a TPM.
    pub fn family(&self) -> Option<&Fragment> {
        match self {
            Interface::Pkcs11(fragment) => Some(fragment),
            Interface::Tpm(_) => None,
        }
    }
}

/// The settings of a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmSettings {
    /// How it is reached.
    pub tcti: Tcti,
    /// The persistent handle of its primary key.
    pub primary_handle: Option<u32>,
}

/// Why a token's configuration cannot be used.
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
    #[error(
        "`primary_handle` must be one of the owner's, {:#x} to {:#x}",
        OWNER_HANDLES.start(),
        OWNER_HANDLES.end()
    )]
    PrimaryHandle,
    #[error("a TPM does one thing at a time: `sessions` must be 1")]
    TpmSessions,
    #[error("`label` must have 1 to {LABEL_BYTES_MAX} bytes")]
    Label,
    #[error("`sessions` must be 1 to {0}")]
    Sessions(usize),
    #[error(
        "`sign_deadline_ms` must be {} to {}",
        SIGN_DEADLINE_MS.start(),
        SIGN_DEADLINE_MS.end()
    )]
    Deadline,
    #[error("`credential` is missing: this family needs a login")]
    NoCredential,
    #[error(
        "`credential` {0:?} is a bare name, and there is no $CREDENTIALS_DIRECTORY: give the unit \
         a LoadCredential= or LoadCredentialEncrypted= of that name, or name the file with its path"
    )]
    NoCredentialsDirectory(PathBuf),
    #[error("`environment` must not hold secrets, and {0:?} looks like one; use `credential`")]
    SecretInEnvironment(String),
    #[error("`environment` lacks {0:?}, without which this family does not find its token")]
    EnvironmentMissing(String),
}

impl TokenSettings {
    /// Fails if the credential is to come from systemd and systemd has not passed it. Only the
    /// worker needs this: with one unit per token, only the worker's unit gets the credential.
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
    /// Checks the configuration and returns the settings.
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
            TokenKind::Pkcs11 => Ok(Interface::Pkcs11(Box::new(self.family()?))),
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

    /// Returns the configured number of sessions, or the family's default. A TPM has one.
    fn session_count(&self, family: Option<&Fragment>) -> Result<usize, Problem> {
        let usual = family.map_or(1, |fragment| fragment.sessions);
        let most = family.map_or(1, |fragment| SESSIONS_MAX.min(fragment.sessions_max));
        match self.sessions.unwrap_or(usual) {
            sessions if family.is_none() && sessions != 1 => Err(Problem::TpmSessions),
            sessions if (1..=most).contains(&sessions) => Ok(sessions),
            _ => Err(Problem::Sessions(most)),
        }
    }

    /// Returns the configured environment, and for a TPM the setting of its library's log.
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
    use hallmark_base::toml_error::where_and_why;

    const GOOD: &str = r#"
        name = "factory"
        kind = "pkcs11"
        fragment = "softhsm2"
        label = "factory"
        credential = "factory-pin"
        environment = { SOFTHSM2_CONF = "/var/lib/hallmark/softhsm2.conf" }
    "#;

    fn resolve(text: &str) -> Result<TokenSettings, String> {
        let read: TokenConfiguration =
            toml::from_str(text).map_err(|error| where_and_why(text, &error))?;
        read.resolve(Some(Path::new("/run/credentials")))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_bare_credential_is_a_file_in_the_credentials_directory() {
        let settings = resolve(GOOD).expect("good");
        assert_eq!(
            settings.credential.as_deref(),
            Some(Path::new("/run/credentials/factory-pin"))
        );
        assert_eq!(settings.sessions, 2, "the family's number");
        settings.require_credential().expect("it is there");
    }

    #[test]
    fn only_a_login_needs_the_credentials_directory() {
        let read: TokenConfiguration = toml::from_str(GOOD).expect("good");
        let settings = read.resolve(None).expect("enough to ask a worker");
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
            ("label", "pin = \"1234\"\nlabel", "is not known"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = resolve(&text).expect_err(&text);
            assert!(error.contains(reason), "{error} should say {reason:?}");
        }
    }
}
