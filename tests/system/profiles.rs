//! Tests certificates of every shape that a profile can have, as OpenSSL reads and verifies them.

use crate::authority_roll::{comes_to, start};
use crate::configured::station_table;
use crate::process::CommandOutput;
use crate::request::{Holder, Request};
use crate::test_env::{CEREMONY, TestEnv};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A profile for devices, with these lines in its `[profile.certificate]`.
fn profile(name: &str, lines: &str) -> String {
    format!(
        "\n[[profile]]\nname = \"{name}\"\nauthority = \"line-1\"\nrole = \"device\"\n\
         [profile.certificate]\n{lines}\n"
    )
}

/// Everything that a leaf can have.
const EVERYTHING: &str = r#"
preset = "device"
extended_key_usage = ["client_auth", "code_signing", "1.3.6.1.4.1.32473.9"]
certificate_policies = [
    "1.3.6.1.4.1.32473.1",
    { oid = "1.3.6.1.4.1.32473.2", cps = "https://pki.example/cps" },
]
subject = { country = "DE", locality = "Works {line}", serial_number = "{csr.serial_number}" }
[profile.certificate.subject_alternative_names]
request = ["dns", "uri"]
dns = ["{id}.devices.example"]
ip = ["192.0.2.7"]
uri = ["urn:example:{line}:{id}"]
email = ["{station}.{year}@plant.example"]
hardware_module = { type = "1.3.6.1.4.1.32473.3", serial = "{id}" }
[[profile.certificate.extension]]
oid = "1.3.6.1.4.1.32473.4"
utf8_string = "press"
[[profile.certificate.extension]]
oid = "1.3.6.1.4.1.32473.5"
critical = true
integer = -129
[[profile.certificate.extension]]
oid = "1.3.6.1.4.1.32473.6"
der = "3003020105"
"#;

/// The configuration with these profiles, by which the test's station may ask for every device.
fn with(env: &TestEnv, profiles: &[(&str, &str)]) -> String {
    let names: Vec<&str> = profiles.iter().map(|it| it.0).collect();
    let tables = profiles.iter().map(|(name, lines)| profile(name, lines));
    env.configuration() + &tables.collect::<String>() + &station_table("station-?", &names, &["*"])
}

/// `openssl req` with this subject and these alternative names.
fn request(env: &TestEnv, profile: &str, id: &str, subject: &str, names: &str) -> Request {
    let [key, csr] = ["profiles.key", "profiles.csr"].map(|it| env.path(it));
    let mut command = Command::new("openssl");
    command.args(["req", "-nodes", "-newkey", "ec", "-pkeyopt"]);
    command.args(["ec_paramgen_curve:P-256", "-subj", subject]);
    if !names.is_empty() {
        command
            .arg("-addext")
            .arg(format!("subjectAltName={names}"));
    }
    let output = CommandOutput::of(command.arg("-keyout").arg(&key).arg("-out").arg(&csr));
    assert_eq!(output.code, Some(0), "{output:?}");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    Request::of(profile, id, read(csr), read(key))
}

