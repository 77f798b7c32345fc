//! Tests authorities below name constraints. A customer's root permits certain names only. Another
//! name is refused before anything is signed; OpenSSL accepts the leaves that are issued. The
//! client of other stories is built on rustls, which refuses directory names in constraints, so
//! OpenSSL judges here.

use crate::authority_roll::{comes_to, start};
use crate::device::is_assigned;
use crate::elsewhere::Elsewhere;
use crate::external::{asked, ceremony, csr, install};
use crate::old_authority::{EXTENSIONS, P256, certify_plant, import_both, make_key, openssl, run};
use crate::process::until;
use crate::request::Request;
use crate::test_env::TestEnv;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const CONSTRAINED: &str = "
[constrained]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, @subtrees
[subtrees]
permitted;dirName.0 = works
permitted;DNS.0 = localhost
permitted;DNS.1 = works.example
permitted;IP.0 = 127.0.0.0/255.0.0.0
excluded;DNS.0 = secret.works.example
[works]
C = DE
O = Works
[unevaluated]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;otherName:1.2.3;UTF8:x
";

const SUBJECT: &str = "subject = { country = \"DE\", organization = \"Works\"";

/// The authorities that are made below the adopted ones.
fn made_here(subject: &str) -> String {
    let authority = |name: &str, issuer: &str| {
        format!(
            "[[authority]]\nname = {name:?}\nissuer = {issuer:?}\n{subject}common_name = \"New \
             {name}\" }}\n\
             validity = \"1y\"\npath_length = 0\n"
        )
    };
    authority("line-1", "plant") + &authority("operations", "root")
}

fn takeover(env: &TestEnv, root: &str, below: &str) -> String {
    let [root, plant] = [root, "plant.pem"].map(|it| env.path(it));
    format!(
        "name = \"takeover\"\n[[authority]]\nname = \"root\"\nkey = \"pkcs11:id=%01\"\n\
         certificate = {root:?}\n[[authority]]\nname = \"plant\"\nissuer = \"root\"\n\
         key = \"pkcs11:id=%02\"\ncertificate = {plant:?}\n{below}"
    )
}

/// Root and intermediate, each with the constraints, and profiles whose subjects fit.
fn old_authorities(env: &TestEnv) {
    env.write("openssl.cnf", &format!("{EXTENSIONS}{CONSTRAINED}"));
    for name in ["root", "plant"] {
        make_key(env, P256, name);
    }
    for (name, extensions) in [("root", "constrained"), ("unevaluated", "unevaluated")] {
        openssl(
            env,
            &format!(
                "req -x509 -config openssl.cnf -new -key root.key -days 3650 -subj \
                 /C=DE/O=Works/CN=Old-Root -extensions {extensions} -out {name}.pem"
            ),
        );
    }
    openssl(
        env,
        "req -config openssl.cnf -new -key plant.key -subj /C=DE/O=WORKS/CN=Old-Plant -out \
         plant.csr",
    );
    certify_plant(env, "constrained");
    import_both(env);
    let leaves = format!("kind = \"leaf\"\n{SUBJECT} }}");
    env.configure(&env.configuration().replace("kind = \"leaf\"", &leaves));
}

/// A certificate request by OpenSSL, with these alternative names.
fn server_csr(env: &TestEnv, names: &str) -> String {
    let file = env.path("server.csr");
    let path = file.to_str().unwrap();
    openssl(
        env,
        &format!(
            "req -new -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -keyout server.key -subj /CN=server -addext subjectAltName={names} -out {path}"
        ),
    );
    path.to_owned()
}

/// The value of its name constraints, as OpenSSL shows them.
fn constraints(pem: &str, folder: &Path) -> String {
    fs::write(folder.join("shown.pem"), pem).unwrap();
    let mut command = Command::new("openssl");
    command.args("x509 -in shown.pem -noout -ext nameConstraints".split(' '));
    let output = command.current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Verifies: a root and an intermediate with name constraints are adopted, and verified at the
/// provisioning service; an authority below that violates them is not made, and has no key; leaves
/// within the constraints are issued and accepted by OpenSSL; a leaf outside of them is refused
/// before anything is recorded, in words; a rollover of each keeps its constraints.
#[test]
fn names_outside_the_constraints_of_an_adopted_root_are_refused() {
    let mut env = TestEnv::new();
    old_authorities(&env);
    env.start();
    let output = run(&env, &takeover(&env, "unevaluated.pem", ""));
    assert!(output.error.contains("otherName:1.2.3"), "{output:?}");
    let output = run(
        &env,
        &takeover(&env, "root.pem", &made_here("subject = { ")),
    );
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error.contains("authority_limited"), "{output:?}");
    assert!(output.error.contains("C=DE"), "{output:?}");
    assert_eq!(env.count("generation"), 2);

    let below = made_here(&format!("{SUBJECT}, "));
    let output = run(&env, &takeover(&env, "root.pem", &below));
    assert_eq!(output.code, Some(0), "{output:?}");
    until("the root is verified", || {
        let held = env.emulator.authorities();
        let verified = |it: &Value| it["properties"]["isVerified"] == true;
        held.iter().any(verified).then_some(())
    });
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let root = fs::read_to_string(env.path("root.pem")).unwrap();
    for id in ["press-1", "press-2.works.example"] {
        let leaf = env.enlist("device", id);
        env.wait_in_sync();
        leaf.is_accepted_by_openssl(&root);
        is_assigned(&env.emulator, &leaf);
    }
    refuses_others(&env);
    keeps_its_constraints(&env, &root);
}

