//! Classifies failed calls by what the caller can do.
//!
//! An error never holds a secret: the service's answer is cut, and cleaned of control characters
//! and of the authorization that was sent, in case a proxy reflects it.

use serde_json::Value;
use std::time::{Duration, SystemTime};

/// How much of a service's message is repeated.
const MESSAGE_LENGTH_MAX: usize = 500;

/// A longer `Retry-After` is cut: a service that asks for days must not silence us for days.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{operation}: {reason}")]
    Transient {
        /// Verb and subject of the call.
        operation: String,
        reason: String,
        /// The pause that the service requested.
        retry_after: Option<Duration>,
        /// The service may have done what was asked: observe before it is asked again.
        lost_answer: bool,
    },
    /// Another client changed the object: observe again, then decide.
    #[error("{operation}: the service holds another state now: {reason}")]
    Conflict {
        /// Verb and subject of the call.
        operation: String,
        /// The words of the service.
        reason: String,
    },
    /// Asking again would be refused again: park it, and show why.
    #[error("{operation}: the service refused with {status}: {message}{}", coded(.code))]
    Rejected {
        /// Verb and subject of the call.
        operation: String,
        status: u16,
        /// The service's own error code.
        code: Option<String>,
        /// The words of the service.
        message: String,
        /// For a support request.
        tracking_id: Option<String>,
    },
    /// Nothing was sent, because it could not be: park it, and show why.
    #[error("{operation}: cannot be sent: {reason}")]
    Unsendable {
        /// Verb and subject of the call.
        operation: String,
        /// The fault of the request or credential.
        reason: String,
    },
    /// The credential is missing, wrong or lacks a right: an operator must fix it. Try again
    /// slowly, because the file may be exchanged at any time.
    #[error("{operation}: the credential was not accepted: {reason}")]
    Unauthorized {
        /// Verb and subject of the call.
        operation: String,
        /// The fault of the request or credential.
        reason: String,
    },
}

impl CallError {
    /// The stable code for status, metrics and console.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::Transient { .. } => "provisioning_unavailable",
            CallError::Conflict { .. } => "provisioning_conflict",
            CallError::Rejected { .. } => "provisioning_rejected",
            CallError::Unsendable { .. } => "provisioning_unsendable",
            CallError::Unauthorized { .. } => "provisioning_unauthorized",
        }
    }

    /// The service may have done what was asked although no good answer came back.
    pub fn may_have_happened(&self) -> bool {
        matches!(
            self,
            CallError::Transient {
                lost_answer: true,
                ..
            }
        )
    }

    /// Returns true for a 404 with one of these codes: the service's own statement that there is no
    /// such object. Any other 404, of a proxy for example, says nothing about the object.
    pub(super) fn is_missing(&self, codes: &[&str]) -> bool {
        let CallError::Rejected {
            status: 404, code, ..
        } = self
        else {
            return false;
        };
        let code = code.as_deref().unwrap_or_default();
        codes.iter().any(|it| it.eq_ignore_ascii_case(code))
    }

    /// Returns true for a 404 with any code or none.
    pub fn is_not_found(&self) -> bool {
        matches!(self, CallError::Rejected { status: 404, .. })
    }
}

fn coded(code: &Option<String>) -> String {
    let code = code.as_ref().map(|code| format!(", code {code}"));
    code.unwrap_or_default()
}

/// An answer that is not a success.
pub(super) struct BadAnswer<'a> {
    pub(super) operation: String,
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    /// The error code, where the service gives it in a header.
    pub(super) code: Option<&'a str>,
    pub(super) retry_after: Option<Duration>,
    /// Whether the request could have changed something.
    pub(super) writes: bool,
    /// The secret that must not be in an error.
    pub(super) secret: Option<&'a str>,
}

impl BadAnswer<'_> {
    /// Section 5: what each status means for the caller.
    pub(super) fn classify(self) -> CallError {
        let detail = Detail::read(self.body, self.code, self.secret);
        let operation = self.operation;
        let status = self.status;
        match status {
            403 if detail.is_quota() => CallError::Transient {
                reason: format!(
                    "a quota of the service is used up: {}",
                    detail.with_tracking(status)
                ),
                operation,
                retry_after: self.retry_after,
                lost_answer: false,
            },
            401 | 403 => CallError::Unauthorized {
                operation,
                reason: detail.with_tracking(status),
            },
            409 | 412 => CallError::Conflict {
                operation,
                reason: detail.with_tracking(status),
            },
            408 | 429 | 500..=599 => CallError::Transient {
                operation,
                reason: detail.with_tracking(status),
                retry_after: self.retry_after,
                // A throttled call was not executed; after any other status it may have been.
                lost_answer: self.writes && status != 429,
            },
            _ => CallError::Rejected {
                operation,
                status,
                code: detail.code,
                message: detail.message,
                tracking_id: detail.tracking_id,
            },
        }
    }
}

