//! Tests certificates from elsewhere whose encoding is not the one that is written here (row E8):
//! taken octet by octet, or refused with the true reason. Nothing that was taken makes an answer of
//! EST fail later.

use crate::authority_roll::{begun, comes_to, start};
use crate::elsewhere::Elsewhere;
use crate::external::{asked, ceremony, csr, install};
use crate::old_authority::{MADE_HERE, P256, make, openssl, run};
use crate::request::{Request, der};
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `critical FALSE`, which is the default and has to be left out (X.690 11.5).
const FALSE: &[u8] = b"\x01\x01\x00";

/// Fields of `TBSCertificate`, in their order.
type Fields = Vec<Vec<u8>>;

const VERSION: usize = 0;
const VALIDITY: usize = 4;
const ALL_EXTENSIONS: usize = 7;

/// The first value and the octets after it: tag, contents, rest.
fn split(octets: &[u8]) -> (u8, &[u8], &[u8]) {
    let (begin, length) = match octets[1] {
        0x81 => (3, usize::from(octets[2])),
        0x82 => (4, usize::from(octets[2]) << 8 | usize::from(octets[3])),
        short => (2, usize::from(short)),
    };
    let (value, rest) = octets.split_at(begin + length);
    (octets[0], &value[begin..], rest)
}

fn parts(value: &[u8]) -> Fields {
    let (_, mut rest, _) = split(value);
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (_, _, after) = split(rest);
        parts.push(rest[..rest.len() - after.len()].to_vec());
        rest = after;
    }
    parts
}

fn value(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(contents.len()).unwrap().to_be_bytes();
    let length = match (high, low) {
        (0, short @ ..0x80) => vec![short],
        (0, long) => vec![0x81, long],
        _ => vec![0x82, high, low],
    };
    [&[tag], &length[..], contents].concat()
}

/// The certificate in `name.pem` with other fields, signed again by the key in `key.key`: DER.
fn remade(env: &TestEnv, name: &str, key: &str, edit: impl Fn(&mut Fields)) -> Vec<u8> {
    let certificate = der(&fs::read_to_string(env.path(&format!("{name}.pem"))).unwrap());
    let [signed, algorithm, _] = &parts(&certificate)[..] else {
        panic!("a certificate has three parts");
    };
    let mut fields = parts(signed);
    edit(&mut fields);
    let signed = value(SEQUENCE, &fields.concat());
    fs::write(env.path("signed.der"), &signed).unwrap();
    openssl(
        env,
        &format!("dgst -sha256 -sign {key}.key -out signature.der signed.der"),
    );
    let signature = fs::read(env.path("signature.der")).unwrap();
    let signature = value(0x03, &[&[0], &signature[..]].concat());
    value(SEQUENCE, &[&signed[..], algorithm, &signature].concat())
}