fn refused(env: &TestEnv, id: &str) -> String {
    let csr = env.write("refused.csr", &Request::device(id).csr);
    let csr = csr.to_str().unwrap();
    let command = [
        "--json",
        "issue",
        "--profile",
        "device",
        "--id",
        id,
        "--csr",
        csr,
    ];
    let output = env.hallmark(&command);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error.contains("[name_constraints]"), "{output:?}");
    output.error
}

/// A common name that is a host name elsewhere, and servers' names.
fn refuses_others(env: &TestEnv) {
    let recorded = || env.count("intent") + env.count("certificate");
    let before = recorded();
    let said = refused(env, "press-3.other.example");
    for words in ["press-3.other.example", "DNS:works.example", "Old-Plant"] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(recorded(), before);
    assert_eq!(env.count("audit WHERE detail LIKE '%name_constraints%'"), 1);
    for names in [
        "DNS:secret.works.example",
        "DNS:a.secret.works.example",
        "DNS:other.example",
        "DNS:a.localhost,IP:10.0.0.1",
        "IP:::1,DNS:other.example",
    ] {
        let csr = server_csr(env, names);
        let command = [
            "--json",
            "issue",
            "--profile",
            "server",
            "--id",
            "server",
            "--csr",
            &csr,
        ];
        let output = env.hallmark(&command);
        assert!(
            output.error.contains("name_constraints"),
            "{names}: {output:?}"
        );
    }
    assert_eq!(recorded(), before);
    let csr = server_csr(env, "DNS:a.works.example,IP:127.0.0.9");
    env.run(&[
        "issue",
        "--profile",
        "server",
        "--id",
        "server",
        "--csr",
        &csr,
    ]);
}

fn keeps_its_constraints(env: &TestEnv, root: &str) {
    let folder = env.path("");
    let first = constraints(root, &folder);
    assert!(first.contains("DNS:secret.works.example"), "{first}");
    for authority in ["plant", "root"] {
        let roll = start(env, authority, "expiry", &[]);
        comes_to(env, &roll, "draining");
        env.wait_in_sync();
        let all = env.authority(authority);
        let (_, newest) = all.rsplit_once("-----BEGIN").unwrap();
        let newest = format!("-----BEGIN{newest}");
        assert_eq!(constraints(&newest, &folder), first);
    }
    let all = env.authority("root");
    let leaf = env.enlist_when_possible("device", "press-5");
    leaf.is_accepted_by_openssl(&all);
    refused(env, "press-6.other.example");
}

/// A bundle with two certificates of the issuer: of a root that forbids the name of the authority,
/// and of one that permits it.
fn two_ways_up(env: &TestEnv, elsewhere: &Elsewhere<'_>) -> Vec<String> {
    let read = |name: &str| fs::read_to_string(env.path(name)).unwrap();
    let configuration = read("openssl.cnf");
    let both = "[permitting]\nbasicConstraints = critical, CA:TRUE\n\
                keyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n\
                nameConstraints = critical, permitted;dirName:works\n[works]\nC = DE\n\
                [forbidding]\nbasicConstraints = critical, CA:TRUE\n\
                keyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n\
                nameConstraints = critical, excluded;dirName:works\n";
    env.write("openssl.cnf", &(configuration + both));
    elsewhere.make_root("root", "forbidding", "forbidding");
    elsewhere.make_root("root", "permitting", "permitting");
    elsewhere.signs("gateway.csr", "any-purpose", 1800, "root");
    ["answer.pem", "forbidding.pem", "permitting.pem"]
        .map(read)
        .to_vec()
}

/// Verifies: of two ways up, the one whose name constraints permit the authority is installed, in
/// every order of the file; the other one alone is refused with its reason.
#[test]
fn a_way_up_whose_constraints_permit_the_authority_is_found() {
    let env = asked();
    let elsewhere = Elsewhere::on(&env);
    let subject = "kind = \"leaf\"\nsubject = { country = \"DE\" }";
    let configuration = fs::read_to_string(env.path("hallmark.toml")).unwrap();
    env.configure(&configuration.replace("kind = \"leaf\"", subject));
    env.run(&["reload"]);
    ceremony(&env);
    csr(&env);
    let [own, forbidding, permitting] = &two_ways_up(&env, &elsewhere)[..] else {
        panic!("three certificates");
    };
    let refused = install(&env, &format!("{own}{forbidding}"));
    assert!(refused.error.contains("install_limits"), "{refused:?}");
    assert!(
        refused.error.contains("excluded by the name constraints"),
        "{refused:?}"
    );
    let output = install(&env, &format!("{forbidding}{own}{permitting}"));
    assert_eq!(output.code, Some(0), "{output:?}");
    let shown = env.json(&["authority", "show", "gateway"]);
    let installed = shown[0]["foreign"].to_string();
    assert!(!installed.is_empty(), "{shown}");
    let leaf = env.enlist("behind", "press-1");
    leaf.is_accepted_by_openssl(permitting);
}
