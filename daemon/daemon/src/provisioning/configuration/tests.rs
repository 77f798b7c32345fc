//! Tests what a configuration is refused for, and what it means.

use super::*;

const RAW: &str = r#"
    name = "line"
    endpoint = "https://Line.azure-devices-provisioning.net"
    id_scope = "0ne0012ABCD"
    credential = "/run/keys/dps"
"#;

fn check(more: &str) -> Result<Provisioning, String> {
    let text = format!("{RAW}{more}");
    let raw: ProvisioningConfiguration =
        toml::from_str(&text).map_err(|error| error.to_string())?;
    raw.check(None).map_err(|error| error.to_string())
}

#[test]
fn few_settings_are_required() {
    let checked = check("").unwrap();
    assert_eq!(
        checked.service.settings.host,
        "line.azure-devices-provisioning.net"
    );
    assert_eq!(checked.device.host, "global.azure-devices-provisioning.net");
    assert_eq!(checked.operations_per_minute, 1000);
    assert!(checked.clients(&TokenKeys::new()).unwrap().arm.is_none());
}

#[test]
fn contradictions_are_refused_with_the_reason() {
    for (more, reason) in [
        ("verified = [\"root\"]", "no [provisioning.arm]"),
        ("operations_per_minute = 0", "operations_per_minute is 0"),
        ("address = \"localhost\"", "give IP:PORT"),
        ("device_endpoint = \"http://x\"", "not a host name"),
        ("device_endpoint = \"x:443\"", "not a host name"),
        ("proxy = \"socks5://x\"", "not a proxy"),
        (
            "address = \"127.0.0.1:1\"\nproxy = \"http://x:1\"",
            "contradict",
        ),
        ("hub = {}", "missing field"),
        ("hubs = {}", "unknown field"),
    ] {
        let refused = check(more).unwrap_err();
        assert!(refused.contains(reason), "{more}: {refused}");
    }
}

#[test]
fn a_service_has_one_hub_or_several() {
    let hub = |name: &str| {
        format!("endpoint = \"https://{name}.azure-devices.net\"\ncredential = \"/run/keys/hub\"\n")
    };
    let hosts = |more: &str| {
        let clients = check(more).unwrap().clients(&TokenKeys::new()).unwrap();
        let hosts = clients.hubs.iter().map(|it| it.host().to_owned());
        hosts.collect::<Vec<_>>()
    };
    assert!(hosts("").is_empty());
    let one = format!("[hub]\n{}", hub("One"));
    assert_eq!(hosts(&one), ["one.azure-devices.net"]);
    let two = format!("[[hub]]\n{}[[hub]]\n{}", hub("one"), hub("two"));
    let expected = ["one.azure-devices.net", "two.azure-devices.net"];
    assert_eq!(hosts(&two), expected);
    let twice = format!("[[hub]]\n{}[[hub]]\n{}", hub("one"), hub("ONE"));
    let refused = check(&twice).unwrap_err();
    assert!(refused.contains("two [[provisioning.hub]]"), "{refused}");
    let unknown = format!("[[hub]]\n{}color = 1\n", hub("one"));
    let refused = check(&unknown).unwrap_err();
    assert!(refused.contains("unknown field `color`"), "{refused}");
}

#[test]
fn a_bare_name_is_one_of_systemds_credentials() {
    let raw = RAW.replace("/run/keys/dps", "dps");
    let raw: ProvisioningConfiguration = toml::from_str(&raw).unwrap();
    assert!(raw.clone().check(None).is_err());
    let checked = raw.check(Some(Path::new("/run/credentials/x"))).unwrap();
    let shown = format!("{:?}", checked.service.credential);
    assert!(shown.contains("/run/credentials/x/dps"), "{shown}");
}

#[test]
fn the_keys_in_tokens_are_listed() {
    let raw = RAW.replace(
        "\"/run/keys/dps\"",
        "{ kind = \"token-hmac\", token = \"factory\", key = \"dps\", policy = \"owner\" }",
    );
    let raw: ProvisioningConfiguration = toml::from_str(&raw).unwrap();
    let checked = raw.check(None).unwrap();
    assert_eq!(
        checked.token_keys().collect::<Vec<_>>(),
        [("factory", "dps")]
    );
    let error = checked.clients(&TokenKeys::new()).unwrap_err();
    assert!(matches!(error, PlaneError::Token(_)), "{error}");
}
