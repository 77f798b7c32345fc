//! Tests keys that the daemon makes for holders that cannot: OpenSSL and Java read the files, and
//! nothing of a key stays behind.

use crate::caller::Answer;
use crate::configured::station_table;
use crate::est_client::{EstClient, openssl};
use crate::process::CommandOutput;
use crate::request::Request;
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const PASSWORD: &str = "correct horse 7";
/// A profile by which the daemon makes keys of every type.
pub(crate) const MADE: &str = "\n[[profile]]\nname = \"made\"\nauthority = \"line-1\"\n\
    role = \"device\"\ngenerate_keys = true\n[profile.certificate]\npreset = \"device\"\n\
    key_types = [\"p256\", \"p384\", \"p521\", \"rsa2048\", \"ed25519\"]\n\
    subject_alternative_names = { request = [\"uri\"] }\n";

/// An environment whose profile `made` has keys of every type made.
pub(crate) fn with_generation() -> TestEnv {
    let env = TestEnv::new();
    let station = station_table("station-?", &["made"], &["press-*"]);
    env.configure(&(env.configuration() + MADE + &station));
    let env = env.started();
    env.write_secret("password", PASSWORD);
    env
}

/// `hallmark issue --generate` for a device, into files of its name.
fn issue(env: &TestEnv, id: &str, more: &[&str]) -> CommandOutput {
    let [key, certificate] = ["key", "pem"].map(|it| env.path(&format!("{id}.{it}")));
    let fixed = ["issue", "--profile", "made", "--id", id, "--out"];
    let files = [
        certificate.to_str().unwrap(),
        "--key-out",
        key.to_str().unwrap(),
    ];
    env.hallmark(&[&fixed[..], &files, more].concat())
}

fn by_password<'a>(env: &'a TestEnv, source: &'a mut String) -> &'a str {
    *source = format!("file:{}", env.path("password").display());
    source
}

/// The public key of a certificate, and of a private key, as PEM.
fn is_key_of(env: &TestEnv, key: &Path, certificate: &Path) {
    let mut source = String::new();
    let source = by_password(env, &mut source);
    let of_key = openssl(&[
        "pkey",
        "-in",
        key.to_str().unwrap(),
        "-passin",
        source,
        "-pubout",
    ]);
    let certificate = certificate.to_str().unwrap();
    let certified = openssl(&["x509", "-in", certificate, "-noout", "-pubkey"]);
    assert_eq!(of_key, certified);
}

/// Verifies: a key of each type is that of its certificate, and OpenSSL reads it with the password
/// and with no other one; the file says PBES2 with 600,000 rounds and AES-256, and its owner alone
/// can read it; the command prints nothing of it, and the journal says that the daemon made it.
#[test]
fn a_key_of_each_type_comes_back_encrypted() {
    let env = with_generation();
    let password = env.path("password").display().to_string();
    for key_type in ["", "p384", "p521", "rsa2048", "ed25519"] {
        let id = format!("press-{key_type}1");
        let mut more = vec!["--password-file", &password, "--generate"];
        more.extend(Some(key_type).filter(|it| !it.is_empty()));
        let output = issue(&env, &id, &more);
        assert_eq!(output.code, Some(0), "{output:?}");
        let [key, certificate] = ["key", "pem"].map(|it| env.path(&format!("{id}.{it}")));
        let text = fs::read_to_string(&key).unwrap();
        assert!(
            text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"),
            "{text}"
        );
        let line = text.lines().nth(1).unwrap();
        assert!(
            !output.out.contains(line) && !output.error.contains(line),
            "{output:?}"
        );
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        is_key_of(&env, &key, &certificate);
        let key = key.to_str().unwrap();
        let form = openssl(&["asn1parse", "-in", key]);
        // 600,000 is 0x0927C0.
        for words in [
            "PBES2",
            "PBKDF2",
            ":0927C0",
            "hmacWithSHA256",
            "aes-256-cbc",
        ] {
            assert!(form.contains(words), "no {words}: {form}");
        }
        let other = ["pkey", "-in", key, "-passin", "pass:another one", "-noout"];
        let refused = CommandOutput::of(Command::new("openssl").args(other));
        assert_ne!(refused.code, Some(0), "{refused:?}");
    }
    let made = "audit WHERE action = 'certificate.issued' AND detail ->> 'generated_key' = 1";
    assert_eq!(env.count(made), 5);
    env.run(&["audit", "verify"]);
}

