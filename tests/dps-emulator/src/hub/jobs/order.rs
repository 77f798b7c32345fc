//! The order of a back end: the method, the time, and the devices.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::results::QUERY_LENGTH_MAX;
use crate::hub::HubRefusal;
use crate::hub::methods::MethodCall;
use crate::ids;
use crate::wire::Call;

#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) method: MethodCall,
    pub(super) start: OffsetDateTime,
    /// As it was sent.
    pub(super) sent: Map<String, Value>,
    /// None of them means all devices.
    wanted: Vec<String>,
}

impl Order {
    /// Check the body of `PUT /jobs/v2/{id}`. Without a start it is `now`.
    pub(super) fn read(id: &str, call: &Call, now: OffsetDateTime) -> Result<Self, HubRefusal> {
        let body = call.json_object();
        let sent = body.ok_or_else(|| HubRefusal::argument("the body is not a JSON object"))?;
        let text = |member: &str| sent.get(member).and_then(Value::as_str);
        if text("jobId") != Some(id) {
            return Err(HubRefusal::argument("jobId must be the id in the address"));
        }
        if text("type") != Some("scheduleDeviceMethod") {
            return Err(HubRefusal::argument(
                "only the type scheduleDeviceMethod is known here",
            ));
        }
        let wanted = wanted(text("queryCondition").unwrap_or("*"));
        let method = sent.get("cloudToDeviceMethod").and_then(Value::as_object);
        let method =
            method.ok_or_else(|| HubRefusal::argument("cloudToDeviceMethod is missing"))?;
        Ok(Self {
            method: MethodCall::read(method)?,
            start: start(text("startTime"), now)?,
            wanted: wanted
                .ok_or_else(|| HubRefusal::argument("queryCondition is not supported"))?,
            sent,
        })
    }

    /// Whether the order is for this device.
    pub(super) fn wants(&self, device: &String) -> bool {
        self.wanted.is_empty() || self.wanted.contains(device)
    }
}

fn start(text: Option<&str>, now: OffsetDateTime) -> Result<OffsetDateTime, HubRefusal> {
    match text {
        None | Some("") => Ok(now),
        Some(text) => OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| HubRefusal::argument("startTime is not a date")),
    }
}

/// The devices that a condition names; none means all of them. Known are `*`, `deviceId = 'a'` and
/// `deviceId IN ['a', 'b']`.
fn wanted(condition: &str) -> Option<Vec<String>> {
    if condition.len() > QUERY_LENGTH_MAX {
        return None;
    }
    let condition = condition.trim();
    if condition.is_empty() || condition == "*" {
        return Some(Vec::new());
    }
    let (member, rest) = condition.split_at_checked("deviceId".len())?;
    let rest = rest.trim_start();
    let list = match (
        rest.strip_prefix('='),
        rest.get(..2).map(str::to_ascii_lowercase).as_deref(),
    ) {
        (Some(one), _) => one.trim(),
        (None, Some("in")) => rest.get(2..)?.trim().strip_prefix('[')?.strip_suffix(']')?,
        _ => return None,
    };
    let names: Option<Vec<String>> = list.split(',').map(quoted).collect();
    names.filter(|_| member.eq_ignore_ascii_case("deviceId"))
}

fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''));
    let inner = inner.or_else(|| {
        text.strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
    })?;
    ids::is_hub_device_id(inner).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_name_devices() {
        let names = |condition: &str| wanted(condition);
        assert_eq!(names("*"), Some(vec![]));
        assert_eq!(names("deviceId = 'a'"), Some(vec!["a".to_owned()]));
        assert_eq!(
            names("deviceId IN ['a', \"b\"]"),
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(names("tags.line = '4'"), None);
        assert_eq!(names("deviceId IN []"), None);
    }

    proptest! {
        #[test]
        fn no_condition_makes_the_parser_panic(condition in "(deviceId)?.{0,100}") {
            let _ = wanted(&condition);
        }
    }
}
