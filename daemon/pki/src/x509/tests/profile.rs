//! Profiles as people write them.

use super::YEAR;
use crate::x509::key::KeyType;
use crate::x509::profile::{Kind, Profile, SubjectAlternativeNames};
use proptest::prelude::*;
use std::collections::BTreeSet;

const DEVICE: &str = r#"
    kind = "leaf"
    validity = "90d"
    key_types = ["p256", "rsa2048"]
    key_usage = ["digital_signature"]
    extended_key_usage = ["client_auth"]
    subject = { organization = "Example" }
"#;

fn read(text: &str) -> Result<Profile, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn with_validity(validity: &str) -> Result<u64, String> {
    let text = DEVICE.replace("90d", validity);
    read(&text).map(|profile| profile.validity_seconds)
}

#[test]
fn a_table_becomes_a_profile() {
    let profile = read(DEVICE).expect("is a profile");
    assert_eq!(profile.kind, Kind::Leaf);
    assert_eq!(profile.validity_seconds, 90 * 86_400);
    assert_eq!(profile.backdate_seconds, 300);
    assert_eq!(
        profile.key_types,
        BTreeSet::from([KeyType::P256, KeyType::Rsa2048])
    );
    assert_eq!(
        profile.subject_alternative_names,
        SubjectAlternativeNames::None
    );
    let subject = profile
        .subject
        .with_common_name("device-7")
        .expect("is a name");
    assert_eq!(subject.to_string(), "CN=device-7,O=Example");
}

#[test]
fn durations_have_units() {
    for (text, seconds) in [
        ("8s", 8),
        ("30m", 1_800),
        ("12h", 43_200),
        ("90d", 7_776_000),
        ("20y", 20 * YEAR),
        ("1d 12h", 129_600),
    ] {
        assert_eq!(with_validity(text), Ok(seconds));
    }
    for text in [
        "",
        "90",
        "90x",
        "-1d",
        "1500ms",
        "999999999999y",
        "90 d ays",
    ] {
        assert!(with_validity(text).is_err(), "{text}");
    }
}

#[test]
fn contradictions_are_refused_with_their_reason() {
    let authority = "kind = \"authority\"\nvalidity = \"10y\"\nkey_types = [\"p256\"]\n";
    let cases = [
        (DEVICE.replace("90d", "0s"), "must be positive"),
        (DEVICE.replace("90d", "51y"), "at most 50y"),
        (
            DEVICE.replace("kind", "backdate = \"2d\"\nkind"),
            "at most 1d",
        ),
        (
            DEVICE.replace("kind", "path_length = 0\nkind"),
            "authority only",
        ),
        (DEVICE.replace("kind", "color = 1\nkind"), "unknown field"),
        (
            DEVICE.replace(r#"["p256", "rsa2048"]"#, "[]"),
            "at least one kind",
        ),
        (
            DEVICE.replace(r#"["digital_signature"]"#, "[]"),
            "at least one use",
        ),
        (
            DEVICE.replace(r#"["client_auth"]"#, "[]"),
            "good for every purpose",
        ),
        (
            DEVICE.replace(r#"["client_auth"]"#, r#"["any"]"#),
            "unknown variant",
        ),
        (
            DEVICE.replace("\"client_auth\"", "\"client_auth\", \"client_auth\""),
            "twice",
        ),
        (
            DEVICE.replace("\"client_auth\"", "\"client_auth\", \"ocsp_signing\""),
            "stands alone",
        ),
        (
            DEVICE.replace("digital_signature", "key_cert_sign"),
            "a leaf cannot",
        ),
        (
            DEVICE.replace(
                "\"digital_signature\"",
                "\"digital_signature\", \"key_encipherment\"",
            ),
            "RSA keys only",
        ),
        (
            DEVICE.replace(
                "\"digital_signature\"",
                "\"digital_signature\", \"key_agreement\"",
            ),
            "P-256 and P-384",
        ),
        (
            DEVICE.replace("Example\"", "Example\", common_name = \"x\""),
            "registration id",
        ),
        (
            format!("{authority}key_usage = [\"crl_sign\"]"),
            "needs key_cert_sign",
        ),
        (
            format!(
                "{authority}key_usage = [\"key_cert_sign\"]\nextended_key_usage = [\"client_auth\"]"
            ),
            "no extended_key_usage",
        ),
    ];
    for (text, reason) in cases {
        let refusal = read(&text).expect_err(reason);
        assert!(refusal.contains(reason), "{reason}: {refusal}");
    }
}

#[test]
fn built_in_profiles_do_not_contradict_themselves() {
    for path_length in [None, Some(0), Some(200)] {
        assert_eq!(Profile::authority(path_length, 20 * YEAR).check(), Ok(()));
    }
    assert_eq!(Profile::verification().check(), Ok(()));
}

proptest! {
    #[test]
    fn profiles_survive_toml(validity in 1..=50 * YEAR, path_length in any::<Option<u8>>()) {
        let profile = Profile::authority(path_length, validity);
        let text = toml::to_string(&profile).expect("serializes");
        prop_assert_eq!(read(&text), Ok(profile));
    }

    #[test]
    fn no_text_makes_a_duration_panic(text in "[0-9a-zµ .+-]{0,30}") {
        let _ = with_validity(&text);
    }
}
