//! Paths above an authority, through certificates that OpenSSL has made.

use crate::x509::bundle::parse_first;
use crate::x509::certificate::Certificate;
use crate::x509::path::{Misfit, PathRefusal, above, objection};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const EXTENSIONS: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = none
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid, issuer
[bare]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = none
authorityKeyIdentifier = none
[by-issuer]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = none
authorityKeyIdentifier = issuer:always
[short]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[two]
basicConstraints = critical, CA:TRUE, pathlen:2
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[endless]
basicConstraints = critical, CA:TRUE, pathlen:70000
subjectKeyIdentifier = hash
[no-ca]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
[no-sign]
basicConstraints = critical, CA:TRUE
keyUsage = critical, cRLSign
subjectKeyIdentifier = hash
[other-key]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
authorityKeyIdentifier = DER:30:06:80:04:01:02:03:04
";

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().expect("makes a folder"));
        fs::write(folder.0.path().join("cnf"), EXTENSIONS).expect("writes");
        folder
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ').filter(|it| !it.is_empty()));
        let output = command.current_dir(self.0.path()).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{arguments}: {output:?}");
    }

    fn key(&self, name: &str, kind: &str) {
        self.openssl(&format!("genpkey -algorithm {kind} -out {name}.key"));
    }

    fn ec_key(&self, name: &str) {
        self.key(name, "EC -pkeyopt ec_paramgen_curve:P-256");
    }

    fn ec_keys(&self, names: &[&str]) {
        names.iter().for_each(|name| self.ec_key(name));
    }

    /// Makes a self-signed certificate.
    fn root(&self, name: &str, more: &str) -> Certificate {
        let subject = name.split('-').next().expect("has a name");
        self.openssl(&format!(
            "req -x509 -config cnf -new -key {subject}.key -days 900 -subj /CN={subject} {more} \
             -out {name}.pem"
        ));
        self.read(name)
    }

    /// Certifies the key of `subject` by `issuer`.
    fn certify(&self, name: &str, subject: &str, issuer: &str, more: &str) -> Certificate {
        self.openssl(&format!(
            "req -config cnf -new -key {subject}.key -subj /CN={subject} -out csr"
        ));
        let key = issuer.split('-').next().expect("has a name");
        self.openssl(&format!(
            "x509 -req -in csr -CA {issuer}.pem -CAkey {key}.key -CAcreateserial -days 800 \
             -extfile cnf {more} -out {name}.pem"
        ));
        self.read(name)
    }

    fn read(&self, name: &str) -> Certificate {
        let pem = fs::read(self.0.path().join(format!("{name}.pem"))).expect("is there");
        parse_first(&pem).expect("is a certificate")
    }
}

fn path(own: &Certificate, others: &[Certificate]) -> Result<Vec<Certificate>, PathRefusal> {
    above(own, others, 0, &|_| Ok(()))
}

