//! The reasons why a command fails: as text, as a JSON object for `--json`, and as an exit code.

use crate::setup::Stop;
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;

/// The reason why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon refused the request, for a reason with a code of its own.
    Problem {
        code: String,
        detail: String,
        /// The request for an approval that waits, if that is the reason.
        approval: Option<Box<Value>>,
    },
    /// The daemon cannot answer now (503), for a reason with a code of its own.
    Busy { code: String, detail: String },
    /// The reader of the output has ended, as `head` does: nothing is said.
    ReaderGone,
    /// Something on this side failed, or the answer is no problem document.
    Failed(String),
    /// A file cannot be read or written.
    File(String),
    /// No daemon answers at the socket.
    Unreachable(String),
    /// The command line is wrong.
    Usage(String),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Usage(message) => Failure::Usage(message),
            Stop::Failed(error) => Failure::Failed(format!("{error:#}")),
        }
    }
}

impl Failure {
    /// The exit code of a wrong command line.
    pub(super) const USAGE: u8 = 2;
    /// The exit code that a shell shows for a program that SIGPIPE has ended.
    const READER_GONE: u8 = 128 + 13;

    /// Reads the message of a wrong command line: `error: `, and lines that say more.
    pub(super) fn of_arguments(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|it| !it.is_empty());
        let lines: Vec<_> = lines.collect();
        let text = lines.join("; ");
        Failure::Usage(text.strip_prefix("error: ").unwrap_or(&text).to_owned())
    }

    /// Returns the exit code: 1 refused or failed, 2 usage, 3 unreachable.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::Problem { .. }
            | Failure::Busy { .. }
            | Failure::Failed(_)
            | Failure::File(_) => 1,
            Failure::ReaderGone => Self::READER_GONE,
            Failure::Usage(_) => Self::USAGE,
            Failure::Unreachable(_) => 3,
        }
    }

    /// Reads a problem document (RFC 9457).
    pub(super) fn of_problem(problem: &Value) -> Self {
        let detail = problem["detail"].as_str().unwrap_or("no reason given");
        let detail = detail.to_owned();
        let code = problem["code"].as_str().map(str::to_owned);
        match (code, problem["status"].as_u64()) {
            (Some(code), Some(503)) => Failure::Busy { code, detail },
            (Some(code), _) => Failure::Problem {
                code,
                detail,
                approval: problem.get("approval").cloned().map(Box::new),
            },
            (None, _) => Failure::Failed(detail),
        }
    }

    pub(super) fn file(path: &Path, error: &std::io::Error) -> Self {
        Failure::File(format!("{}: {error}", path.display()))
    }

    /// Returns the code for programs: that of the daemon's answer, or one of this command's own.
    fn code(&self) -> &str {
        match self {
            Failure::Problem { code, .. } | Failure::Busy { code, .. } => code,
            Failure::ReaderGone => "reader_gone",
            Failure::Failed(_) => "command_failed",
            Failure::File(_) => "file_unusable",
            Failure::Unreachable(_) => "daemon_unreachable",
            Failure::Usage(_) => "usage",
        }
    }

    fn message(&self) -> &str {
        match self {
            Failure::Problem { detail, .. } | Failure::Busy { detail, .. } => detail,
            Failure::ReaderGone => "the reader of the output has ended",
            Failure::Failed(message)
            | Failure::File(message)
            | Failure::Unreachable(message)
            | Failure::Usage(message) => message,
        }
    }

    /// Returns what to do: the part of the message after the first semicolon says so.
    fn remedy(&self) -> String {
        if let Some((_, remedy)) = self.message().split_once("; ") {
            return remedy.to_owned();
        }
        match self {
            Failure::Problem { code, .. } | Failure::Busy { code, .. } => {
                format!("see {code} in the table of codes of docs/operations.md")
            }
            Failure::Failed(_) => "correct what the error names, and run the command again".into(),
            Failure::File(_) => "correct the path or its permissions, and run it again".into(),
            Failure::Unreachable(_) => {
                "start the daemon, or name its socket by --admin-socket".into()
            }
            Failure::Usage(_) => "see the command with --help".into(),
            Failure::ReaderGone => String::new(),
        }
    }

    /// Returns what to do if the message does not say it.
    pub(super) fn unsaid_remedy(&self) -> Option<String> {
        let is_said = self.message().contains("; ") || matches!(self, Failure::Usage(_));
        (!is_said).then(|| format!("What to do: {}.", self.remedy()))
    }

    /// Returns the object that `--json` prints. A command that failed although the daemon has
    /// answered adds that answer.
    pub(super) fn to_json(&self, answer: Option<Value>) -> Value {
        let mut object = json!({
            "code": self.code(), "error": self.message(), "remedy": self.remedy(),
        });
        if let Failure::Problem {
            approval: Some(approval),
            ..
        } = self
        {
            object["approval"] = (**approval).clone();
        }
        if let Some(answer) = answer {
            object["answer"] = answer;
        }
        object
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Problem { code, detail, .. } | Failure::Busy { code, detail } => {
                write!(f, "{detail} [{code}]")
            }
            other => f.write_str(other.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_code_error_and_remedy() {
        let problem =
            json!({ "code": "device_unknown", "detail": "there is no device; list them" });
        let failure = Failure::of_problem(&problem);
        assert_eq!(
            failure.to_json(None),
            json!({
                "code": "device_unknown", "error": "there is no device; list them",
                "remedy": "list them",
            })
        );
        let failure = Failure::file(Path::new("a.pem"), &std::io::ErrorKind::NotFound.into());
        let object = failure.to_json(Some(json!(1)));
        assert_eq!(
            (&object["code"], &object["answer"]),
            (&json!("file_unusable"), &json!(1))
        );
        assert!(object["remedy"].as_str().is_some_and(|it| !it.is_empty()));
    }
}
