//! Tests the limits with certificates, lists and requests that are written by hand.

use super::*;
use hallmark_protocol::key_proof::challenge;
use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::EcdsaSha256;
const NO_POWERS: &[u8] = b"";
/// BasicConstraints with cA.
const IS_AUTHORITY: &[u8] = b"\x30\x0f\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x05\x30\x03\x01\x01\xff";
/// ExtendedKeyUsage with id-kp-OCSPSigning.
const ANSWERS: &[u8] =
    b"\x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x09";

fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = contents.len();
    let header = match u8::try_from(length) {
        Ok(short) if short < 0x80 => vec![tag, short],
        Ok(long) => vec![tag, 0x81, long],
        Err(_) => [
            &[tag, 0x82][..],
            &u16::try_from(length).unwrap().to_be_bytes(),
        ]
        .concat(),
    };
    [header, contents].concat()
}

/// A `Name` with this common name.
fn name(text: &str) -> Vec<u8> {
    let common_name = b"\x06\x03\x55\x04\x03";
    let attribute = value(0x30, &[common_name, &value(0x0c, &[text.as_bytes()])]);
    value(0x30, &[&value(0x31, &[&attribute])])
}

/// A made-up SubjectPublicKeyInfo.
fn spki(number: u8) -> Vec<u8> {
    let algorithm = b"\x30\x03\x06\x01\x2a";
    value(0x30, &[algorithm, &value(0x03, &[&[0, number]])])
}

fn time(days: i64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    let date = UnixSeconds::new(now + days * 86_400).date().unwrap();
    let text = format!(
        "{:04}{:02}{:02}000000Z",
        date.year(),
        u8::from(date.month()),
        date.day()
    );
    value(0x18, &[text.as_bytes()])
}

struct Certificate<'a> {
    issuer: &'a str,
    subject: &'a str,
    key: u8,
    days: (i64, i64),
    powers: &'a [u8],
}

const LEAF: Certificate<'_> = Certificate {
    issuer: "Line",
    subject: "press-1",
    key: 9,
    days: (0, 30),
    powers: NO_POWERS,
};

impl Certificate<'_> {
    fn tbs(&self) -> Vec<u8> {
        value(
            0x30,
            &[
                b"\xa0\x03\x02\x01\x02\x02\x01\x07",
                ALGORITHM.identifier_der(),
                &name(self.issuer),
                &value(0x30, &[&time(self.days.0), &time(self.days.1)]),
                &name(self.subject),
                &spki(self.key),
                &value(0xa3, &[&value(0x30, &[self.powers])]),
            ],
        )
    }
}

fn list(issuer: &str, days: i64) -> Vec<u8> {
    value(
        0x30,
        &[
            b"\x02\x01\x01",
            ALGORITHM.identifier_der(),
            &name(issuer),
            &time(0),
            &time(days),
            &value(0xa0, &[&value(0x30, &[])]),
        ],
    )
}

fn request(key: u8) -> Vec<u8> {
    let parts: [&[u8]; 4] = [b"\x02\x01\x00", &name("Line"), &spki(key), b"\xa0\x00"];
    value(0x30, &parts)
}

fn key(number: u8) -> KeyReference {
    KeyReference {
        spki: spki(number).into(),
        label: format!("ca {number}"),
        id: vec![number],
        wrapped: None,
    }
}

fn described(number: u8, label: &str) -> KeyDescription {
    KeyDescription {
        spki: spki(number).into(),
        label: label.to_owned(),
        id: vec![number],
        sensitive: true,
        extractable: false,
        never_extractable: true,
        local: true,
        wrapped: None,
    }
}

fn sign(by: u8, message: &[u8]) -> Operation {
    Operation::Sign {
        key: Arc::new(key(by)),
        algorithm: ALGORITHM,
        message: message.to_vec(),
    }
}