fn orders(certificates: &[Certificate]) -> Vec<Vec<Certificate>> {
    if certificates.is_empty() {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for first in 0..certificates.len() {
        let mut rest = certificates.to_vec();
        let first = rest.remove(first);
        for mut order in self::orders(&rest) {
            order.push(first.clone());
            orders.push(order);
        }
    }
    orders
}

#[test]
fn roots_that_certify_each_other_have_a_path_in_every_order() {
    let folder = Folder::new();
    folder.ec_keys(&["a", "b", "c", "own"]);
    let a = folder.root("a", "-extensions ca");
    let b = folder.root("b", "-extensions ca");
    let a_by_b = folder.certify("a-b", "a", "b", "-extensions ca");
    let b_by_a = folder.certify("b-a", "b", "a", "-extensions ca");
    let middle = folder.certify("c", "c", "a", "-extensions ca");
    let own = folder.certify("own", "own", "c", "-extensions ca");
    let all = [
        a.clone(),
        b.clone(),
        a_by_b.clone(),
        b_by_a.clone(),
        middle.clone(),
    ];
    for order in orders(&all) {
        assert_eq!(path(&own, &order), Ok(vec![middle.clone(), a.clone()]));
    }
    for order in orders(&[
        own.clone(),
        a_by_b.clone(),
        b.clone(),
        b_by_a.clone(),
        middle.clone(),
    ]) {
        let wanted = vec![middle.clone(), a_by_b.clone(), b.clone()];
        assert_eq!(path(&own, &order), Ok(wanted));
    }
    for order in orders(&[a_by_b, b_by_a, middle]) {
        let refusal = path(&own, &order).expect_err("has no end");
        assert_eq!(refusal.misfit, Misfit::Incomplete, "{refusal}");
    }
}

#[test]
fn a_path_that_fits_is_found_beside_one_that_does_not() {
    let folder = Folder::new();
    folder.ec_keys(&["a", "b", "c", "own"]);
    let short = folder.root("a", "-extensions two");
    let long = folder.root("b", "-extensions ca");
    let middle = folder.certify("c", "c", "a", "-extensions ca");
    let middle_by_b = folder.certify("c-b", "c", "b", "-extensions ca");
    let own = folder.certify("own", "own", "c", "-extensions ca");
    for order in orders(&[
        short.clone(),
        long.clone(),
        middle.clone(),
        middle_by_b.clone(),
    ]) {
        let found = above(&own, &order, 1, &|_| Ok(()));
        assert_eq!(found, Ok(vec![middle_by_b.clone(), long.clone()]));
        let fits = |it: &Certificate| {
            if *it == middle_by_b {
                let reason = "not this one".to_owned();
                return Err(PathRefusal::new(Misfit::Signature, reason));
            }
            Ok(())
        };
        assert_eq!(
            above(&own, &order, 0, &fits),
            Ok(vec![middle.clone(), short.clone()])
        );
        let refusal = above(&own, &order, 1, &fits).expect_err("is too long");
        assert_eq!(refusal.misfit, Misfit::PathLength, "{refusal}");
    }
    let chain = [&own, &middle, &short];
    assert_eq!(objection(chain, 0), None);
    let refused = objection(chain, 1).expect("is too long");
    assert!(
        refused.contains("allows 2 authorities below, and 3 are needed"),
        "{refused}"
    );
}

/// RFC 5280 6.1.4 (l): a self-issued certificate, as at a change of keys, is not counted.
#[test]
fn a_self_issued_certificate_does_not_count() {
    let folder = Folder::new();
    folder.ec_keys(&["a", "own"]);
    let old = folder.root("a", "-extensions short");
    fs::rename(
        folder.0.path().join("a.key"),
        folder.0.path().join("old.key"),
    )
    .expect("moves");
    fs::rename(
        folder.0.path().join("a.pem"),
        folder.0.path().join("old.pem"),
    )
    .expect("moves");
    folder.ec_key("a");
    let new_with_old = folder.certify("a", "a", "old", "-extensions ca");
    assert!(new_with_old.is_self_issued());
    let own = folder.certify("own", "own", "a", "-extensions ca");
    for order in orders(&[old.clone(), new_with_old.clone()]) {
        let found = above(&own, &order, 0, &|_| Ok(()));
        assert_eq!(found, Ok(vec![new_with_old.clone(), old.clone()]));
    }
}

#[test]
fn a_root_above_is_judged_as_relying_parties_judge_it() {
    let folder = Folder::new();
    folder.ec_key("own");
    let serial = format!("-extensions ca -set_serial 0x{}", "5a".repeat(21));
    for (root, key, more) in [
        (
            "plain",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-extensions ca",
        ),
        (
            "bare",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-extensions bare",
        ),
        (
            "issuer",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-extensions by-issuer",
        ),
        (
            "endless",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-extensions endless",
        ),
        (
            "zero",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-extensions ca -set_serial 0",
        ),
        (
            "negative",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-extensions ca -set_serial -5",
        ),
        ("long", "EC -pkeyopt ec_paramgen_curve:P-256", &serial),
        (
            "sha1",
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "-extensions ca -sha1",
        ),
        (
            "p521",
            "EC -pkeyopt ec_paramgen_curve:P-521",
            "-extensions ca -sha512",
        ),
        (
            "three",
            "RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3",
            "-extensions ca",
        ),
        (
            "size",
            "RSA -pkeyopt rsa_keygen_bits:2560",
            "-extensions ca",
        ),
        (
            "md5",
            "RSA -pkeyopt rsa_keygen_bits:2048",
            "-extensions ca -md5",
        ),
    ] {
        folder.key(root, key);
        let certificate = folder.root(root, more);
        for extensions in ["ca", "by-issuer"] {
            let own = folder.certify("own", "own", root, &format!("-extensions {extensions}"));
            let found = path(&own, std::slice::from_ref(&certificate));
            assert_eq!(found, Ok(vec![certificate.clone()]), "{root} {extensions}");
            assert_eq!(objection([&own, &certificate], 0), None, "{root}");
        }
    }
}

/// A certificate of version 1 has no extensions; relying parties take one as a root alone.
#[test]
fn a_root_of_version_1_is_taken_and_an_intermediate_is_not() {
    let folder = Folder::new();
    folder.ec_keys(&["a", "b", "own"]);
    folder.openssl("req -config cnf -new -key a.key -subj /CN=a -out csr");
    folder.openssl("x509 -req -in csr -signkey a.key -days 900 -out a.pem");
    let root = folder.read("a");
    assert!(root.has_no_extensions_by_its_version());
    let own = folder.certify("own", "own", "a", "-extensions ca");
    assert_eq!(
        path(&own, std::slice::from_ref(&root)),
        Ok(vec![root.clone()])
    );
    folder.openssl("req -config cnf -new -key b.key -subj /CN=b -out csr");
    folder.openssl("x509 -req -in csr -CA a.pem -CAkey a.key -CAcreateserial -days 900 -out b.pem");
    let own = folder.certify("own", "own", "b", "-extensions ca");
    let refusal = path(&own, &[folder.read("b"), root]).expect_err("is no authority");
    assert_eq!(refusal.misfit, Misfit::NotAnAuthority, "{refusal}");
}

#[test]
fn what_does_not_fit_is_named_with_its_true_reason() {
    let folder = Folder::new();
    folder.ec_keys(&["root", "middle", "own"]);
    let root = folder.root("root", "-extensions ca");
    for (extensions, misfit, words) in [
        ("no-ca", Misfit::NotAnAuthority, "cA TRUE"),
        ("no-sign", Misfit::NotAnAuthority, "keyCertSign"),
        ("other-key", Misfit::KeyIdentifier, "by its key identifier"),
        ("ca -sha1", Misfit::Signature, "SHA-256"),
    ] {
        let more = format!("-extensions {extensions}");
        let middle = folder.certify("middle", "middle", "root", &more);
        let own = folder.certify("own", "own", "middle", "-extensions ca");
        for order in orders(&[root.clone(), middle.clone()]) {
            let refusal = path(&own, &order).expect_err(extensions);
            assert_eq!(refusal.misfit, misfit, "{extensions}: {refusal}");
            assert!(refusal.reason.contains(words), "{extensions}: {refusal}");
        }
    }
    let misnamed = folder.root("root-misnamed", "-extensions other-key");
    let own = folder.certify("own", "own", "root", "-extensions ca");
    let refusal = path(&own, &[misnamed]).expect_err("names another key");
    assert_eq!(refusal.misfit, Misfit::KeyIdentifier, "{refusal}");
    for (key, words) in [
        ("RSA -pkeyopt rsa_keygen_bits:1024", "1024 bits"),
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", "curve"),
    ] {
        folder.key("weak", key);
        let weak = folder.root("weak", "-extensions ca");
        let own = folder.certify("own", "own", "weak", "-extensions ca");
        let refusal = path(&own, &[weak]).expect_err(key);
        assert_eq!(refusal.misfit, Misfit::Signature, "{refusal}");
        assert!(refusal.reason.contains(words), "{refusal}");
    }
}

/// The serial number and issuer in an authority key identifier name one certificate of a key, and
/// not another one that was made with it later.
#[test]
fn an_issuer_is_found_by_its_serial_number() {
    let folder = Folder::new();
    folder.ec_keys(&["root", "own"]);
    let first = folder.root("root", "-extensions bare -set_serial 7");
    let own = folder.certify("own", "own", "root", "-extensions by-issuer");
    let again = folder.root("root-again", "-extensions bare -set_serial 8 -days 999");
    for order in orders(&[first.clone(), again.clone()]) {
        assert_eq!(path(&own, &order), Ok(vec![first.clone()]));
    }
    let refusal = path(&own, &[again]).expect_err("is another certificate");
    assert!(refusal.reason.contains("by its serial number"), "{refusal}");
}

#[test]
fn many_certificates_of_one_name_end_the_search() {
    let folder = Folder::new();
    folder.ec_keys(&["a", "b", "own"]);
    folder.root("a", "-extensions ca");
    let pool: Vec<Certificate> = (0..12)
        .flat_map(|_| {
            let a = folder.certify("b-a", "b", "a", "-extensions ca");
            [a, folder.certify("a-b", "a", "b-a", "-extensions ca")]
        })
        .collect();
    let own = folder.certify("own", "own", "a", "-extensions ca");
    let began = Instant::now();
    let refusal = path(&own, &pool).expect_err("has no end");
    assert!(refusal.reason.contains("each other's issuers"), "{refusal}");
    assert!(began.elapsed() < Duration::from_secs(10));
}
