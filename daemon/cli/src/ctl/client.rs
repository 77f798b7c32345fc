//! Sends HTTP requests over the admin socket, and says why one failed.

use super::failure::Failure;
use hallmark_base::socket_path;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LINK};
use rustix::process::geteuid;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// Longest wait for an answer; a ceremony with slow keys takes minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// The header that names the approval of a request.
const APPROVAL: HeaderName = HeaderName::from_static("hallmark-approval");
/// Rows of one page of a list.
const PAGE_ROWS: usize = 1_000;

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
pub(super) struct ApiClient {
    http: reqwest::blocking::Client,
    socket: String,
}

impl ApiClient {
    /// `approval` is the number of the request by which another person has approved what is sent.
    pub(super) fn new(socket: &Path, approval: Option<i64>) -> Result<Self, Failure> {
        socket_path::check(socket, "--admin-socket or HALLMARK_ADMIN_SOCKET")
            .map_err(|refusal| Failure::Usage(refusal.to_string()))?;
        let mut headers = HeaderMap::new();
        if let Some(id) = approval {
            headers.insert(APPROVAL, HeaderValue::from(id));
        }
        let http = reqwest::blocking::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            // This socket has no TLS, so the machine needs no store of CA certificates.
            .tls_certs_only([])
            .timeout(ANSWER_TIMEOUT)
            .default_headers(headers)
            .build()
            .map_err(|error| Failure::Failed(error.to_string()))?;
        Ok(Self {
            http,
            socket: socket.display().to_string(),
        })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        json(self.send(self.http.get(url(path)?))?)
    }

    /// Returns the first `count` rows of a list, page by page as the answers link them, and where
    /// the next row is, if there is one. `path` has a query.
    pub(super) fn linked(&self, path: &str, count: u32) -> Result<(Value, Option<i64>), Failure> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let left = (count as usize).saturating_sub(all.len()).min(PAGE_ROWS);
            let page = after.map_or_else(String::new, |it| format!("&after={it}"));
            let response = self.send(self.http.get(url(&format!("{path}limit={left}{page}"))?))?;
            after = next_page(&response);
            let Value::Array(rows) = json(response)? else {
                return Err(not_json());
            };
            all.extend(rows);
            if after.is_none() || all.len() >= count as usize {
                return Ok((Value::Array(all), after));
            }
        }
    }

    /// Returns the body of an answer that is no JSON.
    pub(super) fn bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let response = self.send(self.http.get(url(path)?))?;
        let body = response.bytes().map_err(|error| self.unanswered(&error))?;
        Ok(body.to_vec())
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        json(self.send(self.http.post(url(path)?).json(body))?)
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.http.delete(url(path)?)).map(drop)
    }

    /// Deletes, and returns the answer.
    pub(super) fn lift(&self, path: &str) -> Result<Value, Failure> {
        json(self.send(self.http.delete(url(path)?))?)
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
        let request = self.http.post(url(path)?);
        let response = self.send(match body {
            StepsBody::Text(text) => request.body(text),
            StepsBody::Json(value) => request.json(&value),
        })?;
        for text in BufReader::new(response).lines() {
            let text = text.map_err(|_| {
                let message = "the daemon ended before its answer was whole; look at its log, and \
                               repeat the command";
                Failure::Unreachable(message.into())
            })?;
            line(serde_json::from_str(&text).map_err(|_| not_json())?);
        }
        Ok(())
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().map_err(|error| self.unanswered(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json::<Value>() {
            Ok(problem) => Err(Failure::of_problem(&problem)),
            Err(_) => Err(Failure::Failed(format!(
                "the daemon answered {status}; is this the admin socket of hallmarkd, and of the \
                 same version as this command?"
            ))),
        }
    }

    /// Says why a request has no answer.
    fn unanswered(&self, error: &reqwest::Error) -> Failure {
        let socket = &self.socket;
        let kind = root_cause(error)
            .downcast_ref::<io::Error>()
            .map(io::Error::kind);
        let user = geteuid().as_raw();
        match kind {
            Some(ErrorKind::PermissionDenied) => Failure::Problem {
                approval: None,
                code: "user_not_admitted".into(),
                detail: format!(
                    "user {user} may not open the admin socket {socket}; run the command as root \
                     or as the daemon's user, or give the user access to the socket's folder and \
                     add {user} to [listen] admin_users"
                ),
            },
            Some(ErrorKind::NotFound) => Failure::Unreachable(format!(
                "there is no admin socket {socket}; is the daemon running? If it has another \
                 socket, name it by --admin-socket or HALLMARK_ADMIN_SOCKET"
            )),
            Some(ErrorKind::ConnectionRefused) => {
                Failure::Unreachable(format!("no daemon answers at {socket}; is it running?"))
            }
            _ if error.is_timeout() => Failure::Unreachable(format!(
                "the daemon at {socket} has not answered for {} s; look at its log",
                ANSWER_TIMEOUT.as_secs()
            )),
            _ => Failure::Unreachable(format!(
                "the daemon at {socket} closed the connection without an answer ({}); repeat the \
                 command, and look at the daemon's log",
                root_cause(error)
            )),
        }
    }
}

/// Returns the number after which the next page begins, from the header `Link` (RFC 8288).
fn next_page(response: &Response) -> Option<i64> {
    let link = response.headers().get(LINK)?.to_str().ok()?;
    let (_, after) = link.rsplit_once("after=")?;
    after.split('>').next()?.parse().ok()
}

fn json(response: Response) -> Result<Value, Failure> {
    response.json().map_err(|_| not_json())
}

fn not_json() -> Failure {
    let message = "the answer is not JSON; is this the admin socket of hallmarkd, and of the same \
                   version as this command?";
    Failure::Failed(message.into())
}

fn root_cause<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// Returns the URL; fails if a name in it is empty. Its host is not used: the connection is the
/// socket.
fn url(path: &str) -> Result<String, Failure> {
    let (names, _) = path.split_once('?').unwrap_or((path, ""));
    if names.ends_with('/') || names.contains("//") {
        let message = "a name or number is empty; give it";
        return Err(Failure::Usage(message.into()));
    }
    Ok(format!("http://localhost{path}"))
}
