//! Profiles as people write them.

use super::{VALUES, YEAR};
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::KeyType;
use crate::x509::profile::{End, Kind, Preset, Profile, SubjectAlternativeNames};
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(super) const DEVICE: &str = r#"
    kind = "leaf"
    validity = "90d"
    key_types = ["p256", "rsa2048"]
    key_usage = ["digital_signature"]
    extended_key_usage = ["client_auth"]
    subject = { organization = "Example" }
"#;

/// A profile with every member.
const FULL: &str = r#"
    kind = "leaf"
    validity = "90d"
    whole_days = true
    backdate = "1h"
    key_types = ["p256"]
    key_usage = ["digital_signature"]
    extended_key_usage = ["client_auth", "1.3.6.1.5.5.7.3.21"]
    certificate_policies = [
        "1.3.6.1.4.1.32473.1",
        { oid = "1.3.6.1.4.1.32473.2", cps = "https://pki.example/cps" },
    ]
    subject = { organization = "Example", organizational_unit = "{line}", serial_number = "{id}" }
    [subject_alternative_names]
    request = ["dns", "ip", "uri", "email"]
    dns = ["{id}.example"]
    ip = ["192.0.2.7"]
    uri = ["urn:dev:{id}"]
    email = ["line@plant.example"]
    hardware_module = { type = "1.3.6.1.4.1.32473.3", serial = "{id}" }
    [[extension]]
    oid = "1.3.6.1.4.1.32473.4"
    critical = true
    integer = 7
    [[extension]]
    oid = "1.3.6.1.4.1.32473.5"
    der = "0500"
"#;

#[test]
fn a_profile_with_every_member_is_read_and_written() {
    let profile = read(FULL).expect("is a profile");
    let written = toml::to_string(&profile).expect("serializes");
    assert_eq!(read(&written), Ok(profile), "{written}");
}

pub(super) fn read(text: &str) -> Result<Profile, String> {
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
        SubjectAlternativeNames::default()
    );
    let subject = profile.subject.fill(&VALUES).expect("is a name");
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

/// Values in an encoding that DER has not (X.690 10 and 11), and their neighbours that it has.
#[test]
fn the_value_of_an_extension_is_der() {
    let with = |der: &str| {
        let value = format!("[[extension]]\noid = \"1.3.6.1.4.1.32473.3\"\nder = \"{der}\"\n");
        read(&format!("preset = \"device\"\n{value}"))
    };
    for der in [
        "0500",
        "010100",
        "0101ff",
        "02020080",
        "0c0161",
        "3000",
        "310602010102010a",
        "a103020101",
    ] {
        assert!(with(der).is_ok(), "{der}");
    }
    for der in [
        "0000",
        "01010a",
        "0202000a",
        "0200",
        "050100",
        "030109",
        "24020400",
        "310602010a020101",
        "0a020001",
        "0c01ff",
        "30050500",
    ] {
        let refusal = with(der).expect_err(der);
        assert!(refusal.contains("one DER value"), "{der}: {refusal}");
    }
}

/// Texts that no request fills with a name, and one that some do.
#[test]
fn a_template_that_is_never_a_name_is_refused() {
    let with = |lines: &str| {
        let profile = read(&format!("preset = \"device\"\n{lines}")).expect("is a profile");
        profile.check_templates("line_1")
    };
    let names = |table: &str| format!("subject_alternative_names = {{ {table} }}");
    for lines in [
        names("dns = [\"*.{id}.example\"]"),
        names("dns = [\"{line}.example\"]"),
        names("email = [\"{id}\"]"),
        names("uri = [\"{csr.locality}\"]"),
        "subject = { country = \"{year}\" }".to_owned(),
        "subject = { serial_number = \"{line}\" }".to_owned(),
    ] {
        let refusal = with(&lines).expect_err(&lines);
        assert!(refusal.contains("never"), "{lines}: {refusal}");
    }
    for lines in [
        names("dns = [\"{id}.{csr.locality}.example\"], email = [\"{id}@a.example\"]"),
        names("uri = [\"{id}\"], ip = [\"{id}\"]"),
        "subject = { country = \"{csr.country}\", serial_number = \"{id}\" }".to_owned(),
    ] {
        assert_eq!(with(&lines), Ok(()), "{lines}");
    }
}

