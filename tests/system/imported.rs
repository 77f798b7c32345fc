//! Tests the import of what an adopted authority issued before: OpenSSL's own CA has issued and
//! revoked for years, then Hallmark takes over its key, its index and its last list.

use crate::old_authority::{import, openssl, run};
use crate::process::{CommandOutput, until};
use crate::relying_party::{Relying, pem};
use crate::test_env::TestEnv;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

const CONFIGURATION: &str = "
[ca]
default_ca = old
[old]
database = index.txt
new_certs_dir = newcerts
certificate = old.pem
private_key = old.key
serial = serial
crlnumber = crlnumber
default_md = sha256
default_days = 400
default_crl_days = 30
policy = any
email_in_dn = no
unique_subject = no
x509_extensions = leaf
copy_extensions = none
[any]
countryName = optional
organizationName = optional
commonName = supplied
[req]
distinguished_name = name
prompt = no
string_mask = nombstr
[name]
CN = none
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
";

/// Makes OpenSSL's CA with its files, in the environment's folder.
fn old_authority(env: &TestEnv) {
    env.write("openssl.cnf", CONFIGURATION);
    env.write("index.txt", "");
    env.write("serial", "01\n");
    env.write("crlnumber", "2A\n");
    fs::create_dir(env.path("newcerts")).unwrap();
    openssl(
        env,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out old.key",
    );
    openssl(
        env,
        "req -x509 -config openssl.cnf -new -key old.key -days 3650 -set_serial 1 -subj \
         /C=DE/O=Works/CN=Old -extensions authority -out old.pem",
    );
}

fn issue(env: &TestEnv, name: &str, validity: &str) {
    openssl(
        env,
        &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"),
    );
    openssl(
        env,
        &format!(
            "req -new -config openssl.cnf -key {name}.key -subj /O=Works/CN={name} -out {name}.csr"
        ),
    );
    openssl(
        env,
        &format!("ca -batch -config openssl.cnf -in {name}.csr {validity} -notext -out {name}.crt"),
    );
}

/// An environment whose old authority has issued six certificates and revoked three of them; one
/// of each is expired.
pub(crate) fn with_a_past() -> TestEnv {
    let mut env = TestEnv::new();
    let old = "[[authority]]\nname = \"old\"\ntoken = \"factory\"\n\n[[provisioning]]";
    let configuration = env.configuration().replacen("[[provisioning]]", old, 1);
    env.configure(&configuration);
    old_authority(&env);
    let ended = "-startdate 240101000000Z -enddate 250101000000Z";
    for (name, validity) in [
        ("press-11", "-days 400"),
        ("press-12", "-days 400"),
        ("press-13", "-days 400"),
        ("press-14", ended),
        ("press-15", ended),
        ("press-16", "-days 400"),
    ] {
        issue(&env, name, validity);
    }
    for (name, reason) in [
        ("press-12", "keyCompromise"),
        ("press-15", "superseded"),
        ("press-16", "cessationOfOperation"),
    ] {
        openssl(
            &env,
            &format!("ca -config openssl.cnf -revoke {name}.crt -crl_reason {reason}"),
        );
    }
    openssl(&env, "ca -config openssl.cnf -updatedb");
    openssl(&env, "ca -config openssl.cnf -gencrl -out old.crl");
    import(&env, "old", "Old", "01");
    env.start();
    let file = format!(
        "name = \"takeover\"\n[[authority]]\nname = \"old\"\nkey = \"pkcs11:id=%01\"\n\
         certificate = {:?}\n",
        env.path("old.pem")
    );
    let adopted = run(&env, &file);
    assert_eq!(adopted.code, Some(0), "{adopted:?}");
    env
}

fn imported(env: &TestEnv, more: &[&str]) -> CommandOutput {
    let command = ["--json", "authority", "import", "old"];
    env.hallmark(&[&command, more].concat())
}

/// The number of the list, and date and reason by serial number.
fn entries(der: &[u8]) -> (u64, BTreeMap<String, (i64, u8)>) {
    let (_, list) = CertificateRevocationList::from_der(der).unwrap();
    let number = list.crl_number().unwrap().to_string().parse().unwrap();
    let entries = list.iter_revoked_certificates().map(|it| {
        let reason = it.reason_code().map_or(0, |(_, code)| code.0);
        let serial = hex::encode_upper(it.serial().to_bytes_be());
        (serial, (it.revocation_date.timestamp(), reason))
    });
    (number, entries.collect())
}

fn old_list(env: &TestEnv) -> (u64, BTreeMap<String, (i64, u8)>) {
    openssl(env, "crl -in old.crl -outform DER -out old.der");
    entries(&fs::read(env.path("old.der")).unwrap())
}

