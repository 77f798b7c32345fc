//! Tests the worker against a daemon that lies: an attacker controls the process that faces the
//! network, and asks the worker of a real token, in the daemon's own messages, for signatures.
//!
//! The lies are real bytes of this installation in which a few octets are others, so only the lie
//! itself can be the reason of a refusal.

use crate::process::until;
use crate::relying_party::Relying;
use crate::request::{Request, der};
use crate::test_env::TestEnv;
use hallmark_pki::x509::key::KeyType;
use hallmark_protocol::frame_writer::FrameWriter;
use hallmark_protocol::inventory::Inventory;
use hallmark_protocol::key_proof::{TEST_KEY_LABEL, algorithm_of};
use hallmark_protocol::message::{FrameReader, Hello, Message, ToWorker, TokenRequest, VERSION};
use hallmark_protocol::operation::{Answer, Operation};
use hallmark_protocol::signature_count::{SignatureClass, SignatureCounts, add_digest};
use hallmark_protocol::{KeyDescription, KeySpecification, TokenError, spki_sha256};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// Another client of the worker: it has all that the daemon's process has.
struct Front {
    stream: UnixStream,
    writer: FrameWriter,
    reader: FrameReader,
    next: u64,
}

impl Front {
    fn connect(env: &TestEnv) -> Self {
        let stream = UnixStream::connect(env.path("state/token-factory.sock")).unwrap();
        let writer = FrameWriter::new(stream.try_clone().unwrap());
        let token = "factory".to_owned();
        let version = VERSION;
        writer.append(&Hello { version, token }).unwrap();
        writer.flush().unwrap();
        let mut front = Self {
            stream,
            writer,
            reader: FrameReader::default(),
            next: 0,
        };
        let hello = loop {
            match front.reader.next_message::<Hello>().unwrap() {
                Some(hello) => break hello,
                None => front.fill(),
            }
        };
        assert_eq!(hello.token, "factory");
        front
    }

    fn fill(&mut self) {
        let read = self.reader.fill(&mut self.stream).unwrap();
        assert!(read > 0, "the worker has closed the connection");
    }

    fn ask(&mut self, operation: Operation) -> Result<Answer, TokenError> {
        let id = self.next;
        self.next += 1;
        let request = ToWorker::Request(TokenRequest {
            id,
            deadline_ms: 30_000,
            operation,
            trace: None,
        });
        self.writer.append(&request).unwrap();
        self.writer.flush().unwrap();
        loop {
            match self.reader.next_message::<Message>().unwrap() {
                Some(Message::Answer(answer)) if answer.id == id => return answer.result,
                Some(_) => {}
                None => self.fill(),
            }
        }
    }

    fn sign(&mut self, key: &KeyDescription, message: &[u8]) -> Result<Answer, TokenError> {
        self.ask(Operation::Sign {
            key: Arc::new(key.reference()),
            algorithm: algorithm_of(&key.spki).unwrap(),
            message: message.to_vec(),
        })
    }

    /// Every key of the token.
    fn keys(&mut self) -> Vec<KeyDescription> {
        let answer = self.ask(Operation::Inventory).unwrap();
        Inventory::try_from(answer).unwrap().keys
    }

    fn counts(&mut self) -> SignatureCounts {
        let answer = self.ask(Operation::CountSignatures).unwrap();
        SignatureCounts::try_from(answer).unwrap()
    }
}