/// Verifies: a PKCS #12 file holds key, certificate and chain, as OpenSSL and Java read it; both
/// check its MAC, with SHA-256 and as many rounds, and refuse another password.
#[test]
fn a_pkcs12_file_is_read_by_openssl_and_java() {
    let env = with_generation();
    let password = env.path("password").display().to_string();
    let as_pkcs12 = [
        "--generate",
        "--key-format",
        "pkcs12",
        "--password-file",
        &password,
    ];
    let output = issue(&env, "press-1", &as_pkcs12);
    assert_eq!(output.code, Some(0), "{output:?}");
    let [file, certificate] = ["press-1.key", "press-1.pem"].map(|it| env.path(it));
    let path = file.to_str().unwrap();
    let mut source = String::new();
    let source = by_password(&env, &mut source).to_owned();
    let read = ["pkcs12", "-in", path, "-passin", &source, "-info", "-nodes"];
    let output = CommandOutput::of(Command::new("openssl").args(read));
    assert_eq!(output.code, Some(0), "{output:?}");
    for words in [
        "MAC: sha256, Iteration 600000",
        "PBES2, PBKDF2, AES-256-CBC, Iteration 600000, PRF hmacWithSHA256",
        "friendlyName: press-1",
    ] {
        assert!(
            output.error.contains(words) || output.out.contains(words),
            "{output:?}"
        );
    }
    assert_eq!(
        output.out.matches("BEGIN CERTIFICATE").count(),
        4,
        "{output:?}"
    );
    let key = env.write("press-1.clear", &output.out);
    is_key_of(&env, &key, &certificate);
    let other = [
        "pkcs12",
        "-in",
        path,
        "-passin",
        "pass:another one",
        "-noout",
    ];
    assert_ne!(
        CommandOutput::of(Command::new("openssl").args(other)).code,
        Some(0)
    );

    let keytool = |with: &Path| {
        let mut keytool = Command::new("keytool");
        keytool.args(["-list", "-v", "-storetype", "PKCS12", "-keystore"]);
        keytool.arg(&file).arg("-storepass:file").arg(with).output()
    };
    env.write_secret("other-password", "another one");
    // A machine without Java has the judgement of OpenSSL alone.
    let Ok(listed) = keytool(Path::new(&password)) else {
        return;
    };
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success(), "{text}");
    for words in ["PrivateKeyEntry", "press-1", "Certificate chain length: 4"] {
        assert!(text.contains(words), "no {words}: {text}");
    }
    assert!(
        !keytool(&env.path("other-password"))
            .unwrap()
            .status
            .success()
    );
}

fn ask(env: &TestEnv, key: &str, body: &Value) -> Answer {
    let post = env.station().post_to("/v1/certificates");
    let sent = post.header("idempotency-key", key).json(body).send();
    Answer::read(sent.unwrap()).unwrap()
}

fn body(id: &str, generate: &Value) -> Value {
    json!({ "profile": "made", "registration_id": id, "generate": generate })
}

/// The octets of a P-256 key that make it private: 32 after the octets `02 01 01 04 20` (RFC 5915).
fn scalar(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|it| !it.starts_with("---")).collect();
    let pkcs8 = STANDARD.decode(base64).unwrap();
    let start = [2, 1, 1, 4, 32];
    let at = pkcs8.windows(start.len()).position(|it| it == start);
    let at = at.expect("an ECPrivateKey") + start.len();
    pkcs8[at..at + 32].to_vec()
}

fn files_below(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap().file_type() {
            it if it.is_dir() => files_below(&path, found),
            it if it.is_file() => found.push(fs::read(&path).unwrap()),
            _ => {}
        }
    }
}