#[test]
fn a_preset_gives_what_the_profile_leaves_out() {
    for preset in Preset::ALL {
        let profile = read(&format!("preset = \"{preset}\"")).expect("is complete");
        assert_eq!(Preset::from_name(preset.name()), Some(preset));
        let written = toml::to_string(&profile).expect("serializes");
        assert_eq!(read(&written), Ok(profile), "{written}");
    }
    let idevid = read("preset = \"idevid\"").expect("is complete");
    assert_eq!(idevid.end, End::Never);
    let shorter = read("preset = \"idevid\"\nvalidity = \"10y\"").expect("is complete");
    let expected = Profile {
        validity_seconds: 10 * YEAR,
        end: End::AfterValidity,
        ..idevid
    };
    assert_eq!(shorter, expected);
    let refusal = read("preset = \"idevid\"\nwhole_days = true").expect_err("is refused");
    assert!(refusal.contains("give validity"), "{refusal}");
    // IEEE 802.1AR wants the serial number of the preset, and RFC 6960 its extension.
    let named = read("preset = \"idevid\"\nsubject = { organization = \"Works\" }");
    let subject = named.expect("is complete").subject.fill(&VALUES);
    let subject = subject.expect("is a name").to_string();
    assert_eq!(subject, "CN=device-7,SERIALNUMBER=device-7,O=Works");
    let other = read("preset = \"idevid\"\nsubject = { serial_number = \"{line}-{id}\" }");
    let subject = other.expect("is complete").subject.fill(&VALUES);
    assert!(
        subject
            .expect("is a name")
            .to_string()
            .contains("-device-7")
    );
    let extension = |oid: &str| {
        let text = format!("preset = \"ocsp\"\n[[extension]]\noid = \"{oid}\"\ninteger = 7");
        read(&text).expect("is complete").extensions.len()
    };
    let no_check = "1.3.6.1.5.5.7.48.1.5";
    assert_eq!(
        [extension("1.3.6.1.4.1.32473.4"), extension(no_check)],
        [2, 1]
    );
    let refusal = read("preset = \"root\"\nkind = \"leaf\"").expect_err("is refused");
    assert!(refusal.contains("key_cert_sign"), "{refusal}");
    assert!(read("preset = \"toaster\"").is_err());
}

#[test]
fn the_end_of_a_certificate_is_as_written() {
    let noon = UnixSeconds::new(1_796_040_000);
    for (lines, not_before, not_after) in [
        (
            "validity = \"1d\"",
            "2026-11-30T11:55:00Z",
            "2026-12-01T12:00:00Z",
        ),
        (
            "validity = \"1d\"\nwhole_days = true",
            "2026-11-30T00:00:00Z",
            "2026-12-01T23:59:59Z",
        ),
        (
            "validity = \"1d\"\nwhole_days = true\nbackdate = \"13h\"",
            "2026-11-29T00:00:00Z",
            "2026-12-01T23:59:59Z",
        ),
        (
            "not_after = \"2027-12-31T23:59:59+01:00\"",
            "2026-11-30T11:55:00Z",
            "2027-12-31T22:59:59Z",
        ),
        (
            "not_after = \"99991231235959Z\"",
            "2026-11-30T11:55:00Z",
            "9999-12-31T23:59:59Z",
        ),
    ] {
        let profile = read(&DEVICE.replace("validity = \"90d\"", lines)).expect(lines);
        assert_eq!(profile.not_before(noon).to_string(), not_before, "{lines}");
        assert_eq!(profile.not_after(noon).to_string(), not_after, "{lines}");
        let written = toml::to_string(&profile).expect("serializes");
        assert_eq!(read(&written), Ok(profile), "{written}");
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

    /// Whatever is written into any member, reading ends with a profile or a reason.
    #[test]
    fn no_text_in_a_member_makes_it_panic(
        at in 0..FULL.len(), noise in "[\\PC]{0,12}", cut in 0..4_usize,
    ) {
        let from = (0..=at).rev().find(|it| FULL.is_char_boundary(*it)).unwrap_or_default();
        let rest: String = FULL[from..].chars().skip(cut).collect();
        if let Ok(profile) = read(&format!("{}{noise}{rest}", &FULL[..from])) {
            let written = toml::to_string(&profile).expect("serializes");
            prop_assert_eq!(read(&written), Ok(profile));
        }
    }

    #[test]
    fn no_text_makes_a_duration_panic(text in "[0-9a-zµ .+-]{0,30}") {
        let _ = with_validity(&text);
    }
}