/// The content of an error body, in the forms of all planes.
struct Detail {
    code: Option<String>,
    message: String,
    tracking_id: Option<String>,
}

impl Detail {
    fn read(body: &[u8], code: Option<&str>, secret: Option<&str>) -> Self {
        let page = String::from_utf8_lossy(body);
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        // Azure Resource Manager wraps its error; the others do not.
        let error = body.get("error").filter(|error| error.is_object());
        let error = error.unwrap_or(&body);
        let text = |names: &[&str]| {
            let value = names.iter().find_map(|name| error.get(*name))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            Some(presentable(&text, secret))
        };
        let message = text(&[
            "message",
            "Message",
            "ExceptionMessage",
            "error_description",
        ]);
        // The page of a proxy shows the operator who has answered.
        let page = || Some(presentable(page.trim(), secret)).filter(|it| !it.is_empty());
        let message = message.or_else(page);
        let message = message.unwrap_or_else(|| "no message".to_owned());
        let (prefixed, message) = split_code(&message);
        let code = code.or(prefixed).map(|code| presentable(code, secret));
        Self {
            code: code.or_else(|| text(&["errorCode", "code", "Code", "error"])),
            message: message.to_owned(),
            tracking_id: text(&["trackingId", "TrackingId", "requestId", "trace_id"]),
        }
    }

    /// Returns true if a 403 is about a quota: the credential is good, and waiting helps.
    fn is_quota(&self) -> bool {
        const NUMBERS: [&str; 3] = ["403002", "403004", "403006"]; // hub: messages, queue, uploads
        let code = self.code.as_deref().unwrap_or_default();
        let texts = [code, &self.message].map(str::to_ascii_lowercase);
        let says = |word: &str| texts.iter().any(|text| text.contains(word));
        NUMBERS.contains(&code)
            || says("quota")
            || says("throttl")
            || texts[0].contains("exceeded")
            || texts[0].contains("toomany")
    }

    fn with_tracking(&self, status: u16) -> String {
        let mut text = format!("{status} {}", self.message);
        if let Some(code) = &self.code {
            text.push_str(&format!(", code {code}"));
        }
        if let Some(tracking_id) = &self.tracking_id {
            text.push_str(&format!(", tracking id {tracking_id}"));
        }
        text
    }
}

/// The hub's `ErrorCode:<code>;<message>` (section 12), taken apart.
fn split_code(message: &str) -> (Option<&str>, &str) {
    let parts = message
        .strip_prefix("ErrorCode:")
        .and_then(|rest| rest.split_once(';'));
    match parts {
        Some((code, rest)) => (Some(code), rest),
        None => (None, message),
    }
}

fn presentable(text: &str, secret: Option<&str>) -> String {
    let text = match secret {
        Some(secret) if !secret.is_empty() => without(text, secret),
        _ => text.to_owned(),
    };
    let printable = text.chars().filter(|character| !character.is_control());
    printable.take(MESSAGE_LENGTH_MAX).collect()
}

/// Removes the whole value of the header, and the part of it after `Bearer`.
fn without(text: &str, secret: &str) -> String {
    let text = text.replace(secret, "[authorization]");
    match secret.split_once(' ') {
        Some((_, bare)) if !bare.is_empty() => text.replace(bare, "[authorization]"),
        _ => text,
    }
}

