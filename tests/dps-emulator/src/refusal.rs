//! How DPS says no, on its service plane and on its device plane (contract section 5).

use serde_json::json;
use time::OffsetDateTime;

use crate::dates;
use crate::wire::Reply;

/// One refusal: an HTTP status and three more digits, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    code: u32,
    message: String,
}

impl Refusal {
    /// `code` has six digits, the first three of them the HTTP status.
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// 400 for a body or parameter that makes no sense; the last three digits are UNCONFIRMED.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400_001, message)
    }

    pub(crate) fn bad_registration_id() -> Self {
        Self::new(400_004, "Invalid RegistrationId")
    }

    /// 401000: the caller of the service plane is not who it must be.
    pub(crate) fn unauthorized() -> Self {
        Self::new(401_000, "Unauthorized")
    }

    /// 401002: a device is turned away; the sentences are those of section 10.
    pub(crate) fn device_unauthorized(message: &str) -> Self {
        Self::new(401_002, message)
    }

    /// 404 for an address that is not served.
    pub(crate) fn no_such_operation() -> Self {
        Self::new(404_000, "Not Found.")
    }

    /// 412; the code was seen in a mock of the CLI only.
    pub(crate) fn precondition_failed() -> Self {
        Self::new(412_001, "Precondition failed: the ETag does not match.")
    }

    pub(crate) fn code(&self) -> u32 {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn status(&self) -> u16 {
        u16::try_from(self.code / 1000).expect("a code has six digits")
    }

    /// The body as the contract gives it.
    pub(crate) fn body(&self, now: OffsetDateTime) -> serde_json::Value {
        let tracking = uuid::Uuid::new_v4().simple().to_string();
        let at = dates::seven_digits(now);
        json!({
            "errorCode": self.code,
            "trackingId": format!("{tracking}-G2:-TimeStamp:{at}"),
            "message": self.message,
            "timestampUtc": at,
        })
    }

    /// The answer as a whole.
    pub(crate) fn reply(&self, now: OffsetDateTime) -> Reply {
        Reply::json(self.status(), self.body(now)).with("x-ms-error-code", self.code.to_string())
    }
}