fn reason(outcome: Result<Answer, TokenError>) -> String {
    match outcome {
        Err(TokenError::Refused { reason, .. } | TokenError::Key { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// Replaces the first `from` in a copy.
fn with(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "a lie must not change lengths");
    let at = bytes.windows(from.len()).position(|it| it == from);
    let at = at.unwrap_or_else(|| panic!("{from:02x?} is not in the bytes"));
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn tbs_of_certificate(pem: &str) -> Vec<u8> {
    let der = der(pem);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    certificate.tbs_certificate.as_ref().to_vec()
}

fn spki_of(pem: &str) -> Vec<u8> {
    let der = der(pem);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    certificate.public_key().raw.to_vec()
}

/// `notAfter` of a certificate, as it stands in it.
fn not_after(tbs: &[u8]) -> Vec<u8> {
    const UTC_TIME: &[u8] = b"\x17\x0d";
    let times: Vec<usize> = (0..tbs.len() - 15)
        .filter(|at| tbs[*at..].starts_with(UTC_TIME) && tbs[at + 14] == b'Z')
        .collect();
    tbs[times[1]..times[1] + 15].to_vec()
}

/// The installation under attack, with one real certificate of each kind.
struct Scene {
    env: TestEnv,
    front: Front,
    leaf: Vec<u8>,
    authorities: Vec<(String, String)>,
}

impl Scene {
    fn set(limits: &str) -> Self {
        let env = TestEnv::new();
        let configuration = env.configuration();
        let before = "[token.environment]";
        assert!(configuration.contains(before));
        // The limits of an installation: other tests move the daemon's clock alone.
        let moved = "[token.limits]\nstarts_within = \"100000d\"\n\n";
        assert!(configuration.contains(moved));
        let usual = configuration.replace(moved, "");
        env.configure(&usual.replacen(before, &format!("{limits}{before}"), 1));
        let env = env.started();
        let device = env.station().obtain(&Request::device("press-1"));
        let names = ["root", "plant", "line-1", "operations"];
        let authorities = names.map(|it| (it.to_owned(), env.authority(it)));
        Self {
            front: Front::connect(&env),
            leaf: tbs_of_certificate(&device.certificate),
            authorities: authorities.into(),
            env,
        }
    }

    fn certificate(&self, authority: &str) -> String {
        let mut all = self.authorities.iter();
        let found = all.find(|it| it.0 == authority);
        found.expect("an authority of the scene").1.clone()
    }

    /// The key of an authority, as the token has it.
    fn key(&mut self, authority: &str) -> KeyDescription {
        let spki = spki_of(&self.certificate(authority));
        let mut keys = self.front.keys().into_iter();
        keys.find(|it| *it.spki == *spki)
            .expect("it is on the token")
    }

    fn is_refused(&mut self, key: &KeyDescription, message: &[u8], why: &str) {
        let before = self.front.counts();
        let reason = reason(self.front.sign(key, message));
        assert!(reason.contains(why), "{reason:?} should say {why:?}");
        let after = self.front.counts();
        let of_key = |counts: &SignatureCounts| {
            let place = spki_sha256(&key.spki);
            let own = counts.counts.iter().filter(|it| it.key == place);
            own.map(|it| it.made).sum::<u64>()
        };
        assert_eq!(of_key(&after), of_key(&before), "nothing was signed");
        assert_eq!(after.refused, before.refused + 1, "{why}");
    }
}

/// Verifies: the worker signs no certificate under another issuer's name, for longer than every
/// profile, from a day of the future on, or for an authority whose key is elsewhere; no leaf that
/// could sign for others; no list or request of another key; and no other bytes. Each refusal is
/// counted, in the health, the metrics, the worker's own record and an alarm.
#[test]
fn a_daemon_that_lies_gets_no_signature() {
    let mut scene = Scene::set("");
    let line = scene.key("line-1");
    let root = scene.key("root");
    let leaf = scene.leaf.clone();

    let issuer = der(&scene.certificate("line-1"));
    let (_, issuer) = x509_parser::parse_x509_certificate(&issuer).unwrap();
    let name = issuer.subject().as_raw().to_vec();
    let mut other = name.clone();
    *other.last_mut().unwrap() ^= 1;
    scene.is_refused(&line, &with(&leaf, &name, &other), "another name");
    // A true leaf of line-1, and the key of another authority.
    let operations = scene.key("operations");
    scene.is_refused(&operations, &leaf, "another name");
    scene.is_refused(&root, &leaf, "another signature algorithm");

    let end = not_after(&leaf);
    let mut later = end.clone();
    later[2] += 1;
    scene.is_refused(&line, &with(&leaf, &end, &later), "valid for longer");
    // Ten years later, both ends.
    let begin = leaf.windows(2).position(|it| it == b"\x17\x0d").unwrap();
    let mut ahead = with(&leaf, &end, &later);
    ahead[begin + 2] += 1;
    scene.is_refused(&line, &ahead, "too far in the future");

    let usage = b"\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x07\x80";
    let signs = b"\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x02\x84";
    scene.is_refused(&line, &with(&leaf, usage, signs), "in no token");

    let plant = tbs_of_certificate(&scene.certificate("plant"));
    let key = spki_of(&scene.certificate("plant"));
    let mut foreign = key.clone();
    *foreign.last_mut().unwrap() ^= 1;
    scene.is_refused(&root, &with(&plant, &key, &foreign), "in no token");

    scene.is_refused(&line, b"arbitrary", "the bytes are not signed");
    scene.is_refused(
        &line,
        b"\x30\x03\x02\x01\x05",
        "no certificate, revocation list",
    );
    scene.is_refused(&line, &[&leaf[..], b"\0"].concat(), "not one value");

    let list = Relying::on(&scene.env).crl("plant");
    let (_, list) = CertificateRevocationList::from_der(&list).unwrap();
    let list = list.tbs_cert_list.as_ref().to_vec();
    scene.is_refused(&line, &list, "another name");

    // A request for a key that the attacker has.
    let info = request_info(&foreign);
    scene.is_refused(&line, &info, "for another key");

    let refused = scene.front.counts().refused;
    let metrics = scene.env.metrics();
    let metric = format!("hallmark_token_worker_refusals_total{{token=\"factory\"}} {refused}");
    assert!(metrics.contains(&metric), "{metrics}");
    let status = scene.env.json(&["status"]);
    let alarms = status["alarm_details"].as_array().unwrap();
    let alarm = alarms.iter().find(|it| it["code"] == "worker_refused");
    let alarm = alarm.unwrap_or_else(|| panic!("{status:#}"));
    assert_eq!(alarm["parameters"]["count"], refused, "{alarm}");
    is_recorded(&scene.env, &format!("\"refused\":{refused}"));
}

/// `CertificationRequestInfo` with an empty name and no attributes.
fn request_info(spki: &[u8]) -> Vec<u8> {
    let inner = [&b"\x02\x01\x00\x30\x00"[..], spki, b"\xa0\x00"].concat();
    let length = u8::try_from(inner.len()).unwrap();
    assert!(length < 0x80);
    [&[0x30, length][..], &inner].concat()
}

fn is_recorded(env: &TestEnv, what: &str) {
    until("the worker's own record has it", || {
        let text = std::fs::read_to_string(env.path("state/token-factory.signatures"));
        text.unwrap().contains(what).then_some(())
    });
}

/// Verifies: no key of an authority is deleted, whatever label the request says; test keys and new
/// keys that have signed nothing are.
#[test]
fn a_daemon_that_lies_deletes_no_key() {
    let mut scene = Scene::set("");
    let line = scene.key("line-1");
    let mut renamed = line.reference();
    renamed.label = TEST_KEY_LABEL.into();
    for key in [line.reference(), renamed] {
        let why = reason(scene.front.ask(Operation::Destroy(key)));
        assert!(why.contains("only test keys"), "{why}");
    }
    let why = reason(
        scene
            .front
            .ask(Operation::DestroySecret("hallmark-credential dps".into())),
    );
    assert!(why.contains("only secrets for tests"), "{why}");
    assert_eq!(scene.key("line-1").spki, line.spki);
    scene.env.station().obtain(&Request::device("press-2"));

    let mut make = |label: &str, id| {
        let made = scene.front.ask(Operation::Generate(KeySpecification {
            key_type: KeyType::P256,
            label: label.into(),
            id: vec![id; 16],
        }));
        KeyDescription::try_from(made.unwrap()).unwrap()
    };
    let (test, new) = (make(TEST_KEY_LABEL, 7), make("hallmark new 1", 8));
    // A test key signs no certificate, so none is lost with it.
    let why = reason(scene.front.sign(&test, &scene.leaf));
    assert!(why.contains("has not shown"), "{why}");
    for key in [test, new] {
        let gone = scene.front.ask(Operation::Destroy(key.reference()));
        assert_eq!(gone, Ok(Answer::Done(())));
    }
}

/// Verifies what a compromised daemon can still have signed: a leaf under the authority's own name,
/// within the profiles, as often as the limits allow. Each is counted by the worker, with the sum
/// of the digests, in a record that outlives the worker.
#[test]
fn a_leaf_without_a_record_is_signed_within_the_limits_and_counted_by_the_worker() {
    // The daemon itself signs one leaf by line-1.
    let mut scene = Scene::set("[token.limits]\nleaves_per_hour = 5\n");
    let line = scene.key("line-1");
    let own = [spki_of(&scene.certificate("line-1"))].map(|it| spki_sha256(&it))[0];
    let leaves = |counts: &SignatureCounts| {
        let mut all = counts.counts.iter();
        all.find(|it| it.key == own && it.class == SignatureClass::Leaf)
            .map_or((0, [0; 32]), |it| (it.made, it.digest_sum))
    };
    let (before, mut sum) = leaves(&scene.front.counts());
    assert_eq!(before, 1, "that of the device");
    let leaf = scene.leaf.clone();
    for _ in before..5 {
        assert!(matches!(
            scene.front.sign(&line, &leaf),
            Ok(Answer::Signature(_))
        ));
        add_digest(&mut sum, &spki_sha256(&leaf));
    }
    scene.is_refused(&line, &leaf, "as often in this hour");
    assert_eq!(leaves(&scene.front.counts()), (5, sum));
    is_recorded(
        &scene.env,
        &format!("\"made\":5,\"digest_sum\":\"{}\"", hex::encode(sum)),
    );
    scene.env.restart();
    scene.front = Front::connect(&scene.env);
    let counts = scene.front.counts();
    assert_eq!(leaves(&counts), (5, sum), "{counts:?}");
    assert_eq!(counts.unclean_ends, 0);
}

/// Verifies: `authority_certificates = "none"` certifies no authority, also none whose key is here.
#[test]
fn no_authority_is_certified_outside_ceremonies() {
    let mut scene = Scene::set("");
    let root = scene.key("root");
    let plant = tbs_of_certificate(&scene.certificate("plant"));
    assert!(matches!(
        scene.front.sign(&root, &plant),
        Ok(Answer::Signature(_))
    ));
    let limits = "[token.limits]\nauthority_certificates = \"none\"\n[token.environment]";
    let open = std::fs::read_to_string(scene.env.path("hallmark.toml")).unwrap();
    scene
        .env
        .configure(&open.replacen("[token.environment]", limits, 1));
    scene.env.restart();
    scene.front = Front::connect(&scene.env);
    scene.is_refused(&root, &plant, "no authority is certified now");
    scene.env.station().obtain(&Request::device("press-3"));
}