/// A folder of state and the configuration that the workers read.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new(limits: &str) -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        scene.write(limits, "90d");
        scene
    }

    fn write(&self, limits: &str, validity: &str) {
        let token = |name| {
            format!(
                "[[token]]\nname = \"{name}\"\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"\n\
                 credential = \"pin\"\n[token.limits]\n{limits}\n"
            )
        };
        let text = format!(
            "state_dir = \"/nowhere\"\n{}{}[[profile]]\nname = \"device\"\n[profile.certificate]\n\
             kind = \"leaf\"\nvalidity = \"{validity}\"\nkey_types = [\"p256\"]\n\
             key_usage = [\"digital_signature\"]\nextended_key_usage = [\"client_auth\"]\n",
            token("one"),
            token("two"),
        );
        let beside = self.0.path().join("new.toml");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.0.path().join("hallmark.toml")).unwrap();
    }

    fn rules(&self, name: &str) -> Rules {
        let path = self.0.path().join("hallmark.toml");
        let file = hallmark_protocol::token_file::TokenFile::read(&path).unwrap();
        Rules::of_file(path, name, file.rules(name).unwrap())
    }

    fn wall(&self, name: &str) -> Wall {
        let wall = Wall::of_usual(name, self.rules(name), self.0.path()).unwrap();
        for key in [1, 2] {
            wall.note_held(&described(key, "ca"));
        }
        wall
    }
}

fn refused(wall: &Wall, operation: &Operation) -> Refusal {
    wall.admit(operation).map(|_| ()).unwrap_err()
}

/// Admits it and counts it.
fn signs(wall: &Wall, operation: &Operation) {
    let admitted = wall.admit(operation).expect("it is within the limits");
    wall.count(operation, admitted);
}

#[test]
fn a_key_signs_under_its_first_name_alone_also_after_a_restart() {
    let scene = Scene::new("");
    let wall = scene.wall("one");
    let own = Certificate {
        issuer: "Another",
        subject: "Another",
        key: 1,
        powers: IS_AUTHORITY,
        ..LEAF
    };
    // A root's own certificate decides nothing: a ceremony may have been interrupted after it.
    signs(&wall, &sign(1, &own.tbs()));
    signs(&wall, &sign(1, &LEAF.tbs()));
    signs(&wall, &sign(1, &list("Line", 30)));
    drop(wall);
    let wall = scene.wall("one");
    for other in [list("Another", 30), own.tbs()] {
        assert_eq!(refused(&wall, &sign(1, &other)), Refusal::Issuer);
    }
    signs(&wall, &sign(1, &LEAF.tbs()));
    signs(&wall, &sign(2, &list("Another", 30)));
}

#[test]
fn a_leaf_is_within_the_profiles_and_a_new_profile_is_read_at_once() {
    let scene = Scene::new("");
    let wall = scene.wall("one");
    let year = sign(
        1,
        &Certificate {
            days: (0, 365),
            ..LEAF
        }
        .tbs(),
    );
    assert_eq!(refused(&wall, &year), Refusal::Validity);
    scene.write("", "365d");
    signs(&wall, &year);
    let ahead = Certificate {
        days: (4, 30),
        ..LEAF
    };
    assert_eq!(refused(&wall, &sign(1, &ahead.tbs())), Refusal::Begin);
    let short = Scene::new("leaf_validity = \"10d\"");
    let bounded = short.wall("one");
    assert_eq!(refused(&bounded, &year), Refusal::Validity);
}

#[test]
fn an_authority_is_certified_if_a_token_of_this_installation_has_its_key() {
    let scene = Scene::new("");
    let root = scene.wall("one");
    let line = Certificate {
        issuer: "Root",
        subject: "Line",
        days: (0, 3_650),
        powers: IS_AUTHORITY,
        ..LEAF
    };
    let certified = sign(1, &line.tbs());
    assert_eq!(refused(&root, &certified), Refusal::KeyElsewhere);
    let responder = Certificate {
        issuer: "Root",
        powers: ANSWERS,
        ..LEAF
    };
    let responder = sign(1, &responder.tbs());
    assert_eq!(refused(&root, &responder), Refusal::ResponderElsewhere);
    scene.wall("two").note_made(&described(9, "ca 9"));
    signs(&root, &certified);
    signs(&root, &responder);
    scene.write("authority_certificates = \"any\"", "90d");
    let elsewhere = Certificate { key: 8, ..line };
    signs(&root, &sign(1, &elsewhere.tbs()));
    let closed = Scene::new("authority_certificates = \"none\"");
    let none = closed.wall("one");
    none.note_made(&described(9, "ca 9"));
    assert_eq!(refused(&none, &certified), Refusal::NoAuthorities);
    let long = Certificate {
        days: (0, 20_000),
        ..elsewhere
    };
    assert_eq!(refused(&root, &sign(1, &long.tbs())), Refusal::Validity);
}