/// Verifies: a key goes out once, in an answer that no cache keeps. A repeat is refused and names
/// the certificate, another request under the idempotency key is refused as ever, and no file of
/// the daemon, its log included, has the key or the password in any form.
#[test]
fn a_key_goes_out_once_and_nothing_of_it_stays() {
    let env = with_generation();
    let clear = json!({ "format": "pkcs8", "unencrypted": true });
    let first = ask(&env, "first", &body("press-1", &clear));
    assert_eq!(first.status, 201, "{first:?}");
    let key = first.body["key"]["content"].as_str().unwrap().to_owned();
    assert_eq!(first.body["key"]["format"], "pkcs8");
    let certificate = first.body["certificate"].as_str().unwrap();
    let [key_file, certificate] =
        [("1.key", &key[..]), ("1.pem", certificate)].map(|(name, it)| env.write(name, it));
    is_key_of(&env, &key_file, &certificate);
    fs::remove_file(&key_file).unwrap();

    let made = "intent WHERE profile = 'made'";
    let rows = env.count(made);
    let again = ask(&env, "first", &body("press-1", &clear));
    assert_eq!(
        (again.status, again.code()),
        (409, "generated_key_gone"),
        "{again:?}"
    );
    let serial = first.body["serial"].as_str().unwrap();
    assert!(
        again.body["detail"].as_str().unwrap().contains(serial),
        "{again:?}"
    );
    assert_eq!(env.count(made), rows);
    let other = ask(&env, "first", &body("press-2", &clear));
    assert_eq!(other.code(), "idempotency_key_reused");
    let csr = Request::device("press-1").body();
    assert_eq!(ask(&env, "first", &csr).code(), "idempotency_key_reused");

    let protected = json!({ "format": "pkcs12", "password": PASSWORD });
    assert_eq!(
        ask(&env, "second", &body("press-3", &protected)).status,
        201
    );
    let scalar = scalar(&key);
    // Whatever its place in base64, one of these is a part of its text.
    let texts = (0..3).map(|shift| {
        let text = STANDARD.encode([&vec![0; shift][..], &scalar].concat());
        text[4..40].to_owned().into_bytes()
    });
    let mut wanted: Vec<Vec<u8>> = texts.collect();
    wanted.extend([
        scalar.clone(),
        hex::encode(&scalar).into_bytes(),
        PASSWORD.into(),
    ]);
    fs::remove_file(env.path("password")).unwrap();
    let mut files = Vec::new();
    files_below(&env.path(""), &mut files);
    for secret in &wanted {
        let has = |file: &Vec<u8>| file.windows(secret.len()).any(|it| it == secret);
        assert!(
            !files.iter().any(has),
            "{}",
            String::from_utf8_lossy(secret)
        );
    }
}

/// Verifies: a key is made only where the profile says so, for a name that the caller may ask for,
/// of a type that the profile has, and for a password that every program reads in one way; each
/// refusal has its code and leaves nothing behind. A batch takes no such request.
#[test]
fn a_key_is_made_where_all_allows_it() {
    let env = with_generation();
    let station = env.station();
    let good = json!({ "format": "pkcs8", "password": PASSWORD });
    let with = |member: &str, value: Value| {
        let mut changed = good.clone();
        changed[member] = value;
        changed
    };
    let made = "intent WHERE profile = 'made'";
    let rows = env.count(made);
    let mut of_other_profile = body("press-1", &good);
    of_other_profile["profile"] = "device".into();
    let cases = [
        (403, "key_generation_forbidden", of_other_profile),
        (403, "station_id_forbidden", body("pump-1", &good)),
        (
            400,
            "key_type_forbidden",
            body("press-1", &with("key_type", "rsa4096".into())),
        ),
        (
            400,
            "body_invalid",
            body("press-1", &with("key_type", "dsa".into())),
        ),
        (
            400,
            "body_invalid",
            body("press-1", &with("format", "jks".into())),
        ),
        (
            400,
            "body_invalid",
            json!({ "profile": "made", "registration_id": "press-1" }),
        ),
        (
            400,
            "key_generation_invalid",
            body("press-1", &with("password", "short".into())),
        ),
        (
            400,
            "key_generation_invalid",
            body("press-1", &with("password", "größer-als-8".into())),
        ),
        (
            400,
            "key_generation_invalid",
            body("press-1", &json!({ "format": "pkcs8" })),
        ),
        (
            400,
            "key_generation_invalid",
            body("press-1", &with("unencrypted", true.into())),
        ),
        (
            400,
            "key_generation_invalid",
            body(
                "press-1",
                &json!({ "format": "pkcs12", "unencrypted": true }),
            ),
        ),
    ];
    for (number, (status, code, body)) in cases.iter().enumerate() {
        let refused = ask(&env, &format!("case-{number}"), body);
        assert_eq!(
            (refused.status, refused.code()),
            (*status, *code),
            "{refused:?}"
        );
        assert!(!refused.body.to_string().contains(PASSWORD), "{refused:?}");
    }
    let mut item = body("press-1", &good);
    item["idempotency_key"] = "item".into();
    let post = station.post_to("/v1/certificates:batch");
    let sent = post.json(&json!({ "items": [item] })).send().unwrap();
    let answer = Answer::read(sent).unwrap();
    assert_eq!(
        answer.body["items"][0]["problem"]["code"], "body_invalid",
        "{answer:?}"
    );
    assert_eq!((rows, env.count(made)), (0, 0));
}

