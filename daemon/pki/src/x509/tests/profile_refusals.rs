//! Tests that a profile that contradicts itself, or that verifiers could not read, is refused with
//! the reason.

use super::profile::{DEVICE, read};
use crate::x509::profile::POLICIES_MAX;

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
            DEVICE.replace("validity = \"90d\"", ""),
            "validity or not_after is missing",
        ),
        (DEVICE.replace("kind = \"leaf\"", ""), "kind is missing"),
        (
            DEVICE
                .replace("kind", "whole_days = true\nkind")
                .replace("90d", "23h"),
            "at least 1d",
        ),
        (
            DEVICE.replace("kind", "not_after = \"99991231235959Z\"\nkind"),
            "remove one",
        ),
        (
            DEVICE.replace("validity = \"90d\"", "not_after = \"tomorrow\""),
            "\"tomorrow\" is no moment",
        ),
        (
            DEVICE.replace(
                "validity = \"90d\"",
                "not_after = \"2027-12-31T23:59:59.5Z\"",
            ),
            "is no moment",
        ),
        (
            DEVICE.replace(
                "validity = \"90d\"",
                "whole_days = true\nnot_after = \"2027-12-31T23:59:59Z\"",
            ),
            "whole_days goes with validity",
        ),
        (
            DEVICE.replace("validity = \"90d\"", "not_after = 2027-12-31T23:59:59Z"),
            "write the moment in quotes",
        ),
        (
            DEVICE.replace("Example\"", "Exam\u{202e}ple\""),
            "organization",
        ),
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
            "is no purpose; use client_auth",
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
            "P-256, P-384 and P-521",
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

/// Members with values of their own: each is refused with its name and how to mend it.
#[test]
fn members_that_verifiers_could_not_read_are_refused() {
    let many = |one: &str, count: usize| vec![one; count].join(", ");
    let names = |table: &str| format!("subject_alternative_names = {{ {table} }}");
    let extension = |table: &str| format!("extension = [{{ {table} }}]");
    let oid = "oid = \"1.3.6.1.4.1.32473.3\"";
    for (line, reason) in [
        (
            "certificate_policies = [\"1.3.x\"]".to_owned(),
            "no object identifier",
        ),
        (
            "certificate_policies = [\"2.5.29.32.0\"]".to_owned(),
            "anyPolicy is not for leaves",
        ),
        (
            "certificate_policies = [\"1.3.6.1.4.1.32473\", \"1.3.6.1.4.1.32473\"]".to_owned(),
            "a policy twice",
        ),
        (
            "certificate_policies = [{ oid = \"1.3.6.1.4.1.32473\", cps = \"ftp://a\" }]"
                .to_owned(),
            "cps of 1.3.6.1.4.1.32473 must be an address",
        ),
        (
            "certificate_policies = [{ oid = \"1.3.6.1.4.1.32473\" }]".to_owned(),
            "missing field `cps`",
        ),
        (
            format!(
                "certificate_policies = [{}]",
                many("\"1.3.6.1.4.1.32473\"", POLICIES_MAX + 1)
            ),
            "more than 8 policies",
        ),
        (
            "subject_alternative_names = \"dns\"".to_owned(),
            "has no meaning; use \"none\"",
        ),
        (names("dns = [\"*.example\"]"), "not a host name"),
        (names("ip = [\"192.0.2.0/24\"]"), "not an IP address"),
        (names("uri = [\"press-7\"]"), "not a URI"),
        (names("email = [\"press-7\"]"), "not an email address"),
        (names("dns = [\"a\", \"a\"]"), "a name twice"),
        (names("dns = [\"{serial}.example\"]"), "no place {serial}"),
        (names("dns = [\"{id.example\"]"), "single brace"),
        (names("request = [\"rid\"]"), "unknown variant"),
        (names("hardware = 1"), "unknown field"),
        (names("dns = [\"192.0.2.7\"]"), "an IP address as one"),
        (
            names("request = [\"uri\"], uri = [\"urn:x:{id}:{date}\"]"),
            "another name at each renewal",
        ),
        (
            names("hardware_module = { type = \"x\", serial = \"{id}\" }"),
            "hardware_module: its type",
        ),
        (
            names(&format!("dns = [{}]", many("\"a\"", 33))),
            "more than 32 names",
        ),
        (
            extension("oid = \"x\", null = true"),
            "its oid is no object identifier",
        ),
        (
            extension("oid = \"2.5.29.15\", null = true"),
            "cannot be set here: use key_usage",
        ),
        (
            extension("oid = \"2.5.29.31\", null = true"),
            "use [listen] public_http",
        ),
        (extension(oid), "give its value once"),
        (
            extension(&format!("{oid}, null = true, integer = 1")),
            "give its value once",
        ),
        (
            extension(&format!("{oid}, null = false")),
            "null can only be true",
        ),
        (
            extension(&format!("{oid}, octet_string = \"0\"")),
            "hexadecimal digits",
        ),
        (
            extension(&format!("{oid}, der = \"0500ff\"")),
            "one DER value",
        ),
        (
            extension(&format!("{oid}, der = \"300305\"")),
            "one DER value",
        ),
        (
            extension("oid = \"2.5.29.54\", integer = 0"),
            "it is for authorities",
        ),
        (
            extension("oid = \"2.16.840.1.113730.1.1\", null = true"),
            "use extended_key_usage",
        ),
        (
            extension("oid = \"2.5.29.46\", critical = true, der = \"3000\""),
            "must not be critical",
        ),
        (
            "extended_key_usage = [\"server_auth\"]".to_owned(),
            "server_auth needs a host name",
        ),
        (
            extension(&format!("{oid}, der = \"3003050500\"")),
            "one DER value",
        ),
        (
            extension(&format!("{oid}, octet_string = \"{}\"", "00".repeat(4_096))),
            "at most 4096 are allowed",
        ),
        (
            format!(
                "extension = [{{ {oid}, octet_string = \"{0}\" }}, {{ {oid}.1\", octet_string = \
                 \"{0}\" }}]",
                "00".repeat(2_100)
            )
            .replace("3\".1", "3.1"),
            "more than 4096 bytes together",
        ),
        (
            format!(
                "extension = [{}]",
                many(&format!("{{ {oid}, null = true }}"), 2)
            ),
            "an extension is there twice",
        ),
        (
            "extended_key_usage = [\"2.5.29.37.0\"]".to_owned(),
            "anyExtendedKeyUsage",
        ),
        (
            "extended_key_usage = [\"1.3.6.1.5.5.7.3.2\", \"client_auth\"]".to_owned(),
            "a purpose twice",
        ),
        (
            "extended_key_usage = [\"time_stamping\", \"client_auth\"]".to_owned(),
            "time_stamping stands alone",
        ),
        (
            "subject = { country = \"Germany\" }".to_owned(),
            "two upper-case letters",
        ),
        (
            "subject = { serial_number = \"a_1\" }".to_owned(),
            "serial_number may have",
        ),
        (
            "subject = { locality = \"{csr.common_name}\" }".to_owned(),
            "subject: locality: there is no",
        ),
    ] {
        let kept = DEVICE.lines().filter(|it| {
            let key = line.split(' ').next().unwrap_or_default();
            !it.trim_start().starts_with(key)
        });
        let text = kept.chain([line.as_str()]).collect::<Vec<_>>().join("\n");
        let refusal = read(&text).expect_err(&line);
        assert!(refusal.contains(reason), "{line}: {refusal}");
    }
}
