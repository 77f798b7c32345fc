//! Tests of reading and checking the configuration.

mod reference;

use super::*;
use crate::ca::profile::Role;
use proptest::prelude::*;
use std::collections::BTreeSet;

const EXAMPLE: &str = include_str!("../../../../docs/hallmark.toml");

fn parse(text: &str) -> Result<Configuration, String> {
    let credentials = Some(Path::new("/run/credentials/hallmarkd.service"));
    let file = PathBuf::from("/etc/hallmark.toml");
    Configuration::parse(text, file, credentials).map_err(|error| error.to_string())
}

#[test]
fn the_example_that_ships_is_a_configuration() {
    let configuration = parse(EXAMPLE).unwrap();
    assert_eq!(configuration.issuer.profiles["device"].role, Role::Device);
    assert_eq!(
        configuration.services().verified["dps"],
        BTreeSet::from(["root".to_owned()])
    );
    assert_eq!(configuration.drift, DriftPolicy::Report);
    assert_eq!(configuration.admin, Path::new("/run/hallmark/admin.sock"));
}

/// In the example that ships, each line of `[policy]` has the default, or says it: "without it, …".
#[test]
fn the_example_that_ships_says_the_defaults() {
    let (_, lines) = EXAMPLE.split_once("[policy]\n").unwrap();
    let default_of = |line: &str| {
        let (key, value) = line.split_once(" = ").expect(line);
        let said = line.split_once("without it, ").map(|(_, said)| said);
        format!("{key} = {}\n", said.unwrap_or(value))
    };
    let said: String = lines.lines().map(default_of).collect();
    let policy: policy::Policy = toml::from_str(&said).unwrap();
    assert_eq!(
        format!("{policy:?}"),
        format!("{:?}", policy::Policy::default())
    );
    // The keys that there are, as the refusal of another one lists them.
    let refusal = toml::from_str::<policy::Policy>("nonsense = 1").unwrap_err();
    let refusal = refusal.to_string();
    let (_, keys) = refusal.split_once("expected one of ").unwrap();
    for key in keys.split('`').skip(1).step_by(2) {
        assert!(
            said.contains(&format!("{key} = ")),
            "the example lacks {key}"
        );
    }
}

#[test]
fn the_gateway_that_ships_is_a_configuration() {
    let configuration = parse(include_str!("../../../../docs/gateway.toml")).unwrap();
    assert!(configuration.issuer.clock.must_be_synchronised);
    let tokens: Vec<_> = configuration.tokens.values().collect();
    assert!(matches!(&tokens[..], [tpm] if tpm.interface.family().is_none()));
}

#[test]
fn all_files_are_in_one_folder_by_default() {
    let mut text = EXAMPLE.to_owned();
    for key in ["runtime_dir", "token_state_dir"] {
        text = text.replace(&format!("\n{key} ="), &format!("\n# {key} ="));
    }
    let configuration = parse(&text).unwrap();
    let state = Path::new("/var/lib/hallmark");
    assert_eq!(configuration.admin, state.join("admin.sock"));
    assert_eq!(
        configuration.worker_socket("factory"),
        state.join("token-factory.sock")
    );
    assert_eq!(configuration.token_state_dir, state);
}