/// `openssl verify -crl_check` with the present list of the daemon.
fn judged(env: &TestEnv, leaf: &str) -> CommandOutput {
    env.write("list.pem", &pem("crl", &Relying::on(env).crl("old")));
    let mut command = Command::new("openssl");
    command.args([
        "verify",
        "-crl_check",
        "-CAfile",
        "old.pem",
        "-CRLfile",
        "list.pem",
    ]);
    CommandOutput::of(command.arg(format!("{leaf}.crt")).current_dir(env.path("")))
}

/// One certificate's file is missing. Verifies: index, certificates and the last list are taken
/// over; the next list of the authority has the old revocations with their dates and reasons, and a
/// higher number; old devices are known, and can be blocked and revoked, and OpenSSL refuses them
/// then; a compromised old key gets no certificate. A second import changes nothing.
#[test]
fn what_an_adopted_authority_issued_and_revoked_is_known() {
    let env = with_a_past();
    let old = old_list(&env);
    assert_eq!(old.0, 0x2a);
    assert_eq!(old.1.len(), 3, "{old:?}");
    fs::remove_file(env.path("newcerts/06.pem")).unwrap();
    let [index, folder, list] =
        ["index.txt", "newcerts", "old.crl"].map(|it| env.path(it).display().to_string());
    let files = [
        "--index",
        &index,
        "--certificates",
        &folder,
        "--crl",
        &list,
        "--profile",
        "device",
    ];
    let output = imported(&env, &files);
    assert_eq!(output.code, Some(0), "{output:?}");
    let report: Value = serde_json::from_str(&output.out).unwrap();
    for (field, value) in [
        ("indexed", 6),
        ("missing", 1),
        ("listed", 3),
        ("certificates", 5),
        ("serials", 1),
        ("devices", 5),
        ("revocations", 3),
        ("conflicts", 0),
        ("crl_number", 0x2a),
    ] {
        assert_eq!(report[field], value, "{field}: {report}");
    }
    // An expired one may be left out: it was on the old list after its end (RFC 5280, 3.3).
    let valid = |mut listed: BTreeMap<String, (i64, u8)>| {
        listed.remove("05");
        listed
    };
    let now = until("the list has the old revocations", || {
        // No list was signed here yet, so none is served until the first one is.
        let relying = Relying::on(&env);
        let is_served = relying.get("/crl/old.crl").status() == 200;
        let now = is_served.then(|| entries(&relying.crl("old")))?;
        (valid(now.1.clone()) == valid(old.1.clone())).then_some(now)
    });
    assert!(now.0 > old.0, "{now:?}");
    for (leaf, refused) in [("press-11", false), ("press-12", true), ("press-16", true)] {
        let verdict = judged(&env, leaf);
        assert_eq!(
            verdict.error.contains("revoked"),
            refused,
            "{leaf}: {verdict:?}"
        );
    }

    let shown = env.json(&["device", "show", "press-11"]);
    assert!(shown.to_string().contains("press-11"), "{shown}");
    env.run(&["device", "block", "press-11"]);
    until("the block is on the list", || {
        judged(&env, "press-11")
            .error
            .contains("revoked")
            .then_some(())
    });
    env.run(&["device", "unblock", "press-11"]);
    let revoked = env.json(&[
        "certificate",
        "revoke",
        "03",
        "--authority",
        "old",
        "--reason",
        "superseded",
    ]);
    assert_eq!(revoked["subject"], "press-13", "{revoked}");
    until("the revocation is on the list", || {
        judged(&env, "press-13")
            .error
            .contains("revoked")
            .then_some(())
    });
    assert_eq!(env.count("compromised_key"), 1);
    revoke_without_its_file(&env);

    let again = imported(&env, &files);
    let report: Value = serde_json::from_str(&again.out).unwrap();
    for field in [
        "certificates",
        "serials",
        "devices",
        "revocations",
        "conflicts",
    ] {
        assert_eq!(report[field], 0, "{field}: {report}");
    }
    assert_eq!(report["known"], 9, "{report}");
    env.run(&["audit", "verify"]);
}

