//! Parses the plan, which lists the calls that fail, and how. Each fault has one line:
//!
//! ```text
//! C_Sign 3 return 0x30        the third call of C_Sign returns CKR_DEVICE_ERROR
//! C_Login 1+ return 0xa4      every call of C_Login does so
//! C_Sign 1 delay 200          sleeps for 200 ms, then performs the call
//! C_Sign 1 hang               never returns
//! C_Sign 1 crash              aborts the process
//! C_Sign 1 crash-after        performs the call, then aborts the process
//! C_GenerateKeyPair 1 keep-public   makes the pair, deletes the private half, aborts the process
//! C_GenerateKeyPair 1 keep-private  makes the pair, deletes the public half, aborts the process
//! C_SignInit 2 close-session  closes the caller's session first, then performs the call
//! C_SignInit 2 logout         logs the caller's application out first
//! C_OpenSession 1+ write-protected            refuses read-write sessions
//! C_GetTokenInfo 1+ write-protected           adds CKF_WRITE_PROTECTED
//! C_GenerateKeyPair 1+ always-authenticate    makes keys that need a login for each signature
//! ```
//!
//! `keep-public` and `keep-private` leave the objects that remain when a process is killed between
//! the two halves of a generation: modules store one half after the other, and a signal hits that
//! moment only by chance.
//!
//! Calls are counted since the process first read this content of the file. An invalid line aborts
//! the process: a test with a misspelt fault must not pass.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub function: String,
    /// The number of the call, counted from 1.
    pub nth: u64,
    /// True for every later call, too.
    pub onwards: bool,
    /// The effect on the call.
    pub action: Action,
}

/// The effect instead of the call, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Returns this `CK_RV` without the call.
    Return(u64),
    /// Delays the call by this many milliseconds.
    Delay(u64),
    Hang,
    Crash,
    /// Performs the call, then aborts the process.
    CrashAfter,
    /// Makes a key pair, keeps only this half, then aborts the process.
    Keep(Half),
    /// Closes the session of the call first.
    CloseSession,
    /// Logs the session's application out first.
    Logout,
    /// Refuses read-write sessions, or shows the flag, as a write-protected token does.
    WriteProtect,
    /// Makes a key pair whose private half has `CKA_ALWAYS_AUTHENTICATE`.
    AlwaysAuthenticate,
}

/// One half of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Public,
    Private,
}

impl Fault {
    /// Makes a fault of the `nth` call of `function`.
    pub fn at(function: &str, nth: u64, action: Action) -> Self {
        Fault {
            function: function.to_owned(),
            nth,
            onwards: false,
            action,
        }
    }

    /// Makes a fault of the `nth` call of `function` and of every later one.
    pub fn from(function: &str, nth: u64, action: Action) -> Self {
        Fault {
            onwards: true,
            ..Fault::at(function, nth, action)
        }
    }

    /// Returns true if the fault applies to this call.
    pub(crate) fn comes(&self, function: &str, count: u64) -> bool {
        self.function == function && (count == self.nth || self.onwards && count > self.nth)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let onwards = if self.onwards { "+" } else { "" };
        write!(f, "{} {}{onwards} ", self.function, self.nth)?;
        match self.action {
            Action::Return(code) => write!(f, "return {code:#x}"),
            Action::Delay(milliseconds) => write!(f, "delay {milliseconds}"),
            Action::Hang => f.write_str("hang"),
            Action::Crash => f.write_str("crash"),
            Action::CrashAfter => f.write_str("crash-after"),
            Action::Keep(Half::Public) => f.write_str("keep-public"),
            Action::Keep(Half::Private) => f.write_str("keep-private"),
            Action::CloseSession => f.write_str("close-session"),
            Action::Logout => f.write_str("logout"),
            Action::WriteProtect => f.write_str("write-protected"),
            Action::AlwaysAuthenticate => f.write_str("always-authenticate"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let unknown = || format!("not a fault: {line:?}");
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [function, nth, action @ ..] = &words[..] else {
            return Err(unknown());
        };
        let action = match action {
            ["return", code] => {
                let digits = code.strip_prefix("0x").ok_or_else(unknown)?;
                Action::Return(u64::from_str_radix(digits, 16).map_err(|_| unknown())?)
            }
            ["delay", milliseconds] => Action::Delay(milliseconds.parse().map_err(|_| unknown())?),
            ["hang"] => Action::Hang,
            ["crash"] => Action::Crash,
            ["crash-after"] => Action::CrashAfter,
            ["keep-public"] => Action::Keep(Half::Public),
            ["keep-private"] => Action::Keep(Half::Private),
            ["close-session"] => Action::CloseSession,
            ["logout"] => Action::Logout,
            ["write-protected"] => Action::WriteProtect,
            ["always-authenticate"] => Action::AlwaysAuthenticate,
            _ => return Err(unknown()),
        };
        let once = nth.trim_end_matches('+');
        Ok(Fault {
            function: (*function).to_owned(),
            nth: once.parse().map_err(|_| unknown())?,
            onwards: once.len() < nth.len(),
            action,
        })
    }
}

/// Parses the content of a file.
pub(crate) fn parse(text: &str) -> Result<Vec<Fault>, String> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::parse)
        .collect()
}

/// The file of a plan, which a test writes for a module in another process.
#[derive(Clone, Debug)]
pub struct Plan {
    path: PathBuf,
}

impl Plan {
    /// Makes a plan in this file. Without a file no call fails.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Plan { path: path.into() }
    }

    /// Returns the path, for `PKCS11_FAULT_PLAN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the faults in one step, and clears the log.
    pub fn set(&self, faults: &[Fault]) -> io::Result<()> {
        let text: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
        let beside = self.path.with_extension("new");
        fs::write(&beside, text)?;
        match fs::remove_file(self.log()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(beside, &self.path)
    }

    /// Returns the faults injected since the last [`set`](Self::set), in their order and syntax.
    pub fn came(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns the path of the log.
    pub(crate) fn log(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".log");
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            any::<u64>().prop_map(Action::Return),
            any::<u64>().prop_map(Action::Delay),
            Just(Action::Hang),
            Just(Action::Crash),
            Just(Action::CrashAfter),
            Just(Action::Keep(Half::Public)),
            Just(Action::Keep(Half::Private)),
            Just(Action::CloseSession),
            Just(Action::Logout),
            Just(Action::WriteProtect),
            Just(Action::AlwaysAuthenticate),
        ]
    }

    proptest! {
        #[test]
        fn a_fault_is_read_as_it_was_written(
            function in "C_[A-Za-z]{1,20}", nth in any::<u64>(), onwards in any::<bool>(),
            action in action(),
        ) {
            let fault = Fault { function, nth, onwards, action };
            prop_assert_eq!(fault.to_string().parse(), Ok(fault));
        }

        #[test]
        fn any_text_is_faults_or_an_error(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn a_fault_comes_once_or_from_then_on() {
        let once = Fault::at("C_Sign", 2, Action::Hang);
        let onwards = Fault::from("C_Sign", 2, Action::Hang);
        let comes = |fault: &Fault| [1, 2, 3].map(|count| fault.comes("C_Sign", count));
        assert_eq!(comes(&once), [false, true, false]);
        assert_eq!(comes(&onwards), [false, true, true]);
        assert!(!once.comes("C_SignInit", 2));
    }
}