#[test]
fn a_request_is_for_the_own_key_and_a_list_ends_within_a_year() {
    let scene = Scene::new("");
    let wall = scene.wall("one");
    signs(&wall, &sign(1, &request(1)));
    assert_eq!(
        refused(&wall, &sign(1, &request(2))),
        Refusal::AnothersRequest
    );
    let long = sign(1, &list("Line", 400));
    assert_eq!(refused(&wall, &long), Refusal::ListValidity);
}

#[test]
fn other_bytes_and_too_many_signatures_are_refused() {
    let scene = Scene::new("leaves_per_hour = 3");
    let wall = scene.wall("one");
    assert_eq!(refused(&wall, &sign(3, &LEAF.tbs())), Refusal::NotShown);
    for bytes in [&b"arbitrary"[..], b"\x30\x00", b""] {
        assert!(matches!(refused(&wall, &sign(1, bytes)), Refusal::Bytes(_)));
    }
    let leaf = sign(1, &LEAF.tbs());
    (0..3).for_each(|_| signs(&wall, &leaf));
    assert_eq!(refused(&wall, &leaf), Refusal::TooMany("leaf"));
    // Each key has its own hour, and each class.
    signs(&wall, &sign(2, &LEAF.tbs()));
    signs(&wall, &sign(1, &list("Line", 30)));
    let made = wall.counts().counts;
    let made: u64 = made
        .iter()
        .filter(|it| it.key == spki_sha256(&spki(1)))
        .map(|it| it.made)
        .sum();
    assert_eq!(made, 4);
}

#[test]
fn a_key_that_may_have_signed_is_not_deleted() {
    let scene = Scene::new("");
    let wall = scene.wall("one");
    wall.note_made(&described(1, "ca 1"));
    assert_eq!(wall.may_destroy(&described(1, "ca 1")), Ok(()));
    assert_eq!(wall.may_destroy(&described(2, TEST_KEY_LABEL)), Ok(()));
    assert_eq!(
        wall.may_destroy(&described(3, "ca 3")),
        Err(Refusal::NotThrowAway)
    );
    signs(&wall, &sign(1, &challenge()));
    assert_eq!(wall.may_destroy(&described(1, "ca 1")), Ok(()));
    // Admitted: it may be signed at this moment.
    wall.admit(&sign(1, &LEAF.tbs()))
        .map(|_| ())
        .expect("a leaf");
    assert_eq!(
        wall.may_destroy(&described(1, "ca 1")),
        Err(Refusal::NotThrowAway)
    );
    let secret = Operation::DestroySecret("hallmark-credential dps".into());
    assert_eq!(refused(&wall, &secret), Refusal::SecretInUse);
    wall.note_imported("hallmark-credential dps");
    assert!(wall.admit(&secret).is_ok());
}

#[test]
fn a_worker_of_one_command_signs_for_no_authority() {
    let scene = Scene::new("");
    let wall = Wall::of_private("one", scene.rules("one"), scene.0.path()).unwrap();
    signs(&wall, &sign(1, &challenge()));
    for message in [LEAF.tbs(), list("Line", 30), request(1)] {
        assert_eq!(refused(&wall, &sign(1, &message)), Refusal::Private);
    }
    assert!(!scene.0.path().join("token-one.signatures").exists());
}

/// On the path of each signature.
#[test]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "the number is what is asked for")]
fn the_time_of_judging_and_counting_a_leaf() {
    const TIMES: u32 = 1_000;
    let scene = Scene::new("");
    let wall = scene.wall("one");
    let leaf = sign(1, &LEAF.tbs());
    let begun = Instant::now();
    (0..TIMES).for_each(|_| signs(&wall, &leaf));
    let each = begun.elapsed() / TIMES;
    println!("{each:?} for each");
}