/// The serial number alone is known: it is revoked by command, once, and stays as it is; OpenSSL
/// refuses the certificate.
fn revoke_without_its_file(env: &TestEnv) {
    // The last list has it for another reason than a hold, which is final.
    let command = |serial: &str, reason: &str| {
        let named = ["certificate", "revoke", serial, "--authority", "old"];
        env.json(&[&named[..], &["--reason", reason]].concat())
    };
    let known = command("06", "superseded");
    assert_eq!(known["already_revoked"], true, "{known}");
    assert_eq!(known["reason"], "cessationOfOperation", "{known}");
    let index = env.write(
        "more.txt",
        "V\t341231235959Z\t\t0A\tunknown\t/O=Works/CN=press-20\n",
    );
    let output = imported(env, &["--index", index.to_str().unwrap()]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let revoked = command("0a", "keyCompromise");
    assert_eq!(revoked["already_revoked"], false, "{revoked}");
    assert!(
        revoked["subject"].to_string().contains("press-20"),
        "{revoked}"
    );
    assert_eq!(revoked["thumbprint"], Value::Null, "{revoked}");
    assert!(
        revoked["notices"].to_string().contains("serial number"),
        "{revoked}"
    );
    until("the list has it", || {
        let listed = entries(&Relying::on(env).crl("old")).1;
        listed
            .get("0A")
            .filter(|(_, reason)| *reason == 1)
            .map(drop)
    });
    let again = command("0A", "superseded");
    assert_eq!(again["already_revoked"], true, "{again}");
    assert_eq!(again["reason"], "keyCompromise", "{again}");
    let unknown = env.hallmark(&["certificate", "revoke", "0B", "--reason", "superseded"]);
    assert!(unknown.error.contains("certificate_unknown"), "{unknown:?}");
    assert_eq!(
        env.count("audit WHERE action = 'certificate.revoked' AND detail LIKE '%0A%'"),
        1
    );
    is_found_by_its_serial(env);
}

/// Lists and `show` have what is known of it, and say what is not; there is no file of it.
fn is_found_by_its_serial(env: &TestEnv) {
    for criteria in [
        &["--serial", "0a"][..],
        &["press-20"],
        &["PRESS-20", "--authority", "old", "--state", "revoked"],
    ] {
        let rows = env.json(&[&["certificate", "list"], criteria].concat());
        let row = &rows[0];
        assert_eq!(row["serial"], "0A", "{criteria:?}: {rows}");
        assert_eq!(row["state"], "revoked", "{rows}");
        assert_eq!(row["authority"], "old", "{rows}");
        assert_eq!(row["generation"], 1, "{rows}");
        for unknown in ["thumbprint", "profile", "role", "not_before", "number"] {
            assert_eq!(row[unknown], Value::Null, "{unknown}: {rows}");
        }
    }
    let shown = env.json(&["certificate", "show", "0A", "--authority", "old"]);
    assert_eq!(shown["subject"], "press-20", "{shown}");
    assert_eq!(shown["revocation_reason"], "keyCompromise", "{shown}");
    assert_eq!(shown["not_after"], "2034-12-31T23:59:59Z", "{shown}");
    assert_eq!(shown["certificate"], Value::Null, "{shown}");
    assert!(
        shown["notices"].to_string().contains("serial number"),
        "{shown}"
    );
    for page in ["?subject=press-20", ".csv?serial=0A", "/0A"] {
        crate::console::shows(env, &format!("/console/certificates{page}"), "press-20");
    }
    let out = env.path("none.pem").display().to_string();
    let refused = env.hallmark(&["certificate", "show", "0A", "--out", &out]);
    assert!(refused.error.contains("nothing is written"), "{refused:?}");
    let refused = env.hallmark(&["certificate", "export", "0A"]);
    assert!(refused.error.contains("without its file"), "{refused:?}");
    for criteria in [
        &["press-20", "--profile", "device"][..],
        &["--serial", "0A", "--state", "valid"],
    ] {
        let none = env.json(&[&["certificate", "list"], criteria].concat());
        assert_eq!(none, json!([]), "{criteria:?}: it exists");
    }
    for criteria in [&["--device", "press-20"][..], &["--serial", "0B"]] {
        let refused = env.hallmark(&[&["certificate", "list"], criteria].concat());
        assert!(
            refused.error.contains("certificate_unknown"),
            "{criteria:?}: {refused:?}"
        );
    }
}

/// A later list revokes a certificate on record, and one that is known by its serial number alone:
/// the journal has an entry for each, and `show` says who imported it.
#[test]
fn a_revocation_that_is_imported_later_is_in_the_journal() {
    let env = with_a_past();
    let [index, folder] = ["index.txt", "newcerts"].map(|it| env.path(it).display().to_string());
    fs::remove_file(env.path("newcerts/03.pem")).unwrap();
    let first = [
        "--index",
        &index,
        "--certificates",
        &folder,
        "--profile",
        "device",
    ];
    assert_eq!(imported(&env, &first).code, Some(0));
    for name in ["press-11", "press-13"] {
        openssl(
            &env,
            &format!("ca -config openssl.cnf -revoke {name}.crt -crl_reason superseded"),
        );
    }
    openssl(&env, "ca -config openssl.cnf -gencrl -out old.crl");
    let list = env.path("old.crl").display().to_string();
    for revocations in [2, 0] {
        let output = imported(&env, &["--crl", &list]);
        let report: Value = serde_json::from_str(&output.out).unwrap();
        assert_eq!(report["revocations"], revocations, "{report}");
        let journal = env.json(&["audit", "show", "--limit", "1000"]);
        let revoked = |subject: &str| {
            let its = journal.as_array().unwrap().iter().filter(|entry| {
                entry["action"] == "certificate.revoked" && entry["subject"] == subject
            });
            its.map(|entry| entry["detail"].clone()).collect::<Vec<_>>()
        };
        for subject in ["press-11", "press-13"] {
            let entries = revoked(subject);
            assert_eq!(entries.len(), 1, "{subject}: {journal}");
            assert_eq!(entries[0]["reason"], "superseded", "{entries:?}");
            assert_eq!(entries[0]["cause"], "import", "{entries:?}");
        }
    }
    // The authority's own certificate has the same serial number.
    let listed = env.json(&["certificate", "list", "press-11"]);
    let digest = listed[0]["thumbprint"].as_str().unwrap();
    let shown = env.json(&["certificate", "show", digest]);
    let change = &shown["record"]["revocations"][0];
    assert_eq!(change["cause"], "import", "{shown}");
    env.run(&["audit", "verify"]);
}

/// Verifies: files that are not what they should be are refused with the reason, and change
/// nothing; an authority that was made here has no past.
#[test]
fn what_is_no_past_of_the_authority_is_not_imported() {
    let env = with_a_past();
    let good = fs::read_to_string(env.path("index.txt")).unwrap();
    let broken = env.write("broken.txt", &format!("{good}X\t1\t\t01\tunknown\t/CN=x\n"));
    openssl(
        &env,
        "req -x509 -config openssl.cnf -new -newkey rsa:2048 -nodes -keyout other.key -days 9 \
         -subj /C=DE/O=Works/CN=Old -extensions authority -out other.pem",
    );
    openssl(
        &env,
        "ca -config openssl.cnf -keyfile other.key -cert other.pem -gencrl -out other.crl",
    );
    let other = env.path("other.crl");
    let pem = env.path("old.pem");
    let path = |it: &std::path::Path| it.display().to_string();
    for (files, reason) in [
        (["--index", &path(&broken)], "line 7"),
        (["--crl", &path(&other)], "has not signed it"),
        (["--crl", &path(&pem)], "no revocation list"),
        (["--index", "/nowhere/index.txt"], "/nowhere"),
    ] {
        let refused = imported(&env, &files);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.error.contains("import_refused") && refused.error.contains(reason),
            "{reason}: {refused:?}"
        );
    }
    assert_eq!(env.count("former_certificate"), 0);
    assert_eq!(env.count("intent"), 1);
    let unknown = env.hallmark(&[
        "authority",
        "import",
        "nobody",
        "--crl",
        &path(&env.path("old.crl")),
    ]);
    assert!(unknown.error.contains("authority_unknown"), "{unknown:?}");
}