/// The leaf as `openssl x509 -text` prints it.
fn printed(env: &TestEnv, leaf: &Holder) -> String {
    let file = env.write("printed.pem", &leaf.certificate);
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-text", "-in"]).arg(file);
    let output = CommandOutput::of(&mut command);
    assert_eq!(output.code, Some(0), "{output:?}");
    output.out
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// `openssl verify` with these arguments, over the leaf's chain.
fn verified(env: &TestEnv, leaf: &Holder, arguments: &[&str]) -> CommandOutput {
    let root = env.write("root.pem", &env.authority("root"));
    let chain = env.write("chain.pem", &leaf.chain.concat());
    let file = env.write("leaf.pem", &leaf.certificate);
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict"]).args(arguments);
    command
        .arg("-CAfile")
        .arg(root)
        .arg("-untrusted")
        .arg(chain);
    CommandOutput::of(command.arg(file))
}

/// Verifies: each member is in the certificate as OpenSSL prints it; of the CSR it has the key,
/// the attribute that the profile takes, and the names of the kinds that it takes; a CSR without
/// the attribute, and one with an unfit name of such a kind, are refused.
#[test]
fn a_certificate_has_what_its_profile_says_and_nothing_else_of_the_csr() {
    let env = TestEnv::new();
    let stamps = "preset = \"device\"\nextended_key_usage = [\"time_stamping\"]";
    let profiles = [("everything", EVERYTHING), ("stamps", stamps)];
    env.configure(&with(&env, &profiles));
    let env = env.started();
    let station = env.station();
    let stamps = station.obtain(&Request::new("stamps", "press-9"));
    let accepted = verified(&env, &stamps, &["-purpose", "timestampsign"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    let subject = "/O=Of the CSR/serialNumber=SN-7/CN=press-7";
    let names = "DNS:b.example,DNS:press-7.devices.example,IP:198.51.100.9,URI:urn:x:7,email:a@b";
    let leaf = station.obtain(&request(&env, "everything", "press-7", subject, names));
    let text = printed(&env, &leaf);
    has(
        &text,
        &[
            "Subject: C = DE, L = Works line-1, serialNumber = SN-7, CN = press-7",
            "TLS Web Client Authentication, Code Signing, 1.3.6.1.4.1.32473.9",
            "Policy: 1.3.6.1.4.1.32473.1",
            "Policy: 1.3.6.1.4.1.32473.2",
            "CPS: https://pki.example/cps",
            "DNS:b.example, DNS:press-7.devices.example, URI:urn:x:7, IP Address:192.0.2.7, \
             URI:urn:example:line-1:press-7, email:station-1.20",
            "@plant.example, othername: 1.3.6.1.5.5.7.8.4",
            "1.3.6.1.4.1.32473.4: \n                ..press",
            "1.3.6.1.4.1.32473.5: critical",
            "1.3.6.1.4.1.32473.6: \n                0....",
        ],
    );
    for dropped in ["Of the CSR", "198.51.100.9", "email:a@b"] {
        assert!(!text.contains(dropped), "{dropped}: {text}");
    }
    let strict = verified(&env, &leaf, &[]);
    // OpenSSL knows no critical extension of ours, so it refuses, as a verifier must.
    assert!(
        strict.error.contains("unhandled critical extension"),
        "{strict:?}"
    );
    let accepted = verified(&env, &leaf, &["-ignore_critical"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");

    let without = station.ask(&request(&env, "everything", "press-8", "/CN=press-8", ""));
    assert_eq!((without.status, without.code()), (400, "template_refused"));
    has(
        &without.body.to_string(),
        &["serial_number", "openssl req: -subj"],
    );
    let subject = "/serialNumber=SN-8/CN=press-8";
    let unfit = request(&env, "everything", "press-8", subject, "URI:press");
    assert_eq!(station.ask(&unfit).code(), "csr_bad_name");
}

/// Verifies: an identity without an end outlives its issuer (and no other leaf does); whole days
/// and fixed ends are as OpenSSL prints them; an end that is over is refused.
#[test]
fn certificates_end_as_the_profile_says() {
    let env = TestEnv::new();
    let whole = "preset = \"ldevid\"\nvalidity = \"2d\"\nwhole_days = true";
    let fixed = "preset = \"ldevid\"\nnot_after = \"2027-12-31T23:59:59Z\"";
    let profiles = [
        ("idevid", "preset = \"idevid\""),
        ("whole", whole),
        ("fixed", fixed),
        ("over", &fixed.replace("2027", "2025")),
        ("long", "preset = \"device\"\nvalidity = \"49y\""),
    ];
    env.configure(&with(&env, &profiles));
    let env = env.started();
    let station = env.station();
    let text = |profile: &str, id: &str| {
        let leaf = station.obtain(&Request::new(profile, id));
        leaf.is_accepted_by_openssl(&env.authority("root"));
        printed(&env, &leaf)
    };
    has(
        &text("idevid", "press-1"),
        &[
            "Dec 31 23:59:59 9999 GMT",
            "serialNumber = press-1, CN = press-1",
        ],
    );
    let days = text("whole", "press-2");
    has(&days, &[" 23:59:59 20"]);
    has(&text("fixed", "press-3"), &["Dec 31 23:59:59 2027 GMT"]);
    let over = station.ask(&Request::new("over", "press-4"));
    assert_eq!((over.status, over.code()), (400, "validity_out_of_range"));
    has(
        &over.body.to_string(),
        &["2025-12-31T23:59:59Z, which is over"],
    );
    let long = station.ask(&Request::new("long", "press-5"));
    assert_eq!(long.code(), "outlives_issuer");
}

/// Verifies: `check` and a reload refuse each mistake with line and member, in plain words, and the
/// daemon goes on with what it had.
#[test]
fn a_mistake_in_a_profile_is_named_when_the_file_is_read() {
    let env = TestEnv::running();
    let good = env.configuration();
    for (lines, words) in [
        (
            "preset = \"toaster\"",
            &["`toaster`", "adr-intermediate"][..],
        ),
        ("preset = \"root\"", &["a CA certificate"]),
        (
            "preset = \"device\"\nextended_key_usage = [\"any\"]",
            &["extended_key_usage \"any\"", "client_auth"],
        ),
        (
            "preset = \"device\"\nsubject_alternative_names = { dns = [\"{name}.x\"] }",
            &["no place {name}", "{id}"],
        ),
        (
            "preset = \"device\"\n[[profile.certificate.extension]]\noid = \"2.5.29.15\"\nnull = \
             true",
            &["2.5.29.15", "use key_usage"],
        ),
    ] {
        env.configure(&(good.clone() + &profile("wrong", lines)));
        for output in [env.check(), env.hallmark(&["reload"])] {
            assert_eq!(output.code, Some(1), "{lines}: {output:?}");
            let said = format!("{}{}", output.out, output.error);
            has(&said, words);
            for inside in ["unknown variant", "expected one of", "untagged"] {
                assert!(!said.contains(inside), "{said}");
            }
        }
    }
    env.configure(&good);
    env.run(&["reload"]);
}

/// A certificate of an example: its bytes with a signature that is none, for OpenSSL to print.
fn as_certificate(tbs: &str) -> Vec<u8> {
    let tbs = hex::decode(tbs).unwrap();
    // ecdsa-with-SHA384 or SHA256 as in the bytes is not compared; the signature is one octet.
    let algorithm = hex::decode("300a06082a8648ce3d040302").unwrap();
    let signature = [0x03, 0x02, 0x00, 0x01];
    let contents = [&tbs[..], &algorithm, &signature].concat();
    let [high, low] = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82, high, low], &contents[..]].concat()
}

/// Verifies: a profile with everything and each preset has an example, each line of which OpenSSL
/// prints of its bytes, too; it says that it is one; and nothing was issued or recorded.
#[test]
fn an_example_shows_what_would_be_issued_and_issues_nothing() {
    let env = TestEnv::new();
    env.configure(&with(&env, &[("everything", EVERYTHING)]));
    let env = env.started();
    let issued = env.count("certificate");
    let journal = env.entries();
    let mut names: Vec<(String, bool)> = vec![("everything".into(), false)];
    let listed = env.json(&["profile", "list"]);
    for row in listed.as_array().unwrap() {
        let name = row["name"].as_str().unwrap().to_owned();
        names.push((name, row["source"] == "preset"));
    }
    assert!(names.len() > 16, "{names:?}");
    for (name, is_preset) in names {
        let mut arguments = vec!["profile", "show", &name, "--example"];
        if is_preset {
            arguments.push("--preset");
        }
        let shown = env.json(&arguments);
        let text = shown["example"]["text"].as_str().unwrap();
        let tbs = shown["example"]["tbs"].as_str().unwrap();
        let file = env.path("example.der");
        fs::write(&file, as_certificate(tbs)).unwrap();
        let mut command = Command::new("openssl");
        command.args(["x509", "-inform", "DER", "-noout", "-text", "-in"]);
        let output = CommandOutput::of(command.arg(&file));
        assert_eq!(output.code, Some(0), "{name}: {output:?}");
        let plain = |text: &str| text.replace(" = ", "=").replace('\n', " \n");
        let printed = plain(&output.out);
        for line in plain(text).lines() {
            // OpenSSL shows no value of an otherName, and names algorithms in its own way.
            let line = line
                .split("othername: 1.3.6.1.5.5.7.8.4")
                .next()
                .unwrap()
                .trim();
            assert!(
                printed.contains(line),
                "{name}: {line:?} is not in {printed}"
            );
        }
        let said = env.run(&arguments);
        has(
            &said,
            &["an example: it was not issued", "X509v3 extensions:"],
        );
    }
    assert_eq!(env.count("certificate"), issued);
    assert_eq!(env.entries(), journal);
    let text = env.run(&["profile", "list"]);
    has(
        &text,
        &[
            "everything",
            "configured",
            "adr-intermediate",
            "preset",
            "client_auth",
        ],
    );
    let unknown = env.hallmark(&["profile", "show", "toaster"]);
    assert_eq!(unknown.code, Some(1));
    has(&unknown.error, &["no profile and no preset \"toaster\""]);
}

/// Limits of line-1 in the ceremony file; the authorities above have its policy.
const LIMITS: &str = r#"
certificate_policies = ["1.3.6.1.4.1.32473.1"]
[authority.name_constraints]
permitted = { dns = ["devices.example"], ip = ["192.0.2.0/24"] }
excluded = { dns = ["secret.devices.example"] }
"#;

/// Verifies: an authority gets name constraints and policies from the ceremony file, and keeps them
/// through a rollover; OpenSSL accepts leaves under the policy and refuses one without; names
/// outside are refused before anything is signed; the ceremony is repeated, and refused with other
/// limits.
#[test]
fn an_authority_limits_names_and_policies_below_it() {
    let env = TestEnv::new();
    let with_policy = "preset = \"device\"\ncertificate_policies = [\"1.3.6.1.4.1.32473.1\"]\n\
                       subject_alternative_names = \"dns_and_ip\"";
    let profiles = [
        ("limited", with_policy),
        ("unlimited", "preset = \"device\""),
    ];
    env.configure(&with(&env, &profiles));
    let policy = "certificate_policies = [\"2.5.29.32.0\"]\n";
    let ceremony = CEREMONY
        .replace("path_length = 1\n", &format!("path_length = 1\n{policy}"))
        .replacen(
            "path_length = 0\n",
            &format!("path_length = 0\n{LIMITS}"),
            1,
        );
    let file = env.write("ceremony.toml", &ceremony);
    let env = env.started();
    let station = env.station();
    let name = "DNS:press-7.devices.example,IP:192.0.2.7";
    let leaf = station.obtain(&request(&env, "limited", "press-7", "/CN=press-7", name));
    let explicit = ["-policy", "1.3.6.1.4.1.32473.1", "-explicit_policy"];
    let accepted = verified(&env, &leaf, &explicit);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    let without = station.obtain(&Request::new("unlimited", "press-8"));
    without.is_accepted_by_openssl(&env.authority("root"));
    let refused = verified(&env, &without, &explicit);
    assert!(refused.error.contains("no explicit policy"), "{refused:?}");
    for name in [
        "DNS:press.example",
        "DNS:a.secret.devices.example",
        "IP:192.0.3.1",
    ] {
        let asked = request(&env, "limited", "press-9", "/CN=press-9", name);
        assert_eq!(station.ask(&asked).code(), "name_constraints", "{name}");
    }
    let printed_limits = |pem: &str| {
        let holder = Holder {
            certificate: pem.to_owned(),
            ..leaf.clone()
        };
        let text = printed(&env, &holder);
        let parts = [
            "X509v3 Name Constraints: critical",
            "DNS:devices.example",
            "IP:192.0.2.0/255.255.255.0",
            "DNS:secret.devices.example",
            "Policy: 1.3.6.1.4.1.32473.1",
        ];
        has(&text, &parts);
    };
    printed_limits(&env.authority("line-1"));
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    for (from, to, words) in [
        ("192.0.2.0/24", "192.0.2.0/25", "other name constraints"),
        ("32473.1", "32473.2", "other policies"),
        ("192.0.2.0/24", "192.0.2.1/24", "is no network"),
    ] {
        let file = env.write("other.toml", &ceremony.replace(from, to));
        let output = env.hallmark(&["ceremony", "run", file.to_str().unwrap()]);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.error.contains(words), "{words}: {output:?}");
    }
    let roll = start(&env, "line-1", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    env.wait_in_sync();
    let all = env.authority("line-1");
    let (_, newest) = all.rsplit_once("-----BEGIN").unwrap();
    printed_limits(&format!("-----BEGIN{newest}"));
}

const BAY: &str = r#"
name = "bay"
[[authority]]
name = "bay"
issuer = "root"
preset = "intermediate"
subject = { common_name = "Example Works Bay" }
"#;

/// Verifies: an authority of a ceremony file has what its preset says, as OpenSSL reads it; the
/// same file finds it again; a preset for another place is refused, and makes nothing.
#[test]
fn a_ceremony_starts_from_a_preset() {
    let env = TestEnv::new();
    let authority = "[[authority]]\nname = \"bay\"\ntoken = \"factory\"\n";
    env.configure(&(env.configuration() + authority));
    let env = env.started();
    let run = |text: &str| {
        let file = env.write("bay.toml", text);
        env.hallmark(&["ceremony", "run", file.to_str().unwrap()])
    };
    for (from, to, why) in [
        ("\"intermediate\"", "\"root\"", "a root signs itself"),
        ("\"intermediate\"", "\"device\"", "is for a [[profile]]"),
        ("issuer = \"root\"\n", "", "an intermediate has an issuer"),
    ] {
        let refused = run(&BAY.replace(from, to));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.error.contains(why), "{refused:?}");
    }
    assert_eq!(env.count("generation WHERE authority = 'bay'"), 0);
    let made = run(BAY);
    assert_eq!(made.code, Some(0), "{made:?}");
    env.write("bay.pem", &env.authority("bay"));
    let mut command = Command::new("openssl");
    command.args("x509 -in bay.pem -noout -text".split(' '));
    let text = CommandOutput::of(command.current_dir(env.path(""))).out;
    for said in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let years = "intent i JOIN generation g ON g.certificate = i.id WHERE g.authority = 'bay' \
                 AND i.not_after - i.not_before BETWEEN 315576000 AND 315577000";
    assert_eq!(env.count(years), 1, "ten years");
    let again = run(BAY);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(env.count("generation WHERE authority = 'bay'"), 1);
}