fn pem_of(der: &[u8]) -> String {
    let lines: Vec<_> = STANDARD.encode(der).into_bytes();
    let lines = lines.chunks(64).map(|it| std::str::from_utf8(it).unwrap());
    let lines: Vec<&str> = lines.collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Both dates by another tag and text.
fn dates(fields: &mut Fields, tag: u8, text: impl Fn(&str) -> String) {
    let dates = parts(&fields[VALIDITY]);
    let dates = dates.iter().map(|it| {
        let (_, contents, _) = split(it);
        value(tag, text(std::str::from_utf8(contents).unwrap()).as_bytes())
    });
    fields[VALIDITY] = value(SEQUENCE, &dates.collect::<Fields>().concat());
}

fn generalized(fields: &mut Fields) {
    dates(fields, GENERALIZED_TIME, |utc| format!("20{utc}"));
}

/// Each extension, taken apart: identifier, criticality if it is there, value.
fn extensions(fields: &mut Fields, edit: impl Fn(&mut Fields)) {
    let (_, list, _) = split(&fields[ALL_EXTENSIONS]);
    let edited = parts(list).into_iter().map(|it| {
        let mut extension = parts(&it);
        edit(&mut extension);
        value(SEQUENCE, &extension.concat())
    });
    let list = value(SEQUENCE, &edited.collect::<Fields>().concat());
    fields[ALL_EXTENSIONS] = value(0xa3, &list);
}

fn with_false(fields: &mut Fields) {
    extensions(fields, |extension| {
        if extension.len() == 2 {
            extension.insert(1, FALSE.to_vec());
        }
    });
}

fn odd(fields: &mut Fields) {
    generalized(fields);
    with_false(fields);
}

fn adoption(env: &TestEnv, name: &str, issuer: &str, id: &str, der: &[u8]) -> String {
    let file = env.path(&format!("{name}.der"));
    fs::write(&file, der).unwrap();
    format!(
        "[[authority]]\nname = {name:?}\n{issuer}key = \"pkcs11:id=%{id}\"\ncertificate = \
         {file:?}\n"
    )
}

/// Refused encodings, each with a word of its reason.
fn refused(env: &TestEnv) -> Vec<(&'static str, Vec<u8>)> {
    let root = |edit: &dyn Fn(&mut Fields)| remade(env, "root", "root", edit);
    let whole = root(&|_| {});
    let inside = {
        let mut parts = parts(&whole);
        parts.push(b"\x05\x00".to_vec());
        value(SEQUENCE, &parts.concat())
    };
    vec![
        (
            "validity",
            root(&|it| dates(it, UTC_TIME, |utc| format!("{}Z", &utc[..10]))),
        ),
        (
            "validity",
            root(&|it| dates(it, UTC_TIME, |utc| format!("{}+0000", &utc[..12]))),
        ),
        (
            "validity",
            root(&|it| dates(it, GENERALIZED_TIME, |utc| format!("20{}.5Z", &utc[..12]))),
        ),
        (
            "validity",
            root(&|it| dates(it, GENERALIZED_TIME, |utc| format!("20{}", &utc[..12]))),
        ),
        (
            "list of extensions",
            root(&|it| {
                extensions(it, |extension| {
                    if extension.len() == 3 {
                        extension[1] = b"\x01\x01\x01".to_vec();
                    }
                });
            }),
        ),
        (
            "version",
            root(&|it| it[VERSION] = b"\xa0\x03\x02\x01\x00".to_vec()),
        ),
        ("version", root(&|it| drop(it.remove(VERSION)))),
        (
            "version",
            root(&|it| it[VERSION] = b"\xa0\x03\x02\x01\x01".to_vec()),
        ),
        ("behind", [&whole[..], b"more"].concat()),
        ("damaged", inside),
    ]
}

/// Verifies: a root and an intermediate whose dates before 2050 are GeneralizedTime, and which
/// write out `critical FALSE`, are adopted with their octets; EST answers with these octets, also
/// after a restart and a rollover; OpenSSL accepts leaves below. Other encodings are refused, each
/// with its reason.
#[test]
fn an_old_encoding_is_adopted_octet_by_octet_or_refused_with_its_reason() {
    let mut env = TestEnv::new();
    make(&env, "/O=Works", [P256, P256]);
    env.start();
    for (words, der) in refused(&env) {
        let file = format!(
            "name = \"takeover\"\n{}",
            adoption(&env, "root", "", "01", &der)
        );
        let output = run(&env, &file);
        assert_eq!(output.code, Some(1), "{words}: {output:?}");
        assert!(
            output.error.contains("adoption_refused"),
            "{words}: {output:?}"
        );
        assert!(output.error.contains(words), "{words}: {output:?}");
    }
    assert_eq!(env.count("generation"), 0);
    env.stop();

    let root = remade(&env, "root", "root", odd);
    let plant = remade(&env, "plant", "root", odd);
    let file = format!(
        "name = \"takeover\"\n{}{}{MADE_HERE}",
        adoption(&env, "root", "", "01", &root),
        adoption(&env, "plant", "issuer = \"root\"\n", "02", &plant)
    );
    env.write("ceremony.toml", &file);
    let mut env = begun(env);
    let root_pem = pem_of(&root);
    for id in ["press-1", "press-2"] {
        env.enlist("device", id).is_accepted_by_openssl(&root_pem);
        answers_with(&env, "device", &[&plant, &root]);
        env.restart();
        env.wait_ready();
    }
    let roll = start(&env, "plant", "expiry", &[]);
    comes_to(&env, &roll, "draining");
    answers_with(&env, "device", &[&root]);
    let leaf = env.enlist_when_possible("device", "press-3");
    leaf.is_accepted_by_openssl(&root_pem);
}

/// `cacerts` has these certificates, octet by octet.
fn answers_with(env: &TestEnv, label: &str, certificates: &[&[u8]]) {
    let answer = env.get(&format!("/.well-known/est/{label}/cacerts"));
    let body = answer.rsplit("\r\n\r\n").next().unwrap();
    let body: String = body.split_whitespace().collect();
    let message = STANDARD.decode(body).expect("the answer is base64");
    for certificate in certificates {
        let held = message
            .windows(certificate.len())
            .any(|it| it == *certificate);
        assert!(held, "a certificate is missing, or has other octets");
    }
}

/// Verifies: the same encodings in a root above, which is only installed: taken or refused as at an
/// adoption.
#[test]
fn an_old_encoding_above_is_installed_octet_by_octet() {
    let env = asked();
    let elsewhere = Elsewhere::on(&env);
    ceremony(&env);
    csr(&env);
    let answer = elsewhere.signs("gateway.csr", "any-purpose", 1800, "root");
    let (own, _) = answer.split_once("-----END CERTIFICATE-----\n").unwrap();
    let own = format!("{own}-----END CERTIFICATE-----\n");
    let short = remade(&env, "root", "root", |it| {
        dates(it, UTC_TIME, |utc| format!("{}Z", &utc[..10]));
    });
    let refused = install(&env, &format!("{own}{}", pem_of(&short)));
    assert!(refused.error.contains("validity"), "{refused:?}");
    let root = remade(&env, "root", "root", odd);
    let output = install(&env, &format!("{own}{}", pem_of(&root)));
    assert_eq!(output.code, Some(0), "{output:?}");
    answers_with(&env, "behind", &[&root]);
    let leaf = env.enlist("behind", "press-1");
    leaf.is_accepted_by_openssl(&pem_of(&root));
    let request = Request::new("behind", "press-2");
    env.station().obtain(&request);
}