/// The daemon is killed in the middle of an import of thousands of lines without certificates.
/// Verifies: the same command goes on, and the next list has every old revocation once.
#[test]
fn an_import_that_was_cut_off_goes_on() {
    let mut env = with_a_past();
    let line = |serial: usize| {
        format!(
            "R\t351231235959Z\t260102030405Z,superseded\t{serial:06X}\tunknown\t/CN=old-{serial}\n"
        )
    };
    let lines: String = (0x1000..0x1000 + 2_000).map(line).collect();
    let index = env.write("long.txt", &lines);
    env.stop();
    env.start_to_stay_at(&["import-chunk"]);
    let (client, file) = (env.client(), index.display().to_string());
    let operator = std::thread::spawn(move || {
        client.hallmark(&["authority", "import", "old", "--index", &file]);
    });
    env.stays_at("import-chunk");
    env.kill();
    operator.join().unwrap();
    env.start();
    let before = env.count("former_certificate");
    assert!((1..2_000).contains(&before), "{before}");
    let output = imported(&env, &["--index", index.to_str().unwrap()]);
    assert!(output.error.contains("2000 of 2000"), "{output:?}");
    assert_eq!(env.count("former_certificate"), 2_000);
    until("the list has them", || {
        // No list was signed before the kill, so none is served until the first one is.
        let relying = Relying::on(&env);
        let is_served = relying.get("/crl/old.crl").status() == 200;
        let listed = is_served.then(|| entries(&relying.crl("old")).1)?;
        (listed.len() == 2_000).then_some(())
    });
}
