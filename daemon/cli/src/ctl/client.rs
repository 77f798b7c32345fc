//! Sends HTTP requests over the admin socket, and classifies the failures.

use crate::setup::Stop;
use hallmark_base::socket_path;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::blocking::{RequestBuilder, Response};
use serde_json::Value;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

/// Longest wait for an answer; a ceremony with slow keys takes minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Rows of one page of a list.
const PAGE_ROWS: usize = 1_000;

/// The reason why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon refused the request, or something on this side failed.
    Refused(String),
    /// No daemon answers at the socket.
    Unreachable(String),
    /// The command line is wrong.
    Usage(String),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Usage(message) => Failure::Usage(message),
            Stop::Failed(error) => Failure::Refused(format!("{error:#}")),
        }
    }
}

impl Failure {
    /// Returns the exit code: 1 refused or failed, 2 usage (mostly clap's), 3 unreachable.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::Refused(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
        }
    }

    /// Reads a problem document (RFC 9457).
    pub(super) fn of_problem(problem: &Value) -> Self {
        let detail = problem["detail"].as_str().unwrap_or("no reason given");
        match problem["code"].as_str() {
            Some(code) => Failure::Refused(format!("{detail} [{code}]")),
            None => Failure::Refused(detail.to_owned()),
        }
    }

    pub(super) fn file(path: &Path, error: &std::io::Error) -> Self {
        Failure::Refused(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(message) | Failure::Unreachable(message) | Failure::Usage(message) => {
                f.write_str(message)
            }
        }
    }
}

/// Encodes a path segment or query value.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The body of a request that reports progress.
pub(super) enum StepsBody {
    /// The text of a file.
    Text(String),
    Json(Value),
}

/// A connection to the daemon's admin socket.
pub(super) struct Client {
    http: reqwest::blocking::Client,
    socket: String,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Result<Self, Failure> {
        socket_path::check(socket, "--admin-socket or HALLMARK_ADMIN_SOCKET")
            .map_err(|refusal| Failure::Usage(refusal.to_string()))?;
        let http = reqwest::blocking::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            // This socket has no TLS, so the machine needs no store of CA certificates.
            .tls_certs_only([])
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(|error| Failure::Refused(error.to_string()))?;
        Ok(Self {
            http,
            socket: socket.display().to_string(),
        })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        json(self.send(self.http.get(url(path)))?)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        json(self.send(self.http.post(url(path)).json(body))?)
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.http.delete(url(path))).map(drop)
    }

    /// Deletes, and returns the answer.
    pub(super) fn lift(&self, path: &str) -> Result<Value, Failure> {
        json(self.send(self.http.delete(url(path)))?)
    }

    /// Returns all pages of a list that is ordered by `key`. `path` may have a query.
    pub(super) fn pages(&self, path: &str, key: &str) -> Result<Value, Failure> {
        let mut all = Vec::new();
        let mut after = String::new();
        let mark = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.get(&format!("{path}{mark}limit={PAGE_ROWS}{after}"))?;
            let Value::Array(rows) = page else {
                return Ok(page);
            };
            let complete = rows.len() < PAGE_ROWS;
            let last = rows.last().map(|row| match &row[key] {
                Value::String(text) => text.clone(),
                number => number.to_string(),
            });
            after = format!("&after={}", segment(&last.unwrap_or_default()));
            all.extend(rows);
            if complete {
                return Ok(Value::Array(all));
            }
        }
    }

    /// Sends `body`, and passes each line of the answer to `line` when it arrives.
    pub(super) fn stream(
        &self,
        path: &str,
        body: StepsBody,
        mut line: impl FnMut(Value),
    ) -> Result<(), Failure> {
        let request = self.http.post(url(path));
        let response = self.send(match body {
            StepsBody::Text(text) => request.body(text),
            StepsBody::Json(value) => request.json(&value),
        })?;
        for text in BufReader::new(response).lines() {
            let text = text.map_err(|error| Failure::Unreachable(error.to_string()))?;
            line(serde_json::from_str(&text).map_err(|error| Failure::Refused(error.to_string()))?);
        }
        Ok(())
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().map_err(|error| {
            let socket = &self.socket;
            let cause = root_cause(&error);
            Failure::Unreachable(format!(
                "no daemon answers at {socket} ({cause}); is it running?"
            ))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json::<Value>() {
            Ok(problem) => Err(Failure::of_problem(&problem)),
            Err(_) => Err(Failure::Refused(format!("the daemon answered {status}"))),
        }
    }
}

fn json(response: Response) -> Result<Value, Failure> {
    response
        .json()
        .map_err(|error| Failure::Refused(error.to_string()))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Returns the URL. Its host is not used: the connection is the socket.
fn url(path: &str) -> String {
    format!("http://localhost{path}")
}