#[test]
fn contradictions_are_refused_with_the_reason() {
    for (from, to, reason) in [
        ("state_dir", "state_directory", "is not known"),
        (
            "token = \"factory\"\n[[authority]]\nname = \"plant\"",
            "token = \"lab\"\n[[authority]]\nname = \"plant\"",
            "there is no such [[token]]",
        ),
        (
            "authority = \"line-1\"",
            "authority = \"line-9\"",
            "there is no such [[authority]]",
        ),
        (
            "verified = [\"root\"]",
            "verified = [\"rot\"]",
            "there is no such [[authority]]",
        ),
        (
            "profile = \"server\"",
            "profile = \"station\"",
            "must have role \"server\"",
        ),
        (
            "profile = \"server\"",
            "profile = \"unknown\"",
            "there is no such [[profile]]",
        ),
        (
            "est_profile = \"device\"",
            "est_profile = \"devise\"",
            "est_profile is \"devise\"",
        ),
        ("https = \"0.0.0.0:8443\"", "", "est_profile needs `https`"),
        (
            "names = [\"hallmark.line-1.example\", \"192.0.2.10\"]",
            "names = []",
            "needs `names`",
        ),
        (
            "name = \"plant\"",
            "name = \"root\"",
            "two [[authority]] are named \"root\"",
        ),
        ("validity = \"90d\"", "validity = \"soon\"", "no duration"),
        (
            "name = \"plant\"",
            "name = \"root-2\"",
            "also be a generation of \"root\"",
        ),
        (
            "name = \"plant\"",
            "name = \"the plant\"",
            "cannot be called so",
        ),
        (
            "subject_alternative_names = \"dns_and_ip\"",
            "",
            "server_auth needs a host name",
        ),
        (
            "subject_alternative_names = \"dns_and_ip\"",
            "subject_alternative_names = { dns = [\"a.example\"] }",
            "clients look for",
        ),
        (
            "signing_window = \"3y\"",
            "crl_partitions = 6",
            "give 1, 2, 4, 8, 16, 32, 64, 128 or 256",
        ),
        (
            "name = \"plant\"",
            "name = \"plant.delta\"",
            "one of its lists",
        ),
        (
            "name = \"plant\"",
            "name = \"plant.1of2\"",
            "one of its lists",
        ),
        (
            "crl_interval = \"1d\"",
            "crl_interval = \"7d\"",
            "shorter than crl_validity",
        ),
        (
            "public_http = \"http://",
            "public_http = \"https://",
            "plain http://",
        ),
        (
            "key_usage = [\"digital_signature\"]",
            "key_usage = [\"key_cert_sign\"]",
            "a leaf",
        ),
        (
            "profiles = [\"device\"]",
            "profiles = [\"operator\"]",
            "for the role \"operator\"",
        ),
        (
            "\n[[station]]\n",
            "\n[[station]]\nname = \"LINE-1-*\"\nprofiles = [\"device\"]\nids = [\"*\"]\n\
             [[station]]\n",
            "two [[station]] are named",
        ),
        ("ids = [\"press-*\"", "ids = [\"press/*\"", "no name has"),
    ] {
        let error = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(reason), "{from} → {to}: {error}");
    }
}

proptest! {
    #[test]
    fn no_file_causes_a_panic(
        at in 0..EXAMPLE.len(), noise in "\\PC{0,12}",
    ) {
        if let (Some(before), Some(after)) = (EXAMPLE.get(..at), EXAMPLE.get(at..)) {
            let _ = parse(&format!("{before}{noise}{after}"));
        }
    }
}

/// Delta lists and partitions name addresses, and a delta list is for the time between two complete
/// ones.
#[test]
fn lists_with_addresses_need_a_public_one() {
    let text = EXAMPLE.replace(
        "signing_window = \"3y\"",
        "delta_crls = true\ncrl_partitions = 8",
    );
    let configuration = parse(&text).unwrap();
    assert!(configuration.crl_schedule.with_deltas.contains("line-1"));
    assert_eq!(configuration.issuer.crl_partitions["line-1"], 8);
    for (from, to, reason) in [
        (
            "public_http = \"http://pki.line-1.example:8080\"",
            "# none",
            "set [listen] http and public_http",
        ),
        (
            "delta_crl_interval = \"1h\"",
            "delta_crl_interval = \"1d\"",
            "between two complete ones",
        ),
        (
            "delta_crl_validity = \"1d\"",
            "delta_crl_validity = \"8d\"",
            "between two complete ones",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let refused = parse(&text.replace(from, to)).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}