/// The value of `Retry-After`: seconds, or an HTTP date (RFC 9110, 10.2.3).
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            date.duration_since(now).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(status: u16, body: &str, writes: bool) -> CallError {
        BadAnswer {
            operation: "put individual press-7".into(),
            status,
            body: body.as_bytes(),
            code: None,
            retry_after: None,
            writes,
            secret: Some("SharedAccessSignature sr=x"),
        }
        .classify()
    }

    #[test]
    fn each_status_has_its_class() {
        for (status, code) in [
            (400, "provisioning_rejected"),
            (401, "provisioning_unauthorized"),
            (403, "provisioning_unauthorized"),
            (404, "provisioning_rejected"),
            (405, "provisioning_rejected"),
            (408, "provisioning_unavailable"),
            (409, "provisioning_conflict"),
            (412, "provisioning_conflict"),
            (415, "provisioning_rejected"),
            (429, "provisioning_unavailable"),
            (500, "provisioning_unavailable"),
            (503, "provisioning_unavailable"),
            (302, "provisioning_rejected"),
        ] {
            assert_eq!(classify(status, "", true).code(), code, "{status}");
        }
    }

    #[test]
    fn a_server_error_may_have_happened_and_a_throttled_call_has_not() {
        assert!(classify(503, "", true).may_have_happened());
        assert!(!classify(503, "", false).may_have_happened());
        assert!(!classify(429, "", true).may_have_happened());
    }

    #[test]
    fn the_detail_of_every_plane_is_read() {
        let dps = r#"{"errorCode":400004,"trackingId":"t-1","message":"Invalid RegistrationId"}"#;
        let arm = r#"{"error":{"code":"BadRequest","message":"Proof-Of-Possession failed"}}"#;
        let CallError::Rejected {
            code,
            message,
            tracking_id,
            ..
        } = classify(400, dps, true)
        else {
            panic!("not rejected");
        };
        assert_eq!(code.as_deref(), Some("400004"));
        assert_eq!(message, "Invalid RegistrationId");
        assert_eq!(tracking_id.as_deref(), Some("t-1"));
        assert!(
            classify(400, arm, true)
                .to_string()
                .contains("Proof-Of-Possession")
        );
    }

    #[test]
    fn the_refusal_of_a_token_endpoint_is_read() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS700027: expired"}"#;
        let shown = classify(401, body, false).to_string();
        assert!(
            shown.contains("AADSTS700027: expired, code invalid_client"),
            "{shown}"
        );
    }

    #[test]
    fn the_code_of_a_hub_is_read_from_its_message() {
        let body = r#"{"Message":"ErrorCode:DeviceNotFound;press-7","ExceptionMessage":"x"}"#;
        let CallError::Rejected { code, message, .. } = classify(404, body, true) else {
            panic!("not rejected");
        };
        assert_eq!(code.as_deref(), Some("DeviceNotFound"));
        assert_eq!(message, "press-7");
    }

    /// B5: a credential that is good must not be exchanged because a quota is used up.
    #[test]
    fn a_quota_is_not_a_credential() {
        for body in [
            r#"{"Message":"ErrorCode:IotHubQuotaExceeded;Total number of messages"}"#,
            r#"{"Message":"ErrorCode:ThrottlingException;slow down"}"#,
            r#"{"errorCode":403002,"message":"no more today"}"#,
            r#"{"errorCode":403001,"message":"The quota of enrollments is used up."}"#,
            r#"{"error":{"code":"QuotaExceeded","message":"limit"}}"#,
        ] {
            let error = classify(403, body, true);
            assert_eq!(error.code(), "provisioning_unavailable", "{error}");
            assert!(error.to_string().contains("quota"), "{error}");
            assert!(!error.may_have_happened());
        }
        let other = classify(
            403,
            r#"{"errorCode":403000,"message":"Unauthorized"}"#,
            true,
        );
        assert_eq!(other.code(), "provisioning_unauthorized");
    }

    /// B3, B4: only the service's own code says that an object is missing.
    #[test]
    fn a_404_is_the_services_own_or_a_strangers() {
        let missing = |body: &str| classify(404, body, true).is_missing(&["404201"]);
        assert!(missing(r#"{"errorCode":404201,"message":"Not Found."}"#));
        for body in [
            "",
            "<html>404</html>",
            r#"{"errorCode":404204,"message":"Not Found."}"#,
            r#"{"message":"Not Found."}"#,
            "{}",
        ] {
            assert!(!missing(body), "{body}");
        }
        let shown = classify(404, " <html>404</html>\n", true).to_string();
        assert!(
            shown.ends_with("refused with 404: <html>404</html>"),
            "{shown}"
        );
        let shown = classify(404, r#"{"errorCode":404204,"message":"x"}"#, true).to_string();
        assert!(shown.ends_with("404: x, code 404204"), "{shown}");
    }

    #[test]
    fn what_the_service_says_is_cut_and_cleaned() {
        let long = format!(
            r#"{{"message":"got SharedAccessSignature sr=x\n{}"}}"#,
            "y".repeat(9999)
        );
        let shown = classify(401, &long, true).to_string();
        assert!(
            !shown.contains("SharedAccessSignature") && !shown.contains('\n'),
            "{shown}"
        );
        assert!(shown.len() < 700);
        let bare = classify(401, r#"{"message":"the token sr=x is old"}"#, true).to_string();
        assert!(!bare.contains("sr=x"), "{bare}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 10:00:00 GMT").unwrap();
        let parse = |value| parse_retry_after(value, now);
        assert_eq!(parse("17"), Some(Duration::from_secs(17)));
        assert_eq!(
            parse("Sat, 21 Nov 2026 10:00:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(parse("Sat, 21 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse("999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(parse("soon"), None);
        assert_eq!(parse("-1"), None);
    }
}
