//! User names and topics, which carry what paths and headers carry in HTTP (contract section 9).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

const USER_LENGTH_MAX: usize = 1024;
const TOPIC_LENGTH_MAX: usize = 1024;
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// Prefix of the topics of answers to a device's registration.
pub(super) const ANSWERS: &str = "$dps/registrations/res/#";

/// The purpose of a client, from its user name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Device(DeviceLogin),
    /// To connect to a hub: `{hub}/{device}/?api-version=…`.
    Hub(HubLogin),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceLogin {
    pub(super) id_scope: String,
    pub(super) registration_id: String,
    pub(super) api_version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubLogin {
    pub(super) host: String,
    pub(super) device_id: String,
}

impl Login {
    /// Read a user name; none if it is neither of the two.
    pub(super) fn parse(user: &str) -> Option<Self> {
        if user.len() > USER_LENGTH_MAX {
            return None;
        }
        let parts: Vec<&str> = user.split('/').collect();
        match parts.as_slice() {
            [scope, "registrations", id, rest] => Some(Self::Device(DeviceLogin {
                id_scope: (*scope).to_owned(),
                registration_id: (*id).to_owned(),
                api_version: field(rest, "api-version=")?.into_owned(),
            })),
            [host, device, rest]
                if field(rest.trim_start_matches('?'), "api-version=").is_some() =>
            {
                Some(Self::Hub(HubLogin {
                    host: host.to_ascii_lowercase(),
                    device_id: (*device).to_owned(),
                }))
            }
            _ => None,
        }
    }
}

/// The request of a device, from the topic it publishes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopicRequest {
    Register,
    Poll { operation_id: String },
}

/// Read a topic of the device plane: the request and its id.
pub(super) fn request(topic: &str) -> Option<(TopicRequest, String)> {
    let (path, query) = split(topic)?;
    let rid = field(query, "$rid=").filter(|rid| rid.len() <= REQUEST_ID_LENGTH_MAX)?;
    let request = match path {
        "$dps/registrations/PUT/iotdps-register/" => TopicRequest::Register,
        "$dps/registrations/GET/iotdps-get-operationstatus/" => TopicRequest::Poll {
            operation_id: field(query, "operationId=")?.into_owned(),
        },
        _ => return None,
    };
    Some((request, rid.into_owned()))
}

/// Read `$iothub/methods/res/{status}/?$rid={n}`: the device's own status and the request id.
pub(super) fn method_answer(topic: &str) -> Option<(i64, u64)> {
    let (path, query) = split(topic)?;
    let status = path
        .strip_prefix("$iothub/methods/res/")?
        .strip_suffix('/')?;
    Some((status.parse().ok()?, field(query, "$rid=")?.parse().ok()?))
}

/// The topic of an answer to a device's request.
pub(super) fn answer(status: u16, request_id: &str, retry_after: Option<&str>) -> String {
    let more = retry_after.map(|seconds| format!("&retry-after={seconds}"));
    format!(
        "$dps/registrations/res/{status}/?$rid={request_id}{}",
        more.unwrap_or_default()
    )
}

/// The topic of a direct method.
pub(super) fn method(name: &str, request_id: u64) -> String {
    format!("$iothub/methods/POST/{name}/?$rid={request_id}")
}

fn split(topic: &str) -> Option<(&str, &str)> {
    topic
        .split_once('?')
        .filter(|_| topic.len() <= TOPIC_LENGTH_MAX)
}

fn field<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let value = text.split('&').find_map(|field| field.strip_prefix(name))?;
    percent_decode_str(value).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn user_names_of_the_sdks() {
        let python =
            "0ne00A1B2C3/registrations/press-7/api-version=2019-03-31&ClientVersion=azure%2Diot";
        let Some(Login::Device(login)) = Login::parse(python) else {
            panic!("not a device's login");
        };
        assert_eq!(
            (login.registration_id.as_str(), login.api_version.as_str()),
            ("press-7", "2019-03-31")
        );
        let hub = "Hallmark.azure-devices.net/press-7/?api-version=2020-09-30&DeviceClientType=x";
        let Some(Login::Hub(login)) = Login::parse(hub) else {
            panic!("not a hub's login");
        };
        assert_eq!(login.host, "hallmark.azure-devices.net");
        assert_eq!(Login::parse("press-7"), None);
        assert_eq!(Login::parse("scope/registrations/press-7/nothing"), None);
    }

    #[test]
    fn topics_of_the_contract() {
        let register = "$dps/registrations/PUT/iotdps-register/?$rid=42";
        assert_eq!(
            request(register),
            Some((TopicRequest::Register, "42".to_owned()))
        );
        let poll = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId=5.ab.cd";
        let operation_id = "5.ab.cd".to_owned();
        assert_eq!(
            request(poll),
            Some((TopicRequest::Poll { operation_id }, "1".to_owned()))
        );
        assert_eq!(request("$dps/registrations/PUT/iotdps-register/"), None);
        assert_eq!(
            method_answer("$iothub/methods/res/200/?$rid=3"),
            Some((200, 3))
        );
        assert_eq!(
            answer(202, "1", Some("3")),
            "$dps/registrations/res/202/?$rid=1&retry-after=3"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(
            text in "(\\$(dps|iothub)/|[a-z]+/registrations/)?.{0,200}",
        ) {
            let _ = Login::parse(&text);
            let _ = request(&text);
            let _ = method_answer(&text);
        }
    }
}