/// A device behind a gateway asks for its key by EST (RFC 7030 4.4). Verifies: the answer has two
/// parts, a key as PKCS #8 and its certificate, which has the names of the CSR and another key than
/// the CSR; a request for a key that is encrypted for the device is refused.
#[test]
fn a_key_comes_by_est() {
    let env = with_generation();
    let holder = env.enlist("station", "station-1");
    let station = EstClient::of(&env, &holder);
    let config = "[req]\nprompt = no\ndistinguished_name = dn\nreq_extensions = e\n\
                  attributes = a\n[dn]\nCN = press-7\n\
                  [a]\n1.2.840.113549.1.9.16.2.37 = wanted\n[e]\nsubjectAltName = URI:urn:x:7\n";
    let of = |name: &str, config: &str| {
        let config = env.write(name, config).display().to_string();
        let [key, csr] = ["ignored.key", "names.csr"].map(|it| env.path(it).display().to_string());
        let new = ["req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt"];
        let curve = ["ec_paramgen_curve:P-256", "-config", &config];
        let files = ["-keyout", &key, "-out", &csr, "-outform", "DER"];
        openssl(&[&new[..], &curve, &files].concat());
        STANDARD.encode(fs::read(csr).unwrap()).into_bytes()
    };
    let refused = station.post("made/serverkeygen", &of("encrypted.cnf", config));
    assert_eq!(refused.code(), "key_generation_invalid", "{refused:?}");

    let plain = config.replace("attributes = a\n", "");
    let answer = station.post("made/serverkeygen", &of("names.cnf", &plain));
    assert_eq!(answer.status, "200", "{answer:?}");
    assert!(
        answer.head.contains("cache-control: no-store"),
        "{answer:?}"
    );
    let (_, boundary) = answer.content_type.split_once("boundary=").unwrap();
    let parts: Vec<_> = answer.body.split(&format!("--{boundary}")).collect();
    let [_, key, certificate, end] = parts[..] else {
        panic!("{answer:?}");
    };
    assert_eq!(end, "--\r\n");
    let content = |part: &str, media: &str| {
        let (head, body) = part.trim_start().split_once("\r\n\r\n").unwrap();
        assert!(head.contains(media) && head.contains("base64"), "{part}");
        body.trim().to_owned()
    };
    let key = content(key, "application/pkcs8");
    let key = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
    let certificate = content(certificate, "application/pkcs7-mime; smime-type=certs-only");
    let certificates = crate::est_client::print_certificates(&env, &(certificate + "\n"));
    let [certificate] = &certificates[..] else {
        panic!("{certificates:?}");
    };
    let [key, certificate] =
        [("est.key", &key), ("est.pem", certificate)].map(|(name, it)| env.write(name, it));
    is_key_of(&env, &key, &certificate);
    let certificate = certificate.to_str().unwrap();
    let printed = openssl(&["x509", "-in", certificate, "-noout", "-text"]);
    assert!(
        printed.contains("URI:urn:x:7") && printed.contains("CN = press-7"),
        "{printed}"
    );
    let of_csr = openssl(&[
        "pkey",
        "-in",
        env.path("ignored.key").to_str().unwrap(),
        "-pubout",
    ]);
    let certified = openssl(&["x509", "-in", certificate, "-noout", "-pubkey"]);
    assert_ne!(of_csr, certified);
}
